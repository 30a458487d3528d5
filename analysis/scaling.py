"""How HEAD's scaling differs from BASE's: growth along every axis, and what it rests on.

Small cells may stand still while cost begins to grow faster.  Along an axis x, let d be a cell's log ratio head / base and s
the share of BASE's time that is fixed.  Two lines are put through the cells, each weighted by how well they repeat:

    d = fixed · s + price · (1 - s)                     the fixed part and what grows, each changed by one factor
    d / (1 - s) = level + slope · log x                 what grows has another exponent: it changed by slope

HEAD's growth is *dearer* where the price of what grows is proved to be beyond the allowance; or where the slope is proved to be
above 0 and the second line, carried on to eight times the largest x, is beyond the allowance there.  In both cases the largest
cell itself must be proved slower than BASE's, if only a little: a cheaper overhead alone is no worse growth.

Fixed overhead, the crossover and the coefficients of BASE's law are compared too: each is a smooth function of the cells'
log times, whose gradient carries the sessions' ratios over to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis import exponents, growth, laws
from analysis.exponents import AXES, Line
from analysis.hypotheses import Law
from analysis.ratios import ERROR_OF_LOOK, SERIES, Word, estimated, least_to_accuse, table
from analysis.statistics import Estimate, Floats, Interval, discoveries, gradient, moderated
from backprop_files import USUAL_OPTIMIZER

#: How far a line is carried on beyond the largest cell.
BEYOND = 8.0
#: An axis is measured again where its growth is so unlikely by chance; it cannot be told in the end where it is as this.
SUSPECT, DOUBT = 0.15, 0.05
LEAST_CELLS, LEAST_SESSIONS = 3, 2
#: What is fixed is at most this share: beyond, what grows cannot be seen.
MOST_FIXED = 0.95
NAMES = {"n": "n along examples", "m_depth": "m along depth", "m_width": "m along width", "p": "p along activation"}


@dataclass(frozen=True)
class Change:
    """How growth of one series along one axis changed: the exponent's ``difference``, and head / base of what grows
    (``price``), of the largest cell, and ``beyond``, at ``BEYOND`` times the largest x.
    """

    series: str
    name: str
    base: exponents.Exponent
    head: exponents.Exponent
    difference: Interval
    price: Interval
    beyond: Interval
    largest: Interval  # head / base of the largest cell
    larger: bool
    suspect: bool  # to be measured again
    doubt: bool  # neither proved nor out of the question
    cells: tuple[str, ...]
    sees: float  # the smallest difference it could have told


@dataclass(frozen=True)
class Quantity:
    """A quantity of both sides and head / base; ``unit`` of the two, NaN where there is none, and why in ``reason``."""

    series: str
    name: str
    unit: str
    base: float
    head: float
    ratio: Interval
    word: Word
    reason: str


@dataclass(frozen=True)
class _Axis:
    """Cells of an axis in the order of x, with the weights that make slope, level beyond and last of their ratios."""

    name: str
    cells: tuple[str, ...]
    slope: Floats
    beyond: Floats
    price: Floats
    last: Floats
    samples: Floats  # (cells, sessions) log ratios, of the sessions that measured every cell
    spreads: Floats  # standard deviation of every cell's between sessions

    def scale(self, weights: Floats) -> float:
        """Standard deviation between sessions of a weighted sum of the cells' ratios, were they independent."""
        return float(np.sqrt(((weights * self.spreads) ** 2).sum()))


