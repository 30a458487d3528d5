"""The process that measures: one implementation, one pass, pinned before any library is imported.

It reads one JSON request a line from standard input and answers each with one JSON line on the descriptor it was
given.  Whatever the libraries print goes to the log, never into the answers.

Requests: ``{"op": "start", ...}`` first; then ``prepare`` for a point, which stays prepared under its key, ``visit`` to
time it for a while or ``turn`` to time one round, and ``release`` to let all points go.  ``check`` holds the
implementation to the reference on small problems, ``ceilings`` measures the machine's ceilings once more,
``files`` names all that was imported, ``experiment`` does one task of ``bench.experiments``, ``train`` a whole training run.
Answers: ``{"ok": true, ...}``, or ``{"ok": false, "kind": "mismatch"|"memory"|"error", "reason": "..."}``.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import math
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from backprop_files import USUAL_OPTIMIZER

#: Of ``prctl``: which signal a process gets when its parent ends.
PR_SET_PDEATHSIG = 1


def main(answers: int) -> None:
    """Serve requests until standard input closes."""
    if hasattr(os, "sched_setaffinity"):
        cpus = json.loads(os.environ.get("BACKPROP_BENCH_CPUS", "[]"))
        if cpus:
            with contextlib.suppress(OSError):  # a container may forbid it; the start answer says what holds
                os.sched_setaffinity(0, cpus)
    _offer_to_the_oom_killer()
    _end_with_the_parent()
    worker: Worker | None = None
    with os.fdopen(answers, "w") as out:
        for line in sys.stdin:
            request = json.loads(line)
            if request["op"] == "start":
                worker = None  # what an earlier one held goes first
            answer, worker = _answered(worker, request)
            if answer.get("kind") == "memory" and worker is not None:
                worker.let_go(request.get("key"))
            out.write(json.dumps(answer) + "\n")
            out.flush()


def _answered(worker: Worker | None, request: dict[str, Any]) -> tuple[dict[str, Any], Worker | None]:
    """The answer, and the worker that gave it.  No frame of what failed is left: arrays that it held can be let go."""
    try:
        if request["op"] == "start":
            worker = Worker(request)
            answer = worker.started()
        elif worker is not None:
            answer = worker.answer(request)
        return answer | {"ok": True}, worker
    except MemoryError:
        return {"ok": False, "kind": "memory", "reason": "out of memory"}, worker
    except Exception as error:
        return {"ok": False, "kind": _kind(error), "reason": _one_line(error)}, worker


def _kind(error: Exception) -> str:
    name = type(error).__name__
    if name == "Mismatch":
        return "mismatch"
    # torch has a class of its own for it, XLA a word, and CUDA's own errors come as plain runtime errors
    words = ("RESOURCE_EXHAUSTED", "out of memory")
    return "memory" if "OutOfMemory" in name or any(word in str(error) for word in words) else "error"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:400]
    return text if type(error).__name__ in ("Mismatch", "UserError") else f"{type(error).__name__}: {text}"


def _offer_to_the_oom_killer() -> None:
    """If memory runs out, this process goes, not the one that holds the results."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")


def _end_with_the_parent() -> None:
    """Where whoever asks is killed outright, the system ends this process at once, amid whatever it is timing."""
    with contextlib.suppress(OSError, AttributeError):  # Linux alone; elsewhere it ends with its standard input
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Prepared:
    """A point held against the reference, ready to be visited."""

    rotation: Any  # the problem's copies
    phases: list[str]
    loops: dict[str, Any] = field(default_factory=dict)  # "step", "phases", "transfer", "transfer-pinned"
    started_at: dict[str, float] = field(default_factory=dict)  # first visit of each loop


