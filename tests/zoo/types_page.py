"""The table of model types as a page of the documentation."""

from collections import Counter
from collections.abc import Sequence

from oracles.ledger import Ledger
from zoo.limited import Limits
from zoo.type_result import TypeResult

LEAST_BUILT, MOST_REFUSED = 350, 0.03

_HEAD = """# Every model type

Every model type of transformers that has a base model, made small from its own default configuration by rules that know
no model (`tests/zoo/small_configs.py`), with random weights and inputs from the signature of its forward
(`small_inputs.py`); what the rules get wrong stands in a table (`type_exceptions.py`). Each is traced in a process of
its own, within {seconds:g} s of the processor and {megabytes:g} MB. Made by `make zoo-types`.

- **exact**: the form returns what the model returns, at the traced input and at one of another batch size; the parts by
  length of one gradient sum to the model's own; and each expression in the model's source that adds two tensors of data
  is counted or refused by the form. A block may hold operands that another line adds: where a line counts more than
  it adds, as many are not looked for elsewhere.
- **wrong**: one of these fails. An addition that the form passes over is **unseen**.
- **refused**: there is no form, and the message says why; or a limit was met; or an analysis refuses a model that draws
  random numbers in eval mode, or has a backward pass of its own, told by running it with two seeds and by autograd.
- **unbuilt**: the rules make no model of it that runs here.

Here no count is known by other means, as it is in [the zoo](zoo.md): a block that is refused and should not be is not
told apart.

"""
_TABLE = (
    "| type | | blocks (nested) | skip and join | form | gradient | seconds | |\n|---|---|--:|---|--:|--:|--:|---|\n"
)


def page(
    results: Sequence[TypeResult], others: Sequence[TypeResult], ledger: Ledger, limits: Limits, untried: int = 0
) -> str:
    """The whole page in Markdown: the types of transformers, but for those not tried yet, and networks of diffusers."""
    rows = [_row(result, ledger) for result in results if result.failure != "unbuilt"]
    unbuilt = [f"| {result.name} | {_said(result.reason)} |\n" for result in results if result.failure == "unbuilt"]
    parts = [_HEAD.format(**vars(limits)), score(results, ledger, untried), "\n", *_concerns(results)]
    parts += ["\n## Built\n\n", _TABLE, *rows]
    if others:
        parts += ["\n## Diffusion\n\nNetworks of diffusers.\n\n", _TABLE, *(_row(result, ledger) for result in others)]
    parts += [
        "\n## Unbuilt\n\n| type | what failed, one manner of making it small after the other |\n|---|---|\n",
        *unbuilt,
    ]
    return "".join(parts)


def score(results: Sequence[TypeResult], ledger: Ledger, untried: int = 0) -> str:
    """The counts against the bars."""
    verdicts = Counter(result.verdict(ledger) for result in results)
    built = len(results) - verdicts["unbuilt"]
    unseen = sum(bool(result.unseen(ledger)) for result in results)
    silent = sum(bool(result.silent_concatenations()) for result in results)
    refused = verdicts["refused"] / max(built, 1)
    measured = sum(result.spectrum == result.spectrum for result in results)
    rest = f"{untried} types were not tried yet. " if untried else ""
    return (
        f"{rest}Of {len(results)} types {built} build and run (at least {LEAST_BUILT} are asked for): "
        f"**{verdicts['exact']} exact / {verdicts['refused']} refused / {verdicts['wrong']} wrong**. Refused are "
        f"{refused:.1%} (at most {MOST_REFUSED:.0%} may be); {unseen} have an addition that is unseen (none may). "
        f"The gradient by length was measured for {measured}. {silent} concatenate tensors of data on lines that the "
        "form neither counts nor refuses.\n"
    )


def _concerns(results: Sequence[TypeResult]) -> list[str]:
    """How often each kind of skip and join occurs, and in how many types."""
    blocks: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for result in results:
        blocks.update(result.kinds)
        types.update(result.kinds.keys())
    lines = [f"| {kind} | {count} | {types[kind]} |\n" for kind, count in blocks.most_common()]
    return ["| skip and join | blocks | types |\n|---|--:|--:|\n", *lines] if lines else []


def _row(result: TypeResult, ledger: Ledger) -> str:
    kinds = "; ".join(f"{count} {kind}" for kind, count in result.kinds.items())
    blocks = f"{result.blocks} ({result.nested})" if result.nested else f"{result.blocks}"
    unseen = result.unseen(ledger)
    note = _said(result.reason) if result.failure else f"unseen: {_said('; '.join(unseen))}" if unseen else ""
    if not note and result.unmeasured:
        note = f"gradient not measured: {_said(result.unmeasured)}"
    return (
        f"| {result.name} | {result.verdict(ledger)} | {blocks} | {kinds} | {_error(result.error)} "
        f"| {_error(result.spectrum)} | {result.seconds:.1f} | {note} |\n"
    )


def line(result: TypeResult, ledger: Ledger) -> str:
    """One type, for the terminal."""
    note = result.reason or "; ".join(result.unseen(ledger))
    blocks = f"{result.blocks} + {result.nested} blocks"
    verdict = result.verdict(ledger)
    return f"{result.name:32} {verdict:8} {blocks:16} {result.error:8.1e} {result.seconds:6.1f} s  {_said(note)}"


def _error(value: float) -> str:
    return f"{value:.0e}" if value == value else ""


def _said(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<")[:240]
