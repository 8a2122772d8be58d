"""What tracing one model of the zoo gave."""

import math
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeAlias

import torch

from oracles import concatenations
from oracles.additions import Additions, Place
from oracles.ledger import Ledger, faults, missed, read
from zoo.entry import Entry, Known, Made

Lines: TypeAlias = list[tuple[str, str, str, int, int]]  # file, function, text, line, and how often it ran


@dataclass(frozen=True)
class Result:
    """One line of the zoo's table, as plain values.

    Attributes:
        name: of the model.
        library: where it comes from.
        kind: its group.
        failure: "refused" or "inexact" where there is no form; otherwise empty.
        reason: what the refusal says.
        counts: blocks, projections, branches, nested blocks, of those that add to an identity or a projection, whatever
            concatenations and gates are around them; all 0 where the trace says that there is no block.
        kinds: how many blocks there are of other kinds, by kind of skip and join.
        trunks: the number of trunks.
        error: the largest relative error measured.
        silent: blocks too small to be tested.
        tracer: which one served.
        build: seconds to build the model.
        seconds: to trace it.
        ran: every expression of the model's code that adds tensors of data (oracles/additions.py), as file, function,
            text and line, and how often a run did.
        counted: how many branches the form adds at each line, nested blocks included.
        refused: how many additions and concatenations it refuses there.
        concatenated: every expression that concatenates tensors of data, written like `ran`.
        joined: how many blocks whose join is a concatenation the form has at each line.
    """

    name: str
    library: str = ""
    kind: str = ""
    failure: str = ""
    reason: str = ""
    counts: tuple[int, int, int, int] | None = None
    kinds: dict[str, int] = field(default_factory=dict)
    trunks: int = 0
    error: float = math.nan
    silent: int = 0
    tracer: str = ""
    build: float = 0.0
    seconds: float = 0.0
    ran: Lines = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    concatenated: Lines = field(default_factory=list)
    joined: dict[str, int] = field(default_factory=dict)

    def verdict(self, known: Known | None) -> str:
        """ "exact", "refused", or "wrong": the form departs from the model, the known counts or the ledger."""
        if self.failure == "refused":
            return "refused"
        agrees = known is None or (self.counts is not None and tuple(self.counts) == known.counts)
        agrees = agrees and (known is None or known.kinds is None or self.kinds == known.kinds)
        return "exact" if agrees and not self.failure and not self.faults else "wrong"

    @property
    def places(self) -> list[tuple[Place, int]]:
        """The expressions of the model's code that add tensors of data, and how often."""
        return [(Place(*place), times) for *place, times in self.ran]

    @property
    def concatenations(self) -> list[tuple[Place, int]]:
        """The expressions of the model's code that concatenate tensors of data, and how often."""
        return [(Place(*place), times) for *place, times in self.concatenated]

    @property
    def faults(self) -> list[str]:
        """What the ledgers of additions and of concatenations have against the form."""
        if self.failure:
            return []
        of_sums = faults(_ledger(), self.name, self.places, self.counted, self.refused)
        return [*of_sums, *concatenations.faults(concatenations.ledger(), self.name, *self._joins)]

    @property
    def _joins(self) -> tuple[list[tuple[Place, int]], dict[str, int], dict[str, int]]:
        return self.concatenations, self.joined, self.refused

    @property
    def missed(self) -> list[tuple[str, str]]:
        """The additions and concatenations that are blocks by the ledger, and that no form counts yet."""
        beside = missed(concatenations.ledger(), self.name, self.concatenations)
        return [*missed(_ledger(), self.name, self.places), *beside]


@cache
def _ledger() -> Ledger:
    return read()


