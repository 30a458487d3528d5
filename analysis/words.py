"""Numbers in words, and the templates that use them: what pages, Markdown and the terminal share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from analysis.statistics import Interval


class Number(str):
    """A number in words that still knows the number: ``value`` and its interval, in ``unit`` (s, bytes, share of 1).

    In sentences and Markdown it is its text.  In HTML it is a ``<data>`` element, from which a table's button makes columns of
    numbers (``csvOf`` in ``dom.js``); ``name`` tells it from others of its table cell.  Joined with other text it is text alone.
    """

    value: float
    low: float
    high: float
    unit: str
    name: str

    def __new__(
        cls,
        text: str,
        value: float = math.nan,
        unit: str = "",
        low: float = math.nan,
        high: float = math.nan,
        name: str = "",
    ) -> Number:
        found = super().__new__(cls, text)
        found.value, found.low, found.high = float(value), float(low), float(high)
        found.unit, found.name = unit, name
        return found

    def __html__(self) -> Markup:
        """``<data value="0.0012" data-low=… data-high=… data-unit="s">1.2 ms <span>[1.1 ms, 1.3 ms]</span></data>``."""
        numbers = {"value": self.value, "data-low": self.low, "data-high": self.high}
        told = {name: f"{value:.6g}" for name, value in numbers.items() if math.isfinite(value)}
        told |= {name: text for name, text in (("data-unit", self.unit), ("data-name", self.name)) if text}
        attributes = Markup("").join(Markup(' {}="{}"').format(*pair) for pair in told.items())
        text, bracket, ends = str(self).partition(" [")
        interval_ = Markup(' <span class="interval">[{}</span>').format(ends) if bracket else ""
        return Markup("<data{}>{}{}</data>").format(attributes, text, interval_)


def named(text: str, name: str) -> str:
    """A number that shares its table cell with others, by name; other text as it is."""
    return Number(text, text.value, text.unit, text.low, text.high, name) if isinstance(text, Number) else text


def environment() -> Environment:
    """The templates of this package: HTML is escaped, a name nobody gave is an error."""
    found = Environment(
        loader=PackageLoader("analysis"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "count": count,
        "percent": percent,
        "si": si,
        "times": factor,
        "seconds": seconds,
        "cell": markdown_cell,
        "number": number,
        "named": named,
        "ratio": si,
        "ratio_interval": lambda found: interval(found, si),
        "seconds_interval": lambda found: interval(found, seconds),
        "count_interval": count_interval,
        "exponent": exponent,
    }
    return found


def percent(share: float | None, digits: int = 0) -> str:
    """0.123 as 12 %."""
    if share is None or not math.isfinite(share):
        return "–"
    return Number(f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%", share, "share of 1")


def number(value: float | None, form: str = ".3g") -> str:
    """In Python's form; – for none."""
    return "–" if value is None or not math.isfinite(value) else Number(f"{value:{form}}", value)


def si(value: float | None) -> str:
    """2.5e-10 as it stands, short; – for none."""
    return number(value)


def seconds(value: float | None) -> str:
    """Seconds in the unit that reads best."""
    if value is None or not math.isfinite(value):
        return "–"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= size:
            return Number(f"{value / size:.3g} {unit}", value, "s")
    return Number(f"{value * 1e9:.3g} ns" if value >= 1e-9 else f"{value * 1e12:.3g} ps", value, "s")


def factor(value: float | None) -> str:
    """2.345 as 2.3×."""
    return "–" if value is None or not math.isfinite(value) else Number(f"{value:.1f}×", value)


def significant(value: float, digits: int) -> str:
    """190, 0.085, 2,230: no powers of ten where none are needed."""
    return Number(f"{float(f'{value:.{digits}g}'):,g}", value)


def with_interval(value: float, low: float, high: float, form: str = ".2f") -> str:
    """1.03 [0.97, 1.09]; an estimate alone where its interval is not known."""
    known = math.isfinite(low) and math.isfinite(high)
    return Number(f"{value:{form}} [{low:{form}}, {high:{form}}]" if known else f"{value:{form}}", value, "", low, high)


def exponent(found: Any) -> str:
    """1.02 [0.98, 1.06], of ``value``, ``ci_low`` and ``ci_high``, each a number or None."""
    value, low, high = (math.nan if end is None else float(end) for end in (found.value, found.ci_low, found.ci_high))
    return with_interval(value, low, high) if math.isfinite(value) else "–"


def interval(found: Interval, form: Callable[[float], str]) -> str:
    """The same in words of a kind, such as ``seconds``; a dash where there is not even an estimate."""
    if not math.isfinite(found.value):
        return "–"
    text = form(found.value)
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return text
    low, high = form(found.low), form(found.high)
    told = f"{text} [{low}, {high}]"
    if isinstance(text, Number) and isinstance(low, Number) and isinstance(high, Number):
        return Number(told, text.value, text.unit, low.value, high.value)
    return told


def markdown_cell(text: Any) -> str:
    """Text that cannot break out of a Markdown table or into HTML, and is no markup."""
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_|[]~" else c for c in plain)


def count(value: float) -> str:
    """A large number in words that read at a glance: 21,760,000 as 21.8 M."""
    if not math.isfinite(value):
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return Number(f"{value / size:.3g}\N{NO-BREAK SPACE}{unit}", value)
    return Number(f"{value:.3g}", value)


def count_interval(found: Interval) -> str:
    """Of a place that may not be reached: an end that is infinite is a dash."""
    told = f"{count(found.value)} [{count(found.low)}, {count(found.high)}]"
    return Number(told, found.value, "", found.low, found.high)


def _chip(found: Mapping[str, Any]) -> str:
    """An accelerator in words: its name, and in brackets what else is known."""
    size = found.get("memory_bytes")
    known = [f"{size / 2**30:.0f} GiB"] if isinstance(size, int | float) else []
    known += [f"{key.replace('_', ' ')} {found[key]}" for key in ("driver", "compute_capability") if found.get(key)]
    return f"{found.get('name', 'unnamed')} ({', '.join(known)})" if known else str(found.get("name", "unnamed"))


def machine_rows(machine: Mapping[str, Any]) -> dict[str, str]:
    """Machine facts worth a line, in words."""
    shown = ("cpu_model", "caches", "memory_bytes", "accelerators", "system", "release", "python_version", "libraries")
    rows = {}
    for key in shown:
        value = machine.get(key)
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = ", ".join(_chip(item) if isinstance(item, dict) else str(item) for item in value) or "none"
        elif key == "memory_bytes" and isinstance(value, int):
            key, value = "memory", f"{value / 2**30:.1f} GiB"
        if value not in (None, ""):
            rows[key.replace("_", " ")] = str(value)
    return rows


def settings_rows(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings, lists on one line."""
    return {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in settings.items()}
