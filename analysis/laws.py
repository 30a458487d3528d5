"""Fits of declared laws, the choice between them, and how sure their coefficients and predictions are.

A law is a sum of terms with non-negative coefficients: t = Σ c_k · term_k (``analysis.hypotheses``).  Errors are relative:
the fit minimises Σ ((t̂ - t) / t)², with weights that let go of a few wild cells.  Every law has the fixed term, so that
none loses for want of an intercept.  What wins is told by cells that the fit did not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import lsq_linear, nnls

from analysis.hypotheses import Law
from analysis.statistics import Floats, t_quantile

#: A law with fewer terms wins unless the other's error is smaller by so many standard errors of the difference, and by
#: so much of it: the one-standard-error rule of Breiman et al. (1984), made stricter for the many laws that are tried.
STANDARD_ERRORS = 2.0
WORTH_A_TERM = 0.1
#: Errors beyond it are all the same: a wild cell must not choose the law.
WORST_ERROR = 0.5
#: Fewer held-out cells than this judge nothing; then whole cells are left out in turn.
LEAST_HELDOUT = 3
#: Fewer cells larger than those fitted choose nothing.
LEAST_LARGER = 5
FOLDS = 8
#: Held-out cells have at least this many times the work of any cell that was fitted.
HELDOUT_FACTOR = 8
#: n and m that correlate so closely cannot be told apart.
COLLINEAR = 0.995
#: A law needs so many cells more than it has terms.
SPARE_CELLS = 3
#: Tukey's constant (95 % efficient under normal errors), and the least spread: an all but perfect fit keeps honest cells.
TUKEY, LEAST_SPREAD = 4.685, 0.02
#: Bytes have no noise: cells lie on their law or are of another kind.
LEAST_EXACT = 1e-3
ROUNDS, ABSOLUTE_ROUNDS = 10, 15
DRAWS = 1000


@dataclass(frozen=True, eq=False)
class LawFit:
    """A fitted law and how well it predicts; errors are t̂/t - 1, NaN where there was nothing to judge by."""

    law: Law
    coefficients: tuple[float, ...]
    fitted_cells: int
    fitted_median: float  # of |error|, like all that follow
    crossvalidated_median: float
    heldout_cells: int
    heldout_median: float
    heldout_p90: float
    largest_fitted: float  # operations; cells beyond served to judge, or not at all
    crossvalidated: Floats  # error of every fitted cell, left out in turn
    larger: Floats  # error of every cell larger than those fitted and smaller than the held-out ones
    heldout: Floats  # error of every held-out cell
    weights: Floats  # of the fitted cells: 0 for one that was let go

    def predict(self, frame: pd.DataFrame) -> Floats:
        """Seconds (or bytes) for the rows of a frame of cells."""
        return np.asarray(self.law.design(frame) @ np.array(self.coefficients))

    @property
    def loss(self) -> float:
        """The error the law is chosen by: on cells of the sizes fitted, left out in turn, and on larger ones, equal parts.

        Larger ones alone would not see what small cells pay for calls; the sizes fitted alone not what scales.  Held-out
        cells take no part: they judge the law that was chosen, and would flatter one chosen by them.
        """
        return float(np.mean([part.mean() for part in _losses(self)]))


@dataclass(frozen=True, eq=False)
class Choice:
    """The laws of one group, the one that wins, and by what it was judged."""

    fits: tuple[LawFit, ...]
    winner: LawFit | None
    reason: str
    final: LawFit | None = (
        None  # the winner fitted to every cell, held-out ones too: what costs and predictions rest on
    )
    draws: Floats | None = None  # of the final coefficients, (draws, terms)
    floor: float = 0.0  # seconds of launching on an accelerator, below which no step goes whatever the law says

    def seconds(self, frame: pd.DataFrame) -> Floats:
        """What the winner says of a frame of cells, of any size; it must have one."""
        assert self.winner is not None
        return np.maximum(self.winner.predict(frame), self.floor)


def choose(cells: pd.DataFrame, phase: str, laws: Sequence[Law], factor: float = HELDOUT_FACTOR) -> Choice:
    """Fit every candidate law of ``phase`` on small cells, pick the best predictor of others, judge it on held-out ones.

    ``cells`` are rows of one group; those on the ``functions`` axis alone are not used, since operations of real functions
    do not compare with multiplications.  ``factor`` is how many times larger held-out cells are than fitted ones, at least.
    """
    parts = split(cells, factor)
    if _moved_together(parts.seen):
        return Choice((), None, "n and m were only ever moved together: no law can tell them apart")
    candidates = [law for law in laws if phase in law.phases]
    fits = tuple(
        fit
        for law in candidates
        if len(parts.seen) >= len(law.terms) + SPARE_CELLS and (fit := fit_law(law, parts)) is not None
    )
    if not fits:
        return Choice((), None, f"only {len(parts.seen)} cells, too few to fit a law")
    reason = f"chosen on {len(parts.seen)} cells left out in turn"
    if len(parts.larger) >= LEAST_LARGER:
        reason += f" and {len(parts.larger)} larger ones"
    if len(parts.heldout) >= LEAST_HELDOUT:
        reason += f", judged on {len(parts.heldout)} held-out largest cells"
        reason += f", larger than any fitted but not {HELDOUT_FACTOR} times" if factor < HELDOUT_FACTOR else ""
    winner = best(fits)
    every = cells[cells["axis"] != "functions"]
    return Choice(fits, winner, reason, fit_law(winner.law, Parts(every, every.iloc[:0], every.iloc[:0])))


def _moved_together(cells: pd.DataFrame) -> bool:
    """Whether n and m are collinear on the log scale."""
    n, m = (np.log(cells[name].to_numpy(float)) for name in ("n", "m"))
    if len(cells) < 3 or not (np.ptp(n) and np.ptp(m)):
        return False  # one of them alone is told by its axis
    return abs(float(np.corrcoef(n, m)[0, 1])) > COLLINEAR


@dataclass(frozen=True, eq=False)
class Parts:
    """Cells that fits may see, larger ones to choose by, and the held-out largest ones to judge by."""

    seen: pd.DataFrame
    larger: pd.DataFrame
    heldout: pd.DataFrame


def split(cells: pd.DataFrame, factor: float = HELDOUT_FACTOR) -> Parts:
    """Fits see cells with at most an eighth of the work of the smallest held-out one, or what ``factor`` asks for."""
    usable = cells[cells["axis"] != "functions"]
    heldout, others = usable[usable["heldout"]], usable[~usable["heldout"]]
    small = others["operations_total"] <= largest_fitted(heldout, factor)
    return Parts(others[small], others[~small], heldout)


def largest_fitted(heldout: pd.DataFrame, factor: float = HELDOUT_FACTOR) -> float:
    """Operations of the largest cell a fit may see: an eighth of the smallest that judges it."""
    return float(heldout["operations_total"].min()) / factor if len(heldout) >= LEAST_HELDOUT else np.inf


def best(fits: Sequence[LawFit]) -> LawFit:
    """The law with the fewest terms whose errors are not clearly larger than those of the best; among laws with as many
    terms the one with the smaller.
    """
    champion = min(fits, key=lambda fit: (fit.loss, len(fit.law.terms)))
    for terms in sorted({len(fit.law.terms) for fit in fits if len(fit.law.terms) < len(champion.law.terms)}):
        rival = min((fit for fit in fits if len(fit.law.terms) == terms), key=lambda fit: fit.loss)
        if not _clearly_larger(rival, champion):
            return rival
    return champion


def _losses(fit: LawFit) -> list[Floats]:
    """Bounded absolute errors of cells left out in turn, and of larger ones where there are enough to tell."""
    parts = [fit.crossvalidated] + ([fit.larger] if len(fit.larger) >= LEAST_LARGER else [])
    return [np.minimum(np.abs(part), WORST_ERROR) for part in parts]


def _clearly_larger(rival: LawFit, champion: LawFit) -> bool:
    """Whether the rival's loss exceeds the champion's by more than chance: paired, cell by cell."""
    parts = [a - b for a, b in zip(_losses(rival), _losses(champion), strict=True)]
    difference = float(np.mean([part.mean() for part in parts]))
    error = float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts))) / len(parts)
    return bool(difference > max(STANDARD_ERRORS * error, WORTH_A_TERM * rival.loss))


def fit_law(law: Law, parts: Parts) -> LawFit | None:
    """Fit on the cells seen, try on all; None where a term has no value here (a cache whose size is not known)."""
    seen, heldout = parts.seen, parts.heldout
    columns, further, beyond = (law.design(part) for part in (seen, parts.larger, heldout))
    if not all(np.isfinite(part).all() for part in (columns, further, beyond)) or (columns < 0).any():
        return None
    times = seen["time_s"].to_numpy(float)
    exact = "memory" in law.phases
    coefficients, weights = fit_relative(columns, times, exact)
    errors = columns @ coefficients / times - 1
    out = beyond @ coefficients / heldout["time_s"].to_numpy(float) - 1
    crossvalidated = crossvalidate(columns, times, exact)
    return LawFit(
        law,
        tuple(coefficients.tolist()),
        len(seen),
        float(np.median(np.abs(errors))),
        float(np.median(np.abs(crossvalidated))),
        len(heldout),
        float(np.median(np.abs(out))) if len(out) else np.nan,
        float(np.quantile(np.abs(out), 0.9)) if len(out) else np.nan,
        float(seen["operations_total"].max()),
        crossvalidated,
        further @ coefficients / parts.larger["time_s"].to_numpy(float) - 1,
        out,
        weights,
    )


def fit_relative(
    columns: Floats, times: Floats, exact: bool = False, known: Floats | float = 0.0
) -> tuple[Floats, Floats]:
    """Non-negative coefficients that minimise relative errors, robustly; and the weights that cells ended with.

    ``known`` is a part of every time that is not fitted: t = known + Σ c_k · column_k.

    Tukey's biweight (Beaton & Tukey 1974) by reweighting: cells several times further off than most lose their say.  Data
    that are ``exact`` start from least absolute errors, which a few cells of another kind cannot bend at all.
    """
    scale = columns.max(axis=0)
    scale[scale <= 0] = 1.0  # a term that is 0 throughout: hidden layers where there is none
    relative, wanted = columns / scale / times[:, None], 1 - known / times
    weights, solution = np.ones(len(times)), np.zeros(columns.shape[1])
    for i in range(ABSOLUTE_ROUNDS + ROUNDS if exact else ROUNDS):
        root = np.sqrt(weights)
        before, (solution, _) = solution, nnls(relative * root[:, None], root * wanted)
        residuals = np.abs(relative @ solution - wanted)
        if exact and i < ABSOLUTE_ROUNDS:
            weights = 1 / np.maximum(residuals, LEAST_EXACT)
            continue
        if np.abs(solution - before).max() <= 1e-4 * solution.max():
            break
        spread = max(1.4826 * float(np.median(residuals)), LEAST_EXACT if exact else LEAST_SPREAD)
        weights = (1 - np.clip(residuals / (TUKEY * spread), 0, 1) ** 2) ** 2
        if np.count_nonzero(weights) <= columns.shape[1]:
            weights = np.ones(len(times))
            break
    return np.asarray(solution / scale), weights


def crossvalidate(columns: Floats, times: Floats, exact: bool = False, known: Floats | float = 0.0) -> Floats:
    """Relative errors of cells that the fit did not see, each left out once; folds follow the order of size."""
    known = np.broadcast_to(known, times.shape)
    folds = np.argsort(np.argsort(times, kind="stable"), kind="stable") % min(FOLDS, len(times))
    errors = np.empty(len(times))
    for fold in range(folds.max() + 1):
        out = folds == fold
        coefficients, _ = fit_relative(columns[~out], times[~out], exact, known[~out])
        errors[out] = (known[out] + columns[out] @ coefficients) / times[out] - 1
    return errors


def with_draws(choice: Choice, entries: pd.DataFrame, cells: pd.DataFrame, count: int = DRAWS) -> Choice:
    """The choice with draws of its final coefficients."""
    if choice.final is None or not count:
        return choice
    every = cells[cells["axis"] != "functions"]
    return replace(choice, draws=draws(choice.final, every, log_table(entries, every), count))


def draws(fit: LawFit, seen: pd.DataFrame, logs: Floats, count: int = DRAWS, seed: int = 0) -> Floats:
    """Coefficients as they might have come out, shape (count, terms): cells and passes drawn anew together.

    Cells are drawn with replacement: a size is faster or slower than the law says in every pass alike.  Passes are drawn as
    a wild bootstrap: every pass's deviations, of all cells together, times a normal weight, widened to what Student's t
    asks for so few passes; drawing three passes with replacement would be too narrow (Cameron, Gelbach & Miller 2008).
    ``logs`` are log times of ``seen``, shape (cells, passes), NaN where not measured.
    """
    rng = np.random.default_rng(seed)
    columns, times = fit.law.design(seen), seen["time_s"].to_numpy(float)
    scale = columns.max(axis=0)
    scale[scale <= 0] = 1.0
    relative = columns / scale / times[:, None]
    cells = len(times)
    picked = rng.multinomial(cells, np.full(cells, 1 / cells), size=count).astype(float)
    moved = np.exp(-_pass_moves(rng, logs, count))  # t of a draw is t·e^move: its relative columns shrink by as much
    weight = picked * fit.weights
    # normal equations of every draw: G = Σ w r rᵀ e^-2move, b = Σ w r e^-move
    outer = (relative[:, :, None] * relative[:, None, :]).reshape(cells, -1)
    grams = ((weight * moved**2) @ outer).reshape(count, relative.shape[1], -1)
    rights = (weight * moved) @ relative
    return np.asarray(np.stack([_nnls_normal(g, b) for g, b in zip(grams, rights, strict=True)]) / scale)


def log_table(entries: pd.DataFrame, cells: pd.DataFrame) -> Floats:
    """Log times of ``cells`` (rows) in every pass (columns) of a group's entries; NaN where not measured."""
    keys = ["layers", "activation", "n"]
    where = {key: i for i, key in enumerate(cells[keys].itertuples(index=False, name=None))}
    rows = np.array([where.get(key, -1) for key in entries[keys].itertuples(index=False, name=None)])
    number, _ = pd.factorize(entries["pass"], sort=True)
    table = np.full((len(cells), number.max(initial=-1) + 1), np.nan)
    table[rows[rows >= 0], number[rows >= 0]] = np.log(entries["time_s"].to_numpy(float)[rows >= 0])
    return table