def measure(entry: Entry) -> Result:
    """Build a model and trace it; every failure is a result."""
    from unbraid.errors import InexactError, NotResidualError

    result = Result(entry.name, entry.library, entry.kind)
    started = time.perf_counter()
    try:
        made = entry.make()
        result = replace(result, build=time.perf_counter() - started)
        added, concatenated = joins(made)
        result = replace(result, ran=added, concatenated=concatenated)
        started = time.perf_counter()
        return _traced(result, made)
    except NotResidualError as error:
        said = str(error).splitlines()[0]
        result = replace(result, counts=(0, 0, 0, 0), refused=by_line(error.refusals), reason=said)
    except InexactError as error:
        result = replace(result, failure="inexact", reason=str(error), error=error.error)
    except Exception as error:
        traceback.print_exc(limit=-6)
        result = replace(result, failure="refused", reason=f"{type(error).__name__}: {error}")
    return replace(result, seconds=time.perf_counter() - started)


def joins(made: Made) -> tuple[Lines, Lines]:
    """Every expression of a model's code that adds tensors of data, or concatenates them, and how often a run does."""
    with fast_path_off(), torch.no_grad(), Additions(made.args, dict(made.kwargs)) as seen:
        made.model(*made.args, **made.kwargs)
    return _lines(seen.ran), _lines(seen.concatenated)


def _lines(places: Mapping[Place, int]) -> Lines:
    return [(place.file, place.function, place.text, place.line, times) for place, times in sorted(places.items())]


@contextmanager
def fast_path_off() -> Iterator[None]:
    """Without torch's fused encoder layers, which would hide their additions."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _traced(result: Result, made: Made) -> Result:
    from unbraid.form import trace

    started = time.perf_counter()
    form = trace(made.model, made.args, made.kwargs)
    return replace(
        result,
        counts=counts(form),
        kinds=other_kinds(form),
        trunks=len(form.trunks),
        error=form.error,
        silent=len(form.silent),
        tracer=form.tracer,
        seconds=time.perf_counter() - started,
        counted=counted(form),
        refused=by_line(form.refusals),
        joined=joined(form),
    )


def counts(form: Any) -> tuple[int, int, int, int]:
    """Blocks, projections, branches, nested blocks, of those that add to an identity or a projection.

    What a concatenation or a gate holds counts as if it were not there.
    """
    by_index = {block.index: block for block in form.all_blocks}

    def held(block: Any) -> bool:
        """Whether a block lies in the branch of one that adds to an identity or a projection."""
        while block.parent is not None:
            block = by_index[block.parent[0]]
            if plain(block):
                return True
        return False

    found = [block for block in form.all_blocks if plain(block)]
    blocks = [block for block in found if not held(block)]
    return (
        len(blocks),
        sum(block.skip == "projection" for block in blocks),
        sum(len(block.branches) for block in blocks),
        len(found) - len(blocks),
    )


def plain(block: Any) -> bool:
    """Whether a block adds to an identity or a projection."""
    return block.join == "sum" and block.skip in ("identity", "projection")


def other_kinds(form: Any) -> dict[str, int]:
    """How many blocks there are of other kinds, by kind of skip and join."""
    return dict(Counter(f"{block.skip}, {block.join}" for block in form.all_blocks if not plain(block)))


def all_blocks(blocks: Any) -> list[Any]:
    """These blocks and all that are nested in them."""
    return [inner for block in blocks for inner in (block, *all_blocks(block.nested))]


def counted(form: Any) -> dict[str, int]:
    """How many branches a form adds at each line, nested blocks included."""
    found: Counter[str] = Counter()
    for block in all_blocks(form.blocks):
        if block.join == "sum":
            found[block.where] += len(block.branches)
    return dict(found)


def joined(form: Any) -> dict[str, int]:
    """How many blocks whose join is a concatenation a form has at each line, nested ones included."""
    return dict(Counter(block.where for block in form.all_blocks if block.join == "concatenation"))


def by_line(refusals: Iterable[Any]) -> dict[str, int]:
    """How many additions and concatenations a form refuses at each line."""
    return dict(Counter(refusal.where for refusal in refusals))
