"""JAX over a mesh of devices: rows sharded, parameters replicated, and XLA puts the all-reduces where they are needed.

The mesh is all devices of the platform: of this process, and of all processes that ``jax.distributed`` has joined.  On
CPUs these talk by gloo; on GPUs by NCCL, which was not run on several GPUs yet.  A plain process with one device is a rank alone.

Shards are equally large: the rows are filled up with rows of zeros, whose losses weigh nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from backprop_files import UserError
from impls import gloo
from impls.interface import AnyArray, Array, Meeting, Network, Problem
from impls.jax_jit import XP, Apply, HeldByJax, Parameters, Precision, optimizer_of, outputs, planned_bytes, resolve
from impls.losses import LOSSES

AXIS = "ranks"
#: How an array lies on the mesh: its rows split over the ranks, or all of it on every one.
ROWS, WHOLE = P(AXIS), P()  # type: ignore[no-untyped-call]


def mesh_of(device: str) -> Mesh:
    """All devices of a platform, ``cpu`` or ``gpu``; the one device where its index is given.

    Raises UserError where it is absent.
    """
    found = resolve(device)
    return Mesh(np.array([found] if ":" in device else jax.devices(device)), (AXIS,))


# --- the mathematics --------------------------------------------------------------------------------------------------


def loss_sum(network: Network, y: jax.Array, t: jax.Array, weights: jax.Array) -> Any:
    """Loss times n: summed over rows: each counts by its weight, 1 or 0."""

    def one(y: jax.Array, t: jax.Array) -> Any:
        return LOSSES[network.loss].value(XP, y[None], t[None])

    return jnp.sum(weights * jax.vmap(one)(y, t))


def flattened(value: jax.Array, gradients: Parameters) -> jax.Array:
    """The loss and all gradients as one vector, to be sent at one go."""
    return jnp.concatenate([value[None], *(g.reshape(-1) for g in gradients)])


def unflattened(flat: jax.Array, like: Parameters) -> tuple[jax.Array, Parameters]:
    """The other way round."""
    ends = np.cumsum([1, *(p.size for p in like)])
    parts = [flat[start:end].reshape(p.shape) for start, end, p in zip(ends, ends[1:], like, strict=False)]
    return flat[0], parts


def psum(x: jax.Array) -> jax.Array:
    """The sum over all ranks."""
    summed: jax.Array = jax.lax.psum(x, AXIS)  # type: ignore[no-untyped-call]
    return summed


class Compiled:
    """The jitted functions of one network under one optimizer, for ``n`` rows on one mesh; shared, as those of ``jax_jit``."""

    def __init__(self, network: Network, apply: Apply, precision: Precision, mesh: Mesh, n: int) -> None:
        whole = NamedSharding(mesh, WHOLE)
        k = mesh.size
        # each rank computes on what it has: no axis of the mesh is seen in there, so nothing is sent unless psum says so
        per_rank = partial(jax.shard_map, mesh=mesh, check_vma=False)

        def head(y: jax.Array, t: jax.Array, w: jax.Array) -> Any:
            return loss_sum(network, y, t, w) / n

        def loss_of(theta: Parameters, x: jax.Array, t: jax.Array, w: jax.Array) -> Any:
            return head(outputs(network, theta, x, precision), t, w)

        def step(theta: Parameters, x: jax.Array, t: jax.Array, w: jax.Array, state: Any) -> Any:
            value, gradients = jax.value_and_grad(loss_of)(theta, x, t, w)
            return *apply(theta, gradients, state), value

        def own(theta: Parameters, x: jax.Array, t: jax.Array, w: jax.Array) -> jax.Array:
            return flattened(*jax.value_and_grad(loss_of)(theta, x, t, w))[None]

        def apply_flat(theta: Parameters, flat: jax.Array, state: Any) -> Any:
            value, gradients = unflattened(flat[0], theta)
            return *apply(theta, gradients, state), value, gradients

        def alone(theta: Parameters, x: jax.Array, t: jax.Array, w: jax.Array, state: Any) -> Any:
            mine, kept = jax.tree.map(lambda a: a[0], (theta, state))
            value, gradients = jax.value_and_grad(loss_of)(mine, x, t, w)
            mine, kept = apply(mine, [k * g for g in gradients], kept)  # about the mean over its own rows
            return jax.tree.map(lambda a: a[None], (mine, kept, value))

        self.step = jax.jit(step, donate_argnums=(0, 4), out_shardings=whole)
        self.own = jax.jit(per_rank(own, in_specs=(WHOLE, ROWS, ROWS, ROWS), out_specs=ROWS))
        self.sum = summing(mesh)
        self.apply_flat = jax.jit(apply_flat, donate_argnums=(0, 2), out_shardings=whole)
        self.alone = jax.jit(per_rank(alone, in_specs=ROWS, out_specs=ROWS), donate_argnums=(0, 4))
        self.forward = jax.jit(lambda theta, x: jax.vjp(lambda th: outputs(network, th, x, precision), theta))
        self.loss = jax.jit(jax.value_and_grad(head))
        self.backward = jax.jit(lambda pullback, delta: pullback(delta)[0], out_shardings=whole)
        self.update = jax.jit(apply, donate_argnums=(0, 2), out_shardings=whole)


def summing(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """(k, …) of one part a rank -> (1, …), the sum, on every rank."""
    return jax.jit(jax.shard_map(psum, mesh=mesh, in_specs=ROWS, out_specs=WHOLE, check_vma=False))


@lru_cache(maxsize=4)
def compiled(network: Network, optimizer: str, rate: float, precision: Precision, mesh: Mesh, n: int) -> Compiled:
    """Those of the latest few problems."""
    return Compiled(network, optimizer_of(optimizer, rate)[1], precision, mesh, n)


# --- the implementation -----------------------------------------------------------------------------------------------


class JaxSharded(HeldByJax):
    """JAX on all CPU devices or GPUs of all processes."""

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        self._mesh = mesh_of(device)
        self._precision = Precision.plain(dtype, resolve(device), "jax-sharded")
        self.rank, self.ranks = jax.process_index(), self._mesh.size
        fill = -problem.n % self.ranks
        real = np.ones(problem.n)
        self.theta: Parameters = [self._placed(p, WHOLE) for p in problem.parameters]
        self.x, self.t, self.w = (self._placed(_filled(a, fill), ROWS) for a in (problem.inputs, problem.targets, real))
        asked = problem.optimizer, problem.learning_rate
        self.state = self._whole(optimizer_of(*asked)[0](self.theta))
        self._compiled = compiled(problem.network, *asked, self._precision, self._mesh, problem.n)
        self.value: Any = jnp.nan
        self.grads: Parameters = []
        self.buffers: dict[int, jax.Array] = {}
        self.synchronize()

    def _placed(self, array: AnyArray, spec: P) -> jax.Array:
        """On the mesh: every process has the whole array and keeps what is its own."""
        stored = np.asarray(array, self._precision.stored)
        return jax.make_array_from_callback(stored.shape, NamedSharding(self._mesh, spec), lambda index: stored[index])

    def _whole(self, tree: Any) -> Any:
        """What every rank has alike."""
        sharding = NamedSharding(self._mesh, WHOLE)
        return jax.tree.map(lambda a: jax.make_array_from_callback(a.shape, sharding, np.asarray(a).__getitem__), tree)

    @classmethod
    def join(cls, meeting: Meeting) -> None:
        """Meet where process 0 listens, on its own address; gloo's sockets are bound to the meeting's.

        Raises UserError where this JAX does not let gloo be bound: it would listen on whatever the host's name stands for.
        """
        if meeting.ranks == 1:
            return
        bind_gloo(meeting.address)
        port = meeting.place.rpartition(":")[2]
        jax.distributed.initialize(
            meeting.place,
            meeting.ranks,
            meeting.rank,
            cluster_detection_method="deactivate",
            coordinator_bind_address=f"{meeting.address}:{port}",
        )

    @classmethod
    def leave(cls) -> None:
        """The processes part."""
        if jax.distributed.is_initialized():
            jax.distributed.shutdown()  # type: ignore[no-untyped-call]

    def forward(self) -> None:
        """The outputs, and the pullback."""
        self.y, self.pullback = self._compiled.forward(self.theta, self.x)

    def loss(self) -> None:
        """The loss, and δ of the output layer."""
        self.value, self.delta = self._compiled.loss(self.y, self.t, self.w)

    def backward(self) -> None:
        """δ pulled back to all parameters, summed over the ranks."""
        self.grads = self._compiled.backward(self.pullback, self.delta)

    def update(self) -> None:
        """What the optimizer does to θ; the old parameters and states are donated."""
        self.theta, self.state = self._compiled.update(self.theta, self.grads, self.state)

    def step(self) -> None:
        """One compiled call: XLA decides when it sends which gradients."""
        self.theta, self.state, self.value = self._compiled.step(self.theta, self.x, self.t, self.w, self.state)

    def step_in_turn(self) -> None:
        """Three compiled calls: each rank's gradients as one vector, their sum, the update."""
        flat = self._compiled.sum(self._compiled.own(self.theta, self.x, self.t, self.w))
        self.theta, self.state, self.value, self.grads = self._compiled.apply_flat(self.theta, flat, self.state)

    def step_alone(self) -> None:
        """One compiled call in which nothing is sent."""
        self.drifting = self._compiled.alone(self.drifting[0], self.x, self.t, self.w, self.drifting[1])

    @cached_property
    def drifting(self) -> Any:
        """Parameters and state of each rank, (k, …)."""
        return jax.tree.map(self._each, (self.theta, self.state))

    def _each(self, array: jax.Array | AnyArray) -> jax.Array:
        own = np.asarray(array)[None]  # the callback is asked for one rank's part
        shape = (self.ranks, *array.shape)
        return jax.make_array_from_callback(shape, NamedSharding(self._mesh, ROWS), lambda _: own)

    def messages(self) -> int:
        """One for every array and one for the loss: XLA makes one all-reduce of them, whose arrays are summed one by one."""
        return len(self.theta) + 1

    def all_reduce(self, size_bytes: int) -> Callable[[], object]:
        """The sum of zeros, which stay zeros."""
        sum_up = summing(self._mesh)
        buffer = self._each(np.zeros(max(1, size_bytes // 4), np.float32))

        def call() -> None:
            self.buffers[size_bytes] = sum_up(buffer)

        return call

    def gather(self, numbers: Sequence[float]) -> Array:
        """(processes, len(numbers))."""
        own = np.array(numbers, float)
        return own[None] if jax.process_count() == 1 else np.asarray(multihost_utils.process_allgather(own))

    def peak_bytes(self) -> int | None:
        """What XLA has planned for the step, on each device."""
        return planned_bytes(self._compiled.step, (self.theta, self.x, self.t, self.w, self.state))


def _filled(array: AnyArray, rows: int) -> AnyArray:
    """With so many rows of zeros behind it."""
    return np.pad(array, [(0, rows), *[(0, 0)] * (array.ndim - 1)])


def bind_gloo(address: str) -> None:
    """Let the collectives of CPU devices listen on one address.  JAX has no setting for that: its own maker of CPU clients
    is told which collectives to use.  Raises UserError where that maker is gone.
    """
    try:
        from jax._src import distributed, xla_bridge
        from jax._src.lib import _jax  # type: ignore[attr-defined]

        make_client, make_gloo = xla_bridge.make_cpu_client, _jax.make_gloo_tcp_collectives
        register = xla_bridge.register_backend_factory
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"JAX {jax.__version__} does not say how its CPU collectives are bound to {address}: they might listen beyond it"
        ) from error

    def client() -> Any:
        before = gloo.threads()
        collectives = make_gloo(distributed_client=distributed.global_state.client, hostname=address)
        gloo.let_others_first(gloo.threads() - before)
        return make_client(collectives=collectives)

    register("cpu", client, priority=0, fail_quietly=False)
