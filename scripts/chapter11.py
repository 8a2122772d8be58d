"""Draw the figures of chapter 11 into docs/images, from the page's own code.

    python scripts/chapter11.py

The blocks of docs/chapter11.md are run in order; what they leave behind is drawn, so that page and figures cannot part.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from documents import run
from unbraid import draw

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"


def main() -> None:
    names = run(ROOT / "docs" / "chapter11.md")
    figures = {
        "1": draw.plain(4),
        "2": draw.depth(names["curves"]),
        "3_plain": names["found"]["plain, 24 layers"].plot(),
        "3_residual": names["found"]["residual, 24 blocks"].plot(),
        "4a": draw.network(4),
        **{f"5{letter}": figure for letter, figure in zip("abc", names["figures"], strict=True)},
    }
    for number, figure in figures.items():
        print(draw.save(figure, IMAGES / f"chapter11_{number}.svg"))


if __name__ == "__main__":
    main()