def changes(
    rows: pd.DataFrame, base: pd.DataFrame, head: pd.DataFrame, allow: float, looks: Sequence[int]
) -> list[Change]:
    """Of every series and axis with three cells at least.  ``rows`` are ``ratios.pairs``, ``base`` and ``head`` the
    entries of both sides.
    """
    error = ERROR_OF_LOOK
    axes = [(series, key, axis) for series, key in _series(rows) for axis in _axes(rows, key)]
    slopes = _estimates([(series, axis, axis.slope) for series, _, axis in axes])
    beyonds = _estimates([(series, axis, axis.beyond) for series, _, axis in axes])
    prices = _estimates([(series, axis, axis.price) for series, _, axis in axes])
    lasts = _estimates([(series, axis, axis.last) for series, _, axis in axes])
    bound = float(np.log1p(allow))
    steep, dear = [slope.p_above(0.0) for slope in slopes], [price.p_above(bound) for price in prices]
    proved = discoveries(np.array(steep + dear), error / 2)
    sides = {
        key: [exponents.exponents(_rows_of(entries, key), {}) for entries in (base, head)] for _, key in _series(rows)
    }
    found = []
    for i, (series, key, axis) in enumerate(axes):
        matters = beyonds[i].value > bound
        certain = matters and beyonds[i].p_above(0.0) <= error / 2
        again = axis.samples.shape[1] >= least_to_accuse(looks)
        larger = again and lasts[i].p_above(0.0) <= error / 2 and bool((proved[i] and certain) or proved[len(axes) + i])
        p_value = max(lasts[i].p_above(0.0), min(steep[i] if matters else 1.0, dear[i]))
        before, after = (own[axis.name] for own in sides[key])
        interval = slopes[i].interval(1 - error)
        found.append(
            Change(
                series,
                NAMES[axis.name],
                before,
                after,
                interval,
                prices[i].interval(1 - error).exp(),
                beyonds[i].interval(1 - error).exp(),
                lasts[i].interval(1 - error).exp(),
                larger,
                p_value <= SUSPECT,
                not larger and p_value <= DOUBT,
                axis.cells,
                (interval.high - interval.low) / 2,
            )
        )
    return found


def quantities(rows: pd.DataFrame, allow: float, declared: tuple[Law, ...]) -> list[Quantity]:
    """Fixed overhead, crossover and the coefficients of BASE's winning law, of every series that has them."""
    found = []
    for series, key in _series(rows):
        for name, unit, lines, function in _functions(_rows_of(rows, key), declared):
            found.append(_quantity(series, name, unit, lines, function, allow))
    return found


def _series(rows: pd.DataFrame) -> list[tuple[str, tuple[Any, ...]]]:
    """Names and keys; the usual optimizer needs no mention."""
    keys = [key for key, _ in rows.groupby(SERIES, sort=False)]
    return [(" ".join(str(part) for part in key if part != USUAL_OPTIMIZER), key) for key in keys]


def _rows_of(entries: pd.DataFrame, key: tuple[Any, ...]) -> pd.DataFrame:
    mask = np.logical_and.reduce(
        [(entries[column] == value).to_numpy() for column, value in zip(SERIES, key, strict=True)]
    )
    return entries[mask]


def _estimates(wanted: Sequence[tuple[str, _Axis, Floats]]) -> list[Estimate]:
    """Of weighted sums of the cells' ratios, moderated among the axes of a series once each is told in units of its own
    spread: a slope over cells that are nearly all overhead varies many times as much as another.
    """
    found: list[Estimate] = [Estimate(np.nan, np.nan, 0.0)] * len(wanted)
    scales = [axis.scale(weights) for _, axis, weights in wanted]
    for series in dict.fromkeys(series for series, _, _ in wanted):
        at = [i for i, (own, _, _) in enumerate(wanted) if own == series]
        samples = [wanted[i][2] @ wanted[i][1].samples / scales[i] for i in at]
        for i, estimate in zip(at, moderated(samples), strict=True):
            found[i] = Estimate(estimate.value * scales[i], estimate.error * scales[i], estimate.degrees)
    return found


def _axes(rows: pd.DataFrame, key: tuple[Any, ...]) -> Iterator[_Axis]:
    """The axes of one series, with the linear weights of their slope and of their level beyond."""
    own = _rows_of(rows, key)
    cells, logs = table(own)
    at = {cell: i for i, cell in enumerate(cells)}
    spreads = _spreads(logs)
    for name in NAMES:
        (axis,), variable = AXES[name]
        line = exponents.line(own, axis, variable)
        if len(line.x) < LEAST_CELLS or line.x[-1] == line.x[0]:
            continue
        names = tuple(line.cells["cell"])
        samples = logs[[at[cell] for cell in names]]
        samples = samples[:, ~np.isnan(samples).any(axis=0)]
        if samples.shape[1] < LEAST_SESSIONS:
            continue
        own_spreads = spreads[[at[cell] for cell in names]]
        weights = _weights(line, own_spreads)
        yield _Axis(name, names, *weights, np.eye(len(names))[-1], samples, own_spreads)


def _spreads(logs: Floats) -> Floats:
    """Standard deviation of every cell's ratio between sessions; 1 for all where nothing is known."""
    found = np.array([estimate.error * np.sqrt(sessions) for estimate, sessions in estimated(logs)])
    return found if np.isfinite(found).all() and (found > 0).all() else np.ones(len(logs))


