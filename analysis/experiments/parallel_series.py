"""What was found of data parallelism, by implementation: fits, their errors on cells that no fit saw, and what these say.

Bands are declared here, before data are seen.  A law predicts where nine in ten of the cells that no fit saw lie within
``BAND``, with the 95 % interval over passes of that quantile below it; it is refuted where half of them lie outside, with the
interval of the median above it; between the two nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.experiments import Word
from analysis.experiments import parallel_law as law
from analysis.experiments import parallel_more as more
from analysis.experiments import parallel_scaling as scaling
from analysis.experiments.found import Found
from analysis.experiments.parallel_law import STEP, Coefficients, Judged, Law, Measured
from analysis.experiments.parallel_more import FEW, More
from analysis.statistics import Floats, Interval
from analysis.words import interval, percent

#: Errors of predictions, relative.
BAND = 0.15
#: Overlap hides communication where it hides at least so much of it.
HIDES = 0.1
#: Fewer cells than this judge nothing.
LEAST = 4
GIGA = 1e-9
#: Fits a law to cells, or finds too few of them.
Predictor = Callable[[pd.DataFrame], Law | None]


@dataclass(frozen=True, eq=False)
class Series:
    """One implementation, and what was found of it."""

    measured: Measured
    fitted: Coefficients | None
    forms: list[Judged]

    @property
    def name(self) -> str:
        """As it stands in tables."""
        return self.measured.name

    @cached_property
    def beyond(self) -> list[int]:
        """Numbers of ranks that are predicted from fewer."""
        return [k for k in self.measured.ranks if k > FEW]

    @cached_property
    def left_out(self) -> pd.DataFrame:
        """Steps over more than one rank, each left out of the fit in turn."""
        cells = law.left_out(self.measured.cells)
        return cells[cells["ranks"] > 1]

    @cached_property
    def from_fewer(self) -> pd.DataFrame:
        """Steps over more ranks, by what was fitted to 1 and 2."""
        return from_fewer(self.measured)

    @cached_property
    def more(self) -> More | None:
        """The law for more ranks, by at most two; None where two did not also share a core."""
        return more.fit(self.measured.cells)

    @cached_property
    def told(self) -> Law | None:
        """What figures show: the law by at most two ranks, else the declared one, by all."""
        return self.more or self.fitted

    @cached_property
    def efficiencies(self) -> list[scaling.Efficiency]:
        """Strong and weak, by network and k."""
        return scaling.efficiencies(self.measured)

    @cached_property
    def hidden(self) -> Interval:
        """Share of communication that overlap hides, all steps together."""
        return scaling.hidden(self.measured)


def series(found: Found) -> list[Series]:
    """One for each implementation.  Raises UserError for rows of another form."""
    return [Series(one, law.fit(one.cells), law.judge_forms(one)) for one in law.measured(found)]


@dataclass(frozen=True)
class Errors:
    """Of |t̂/t - 1|: the median and the 90 % quantile with their intervals over passes, and of how many cells."""

    cells: int
    median: Interval
    p90: Interval

    @property
    def word(self) -> Word:
        """By the declared rule."""
        if self.cells < LEAST or np.isnan(self.p90.low):
            return "inconclusive"
        if self.p90.high <= BAND:
            return "supported"
        return "refuted" if self.median.low > BAND else "inconclusive"

    @property
    def told(self) -> str:
        """In words."""
        return f"median {interval(self.median, percent_1)}, nine in ten within {interval(self.p90, percent_1)}"


def errors_of(one: Measured, judged: Callable[[Measured], Floats]) -> Errors:
    """``judged`` makes errors of what was measured; each pass is left out of all of it in turn."""
    whole, *without = [
        np.abs(judged(Measured(one.name, one.impl, cells, np.log(cells[["time_s"]].to_numpy(float)))))
        for cells in (one.cells, *one.without)
    ]

    known = all(len(errors) and np.isfinite(errors).all() for errors in without)

    def quantile(q: float) -> Interval:
        if not len(whole) or not np.isfinite(whole).all():
            return Interval(np.nan, np.nan, np.nan)
        # on a linear scale: errors near 0 have no scale of their own
        others = np.array([np.quantile(errors, q) for errors in without]) if known else np.array([])
        found = law.jackknife(float(np.quantile(whole, q)), others)
        return Interval(found.value, max(0.0, found.low), found.high)

    return Errors(len(whole), quantile(0.5), quantile(0.9))


def of_steps(one: Measured, variant: str = STEP) -> Floats:
    """Errors of steps over more than one rank, each left out in turn."""
    cells = law.left_out(one.cells, variant)
    return cells.loc[cells["ranks"] > 1, "error"].to_numpy(float)


def of_more_ranks(one: Measured, told: str = "", by: Predictor = more.best) -> Floats:
    """Errors of steps over more ranks than ``FEW``, predicted from fewer; of one way of scaling, or of all."""
    return law.scaled(from_fewer(one, by), told)["error"].to_numpy(float)


def from_fewer(one: Measured, by: Predictor = more.best) -> pd.DataFrame:
    """The steps over more ranks than ``FEW``, with the ``error`` of what was fitted to fewer."""
    steps = one.steps(STEP)
    return law.with_error(steps[steps["ranks"] > FEW], by(one.cells[one.cells["ranks"] <= FEW]))


def of_all_reduces(one: Measured) -> Floats:
    """Errors of all-reduces by the declared form, each left out in turn."""
    judged = law.judge_forms(one)
    return judged[0].errors if judged else np.array([])


# --- in words -------------------------------------------------------------------------------------------------------


def percent_1(value: float) -> str:
    """To a tenth of a per cent."""
    return percent(value, 1)


def bandwidth(beta_s: float) -> str:
    """Of a rank's link, in GB/s: each byte goes out and comes back, so that β = 2 / bandwidth."""
    return f"{2 * GIGA / beta_s:.3g}" if beta_s > 0 else "no limit seen"


def three(value: float) -> str:
    """Three figures."""
    return f"{value:.3g}"


def two(value: float) -> str:
    """Two digits."""
    return f"{value:.2f}"


def milliseconds(value: float) -> str:
    """Seconds in milliseconds."""
    return f"{1e3 * value:.3g}"


def signed(error: float) -> str:
    """An error with its sign."""
    return f"{100 * error:+.0f}\N{NO-BREAK SPACE}%"


def median(cells: pd.DataFrame) -> float:
    """Of the errors of cells, without their signs."""
    return float(np.median(np.abs(cells["error"]))) if len(cells) else np.nan
