"""A drawn figure as part of a page: its own SVG, whose colours follow the page's, light, dark or on paper."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from markupsafe import Markup

from analysis.figures import COLOURS

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
#: What shows something; styles, which would hold for the whole page, and metadata do not come along, nor anything that can run.
_KEPT = {_SVG + name for name in ("svg", "g", "defs", "path", "use", "clipPath", "rect", "image")}
_POINTS_AT = re.compile(r"url\(#([\w.-]+)\)")
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
#: Pixels for each point of a figure at most: letters of 9 points are not to be posters.
LARGEST = 1.8
#: Channels that differ by less are a grey.
_GREY = 0x18


def inline(svg: bytes, key: str, told: str) -> Markup:
    """A figure's SVG for a page: ``key`` before its names keeps them apart from those of other figures, ``told`` is its text.

    Only elements that draw are kept.  White is the page's paper, black its ink, our hues are those of the style sheet.
    """
    root = ElementTree.fromstring(svg)
    _drop(root)
    used = {name for part in root.iter() for name in _pointed_at(part)}
    for part in root.iter():
        _rename(part, key, used)
        if "style" in part.attrib:
            part.set("style", _COLOUR.sub(lambda found: colour(found[0]), part.get("style", "").lower()))
    width = float(root.get("viewBox", "0 0 600 0").split()[2])
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": told, "class": "drawn", "fill": "currentColor"}
    root.set("style", f"max-width: {LARGEST * width:.0f}px")
    ElementTree.register_namespace("", _SVG[1:-1])
    return Markup(re.sub(r"\s*\n\s*", " ", ElementTree.tostring(root, encoding="unicode")))


def colour(told: str) -> str:
    """A colour ``#rrggbb`` on white as one of the page: c = share·base + (1 − share)·white, whatever paper is there.

    Greys are ink on paper; a hue that is none of ours is lifted where paper is dark, so that dark ones are seen.
    """
    if told in _OURS:
        return _OURS[told]
    channels = [int(told[i : i + 2], 16) for i in (1, 3, 5)]
    if max(channels) - min(channels) < _GREY:
        ink = 1 - sum(channels) / 3 / 255
        return _mixed("var(--ink)", ink)
    share = 1 - min(channels) / 255
    base = "".join(f"{round(255 - (255 - channel) / share):02x}" for channel in channels)
    return _mixed(f"color-mix(in oklab, var(--ink) var(--lift), #{base})", share)


def _mixed(base: str, share: float) -> str:
    if share > 0.995:
        return base
    return "var(--paper)" if share < 0.005 else f"color-mix(in srgb, {base} {100 * share:.0f}%, var(--paper))"


#: Black is ink, though it is a series' colour too: what is black among text and axes is no series.
_OURS = {hue.lower(): f"var(--series-{i})" for i, hue in enumerate(COLOURS)} | {"#000000": "var(--ink)"}


def _drop(part: ElementTree.Element) -> None:
    for child in list(part):
        if child.tag in _KEPT:
            _drop(child)
        else:
            part.remove(child)


def _pointed_at(part: ElementTree.Element) -> list[str]:
    """Names that an element refers to."""
    found = [name for value in part.attrib.values() for name in _POINTS_AT.findall(value)]
    link = part.get(_HREF, "")
    return [*found, link[1:]] if link.startswith("#") else found


def _rename(part: ElementTree.Element, key: str, used: set[str]) -> None:
    """Names that something refers to become the figure's own, the others go; links as HTML has them."""
    name = part.attrib.pop("id", "")
    if name in used:
        part.set("id", f"{key}-{name}")
    for at, value in list(part.attrib.items()):
        part.set(at, _POINTS_AT.sub(rf"url(#{key}-\1)", value))
    link = part.attrib.pop(_HREF, None)
    if link is not None:
        part.set("href", f"#{key}-{link[1:]}" if link.startswith("#") else link)
