"""Steps, spikes and drift in the history of one number: which commits changed it, and by how much.

The series is a value at every measured commit in their order, on the scale on which noise is even (logarithms of times and
bytes; exponents as they are).  It is taken to be

    y = smooth + Σ size_k · [commit ≥ at_k] + noise        noise: variance σ², correlation φ between neighbours

**The rule.**  A *step* is a change of level that lasts ``LEAST_COMMITS`` commits at least on either side, that is larger
than ``LEAST_SIZE``, and whose t² in this model exceeds what chance reaches in one history in ``1 / FALSE_ALARM``.

* **Noise** comes from differences of neighbours, their outliers clipped, so that neither steps nor drift nor spikes enter
  it; φ from how much further commits two apart differ; variances are multiplied by (1 + φ) / (1 - φ).
* **Spikes** are levels shorter than ``LEAST_COMMITS``: one commit that is ``SPIKE`` σ away, or a few that together are as
  clearly so.  They are marked and take no further part.
* **The end.**  Up to ``LEAST_COMMITS`` - 1 last commits that differ from those before are *watched*: they are no step yet,
  may be a spike, and take no part in the fit.
* **Candidates** come from PELT (Killick, Fearnhead & Eckley 2012, *JASA* 107:1590) in the library ``ruptures`` (Truong,
  Oudre & Vayatis 2020, *Signal Processing* 167:107299), of the series itself and of what a smooth part leaves.  All are
  fitted together with the smooth part, and the weakest is dropped until all exceed the threshold.
* **Drift** is a smooth part that pays for itself: nothing, a straight line, or a line with up to ``MOST_KNOTS`` bends, by a
  penalised sum of squares in which a step costs its threshold and a bend ``BEND`` of it.  A step that a ramp over
  ``RAMPS`` commits would fit better becomes one, so slow change is one drift, not many steps; and so does one whose jump,
  told from the commits right beside it, is clearly less than half of it.
* **Where.**  A step's range holds every place whose likelihood ratio is below ``RANGE``, the 95 % bound of Hansen (2000,
  *Econometrica* 68:575) for the place of a threshold.
* **How large.**  Its 95 % interval has the long-run variance above and allows for a slope beside the step, found or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import ruptures

from analysis.statistics import Floats, Interval

#: A level that lasts fewer commits is a spike in the middle of a history, and is watched at its end.
LEAST_COMMITS = 5
#: Fewer commits have no steps: two levels.
LEAST_HISTORY = 2 * LEAST_COMMITS
#: Shorter histories have no drift: it could not be told from a level or two.
LEAST_DRIFTING = 2 * LEAST_HISTORY
#: Smaller steps are of no interest (log, or in an exponent).
LEAST_SIZE = 0.01
#: Steps found by chance in a history without any.
FALSE_ALARM = 0.002
#: A commit so many σ away from those around it is a spike; last commits so many standard errors away are watched.
SPIKE, WATCH = 5.0, 4.5
#: Noise is never taken to be less: a tenth of a per cent.
LEAST_NOISE = 1e-3
#: Bends of the smooth part that are tried, evenly spaced at first.
MOST_KNOTS = 12
#: What a bend must be worth beside a step.
BEND = 0.6
#: Widths (commits) of the ramps that a step is held against, and by how much (of -2 log likelihood) one must fit better.
RAMPS, RAMP = (24, 48, 96), 4.0
#: Jumps of so many σ are candidates.
CANDIDATE = 3.0
#: Likelihood ratio up to which a place belongs to a step's range.
RANGE = 7.35
#: Shorter histories tell no correlation; their threshold is higher as it is.
CORRELATED = 30
#: Correlations beyond it are drift, and are fitted as such.
MOST_CORRELATION = 0.6
#: Commits to either side by which a jump is told from a ramp, and commits before by which the end is judged.
BESIDE = 12
#: Commits to either side by which a step's size is told where there is drift.
SIZED = 30
Z95 = 1.96


@dataclass(frozen=True)
class Step:
    """A change of level: ``at`` is the first commit of the new one, and the change lies after ``before`` and not after
    ``after`` with 95 % (positions in the series); ``size`` on the scale of the series.
    """

    at: int
    before: int
    after: int
    size: Interval


@dataclass(frozen=True)
class Watched:
    """Last commits, from position ``since`` on, that are too few to be called a step."""

    since: int
    size: Interval


@dataclass(frozen=True, eq=False)
class Changes:
    """What is found in one series of n values.

    ``drift`` is the change of the smooth part from the first commit to the last; ``line`` are the vertices (position,
    value) of the fitted curve in runs between steps; ``noise`` is σ and ``correlation`` φ.
    """

    steps: tuple[Step, ...] = ()
    spikes: tuple[int, ...] = ()
    drift: Interval | None = None
    watched: Watched | None = None
    noise: float = math.nan
    correlation: float = 0.0
    line: tuple[tuple[tuple[int, float], ...], ...] = ()


def detect(values: Sequence[float] | Floats, positions: Sequence[float] | Floats | None = None) -> Changes:
    """Steps, spikes, drift and what is watched in a series of values, in the order of commits.

    ``positions`` (n,) are places of the commits in the whole history, where some lack a value; drift runs along them.
    """
    y = np.asarray(values, float)
    x = np.arange(len(y), dtype=float) if positions is None else np.asarray(positions, float)
    if len(y) < LEAST_HISTORY:
        return Changes(line=_flat(y))
    spikes = _spikes(y, _noise(y)[0])
    calm = np.setdiff1d(np.arange(len(y)), spikes)
    sigma, correlation = _noise(y[calm])
    watched = _watched(y[calm], sigma)
    used = calm if watched is None else calm[: watched.since]
    if watched is not None:
        watched = Watched(int(calm[watched.since]), watched.size)
    if len(used) < LEAST_HISTORY:
        return Changes((), tuple(map(int, spikes)), None, watched, sigma, correlation, _flat(y))
    unit = (x[used] - x[used[0]]) / (x[used[-1]] - x[used[0]])
    long_run = sigma * math.sqrt((1 + correlation) / (1 - correlation))
    series = _Series(y[used], unit, long_run, _threshold(len(used)))
    fit = _without_ramps(series, _best(series))
    return Changes(
        tuple(_step(series, fit, k, used) for k in range(len(fit.places))),
        tuple(map(int, spikes)),
        _drift(series, fit),
        watched,
        sigma,
        correlation,
        _line(fit, used),
    )


def _flat(y: Floats) -> tuple[tuple[tuple[int, float], ...], ...]:
    """Too few commits for anything but their median."""
    return (((0, float(np.median(y))), (len(y) - 1, float(np.median(y)))),) if len(y) else ()


# --- noise, spikes, the end -----------------------------------------------------------------------------------------


def _noise(y: Floats) -> tuple[float, float]:
    """σ and φ from differences: Var(y_i - y_{i-1}) = 2 σ² (1 - φ), Var(y_i - y_{i-2}) = 2 σ² (1 - φ²)."""
    near, far = (_spread(y[lag:] - y[:-lag]) for lag in (1, 2))
    if near <= LEAST_NOISE:
        return LEAST_NOISE, 0.0
    correlation = float(np.clip((far / near) ** 2 - 1, 0.0, MOST_CORRELATION)) if len(y) >= CORRELATED else 0.0
    return max(near / math.sqrt(2 * (1 - correlation)), LEAST_NOISE), correlation


def _spread(differences: Floats) -> float:
    """Standard deviation with outliers clipped at three robust deviations, corrected for what the clipping takes."""
    middle = float(np.median(differences))
    scale = 1.4826 * float(np.median(np.abs(differences - middle)))
    clipped = np.clip(differences - middle, -3 * scale, 3 * scale)
    return float(np.sqrt(np.mean(clipped**2))) / 0.9933  # of a normal distribution clipped at 3


def _spikes(y: Floats, sigma: float) -> np.ndarray:
    """Positions of excursions: levels too short to be any that lie ``SPIKE`` standard errors or more from the one before
    and from the one after, both in the same direction.  The shortest are taken out first, the last level never.
    """
    found = np.zeros(len(y), bool)
    while (~found).sum() > 1:
        calm = np.flatnonzero(~found)
        levels = _levels(y[calm], sigma)
        short = [level for level in levels[:-1] if level[1] - level[0] < LEAST_COMMITS]
        away = [level for level in short if _is_excursion(y[calm], levels, level, sigma)]
        if not away:
            break
        least = min(stop - start for start, stop in away)
        for start, stop in away:
            found[calm[start:stop]] |= stop - start == least
    return np.flatnonzero(found)


def _levels(y: Floats, sigma: float) -> list[tuple[int, int]]:
    """Runs of one level, however short: it takes two changes to leave a level and come back, so each costs half a spike."""
    search = ruptures.KernelCPD(kernel="linear", min_size=1)
    return list(pairwise([0, *search.fit(y[:, None]).predict(pen=SPIKE**2 / 2 * sigma**2)]))


def _is_excursion(y: Floats, levels: list[tuple[int, int]], one: tuple[int, int], sigma: float) -> bool:
    place = levels.index(one)
    scores = []
    for other in levels[max(place - 1, 0) : place] + levels[place + 1 : place + 2]:
        a, b = y[slice(*one)], y[slice(*other)]
        scores.append(float(a.mean() - b.mean()) / (sigma * math.sqrt(1 / len(a) + 1 / len(b))))
    return min(scores) >= SPIKE or max(scores) <= -SPIKE


def _watched(y: Floats, sigma: float) -> Watched | None:
    """The last commits, if they differ from those before and are too few for a level."""
    best, since, size = 0.0, len(y), 0.0
    for count in range(1, min(BESIDE, len(y) - LEAST_COMMITS) + 1):
        before, after = y[-count - BESIDE : -count] if count + BESIDE < len(y) else y[:-count], y[-count:]
        difference = float(after.mean() - np.median(before))
        score = abs(difference) / (sigma * math.sqrt(1 / count + 1 / len(before)))
        if score > best:
            best, since, size = score, len(y) - count, difference
    count = len(y) - since
    if best < WATCH or count >= LEAST_COMMITS or abs(size) < LEAST_SIZE:
        return None
    half = Z95 * sigma * math.sqrt(1 / count + 1 / BESIDE)
    return Watched(since, Interval(size, size - half, size + half))


# --- the joint fit --------------------------------------------------------------------------------------------------


@cache
def _threshold(count: int) -> float:
    """The t² that some place of a history of ``count`` commits exceeds by chance with probability ``FALSE_ALARM``.

    Bonferroni over the places, with Student's t: the noise of a short history is hardly known.
    """
    from scipy import stats

    return float(stats.t.isf(FALSE_ALARM / 2 / count, count / 2) ** 2)


@dataclass(frozen=True, eq=False)
class _Fit:
    """Least squares of ones, hinges max(x - x_knot, 0) for each knot, and indicators [i ≥ place] for each place."""

    knots: tuple[int, ...]
    places: tuple[int, ...]
    design: Floats
    coefficients: Floats
    covariance: Floats  # (XᵀX)⁻¹
    squares: float

    @property
    def smooth(self) -> Floats:
        """The smooth part, (n,)."""
        columns = 1 + len(self.knots)
        return np.asarray(self.design[:, :columns] @ self.coefficients[:columns])

    @property
    def sizes(self) -> Floats:
        """Of the steps."""
        return self.coefficients[1 + len(self.knots) :]


@dataclass(frozen=True, eq=False)
class _Series:
    """Values y and positions x, both (n,), with the long-run σ and the threshold that go with them."""

    y: Floats
    x: Floats  # from 0 to 1
    sigma: float
    threshold: float

    def hinges(self, knots: Sequence[int]) -> Floats:
        """Columns max(x - x_knot, 0), (n, knots)."""
        return np.maximum(self.x[:, None] - self.x[list(knots)][None, :], 0.0)

    def indicators(self, places: Sequence[int]) -> Floats:
        """Columns [i ≥ place], (n, places)."""
        return (np.arange(len(self.y))[:, None] >= np.array(places, int)[None, :]).astype(float)

    def fit(self, knots: tuple[int, ...], places: tuple[int, ...]) -> _Fit:
        """All terms together."""
        design = np.hstack([np.ones((len(self.y), 1)), self.hinges(knots), self.indicators(places)])
        gram = np.linalg.pinv(design.T @ design, hermitian=True)
        coefficients = gram @ (design.T @ self.y)
        rest = self.y - design @ coefficients
        return _Fit(knots, places, design, coefficients, gram, float(rest @ rest))

    def cost(self, fit: _Fit) -> float:
        """Squares over σ², and what the parameters must be worth: a bend half of a step."""
        return fit.squares / self.sigma**2 + self.threshold * (len(fit.places) + BEND * len(fit.knots))


def _best(series: _Series) -> _Fit:
    """The smooth part and the steps with the least penalised sum of squares."""
    flat = _refined(series, (), ())
    if len(series.y) < LEAST_DRIFTING:
        return flat
    grid = _grid(len(series.y))
    with_curve = series.fit(grid, flat.places)
    gain = (flat.squares - with_curve.squares) / series.sigma**2
    if not flat.places and gain < series.threshold:
        return flat
    curved = _refined(series, grid, flat.places)
    starts = {((0,), ()), ((0,), curved.places), (grid, ()), (curved.knots, ())}
    fits = [flat, curved, *(_refined(series, knots, places) for knots, places in starts)]
    return _ramped(series, min(fits, key=series.cost))


def _ramped(series: _Series, fit: _Fit) -> _Fit:
    """With steps turned into ramps, two bends each, where that fits better by ``RAMP``; a staircase becomes one ramp."""
    again = True
    while again:
        again = False
        for k in range(len(fit.places)):
            rival = _as_ramp(series, fit, k)
            if rival is not None and series.cost(rival) + RAMP < series.cost(fit):
                fit, again = rival, True
                break
    return fit


def _as_ramp(series: _Series, fit: _Fit, k: int) -> _Fit | None:
    """The best fit in which step k, and those within it, are a ramp between two bends; None where there is no room."""
    count, place = len(series.y), fit.places[k]
    tried = [
        (start, start + width)
        for width in RAMPS
        for start in range(max(place - width, 0), min(place, count - 1 - width), max(width // 8, 1))
    ]
    if not tried:
        return None
    starts, stops = np.array(tried).T
    ramps = np.clip((series.x[:, None] - series.x[starts]) / (series.x[stops] - series.x[starts]), 0.0, 1.0)
    best = int(np.argmax(_gains(series, fit, 1 + len(fit.knots) + k, ramps)))
    start, stop = tried[best]
    knots = tuple(sorted({*fit.knots, start, stop}))
    kept = tuple(p for i, p in enumerate(fit.places) if i != k and not start < p < stop)
    return _pruned(series, knots, kept)


def _grid(count: int) -> tuple[int, ...]:
    """Places of the bends that are tried."""
    spacing = max(2 * LEAST_COMMITS, round(count / MOST_KNOTS))
    return tuple(range(0, count - spacing // 2, spacing))


def _refined(series: _Series, knots: tuple[int, ...], known: tuple[int, ...]) -> _Fit:
    """Candidates fitted with the smooth part, the weakest terms dropped, the others moved; until nothing changes."""
    fit = series.fit(knots, known)
    for _ in range(3):
        before = fit.knots, fit.places
        found = {*fit.places, *_pelt(series, fit.smooth)} | (_sharp(series) if knots else set())
        fit = _pruned(series, fit.knots, _apart(found, fit.places, len(series.y)))
        fit = _moved(series, fit)
        fit = _pruned(series, fit.knots, fit.places)
        if (fit.knots, fit.places) == before:
            break
    return fit


def _pelt(series: _Series, smooth: Floats) -> list[int]:
    """Changes of mean: the partition with the least Σ (y - mean)² + penalty · changes (linear kernel: squares)."""
    search = ruptures.KernelCPD(kernel="linear", min_size=LEAST_COMMITS)
    penalty = series.threshold / 2 * series.sigma**2
    return [int(end) for end in search.fit((series.y - smooth)[:, None]).predict(pen=penalty)[:-1]]


def _sharp(series: _Series) -> set[int]:
    """Places where a straight line on either side leaves a jump of ``CANDIDATE`` σ: found whatever the drift."""
    weights, error = _jump_weights(BESIDE, BESIDE)
    if len(series.y) < 2 * BESIDE:
        return set()
    jumps = np.abs(np.lib.stride_tricks.sliding_window_view(series.y, 2 * BESIDE) @ weights) / (error * series.sigma)
    padded = np.pad(jumps, LEAST_COMMITS)
    peaks = np.lib.stride_tricks.sliding_window_view(padded, 2 * LEAST_COMMITS + 1).max(axis=1) == jumps
    return set((np.flatnonzero(peaks & (jumps > CANDIDATE)) + BESIDE).tolist())


@cache
def _jump_weights(before: int, after: int) -> tuple[Floats, float]:
    """Of the jump between straight lines through so many points before and after: weights, and their standard error."""
    order = np.arange(-before, after) + 0.5
    right = order > 0
    design = np.column_stack([np.ones_like(order), order, right, order * right]).astype(float)
    weights = np.linalg.pinv(design)[2]
    return weights, float(np.sqrt(weights @ weights))


def _apart(found: Iterable[int], preferred: Sequence[int], count: int) -> tuple[int, ...]:
    """In order, with levels between them long enough; the ``preferred`` ones first."""
    kept: list[int] = [0, count]
    for place in sorted(found, key=lambda place: (place not in preferred, place)):
        if min(abs(place - other) for other in kept) >= LEAST_COMMITS:
            kept.append(place)
    return tuple(sorted(kept)[1:-1])


def _pruned(series: _Series, knots: tuple[int, ...], places: tuple[int, ...]) -> _Fit:
    """The term that is weakest beside what it must be worth is dropped until all are worth it."""
    while True:
        fit = series.fit(knots, places)
        strength = fit.coefficients[1:] ** 2 / (series.sigma**2 * np.diag(fit.covariance)[1:]) / series.threshold
        strength[: len(knots)] /= BEND
        strength[len(knots) :][np.abs(fit.sizes) < LEAST_SIZE] = 0.0
        if not len(strength) or strength.min() >= 1:
            return fit
        weakest = int(np.argmin(strength))
        if weakest < len(knots):
            knots = knots[:weakest] + knots[weakest + 1 :]
        else:
            weakest -= len(knots)
            places = places[:weakest] + places[weakest + 1 :]


def _gains(series: _Series, fit: _Fit, column: int, rivals: Floats) -> Floats:
    """By how much each of the ``rivals`` (n, m) in the place of one column would lower the sum of squares."""
    q = np.linalg.qr(np.delete(fit.design, column, axis=1))[0]
    rest = series.y - q @ (q.T @ series.y)
    inside = q.T @ rivals
    lengths = (rivals**2).sum(axis=0) - (inside**2).sum(axis=0)
    return np.asarray((rest @ rivals) ** 2 / np.maximum(lengths, 1e-9))


def _room(fit: _Fit, k: int, count: int) -> tuple[int, int]:
    """First and last place step k may have between its neighbours."""
    low = (fit.places[k - 1] if k else 0) + LEAST_COMMITS
    high = (fit.places[k + 1] if k + 1 < len(fit.places) else count) - LEAST_COMMITS
    return low, high


def _moved(series: _Series, fit: _Fit) -> _Fit:
    """Every bend and every step at its best place between its neighbours, one after the other."""
    count = len(series.y)
    for k in range(len(fit.knots)):
        low = fit.knots[k - 1] + LEAST_COMMITS if k else 0
        high = (fit.knots[k + 1] if k + 1 < len(fit.knots) else count) - LEAST_COMMITS
        tried = range(low, high, 2)
        if not tried or fit.knots[k] == 0:  # a slope from the first commit on is no bend
            continue
        best = tried[int(np.argmax(_gains(series, fit, 1 + k, series.hinges(tried))))]
        fit = series.fit((*fit.knots[:k], best, *fit.knots[k + 1 :]), fit.places)
    for k in range(len(fit.places)):
        low, high = _room(fit, k, count)
        tried = range(low, high + 1)
        best = tried[int(np.argmax(_gains(series, fit, 1 + len(fit.knots) + k, series.indicators(tried))))]
        if best != fit.places[k]:
            fit = series.fit(fit.knots, (*fit.places[:k], best, *fit.places[k + 1 :]))
    return fit


def _without_ramps(series: _Series, fit: _Fit) -> _Fit:
    """Without steps whose jump, told from the commits right beside, is clearly less than half of their size."""
    sharp = []
    for k, (place, size) in enumerate(zip(fit.places, fit.sizes.tolist(), strict=True)):
        jump = _jump(series, fit, k)
        if jump is None or (jump.high if size > 0 else -jump.low) > abs(size) / 2:
            sharp.append(place)
    return fit if len(sharp) == len(fit.places) else _pruned(series, fit.knots, tuple(sharp))


def _jump(series: _Series, fit: _Fit, k: int) -> Interval | None:
    """Step k told from straight lines through the commits right beside; None where its neighbours are too near."""
    place = fit.places[k]
    before = min(place - (fit.places[k - 1] if k else 0), BESIDE)
    after = min((fit.places[k + 1] if k + 1 < len(fit.places) else len(series.y)) - place, BESIDE)
    weights, error = _jump_weights(before, after)
    value, half = float(weights @ series.y[place - before : place + after]), Z95 * error * series.sigma
    return Interval(value, value - half, value + half)


# --- what is told ---------------------------------------------------------------------------------------------------


def _step(series: _Series, fit: _Fit, k: int, used: np.ndarray) -> Step:
    low, high = _room(fit, k, len(series.y))
    column = 1 + len(fit.knots) + k
    gains = _gains(series, fit, column, series.indicators(range(low, high + 1)))
    within = np.flatnonzero(gains >= gains[fit.places[k] - low] - RANGE * series.sigma**2) + low
    return Step(int(used[fit.places[k]]), int(used[within.min() - 1]), int(used[within.max()]), _size(series, fit, k))


def _size(series: _Series, fit: _Fit, k: int) -> Interval:
    """By the joint fit, with an interval that allows for drift too weak to be found: of the fit with a slope beside the
    steps, and of straight lines through the commits to either side, the one that is surer; where drift was found, whose
    bends are chosen and not known, of the latter.
    """
    own = _term(fit, 1 + len(fit.knots) + k)
    place = fit.places[k]
    before = min(place - (fit.places[k - 1] if k else 0), SIZED)
    after = min((fit.places[k + 1] if k + 1 < len(fit.places) else len(series.y)) - place, SIZED)
    weights, error = _jump_weights(before, after)
    beside = float(weights @ series.y[place - before : place + after]), error
    sloped = beside if fit.knots else _term(series.fit((0,), fit.places), 2 + k)
    value, error = min(beside, sloped, key=lambda estimate: estimate[1])
    half = math.hypot(Z95 * series.sigma * error, value - own[0])  # where the two differ, drift may be what differs
    return Interval(own[0], own[0] - half, own[0] + half)


def _term(fit: _Fit, column: int) -> tuple[float, float]:
    """A coefficient, and its standard error in units of σ."""
    return float(fit.coefficients[column]), math.sqrt(fit.covariance[column, column])


def _drift(series: _Series, fit: _Fit) -> Interval | None:
    """From the first commit to the last; None where the smooth part is flat or moves by less than ``LEAST_SIZE``."""
    columns = 1 + len(fit.knots)
    if columns == 1 or np.ptp(fit.smooth) < LEAST_SIZE:
        return None
    ends = fit.design[-1] - fit.design[0]
    ends[columns:] = 0.0
    value = float(ends @ fit.coefficients)
    half = Z95 * series.sigma * math.sqrt(float(ends @ fit.covariance @ ends))
    return Interval(value, value - half, value + half)


def _line(fit: _Fit, used: np.ndarray) -> tuple[tuple[tuple[int, float], ...], ...]:
    """Vertices of the fitted curve: ends of levels, and bends of the smooth part."""
    curve = fit.design @ fit.coefficients
    edges = [0, *fit.places, len(curve)]
    runs = []
    for start, stop in pairwise(edges):
        inner = [bend for bend in fit.knots if start < bend < stop - 1]
        runs.append(tuple((int(used[i]), float(curve[i])) for i in (start, *inner, stop - 1)))
    return tuple(runs)
