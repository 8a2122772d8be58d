"""How the symbols of an equation are written, in plain characters and in LaTeX."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Notation:
    function: str
    call: str
    input: str
    output: str
    partial: str
    times: str
    identity: str
    line: str
    beside: str
    elementwise: str
    diagonal: str


LETTERS = "abcde"  # of several trunks
MAPS = {"projection": "S", "mix": "R"}
TEXT = Notation("f{}", "{}[{}]", "x", "y", "∂f{1}/∂f{0}", "·", "I", "\n", "[{}]", " ⊙ ", "diag({})")
LATEX = Notation(
    r"\mathbf{{f}}_{{{}}}",
    r"{}\left[{}\right]",
    r"\mathbf{x}",
    r"\mathbf{y}",
    r"\frac{{\partial \mathbf{{f}}_{{{1}}}}}{{\partial \mathbf{{f}}_{{{0}}}}}",
    " ",
    r"\mathbf{I}",
    r"\\ ",
    r"\left[{}\right]",
    r" \odot ",
    r"\operatorname{{diag}}({})",
)


def factor(letter: str, k: int, notation: Notation) -> str:
    return f"{letter}{k}" if notation is TEXT else rf"\mathbf{{{letter}}}_{{{k}}}"
