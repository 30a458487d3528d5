"""Past this machine, on paper: what a step takes over k ranks, each a machine like the measured one, in a given network.

    T(k) = T1(⌈n/k⌉) + q·α·log2 k + β·g·(k - 1)/k

T1 is one rank's step: by a sweep's winning law (``analysis.predict``), or by the steps of one rank in a run's experiment
``parallel`` (S of ``analysis.experiments.parallel_more``), which brings α and β as well, and how many all-reduces a step makes: α
counts for each.  g are the bytes of the gradient.  Strong scaling keeps n, weak scaling n for each rank.  What is assumed is part
of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import laws, load, predict, sizes, words
from analysis.experiments import found as experiments
from analysis.experiments import parallel_law, parallel_more, parallel_scaling
from analysis.experiments.found import Found
from analysis.experiments.parallel_law import Coefficients, Measured
from analysis.experiments.parallel_more import Work
from analysis.hypotheses import Law
from analysis.statistics import Floats, Interval
from backprop_files import UserError

#: More than any machine has; and the units that α and β are in are told by what is beyond them.
MOST_RANKS = 2**24
MOST_ALPHA_S, MOST_BETA_S = 1.0, 1e-3
#: Numbers of ranks between 1 and n that are looked at for the fastest.
LOOKED_AT = 2000
#: Efficiency below which more ranks are mostly wasted.
HALF = 0.5
#: So near to the fastest, more ranks are hardly worth it.
NEARLY = 0.05


@dataclass(frozen=True)
class Rank:
    """A step over ``ranks``: ``time_s`` with its 95 % interval; ``efficiency`` is T(1)/(k·T(k)) strong, T(1)/T(k) weak."""

    ranks: int
    n: int
    time_s: Interval
    efficiency: float
    communication: float  # share of the time


@dataclass(frozen=True)
class Prediction:
    """Strong and weak scaling, and what they rest on."""

    impl: str
    source: str
    layers: tuple[int, ...]
    activation: str
    n: int
    gradient_bytes: float
    alpha_s: Interval
    beta_s: Interval
    network_from: str
    single_s: Interval
    strong: tuple[Rank, ...]
    weak: tuple[Rank, ...]
    fastest: int  # strong: no k takes less time
    fastest_s: float
    enough: int  # strong: the smallest k within ``NEARLY`` of that
    half: int  # strong: the largest k whose efficiency is at least ``HALF``
    assumptions: tuple[str, ...]
    beyond: tuple[str, ...]  # in words; empty where all lies within what was measured


@dataclass(frozen=True, eq=False)
class Base:
    """What a prediction is made from: T1 and T(k) of one network, as functions of examples a rank and of k.

    ``seconds`` gives T1 for an array of examples a rank; ``whole`` T(k) with its interval for examples a rank and k.
    """

    impl: str
    source: str
    gradient_bytes: float
    messages: float  # all-reduces of a step
    alpha_s: Interval
    beta_s: Interval
    network_from: str
    seconds: Callable[[Floats], Floats]
    whole: Callable[[int, int], Interval]
    assumed: tuple[str, ...]
    beyond: Callable[[Sequence[int], Sequence[int]], list[str]]  # by numbers of ranks, and examples of each

    def sent(self, k: Floats) -> Floats:
        """α·q·log2 k + β·g·(k - 1)/k, with q all-reduces of a step."""
        by_hop = self.alpha_s.value * self.messages * np.log2(k)
        return np.asarray(by_hop + self.beta_s.value * self.gradient_bytes * (k - 1) / k)


def ranks_of(text: str) -> tuple[int, ...]:
    """``1..4096`` doubles from the first to the last; ``1,2,3,8`` are these.  Raises UserError."""
    wrong = f"--ranks {text}: give a range such as 1..4096, which doubles, or numbers such as 1,2,3,8"
    span = re.fullmatch(r"\s*(\d+)\s*\.\.\s*(\d+)\s*", text)
    try:
        ends = [int(end) for end in span.groups()] if span else [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(wrong) from error
    if min(ends) < 1 or max(ends) > MOST_RANKS:
        raise UserError(f"--ranks {text}: ranks are from 1 to {MOST_RANKS:,}")
    if not span:
        return tuple(sorted(set(ends)))
    first, last = ends
    if last < first:
        raise UserError(f"--ranks {text}: the range ends before it begins; {last}..{first} is one")
    return tuple(first << i for i in range((last // first).bit_length()))


def check_network(alpha_s: float | None, beta_s: float | None) -> None:
    """Raises UserError for an α or β that no network has."""
    for name, value, most, unit, like in (
        ("alpha", alpha_s, MOST_ALPHA_S, "seconds a hop of an all-reduce", "5e-6 for 5 µs"),
        ("beta", beta_s, MOST_BETA_S, "seconds a byte", "2e-10 for links of 10 GB/s"),
    ):
        if value is not None and not 0 <= value <= most:
            raise UserError(f"--{name} {value:g}: is in {unit}, from 0 to {most:g}: {like}")


def predicted(base: Base, layers: Sequence[int], activation: str, n: int, ranks: Sequence[int]) -> Prediction:
    """Strong and weak scaling.  Raises UserError where no rank would have an example."""
    usable = [k for k in ranks if k <= n]
    if not usable:
        raise UserError(f"--n {n}: fewer examples than ranks ({min(ranks)} at the least): every rank needs one")
    single = base.whole(n, 1)
    fastest, fastest_s, enough, half = _limits(base, n, single.value)
    assumptions = [
        "every rank is a machine of its own, like the one measured, and as fast beside the others as alone",
        "all ranks take as long as the slowest, which has ⌈n/k⌉ examples; none waits for data",
        "an all-reduce costs α·log2 k + β·g·(k − 1)/k, in a network that nobody else uses and that is the same between any two "
        "ranks",
        *base.assumed,
    ]
    if len(usable) < len(ranks):
        assumptions.append(f"every rank needs an example: strong scaling ends at {n:,} ranks, weak scaling does not")
    fewest = [-(-n // k) for k in usable]
    return Prediction(
        base.impl, base.source, tuple(layers), activation, n, base.gradient_bytes, base.alpha_s, base.beta_s,
        base.network_from, single,
        tuple(_rank(base, k, n, -(-n // k), single.value / k) for k in usable),
        tuple(_rank(base, k, n * k, n, single.value) for k in ranks),
        fastest, fastest_s, enough, half, tuple(assumptions), tuple(base.beyond(usable, fewest)),
    )  # fmt: skip


def _rank(base: Base, k: int, n: int, share: int, ideal_s: float) -> Rank:
    time = base.whole(share, k)
    return Rank(k, n, time, ideal_s / time.value, float(base.sent(np.array([float(k)]))[0]) / time.value)


def _limits(base: Base, n: int, single_s: float) -> tuple[int, float, int, int]:
    """The fastest k in strong scaling, its time, the smallest k that is nearly as fast, the largest that is half efficient."""
    k = np.unique(np.geomspace(1, n, LOOKED_AT).round())
    times = base.seconds(np.ceil(n / k)) + base.sent(k)
    at = int(np.argmin(times))
    nearly, good = k[times <= (1 + NEARLY) * times[at]], k[single_s / (k * times) >= HALF]
    return int(k[at]), float(times[at]), int(nearly.min()), int(good.max(initial=1))


# --- from a sweep ---------------------------------------------------------------------------------------------------


def of_sweep(series: predict.Series, layers: Sequence[int], activation: str, alpha_s: float, beta_s: float) -> Base:
    """T1 is the winning law of a sweep; α and β are taken as given, so that the interval is that of T1, moved."""
    first = series.steps.iloc[0]
    p, _ = predict.p_of(activation, series)
    gradient_bytes = float(sizes.like(first, layers, 1, p)["m"].iloc[0]) * load.parameter_bytes(str(first["dtype"]))
    final, law = series.time.final, series.time
    assert final is not None

    def row(share: float) -> pd.DataFrame:
        return sizes.like(first, layers, share, p)

    def seconds(share: Floats) -> Floats:
        return np.maximum(final.predict(sizes.like(first, layers, share, p)), law.floor)

    def whole(share: int, k: int) -> Interval:
        alone = predict.interval(law, series.steps, row(share))
        sent = alpha_s * np.log2(k) + beta_s * gradient_bytes * (k - 1) / k
        return Interval(alone.value + sent, alone.low + sent, alone.high + sent)

    def beyond(_: Sequence[int], shares: Sequence[int]) -> list[str]:
        told = predict.beyond(series.steps, row(max(shares))) + predict.beyond(series.steps, row(min(shares)))
        return [f"of a rank, {one}" for one in dict.fromkeys(told)]

    return Base(
        str(first["impl"]),
        f"the law “{final.law.name}” of a sweep, {first['impl']}, {first['device']}, {first['dtype']}",
        gradient_bytes,
        1.0,
        Interval(alpha_s, alpha_s, alpha_s),
        Interval(beta_s, beta_s, beta_s),
        "given",
        seconds,
        whole,
        (
            "communication and backward do not overlap",
            "what a library for several ranks adds to a step by itself is not in it",
        ),
        beyond,
    )


# --- from an experiment ---------------------------------------------------------------------------------------------


def of_experiment(
    one: Measured, layers: Sequence[int], activation: str, alpha_s: float | None, beta_s: float | None
) -> Base:
    """T1, and α and β that are not given, are those of the experiment ``parallel``.

    The interval holds what launches leave open, fitted anew without each pass, and how far steps that no fit saw lie from the
    law (``predict.half_width``).  Raises UserError where there is too little to fit.
    """
    fitted = _fitted(one.cells)
    if fitted is None:
        raise UserError(
            f"the experiment parallel has too few rows of {one.name} to fit the law: measure it again, whole"
        )
    single = parallel_more.single(one.cells)
    network = _network(layers, activation, one.steps(parallel_law.STEP))
    errors = laws.crossvalidate(parallel_more.design(single), single["time_s"].to_numpy(float))
    off = predict.half_width(errors, max(len(errors) - parallel_more.ANEW - parallel_more.SHARED_OUT, 2))

    def cells(share: Floats) -> pd.DataFrame:
        return pd.DataFrame({**network, "n": share, "ranks": 1, "cores": 1})

    def alone(share: Floats, by: Work) -> Floats:
        return by.seconds(cells(share))

    def sent(k: int, by: Coefficients) -> float:
        alpha = by.alpha_s if alpha_s is None else alpha_s
        beta = by.beta_s if beta_s is None else beta_s
        return float(alpha * network["messages"] * np.log2(k) + beta * network["gradient_bytes"] * (k - 1) / k)

    refitted = [_fitted(without) for without in one.without]

    def whole(share: int, k: int) -> Interval:
        value, *others = [
            np.nan if by is None else float(alone(np.array([float(share)]), by[0])[0]) + sent(k, by[1])
            for by in (fitted, *refitted)
        ]
        passes = parallel_law.jackknife(float(np.log(value)), np.log(others))
        half = float(np.hypot(off, passes.high - passes.value if np.isfinite(passes.high) else 0.0))
        return Interval(value, value * float(np.exp(-half)), value * float(np.exp(half)))

    given = [name for name, value in (("α", alpha_s), ("β", beta_s)) if value is not None]
    return Base(
        one.name,
        f"the experiment parallel, {one.name} over {', '.join(map(str, one.ranks))} ranks",
        network["gradient_bytes"],
        network["messages"],
        _exact(alpha_s) if alpha_s is not None else parallel_law.coefficient(one, "alpha_s"),
        _exact(beta_s) if beta_s is not None else parallel_law.coefficient(one, "beta_s"),
        "given"
        if len(given) == 2
        else f"measured between ranks of this machine{f', but {given[0]} given' if given else ''}",
        lambda share: alone(share, fitted[0]),
        whole,
        (_told_overlap(one), *_told_messages(network["messages"])),
        lambda ranks, shares: _beyond(single, network, shares) + (_more_ranks(one, ranks) if len(given) < 2 else []),
    )


def _fitted(cells: pd.DataFrame) -> tuple[Work, Coefficients] | None:
    """T1, and what has α and β."""
    work, network = parallel_more.work(cells), parallel_law.fit(cells)
    return (work, network) if work and network else None


def _exact(value: float) -> Interval:
    return Interval(value, value, value)


def _network(layers: Sequence[int], activation: str, steps: pd.DataFrame) -> dict[str, float]:
    """m, u, p, the gradient's bytes and a step's all-reduces.  Raises UserError for an activation whose p nobody knows."""
    m = float(sum(a * b + b for a, b in pairwise(layers)))
    known = dict(zip(steps["activation"], steps["p"], strict=True))
    dial = re.fullmatch(r"horner-(\d+)", activation)
    p = 4.0 * int(dial[1]) if dial and 1 <= int(dial[1]) <= 64 else known.get(activation)
    if p is None:
        raise UserError(
            f"activation '{activation}' was not measured in this run, which knows {', '.join(['horner-K', *sorted(known)])}"
        )
    each = float((steps["gradient_bytes"] / steps["m"]).iloc[0])
    u, depth = float(sum(layers[1:-1])), len(layers) - 1.0
    messages = _messages(steps, depth, m * each)
    return {"m": m, "u": u, "p": float(p), "depth": depth, "gradient_bytes": m * each, "messages": messages}


def _messages(steps: pd.DataFrame, depth: float, gradient_bytes: float) -> float:
    """All-reduces of a step: every array's and the loss's where all steps sent these, else as many as gradients of that size."""
    if (steps["messages"] == 2 * steps["depth"] + 1).all():
        return 2 * depth + 1
    sizes = steps.groupby("gradient_bytes")["messages"].mean()
    return float(np.round(np.interp(gradient_bytes, sizes.index.to_numpy(float), sizes.to_numpy(float))))


def _beyond(steps: pd.DataFrame, network: dict[str, float], shares: Sequence[int]) -> list[str]:
    share = parallel_law.share(steps)
    asked = {
        "n": (min(shares), max(shares), share.min(), share.max()),
        **{name: (network[name], network[name], steps[name].min(), steps[name].max()) for name in ("m", "p")},
    }
    told = []
    for name, (least, most, smallest, largest) in asked.items():
        if most > largest:
            told.append(f"of a rank, {name} = {most:,.0f} is {most / largest:.1f} times the largest measured")
        if least < smallest:
            told.append(f"of a rank, {name} = {least:,.0f} is below the smallest measured, {smallest:,.0f}")
    return told


def _told_messages(messages: float) -> list[str]:
    """Where a step sends its gradients in pieces."""
    return [f"a step sends its gradients as {messages:.0f} all-reduces, as it does here"] if messages > 1 else []


def _more_ranks(one: Measured, ranks: Sequence[int]) -> list[str]:
    """Where α and β were measured between fewer ranks."""
    most = max(one.ranks)
    return [f"ranks = {max(ranks):,}; α and β were measured between at most {most}"] if max(ranks) > most else []


def _told_overlap(one: Measured) -> str:
    hidden = parallel_scaling.hidden(one)
    said = "communication and backward do not overlap"
    if hidden.high < 0:
        return f"{said}; here overlap hid nothing of it"
    return (
        f"{said}; here overlap hid {words.interval(hidden, words.percent)} of it" if np.isfinite(hidden.value) else said
    )


# --- from a run directory -------------------------------------------------------------------------------------------


def from_run(
    run: Path,
    impl: str,
    layers: Sequence[int],
    activation: str,
    network: tuple[float | None, float | None],
    hypotheses: Sequence[Law] | None = None,
    device: str = "",
    dtype: str = "",
    machine_class: str = "",
) -> Base:
    """From the run's experiment ``parallel`` where it holds the implementation, else from its sweep.  Raises UserError."""
    check_network(*network)
    if len(layers) < 2 or min(layers) < 1:
        raise UserError("--widths are positive whole numbers, two at least: inputs, hidden layers, outputs")
    there = experiments.in_directory(run) if run.is_dir() else []
    held = [(found, one) for found in there if found.name == "parallel" for one in parallel_law.measured(found)]
    for found, one in held:
        if impl in (one.name, one.impl):
            _check_asked(found, device, dtype)
            return of_experiment(one, layers, activation, *network)
    alpha_s, beta_s = network
    series = predict.series(load.one_class(load.load([run]), machine_class), impl, hypotheses, device, dtype)
    if alpha_s is None or beta_s is None:
        missing = " and ".join(f"--{name}" for name, value in (("alpha", alpha_s), ("beta", beta_s)) if value is None)
        raise UserError(
            f"{missing}: the run has measured no network for '{impl}'; {_known_networks([one for _, one in held])}"
        )
    return of_sweep(series, layers, activation, alpha_s, beta_s)


