"""Every implementation and what it can do, declared once.  Nothing is imported until an implementation is built.

A new implementation is one file and one ``Entry`` in ``ENTRIES``; tests, sweeps, legends and documents iterate over
that and name none.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backprop_files import UserError
from impls import dtypes
from impls.architectures.layers import KINDS
from impls.architectures.problem import ArchitectureProblem, Objective
from impls.interface import PHASES, TRANSFERS, Backprop, Network, Problem
from impls.names import nearest
from impls.optimizers import NAMES as OPTIMIZERS
from impls.optimizers import USUAL as USUAL_OPTIMIZER

DTYPES = dtypes.NAMES
#: Those of libraries that know autocast, or cast by themselves.
MIXED = (*dtypes.PLAIN, "bfloat16", "float16")
SWEEPS = ("smoke", "quick", "full", "check")


@dataclass(frozen=True)
class Cost:
    """Rough seconds, only to plan with: what a cell may take before anything was measured."""

    step_s: float
    example_s: float = 0.0
    operation_s: float = 3e-11
    first_call_s: float = 0.0  # of each compiled function, in the first pass


@dataclass(frozen=True)
class Entry:
    """One implementation: where it lives and what it declares it can do."""

    name: str
    target: str  # module:Class, or path/to/file.py:Class
    summary: str
    requires: tuple[str, ...] = ("numpy",)
    extra: str = ""  # the extra of this package that brings what it requires
    programs: tuple[str, ...] = ()  # one of these must be on the path
    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = dtypes.PLAIN
    accelerator_dtypes: tuple[str, ...] = ()  # besides, on all devices but the CPU
    phases: tuple[str, ...] = ("step", *PHASES)
    transfers: tuple[str, ...] = ()  # of ``TRANSFERS``, those it has
    activations: tuple[str, ...] = ()  # empty: every one
    losses: tuple[str, ...] = ("mse", "cross_entropy")
    optimizers: tuple[str, ...] = OPTIMIZERS
    optimizers_require: tuple[str, ...] = ()  # modules for any but plain gradient descent
    architectures: str = ""  # module:Class that builds any architecture; empty: fully connected networks alone
    layer_kinds: tuple[str, ...] = KINDS  # of those that ``architectures`` can build
    sweeps: tuple[str, ...] = SWEEPS  # it is part of, unless implementations are named
    peer: bool = False
    slow: bool = False  # sweeps far smaller cells, to stay within the same time
    cost: Cost = Cost(2e-5)
    object_bytes: int = 0  # of a number that is a Python object; 0: numbers lie in arrays
    launched_by: str = ""  # data parallel (``DataParallel``): torchrun starts its ranks, or they are started one by one

    def missing(self) -> str | None:
        """Why it cannot run here, with the line that mends it; None if it can."""
        absent = [module for module in self.requires if importlib.util.find_spec(module) is None]
        if not absent:
            if not self.programs or any(map(shutil.which, self.programs)):
                return None
            return f"none of {', '.join(self.programs)} on the path: install a C++ compiler"
        wanted = f"-e '.[{self.extra}]'" if self.extra else " ".join(absent)  # the project is installed from its clone
        line = f"pip install -c constraints.txt {wanted}"
        return f"{', '.join(absent)} not installed: {line}"

    def dtypes_on(self, device: str) -> tuple[str, ...]:
        """Those it can compute in on a device such as ``cuda:1``."""
        return self.dtypes if device.partition(":")[0] == "cpu" else (*self.dtypes, *self.accelerator_dtypes)

    def cannot(self, network: Network, optimizer: str = USUAL_OPTIMIZER) -> str | None:
        """Why it cannot build this network, or train it with this optimizer; None if it can."""
        if self.activations and network.activation not in self.activations:
            return f"{self.name} has no activation '{network.activation}'"
        if network.loss not in self.losses:
            return f"{self.name} has no loss '{network.loss}'"
        return self.cannot_train_by(optimizer)

    def cannot_train_by(self, optimizer: str) -> str | None:
        """Why it cannot train with this optimizer here; None if it can."""
        if optimizer not in self.optimizers:
            return f"{self.name} has no optimizer '{optimizer}'"
        absent = [module for module in self.optimizers_require if importlib.util.find_spec(module) is None]
        if absent and optimizer != USUAL_OPTIMIZER:
            return f"{self.name} has '{optimizer}' from {', '.join(absent)}, which is not installed"
        return None

    def cannot_build(self, objective: Objective) -> str | None:
        """Why it cannot train these architectures; None if it can."""
        if not self.architectures:
            return f"{self.name} builds fully connected networks alone"
        absent = [kind for kind in objective.kinds if kind not in self.layer_kinds]
        return f"{self.name} has no layer '{absent[0]}'" if absent else None

    def load(self) -> type[Any]:
        """Import the implementation's class.  Raises UserError if there is none."""
        return self._load(self.target)

    def _load(self, target: str) -> type[Any]:
        module_name, _, class_name = target.rpartition(":")
        module = _import_file(Path(module_name)) if module_name.endswith(".py") else _import_module(module_name)
        found = getattr(module, class_name, None)
        if not isinstance(found, type):
            raise UserError(f"no class '{class_name}' in {module_name}")
        return found

    def prepare(
        self, problem: Problem | ArchitectureProblem, device: str = "cpu", dtype: str = "float32", threads: int = 1
    ) -> Backprop:
        """Build the implementation on a problem (untimed: casts, moves, synchronises).

        Raises UserError where it has none for architectures.
        """
        if isinstance(problem, ArchitectureProblem):
            if reason := self.cannot_build(problem.objective):
                raise UserError(reason)
            found = self._load(self.architectures)
        else:
            found = self.load()
        instance: Backprop = found(problem, device=device, dtype=dtype, threads=threads)
        return instance