def _weights(line: Line, spreads: Floats) -> tuple[Floats, Floats, Floats]:
    """How slope, level beyond and price move with every d, whose standard deviations between sessions are ``spreads``."""
    share = np.minimum(line.fixed_part(line.means) / np.exp(line.means), MOST_FIXED)
    rest, x = 1 - share, np.log(line.x)
    level, slope = _solution(np.column_stack([rest, rest * x]), spreads)
    return slope, level + slope * float(np.log(BEYOND) + x[-1]), _solution(np.column_stack([share, rest]), spreads)[1]


def _solution(design: Floats, spreads: Floats) -> Floats:
    """Least squares as weights of the observations, (columns, cells): X⁺ of the design in units of the spreads."""
    return np.asarray(np.linalg.pinv(design / spreads[:, None], rcond=1e-6) / spreads)


Function = Callable[[Floats], float]


def _functions(
    rows: pd.DataFrame, declared: tuple[Law, ...]
) -> Iterator[tuple[str, str, tuple[Floats, Floats], Function]]:
    """Quantities of one series as functions of log times, each with BASE's mean logs (cells,) and ratios (cells, sessions)."""
    cells, logs = table(rows)
    whole = ~np.isnan(logs).any(axis=0)
    first = rows.drop_duplicates("cell").set_index("cell").loc[cells].reset_index()
    times = np.exp(np.log(rows.set_index("cell")["time_s"]).groupby("cell").mean().loc[cells].to_numpy(float))
    if whole.sum() < LEAST_SESSIONS:
        return
    at = np.log(times)
    examples = np.array(["examples" in axis.split(",") for axis in first["axis"]])
    n = first["n"].to_numpy(float)
    if len(set(n[examples])) >= LEAST_CELLS:
        lines = at[examples], logs[examples][:, whole]
        yield "fixed overhead t0 along examples", "s", lines, lambda y: growth.fit(n[examples], np.exp(y)).fixed
        yield (
            "crossover, n where half is overhead",
            "examples",
            lines,
            lambda y: growth.fit(n[examples], np.exp(y)).where(0.5),
        )
    law = _law_of(first.assign(time_s=times), str(first["phase"].iloc[0]), declared)
    if law is None:
        return
    columns = law.design(first)
    for i, term in enumerate(law.terms):
        unit = "s" if term.text == "1" else f"s per {term.text}"
        yield f"{law.name}: coefficient of {term.text}", unit, (at, logs[:, whole]), _coefficient(columns, i)


def _coefficient(columns: Floats, i: int) -> Function:
    """One coefficient of a law as a function of the cells' log times."""
    return lambda logs: float(laws.fit_relative(columns, np.exp(logs))[0][i])


def _law_of(cells: pd.DataFrame, phase: str, declared: tuple[Law, ...]) -> Law | None:
    """The law that wins on BASE's cells."""
    chosen = laws.choose(cells, phase, declared)
    return chosen.winner.law if chosen.winner else None


def _quantity(
    series: str, name: str, unit: str, lines: tuple[Floats, Floats], function: Function, allow: float
) -> Quantity:
    """Both sides' value and their ratio, by the gradient of its log half-way between them."""
    at, logs = lines
    moved = logs.mean(axis=1)
    base, head = function(at), function(at + moved)
    unknown = Quantity(series, name, unit, base, head, Interval(np.nan, np.nan, np.nan), "cannot tell", "")
    if not (np.isfinite([base, head]).all() and base > 0 and head > 0):
        return replace(unknown, reason="it is nothing, or beyond what was measured, on one side")
    by_cell = gradient(lambda y: float(np.log(max(function(y), 1e-300))), at + moved / 2)
    if not np.abs(by_cell).max() < 1e3:
        return replace(unknown, reason="it hangs on a hair: not told apart from nothing")
    (spread,) = moderated([by_cell @ logs])
    estimate = Estimate(float(np.log(head / base)), spread.error, spread.degrees)
    ratio = estimate.interval(1 - ERROR_OF_LOOK).exp()
    return replace(unknown, ratio=ratio, word=word(estimate, allow, ERROR_OF_LOOK))


def word(estimate: Estimate, allow: float, error: float) -> Word:
    """One of four words for a log ratio, by its interval alone."""
    found, bound = estimate.interval(1 - error), float(np.log1p(allow))
    if found.low > bound:
        return "slower"
    if found.high < -bound:
        return "faster"
    return "same" if -bound <= found.low and found.high <= bound else "cannot tell"