def _check_asked(found: Found, device: str, dtype: str) -> None:
    for key, wanted in (("device", device), ("dtype", dtype)):
        measured = str(found.settings.get(key, ""))
        if wanted and wanted != measured:
            raise UserError(f"the run has its experiment parallel on {key} {measured or 'unknown'}, not '{wanted}'")


def _known_networks(parallel: Sequence[Measured]) -> str:
    fits = [(one.name, fit) for one in parallel if (fit := parallel_law.fit(one.cells))]
    if not fits:
        return "give seconds a hop and seconds a byte, or measure them: backprop-bench experiment parallel"
    told = "; ".join(f"{name}: --alpha {fit.alpha_s:.3g} --beta {fit.beta_s:.3g}" for name, fit in fits)
    return f"its experiment parallel has {told}"


# --- for people and for scripts -------------------------------------------------------------------------------------


def document(found: Prediction) -> dict[str, Any]:
    """For scripts; missing numbers are null."""

    def plain(value: Interval) -> dict[str, float | None]:
        ends = {"value": value.value, "ci_low": value.low, "ci_high": value.high}
        return {key: end if np.isfinite(end) else None for key, end in ends.items()}

    def rows(ranks: Sequence[Rank]) -> list[dict[str, Any]]:
        return [{**vars(rank), "time_s": plain(rank.time_s)} for rank in ranks]

    return {
        **vars(found),
        "layers": list(found.layers),
        **{name: plain(getattr(found, name)) for name in ("alpha_s", "beta_s", "single_s")},
        "strong": rows(found.strong),
        "weak": rows(found.weak),
        "assumptions": list(found.assumptions),
        "beyond": list(found.beyond),
    }


