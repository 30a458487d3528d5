"""What the ranks of the tests do: hold every case to the reference, plant errors, and come to grief."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.experiments.parallel import held
from bench.rank_worker import Desk, Row
from impls import reference
from impls.conformance import BOLD, Expected, Mismatch, relative_norm
from impls.derivatives import flat
from impls.interface import Network, Problem
from impls.optimizers import find as optimizer
from impls.problem import make_problem

STEPS = 5
LAYERS = (5, 7, 6, 4)


def problem_of(case: Mapping[str, Any]) -> Problem:
    """A rate so bold that steps move parameters far: nothing hides in rounding."""
    network = Network(LAYERS, case.get("activation", "tanh"), case["loss"])
    name = case.get("optimizer", "gradient-descent")
    rate = BOLD * optimizer(name).learning_rate
    return make_problem(network, case["n"], 3, learning_rate=rate, optimizer=name)


# --- right ------------------------------------------------------------------------------------------------------------


def errors(desk: Desk, arguments: Mapping[str, Any]) -> list[Row]:
    """The largest error of any rank, case by case; and where any of them listens."""
    rows = []
    for case in arguments["cases"]:
        desk.progress.at(f"the case {case}")
        found = _errors(desk, problem_of(case))
        worst = found.pop("instance").gather(list(found.values())).max(axis=0)
        rows.append(dict(case) | dict(zip(found, worst.tolist(), strict=True)))
    listening = listening_addresses(os.getpid()) | listening_addresses(os.getppid())  # torchrun's agent
    beyond = [address for address in listening if not loopback(address)]
    last = desk.prepare(problem_of(arguments["cases"][0]))
    told = last.gather([len(listening), len(beyond), last.ranks, _rank_seen(desk, last)])
    return [*rows, {"listening": told[:, 0].tolist(), "beyond": told[:, 1].tolist(), "seen": told[:, 2:].tolist()}]


def _rank_seen(desk: Desk, instance: Any) -> int:
    assert instance.rank == desk.rank
    return int(instance.rank)


def _errors(desk: Desk, problem: Problem) -> dict[str, Any]:
    """Of loss and gradients, by phases and in turn, and of where both kinds of step go."""
    loss, gradients = reference.loss_and_gradients(problem)
    by_phase, stepped, in_turn = (desk.prepare(problem) for _ in range(3))
    for phase in ("forward", "loss", "backward"):
        getattr(by_phase, phase)()
    found: dict[str, Any] = {"instance": by_phase}
    found["phases loss"] = abs(by_phase.loss_value() / loss - 1)
    found["gradients"] = relative_norm(flat(by_phase.gradients()), flat(gradients))
    by_phase.update()
    for i in range(STEPS):
        stepped.step()
        in_turn.step_in_turn()
        if i == 0:
            found["step loss"] = abs(stepped.loss_value() / loss - 1)
            found["in turn loss"] = abs(in_turn.loss_value() / loss - 1)
            found["in turn gradients"] = relative_norm(flat(in_turn.gradients()), flat(gradients))
    for instance, steps in ((by_phase, 1), (stepped, STEPS), (in_turn, STEPS)):
        instance.synchronize()
        start = flat(problem.parameters)
        moved = flat(reference.after_steps(problem, steps)) - start
        name = {by_phase: "update", stepped: "steps", in_turn: "steps in turn"}[instance]
        found[name] = relative_norm(flat(instance.parameters()) - start, moved)
    return found


def alone(desk: Desk, arguments: Mapping[str, Any]) -> list[Row]:
    """How far the mean of the ranks' moves, each alone, is from the move of all together, by gradient descent from the
    same start: the same if every rank takes its own rows' gradients, k times their share, and nothing is sent.
    """
    problem = problem_of(arguments)
    instance = desk.prepare(problem)
    instance.step_alone()
    instance.synchronize()
    start = flat(problem.parameters)
    own = arguments["own"][desk.entry.name]
    found = instance.gather((_own_parameters(instance, own) - start).tolist())
    together = flat(reference.after_steps(problem, 1)) - start
    apart = float(np.linalg.norm(found - found.mean(axis=0), axis=1).min() / np.linalg.norm(together))
    return [{"error": relative_norm(found.mean(axis=0), together), "apart": apart}]


def _own_parameters(instance: Any, own: str) -> Any:
    if own == "parameters":
        return flat(instance.parameters())
    theta = getattr(instance, own)[0]
    return flat([np.asarray(p.addressable_shards[0].data)[0] for p in theta])


def messages(desk: Desk, arguments: Mapping[str, Any]) -> list[Row]:
    """All-reduces of a step: as the implementation tells, and as its library is seen to make them."""
    made = []
    for layers in arguments["networks"]:
        instance = desk.prepare(make_problem(Network(tuple(layers)), 8, 0))
        for _ in range(3):  # DDP arranges its buckets anew after its first step
            instance.step()
        instance.synchronize()
        made.append({"told": instance.messages(), "seen": SEEN[desk.entry.name](instance)})
    return made


def _profiled(instance: Any) -> int:
    """What torch's profiler sees of gloo in a step."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        instance.step()
    return sum(event.count for event in seen.key_averages() if event.key == "gloo:all_reduce")


