"""The pages of the API name what there is: a page is made from docstrings when the site is built, far from any test."""

import importlib
import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs" / "api").glob("*.md"))
SECTION = re.compile(r"^::: (\S+)\n((?: +.*\n)*)", re.MULTILINE)


def sections():
    """What each section of a page is about, and the members that it lists."""
    described = []
    for page in PAGES:
        for name, options in SECTION.findall(page.read_text(encoding="utf-8") + "\n"):
            described.append(
                pytest.param(name, re.findall(r"^ +- (\w+)$", options, re.MULTILINE), id=f"{page.stem}: {name}")
            )
    return described


@pytest.mark.parametrize(("name", "members"), sections())
def test_what_an_api_page_names_is_public(name, members):
    """A package with each of its members, or a class or function, which is a name of its package."""
    package, _, last = name.rpartition(".")
    if not members and last in importlib.import_module(package).__all__:
        return
    assert set(members) <= set(importlib.import_module(name).__all__)
