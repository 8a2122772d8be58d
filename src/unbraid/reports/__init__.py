"""unbraid.reports: a model taken apart, written as one self-contained HTML page with its numbers beside it.

    unbraid.report(form, batches, path="report/index.html")

To write pages of one's own:

    from unbraid.report import Page, sections, write

    section = sections.terms(sections.TermFacts("mlp, 20 blocks", names, norms, error))
    write(Page("What the network does", [section]), "report/index.html")

A page is made of sections, a section of parts: `Text`, `Table`, `Picture`, `Code`, `Equation`, `Braid`. What an
analysis has to say stands in `unbraid.reports.sections`, one file per subject: a function from its result to a
`Section`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# The function has the package's name, and stands at once; pages, figures and templates are imported when first used.
from unbraid.reports._report import NAMES, page, report

if TYPE_CHECKING:
    from unbraid.reports._content import Braid, Code, Column, Equation, Page, Part, Picture, Section, Table, Text
    from unbraid.reports._render import render, to_dict
    from unbraid.reports._subject import Subject
    from unbraid.reports._write import check_path, write

__all__ = [
    "NAMES",
    "Braid",
    "Code",
    "Column",
    "Equation",
    "Page",
    "Part",
    "Picture",
    "Section",
    "Subject",
    "Table",
    "Text",
    "check_path",
    "page",
    "render",
    "report",
    "sections",
    "to_dict",
    "write",
]

_WHERE = {
    **dict.fromkeys(
        ("Braid", "Code", "Column", "Equation", "Page", "Part", "Picture", "Section", "Table", "Text"), "_content"
    ),
    **dict.fromkeys(("render", "to_dict"), "_render"),
    "Subject": "_subject",
    **dict.fromkeys(("check_path", "write"), "_write"),
}


def __getattr__(name: str) -> Any:
    if name == "sections":
        return import_module("unbraid.reports.sections")
    if name in _WHERE:
        return getattr(import_module(f"unbraid.reports.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'unbraid.reports' has no attribute {name!r}")