def _compiled(instance: Any) -> int:
    """The arrays of all all-reduces in what XLA has compiled."""
    arguments = (instance.theta, instance.x, instance.t, instance.w, instance.state)
    text = instance._compiled.step.lower(*arguments).compile().as_text()
    return sum(operands.count("%") for operands in re.findall(r" all-reduce\(([^)]*)\)", text))


SEEN: dict[str, Callable[[Any], int]] = {"torch-ddp": _profiled, "jax-sharded": _compiled}


# --- planted errors: each must be caught by the check that stands before every timing ---------------------------------


def planted(desk: Desk, arguments: Mapping[str, Any]) -> list[Row]:
    """What the check says of each planted error, on the rank that says most; nothing where it says nothing."""
    problem = make_problem(Network(LAYERS, loss=arguments["loss"]), arguments["n"], 3, learning_rate=1.0)
    expected = Expected.of(problem, desk.dtype)
    wrong = {"torch-ddp": TORCH, "jax-sharded": JAX}[desk.entry.name]
    rows = []
    for name in ("nothing", *wrong):
        desk.progress.at(f"the planted error: {name}")
        with wrong.get(name, _nothing)(desk):
            instances = [desk.prepare(problem) for _ in range(2)]
            try:
                held(instances[0], instances[1], expected)
                caught = 0.0
            except Mismatch:
                caught = 1.0
        rows.append({"planted": name, "caught": float(instances[0].gather([caught]).max())})
    return rows


@contextmanager
def _nothing(desk: Desk) -> Iterator[None]:
    yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _torch_instances(change: Callable[[Any], None]) -> Iterator[None]:
    from impls.torch_ddp import TorchDDP

    right = TorchDDP.__init__

    def wrong(self: Any, *arguments: Any, **more: Any) -> None:
        right(self, *arguments, **more)
        change(self)

    with _replaced(TorchDDP, "__init__", wrong):
        yield


@contextmanager
def _torch_mean_of_means(desk: Desk) -> Iterator[None]:
    def change(instance: Any) -> None:
        instance.factor = 1 / instance.targets.numel()

    with _torch_instances(change):
        yield


@contextmanager
def _torch_row_dropped(desk: Desk) -> Iterator[None]:
    from impls import torch_ddp
    from impls.shares import share

    def short(n: int, ranks: int, rank: int) -> slice:
        rows = share(n, ranks, rank)
        return slice(rows.start, rows.stop - (rank == 1))

    with _replaced(torch_ddp, "share", short):
        yield


@contextmanager
def _torch_nothing_sent(desk: Desk) -> Iterator[None]:
    def change(instance: Any) -> None:
        instance.model.require_backward_grad_sync = False

    with _torch_instances(change):
        yield