ENTRIES = (
    Entry(
        "python",
        "impls.python_scalars:PythonScalars",
        "pure Python scalars; counts every operation",
        dtypes=("float64",),
        sweeps=("smoke", "full"),
        slow=True,
        cost=Cost(1e-5, operation_s=4e-8),
        object_bytes=32,  # a float, and the list's pointer to it
    ),
    Entry(
        "numpy-loop",
        "impls.numpy_loop:NumpyLoop",
        "NumPy, one example at a time, as textbooks write it",
        sweeps=("smoke", "full"),
        cost=Cost(2e-5, example_s=6e-5, operation_s=3e-10),
    ),
    Entry(
        "numpy",
        "impls.numpy_fast:NumpyFast",
        "NumPy by hand, nothing allocated in a step",
        requires=("numpy", "scipy"),
        architectures="impls.architectures.numpy_layers:NumpyLayers",
    ),
    Entry(
        "torch",
        "impls.torch_nn:TorchNN",
        "PyTorch: nn.Sequential, autograd, torch.optim",
        requires=("torch",),
        architectures="impls.architectures.torch_layers:TorchLayers",
        extra="torch",
        devices=("cpu", "cuda"),
        dtypes=MIXED,
        accelerator_dtypes=("tf32",),
        transfers=TRANSFERS,
        cost=Cost(4e-4, first_call_s=0.05),
    ),
    Entry(
        "torch-manual",
        "impls.torch_manual:TorchManual",
        "PyTorch operations by hand, no autograd",
        sweeps=("smoke", "full"),
        requires=("torch",),
        extra="torch",
        devices=("cpu", "cuda"),
        accelerator_dtypes=("tf32",),  # out= operations know no autocast
        cost=Cost(5e-5),
    ),
    Entry(
        "torch-compile",
        "impls.torch_compile:TorchCompile",
        "PyTorch under torch.compile",
        requires=("torch",),
        extra="torch",
        programs=("g++", "clang++", "c++"),
        devices=("cpu", "cuda"),
        dtypes=MIXED,
        accelerator_dtypes=("tf32",),
        sweeps=("full",),
        transfers=TRANSFERS,
        cost=Cost(3e-4, first_call_s=40.0),
    ),
    Entry(
        "torch-graph",
        "impls.torch_graph:TorchGraph",
        "PyTorch: the step captured as a CUDA graph",
        requires=("torch",),
        extra="torch",
        devices=("cuda",),
        dtypes=MIXED,
        accelerator_dtypes=("tf32",),
        phases=("step",),
        transfers=TRANSFERS,
        cost=Cost(1e-5, first_call_s=0.3),
    ),
    Entry(
        "torch-ddp",
        "impls.torch_ddp:TorchDDP",
        "PyTorch: DistributedDataParallel, rows split over ranks",
        requires=("torch",),
        extra="torch",
        devices=("cpu", "cuda"),
        sweeps=(),  # alone in a process it is torch with what DDP adds: the experiment parallel tells that at one rank
        cost=Cost(5e-4, first_call_s=0.05),
        launched_by="torchrun",
    ),
    Entry(
        "jax",
        "impls.jax_jit:JaxJit",
        "JAX: one jitted step, parameters donated; optax",
        requires=("jax",),
        optimizers_require=("optax",),
        architectures="impls.architectures.jax_layers:JaxLayers",
        extra="jax",
        devices=("cpu", "gpu"),
        dtypes=MIXED,
        accelerator_dtypes=("tf32",),
        transfers=TRANSFERS[:1],  # no pinned memory to be had
        cost=Cost(5e-5, first_call_s=0.15),
    ),
    Entry(
        "jax-sharded",
        "impls.jax_sharded:JaxSharded",
        "JAX: rows sharded over a mesh of devices",
        requires=("jax",),
        optimizers_require=("optax",),
        extra="jax",
        devices=("cpu", "gpu"),
        sweeps=(),
        cost=Cost(8e-5, first_call_s=0.2),
        launched_by="processes",
    ),
    Entry(
        "sklearn",
        "impls.sklearn_mlp:SklearnMLP",
        "peer: scikit-learn's MLP, partial_fit",
        requires=("sklearn",),
        extra="peers",
        phases=("step",),
        activations=("identity", "sigmoid", "tanh", "relu"),
        optimizers=("gradient-descent", "momentum", "nesterov"),
        peer=True,
        sweeps=("full",),
        cost=Cost(7e-4),
    ),
    Entry(
        "autograd",
        "impls.autograd_hips:AutogradHips",
        "peer: HIPS autograd over NumPy",
        requires=("autograd",),
        extra="peers",
        phases=("step",),
        peer=True,
        sweeps=("full",),
        cost=Cost(8e-4),
    ),
)

