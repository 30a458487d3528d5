"""What a page carries besides its data: the chart library, our scripts and styles, and JSON that stays data."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

#: Of those that vl-convert carries; its bundle holds Vega and Vega-Lite and gives a page ``vegaEmbed`` (docs/page.md).
VEGA_LITE = "6.4"
_TEMPLATES = Path(__file__).parent.parent / "templates" / "page"


def safe_json(data: Any) -> str:
    """JSON that cannot end the element it stands in, nor begin another."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair, which no file may hold


@cache
def library() -> Markup:
    """The chart library as a script that keeps its names to itself."""
    import vl_convert  # 87 MB, and only here

    text = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    return _inline("(() => {" + text + "})();")


def script(*names: str) -> Markup:
    """Scripts of ours, one after the other."""
    return _inline("\n".join((_TEMPLATES / f"{name}.js").read_text(encoding="utf-8") for name in names))


def style() -> Markup:
    """The style sheet that all pages share."""
    return Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8"))


def _inline(text: str) -> Markup:
    """A script must not hold what ends its element, or what a browser takes for the start of a comment in it."""
    return Markup(re.sub(r"<(?=/script|script|!--)", r"\\x3c", text, flags=re.IGNORECASE))
