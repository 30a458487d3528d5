"""Laws of cost as data, their fits, and the choice between them.

A law is a sum of terms with non-negative coefficients: t = Σ c_k · term_k(n, m, p, u).  Errors are relative:
the fit minimises Σ ((t̂ - t) / t)², with weights that let go of a few wild cells.  Every law has the fixed term, so that
none loses for want of an intercept.  A new law is one entry in ``LAWS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from analysis.statistics import Floats

#: A law with fewer terms wins unless the other's error is at most this share of its own, and smaller by a point.
WORTH_A_TERM = 0.9
A_POINT = 0.01
#: Fewer held-out cells than this judge nothing; then whole cells are left out in turn.
LEAST_HELDOUT = 3
FOLDS = 8
#: Held-out cells have at least this many times the work of any cell that was fitted.
HELDOUT_FACTOR = 8


@dataclass(frozen=True)
class Term:
    """One term: its name, the unit of its coefficient, and its column of values (rows of the frame)."""

    name: str
    unit: str
    values: Callable[[pd.DataFrame], pd.Series]


@dataclass(frozen=True)
class Law:
    """A formula for cost declared before the data are seen; ``phases`` it is a candidate for."""

    name: str
    statement: str
    terms: tuple[Term, ...]
    phases: tuple[str, ...]


FIXED = Term("1", "s", lambda f: f["n"] * 0 + 1.0)
NMP = Term("n·m·p", "s per example, parameter and operation", lambda f: f["n"] * f["m"] * f["p"])
NM = Term("n·m", "s per example and parameter", lambda f: f["n"] * f["m"])
NUP = Term("n·u·p", "s per example and unit-operation", lambda f: f["n"] * f["u"] * f["p"])
NU = Term("n·u", "s per example and unit", lambda f: f["n"] * f["u"])
M = Term("m", "s per parameter", lambda f: f["m"])
LAYERS = Term("depth", "s per layer", lambda f: f["depth"])
CALLS = Term("hidden·p", "s per hidden layer and operation", lambda f: (f["depth"] - 1) * f["p"])
N_LAYERS = Term("n·depth", "s per example and layer", lambda f: f["n"] * f["depth"])
N_CALLS = Term("n·hidden·p", "s per example, hidden layer and operation", lambda f: f["n"] * (f["depth"] - 1) * f["p"])
N = Term("n", "s per example", lambda f: f["n"])

_WHOLE = ("step", "forward", "backward")
LAWS = (
    Law("n·m·p", "the article's: every weight of every example pays for the activation", (FIXED, NMP), _WHOLE),
    Law("n·m", "multiply-adds alone; the activation is free", (FIXED, NM), _WHOLE),
    Law(
        "additive",
        "products once per weight, activation once per unit, update once per parameter: t0 + n(a·m + b·u·p) + c·m",
        (FIXED, NM, NUP, M),
        _WHOLE,
    ),
    Law(
        "additive with calls",
        "the additive law, and a fixed price for every call a library makes: one for each layer, and one for each "
        "operation of each hidden layer's activation: t0 + t1·depth + t2·hidden·p + n(a·m + b·u·p) + c·m",
        (FIXED, LAYERS, CALLS, NM, NUP, M),
        _WHOLE,
    ),
    Law(
        "additive with calls per example",
        "the same where every example makes the calls anew: t0 + n(t1·depth + t2·hidden·p + a·m + b·u·p) + c·m",
        (FIXED, N_LAYERS, N_CALLS, NM, NUP, M),
        _WHOLE,
    ),
    Law("n", "the article's: once per example", (FIXED, N), ("loss",)),
    Law("n·m", "grows with the network too", (FIXED, NM), ("loss",)),
    Law("m", "the article's: once per parameter, whatever n", (FIXED, M), ("update",)),
    Law("n·m", "grows with the examples too", (FIXED, NM), ("update",)),
    Law("constant", "overhead only", (FIXED,), ("loss", "update")),
)


@dataclass(frozen=True)
class LawFit:
    """A fitted law and how well it predicts; errors are |t̂/t - 1|, NaN where there was nothing to judge by."""

    law: Law
    coefficients: tuple[float, ...]
    fitted_cells: int
    fitted_median: float
    crossvalidated_median: float
    heldout_cells: int
    heldout_median: float
    heldout_p90: float
    largest_fitted: float  # operations; cells beyond served to judge, or not at all

    def predict(self, frame: pd.DataFrame) -> Floats:
        """Seconds for the rows of a frame with n, m, p, u."""
        return np.asarray(design(self.law, frame) @ np.array(self.coefficients))

    @property
    def judged(self) -> float:
        """The error the law is chosen by: on unseen cells of the sizes fitted, and on far larger ones, in equal parts.

        The largest cells alone would not see what small ones pay for calls; the fitted sizes alone not what scales.
        """
        if self.heldout_cells < LEAST_HELDOUT:
            return self.crossvalidated_median
        return (self.crossvalidated_median + self.heldout_median) / 2


@dataclass(frozen=True)
class Choice:
    """The laws of one group, the one that wins, and by what it was judged."""

    fits: tuple[LawFit, ...]
    winner: LawFit | None
    reason: str


def design(law: Law, frame: pd.DataFrame) -> Floats:
    """Columns of term values, shape (rows, terms)."""
    return np.column_stack([np.asarray(term.values(frame), float) for term in law.terms])


def choose(cells: pd.DataFrame, phase: str) -> Choice:
    """Fit every candidate law of ``phase`` on the cells that may be seen and pick the best predictor of the others.

    ``cells`` are rows of one group.  Cells between the largest fitted and the held-out ones serve neither; those on the
    ``functions`` axis alone are not used, since operations of real functions do not compare with multiplications.
    """
    usable = cells[cells["axis"] != "functions"]
    heldout = usable[usable["heldout"]]
    seen = usable[~usable["heldout"] & (usable["operations_total"] <= largest_fitted(heldout))]
    candidates = [law for law in LAWS if phase in law.phases]
    fits = tuple(_fit(law, seen, heldout) for law in candidates if len(seen) >= len(law.terms) + 3)
    if not fits:
        return Choice((), None, f"only {len(seen)} cells, too few to fit a law")
    judged_by = f"{len(seen)} cells left out in turn"
    if len(heldout) >= LEAST_HELDOUT:
        judged_by += f" and {len(heldout)} held-out largest cells"
    by_terms = sorted((fit for fit in fits if np.isfinite(fit.judged)), key=lambda fit: len(fit.law.terms))
    if not by_terms:
        return Choice(fits, None, "no law could be judged")
    winner = by_terms[0]
    for fit in by_terms[1:]:
        equally_long = len(fit.law.terms) == len(winner.law.terms)
        worth = fit.judged < min(winner.judged * WORTH_A_TERM, winner.judged - A_POINT)
        if worth or (equally_long and fit.judged < winner.judged):
            winner = fit
    return Choice(fits, winner, f"judged on {judged_by}")


def largest_fitted(heldout: pd.DataFrame) -> float:
    """Operations of the largest cell a fit may see: an eighth of the smallest that judges it."""
    return float(heldout["operations_total"].min()) / HELDOUT_FACTOR if len(heldout) >= LEAST_HELDOUT else np.inf


def _fit(law: Law, seen: pd.DataFrame, heldout: pd.DataFrame) -> LawFit:
    times = seen["time_s"].to_numpy(float)
    columns = design(law, seen)
    coefficients = fit_relative(columns, times)
    errors = np.abs(columns @ coefficients / times - 1)
    beyond = np.abs(design(law, heldout) @ coefficients / heldout["time_s"].to_numpy(float) - 1)
    return LawFit(
        law,
        tuple(coefficients.tolist()),
        len(seen),
        float(np.median(errors)),
        _crossvalidate(columns, times),
        len(heldout),
        float(np.median(beyond)) if len(beyond) else np.nan,
        float(np.quantile(beyond, 0.9)) if len(beyond) else np.nan,
        float(seen["operations_total"].max()),
    )


def fit_relative(columns: Floats, times: Floats) -> Floats:
    """Non-negative coefficients that minimise relative errors, robustly.

    Tukey's biweight (Beaton & Tukey 1974) by reweighting: cells several times further off than most lose their say.
    """
    scale = columns.max(axis=0)
    relative = columns / scale / times[:, None]
    weights = np.ones(len(times))
    solution = np.zeros(columns.shape[1])
    for _ in range(10):
        root = np.sqrt(weights)
        solution, _ = nnls(relative * root[:, None], root)
        residuals = relative @ solution - 1
        spread = 1.4826 * np.median(np.abs(residuals))
        # 4.685 is 95 % efficient under normal errors; 5 % keeps an all but perfect fit from discarding honest cells
        distance = np.clip(np.abs(residuals) / (4.685 * max(spread, 0.05)), 0, 1)
        weights = (1 - distance**2) ** 2
    return np.asarray(solution / scale)


def _crossvalidate(columns: Floats, times: Floats) -> float:
    """Median relative error of cells that the fit did not see, each left out once; folds follow the order of size."""
    folds = np.argsort(np.argsort(times)) % FOLDS
    errors = np.full(len(times), np.nan)
    for fold in range(FOLDS):
        out = folds == fold
        if 0 < out.sum() < len(times) - columns.shape[1]:
            errors[out] = np.abs(columns[out] @ fit_relative(columns[~out], times[~out]) / times[out] - 1)
    return float(np.nanmedian(errors)) if np.isfinite(errors).any() else np.nan
