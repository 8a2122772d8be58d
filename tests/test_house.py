"""The house keeps its own rules: what a stranger must hold in his head at one line, and what a file says of itself."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unbraid"
FILES = sorted(SOURCE.rglob("*.py"))
COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
LONG = 40  # lines up to which a file may go without a word


def nested(tree: ast.AST) -> list[int]:
    """The lines of comprehensions that have two generators, or another comprehension inside."""
    found = [node for node in ast.walk(tree) if isinstance(node, COMPREHENSIONS)]
    return [node.lineno for node in found if len(node.generators) > 1 or any(map(inside(node), ast.walk(node)))]


def inside(outer):
    return lambda node: node is not outer and isinstance(node, COMPREHENSIONS)


def test_a_comprehension_is_a_sentence():
    """At most one in a thousand lines is a riddle; equinox, einops and penzai have 0.2 or less."""
    riddles, lines = [], 0
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        lines += text.count("\n")
        riddles += [f"{file.relative_to(SOURCE)}:{line}" for line in nested(ast.parse(text))]
    assert len(riddles) <= lines / 1000, riddles


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("[x for x in y if x]", 0),
        ("[f(x) for x in y]\n{a for a in b}", 0),
        ("[x for y in z for x in y]", 1),
        ("[[x for x in y] for y in z]", 1),
        ("{a: any(x for x in y) for a, y in z}", 1),
    ],
)
def test_riddles_are_seen(text, count):
    assert len(nested(ast.parse(text))) == count


def test_a_file_says_what_it_is_for():
    silent = []
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        if text.count("\n") > LONG and not ast.get_docstring(ast.parse(text)):
            silent.append(str(file.relative_to(SOURCE)))
    assert not silent