def _pass_moves(rng: np.random.Generator, logs: Floats, count: int) -> Floats:
    """Log by which every cell moves in every draw, shape (count, cells), for passes are only so many."""
    passes = logs.shape[1]
    if passes < 2:
        return np.zeros((count, len(logs)))
    away = np.nan_to_num(logs - np.nanmean(logs, axis=1, keepdims=True))
    widened = t_quantile(passes - 1) / 1.96
    weights = rng.standard_normal((count, passes)) * widened / np.sqrt(passes * (passes - 1))
    return np.asarray(weights @ away.T)


def _nnls_normal(gram: Floats, right: Floats) -> Floats:
    """Non-negative least squares from its normal equations G x = b: with G = V w Vᵀ it is min |√w Vᵀ x - Vᵀ b / √w|.

    A draw of few cells may leave some directions without a say: they get a little weight rather than none.
    """
    least = 1e-10 * np.trace(gram)
    if not least > 0:  # no cell with any weight was drawn
        return np.zeros(len(right))
    values, vectors = np.linalg.eigh(gram)
    root = np.sqrt(np.maximum(values, least))
    columns, target = root[:, None] * vectors.T, vectors.T @ right / root
    try:
        return np.asarray(nnls(columns, target)[0])
    except RuntimeError:  # cells moved so far apart that active sets go round in a circle
        return np.asarray(lsq_linear(columns, target, (0, np.inf)).x)
