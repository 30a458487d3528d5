"""Epochs by the size of their batches: planted laws come out, unseen sizes are predicted, words follow the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from analysis.experiments import epochs as analysis
from analysis.experiments.found import Found
from analysis.statistics import share_of
from bench.experiments import Settings, epochs, find

NETWORKS = ((16, 4), (64, 4), (64, 24), (256, 4))
N = 256
UNSEEN = 13  # of each network: one of 2 and 3, two of every octave from 4 on

#: Seconds of an epoch of n examples in batches of b, by a network of that width and p.
Cost = Callable[[int, int, int, int], float]


def cost(n: int, batch: int, width: int, p: int) -> float:
    """A planted law: every example pays for products and activations, every step for its calls and its parameters."""
    m, u = 64 * width + width * width + 10 * width, 2 * width
    return n * (5e-11 * m + 6e-11 * u * p) + math.ceil(n / batch) * (1e-5 + 3e-10 * m)


def kernels(n: int, batch: int, width: int, p: int) -> float:
    """The same where calls cost little, and four examples are the first for which a library makes a call of its own."""
    return cost(n, batch, width, p) - 9e-6 * n / batch + (batch >= 4) * (3e-6 + 2e-8 * width) * n / batch


def planted(
    law: Cost = cost, bend: float = 0.0, every: int = 1, loop: float = 1.0, noise: float = 0.01, seed: int = 0
) -> Found:
    """Rows of three passes; one in ``every`` of the unseen sizes, large and small alike, costs ``1 + bend`` times the law, a
    step alone 1/``loop`` of one in an epoch.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in (1, 2, 3):
        for width, p in NETWORKS:
            m, u = 64 * width + width * width + 10 * width, 2 * width
            same = {
                "impl": "numpy", "pass": number, "layers": [64, width, width, 10], "activation": f"horner-{p // 2}",
                "optimizer": "gradient-descent", "m": m, "p": p, "u": u, "hidden": 2, "width": width,
            }  # fmt: skip

            def row(what: str, n: int, batch: int, seen: bool, time: float, same: dict[str, Any] = same) -> None:
                seconds = [time * math.exp(noise * rng.standard_normal())]
                rows.append({**same, "what": what, "n": n, "batch": batch, "seen": seen, "seconds": seconds})

            sizes = epochs.sizes_of(N, 2, f"{seed} {width} {p}")
            odd = [batch for batch in sorted(sizes) if not sizes[batch]][::every]
            for batch, seen in sizes.items():
                taken = N // batch * batch
                row("epoch", taken, batch, seen, law(taken, batch, width, p) * (1 + bend * (batch in odd)))
            row("shorter", N // 4, N // 16, True, law(N // 4, N // 16, width, p))
            row("longer", 4 * N, 60, False, law(4 * N, 60, width, p))
            row("step", 1, 1, False, law(1, 1, width, p) / loop)
            row("update", N, N, False, 1e-6)
    return Found("epochs", {"impls": ["numpy"]}, {}, "now", rows, [])


def words(found: Found) -> list[str]:
    return [claim.cells["numpy"].word for claim in analysis.section(found).claims]


def test_a_planted_law_predicts() -> None:
    (one,) = analysis.series(planted())
    assert len(one.unseen) == UNSEEN * len(NETWORKS)
    assert np.abs(one.unseen["error"]).max() < 0.05
    assert np.abs(one.longer["error"]).max() < 0.05
    assert words(planted()) == ["supported", "supported"]


def test_the_articles_law_recovers_its_coefficients() -> None:
    (one,) = analysis.series(planted())
    fit = next(fit for fit in one.fits if fit.law.name == "examples and steps")
    assert fit.coefficients == pytest.approx((1e-5, 3e-10, 5e-11, 6e-11), rel=0.05)


def test_other_kernels_for_few_examples_are_found() -> None:
    (one,) = analysis.series(planted(kernels))
    # with the vectors' terms it says the same: which of the two errs less may hang on the last bit of a product
    assert one.best.law.name.startswith("examples and steps by kernels")
    assert np.abs(one.unseen["error"]).max() < 0.1
    simple = next(fit for fit in one.fits if fit.law.name == "examples and steps, an epoch's own")
    errors = np.abs(simple.predict(one.unseen) / one.unseen["time_s"] - 1)
    assert (errors > 0.1).mean() > 0.1


def test_sizes_off_the_law_refute_it() -> None:
    assert words(planted(bend=0.3))[0] == "refuted"


@pytest.mark.parametrize(
    ("every", "word"), [(13, "supported"), (7, "inconclusive"), (5, "inconclusive"), (2, "refuted")]
)
def test_the_word_follows_the_interval_of_the_share(every: int, word: str) -> None:
    found = planted(bend=0.3, every=every)
    (one,) = analysis.series(found)
    off = len(range(0, UNSEEN, every)) * len(NETWORKS)
    right = len(NETWORKS) * UNSEEN - off
    assert one.share.value == pytest.approx(right / (right + off))
    # Clopper-Pearson: at either end what was found, or more of it, has a chance of 2.5 %
    assert binom.sf(right - 1, right + off, one.share.low) == pytest.approx(0.025, abs=1e-6)
    assert binom.cdf(right, right + off, one.share.high) == pytest.approx(0.025, abs=1e-6)
    assert words(found)[0] == word


ANYWHERE = np.random.default_rng(1).random((4, N)) < 0.2
CLUSTERED = np.array([[network == 2 and 4 <= b < 64 and b % 8 > 0 for b in range(N)] for network in range(4)])


@pytest.mark.parametrize("hard", [ANYWHERE, CLUSTERED], ids=["anywhere", "clustered"])
def test_the_interval_covers_the_share_of_all_sizes(hard: np.ndarray) -> None:
    """Sizes drawn as they are measured, some of which no law predicts: 95 of 100 intervals hold the share of them all."""
    octaves = [np.arange(2**k, 2 ** (k + 1)) for k in range(1, 8)]
    covered = 0
    for trial in range(300):
        sizes = [(network, epochs.sizes_of(N, 2, f"{trial} {network}")) for network in range(4)]
        unseen = [(network, batch) for network, found in sizes for batch, seen in found.items() if not seen]
        within = sum(not hard[cell] for cell in unseen)
        # each octave with the weight it has among the sizes that judge
        weights = [1, *[2] * 6]
        truth = sum(
            w * float(np.mean(~hard[network, octave]))
            for network in range(4)
            for w, octave in zip(weights, octaves, strict=True)
        ) / (4 * sum(weights))
        interval = share_of(within, len(unseen))
        covered += interval.low <= truth <= interval.high
    assert covered >= 0.95 * 300


def test_sizes_that_are_missed_are_named() -> None:
    found = planted(bend=-0.3, every=13)
    (one,) = analysis.series(found)
    table = next(t for t in analysis.section(found).tables if "batch sizes missed" in t.header)
    assert len(table.rows) == len(NETWORKS)
    missed = [row[-1] for row in table.rows]
    for (_, cells), told in zip(one.unseen.groupby(["layers", "activation"]), missed, strict=True):
        off = cells[np.abs(cells["error"]) > 0.1]
        assert len(off) == 1
        assert told.startswith(f"{off['batch'].iloc[0]} (+4")


def test_a_pass_that_was_disturbed_is_outvoted() -> None:
    found = planted()
    rows = [{**row, "seconds": [5 * s for s in row["seconds"]]} if row["pass"] == 2 else row for row in found.rows]
    (one,) = analysis.series(replace(found, rows=rows))
    assert np.abs(one.unseen["error"]).max() < 0.06
    assert one.cells["time_s"].to_numpy() == pytest.approx(
        analysis.series(found)[0].cells["time_s"].to_numpy(), rel=0.05
    )


def test_times_that_do_not_repeat_refute_nothing() -> None:
    (one,) = analysis.series(planted(bend=0.3))
    assert one.unsteady == 0
    found = planted(bend=0.3, noise=0.3)
    (one,) = analysis.series(found)
    assert one.share.high < analysis.SHARE
    assert one.unsteady > 0.5
    told = analysis.section(found).claims[0].cells["numpy"]
    assert told.word == "inconclusive"
    assert "do not repeat" in told.evidence


def test_a_step_that_costs_less_within_an_epoch_refutes_n_whole_steps() -> None:
    assert words(planted(loop=0.3))[1] == "refuted"


def test_what_cannot_be_told_is_said() -> None:
    assert words(planted(noise=0.3, seed=3))[1] == "inconclusive"


def test_one_pass_refutes_nothing() -> None:
    found = planted(bend=0.3)
    once = replace(found, rows=[row for row in found.rows if row["pass"] == 1])
    told = analysis.section(once).claims[0].cells["numpy"]
    assert told.word == "inconclusive"
    assert "one pass" in told.evidence


def test_one_pass_has_no_verdict_on_single_examples() -> None:
    found = planted()
    once = replace(found, rows=[row for row in found.rows if row["pass"] == 1])
    told = analysis.section(once).claims[1].cells["numpy"]
    assert told.word == "inconclusive"
    assert "nan" not in told.evidence


@pytest.mark.parametrize("n", [1, 2, 3, 32, 256, 2048, 1000])
def test_sizes_are_drawn_from_every_octave(n: int) -> None:
    found = epochs.sizes_of(n, 2, "seed")
    assert found == epochs.sizes_of(n, 2, "seed")
    assert found[1]
    assert found[n]
    assert all(1 <= b <= n for b in found)
    for k in range(1, n.bit_length()):
        octave = {b: seen for b, seen in found.items() if 2**k <= b < min(2 ** (k + 1), n)}
        there = min(2 ** (k + 1), n) - 2**k
        assert sum(octave.values()) == min(1, max(0, there))
        assert len(octave) == max(0, min(3, there))


def test_fitted_and_judging_sizes_are_drawn_alike() -> None:
    """Over many seeds the size that is fitted lies in its octave where those that judge do."""
    drawn = [epochs.sizes_of(N, 2, str(Random(i).random())) for i in range(300)]
    fitted = [b for found in drawn for b, seen in found.items() if seen and 64 <= b < 128]
    judging = [b for found in drawn for b, seen in found.items() if not seen and 64 <= b < 128]
    assert np.mean(fitted) == pytest.approx(95.5, abs=4)
    assert np.mean(judging) == pytest.approx(95.5, abs=3)


def test_tasks_have_names_of_their_own_and_sizes_alike_in_all_passes_and_implementations() -> None:
    tasks = find("epochs").tasks(Settings(profile="full"))
    assert len({task.key for task in tasks}) == len(tasks)
    sizes: dict[tuple[int, str], list[Any]] = {}
    for task in tasks:
        found = sizes.setdefault((task.arguments["layers"][1], task.arguments["activation"]), task.arguments["sizes"])
        assert found == task.arguments["sizes"]
    other = find("epochs").tasks(Settings(profile="full", seed=1))
    assert other[0].arguments["sizes"] != tasks[0].arguments["sizes"]
