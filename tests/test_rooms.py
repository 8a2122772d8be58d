"""The order of the rooms: imports point downwards only, and private files are private to their room.

The order is that of ARCHITECTURE.md. An import inside a function counts like any other, but for `draw`: a result draws
itself by importing it when a figure is wanted.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from unbraid import _HOME

SOURCE = Path(__file__).resolve().parents[1] / "src" / "unbraid"
# From the bottom; those of one line do not import one another.
ORDER = (
    ("errors",),
    ("ranks", "nn"),
    ("graph",),
    ("walk",),
    ("freeze",),
    ("capture",),
    ("discover",),
    ("saved",),
    ("results",),
    ("form",),
    ("sweep",),
    ("terms", "paths", "circuits", "lesions", "pruning", "gradients"),
    ("data",),
    ("train",),
    ("draw",),
    ("reports",),
    ("cli",),
)
MOST_NAMES = 25  # of a face: more are not taken in at a glance
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


class Import(NamedTuple):
    """An import of a module of ours."""

    file: Path
    line: int
    module: str
    lazy: bool

    @property
    def here(self) -> str:
        """The room in which it stands; empty for files beside the rooms."""
        parts = self.file.relative_to(SOURCE).parts
        return parts[0].removesuffix(".py") if len(parts) > 1 or parts[0] == "errors.py" else ""

    @property
    def there(self) -> str:
        """The room that it names; empty for files beside the rooms."""
        name = self.module.split(".")[1] if "." in self.module else ""
        return "" if name.startswith("_") else name

    def __str__(self) -> str:
        return f"{self.file.relative_to(SOURCE)}:{self.line} imports {self.module}"


def imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text())
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "unbraid":
            for name in node.names:
                module = _HOME.get(name.name, f"unbraid.{name.name}")
                yield Import(path, node.lineno, module, id(node) in inside)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unbraid."):
            yield Import(path, node.lineno, node.module or "", id(node) in inside)
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("unbraid"):
                    yield Import(path, node.lineno, name.name, id(node) in inside)


def all_imports() -> list[Import]:
    root = SOURCE / "__init__.py"
    return [found for path in sorted(SOURCE.rglob("*.py")) if path != root for found in imports(path)]


def upwards(found: Import) -> bool:
    """Whether an import points to a room that does not lie below its own."""
    here, there = found.here, found.there
    if not there or here == there or (there == "draw" and found.lazy):
        return False
    if not here:  # beside the rooms lie files that any of them may use, and the command's beginning
        return there not in {"errors", "ranks"} and found.file.name != "__main__.py"
    return LEVEL[there] >= LEVEL[here]


def private(found: Import) -> bool:
    """Whether an import names a private file of another room."""
    room, *rest = found.module.split(".")[1:] or [""]
    return bool(rest) and rest[0].startswith("_") and room != found.here


def faces() -> list[Path]:
    """What others import from: packages and files without an underscore, but for the root, which gathers all."""
    within = [path.relative_to(SOURCE) for path in sorted(SOURCE.rglob("*.py"))]
    return [path for path in within if len(path.parts) > 1 and (path.stem == "__init__" or path.stem[0] != "_")]


def names_of(source: str) -> set[str]:
    """What a file offers: its `__all__`, and where it has none what it defines without an underscore."""
    defined = set[str]()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == "__all__":
                return set(ast.literal_eval(node.value))
            defined.add(ast.unparse(target))
    return {name for name in defined if not name.startswith("_")}


def test_every_room_has_a_place_in_the_order():
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")} | {"errors"}
    assert rooms == LEVEL.keys()


def test_imports_point_downwards_only():
    assert [str(found) for found in all_imports() if upwards(found)] == []


def test_the_picture_in_the_architecture_shows_this_order():
    picture = (SOURCE.parents[1] / "ARCHITECTURE.md").read_text().split("```text")[1].split("```")[0].splitlines()
    line = {room: n for n, text in enumerate(picture) for room in re.findall(r"(?:^ | {6,})([a-z]+)(?= {2,})", text)}
    assert line.keys() == LEVEL.keys() - {"errors"}
    shown = sorted(line, key=line.__getitem__)
    lower = [(above, below) for n, above in enumerate(shown) for below in shown[n + 1 :] if LEVEL[below] > LEVEL[above]]
    assert [pair for pair in lower if line[pair[0]] != line[pair[1]]] == []


def test_private_files_are_private_to_their_room():
    assert [str(found) for found in all_imports() if private(found)] == []


def test_no_two_files_import_each_other():
    """Nor in a longer circle: what is left when files that import nothing of what is left are taken out."""
    names = {
        path: ".".join(("unbraid", *path.relative_to(SOURCE).with_suffix("").parts)) for path in SOURCE.rglob("*.py")
    }
    reads = {name: set[str]() for name in names.values()}
    for found in all_imports():
        if not found.lazy and found.module in reads:
            reads[names[found.file]].add(found.module)
    while free := [name for name, read in reads.items() if not read & reads.keys()]:
        for name in free:
            del reads[name]
    assert sorted(reads) == []


def test_a_face_has_at_most_25_names():
    """Without exceptions: what is more goes into a face of its own, as nn.init and draw.gradients."""
    sizes = {str(path): len(names_of((SOURCE / path).read_text())) for path in faces()}
    assert {"nn/__init__.py", "nn/init.py", "draw/theme.py", "graph/state.py"} <= sizes.keys()
    assert {path: size for path, size in sizes.items() if size > MOST_NAMES} == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('A = 1\n__all__ = ["f", "g"]\ndef f(): ...', {"f", "g"}),
        ("A: int = 1\nB = 2\n_C = 3\ndef f(): ...\ndef _g(): ...\nclass K: ...", {"A", "B", "f", "K"}),
    ],
)
def test_the_names_of_a_face_are_counted(source, names):
    assert names_of(source) == names


def test_these_tests_see_what_they_look_for(tmp_path):
    line = Import(SOURCE / "graph" / "_types.py", 1, "unbraid.form", False)
    assert upwards(line)
    assert upwards(line._replace(file=SOURCE / "paths" / "_all.py", module="unbraid.gradients"))
    assert not upwards(line._replace(file=SOURCE / "cli" / "_app.py"))
    assert private(line._replace(module="unbraid.form._form"))
    assert upwards(line._replace(module="unbraid.draw", file=SOURCE / "form" / "_form.py"))
    assert not upwards(line._replace(module="unbraid.draw", file=SOURCE / "form" / "_form.py", lazy=True))
