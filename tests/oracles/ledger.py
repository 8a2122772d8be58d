"""The ledger of additions: what each addition in the source of the zoo's models is, found by reading that source.

One file per package, tests/zoo/ledger/timm.toml say (what the lowest versions that are allowed write in another way
stands in tests/zoo/ledger/lowest); one line per expression that adds tensors of data, by file and
function, so that it outlives changes elsewhere in the file:

    ["timm/models/beit.py"."Block.forward"]
    "x + self.drop_path2(self.gamma_2 * self.mlp(self.norm2(x)))" = "block"

The verdict is one of

    block             adds a branch to a skip: a form counts it
    part: of what     adds branches that a larger sum joins to a skip elsewhere: a form counts them there
    none: why         adds data and is no residual connection: a form refuses it, with a reason of its own
    recurrent: why    adds to a state that is carried over positions: a form refuses the line, once is enough
    unseen: why       adds data and is no residual connection, and forms pass it over in silence; shown there, too
    held: why         what is added depends on whole numbers of the caller's alone, a mask say: a form may pass it over
    missed: why       a block by the definition that forms do not count yet and refuse; shown on the page of the zoo
    block in a, b; none: why      one verdict for some models, and one for the others
    block 12 in a; none: why      of the times that a model runs it, 12 are blocks

`faults` compares it with a run (oracles/additions.py) and with what a form counts and refuses, line by line.
"""

import json
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from oracles.additions import Place

Lines: TypeAlias = Mapping[str, Mapping[str, Mapping[str, str]]]

FOLDER = Path(__file__).parents[1] / "zoo" / "ledger"
ADDED = ("block", "part", "none", "recurrent", "held", "missed", "unseen")
_VERDICT = re.compile(r"(?P<kind>[a-z]+)(?: (?P<times>\d+))?(?: in (?P<models>[^;:]+))?(?:: (?P<why>[^;]+))?")


@dataclass(frozen=True)
class Verdict:
    """What an expression is, by reading.

    Attributes:
        kind: one of the words above.
        why: the reason where it is no block, or is missed.
        models: those for which it holds; empty for all others.
        times: how often in a run; None for as often as is left.
    """

    kind: str
    why: str = ""
    models: tuple[str, ...] = ()
    times: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.why}" if self.why else self.kind


class Ledger:
    """All lines of the ledger.

    Args:
        lines: verdicts by file, function and expression.
        older: those on other versions of the same files, which are never stale.
        kinds: the words that a verdict may begin with.

    Raises:
        ValueError: a verdict is none of those above, or lacks its reason.
    """

    def __init__(self, lines: Lines, older: Lines | None = None, kinds: Sequence[str] = ADDED) -> None:
        self._older = _verdicts(older or {}, kinds)
        self.verdicts = self._older | _verdicts(lines, kinds)

    def judged(self, model: str, ran: Iterable[tuple[Place, int]]) -> Iterator[tuple[Place, Verdict | None, int]]:
        """The verdicts on the expressions that a model runs, each with how often; None for what nobody has read."""
        used: Counter[tuple[str, str, str, Verdict]] = Counter()
        for place, times in sorted(ran):
            key = place.file, place.function, place.text
            for verdict in self.verdicts.get(key, ()):
                if not verdict.models or model in verdict.models:
                    taken = times if verdict.times is None else min(times, verdict.times - used[*key, verdict])
                    used[*key, verdict] += taken
                    times -= taken
                    if taken:
                        yield place, verdict, taken
            if times:
                yield place, None, times

    def stale(self, met: Iterable[Place], packages: Iterable[str]) -> Iterator[str]:
        """The lines of some packages that no model runs any more."""
        run, packages = {(place.file, place.function, place.text) for place in met}, set(packages)
        for file, function, text in self.verdicts:
            if file.split("/")[0] in packages and (file, function, text) not in run | self._older.keys():
                yield f"no model runs this line of the ledger: {file}, {function}: {text}"


def read(folder: Path = FOLDER, kinds: Sequence[str] = ADDED) -> Ledger:
    """The committed ledger, with that of the lowest versions that are allowed."""
    return Ledger(_in_folder(folder), _in_folder(folder / "lowest"), kinds)


def _in_folder(folder: Path) -> Lines:
    lines: dict[str, Mapping[str, Mapping[str, str]]] = {}
    for file in sorted(folder.glob("*.toml")):
        lines |= tomllib.loads(file.read_text())
    return lines


