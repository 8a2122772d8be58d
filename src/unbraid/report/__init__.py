"""unbraid.report: typed content, written as one self-contained HTML page with its numbers beside it.

    section = report.sections.terms(report.sections.TermFacts("mlp, 20 blocks", names, norms, error))
    report.write(report.Page("What the network does", [section]), "report/index.html")

A page is made of sections, a section of parts: `Text`, `Table`, `Picture`, `Code`, `Equation`. What an analysis has
to say stands in `report.sections`, one file a subject: a function from its result to a `Section`.
"""

from unbraid.report import sections
from unbraid.report._content import Code, Column, Equation, Page, Part, Picture, Section, Table, Text
from unbraid.report._render import render, to_dict
from unbraid.report._write import write

__all__ = [
    "Code",
    "Column",
    "Equation",
    "Page",
    "Part",
    "Picture",
    "Section",
    "Table",
    "Text",
    "render",
    "sections",
    "to_dict",
    "write",
]
