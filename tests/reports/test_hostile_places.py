"""Labels, paths of data and of runs, as somebody else named them: a page shows them as text."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cli._run import invoke

NAMES = (
    '"><script>alert(1)<script><img src=x onerror=alert(1)>',
    "javascript:alert(1) '-alert(1)-' {{ 'jin' ~ 'ja' }}{% raw %}",
    "]]><!--<svg onload=alert(1)> a\u202eb\u2028c",
)


class Elements(HTMLParser):
    """The elements of a page and its words."""

    def __init__(self) -> None:
        super().__init__()
        self.names, self.attributes, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of a run whose folder, data and classes have the name; its first one is harmless."""
    place = tmp_path_factory.mktemp("hostile")
    numbers = np.random.default_rng(0)
    made = {}
    for number, name in enumerate(("plain", *NAMES)):
        for label in (name, f"{name} 2"):
            folder = place / str(number) / f"data {name}" / label
            folder.mkdir(parents=True)
            for index in range(5):
                Image.fromarray(numbers.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        run, page = place / str(number) / f"run {name}", place / str(number) / "page.html"
        options = ["--depth", "1", "--width", "4", "--epochs", "1"]
        result = invoke("train", str(run), "--data", str(folder.parent), *options)
        assert result.status == 0, result.stderr
        skip = "lens,spectrum,values,paths,lesions,orders,signal"
        result = invoke("report", str(run), "-o", str(page), "--skip", skip)
        assert result.status == 0, result.stderr
        made[name] = page.read_text(encoding="utf-8")
    return made


def parsed(text):
    elements = Elements()
    elements.feed(text)
    return elements


@pytest.mark.parametrize("name", NAMES)
def test_what_a_name_says_is_text(pages, name):
    plain, found = parsed(pages["plain"]), parsed(pages[name])
    assert set(found.names) == set(plain.names)
    for element in ("script", "style", "img", "meta", "a", "section"):
        assert found.names.count(element) == plain.names.count(element), element
    assert {key for key, _ in found.attributes} == {key for key, _ in plain.attributes}
    assert not any(value and re.match(r"\s*javascript:", value) for _, value in found.attributes)
    assert name[:20] in "".join(found.words)
    assert "jinja" not in "".join(found.words)