def _verdicts(lines: Lines, kinds: Sequence[str]) -> dict[tuple[str, str, str], tuple[Verdict, ...]]:
    return {
        (file, function, text): _parsed(f"{file}, {function}, {text}", verdict, kinds)
        for file, functions in lines.items()
        for function, texts in functions.items()
        for text, verdict in texts.items()
    }


def by_lines(ledger: Ledger, model: str, ran: Sequence[tuple[Place, int]]) -> defaultdict[str, Counter[str]]:
    """How often each line of a model ran, by the words of its verdicts, "unread" for what nobody has read."""
    lines: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for place, verdict, times in ledger.judged(model, ran):
        lines[place.where]["unread" if verdict is None else verdict.kind] += times
    return lines


def faults(
    ledger: Ledger, model: str, ran: Sequence[tuple[Place, int]], counted: Mapping[str, int], refused: Mapping[str, int]
) -> Iterator[str]:
    """What is wrong with a model, one sentence each.

    Args:
        ledger: the verdicts.
        model: its name.
        ran: the expressions that added tensors of data, and how often.
        counted: how many branches the form counts at a line, "mlp.py:31", nested blocks included.
        refused: how many additions it refuses there.
    """
    by_line = by_lines(ledger, model, ran)
    yield from unread(ledger, model, ran, "adds data", "")
    elsewhere = sum(known["part"] for known in by_line.values())
    for line in sorted(by_line.keys() | counted.keys()):
        known, blocks, other = by_line[line], counted.get(line, 0), refused.get(line, 0)
        elsewhere -= max(0, blocks - known["block"]) if known["block"] else 0
        if known["unread"]:
            continue
        if blocks < known["block"]:
            yield f"{line}: {known['block']} blocks by the ledger; the form counts {blocks} and refuses {other}"
        elif blocks and not known["block"]:
            yield f"{line}: no block by the ledger; the form counts {blocks}"
        elif other < (unseen := known["none"] + known["missed"] + min(known["recurrent"], 1)):
            yield f"{line}: {unseen} are to be refused by the ledger; the form counts {blocks} and refuses {other}"
    if elsewhere > 0:
        yield f"{elsewhere} branches that the ledger calls part of a larger sum are not counted there"


def missed(ledger: Ledger, model: str, ran: Sequence[tuple[Place, int]]) -> Iterator[tuple[str, str]]:
    """The additions of a model that forms do not count yet, or pass over, with what they are by reading."""
    for place, verdict, times in ledger.judged(model, ran):
        if verdict is not None and verdict.kind in {"missed", "unseen"}:
            yield f"{place.where}, {times} times", str(verdict)


def _parsed(line: str, text: str, kinds: Sequence[str]) -> tuple[Verdict, ...]:
    verdicts = []
    for part in text.split("; "):
        match = _VERDICT.fullmatch(part)
        if match is None or match["kind"] not in kinds or (match["kind"] == "block") == bool(match["why"]):
            others = f"{', '.join(kinds[1:-1])} or {kinds[-1]}"
            raise ValueError(f"the ledger says {text!r} of {line}: block, or {others} with ': ' and why")
        models = tuple(name.strip() for name in (match["models"] or "").split(",") if name.strip())
        times = int(match["times"]) if match["times"] else None
        verdicts.append(Verdict(match["kind"], match["why"] or "", models, times))
    return tuple(verdicts)


def unread(ledger: Ledger, model: str, ran: Sequence[tuple[Place, int]], does: str, folder: str) -> Iterator[str]:
    """The sentences that ask for a verdict on what nobody has read.

    Args:
        ledger: the verdicts.
        model: the model's name.
        ran: the expressions that it ran, and how often.
        does: what they do.
        folder: that of the ledger, below tests/zoo/ledger/.
    """
    for place, verdict, times in ledger.judged(model, ran):
        if verdict is None:
            package = place.file.split("/")[0].removesuffix(".py")
            yield (
                f"{place.file}:{place.line} {does} {times} times and is not in the ledger: read it, and write its "
                f"verdict to tests/zoo/ledger/{folder}{package}.toml as\n{entry(place, 'block')}"
            )


def entry(place: Place, verdict: str) -> str:
    """A line of the ledger as TOML."""
    file, function, text, verdict = map(json.dumps, (place.file, place.function, place.text, verdict))
    return f"[{file}.{function}]\n{text} = {verdict}"
