"""Equations 11.5 and 11.6 of Prince (2023) for a form's blocks, as text and as LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations, pairwise

from unbraid.discover._block import Block

# Written out, f6 alone has 32 terms in its argument: beyond that the trunk's own name reads better.
_WRITTEN_OUT = 6


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


def equation(blocks: Sequence[Block]) -> Equation:
    """Equations 11.5 and 11.6 for these blocks.

    Up to six blocks with identity skips and nothing after the addition are written out. Otherwise the trunk keeps its
    name: h_k = P_k(S_k h_{k−1} + Σ_j f_{k,j}(h_{k−1})), factors that are the identity left out.
    Blocks count from 1, as in the book, so that f_1 is block 0; the branches of a block from 0: f_{1,0}, f_{1,1}.
    """
    pure = all(
        block.skip == "identity" and block.join == "sum" and not block.after and len(block.branches) == 1
        for block in blocks
    )
    written_out = pure and len(blocks) <= _WRITTEN_OUT
    text = _unravelled(len(blocks), _TEXT) if written_out else _recursion(blocks, _TEXT)
    latex = _unravelled(len(blocks), _LATEX) if written_out else _recursion(blocks, _LATEX)
    if written_out:
        return Equation(text, latex, _derivative(len(blocks), _TEXT), _derivative(len(blocks), _LATEX))
    return Equation(text, latex, _product(blocks, _TEXT), _product(blocks, _LATEX))


@dataclass(frozen=True)
class _Notation:
    function: str
    call: str
    input: str
    output: str
    partial: str
    times: str
    identity: str
    line: str
    beside: str


_TEXT = _Notation("f{}", "{}[{}]", "x", "y", "∂f{1}/∂f{0}", "·", "I", "\n", "[{}]")
_LATEX = _Notation(
    r"\mathbf{{f}}_{{{}}}",
    r"{}\left[{}\right]",
    r"\mathbf{x}",
    r"\mathbf{y}",
    r"\frac{{\partial \mathbf{{f}}_{{{1}}}}}{{\partial \mathbf{{f}}_{{{0}}}}}",
    " ",
    r"\mathbf{I}",
    r"\\ ",
    r"\left[{}\right]",
)


def _unravelled(count: int, notation: _Notation) -> str:
    """Y = x + f1[x] + f2[x + f1[x]] + ...: every argument is the sum of the terms before it."""
    terms = [notation.input]
    for k in range(1, count + 1):
        terms.append(notation.call.format(notation.function.format(k), " + ".join(terms)))
    return f"{notation.output} = {' + '.join(terms)}"


def _derivative(count: int, notation: _Notation) -> str:
    """∂y/∂f1 = I + ∂f2/∂f1 + (∂f3/∂f1 + ∂f2/∂f1·∂f3/∂f2) + ...: a group for the last block that a path passes."""
    groups = [notation.identity]
    for last in range(2, count + 1):
        between = range(2, last)
        ways = chain.from_iterable(combinations(between, size) for size in range(len(between) + 1))
        terms = [_along((1, *way, last), notation) for way in ways]
        groups.append(terms[0] if len(terms) == 1 else f"({' + '.join(terms)})")
    return f"{_left(notation)} = {' + '.join(groups)}"


def _along(path: tuple[int, ...], notation: _Notation) -> str:
    return notation.times.join(notation.partial.format(a, b) for a, b in pairwise(path))


def _left(notation: _Notation) -> str:
    return "∂y/∂f1" if notation is _TEXT else r"\frac{\partial \mathbf{y}}{\partial \mathbf{f}_{1}}"


def _trunk(k: int, last: int, notation: _Notation) -> str:
    if k == 0:
        return notation.input
    if k == last:
        return notation.output
    return f"h{k}" if notation is _TEXT else rf"\mathbf{{h}}_{{{k}}}"


def _factor(letter: str, k: int, notation: _Notation) -> str:
    return f"{letter}{k}" if notation is _TEXT else rf"\mathbf{{{letter}}}_{{{k}}}"


def _recursion(blocks: Sequence[Block], notation: _Notation) -> str:
    """One line per block, with S_k and P_k where they are not the identity."""
    lines = []
    for k, block in enumerate(blocks, start=1):
        before = _trunk(k - 1, len(blocks), notation)
        many = len(block.branches) > 1
        terms = [
            notation.call.format(notation.function.format(f"{k},{j}" if many else k), before)
            for j in range(len(block.branches))
        ]
        if block.skip == "identity":
            terms.insert(0, before)
        elif block.skip != "none":
            terms.insert(0, f"{_factor('S', k, notation)}{notation.times}{before}")
        total = " + ".join(terms) if block.join == "sum" else notation.beside.format(", ".join(terms))
        if block.after:
            total = notation.call.format(_factor("P", k, notation), total)
        lines.append(f"{_trunk(k, len(blocks), notation)} = {total}")
    return notation.line.join(lines)


def _product(blocks: Sequence[Block], notation: _Notation) -> str:
    """The same derivative before its product is multiplied out: ∏_k P_k (S_k + J_k), the last block first."""
    factors = []
    for k, block in reversed([*enumerate(blocks, start=1)][1:]):
        skip = {"identity": notation.identity, "none": ""}.get(block.skip, _factor("S", k, notation))
        parts = [part for part in (skip, _factor("J", k, notation)) if part]
        total = " + ".join(parts) if block.join == "sum" else notation.beside.format("; ".join(parts))
        after = f"{_factor('P', k, notation)}{notation.times}" if block.after else ""
        factors.append(f"{after}({total})")
    first = [_factor("P", 1, notation)] if blocks[0].after else []
    return f"{_left(notation)} = {notation.times.join([*factors, *first]) or notation.identity}"
