"""Equations 11.5 and 11.6 of Prince (2023) for a form's blocks, as text and as LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations, pairwise

from unbraid.discover._block import Block
from unbraid.discover._equation_notation import LATEX, LETTERS, MAPS, TEXT, Notation, factor

# Written out, f6 alone has 32 terms in its argument: beyond that the trunk's own name reads better.
_WRITTEN_OUT = 6


@dataclass(frozen=True)
class TrunkReads:
    """What the blocks of one trunk read, as (trunk, k): the k-th state of a trunk, 0 where it begins.

    Attributes:
        blocks: their indices, in the order in which they run.
        arguments: for each what its branches read.
        read_by_head: whether the output reads the last state.
    """

    blocks: tuple[int, ...]
    arguments: tuple[tuple[tuple[int, int], ...], ...]
    read_by_head: bool


@dataclass(frozen=True)
class Equation:
    """The equations of a residual network of K blocks, as text and as LaTeX.

    Attributes:
        text: Equation 11.5 of Prince (2023): the output as the input plus K smaller networks.
        latex: the same in LaTeX.
        derivative: Equation 11.6: the derivative of the output with respect to f1, one term per path.
        derivative_latex: the same in LaTeX.
    """

    text: str
    latex: str
    derivative: str
    derivative_latex: str

    def __str__(self) -> str:
        return f"{self.text}\n{self.derivative}"

    def _repr_latex_(self) -> str:
        return f"$$\\begin{{aligned}}{self.latex}\\\\{self.derivative_latex}\\end{{aligned}}$$"


def written(blocks: Sequence[Block], trunks: Sequence[TrunkReads] = ()) -> Equation:
    """Equations 11.5 and 11.6 for these blocks.

    Up to six blocks with identity skips and nothing after the addition are written out. Otherwise the trunk keeps its
    name: h_k = P_k(S_k h_{k−1} + Σ_j f_{k,j}(h_{k−1})), factors that are the identity left out. A gate is g_k ⊙ h, a
    mix of streams R_k h, and what a concatenation lays side by side [S_k h, f_k(h)].
    Blocks count from 1, as in the book, so that f_1 is block 0; the branches of a block from 0: f_{1,0}, f_{1,1}.

    Args:
        blocks: the blocks, by index.
        trunks: where several trunks interact, what the blocks of each read: then each trunk has a letter of its own.
    """
    if len(trunks) > 1:
        return Equation(
            _several(blocks, trunks, TEXT),
            _several(blocks, trunks, LATEX),
            "∂y/∂f1 = Σ_paths ∏_k J_k",
            rf"{_left(LATEX)} = \sum_{{\text{{paths}}}} \prod_k \mathbf{{J}}_k",
        )
    pure = all(
        block.skip == "identity" and block.join == "sum" and not block.after and len(block.branches) == 1
        for block in blocks
    )
    written_out = pure and len(blocks) <= _WRITTEN_OUT
    text = _unravelled(len(blocks), TEXT) if written_out else _recursion(blocks, TEXT)
    latex = _unravelled(len(blocks), LATEX) if written_out else _recursion(blocks, LATEX)
    if written_out:
        return Equation(text, latex, _derivative(len(blocks), TEXT), _derivative(len(blocks), LATEX))
    return Equation(text, latex, _product(blocks, TEXT), _product(blocks, LATEX))


def _unravelled(count: int, notation: Notation) -> str:
    """Y = x + f1[x] + f2[x + f1[x]] + ...: every argument is the sum of the terms before it."""
    terms = [notation.input]
    for k in range(1, count + 1):
        terms.append(notation.call.format(notation.function.format(k), " + ".join(terms)))
    return f"{notation.output} = {' + '.join(terms)}"


def _derivative(count: int, notation: Notation) -> str:
    """∂y/∂f1 = I + ∂f2/∂f1 + (∂f3/∂f1 + ∂f2/∂f1·∂f3/∂f2) + ...: a group for the last block that a path passes."""
    groups = [notation.identity]
    for last in range(2, count + 1):
        between = range(2, last)
        ways = chain.from_iterable(combinations(between, size) for size in range(len(between) + 1))
        terms = [_along((1, *way, last), notation) for way in ways]
        groups.append(terms[0] if len(terms) == 1 else f"({' + '.join(terms)})")
    return f"{_left(notation)} = {' + '.join(groups)}"


def _along(path: tuple[int, ...], notation: Notation) -> str:
    return notation.times.join(notation.partial.format(a, b) for a, b in pairwise(path))


def _left(notation: Notation) -> str:
    return "∂y/∂f1" if notation is TEXT else r"\frac{\partial \mathbf{y}}{\partial \mathbf{f}_{1}}"


def _trunk(k: int, last: int, notation: Notation) -> str:
    if k == 0:
        return notation.input
    if k == last:
        return notation.output
    return f"h{k}" if notation is TEXT else rf"\mathbf{{h}}_{{{k}}}"


def _skipped(block: Block, k: int, before: str, notation: Notation) -> str | None:
    """What a skip makes of the stream."""
    if block.skip == "none":
        return None
    if block.skip == "identity":
        return before
    if block.skip == "gate":
        return f"{factor('g', k, notation)}{notation.elementwise}{before}"
    return f"{factor(MAPS[block.skip], k, notation)}{notation.times}{before}"


def _skip_map(block: Block, k: int, notation: Notation) -> str:
    """The derivative of a skip."""
    if block.skip in ("identity", "none"):
        return notation.identity if block.skip == "identity" else ""
    if block.skip == "gate":
        return notation.diagonal.format(factor("g", k, notation))
    return factor(MAPS[block.skip], k, notation)


def _recursion(blocks: Sequence[Block], notation: Notation) -> str:
    """One line per block, with S_k and P_k where they are not the identity."""
    lines = []
    for k, block in enumerate(blocks, start=1):
        before = _trunk(k - 1, len(blocks), notation)
        lines.append(f"{_trunk(k, len(blocks), notation)} = {_step(block, k, before, before, notation)}")
    return notation.line.join(lines)


def _step(block: Block, k: int, before: str, read: str, notation: Notation) -> str:
    """What block k makes of the stream before it, and of what its branches read."""
    many = len(block.branches) > 1
    terms = [
        notation.call.format(notation.function.format(f"{k},{j}" if many else k), read)
        for j in range(len(block.branches))
    ]
    if (skip := _skipped(block, k, before, notation)) is not None:
        terms.insert(0, skip)
    total = " + ".join(terms) if block.join == "sum" else notation.beside.format(", ".join(terms))
    return notation.call.format(factor("P", k, notation), total) if block.after else total


def _several(blocks: Sequence[Block], trunks: Sequence[TrunkReads], notation: Notation) -> str:
    """One line per block in the order in which they run, each trunk with its own letter; and what the output reads."""
    lines = dict[int, str]()
    for number, trunk in enumerate(trunks):
        for place, (block, arguments) in enumerate(zip(trunk.blocks, trunk.arguments, strict=True)):
            read = ", ".join(_state(*argument, notation) for argument in arguments)
            step = _step(blocks[block], block + 1, _state(number, place, notation), read, notation)
            lines[block] = f"{_state(number, place + 1, notation)} = {step}"
    ends = [_state(n, len(trunk.blocks), notation) for n, trunk in enumerate(trunks) if trunk.read_by_head]
    head = f"{notation.output} = {notation.call.format(factor('P', 0, notation), ', '.join(ends))}"
    return notation.line.join([*(lines[block] for block in sorted(lines)), head])


def _state(trunk: int, place: int, notation: Notation) -> str:
    letter = LETTERS[trunk] if trunk < len(LETTERS) else f"h{trunk}"
    if notation is TEXT:
        return f"{letter}{place}" if trunk < len(LETTERS) else f"{letter}_{place}"
    return (
        rf"\mathbf{{{letter[0]}}}^{{{letter[1:]}}}_{{{place}}}" if letter[1:] else rf"\mathbf{{{letter}}}_{{{place}}}"
    )


def _product(blocks: Sequence[Block], notation: Notation) -> str:
    """The same derivative before its product is multiplied out: ∏_k P_k (S_k + J_k), the last block first."""
    factors = []
    for k, block in reversed([*enumerate(blocks, start=1)][1:]):
        skip = _skip_map(block, k, notation)
        parts = [part for part in (skip, factor("J", k, notation)) if part]
        total = f"({' + '.join(parts)})" if block.join == "sum" else notation.beside.format("; ".join(parts))
        after = f"{factor('P', k, notation)}{notation.times}" if block.after else ""
        factors.append(f"{after}{total}")
    first = [factor("P", 1, notation)] if blocks[0].after else []
    if blocks[0].join == "concatenation":  # f1 is a part of the first sum
        first.append(
            notation.beside.format(f"0; {notation.identity}" if blocks[0].skip != "none" else notation.identity)
        )
    return f"{_left(notation)} = {notation.times.join([*factors, *first]) or notation.identity}"
