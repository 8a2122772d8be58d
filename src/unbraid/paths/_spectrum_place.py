"""Where a gradient is taken: a source, or a block."""

from unbraid.discover import BlockLike, index_of
from unbraid.form import ResidualForm
from unbraid.graph import Add


def place_of(form: ResidualForm, at: BlockLike) -> str:
    """The stream that `at` means: "source" is the first source, a source's name itself, and a block its sum.

    At the sum, the gradient is that at the branch's output.
    """
    block = block_of(form, at)
    if block is not None:
        return add_of(form, block).output
    return form.sources[0] if at == "source" else str(at)


def block_of(form: ResidualForm, at: BlockLike) -> int | None:
    """The index of the block that `at` means; None where it means a source.

    Raises:
        IndexError: there is no such block.
        ValueError: there is no such source either.
    """
    if isinstance(at, str) and (at == "source" or at in form.sources):
        return None
    try:
        return index_of(form.blocks, at, "at")
    except IndexError as error:
        if not isinstance(at, str):
            raise
        names = str(error).partition(repr(at))[2]  # those that come close
        raise ValueError(
            f'at: "source", a block\'s index, or one of the sources {list(form.sources)}; {at!r} came, which is no '
            f"block's name either{names}"
        ) from None


def add_of(form: ResidualForm, block: int) -> Add:
    """The addition of a block."""
    for add in form.adds:
        if add.block == block:
            return add
    raise IndexError(f"at: block {block} is gone from this form, which is without a branch around it.")
