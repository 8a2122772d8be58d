"""Write what the Python blocks of the documents print into the `output` fences that follow them.

    python scripts/outputs.py docs/start.md README.md
    python scripts/outputs.py                            all documents

The tests compare the fences with what is printed; this writes them anew where a change was wanted.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from documents import DOCUMENTS, compare, documents

ROOT = Path(__file__).parents[1]


def main(names: list[str]) -> None:
    pages = [Path(name) for name in names] or [page for pattern in DOCUMENTS for page in sorted(ROOT.glob(pattern))]
    for page in pages:
        text = rewritten(page)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(f"rewritten: {page}")


def rewritten(page: Path) -> str:
    """The page with every output as its blocks print it today."""
    sybil = documents()
    document = sybil.parse(page.resolve())
    if sybil.setup:
        sybil.setup(document.namespace)
    done, parts = 0, []
    for example in document.examples():
        if example.region.evaluator is not compare:
            example.evaluate()
            continue
        # Not the length of what was parsed: a fence whose lines all begin with a space is parsed without it.
        start = document.text.index("\n", example.region.start) + 1
        parts += [document.text[done:start], document.namespace["_printed"], "\n"]
        done = document.text.rindex("```", start, example.region.end)
    return "".join(parts) + document.text[done:]


if __name__ == "__main__":
    main(sys.argv[1:])
