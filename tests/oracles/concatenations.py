"""The ledger of concatenations: what each one in the source of the zoo's models is, found by reading that source.

One file per package in tests/zoo/ledger/concatenations, in the form of the ledger of additions (oracles/ledger.py).
An expression is listed that puts at least two tensors of floats side by side which depend on an input. The verdict is

    block             puts a branch beside a skip: a form counts it, as a block whose join is a concatenation
    none: why         could be taken for one and is none: a form refuses it, with a reason of its own
    harmless: why     lays tensors of data side by side, none of which a block could add to: parts of one tensor that
                      are put together again, halves of a rotation, readings beside one another. A form may refuse it
                      or pass it over, and must not count it
    missed: why       a block by the definition that forms do not count yet; shown on the page of the zoo
    open: why         the definition has two answers: a form may count it, refuse it or pass it over

Most are harmless, and so it is the other way round than with additions: what is asked of a form is that it counts all
that are blocks and none that is not. An expression that is none of these, because nobody has read it, fails.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from oracles.ledger import FOLDER, Ledger, by_lines, read, unread
from oracles.origins import Place

KINDS = ("block", "none", "harmless", "missed", "open")


@cache
def ledger() -> Ledger:
    """The committed one."""
    return read(FOLDER / "concatenations", KINDS)


def faults(
    verdicts: Ledger,
    model: str,
    ran: Sequence[tuple[Place, int]],
    counted: Mapping[str, int],
    refused: Mapping[str, int],
) -> Iterator[str]:
    """What is wrong with a model, one sentence each.

    Args:
        verdicts: the ledger.
        model: its name.
        ran: the expressions that concatenated tensors of data, and how often.
        counted: how many blocks a form has whose join is a concatenation on a line, "unet.py:31", nested ones included.
        refused: how many joins it refuses there.
    """
    by_line = by_lines(verdicts, model, ran)
    yield from unread(verdicts, model, ran, "concatenates data", "concatenations/")
    for line in sorted(by_line.keys() | counted.keys()):
        known, blocks, other = by_line[line], counted.get(line, 0), refused.get(line, 0)
        if known["unread"]:
            continue
        if blocks < known["block"]:
            yield (
                f"{line}: {known['block']} concatenations are blocks by the ledger; the form counts {blocks} and "
                f"refuses {other}"
            )
        elif blocks and not known["block"] + known["open"]:
            yield f"{line}: no concatenation is a block by the ledger; the form counts {blocks}"
        elif other < known["none"]:
            yield f"{line}: {known['none']} concatenations are to be refused by the ledger; the form refuses {other}"
