"""Fuzz every target with atheris, which looks for input that runs code not run before.

    python tests/fuzz/run.py                        20,000 cases of each target
    python tests/fuzz/run.py --cases 500 npz form   fewer, of these alone

Each target runs in a process of its own; a case that fails is kept in runs/fuzz and shown.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGETS = sorted(path.stem.removeprefix("target_") for path in HERE.glob("target_*.py"))
SECONDS, MEGABYTES = 60, 4096  # of one case


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help=", ".join(TARGETS))
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _fuzz(options.inside, options.cases)
        return 0
    failed = []
    begun = time.monotonic()
    for target in options.targets or TARGETS:
        kept = ROOT / "runs" / "fuzz" / target
        kept.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        command = [sys.executable, __file__, "--inside", target, "--cases", str(options.cases)]
        said = subprocess.run(command, cwd=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout
        said = said.decode(errors="replace")
        done = re.search(r"Done (\d+) runs", said)
        print(f"{target:12} {int(done[1]) if done else 0:>7,} cases {time.monotonic() - start:>7.0f} s", flush=True)
        if not done:
            failed.append(target)
            print(said[-4000:], file=sys.stderr)
    print(f"all in {time.monotonic() - begun:.0f} s; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _fuzz(target: str, cases: int) -> None:
    import atheris

    sys.path[:0] = [str(ROOT / "src"), str(HERE.parent)]
    with atheris.instrument_imports(include=["unbraid"]):
        import importlib

        import unbraid.cli
        import unbraid.cli._grid
        import unbraid.cli.models._model
        import unbraid.data
        import unbraid.form
        import unbraid.train  # noqa: F401

        case = importlib.import_module(f"fuzz.target_{target}").case
    from fuzz._guard import judge
    from fuzz._source import Bytes

    with tempfile.TemporaryDirectory() as folder:

        def once(data: bytes) -> None:
            judge(Path(folder), case(Bytes(data), Path(folder)))

        limits = [f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", "-max_len=512", "-len_control=0", "-seed=1"]
        atheris.Setup([sys.argv[0], f"-runs={cases}", *limits], once)
        atheris.Fuzz()


if __name__ == "__main__":
    raise SystemExit(main())
