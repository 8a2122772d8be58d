"""The mutants of a file, by mutmut's operators, and what came of each."""

import difflib
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.node_mutation import mutation_operators

__all__ = ["SUBJECTS", "Mutant", "Result", "mutants"]

_FORM = (
    "tests/discover/test_definition.py",
    "tests/capture/test_provenance.py",
    "tests/discover/test_cut.py",
    "tests/discover/test_lessons.py",
    "tests/form/test_without.py",
    "tests/form/test_trace.py",
    "tests/discover/test_equation.py",
    "tests/discover/test_reorder.py",
    "tests/properties/test_form.py",
)
_WALK = ("tests/walk/test_walk.py", "tests/walk/test_algebras.py", "tests/properties/test_walk.py")
_PATHS = (*_WALK, "tests/paths/test_brute_force.py")
# Each file with the tests that must notice a change in it, quick ones first.
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "src/unbraid/walk/_walk.py": _WALK,
    "src/unbraid/walk/_lengths.py": _PATHS,
    "src/unbraid/walk/_counts.py": _PATHS,
    "src/unbraid/walk/_polynomials.py": _PATHS,
    "src/unbraid/walk/_path_stacks.py": _PATHS,
    "src/unbraid/walk/_through_blocks.py": (*_WALK, "tests/paths/test_parts.py"),
    "src/unbraid/walk/_chosen_paths.py": (*_PATHS, "tests/paths/test_models.py"),
    "src/unbraid/discover/_find.py": _FORM,
    "src/unbraid/discover/_cut.py": _FORM,
    "src/unbraid/discover/_anatomy.py": _FORM,
}
_LEFT_ALONE = ("TypeVar", "cast", "isinstance", "len")  # for types, or, as mutmut has it, never worth it


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        file: its path from the repository's root.
        line: where it is changed, from 1.
        before: the lines changed.
        after: what stands there instead.
        source: the whole file, changed.
        span: the first and the last line of the statement; none where it runs when the file is imported.
    """

    file: str
    line: int
    before: str
    after: str
    source: str
    span: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        """The same as long as the file, but for its line numbers, says the same at this place."""
        text = "\0".join((self.file, self.before, self.after, hashlib.sha256(self.source.encode()).hexdigest()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Result:
    """What came of a mutant.

    Attributes:
        key: the mutant's.
        end: "killed" by a failed test, "hung" where time ran out, or "survived".
        cpu: seconds of processor time.
        wall: seconds.
        killer: the test that failed, or what the change raised at once.
    """

    key: str
    end: str
    cpu: float
    wall: float
    killer: str

    @property
    def killed(self) -> bool:
        """Whether the tests noticed."""
        return self.end != "survived"


class _Places(cst.CSTVisitor):
    """The nodes to change. What does not run in a test is left alone: annotations, imports, assertions for mypy."""

    METADATA_DEPENDENCIES = (PositionProvider, ParentNodeProvider)

    def __init__(self) -> None:
        self.found: list[tuple[cst.CSTNode, cst.CSTNode, tuple[int, int] | None]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Annotation | cst.Import | cst.ImportFrom | cst.Assert | cst.Decorator | cst.Subscript):
            # A subscript of a type, as in dict[str, V](), is one too; of a value it is looked into.
            return isinstance(node, cst.Subscript) and not isinstance(self._parent(node), cst.Call)
        if isinstance(node, cst.AnnAssign) and self._field(node):
            return False
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in _LEFT_ALONE:
            return False
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                self.found += [(node, changed, self.span(node)) for changed in _first(operator(node), node)]
        return True

    def span(self, node: cst.CSTNode) -> tuple[int, int] | None:
        """The lines of the statement around a node, of a compound one those of its head; None outside of functions."""
        statement, above = None, node
        while (above := self._parent(above)) is not None and not isinstance(above, cst.FunctionDef):
            if statement is None and isinstance(above, cst.BaseStatement):
                statement = above
        if above is None or statement is None:
            return None
        place = self.get_metadata(PositionProvider, statement)
        body = getattr(statement, "body", None)
        inside = isinstance(body, cst.IndentedBlock) and self.get_metadata(PositionProvider, body).start.line
        return place.start.line, (inside or place.end.line)

    def _field(self, node: cst.AnnAssign) -> bool:
        """A type's other name; or a field of a class, whose default is fixed when the class is made."""
        home = self._parent(self._parent(self._parent(node) or node) or node)
        return isinstance(home, cst.ClassDef) or "TypeAlias" in cst.Module([]).code_for_node(node.annotation.annotation)

    def _parent(self, node: cst.CSTNode) -> cst.CSTNode | None:
        return self.get_metadata(ParentNodeProvider, node, None)


def _first(changed: Iterator[cst.CSTNode], node: cst.CSTNode) -> list[cst.CSTNode]:
    """All changes, but of a text only one: that it is another in three ways says nothing more."""
    found = list(changed)
    return found[:1] if isinstance(node, cst.BaseString) else found


def mutants(root: Path, file: str) -> list[Mutant]:
    """Every mutant of a file that is Python and not the file itself, each once."""
    source = (root / file).read_text(encoding="utf-8")
    wrapper = MetadataWrapper(cst.parse_module(source))
    places = _Places()
    wrapper.visit(places)
    made: dict[str, Mutant] = {}
    for node, changed, span in places.found:
        text = wrapper.module.deep_replace(node, changed).code  # type: ignore[arg-type]
        if text != source and text not in made and _compiles(text):
            made[text] = Mutant(file, *_difference(source, text), text, span)
    return list(made.values())


def _compiles(text: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            compile(text, "mutant", "exec")
        except (SyntaxError, SyntaxWarning):
            return False
    return True


def _difference(before: str, after: str) -> tuple[int, str, str]:
    a, b = before.splitlines(), after.splitlines()
    blocks = [op for op in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if op[0] != "equal"]
    first, last = blocks[0], blocks[-1]
    old, new = a[first[1] : last[2]], b[first[3] : last[4]]
    return first[1] + 1, "\n".join(map(str.strip, old)), "\n".join(map(str.strip, new))
