"""JAX: the whole step under one ``jit`` with donated parameters, and each phase under a ``jit`` of its own."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from backprop_files import UserError
from impls import activations
from impls.interface import AnyArray, Network, Problem
from impls.losses import LOSSES

jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]  # float64 where it is asked for; float32 stays float32

XP = SimpleNamespace(
    **{
        name: getattr(jnp, name)
        for name in ("tanh", "exp", "log", "log1p", "expm1", "maximum", "absolute", "where", "mean", "sum", "max")
    },
    erf=jax.scipy.special.erf,
)
Parameters = list[jax.Array]


def resolve(device: str) -> jax.Device:
    """The JAX device of that name, ``cpu`` or ``gpu[:i]``.  Raises UserError where it is absent."""
    platform, _, index = device.partition(":")
    try:
        found = jax.devices(platform)
        return found[int(index or 0)]
    except (RuntimeError, IndexError) as error:
        raise UserError(f"device '{device}' is absent: JAX sees {jax.devices()}") from error


def outputs(network: Network, parameters: Parameters, h: jax.Array) -> Any:
    """The linear outputs (n, layers[-1])."""
    f = activations.find(network.activation)
    for layer in range(network.depth):
        z = h @ parameters[2 * layer] + parameters[2 * layer + 1]
        h = f.value(XP, z) if layer < network.depth - 1 else z
    return h


def loss_of(network: Network, parameters: Parameters, x: jax.Array, t: jax.Array) -> Any:
    """The loss as one function of the parameters."""
    return LOSSES[network.loss].value(XP, outputs(network, parameters, x), t)


def descend(rate: float, parameters: Parameters, gradients: Parameters) -> Parameters:
    """θ - η ∂L/∂θ."""
    return [p - rate * g for p, g in zip(parameters, gradients, strict=True)]


class JaxJit:
    """JAX on the CPU or a GPU."""

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        network, rate = problem.network, problem.learning_rate
        place = partial(jax.device_put, device=resolve(device))
        self.theta: Parameters = [place(p.astype(dtype)) for p in problem.parameters]
        self.x, self.t = place(problem.inputs.astype(dtype)), place(problem.targets.astype(dtype))

        def step(theta: Parameters, x: jax.Array, t: jax.Array) -> Any:
            value, gradients = jax.value_and_grad(partial(loss_of, network))(theta, x, t)
            return descend(rate, theta, gradients), value

        # jax.vjp's pullback is a pytree: forward hands it to backward, with all that it keeps
        self._step = jax.jit(step, donate_argnums=0)
        self._forward = jax.jit(lambda theta, x: jax.vjp(lambda th: outputs(network, th, x), theta))
        self._loss = jax.jit(jax.value_and_grad(lambda y, t: LOSSES[network.loss].value(XP, y, t)))
        self._backward = jax.jit(lambda pullback, delta: pullback(delta)[0])
        self._update = jax.jit(partial(descend, rate), donate_argnums=0)
        self.value: Any = jnp.nan
        self.grads: Parameters = []
        self.synchronize()

    def forward(self) -> None:
        """The outputs, and the pullback."""
        self.y, self.pullback = self._forward(self.theta, self.x)

    def loss(self) -> None:
        """The loss, and δ of the output layer."""
        self.value, self.delta = self._loss(self.y, self.t)

    def backward(self) -> None:
        """δ pulled back to all parameters."""
        self.grads = self._backward(self.pullback, self.delta)

    def update(self) -> None:
        """θ ← θ - η ∂L/∂θ; the old parameters are donated."""
        self.theta = self._update(self.theta, self.grads)

    def step(self) -> None:
        """One compiled call."""
        self.theta, self.value = self._step(self.theta, self.x, self.t)

    def synchronize(self) -> None:
        """Wait for everything this problem holds."""
        jax.block_until_ready({k: v for k, v in vars(self).items() if not k.startswith("_")})  # type: ignore[no-untyped-call]

    def parameters(self) -> list[AnyArray]:
        """NumPy copies (W1, b1, …) with W of shape (fan_in, fan_out)."""
        return [np.array(p) for p in self.theta]

    def gradients(self) -> list[AnyArray]:
        """As ``parameters``."""
        return [np.array(g) for g in self.grads]

    def loss_value(self) -> float:
        """The loss last computed."""
        return float(self.value)

    def peak_bytes(self) -> int | None:
        """What XLA has planned for the step: parameters donated to it are counted once."""
        # after a first step all of this comes from jit's own caches: nothing is compiled again
        planned = self._step.lower(self.theta, self.x, self.t).compile().memory_analysis()
        if planned is None:
            return None
        held = planned.argument_size_in_bytes + planned.output_size_in_bytes - planned.alias_size_in_bytes
        return int(held + planned.temp_size_in_bytes)