class Worker:
    """One implementation on one device, ready to measure points."""

    def __init__(self, request: dict[str, Any]) -> None:
        from impls import registry

        self.device, self.dtype, self.threads = request["device"], request["dtype"], request["threads"]
        self.seed, self.data = request["seed"], request["data"]
        self.entry = registry.find(request["impl"])
        self.entry.load()  # import the library now, before threads are read back
        from bench import ceilings, device_clock, device_watch, reference_kernel
        from bench.quiet import Quiet

        self.measure_ceilings = ceilings.measure
        self.ceilings: dict[str, float | None] = {}
        if request.get("ceilings", True):
            self.ceilings = self.measure_ceilings(self.device, self.dtype) | {
                "call_floor_s": ceilings.call_floor(device=self.device)
            }
        self.synchronizes = False  # until it was seen to
        self.prepared: dict[int, Prepared] = {}
        self.held: set[Any] = set()  # what tasks of experiments have checked
        library = self.entry.requires[0] if self.entry.requires else ceilings.library_of(self.device)
        self.reference = reference_kernel.make(self.device, library, request["kernels"])
        self.clock = device_clock.clock_for(self.device, library)
        self.watch = device_watch.watch_for(self.device)
        self.quiet = Quiet(self.reference, request.get("quiet_level"))

        self._rehearse()

    def _rehearse(self) -> None:
        """One step of a small problem: libraries finish loading at their first use, which is no cell's cost."""
        from impls.interface import Network
        from impls.problem import make_problem

        activation = (self.entry.activations or ("tanh",))[0]
        with contextlib.suppress(Exception):  # what is wrong shows in the cells, with its reason
            instance = self._prepare(make_problem(Network((5, 7, 4), activation), 3, self.seed))
            instance.step()
            instance.synchronize()

    def started(self) -> dict[str, Any]:
        """What holds in this process: threads as every library sees them, affinity, ceilings."""
        return {"threads_seen": threads_seen(), "ceilings": self.ceilings}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        if request["op"] == "ceilings":
            return {"ceilings": self.measure_ceilings(self.device, self.dtype)}
        if request["op"] == "files":
            loaded = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
            return {"files": [str(path) for path in loaded if path]}
        if request["op"] == "release":
            self.prepared.clear()
            return {"quiet_level": self._quiet_level()}
        if request["op"] == "experiment":
            return self.experiment(request)
        if request["op"] == "train":
            return self.train(request)
        if request["op"] in ("visit", "turn"):
            return self.visit(request)
        return self.prepare(request) if request["op"] == "prepare" else self.check(request)

    def prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        """Prepare a point and hold it against the reference; answers first calls, and memory if asked to trace it."""
        from bench import memory, repeated
        from impls.interface import PHASES, TRANSFERS, Network
        from impls.problem import make_problem

        gc.collect()  # what the last point left; while timing, collection is off
        network = Network(tuple(request["layers"]), request["activation"], request["loss"])
        distinct = repeated.distinct(network, request["n"], self.device)
        few = make_problem(network, distinct, self.seed, self.data, **_trained_by(request))
        problem = repeated.problem(few, request["n"])
        expected = repeated.expected(few, problem, self.dtype)
        instance = self._prepare(problem)
        first: dict[str, float] = {}
        for phase in TRANSFERS:  # before all else: what they bring is held to the reference
            if phase in request["phases"]:
                bring = partial(instance.transfer, phase == TRANSFERS[1])
                first[phase] = _timed(lambda bring=bring: (bring(), instance.synchronize()))
        if set(request["phases"]) & set(PHASES):
            first |= _check_phases(instance, expected)
        first["step"] = _timed(lambda: (instance.step(), instance.synchronize()))
        expected.check_loss(instance.loss_value())
        expected.check_step(instance.parameters())
        if "update" in request["phases"] and request.get("optimizer", USUAL_OPTIMIZER) != USUAL_OPTIMIZER:
            # a step more for the parameters, but compilers see it for the first time
            first["update"] = _timed(lambda: (instance.update(), instance.synchronize()))
        self._check_synchronize(problem)
        if not gc.get_freeze_count():
            gc.freeze()  # all that the library has loaded by now need not be walked again between cells
        start = time.perf_counter()
        peak = memory.Peak()
        if request.get("trace"):
            peak = memory.peak(self.entry, self.device, instance, lambda: self._prepare(problem))
        traced_s = time.perf_counter() - start
        rotation = self._rotation(instance, request.get("input_sets", 1), problem)
        self.prepared[request["key"]] = self._with_loops(rotation, request["phases"])
        told = peak._asdict() | {"input_sets": len(rotation.instances)}
        phases = {phase: {"first_call_s": first[phase]} | told for phase in request["phases"]}
        for phase in phases.keys() & set(TRANSFERS):  # no step: its memory and its copies are none of theirs
            moved = {"transfer_bytes": _transfer_bytes(instance, problem, self.dtype)}
            phases[phase] |= memory.Peak()._asdict() | {"input_sets": 1} | moved
        return {"phases": phases, "traced_s": traced_s}

    def _rotation(self, instance: Any, wanted: int, problem: Any) -> Any:
        from bench import rotation

        return rotation.Rotation(rotation.copies(instance, wanted, lambda: self._prepare(problem)))

    def _with_loops(self, rotation: Any, phases: list[str]) -> Prepared:
        from impls.interface import PHASES, TRANSFERS

        prepared, instance = Prepared(rotation, phases), rotation.instances[0]
        if "step" in phases:
            prepared.loops["step"] = self._loop([rotation.call("step")], rotation.waiting)
        if set(phases) & set(PHASES):
            prepared.loops["phases"] = self._loop([rotation.call(phase) for phase in PHASES], rotation.waiting)
        for phase in TRANSFERS:
            if phase in phases:
                call = partial(instance.transfer, phase == TRANSFERS[1])
                prepared.loops[phase] = self._loop([call], instance.synchronize)
        return prepared

    def _loop(self, calls: list[Any], synchronize: Any) -> Any:
        from bench.timing import Loop

        return Loop(calls, synchronize, self.reference, self.quiet, self.clock, self.watch)

    def let_go(self, key: int | None) -> None:
        """After a cell that found no memory: what it held is no more, and the device has it back for the next cells."""
        if key is not None:
            self.prepared.pop(key, None)
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def visit(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time every loop of a prepared point, for a while or for one turn; answers rounds by phase."""
        from impls.interface import PHASES

        prepared = self.prepared[request["key"]]
        found: dict[str, dict[str, Any]] = {}
        for name, loop in prepared.loops.items():
            started_at = prepared.started_at.setdefault(name, time.time())
            if request["op"] == "turn":
                rounds = loop.turn(request["patience_s"])
            else:
                rounds = loop.visit(request["seconds"], request["patience_s"])
            names = PHASES if name == "phases" else (name,)
            found |= {
                phase: vars(r) | {"started_at": started_at}
                for phase, r in zip(names, rounds, strict=True)
                if phase in prepared.phases
            }
        for instance in prepared.rotation.instances:
            _check_finite(instance)
        return {"phases": found}

    def experiment(self, request: dict[str, Any]) -> dict[str, Any]:
        """One task of an experiment; answers its rows."""
        from bench import experiments

        gc.collect()
        measure = experiments.find(request["name"]).measure
        assert measure is not None  # experiments that start processes of their own are not asked of a worker
        rows = measure(self._workbench(), request["arguments"])
        return {"rows": rows, "quiet_level": self._quiet_level()}

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """All epochs in a row from the start, on the clock; answers the rows of the start and of the end, or none where
        the implementation cannot go through batches.
        """
        from bench.experiments import training
        from impls.interface import Network
        from impls.problem import make_problem

        if not callable(getattr(self.entry.load(), "epoch", None)):
            return {"rows": []}
        gc.collect()
        network = Network(tuple(request["layers"]), request["activation"], request["loss"])
        problem = make_problem(network, request["n"], self.seed, request["data"], request["learning_rate"])
        schedule = training.Schedule(request["batch"], request["epochs"], self.seed, (request["epochs"],))
        rows = training.train(self._workbench(), problem, schedule, training.losses(problem), lambda seen: False)
        return {"rows": rows}

    def _workbench(self) -> Any:
        from bench.experiments.workbench import Workbench

        return Workbench(
            self.entry, self.device, self.dtype, self.threads, self.seed, self.reference, self.quiet, self.held
        )

    def check(self, request: dict[str, Any]) -> dict[str, Any]:
        """Hold the implementation to the reference on small problems, before anything is timed."""
        from impls import activations, conformance
        from impls.interface import PHASES, Network
        from impls.problem import make_problem

        for loss in self.entry.losses:
            for activation in self.entry.activations or activations.PLAIN_NAMES:
                # a learning rate of 1 makes the step's move as large as the gradient: nothing hides in rounding
                problem = make_problem(Network((5, 7, 6, 4), activation, loss), 9, self.seed, learning_rate=1.0)
                expected = conformance.Expected.of(problem, self.dtype)
                if set(PHASES) <= set(self.entry.phases):
                    conformance.check_phases(self._prepare(problem), expected)
                conformance.check_step(self._prepare(problem), expected)
        for optimizer in self.entry.optimizers:
            if not self.entry.cannot_train_by(optimizer):
                self._check_optimizer(optimizer)
        self._check_synchronize(problem)
        return {}

    def _check_optimizer(self, name: str) -> None:
        """What is kept from step to step shows only after several."""
        from impls import conformance

        activation = (self.entry.activations or ("tanh",))[0]
        problem = conformance.bold_problem(name, activation, self.entry.losses[0], self.seed)
        conformance.check_steps(self._prepare(problem), conformance.Expected.of(problem, self.dtype))

    def _check_synchronize(self, problem: Any) -> None:
        """Once a process, on an instance of its own, since it takes steps."""
        from bench import sync_check
        from impls.conformance import Mismatch

        if self.synchronizes:
            return
        share = sync_check.left_over(self._prepare(problem))
        if share > sync_check.LEFT_OVER:
            raise Mismatch(f"synchronize returned before the work was done: {share:.0%} of it was left")
        self.synchronizes = True

    def _quiet_level(self) -> float | None:
        return self.quiet.level if math.isfinite(self.quiet.level) else None

    def _prepare(self, problem: Any) -> Any:
        return self.entry.prepare(problem, self.device, self.dtype, self.threads)


def _trained_by(request: dict[str, Any]) -> dict[str, Any]:
    """The argument of ``make_problem`` that names an optimizer; none for the usual one, which older code knows alone."""
    optimizer = request.get("optimizer", USUAL_OPTIMIZER)
    return {} if optimizer == USUAL_OPTIMIZER else {"optimizer": optimizer}


def _transfer_bytes(instance: Any, problem: Any, dtype: str) -> int:
    """What one transfer moves: as the implementation tells it, else inputs and targets as they are stored."""
    from impls import dtypes

    told = getattr(instance, "transfer_bytes", None)
    if told is not None:
        return int(told() if callable(told) else told)
    return int(problem.inputs.size + problem.targets.size) * dtypes.find(dtype).stored_itemsize


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _check_phases(instance: Any, expected: Any) -> dict[str, float]:
    """First call of every phase, timed (this is where compilers compile), and its results held to the reference.

    The update is called only after the step's own check: the parameters must still be those of the start.
    """
    from impls.conformance import Mismatch

    first = {}
    for phase in ("forward", "loss", "backward"):
        first[phase] = _timed(lambda phase=phase: (getattr(instance, phase)(), instance.synchronize()))
    expected.check_loss(instance.loss_value())
    expected.check_gradients(instance.gradients())
    # plain gradient descent's update compiles in no time worth a number of its own
    first["update"] = 0.0
    if not instance.gradients():
        raise Mismatch("backward left no gradients")
    return first


def _check_finite(instance: Any) -> None:
    """After thousands of steps on one batch the loss must still be a number."""
    from impls.conformance import Mismatch

    if not math.isfinite(instance.loss_value()):
        raise Mismatch("the loss is no longer finite after the timed steps")


def threads_seen() -> dict[str, Any]:
    """Threads as every library loaded here sees them, and the affinity that holds."""
    from bench import machine

    seen: dict[str, Any] = {"affinity": machine.affinity(), "pools": machine.blas()}
    if "torch" in sys.modules:
        seen["torch"] = sys.modules["torch"].get_num_threads()
    if "jax" in sys.modules:
        seen["jax"] = [str(device) for device in sys.modules["jax"].devices()]
    return seen


if __name__ == "__main__":
    main(int(sys.argv[1]))
