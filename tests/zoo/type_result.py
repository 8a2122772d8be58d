"""What tracing one model type gave, and what the ledger has against the form."""

import math
from collections import Counter
from dataclasses import dataclass, field

from oracles.ledger import Ledger
from oracles.origins import Place

# By reading, no form counts or refuses these: additions of whole numbers alone, those that another place counts, and
# those that are known to be passed over (oracles/ledger.py).
_SILENT_BY_LEDGER = frozenset({"held", "part", "unseen"})

Lines = list[tuple[str, str, str, int, int]]


@dataclass(frozen=True)
class TypeResult:
    """One line of the table of model types, as plain values.

    Attributes:
        name: the model type.
        model: the class that was built; empty where none could be.
        inputs: what it was called with: names and shapes.
        failure: "unbuilt", "refused", "foreign" (an error that is not unbraid's), "limit" (of time or memory),
            "inexact", or nothing.
        reason: what the failure says.
        blocks: top-level blocks.
        nested: blocks inside branches.
        kinds: how many of all blocks have a kind of skip and join: {"identity, sum": 4}.
        error: form against model, the largest relative error.
        spectrum: the sum of a gradient's parts by length against the model's own gradient; nan where not measured.
        unmeasured: why there is no spectrum.
        seconds: of the processor, to trace.
        spent: those of the whole process, without the imports.
        memory: the largest resident memory of its process, in MB.
        ran: expressions that add tensors of data of which a form must speak, and how often (oracles/origins.py).
        parts: the lines whose sums other sums alone read, with the lines of these.
        concatenated: expressions that concatenate them.
        counted: branches that the form counts at each line.
        refused: additions that it refuses there.
        reasons: how often each reason of a refusal was given.
    """

    name: str
    model: str = ""
    inputs: str = ""
    failure: str = ""
    reason: str = ""
    blocks: int = 0
    nested: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    error: float = math.nan
    spectrum: float = math.nan
    unmeasured: str = ""
    seconds: float = 0.0
    spent: float = 0.0
    memory: int = 0
    ran: Lines = field(default_factory=list)
    parts: dict[str, list[str]] = field(default_factory=dict)
    concatenated: Lines = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    def unseen(self, ledger: Ledger) -> list[str]:
        """Lines that add tensors of data, and that the form neither counts nor refuses."""
        if self.failure:
            return []
        lines, ran = [], Counter[str]()
        for *place, times in self.ran:
            ran[Place(*place).where] += times
        # Where a line counts more branches than it adds, its block holds operands that another line adds.
        elsewhere = sum(max(0, branches - ran[line]) for line, branches in self.counted.items())
        for place, verdict, times in ledger.judged(self.name, [(Place(*place), times) for *place, times in self.ran]):
            silent = verdict is not None and verdict.kind in _SILENT_BY_LEDGER
            if not silent and not self._told(place.where, set()):
                if times <= elsewhere:
                    elsewhere -= times
                else:
                    lines.append(f"{place.where} ({times}): {place.text}")
        return lines

    def _told(self, line: str, before: set[str]) -> bool:
        """Whether the form counts or refuses an addition, or a larger sum of which it is part."""
        if line in self.counted or line in self.refused:
            return True
        return any(self._told(larger, before | {line}) for larger in {*self.parts.get(line, ())} - before - {line})

    def silent_concatenations(self) -> list[str]:
        """Lines that concatenate tensors of data, and that the form neither counts nor refuses."""
        lines = {Place(*place).where for *place, _ in self.concatenated} - self.counted.keys() - self.refused.keys()
        return [] if self.failure else sorted(lines)

    def verdict(self, ledger: Ledger) -> str:
        """ "exact", "refused", "unbuilt" or "wrong"."""
        if self.failure:
            return {"unbuilt": "unbuilt", "inexact": "wrong"}.get(self.failure, "refused")
        return "wrong" if self.unseen(ledger) else "exact"