_REQUIRED_METHODS = ("step", "synchronize", "parameters", "loss_value")


def names() -> tuple[str, ...]:
    """Names of all registered implementations, in order."""
    return tuple(entry.name for entry in ENTRIES)


def find(name: str) -> Entry:
    """A registered implementation, or the user's own given as ``file.py:Class`` or ``package.module:Class``.

    Raises UserError for an unknown name, with the nearest known one.
    """
    if ":" in name:
        return own(name)
    for entry in ENTRIES:
        if entry.name == name:
            return entry
    raise UserError(nearest("implementation", name, names()))


def select(wanted: Iterable[str]) -> list[Entry]:
    """The entries of these names, each once.  Raises UserError for an unknown one."""
    return [find(name) for name in dict.fromkeys(wanted)]


def own(target: str) -> Entry:
    """A user's own implementation, which needs no import of ours.

    Optional class attributes ``devices``, ``dtypes``, ``activations``, ``losses`` and ``optimizers`` (tuples) say what it
    can do; only gradient descent unless it says more.
    Raises UserError if it cannot be imported or misses a method of the protocol.
    """
    path, _, class_name = target.rpartition(":")
    entry = Entry(
        class_name,
        f"{Path(path).resolve()}:{class_name}" if path.endswith(".py") else target,
        "your own",
        (),
        optimizers=(USUAL_OPTIMIZER,),
    )
    found = entry.load()
    absent = [method for method in _REQUIRED_METHODS if not callable(getattr(found, method, None))]
    if absent:
        raise UserError(f"{target} misses {', '.join(absent)}: see the Backprop protocol in impls/interface.py")
    whole = all(callable(getattr(found, method, None)) for method in (*PHASES, "gradients"))
    declared: dict[str, Any] = {
        field: tuple(getattr(found, field))
        for field in ("devices", "dtypes", "activations", "losses", "optimizers")
        if hasattr(found, field)
    }
    if callable(getattr(found, "transfer", None)):
        declared["transfers"] = TRANSFERS if getattr(found, "pins", False) else TRANSFERS[:1]
    return replace(entry, phases=("step", *PHASES) if whole else ("step",), **declared)


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"no file {path}: --impl wants path/to/file.py:Class or package.module:Class")
    name = f"own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _import_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"cannot import {name}: {error}; --impl wants path/to/file.py:Class or package.module:Class"
        ) from error
    except Exception as error:
        raise UserError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
