"""Drawn figures as files, and as sources of an ``<img>`` that pages hold within themselves."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from analysis.figures import STYLE
from backprop_files import write_whole

#: Dots per inch of PNGs, and of what lies as a picture within an SVG.
PNG_DPI, SVG_DPI = 110, 90
PNG_COLOURS = 160


@dataclass(frozen=True)
class Picture:
    """A drawn figure, ready to be put into pages."""

    key: str
    title: str
    caption: str
    svg: bytes

    @property
    def data_uri(self) -> str:
        """The SVG as a self-contained source of an ``<img>``: nothing in it can run."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


def picture(figure: Figure, key: str, title: str, caption: str, folder: Path) -> Picture:
    """Write a figure into ``folder`` as SVG and PNG.  Raises UserError where that cannot be written."""
    svg = _render(figure, "svg")
    write_whole(folder / f"{key}.svg", svg)
    write_whole(folder / f"{key}.png", _render(figure, "png"))
    return Picture(key, title, caption, svg)


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
