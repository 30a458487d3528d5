"""Drawn figures as files for papers, and as what pages hold of them within themselves."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from analysis import charts
from analysis.charts import Chart
from analysis.figures import STYLE
from analysis.inline import inline
from backprop_files import write_whole

#: Dots per inch of PNGs, and of what lies as a picture within an SVG.
PNG_DPI, SVG_DPI = 110, 90
PNG_COLOURS = 160


@dataclass(frozen=True)
class Picture:
    """A drawn figure, ready to be put into pages; ``chart`` is what it shows as data, where it could tell it."""

    key: str
    title: str
    caption: str
    svg: bytes
    chart: dict[str, Any] | None = None

    @cached_property
    def inline(self) -> Markup:
        """The SVG as part of a page, with its text alternative."""
        return inline(self.svg, self.key, f"{self.title}. {self.caption}")


def picture(shown: Figure | Chart, key: str, title: str, caption: str, folder: Path) -> Picture:
    """Write a figure into ``folder`` as SVG and PNG.  Raises UserError where that cannot be written."""
    figure = charts.drawn(shown)
    svg = _render(figure, "svg")
    write_whole(folder / f"{key}.svg", svg)
    write_whole(folder / f"{key}.png", _render(figure, "png"))
    return Picture(key, title, caption, svg, charts.document(shown) if isinstance(shown, Chart) else None)


def _render(figure: Figure, kind: str) -> bytes:
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    with mpl.rc_context(STYLE):
        if kind == "svg":
            figure.savefig(stream, format="svg", dpi=SVG_DPI, metadata={"Date": None})
            return _small_and_steady(stream.getvalue())
        figure.savefig(stream, format="png", dpi=PNG_DPI)
    small = io.BytesIO()
    Image.open(stream).convert("RGB").quantize(PNG_COLOURS, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


def _small_and_steady(svg: bytes) -> bytes:
    """Coordinates to a hundredth of a point, and clip paths named in their order: matplotlib writes a millionth, and
    names some by where they lay in memory.
    """
    svg = re.sub(rb'(?<= d=")[^"]*', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]), svg)
    svg = re.sub(rb'(?<= [xy]=")([\d-]+\.\d\d)\d+', rb"\1", svg)
    for i, name in enumerate(dict.fromkeys(re.findall(rb"p[0-9a-f]{10}(?=[\")])", svg))):
        svg = svg.replace(name, b"clip%d" % i)
    return svg
