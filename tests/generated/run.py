"""Random residual networks, each against everything that is known about it without unbraid.

python tests/generated/run.py                      2,000 of them
python tests/generated/run.py --first 40 --count 5 the networks 40 to 44
python tests/generated/run.py --plan 40            show a plan, and judge it without catching anything
"""

import argparse
import collections
import sys
import time
import warnings
from pathlib import Path
from pprint import pprint

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT / "src"), str(ROOT / "tests")]

from generated.judge import judge  # noqa: E402
from generated.plan import Plan, Seeded, draw  # noqa: E402
from generated.shrink import shrunk  # noqa: E402
from generated.spellings import SPELLINGS  # noqa: E402
from generated.steps import STEPS  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--plan", type=int, help="show and judge this one")
    parser.add_argument("--shrink", action="store_true", help="with --plan: the smallest that fails alike")
    parser.add_argument("--only", nargs="*", default=(), help="spellings and steps: all others are left out")
    parser.add_argument("--without", nargs="*", default=(), help="spellings and steps to leave out")
    parser.add_argument("--each", action="store_true", help="every spelling and every step by itself: what fails where")
    options = parser.parse_args()
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="`torch.jit.script`", category=DeprecationWarning)
    if options.plan is not None:
        return _one(_plan(options.plan, options), options.shrink)
    if options.each:
        return _each(options)
    failed, begun = 0, time.monotonic()
    kinds: collections.Counter[str] = collections.Counter()
    for seed in range(options.first, options.first + options.count):
        plan = _plan(seed, options)
        if said := _said(plan):
            failed += 1
            kinds[said[:60]] += 1
            mode = "train" if plan.training else "eval"
            print(f"{seed:6} {plan.dtype:8} {mode:5} {said}", flush=True)
    print(f"{options.count} networks in {time.monotonic() - begun:.0f} s; {failed} failed")
    for said, times in kinds.most_common():
        print(f"{times:6} x {said}")
    return 1 if failed else 0


def _one(plan: Plan, shrink: bool) -> int:
    said = _said(plan)
    pprint(shrunk(plan, lambda smaller: _said(smaller)[:40] == said[:40]) if said and shrink else plan)
    print(said or "all is well")
    return bool(said)


def _said(plan: Plan) -> str:
    """What is wrong with it, in a line; empty where nothing is."""
    try:
        judge(plan)
    except Exception as fault:
        return f"{type(fault).__name__}: {' '.join(str(fault).split())[:200]}"
    return ""


def _each(options: argparse.Namespace) -> int:
    """Small networks with one spelling, or one step, and otherwise the plainest: which kind is it that fails?"""
    for word in (*SPELLINGS, *STEPS):
        if options.only and word not in options.only:
            continue
        said: dict[str, list[int]] = {}
        tried = 0
        spellings, steps = ((word,), ("linear",)) if word in SPELLINGS else (("left",), (word,))
        for seed in range(options.first, options.first + options.count):
            plan = draw(Seeded(seed), spellings, steps)
            if word not in _words(plan.blocks):
                continue
            tried += 1
            if text := _said(plan):
                said.setdefault(text, []).append(seed)
        print(f"{word:16} {sum(map(len, said.values()))} of {tried} fail", flush=True)
        for text, seeds in list(said.items())[:4]:
            print(f"    {seeds}: {text}", flush=True)
    return 0


def _words(blocks) -> list[str]:
    found = []
    for block in blocks:
        found.append(block.spelling)
        for branch in block.branches:
            found += [*branch.steps, *_words(branch.blocks)]
    return found


def _plan(seed: int, options: argparse.Namespace) -> Plan:
    words = [w for w in (*SPELLINGS, *STEPS) if w not in options.without and (not options.only or w in options.only)]
    spellings, steps = tuple(w for w in words if w in SPELLINGS), tuple(w for w in words if w in STEPS)
    return draw(Seeded(seed), spellings or ("left",), steps or ("linear",))


if __name__ == "__main__":
    sys.exit(main())
