"""Drawings made fit to stand inside a page: ids of their own, inks of the page's theme, nothing that runs or loads."""

import re
from xml.etree import ElementTree

from unbraid.draw.theme import INK, MUTED, PALETTE, PAPER

__all__ = ["inline"]

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_ALLOWED = frozenset({"svg", "g", "path", "defs", "use", "clipPath", "rect", "circle", "line", "title"})
_DROPPED = frozenset({"metadata", "style"})  # a style sheet inside a drawing would style the whole page
# The page's own style says what these are in light, in dark and in print.
_INKS = {
    INK: "currentColor",
    PAPER: "var(--paper)",
    MUTED: "var(--muted)",
    **{hue: f"var(--hue-{number})" for number, hue in enumerate(PALETTE, start=1)},
}


def inline(svg: str, *, prefix: str, label: str) -> str:
    """A drawing as an element for an HTML page.

    Args:
        svg: a whole SVG document, without scripts, as matplotlib writes it.
        prefix: put before every id, so that the drawings of one page do not take each other's parts.
        label: the alternative text.

    Returns:
        An `<svg role="img">` without style attributes and without references beyond itself.

    Raises:
        ValueError: this is no SVG, or it holds an element or a reference that a page must not take over.
    """
    try:
        root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>\[]*>", "", svg, count=1))
    except ElementTree.ParseError as error:
        raise ValueError(f"a picture is an SVG document; this one does not parse: {error}.") from error
    _clean(root, prefix)
    if root.tag != "svg":
        raise ValueError(f"a picture is an SVG document; this one begins with <{root.tag}>.")
    for size in ("width", "height"):
        root.attrib[f"data-{size}"] = root.attrib.pop(size, "")  # the page scales it by its view box
    root.attrib.update({"role": "img", "aria-label": label, "stroke-linejoin": "round", "stroke-linecap": "butt"})
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element, prefix: str) -> None:
    """In place: drop name spaces and what does not belong, prefix ids, turn styles into attributes."""
    element.tag = element.tag.removeprefix(_SVG)
    if element.tag not in _ALLOWED:
        raise ValueError(f"a picture in a report holds shapes alone; found <{element.tag}>.")
    for name, value in list(element.attrib.items()):
        del element.attrib[name]
        if name == "style":
            declared = (part.split(":", 1) for part in value.split(";") if ":" in part)
            element.attrib.update({key.strip(): _ink(text.strip()) for key, text in declared})
        else:
            element.attrib.update(_attribute(name, value, prefix))
    for name, value in element.attrib.items():
        if re.search(r"url\(\s*[^#\s]", value):
            raise ValueError(f"a picture in a report refers to itself alone; found {value!r}.")
        element.attrib[name] = re.sub(r"url\(#([^)]*)\)", rf"url(#{prefix}\1)", value)
    for child in list(element):
        if isinstance(child.tag, str) and child.tag.removeprefix(_SVG) in _DROPPED:
            element.remove(child)
        else:
            _clean(child, prefix)


def _ink(value: str) -> str:
    return _INKS.get(value, value)


def _attribute(name: str, value: str, prefix: str) -> dict[str, str]:
    if name == "id":
        return {"id": prefix + value}
    if name in (_LINK, "href"):
        if not value.startswith("#"):
            raise ValueError(f"a picture in a report refers to itself alone; found {value!r}.")
        return {"href": f"#{prefix}{value[1:]}"}
    if name.startswith(("on", "{")):
        raise ValueError(f"a picture in a report holds shapes alone; found the attribute {name!r}.")
    return {name: _ink(value)}