HEADER = ("scaling", "ranks", "n", "a step", "95 % from", "to", "efficiency", "sending")


def table(found: Prediction) -> list[tuple[str, ...]]:
    """Rows under ``HEADER``, strong scaling first."""
    return [
        (
            kind,
            f"{rank.ranks:,}",
            f"{rank.n:,}",
            words.seconds(rank.time_s.value),
            words.seconds(rank.time_s.low),
            words.seconds(rank.time_s.high),
            words.percent(rank.efficiency),
            words.percent(rank.communication),
        )
        for kind, ranks in (("strong", found.strong), ("weak", found.weak))
        for rank in ranks
    ]


def told(found: Prediction) -> list[str]:
    """What the table does not say, in sentences."""
    short = words.significant
    enough = (
        f"{short(found.enough, 2)} come within {words.percent(NEARLY)} of that, and up to about {short(found.half, 2)} are half "
        "efficient."
    )
    if found.fastest >= found.n:
        limit = f"With {found.n:,} examples every further rank helps, up to one example a rank; {enough}"
    elif found.fastest == 1:
        limit = f"With {found.n:,} examples no number of ranks is faster than one: sending takes more than it spares."
    else:
        limit = (
            f"With {found.n:,} examples a step does not get faster beyond about {short(found.fastest, 2)} ranks "
            f"({words.seconds(found.fastest_s)}, about {found.n / found.fastest:,.0f} examples a rank); {enough}"
        )
    network = (
        f"α {_measured(found.alpha_s)} a hop, β {_measured(found.beta_s)} a byte ({found.network_from}); a gradient has "
        f"{words.count(found.gradient_bytes)}B."
    )
    return [f"From {found.source}.", network, limit]


def _measured(value: Interval) -> str:
    """A coefficient with its interval; what was given has none."""
    return words.seconds(value.value) if value.low == value.high else words.interval(value, words.seconds)