@contextmanager
def _torch_nothing_sent_in_turn(desk: Desk) -> Iterator[None]:
    from impls.torch_ddp import TorchDDP

    with _replaced(TorchDDP, "step_in_turn", TorchDDP.step_alone):
        yield


TORCH = {
    "mean of means": _torch_mean_of_means,
    "a row dropped": _torch_row_dropped,
    "nothing sent": _torch_nothing_sent,
    "nothing sent in turn": _torch_nothing_sent_in_turn,
}


@contextmanager
def _jax_weights(change: Callable[[Any], Any]) -> Iterator[None]:
    """Other weights of rows, (padded n,), on the way to the devices."""
    from impls.jax_sharded import JaxSharded

    right = JaxSharded._placed

    def wrong(self: Any, array: Any, spec: Any) -> Any:
        return right(self, change(array) if array.ndim == 1 and len(array) not in LAYERS else array, spec)

    with _replaced(JaxSharded, "_placed", wrong):
        yield


@contextmanager
def _jax_padding_counted(desk: Desk) -> Iterator[None]:
    with _jax_weights(np.ones_like):
        yield


@contextmanager
def _jax_mean_of_means(desk: Desk) -> Iterator[None]:
    def by_rank(weights: Any) -> Any:
        shards = weights.reshape(desk.processes, -1)
        return (shards * weights.sum() / desk.processes / shards.sum(axis=1, keepdims=True)).reshape(-1)

    with _jax_weights(by_rank):
        yield


@contextmanager
def _jax_row_dropped(desk: Desk) -> Iterator[None]:
    with _jax_weights(lambda weights: weights * (np.arange(len(weights)) != 1)):
        yield


@contextmanager
def _jax_nothing_sent(desk: Desk) -> Iterator[None]:
    from impls import jax_sharded

    jax_sharded.compiled.cache_clear()
    with _replaced(jax_sharded, "psum", lambda x: x):
        yield
    jax_sharded.compiled.cache_clear()


JAX = {
    "mean of means": _jax_mean_of_means,
    "a row dropped": _jax_row_dropped,
    "padding counted": _jax_padding_counted,
    "nothing sent in turn": _jax_nothing_sent,
}


# --- grief ------------------------------------------------------------------------------------------------------------


def grief(desk: Desk, arguments: Mapping[str, Any]) -> list[Row]:
    """Rounds that go well, until one rank fails in one of the ways that ranks fail."""
    instance = desk.prepare(problem_of({"n": 8, "loss": "mse"}))
    for number in range(1, 6):
        desk.progress.at(f"round {number} of the test")
        instance.gather([0.0])
    if desk.rank == arguments["rank"]:
        _come_to_grief(arguments["how"])
    desk.progress.at("round 6 of the test")
    instance.gather([0.0])
    return [{"went": "well"}]


def _come_to_grief(how: str) -> None:
    if how == "raises":
        raise ValueError("a planted error")
    if how == "exits":
        print("planted last line", flush=True)
        os._exit(3)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "sleeps":
        time.sleep(600)


# --- sockets ----------------------------------------------------------------------------------------------------------

LISTENING = "0A"  # include/net/tcp_states.h


def listening_addresses(pid: int) -> set[str]:
    """Addresses at which a process listens, as the kernel tells them."""
    handles = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    inodes = {handle[len("socket:[") : -1] for handle in handles if handle.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                found.add(f"{address_of(fields[1].partition(':')[0])}:{int(fields[1].partition(':')[2], 16)}")
    return found


def address_of(hexadecimal: str) -> str:
    """Of /proc/net/tcp: words of four bytes, each in the machine's own order."""
    words = [bytes.fromhex(hexadecimal[i : i + 8])[::-1] for i in range(0, len(hexadecimal), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))


def loopback(address: str) -> bool:
    """Whether only this machine can reach it."""
    host = address.rpartition(":")[0]
    return host.startswith("127.") or host == "::1" or host.startswith("::ffff:127.")
