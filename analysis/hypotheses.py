"""Laws as data: read from ``laws.toml`` beside this file, and from a file of the user's (``--laws FILE``).

Expressions are parsed (``analysis.expressions``), nothing is evaluated as code.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import expressions
from analysis.expressions import Expression
from analysis.statistics import Floats
from backprop_files import UserError

PHASES = ("step", "forward", "loss", "backward", "update", "memory", "epoch")
MOST_TERMS = 12
_KEYS = {"name", "statement", "phases", "terms", "exponents"}


@dataclass(frozen=True)
class Law:
    """A formula for cost declared before the data are seen: a sum of terms whose coefficients are fitted.

    ``exponents`` says how cost grows in n, m and p past fixed overhead; what it leaves open depends on the coefficients.
    """

    name: str
    statement: str
    phases: tuple[str, ...]
    terms: tuple[Expression, ...]
    exponents: Mapping[str, float]

    def design(self, frame: pd.DataFrame) -> Floats:
        """Columns of term values, shape (rows, terms); NaN where a cache's size is not known."""
        names = {"n"}.union(*(term.names for term in self.terms))
        columns = {
            name: frame[name].to_numpy(float) if name in frame else np.full(len(frame), np.nan) for name in names
        }
        return np.column_stack([term(columns) for term in self.terms])


def declared(file: Path | None = None) -> tuple[Law, ...]:
    """The laws of this package and those of ``file``.  Raises UserError that names file, law and what is wrong."""
    own = _read(Path(__file__).with_name("laws.toml"))
    more = _read(file) if file else ()
    for law in more:
        taken = [known for known in own if known.name == law.name and set(known.phases) & set(law.phases)]
        if taken:
            raise UserError(f"{file}: law '{law.name}' is declared already ({taken[0].statement}): choose another name")
    return (*own, *more)


def law_of(name: str, statement: str, phases: tuple[str, ...], terms: Sequence[str], names: Collection[str]) -> Law:
    """A law over variables of its own.  Raises UserError for a term that is no arithmetic over ``names``."""
    parsed = tuple(expressions.parse(term, f"law '{name}'", names) for term in terms)
    return Law(name, statement, phases, parsed, {})


def _read(file: Path) -> tuple[Law, ...]:
    try:
        with file.open("rb") as stream:
            document = tomllib.load(stream)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is no TOML: {error}") from error
    tables = document.get("law")
    if not isinstance(tables, list) or not tables or set(document) - {"law"}:
        raise UserError(f"{file}: holds [[law]] tables and nothing else; see analysis/laws.toml for the form")
    laws = tuple(_law(table, f"{file}: law {i}") for i, table in enumerate(tables, 1))
    for law in laws:
        if sum(law.name == other.name and bool(set(law.phases) & set(other.phases)) for other in laws) > 1:
            raise UserError(f"{file}: law '{law.name}' stands twice for one phase")
    return laws


def _law(table: Any, where: str) -> Law:
    if not isinstance(table, dict):
        raise UserError(f"{where}: is no table")
    unknown = sorted(set(table) - _KEYS)
    if unknown:
        raise UserError(f"{where}: unknown key '{unknown[0]}'; known: {', '.join(sorted(_KEYS))}")
    name = _text(table, "name", where)
    where = f"{where} '{name}'"
    phases = _texts(table, "phases", where)
    for phase in phases:
        if phase not in PHASES:
            raise UserError(f"{where}: unknown phase '{phase}'; known: {', '.join(PHASES)}")
    terms = _texts(table, "terms", where)
    if len(terms) > MOST_TERMS:
        raise UserError(f"{where}: {len(terms)} terms; at most {MOST_TERMS} can be told apart")
    if len(set(terms)) < len(terms):
        raise UserError(f"{where}: a term stands twice")
    parsed = tuple(expressions.parse(term, where) for term in terms)
    return Law(name, _text(table, "statement", where), phases, parsed, _exponents(table.get("exponents", {}), where))


def _exponents(found: Any, where: str) -> dict[str, float]:
    good = isinstance(found, dict) and all(
        key in ("n", "m", "p") and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 8
        for key, value in found.items()
    )
    if not good:
        raise UserError(f"{where}: exponents are numbers for n, m and p, such as {{ n = 1, m = 1, p = 0 }}")
    return {key: float(value) for key, value in found.items()}


def _text(table: dict[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: '{key}' is missing or no text")
    return value


def _texts(table: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = table.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where}: '{key}' is a list of texts with one at least")
    return tuple(value)
