"""JAX's derivatives in three ways: ``value_and_grad``, ``jvp`` under ``vmap``, and a compiled loop of losses."""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from impls.derivatives import Shifts, flat
from impls.interface import AnyArray, Network, Problem
from impls.jax_jit import Parameters, Precision, loss_of, resolve


def _offsets(parameters: Parameters) -> list[int]:
    """The number of each array's first parameter."""
    return [0, *accumulate(p.size for p in parameters)][:-1]


def units(parameters: Parameters, start: jax.Array, count: int) -> Parameters:
    """Unit tangents of ``count`` parameters from ``start`` on, each array (count, *shape)."""
    numbers = start + jnp.arange(count)
    return [
        (jnp.arange(offset, offset + p.size) == numbers[:, None]).astype(p.dtype).reshape(count, *p.shape)
        for p, offset in zip(parameters, _offsets(parameters), strict=True)
    ]


def put(parameters: Parameters, k: jax.Array, value: jax.Array) -> Parameters:
    """The parameters with number k set; within a compiled loop that changes one number in place."""
    return [
        p.reshape(-1).at[jnp.where(k >= offset, k - offset, p.size)].set(value, mode="drop").reshape(p.shape)
        for p, offset in zip(parameters, _offsets(parameters), strict=True)
    ]


@lru_cache(maxsize=16)
def compiled(network: Network, precision: Precision) -> SimpleNamespace:
    """The jitted functions of a network; shared, so that preparing a problem again compiles nothing."""
    loss = partial(loss_of, network, precision=precision)

    def forward(theta: Parameters, x: jax.Array, t: jax.Array, start: jax.Array, count: int) -> Any:
        # dL = (∂L/∂θ) dθ, for all directions dθ at once
        def push(tangent: Parameters) -> Any:
            return jax.jvp(lambda parameters: loss(parameters, x, t), (theta,), (tangent,))[1]

        return jax.vmap(push)(units(theta, start, count))

    def central(
        theta: Parameters, x: jax.Array, t: jax.Array, sides: tuple[jax.Array, ...], start: jax.Array, count: int
    ) -> Any:
        before, up, down, apart = sides

        def body(theta: Parameters, k: jax.Array) -> Any:
            theta = put(theta, k, up[k])
            above = loss(theta, x, t)
            theta = put(theta, k, down[k])
            below = loss(theta, x, t)
            return put(theta, k, before[k]), (above - below) / apart[k]  # (L(θ + h) - L(θ - h)) / 2h

        return jax.lax.scan(body, theta, start + jnp.arange(count))[1]

    return SimpleNamespace(
        loss=jax.jit(loss),
        reverse=jax.jit(jax.value_and_grad(loss)),
        forward=jax.jit(forward, static_argnames="count"),
        central=jax.jit(central, static_argnames="count"),
    )


class JaxDerivatives:
    """JAX on the CPU or a GPU.

    Central differences loop within one compiled function: a call for each loss took 5 times as long on small networks,
    and as long on large ones; losses of all shifted parameters in one batch hold so many copies of them, and took longer.
    """

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        found = resolve(device)
        precision = Precision.plain(dtype, found, "derivatives by jax")
        stored = precision.stored
        place = partial(jax.device_put, device=found)
        self.theta: Parameters = [place(p.astype(stored)) for p in problem.parameters]
        self.x, self.t = place(problem.inputs.astype(stored)), place(problem.targets.astype(stored))
        start = flat([np.asarray(p) for p in self.theta])
        shifts = Shifts.of(start)
        self._sides = tuple(place(a) for a in (start, shifts.up, shifts.down, shifts.apart.astype(stored)))
        self._compiled = compiled(problem.network, precision)
        self._value: Any = jnp.nan
        self._gradients: Parameters = []
        self._found: Any = jnp.zeros(0)
        self.synchronize()

    def loss(self) -> None:
        """One compiled call."""
        self._value = self._compiled.loss(self.theta, self.x, self.t)

    def reverse(self) -> None:
        """One compiled call."""
        self._value, self._gradients = self._compiled.reverse(self.theta, self.x, self.t)

    def forward(self, start: int, count: int) -> None:
        """One compiled call, which makes its unit tangents itself."""
        self._found = self._compiled.forward(self.theta, self.x, self.t, start, count=count)

    def central(self, start: int, count: int) -> None:
        """One compiled loop."""
        self._found = self._compiled.central(self.theta, self.x, self.t, self._sides, start, count=count)

    def synchronize(self) -> None:
        """Wait for everything this problem holds."""
        jax.block_until_ready((self.theta, self.x, self.t, self._sides, self._value, self._gradients, self._found))  # type: ignore[no-untyped-call]

    def value(self) -> float:
        """The loss last computed."""
        return float(self._value)

    def gradients(self) -> list[AnyArray]:
        """NumPy copies (W1, b1, …) with W of shape (fan_in, fan_out)."""
        return [np.array(g) for g in self._gradients]

    def derivatives(self) -> AnyArray:
        """Those last computed."""
        return np.array(self._found)
