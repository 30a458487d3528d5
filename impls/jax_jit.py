"""JAX: the whole step under one ``jit``, parameters and optimizer state donated; each phase under a ``jit`` of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from backprop_files import UserError
from impls import activations, optimizers
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


#: optax's own with the arguments of ``impls.optimizers``: called with its module, hyper-parameters and learning rate.
OPTAX: dict[str, Callable[[Any, Any, float], Any]] = {
    "momentum": lambda optax, h, lr: optax.sgd(lr, momentum=h.decay),
    "nesterov": lambda optax, h, lr: optax.sgd(lr, momentum=h.decay, nesterov=True),
    "adagrad": lambda optax, h, lr: optax.adagrad(lr, initial_accumulator_value=h.start, eps=0.0),
    "rmsprop": lambda optax, h, lr: optax.rmsprop(lr, decay=h.decay, eps=h.eps, eps_in_sqrt=False),
    "adam": lambda optax, h, lr: optax.adam(lr, b1=h.beta1, b2=h.beta2, eps=h.eps),
}
#: apply(parameters, gradients, state) -> (parameters, state).
Apply = Callable[[Parameters, Parameters, Any], tuple[Parameters, Any]]


def optimizer_of(name: str, rate: float) -> tuple[Callable[[Parameters], Any], Apply]:
    """An optimizer as functions: its state before the first step, and the update."""
    if name == optimizers.USUAL:
        return lambda theta: (), lambda theta, gradients, state: (descend(rate, theta, gradients), state)
    import optax  # takes its time to load, and plain gradient descent needs none of it

    chosen = OPTAX[name](optax, optimizers.find(name), rate)

    def apply(theta: Parameters, gradients: Parameters, state: Any) -> tuple[Parameters, Any]:
        moves, state = chosen.update(gradients, state, theta)
        return optax.apply_updates(theta, moves), state

    return chosen.init, apply


class Compiled:
    """The jitted functions of one network under one optimizer; shared, so that preparing a problem again compiles nothing."""

    def __init__(self, network: Network, apply: Apply) -> None:
        def step(theta: Parameters, x: jax.Array, t: jax.Array, state: Any = ()) -> Any:
            value, gradients = jax.value_and_grad(partial(loss_of, network))(theta, x, t)
            return *apply(theta, gradients, state), value

        def epoch(theta: Parameters, state: Any, x: jax.Array, t: jax.Array, order: jax.Array, batch: int) -> Any:
            def body(carry: Any, rows: jax.Array) -> Any:
                theta, state, value = step(carry[0], x[rows], t[rows], carry[1])
                return (theta, state), value

            whole = len(order) // batch * batch
            carry, values = jax.lax.scan(body, (theta, state), order[:whole].reshape(-1, batch))
            if whole == len(order):
                return *carry, values[-1]
            carry, value = body(carry, order[whole:])
            return *carry, value

        self.step = jax.jit(step, donate_argnums=(0, 3))
        self.epoch = jax.jit(epoch, donate_argnums=(0, 1), static_argnames="batch")
        # jax.vjp's pullback is a pytree: forward hands it to backward, with all that it keeps
        self.forward = jax.jit(lambda theta, x: jax.vjp(lambda th: outputs(network, th, x), theta))
        self.loss = jax.jit(jax.value_and_grad(lambda y, t: LOSSES[network.loss].value(XP, y, t)))
        self.backward = jax.jit(lambda pullback, delta: pullback(delta)[0])
        self.update = jax.jit(apply, donate_argnums=(0, 2))


@lru_cache(maxsize=4)
def compiled(network: Network, optimizer: str, rate: float) -> Compiled:
    """Those of the latest few problems."""
    return Compiled(network, optimizer_of(optimizer, rate)[1])


class JaxJit:
    """JAX on the CPU or a GPU."""

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        place = partial(jax.device_put, device=resolve(device))
        self.theta: Parameters = [place(p.astype(dtype)) for p in problem.parameters]
        self.x, self.t = place(problem.inputs.astype(dtype)), place(problem.targets.astype(dtype))
        asked = problem.optimizer, problem.learning_rate
        # placed like all that a step gives back: jit compiles anew for arguments that are bound to no device
        self.state = place(optimizer_of(*asked)[0](self.theta))
        self._compiled = compiled(problem.network, *asked)
        self.value: Any = jnp.nan
        self.grads: Parameters = []
        self.synchronize()

    def forward(self) -> None:
        """The outputs, and the pullback."""
        self.y, self.pullback = self._compiled.forward(self.theta, self.x)

    def loss(self) -> None:
        """The loss, and δ of the output layer."""
        self.value, self.delta = self._compiled.loss(self.y, self.t)

    def backward(self) -> None:
        """δ pulled back to all parameters."""
        self.grads = self._compiled.backward(self.pullback, self.delta)

    def update(self) -> None:
        """What the optimizer does to θ; the old parameters and states are donated."""
        self.theta, self.state = self._compiled.update(self.theta, self.grads, self.state)

    def step(self) -> None:
        """One compiled call."""
        self.theta, self.state, self.value = self._compiled.step(self.theta, self.x, self.t, self.state)

    def epoch(self, order: AnyArray, batch: int) -> None:
        """One compiled call: a loop (``jax.lax.scan``) over all whole batches, then a step of what is left."""
        self.theta, self.state, self.value = self._compiled.epoch(
            self.theta, self.state, self.x, self.t, jnp.asarray(order), batch=batch
        )

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
        """What XLA has planned for the step."""
        return planned_bytes(self._compiled.step, (self.theta, self.x, self.t, self.state))


def planned_bytes(step: Any, arguments: tuple[Any, ...]) -> int | None:
    """What XLA has planned for a jitted step that has been taken: what is donated to it is counted once."""
    # after a first step all of this comes from jit's own caches: nothing is compiled again
    planned = step.lower(*arguments).compile().memory_analysis()
    if planned is None:
        return None
    held = planned.argument_size_in_bytes + planned.output_size_in_bytes - planned.alias_size_in_bytes
    return int(held + planned.temp_size_in_bytes)
