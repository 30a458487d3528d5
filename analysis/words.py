"""Numbers in words, and the templates that use them: what pages, Markdown and the terminal share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from analysis.statistics import Interval


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
        "ratio": lambda value: f"{value:.3g}",
        "ratio_interval": lambda found: interval(found, lambda value: f"{value:.3g}"),
    }
    return found


def percent(share: float | None, digits: int = 0) -> str:
    """0.123 as 12 %."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def si(value: float | None) -> str:
    """2.5e-10 as it stands, short; – for none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """Seconds in the unit that reads best."""
    if value is None or not math.isfinite(value):
        return "–"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns" if value >= 1e-9 else f"{value * 1e12:.3g} ps"


def factor(value: float | None) -> str:
    """2.345 as 2.3×."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.1f}×"


def significant(value: float, digits: int) -> str:
    """190, 0.085, 2,230: no powers of ten where none are needed."""
    return f"{float(f'{value:.{digits}g}'):,g}"


def with_interval(value: float, low: float, high: float, form: str = ".2f") -> str:
    """1.03 [0.97, 1.09]; an estimate alone where its interval is not known."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"{value:{form}} [{low:{form}}, {high:{form}}]" if known else f"{value:{form}}"


def interval(found: Interval, form: Callable[[float], str]) -> str:
    """The same in words of a kind, such as ``seconds``; a dash where there is not even an estimate."""
    if not math.isfinite(found.value):
        return "–"
    known = math.isfinite(found.low) and math.isfinite(found.high)
    return form(found.value) + (f" [{form(found.low)}, {form(found.high)}]" if known else "")


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
            return f"{value / size:.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{value:.3g}"


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
