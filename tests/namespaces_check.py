"""Data-parallel steps over hosts in network namespaces, beside what the law says of them beforehand (``make namespaces``).

    T(k) = o(k)·s(k)·S(⌈n/k⌉) + q·α·(k - 1) + β·g·(k - 1)/k

Each host is one rank.  S is a step of one host alone (``analysis.experiments.parallel_more``), q the all-reduces of a step as
users write it, one of a step that sends when backward has ended.  The network's coefficients are (a) the nominal ones, (b)
those of the all-reduce sweep there, (c) these and s(k), what ranks that compute at once on one machine cost each other, by
steps that send nothing.

gloo sends a gradient round a ring: every byte over a host's link twice, once to be summed and once as the sum, so nominally
β = 2·8 / (bits per second), and 2·(k - 1) messages one after the other, so α = 2·delay.  Hosts share the cores of this machine,
but each has a link of its own: o(k) multiplies what they compute and not what they send.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import laws, words
from analysis.experiments import parallel_law, parallel_more
from analysis.experiments.found import Found
from analysis.experiments.parallel_more import Work
from backprop_files import UserError, write_json
from bench import namespaces, ranks
from bench.experiments import parallel
from bench.experiments.parallel import LARGE, MIDDLE, SMALL, Point, _wide
from bench.namespaces import Network
from bench.process import WorkerFailed

#: Links slower and as fast as the offices' of today, and one of some distance.
NETWORKS = ((200e6, 0.0), (1e9, 0.0), (200e6, 1e-3))
HOSTS = (2, 4)
SIZES = (8, 4096, 1 << 15, 1 << 18, 1 << 20, 1 << 22)
ROUNDS = 6
#: Steps over several hosts; one host measures ``ALONE`` too, to tell the law's terms apart.
STEPS = ((SMALL, 1024), (_wide(256, "horner-32"), 512), (MIDDLE, 512), (LARGE, 256))
ALONE = ((_wide(32), 32), (SMALL, 64), (MIDDLE, 32), (_wide(64, "horner-32", 6), 512))


#: How a step is taken, in words.
TAKEN = {parallel_law.STEP: "as users write it", parallel_law.IN_TURN: "sent after backward"}


@dataclass(frozen=True)
class Compared:
    """One step over ``hosts`` of a network: seconds measured, and predicted by each of the three."""

    network: str
    hosts: int
    step: str
    taken: str
    measured_s: float
    nominal_s: float
    measured_network_s: float
    with_contention_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and compare; 0 done or not permitted, which is said, 1 a launch failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--impls", default="torch-ddp,jax-sharded", help="as they are registered")
    parser.add_argument("--hosts", default=",".join(map(str, HOSTS)))
    parser.add_argument("--networks", default="", help="bits a second and seconds of delay: 2e8:0,1e9:0.001")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, help="rows and comparison as JSON")
    asked = parser.parse_args(arguments)
    if reason := namespaces.missing():
        print(f"left out: {reason}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the hosts are taken down
    print(
        f"packets are delayed by {'netem' if namespaces.has_netem() else 'a forwarder of ours: this kernel has no netem'}"
    )
    hosts = [int(k) for k in asked.hosts.split(",")]
    pairs = [part.split(":") for part in asked.networks.split(",") if part]
    networks = [(float(bits), float(delay)) for bits, delay in pairs] or NETWORKS
    told: dict[str, Any] = {}
    for impl in asked.impls.split(","):
        try:
            told[impl] = check(impl, hosts, networks, asked.rounds)
        except (UserError, WorkerFailed) as error:
            print(f"{impl}: {error}", file=sys.stderr)
            return 1
    if asked.out:
        write_json(asked.out, told)
    return 0


def check(impl: str, hosts: Sequence[int], networks: Sequence[tuple[float, float]], rounds: int) -> dict[str, Any]:
    """One implementation over every network; prints as it goes."""
    with tempfile.TemporaryDirectory(prefix="backprop-bench-") as folder:
        alone = launched(impl, Network(1, 1e9), rounds, Path(folder) / "alone")
        found: list[Compared] = []
        for bits_per_s, delay_s in networks:
            rows = list(alone)
            for k in hosts:
                network = Network(k, bits_per_s, delay_s)
                rows += launched(impl, network, rounds, Path(folder) / f"{network}-{k}".replace("/", "-"))
            compared = compare(impl, Network(max(hosts), bits_per_s, delay_s), rows)
            show(compared)
            found += compared
    print(summary(found))
    return {"compared": [asdict(one) for one in found]}


def launched(impl: str, network: Network, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Rows of one launch of fresh ranks, one on each host."""
    k, cores = network.hosts, ranks.usual_cores()
    shares = (1,) if k > 1 else (1, 2, 4)  # alone also with as many rows as one of several has
    every = [(network, n // share) for network, n in STEPS for share in shares] + list(ALONE if k == 1 else ())
    points = [Point("model", network.layers, network.activation, network.loss, n) for network, n in every]
    work = {
        "points": [asdict(point) for point in points],
        "sizes": SIZES,
        "rounds": rounds,
        "shuffle": [0, k],
        "cores": min(k, len(cores)),
    }
    with placed(network) as there:
        launch = ranks.Launch(impl, k, cores, hosts=there)
        start = time.monotonic()
        rows = ranks.run(launch, f"{parallel.__name__}:on_rank", work, folder)
    print(
        f"{impl}, {k} host{'s' * (k > 1)}, {network}: {len(rows)} rows in {time.monotonic() - start:.0f} s", flush=True
    )
    return [row | {"impl": impl, "key": f"{impl}/ranks{k}/pass1", "pass": 1, "layout": "processes"} for row in rows]


@contextmanager
def placed(network: Network) -> Iterator[tuple[ranks.Host, ...]]:
    """The launcher's hosts; one alone needs no network."""
    if network.hosts == 1:
        yield ()
        return
    with namespaces.played(network) as places:
        yield tuple(ranks.Host(1, place.prefix, place.address, place.interface) for place in places)


# --- the law beside them ----------------------------------------------------------------------------------------------


def compare(impl: str, network: Network, rows: Sequence[dict[str, Any]]) -> list[Compared]:
    """The law's coefficients from one host, and what it says of the steps over several.  Raises UserError for too few rows."""
    (one,) = parallel_law.measured(Found("parallel", {"impls": [impl]}, {}, "", list(rows), []))
    sweep = parallel_law.gradient_sized(one.cells)
    columns = parallel_law.sweep_design(sweep, parallel_law.RING_FREE)
    (alpha_s, beta_s), _ = laws.fit_relative(columns, sweep["time_s"].to_numpy(float))
    nominal = (2 * network.delay_s, 2 * 8 / network.bits_per_s)
    for name, unit, promised, found in (
        ("α", "a hop", nominal[0], float(alpha_s)),
        ("β", "a byte", nominal[1], float(beta_s)),
    ):
        told = words.seconds(promised) if promised else "none"
        print(f"{impl}, {network}: {name} {told} nominal, {words.seconds(found)} measured, {unit}")
    contention = parallel_law.contention(one.cells)
    if contention:
        print("computing at once costs " + ", ".join(f"×{s:.2f} over {k}" for k, s in contention.items()))
    compared = []
    for variant in TAKEN:
        work = parallel_more.work(one.cells, variant)
        if work is None:
            raise UserError(f"{impl}: too few steps of one host to tell the law")
        steps = one.cells[(one.cells["variant"] == variant) & (one.cells["ranks"] > 1)]
        by = (
            seconds(steps, work, *nominal, {}),
            seconds(steps, work, float(alpha_s), float(beta_s), {}),
            seconds(steps, work, float(alpha_s), float(beta_s), contention),
        )
        compared += [
            Compared(str(network), int(row["ranks"]), _step(row), TAKEN[variant], float(row["time_s"]), *predicted)
            for row, predicted in zip(steps.to_dict("records"), zip(*by, strict=True), strict=True)
        ]
    return compared


def _step(row: dict[Any, Any]) -> str:
    return f"{row['layers']} {row['activation']} n={row['n']:.0f}"


def seconds(
    steps: pd.DataFrame, work: Work, alpha_s: float, beta_s: float, contention: Mapping[int, float]
) -> list[float]:
    """o(k)·s(k)·S(⌈n/k⌉) + q·α·(k - 1) + β·g·(k - 1)/k: links are each host's own."""
    k, cores, q, g = (parallel_law.numbers(steps, name) for name in ("ranks", "cores", "messages", "gradient_bytes"))
    slower = parallel_law.shared(k, cores) * np.array([contention.get(int(ranks), 1.0) for ranks in k])
    sent = q * alpha_s * (k - 1) + beta_s * g * (k - 1) / k
    return [float(s) for s in slower * work.seconds(steps) + sent]


def show(compared: Sequence[Compared]) -> None:
    """A table: measured, and each prediction with its error."""
    print(
        f"{'hosts':>5}  {'step':<38}{'taken':<21}{'measured':>10}{'nominal':>17}{'measured α, β':>17}{'and s(k)':>17}"
    )
    for one in compared:
        told = [
            f"{words.seconds(s):>10}{100 * (s / one.measured_s - 1):+6.0f}%"
            for s in (one.nominal_s, one.measured_network_s, one.with_contention_s)
        ]
        print(f"{one.hosts:>5}  {one.step:<38}{one.taken:<21}{words.seconds(one.measured_s):>10}{''.join(told)}")
    print(flush=True)


def summary(compared: Sequence[Compared]) -> str:
    """Median and largest error of each prediction, by hosts and by how the step is taken."""
    lines = []
    for k, taken in sorted({(one.hosts, one.taken) for one in compared}):
        own = [one for one in compared if (one.hosts, one.taken) == (k, taken)]
        told = []
        for name, field in (
            ("nominal network", "nominal_s"),
            ("measured network", "measured_network_s"),
            ("and s(k)", "with_contention_s"),
        ):
            errors = np.abs([getattr(one, field) / one.measured_s - 1 for one in own])
            told.append(
                f"{name} {words.percent(float(np.median(errors)))} (at most {words.percent(float(errors.max()))})"
            )
        lines.append(f"{k} hosts, {len(own)} steps {taken}, median error: " + ", ".join(told))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
