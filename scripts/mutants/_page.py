"""The page about mutants: how many were killed, and each survivor with why it lives."""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mutants._mutants import SUBJECTS, Mutant, Result

__all__ = ["page"]


def page(root: Path, every: Sequence[Mutant], kept: Mapping[str, Result]) -> str:
    """docs/mutants.md: how many were killed, and each survivor with why it lives."""
    why = _explanations(root)
    judged = [mutant for mutant in every if mutant.key in kept]
    alive = [mutant for mutant in judged if not kept[mutant.key].killed]
    cpu = sum(kept[mutant.key].cpu for mutant in judged) / 60
    share = 100 * (1 - len(alive) / max(len(judged), 1))
    lines = [
        "# Mutants",
        "",
        "The code that finds additions, cuts the graph and walks it is changed in one small thing at a time: a number,",
        "a comparison, an argument. For each change a quick part of the tests must fail. Those that live are listed",
        "with the reason. Annotations, assertions, `len`, `isinstance` and defaults of fields are left alone.",
        "`make mutants` makes this page; results stay in `runs/mutants`, so that a run that was stopped goes on.",
        "",
        f"Of {len(judged):,} mutants {len(judged) - len(alive):,} are killed: {share:.1f} %. That took {cpu:.0f}"
        " minutes of processor time.",
        *([f"{len(every) - len(judged):,} more are not judged yet."] if len(every) > len(judged) else []),
        "",
        "| file | mutants | killed | hung | survive | % killed |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for file in SUBJECTS:
        of = [mutant for mutant in judged if mutant.file == file]
        ends = Counter(kept[mutant.key].end for mutant in of)
        gone = len(of) - ends["survived"]
        name, killed, percent = (
            file.removeprefix("src/unbraid/"),
            gone - ends["hung"],
            f"{100 * gone / len(of):.0f}" if of else "-",
        )
        lines.append(f"| {name} | {len(of)} | {killed} | {ends['hung']} | {ends['survived']} | {percent} |")
    lines += ["", "## Survivors", ""]
    for file in SUBJECTS:
        of = [mutant for mutant in alive if mutant.file == file]
        lines += [f"### {file.removeprefix('src/unbraid/')}", ""] if of else []
        for mutant in of:
            text = why.get((Path(file).stem, mutant.before, mutant.after), "Not explained.")
            lines += [f"Line {mutant.line}. {text}", "", "```diff", *_diff(mutant), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _diff(mutant: Mutant) -> list[str]:
    return [*(f"- {t}" for t in mutant.before.splitlines()), *(f"+ {t}" for t in mutant.after.splitlines())]


def _explanations(root: Path) -> dict[tuple[str, str, str], str]:
    """Why each survivor lives, from scripts/mutants/why.toml."""
    table = tomllib.loads((root / "scripts" / "mutants" / "why.toml").read_text(encoding="utf-8"))
    return {
        (one["file"], change["before"], change["after"]): one["why"]
        for one in table["why"]
        for change in one["changes"]
    }
