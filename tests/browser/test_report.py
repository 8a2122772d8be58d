"""The report in a real browser, opened from a file with the network off."""

import json
from itertools import pairwise

import pytest
import torch

import unbraid
from marks import slow
from unbraid import nn
from unbraid.reports import Page, Section, Subject, Text, page, write

HOSTILE = "</script><img src=x onerror=\"document.title='taken'\">"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batches_like(*shape):
    generator = seeded(1)
    return [(torch.randn(8, *shape, generator=generator), torch.randint(10, (8,), generator=generator))]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Six blocks: every path is in the page."""
    network = nn.mlp(depth=6, width=16, norm=None, scale="1/sqrt(K)", generator=seeded()).eval()
    batches = batches_like(40)
    form = unbraid.trace(network, batches[0][0])
    return unbraid.report(form, batches, path=tmp_path_factory.mktemp("small") / "index.html", name=HOSTILE), form


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A hundred and sixty blocks: stages are closed, and the page holds the largest paths."""
    network = nn.mlp(depth=160, width=8, norm=None, scale="1/sqrt(K)", generator=seeded()).eval()
    batches = batches_like(40)
    form = unbraid.trace(network, batches[0][0])
    skip = {"lens", "orders", "signal", "examples", "neighbours"}
    made = page(Subject.of(form, batches, "long"), skip=skip)
    return write(made, tmp_path_factory.mktemp("long") / "index.html")


class Opened:
    """A page, with everything that it said and asked for."""

    def __init__(self, browser, path, width=1280, scheme="light"):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def picked(self, term):
        found = self.page.locator(f'.picked dd[data-term="{term}"]')
        return float(found.get_attribute("data-value"))

    def overflow(self):
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_it_opens_without_the_network_and_without_a_complaint(chromium, small):
    path, _ = small
    with Opened(chromium, path) as opened:
        assert opened.said == []
        assert opened.asked == [path.as_uri()], "nothing is asked for but the page itself"
        assert opened.page.title().startswith(HOSTILE), "a name is text, whatever it holds"
        assert opened.page.locator("img").count() == 0


def test_the_policy_stops_what_a_hostile_name_would_do(chromium, tmp_path):
    """Were a name ever written unescaped, the policy would still not let it run."""
    path = write(Page("t", [Section("s", "f", [Text("MARK")])]), tmp_path / "index.html")
    bad = "<script>document.title='taken'</script><img src='http://localhost:9/x' onerror=\"document.title='taken'\">"
    path.write_text(path.read_text(encoding="utf-8").replace("MARK", bad), encoding="utf-8")
    with Opened(chromium, path) as opened:
        assert opened.page.title() == "t"
        assert any("Content Security Policy" in line for line in opened.said)


def test_a_picked_path_shows_what_python_computed(chromium, small):
    path, form = small
    inputs = batches_like(40)[0][0]
    wanted = [0, -1, -1, 0, 0, -1]
    mask = torch.tensor([wanted])
    largest = unbraid.results.largest
    value = unbraid.paths.chosen_paths(form, inputs, masks=mask, target=largest)
    gradient = unbraid.paths.chosen_paths(form, inputs, masks=mask, target=largest, linearize="jacobian")
    values = unbraid.value_spectrum(form, inputs, target=unbraid.results.largest).from_input.mean(1)
    every = unbraid.all_paths(form, inputs, target=unbraid.results.largest).values.mean(1).abs()
    with Opened(chromium, path) as opened:
        blocks = opened.page.locator(".strands .item")
        assert blocks.count() == 6
        for block in (0, 3, 4):
            blocks.nth(block).click()
        assert [blocks.nth(k).get_attribute("aria-pressed") for k in range(6)] == [
            str(choice >= 0).lower() for choice in wanted
        ]
        assert opened.picked("Length") == 3
        assert opened.picked("Value") == pytest.approx(float(value.values.mean()), rel=1e-4)
        assert opened.picked("Gradient along it, norm") == pytest.approx(float(gradient.norms[0]), rel=1e-4)
        rank = 1 + int((every > value.values.mean().abs() * (1 + 1e-6)).sum())
        assert opened.picked("Rank by value") == rank
        shown = opened.picked("All of lengths 0 to 3 together, value")
        assert shown == pytest.approx(float(values[:4].sum()), rel=1e-4)
        assert str(wanted) in opened.page.locator(".picked code").inner_text()
        blocks.nth(0).click()
        assert opened.picked("Length") == 2


def test_a_path_is_picked_by_keyboard(chromium, small):
    path, _ = small
    with Opened(chromium, path) as opened:
        opened.page.locator(".strands .item").first.focus()
        for key in ("Enter", "ArrowRight", "ArrowRight", " ", "End", "Enter", "ArrowLeft", "Home"):
            opened.page.keyboard.press(key)
        pressed = opened.page.locator('.strands .item[aria-pressed="true"]')
        assert [pressed.nth(k).get_attribute("data-number") for k in range(pressed.count())] == ["0", "2", "5"]
        assert opened.page.evaluate("document.activeElement.dataset.number") == "0"
        assert opened.page.locator(".strands [tabindex='0']").count() == 1, "the row is one stop of the tab key"


