"""JAX: the whole step under one ``jit``, parameters and optimizer state donated; each phase under a ``jit`` of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from backprop_files import UserError
from impls import activations, dtypes, optimizers
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
    except RuntimeError as error:
        raise UserError(f"device '{device}' is absent: {_no_platform(platform, str(error))}") from error
    if int(index or 0) >= len(found):
        raise UserError(f"device '{device}' is absent: JAX sees {', '.join(map(str, found))}")
    return found[int(index or 0)]


def _no_platform(platform: str, told: str) -> str:
    """Why JAX has no device of the platform at all, in one line."""
    seen = f"JAX sees {', '.join(map(str, jax.devices()))}"
    if platform not in ("gpu", "cuda"):
        return seen
    if not any(importlib.util.find_spec(f"jax_cuda{major}_plugin") for major in (12, 13)):
        return f"{seen}; this JAX drives the CPU only: pip install 'jax[cuda12]'"
    if not DRIVER.exists():
        return f"{seen}; no NVIDIA driver is loaded on this machine"
    line = told.strip().splitlines()[0] if told.strip() else "it does not say why"
    return f"{seen}; its CUDA plugin does not start ({line}): the driver may be too old, CUDA_VISIBLE_DEVICES hide all"


#: Where a loaded NVIDIA driver says its version.
DRIVER = Path("/proc/driver/nvidia/version")


# --- precision --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Precision:
    """A dtype of ``impls.dtypes`` as JAX has it on a platform; compiled functions are found by it, so none serves two.

    ``products`` is what ``jax.default_matmul_precision`` is while functions are traced: accelerators take float32's
    products in TF32 unless they are told not to.  None: as the platform has them.
    """

    stored: str
    computed: str
    products: str | None = None

    @classmethod
    def of(cls, dtype: str, device: jax.Device) -> Precision:
        """Raises UserError where the device cannot compute in the dtype."""
        found = dtypes.find(dtype)
        computed = found.stored if found.accelerators_only else found.computed
        if device.platform == "cpu":
            if found.accelerators_only:
                raise UserError(f"dtype '{dtype}' is one of accelerators: the CPU has none")
            return cls(found.stored, computed)
        capability = _capability(device)
        if capability and (reason := dtypes.lacking(dtype, capability, str(device), device.device_kind)):
            raise UserError(reason)
        return cls(found.stored, computed, {"float32": "float32", "tf32": "tensorfloat32"}.get(dtype))

    @classmethod
    def plain(cls, dtype: str, device: jax.Device, who: str) -> Precision:
        """That of what casts nothing: float32, float64, tf32.  Raises UserError for any other."""
        precision = cls.of(dtype, device)
        if precision.mixed:
            raise UserError(
                f"{who}: no dtype '{dtype}'; it computes in {', '.join(dtypes.PLAIN)}, on accelerators tf32"
            )
        return precision

    @property
    def mixed(self) -> bool:
        """Whether parameters are cast for products."""
        return self.stored != self.computed

    def in_force(self) -> AbstractContextManager[object]:
        """To be entered around what is traced."""
        return jax.default_matmul_precision(self.products) if self.products else nullcontext()

    def under(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, to be traced so."""

        def traced(*arguments: Any) -> Any:
            with self.in_force():
                return function(*arguments)

        return traced if self.products else function

    def loss_scale(self, loss: str, shape: tuple[int, ...]) -> float:
        """What a loss of outputs of this shape is multiplied by, and its gradients divided: 1 but for float16."""
        return dtypes.loss_scale(loss, *shape) if self.computed == "float16" else 1.0


def _capability(device: jax.Device) -> tuple[int, int] | None:
    """(major, minor) of an NVIDIA device; None of any other."""
    major, _, minor = str(getattr(device, "compute_capability", "")).partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


PLAIN = Precision("float32", "float32")


def scaled(factor: float, arrays: Parameters) -> Parameters:
    """All of them times the factor."""
    return arrays if factor == 1 else [array * factor for array in arrays]


# --- the network ------------------------------------------------------------------------------------------------------


