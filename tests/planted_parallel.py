"""Rows of the experiment ``parallel`` with planted truth: a known law, seeded noise of launches and of cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from analysis.experiments.found import Found

NETWORKS = (((64, 128, 128, 10), 4), ((64, 512, 512, 10), 4), ((64, 128, 128, 10), 48), ((64, 256, 256, 256, 10), 4))
BYTES = tuple(8 * 8**i for i in range(8))  # 8 B … 16 MiB
N0 = 256
CACHE = 1 << 20


@dataclass(frozen=True)
class Truth:
    """A planted machine; ``contention`` is s(k) beyond one rank, ``hops`` the steps of an all-reduce over k ranks, ``hidden``
    the share of communication that overlap hides.
    """

    alpha_s: float = 5e-5
    beta_s: float = 4e-10
    t0_s: float = 2e-4
    a_s: float = 4e-11
    b_s: float = 3e-10
    c_s: float = 1.5e-9
    contention: float = 1.1
    cores: int = 2
    hidden: float = 0.0
    t1_s: float = 0.0  # a layer
    t2_s: float = 0.0  # a hidden layer and operation
    by_layer: int = 0  # all-reduces of a step for every layer, beside one
    cold_s: float = 0.0  # what a byte costs more in a step
    far_s: float = 0.0  # what a byte beyond a core's cache does
    lag_s: float = 0.0  # what two ranks wait for the last of them
    shared: tuple[float, float, float] = (
        2.0,
        2.0,
        2.0,
    )  # what work, hops and bytes cost two ranks on one core, in times
    crowded: bool = False  # whether two ranks are also measured on one core
    hops: Callable[[int], float] = field(default=math.log2)
    compute: Callable[[float, int], float] = field(default=lambda share, k: share)

    def over(self, k: int, cores: int = 0) -> float:
        """o(k)."""
        return max(1.0, k / (cores or self.cores))

    def costs(self, k: int, cores: int = 0) -> tuple[float, float, float, float]:
        """Of work, hops, bytes and lag, in times of what they cost ranks with a core each: linear in o(k); a hop between
        several cores lies between that and turns.
        """
        over = self.over(k, cores)
        work, hop, byte = (1 + (times - 1) * (over - 1) for times in self.shared)
        return work, hop if cores == 1 else math.sqrt(hop * over), byte, hop

    def sends(self, k: int, size: float, cores: int = 0) -> float:
        """Seconds of an all-reduce."""
        _, hop, byte, _ = self.costs(k, cores)
        by_byte = byte * (self.beta_s * size + self.far_s * max(0, size - CACHE)) * (k - 1) / k
        return hop * self.alpha_s * self.hops(k) + by_byte

    def messages(self, variant: str, depth: int) -> int:
        """All-reduces of a step."""
        return {"step": 1 + self.by_layer * depth, "in_turn": 1, "alone": 0}[variant]

    def step(self, variant: str, k: int, row: dict[str, Any], cores: int = 0) -> float:
        """Seconds of a step; on one core nothing runs at once."""
        share = self.compute(math.ceil(row["n"] / k), k)
        work = self.t0_s + share * (self.a_s * row["m"] + self.b_s * row["u"] * row["p"]) + self.c_s * row["m"]
        work += self.t1_s * row["depth"] + self.t2_s * (row["depth"] - 1) * row["p"]
        more, hop, byte, lag = self.costs(k, cores)
        work *= more * (self.contention if k > 1 and cores != 1 else 1.0)
        sent = 0.0 if variant == "alone" else self.sends(k, row["gradient_bytes"], cores)
        if variant == "step":
            sent *= 1 - self.hidden
            sent += (self.messages(variant, row["depth"]) - 1) * hop * self.alpha_s * self.hops(k)
            sent += byte * self.cold_s * row["gradient_bytes"] * (k - 1) / k + lag * self.lag_s * math.log2(k)
        return float(work + sent)


USUAL = Truth()


def sizes(layers: tuple[int, ...], p: int) -> dict[str, Any]:
    """m, u, p and what else a network has."""
    m = sum(a * b + b for a, b in pairwise(layers))
    return {
        "layers": list(layers), "activation": f"horner-{p // 4}", "loss": "mse", "m": m, "u": sum(layers[1:-1]), "p": p,
        "depth": len(layers) - 1, "gradient_bytes": 4 * m, "gradient_error": 1e-7,
    }  # fmt: skip


def points(k: int) -> list[dict[str, Any]]:
    """Strong and weak scaling of every network, and smaller batches that tell coefficients apart."""
    made = []
    for layers, p in NETWORKS:
        by_n = {4 * N0: ["strong"], k * N0: ["weak"], 64: ["model"], 16: ["model"]}
        if k == 4:
            by_n[4 * N0] = ["strong", "weak"]
        made += [{**sizes(layers, p), "n": n, "scaling": ",".join(told)} for n, told in by_n.items()]
    return made


def rows(
    truth: Truth = USUAL, *, seed: int = 0, passes: int = 3, ranks: tuple[int, ...] = (1, 2, 4), launch: float = 0.01,
    noise: float = 0.01, impl: str = "torch-ddp",
) -> list[dict[str, Any]]:  # fmt: skip
    """What tasks answer, as ``analysis.experiments.found`` hands it on; ``launch`` and ``noise`` are log deviations, of a
    launch as a whole and of a cell in it.
    """
    rng = np.random.default_rng(seed)
    made: list[dict[str, Any]] = []
    for number in range(1, passes + 1):
        placed = [(k, min(k, truth.cores), f"ranks{k}") for k in ranks]
        for k, cores, where in placed + ([(2, 1, "ranks2on1")] if truth.crowded else []):
            whole = math.exp(launch * rng.standard_normal())
            task = {
                "impl": impl,
                "pass": number,
                "key": f"{impl}/{where}/pass{number}",
                "ranks": k,
                "cores": cores,
            }

            def add(seconds: float, whole: float = whole, task: dict[str, Any] = task, **row: Any) -> None:
                time = seconds * whole * math.exp(noise * rng.standard_normal())
                made.append({**task, "layout": "processes", "quiet": 3, "settled": True, **row, "seconds": [time]})

            for row in points(k):
                for variant in ("step", "in_turn", "alone"):
                    messages = truth.messages(variant, row["depth"])
                    seconds = truth.step(variant, k, row, cores)
                    add(seconds, kind="step", variant=variant, messages=messages, **row)
            for size in BYTES:
                add(truth.sends(k, size, cores) if k > 1 else 2e-5, kind="all_reduce", bytes=size)
    return made


def found(truth: Truth = USUAL, **how: Any) -> Found:
    """A whole experiment."""
    machine = {"caches": {"L2": f"{CACHE >> 10}K"}}
    return Found("parallel", {"impls": ["torch-ddp"]}, machine, "now", rows(truth, **how), [])
