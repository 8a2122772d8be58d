"""The page: complete, escaped, silent on the network, and the same numbers in report.json."""

import base64
import hashlib
import json
import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest

from unbraid import draw
from unbraid.reports import Braid, Code, Column, Equation, Page, Picture, Section, Table, Text, render, sections, write

HOSTILE = "<script>alert('x')</script>\"><img src=http://evil.example/a onerror=alert(1)>"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """What a browser would make of the page: elements with their attributes, text by element, nesting checked."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.words, self.scripts = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts.append((self.elements[-1][1].get("type"), data))
        elif "style" not in self.open:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@dataclass(frozen=True)
class Block:
    """What the section on the network asks of a block, and no more."""

    index: int
    name: str
    skip: str = "identity"
    join: str = "sum"
    branches: tuple[str, ...] = ("branch",)
    after: tuple[str, ...] = ("relu",)
    parameters: int = 1234
    where: str = "<b>.py:7"


def full_page(name="mlp"):
    run = sections.TrainedNetwork("residual", 10, 123456, 0, 40, 34.5678, 7.25)
    lost = sections.TrainedNetwork("plain", 10, 123456, 0, 3, math.nan, 1.5, diverged=120)
    training = sections.Training(name, (4000, 1000), {"lr": 0.05, "optimizer": "sgd"}, [run, lost], "train.fit(...)")
    curves = [draw.DepthCurve("plain", (10, 20), ((45.25,), (math.nan,))), draw.DepthCurve(name, (10,), ((34.5,),))]
    blocks = [Block(k, f"{name}.{k}") for k in range(3)]
    network = sections.NetworkFacts(name, blocks, 8, 1.25e-7, "float32", "y = x + f1[x]", r"y = x + f_1[x]", name)
    terms = sections.TermFacts(name, ["input", *(b.name for b in blocks)], [1.5, 2.25, 3.0, 0.125], 2.5e-7, 100)
    every = Section(
        name,
        name,
        [
            Text(name),
            Code(name),
            Equation(name, name),
            Picture(draw.svg(draw.network(2)), name, name),
            Braid({"name": name, "blocks": [{"name": f"{name}.0"}], "values": [0.0625, None]}),
        ],
    )
    found = [sections.training(training), sections.depth(curves), sections.network(network), sections.terms(terms)]
    return Page(name, [*found, every], name)


@pytest.fixture(scope="module")
def html():
    return render(full_page(HOSTILE))


@pytest.fixture(scope="module")
def read(html):
    return Reader(html)


def test_hostile_names_are_shown_and_never_run(html, read):
    allowed = hashes_in(html, "script-src")
    for kind, text in read.scripts:
        # What is not data is ours, letter by letter: the policy names it by its hash, and would stop anything else.
        assert kind == "application/json" or digest(text) in allowed
    assert len(read.scripts) == len(read.all("script")) == 3
    assert read.all("img") == []
    assert not any(name.startswith("on") for _, attributes in read.elements for name in attributes)
    assert HOSTILE in "".join(read.words)
    assert HOSTILE not in html


def test_the_policy_forbids_every_request(html, read):
    policies = [a["content"] for a in read.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")
    assert "unsafe" not in policies[0]
    assert "http" not in policies[0]
    # The policy must stand before anything that it governs.
    assert html.index("Content-Security-Policy") < html.index("<style")


def digest(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def hashes_in(html, directive):
    policy = html.replace("&#39;", "'")
    return re.findall(r"'sha256-([^']+)'", re.search(f"{directive} ([^;]*);", policy).group(1))


def test_the_values_of_a_braid_cannot_end_their_element(read):
    texts = [text for kind, text in read.scripts if kind == "application/json"]
    assert json.loads(texts[0])["name"] == HOSTILE
    assert "<" not in texts[0]


def test_the_policy_allows_the_pages_own_style_sheet(html):
    style = re.search("<style>(.*?)</style>", html, re.DOTALL).group(1)
    assert hashes_in(html, "style-src") == [digest(style)]
    assert 'style="' not in html, "the policy would block it"


def test_nothing_is_loaded_from_anywhere(html, read):
    for tag, attributes in read.elements:
        for name in ("src", "srcset", "href", "xlink:href", "data", "action", "poster"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
    assert not re.search(r"url\((?!#)|@import", html)


def test_ids_are_unique_and_every_reference_is_met(html, read):
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {a["href"][1:] for _, a in read.elements if a.get("href", "").startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]*)\)", html))
    wanted |= {a["aria-labelledby"] for _, a in read.elements if "aria-labelledby" in a}
    assert wanted <= set(ids)


def test_the_page_can_be_read_without_eyes(read):
    assert read.all("html")[0]["lang"] == "en"
    headings = [int(tag[1]) for tag, _ in read.elements if re.fullmatch("h[1-6]", tag)]
    assert headings == [1] + [2] * 5
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in read.all("svg"))
    assert all(cell["scope"] in ("col", "row") for cell in read.all("th"))
    assert len(read.all("caption")) == len(read.all("table")) > 4
    assert len(read.all("main")) == 1
    assert any(a.get("name") == "viewport" for a in read.all("meta"))


def numbers(data):
    """Every number of report.json, wherever it stands."""
    if isinstance(data, dict):
        return [n for value in data.values() for n in numbers(value)]
    if isinstance(data, list):
        return [n for value in data for n in numbers(value)]
    return [data] if isinstance(data, int | float) else []


def test_every_number_of_the_page_is_in_report_json(tmp_path):
    path = write(full_page(), tmp_path / "new" / "index.html")
    read = Reader(path.read_text(encoding="utf-8"))
    shown = [float(a["data-value"]) for _, a in read.elements if "data-value" in a]
    shown += numbers([json.loads(text) for kind, text in read.scripts if kind == "application/json"])
    data = json.loads((path.parent / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert sorted(shown) == sorted(numbers(data))
    assert {34.5678, 45.25, 1.25e-7, 2.25, 120} <= set(shown)
    findings = [section["finding"] for section in data["sections"]]
    assert all(finding in "".join(read.words) for finding in findings)


def test_a_number_changed_on_the_page_alone_would_be_seen(tmp_path):
    path = write(full_page(), tmp_path / "index.html")
    html = path.read_text(encoding="utf-8").replace('data-value="45.25"', 'data-value="45.26"')
    shown = [float(a["data-value"]) for _, a in Reader(html).elements if "data-value" in a]
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert sorted(shown) != sorted(numbers(data))


def test_writing_leaves_two_files_and_replaces_them_whole(tmp_path):
    write(full_page("first"), tmp_path / "index.html")
    write(full_page("second"), tmp_path / "index.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "report.json"]
    assert "second" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_page_that_cannot_be_rendered_leaves_the_last_good_one(tmp_path):
    path = write(full_page("first"), tmp_path / "index.html")
    bad = Page("bad", [Section("s", "f", [Picture("<svg", "c", "a")])])
    with pytest.raises(ValueError, match="does not parse"):
        write(bad, path)
    assert "first" in path.read_text(encoding="utf-8")


def test_the_same_page_gives_the_same_bytes():
    assert render(full_page()) == render(full_page())


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.html; got .*report\.pdf"):
        write(full_page(), tmp_path / "report.pdf")


@pytest.mark.parametrize(
    ("svg", "message"),
    [
        ('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "found <script>"),
        ('<svg xmlns="http://www.w3.org/2000/svg"><foreignObject/></svg>', "found <foreignObject>"),
        ('<svg xmlns="http://www.w3.org/2000/svg"><image href="http://a.example/"/></svg>', "found <image>"),
        ('<svg xmlns="http://www.w3.org/2000/svg"><use href="http://a.example/#x"/></svg>', "refers to itself alone"),
        ('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', "attribute 'onload'"),
        (
            '<svg xmlns="http://www.w3.org/2000/svg"><path fill="url(http://a.example/)"/></svg>',
            "refers to itself alone",
        ),
        ("<p>no drawing</p>", "found <p>"),
        ("no markup", "does not parse"),
    ],
)
def test_a_picture_holds_shapes_alone(svg, message):
    with pytest.raises(ValueError, match=message):
        render(Page("t", [Section("s", "f", [Picture(svg, "caption", "alt")])]))


def test_drawings_take_the_inks_of_the_page():
    page = render(Page("t", [Section("s", "f", [Picture(draw.svg(draw.network(2)), "c", "a")])]))
    drawing = page[page.index("<svg") : page.index("</svg>")]
    assert "currentColor" in drawing
    assert "var(--hue-1)" in drawing
    assert draw.theme.INK not in drawing
    assert draw.theme.PALETTE[0] not in drawing


def test_a_table_needs_a_cell_for_every_column():
    with pytest.raises(ValueError, match="row 1 has 1 cells; there are 2 columns"):
        Table((Column("a"), Column("b")), [(1, 2), (3,)], "caption")


def test_the_finding_of_the_terms_is_computed():
    found = sections.terms(sections.TermFacts("mlp", ["x", "a", "b"], [1.0, 2.0, 5.0], 1e-7, 10))
    assert "3 terms, exact to 1.0e-07; the largest, b, holds 62.5 %" in found.finding


def test_training_counts_what_diverged():
    page = full_page()
    assert (
        page.sections[0].finding == "2 networks trained on 4,000 examples of mlp in 9 s, tested on 1,000; 1 diverged."
    )
    with pytest.raises(ValueError, match="at least one run"):
        sections.training(sections.Training("mnist1d", (1, 1), {}, []))