def affine(h: jax.Array, weights: jax.Array, bias: jax.Array, precision: Precision) -> jax.Array:
    """The outputs z = h W + b of a layer, in the dtype that products are computed in.

    If that has few bits, b is added in float32, as torch's ``addmm`` does: z is rounded once more, but not to a coarse sum
    of coarse numbers, and the gradient of b is summed in float32.
    """
    if not precision.mixed:
        return h @ weights + bias
    product: jax.Array = h.astype(precision.computed) @ weights.astype(precision.computed)
    return (product.astype(precision.stored) + bias).astype(precision.computed)


def outputs(network: Network, parameters: Parameters, h: jax.Array, precision: Precision = PLAIN) -> Any:
    """The linear outputs (n, layers[-1]), in the dtype that parameters are kept in."""
    f = activations.find(network.activation)
    with precision.in_force():
        for layer in range(network.depth):
            z = affine(h, parameters[2 * layer], parameters[2 * layer + 1], precision)
            h = f.value(XP, z) if layer < network.depth - 1 else z
    return h.astype(precision.stored) if precision.mixed else h


def loss_of(network: Network, parameters: Parameters, x: jax.Array, t: jax.Array, precision: Precision = PLAIN) -> Any:
    """The loss as one function of the parameters."""
    return LOSSES[network.loss].value(XP, outputs(network, parameters, x, precision), t)


def loss_and_gradients(
    network: Network, precision: Precision, theta: Parameters, x: jax.Array, t: jax.Array
) -> tuple[Any, Parameters]:
    """By ``value_and_grad``, of a scaled loss where gradients would not fit otherwise."""
    scale = precision.loss_scale(network.loss, t.shape)
    value, gradients = jax.value_and_grad(lambda th: loss_of(network, th, x, t, precision) * scale)(theta)
    return value / scale, scaled(1 / scale, gradients)


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

    def __init__(self, network: Network, apply: Apply, precision: Precision) -> None:
        def step(theta: Parameters, x: jax.Array, t: jax.Array, state: Any = ()) -> Any:
            value, gradients = loss_and_gradients(network, precision, theta, x, t)
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

        def backward(pullback: Any, delta: jax.Array) -> Parameters:
            scale = precision.loss_scale(network.loss, delta.shape)
            return scaled(1 / scale, pullback(*scaled(scale, [delta]))[0])

        self.step = jax.jit(step, donate_argnums=(0, 3))
        self.epoch = jax.jit(epoch, donate_argnums=(0, 1), static_argnames="batch")
        # jax.vjp's pullback is a pytree: forward hands it to backward, with all that it keeps
        self.forward = jax.jit(lambda theta, x: jax.vjp(lambda th: outputs(network, th, x, precision), theta))
        self.loss = jax.jit(jax.value_and_grad(lambda y, t: LOSSES[network.loss].value(XP, y, t)))
        self.backward = jax.jit(backward)
        self.update = jax.jit(apply, donate_argnums=(0, 2))


@lru_cache(maxsize=4)
def compiled(network: Network, optimizer: str, rate: float, precision: Precision) -> Compiled:
    """Those of the latest few problems."""
    return Compiled(network, optimizer_of(optimizer, rate)[1], precision)


class HeldByJax:
    """How whatever lies in JAX's arrays is waited for and read."""

    theta: Parameters
    grads: Parameters
    value: jax.Array

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


class JaxJit(HeldByJax):
    """JAX on the CPU or a GPU."""

    pins = False

    def __init__(self, problem: Problem, device: str = "cpu", dtype: str = "float32", threads: int = 1) -> None:
        found = resolve(device)
        precision = Precision.of(dtype, found)
        self._place = place = partial(jax.device_put, device=found)
        self.theta: Parameters = [place(p.astype(precision.stored)) for p in problem.parameters]
        self.x, self.t = (place(a.astype(precision.stored)) for a in (problem.inputs, problem.targets))
        asked = problem.optimizer, problem.learning_rate
        # placed like all that a step gives back: jit compiles anew for arguments that are bound to no device
        self.state = place(optimizer_of(*asked)[0](self.theta))
        self._compiled = compiled(problem.network, *asked, precision)
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

    @cached_property
    def _host(self) -> list[AnyArray]:
        """Inputs and targets in host memory."""
        return [np.array(a) for a in (self.x, self.t)]

    def transfer(self, pinned: bool) -> None:
        """Fresh arrays on the device, in place of those before: JAX writes into none.  ``pinned`` makes no difference."""
        self.x, self.t = (self._place(a, may_alias=False) for a in self._host)

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