def test_ranks_lead_from_path_to_path(chromium, small):
    path, _ = small
    with Opened(chromium, path) as opened:
        opened.page.get_by_role("button", name="Largest path").click()
        assert opened.picked("Rank by value") == 1
        first = abs(opened.picked("Value"))
        opened.page.get_by_role("button", name="Rank down").click()
        assert opened.picked("Rank by value") == 2
        assert abs(opened.picked("Value")) <= first


def test_a_table_is_sorted_by_its_numbers(chromium, small):
    path, _ = small
    data = json.loads((path.parent / "report.json").read_text())
    blocks = data["sections"][0]["parts"][1]
    column = [c["heading"] for c in blocks["columns"]].index("Loss without it, change")
    values = [row[column] for row in blocks["rows"]]
    with Opened(chromium, path) as opened:
        table = opened.page.locator("table").first
        heading = table.locator("thead button").nth(column)
        shown = f"[...document.querySelector('tbody').rows].map(row => Number(row.cells[{column}].dataset.value))"
        heading.click()
        assert opened.page.evaluate(shown) == sorted(values)
        heading.click()
        assert opened.page.evaluate(shown) == sorted(values, reverse=True)
        assert table.locator("thead th").nth(column).get_attribute("aria-sort") == "descending"


def test_the_theme_switches(chromium, small):
    path, _ = small
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    with Opened(chromium, path) as opened:
        light = opened.page.evaluate(ground)
        opened.page.locator("#theme").click()
        dark = opened.page.evaluate(ground)
        assert light != dark
    with Opened(chromium, path, scheme="dark") as opened:
        assert opened.page.evaluate(ground) == dark, "as the system says, without a click"


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_runs_over_the_edge(chromium, small, long, width):
    for path in (small[0], long):
        with Opened(chromium, path, width) as opened:
            assert opened.overflow() <= 0
            boxes = opened.page.evaluate(
                "[...document.querySelectorAll('.strands svg')].map(s => s.getBoundingClientRect().right)"
            )
            assert max(boxes) <= width


def test_stages_of_a_long_network_open_and_close(chromium, long):
    with Opened(chromium, long) as opened:
        items = opened.page.locator(".strands .item")
        assert items.count() == 10
        stage = opened.page.get_by_role("button", name="32–47")
        assert stage.get_attribute("aria-expanded") == "false"
        items.nth(2).click()
        assert items.count() == 25
        assert stage.get_attribute("aria-expanded") == "true"
        assert opened.page.locator(".strands text", has_text="47").count() == 1
        opened.page.get_by_role("button", name="All branches").click()
        assert opened.picked("Length") == 160
        assert "not among the 64 paths" in opened.page.locator('.picked dd[data-term="Value"]').inner_text()
        stage.click()
        assert items.count() == 10
        labels = opened.page.locator(".strands text")
        boxes = [labels.nth(k).bounding_box() for k in range(labels.count())]
        rows = {}
        for box in boxes:
            rows.setdefault(round(box["y"]), []).append(box)
        for row in rows.values():
            for left, right in pairwise(row):
                assert left["x"] + left["width"] < right["x"], "labels do not touch"


@pytest.mark.parametrize("scheme", [slow("light"), "dark"])
def test_axe_finds_nothing_serious(chromium, axe, small, long, scheme):
    for path in (small[0], long):
        with Opened(chromium, path, scheme=scheme) as opened:
            opened.page.evaluate(axe)
            found = opened.page.evaluate("axe.run()")["violations"]
            serious = [
                (one["id"], node["html"][:200])
                for one in found
                if one["impact"] in ("serious", "critical")
                for node in one["nodes"][:2]
            ]
            assert serious == []


def test_axe_would_see_a_mistake(chromium, axe, small):
    with Opened(chromium, small[0]) as opened:
        opened.page.evaluate(
            "document.querySelector('select').parentNode.replaceWith(document.querySelector('select'))"
        )
        opened.page.evaluate(axe)
        assert "select-name" in [one["id"] for one in opened.page.evaluate("axe.run()")["violations"]]


def test_a_printed_page_is_light_and_whole(chromium, long):
    with Opened(chromium, long, scheme="dark") as opened:
        opened.page.emulate_media(media="print")
        opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert (
            opened.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert opened.page.evaluate("[...document.querySelectorAll('details')].every(folded => folded.open)")
        assert not opened.page.locator(".controls").is_visible()


def test_without_scripts_the_numbers_are_still_there(chromium, small):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(small[0].as_uri())
    assert page.locator("table").count() > 8
    assert page.get_by_text("the table below says the same in numbers").is_visible()
    context.close()
