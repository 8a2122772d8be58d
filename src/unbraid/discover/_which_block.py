"""Which block, or which branch of one, a caller means: by number, by name, or by the block itself.

Whatever takes a block asks here, so that all calls know the same words: 3, −1 for the last, "layer1.0", and blocks of
this form or of one derived from it. A branch is a pair (block, branch), or has a name of its own.
"""

import difflib
import operator
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NoReturn, SupportsIndex, TypeAlias

from unbraid.discover._block import Block, every_block
from unbraid.graph import SKIP, Removal

__all__ = ["BlockLike", "BranchLike", "branch_of", "index_of", "removal_name", "removal_of"]

BlockLike: TypeAlias = SupportsIndex | str | Block
BranchLike: TypeAlias = BlockLike | tuple[BlockLike, SupportsIndex | str]  # a whole block, or one of its branches

_LISTED = 6


def index_of(top: Sequence[Block], which: BlockLike, call: str, *, nested: bool = True) -> int:
    """The index of a block.

    Args:
        top: the top-level blocks of a form.
        which: the block's index, from the end of the top-level ones where it is negative; its name; or the block.
        call: who asks, for the messages.
        nested: whether blocks inside branches will do.

    Raises:
        IndexError: there is no such block.
    """
    if isinstance(which, Block):
        return _by_block(top, which, call)
    blocks = every_block(top) if nested else top
    if isinstance(which, str):
        match = next((block.index for block in blocks if block.name == which), None)
        if match is None:
            _unknown(top, which, call, [block.name for block in blocks])
        return match
    number = _number(which, call)
    index = number + len(top) if number < 0 else number
    if not 0 <= index < len(blocks):
        negative = f", and −1 to −{len(top)} from the end" if number < 0 else ""
        raise IndexError(f"{call}: there is no block {number}; blocks are numbered {_range(len(blocks))}{negative}.")
    return index


def branch_of(top: Sequence[Block], block: int, branch: SupportsIndex | str, call: str) -> int:
    """The number of a block's branch, given by number or name.

    Raises:
        IndexError: there is no such branch.
    """
    names = next(one.branches for one in every_block(top) if one.index == block)
    if isinstance(branch, str):
        if branch not in names:
            skip = "; form.without and lesion take skips, too" if branch == "skip" else ""
            raise IndexError(
                f"{call}: block {block} has no branch {branch!r}; its branches are {_quoted(names)}{skip}."
            )
        return names.index(branch)
    number = _number(branch, call)
    if not 0 <= number < len(names):
        skip = "; −1 is the skip" if number == -1 else ""
        raise IndexError(
            f"{call}: block {block} has no branch {number}; branches are numbered {_range(len(names))}{skip}."
        )
    return number


def removal_of(top: Sequence[Block], part: BranchLike, call: str, *, skips: bool = False) -> Removal:
    """The index of a block, or (block, branch) for one of its branches; (block, −1) for its skip.

    Args:
        top: the top-level blocks of a form.
        part: a block as for `index_of`, a pair of a block and its branch's number or name, or the name of a branch that
            no other branch has.
        call: who asks, for the messages.
        skips: whether (block, "skip") and (block, −1) will do.

    Raises:
        IndexError: there is no such block or branch.
    """
    if isinstance(part, tuple):
        if len(part) != 2:
            raise IndexError(f"{call}: a branch is a pair (block, branch); {len(part)} things came: {part!r}.")
        block = index_of(top, part[0], call)
        if skips and not isinstance(part[1], bool) and part[1] in ("skip", SKIP):
            return block, SKIP
        return block, branch_of(top, block, part[1], call)
    blocks = every_block(top)
    if isinstance(part, str) and all(block.name != part for block in blocks):
        own: list[tuple[int, int]] = []
        for candidate in blocks:
            own += [(candidate.index, j) for j, name in enumerate(candidate.branches) if name == part]
        if len(own) == 1:
            return own[0]
        if own:
            raise IndexError(f"{call}: {len(own)} branches have the name {part!r}; give one as (block, branch): {own}.")
        branches = chain.from_iterable(block.branches for block in blocks if len(block.branches) > 1)
        _unknown(top, part, call, [*(block.name for block in blocks), *branches])
    return index_of(top, part, call)


def removal_name(top: Sequence[Block], part: Removal) -> str:
    """How a block or a branch is called: a branch by its own name, behind its block's where others have that name."""
    blocks = {block.index: block for block in every_block(top)}
    if not isinstance(part, tuple):
        return blocks[part].name
    if part[1] == SKIP:
        return f"{blocks[part[0]].name}: skip"
    block, branch = blocks[part[0]], blocks[part[0]].branches[part[1]]
    same = sum(branch in other.branches for other in blocks.values())
    return branch if same == 1 else f"{block.name}: {branch}"


def _by_block(top: Sequence[Block], which: Block, call: str) -> int:
    own = next((block for block in every_block(top) if block.index == which.index), None)
    if own is None or own.name != which.name:
        has = f"is {own.name!r}" if own is not None else "does not exist"
        raise IndexError(
            f"{call}: block {which.index} ({which.name!r}) is of another form; here block {which.index} {has}."
        )
    return own.index


def _number(which: Any, call: str) -> int:
    try:
        if not isinstance(which, bool):
            return operator.index(which)
    except TypeError:
        pass
    raise IndexError(
        f"{call}: a block is its index, its name, or a Block, and a branch (block, branch); got {which!r}."
    )


def _unknown(top: Sequence[Block], name: str, call: str, known: Iterable[str]) -> NoReturn:
    names = list(dict.fromkeys(known))
    within = [other for other in names if name and other.endswith(f".{name}")]
    close = [*within, *(other for other in difflib.get_close_matches(name, names, n=3) if other not in within)][:3]
    if close:
        raise IndexError(f"{call}: there is no block {name!r}. Did you mean {' or '.join(map(repr, close))}?")
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    raise IndexError(f"{call}: there is no block {name!r}; there are {_quoted(names[:_LISTED])}{more}.")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _range(count: int) -> str:
    return f"0 to {count - 1}" if count else "nothing: there are none"
