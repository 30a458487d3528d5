"""Devices that are not there, or cannot do what is asked, told in one line; settings of a process; transfers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backprop_files import UserError
from impls import registry
from impls.conformance import Expected, check_phases, check_step
from impls.interface import TRANSFERS, Network, Transfers
from impls.problem import make_problem
from impls.registry import Entry
from tests.test_conformance import available

TORCH = [e for e in registry.ENTRIES if "cuda" in e.devices]
TRANSFERRING = [e for e in registry.ENTRIES if e.name in ("torch", "torch-compile", "jax")]
PROBLEM = make_problem(Network((5, 7, 6, 4)), 11, seed=3, learning_rate=1.0)


def told_of(name: str, device: str, dtype: str = "float32") -> str:
    """What is said where the device cannot be had: one line."""
    with pytest.raises(UserError) as caught:
        available(registry.find(name)).prepare(PROBLEM, device, dtype)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- torch ----------------------------------------------------------------------------------------------------------


class Cuda:
    """A driver as torch would see it: the devices' names and compute capabilities, or what it says as it fails."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, devices: dict[str, tuple[int, int]] | None = None, fails: str = ""
    ) -> None:
        torch = pytest.importorskip("torch")
        self.names, self.capabilities = list(devices or {}), list((devices or {}).values())
        self.fails = fails
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
        monkeypatch.setattr(torch.cuda, "init", self.init)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(self.names))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: self.names[self.index(device)])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: self.capabilities[self.index(device)])

    @staticmethod
    def index(device: Any) -> int:
        """Of a device, or itself."""
        return device if isinstance(device, int) else device.index or 0

    def init(self) -> None:
        """As ``torch.cuda.init``."""
        if self.fails:
            raise RuntimeError(self.fails)


@pytest.mark.parametrize("entry", TORCH, ids=lambda e: e.name)
def test_a_build_for_the_cpu(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(UserError, match=r"device 'cuda' is absent: torch \S+ is the CPU build: pip install torch=="):
        entry.prepare(PROBLEM, "cuda")


@pytest.mark.parametrize(
    ("fails", "words"),
    [
        ("Found no NVIDIA driver on your system. Please check that …", "no NVIDIA driver is loaded on this machine"),
        (
            "The NVIDIA driver on your system is too old (found version 11040).\nPlease update your GPU driver …",
            "the NVIDIA driver is too old for torch",
        ),
        ("CUDA unknown error - this may be due to …\nmore", "CUDA does not start under torch"),
        ("", ""),
    ],
)
def test_a_driver_that_does_not_start(fails: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch, fails=fails)
    told = told_of("torch", "cuda")
    assert told.startswith("device 'cuda' is absent: ")
    assert words in told


def test_an_index_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch, {"NVIDIA H200": (9, 0), "NVIDIA T4": (7, 5)})
    told = told_of("torch", "cuda:2")
    assert told == "device 'cuda:2' is absent: torch sees cuda:0 NVIDIA H200, cuda:1 NVIDIA T4"


def test_all_devices_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch)
    assert "torch sees no CUDA device (CUDA_VISIBLE_DEVICES may hide it)" in told_of("torch", "cuda")


@pytest.mark.parametrize("dtype", ["tf32", "bfloat16"])
@pytest.mark.parametrize("name", ["torch", "torch-manual"])
def test_a_dtype_the_chip_has_not(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch, {"NVIDIA H200": (9, 0), "NVIDIA T4": (7, 5)})
    told = told_of(name, "cuda:1", dtype)
    assert told == f"dtype '{dtype}' needs compute capability 8.0 or newer: cuda:1 is a NVIDIA T4 with 7.5"


def test_a_device_that_torch_does_not_know() -> None:
    assert told_of("torch", "cudaa:0") == "device 'cudaa:0': torch knows cpu, cuda and cuda:i"


def test_instances_do_not_change_each_others_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each settles the process's one setting before it computes: float32 stays float32 beside tf32, in turns."""
    torch = pytest.importorskip("torch")
    from impls.torch_device import Precision

    Cuda(monkeypatch, {"NVIDIA H200": (9, 0)})
    device = torch.device("cuda", 0)
    full, tf32 = Precision("float32", device), Precision("tf32", device)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        for precision, products in ((full, "highest"), (tf32, "high"), (full, "highest"), (tf32, "high")):
            with precision.computing():
                assert torch.get_float32_matmul_precision() == products
                assert torch.backends.cudnn.allow_tf32 is (products == "high")
                assert torch.backends.cuda.matmul.allow_tf32 is (products == "high")
            full.settle()
            precision.settle()  # what a backward pass does
            assert torch.get_float32_matmul_precision() == products
        for dtype in ("bfloat16", "float16", "float64"):  # what they keep in float32 is not in TF32 either
            tf32.settle()
            Precision(dtype, device).settle()
            assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("name", ["torch", "torch-manual"])
def test_every_pass_settles_the_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from impls import torch_device

    settled: list[str] = []
    instance: Any = registry.find(name).prepare(PROBLEM)
    monkeypatch.setattr(torch_device.Precision, "settle", lambda self: settled.append("now"))
    for call in (instance.forward, instance.loss, instance.backward, instance.update, instance.step):
        settled.clear()
        call()
        # torch-manual's loss and every update multiply no matrices
        exempt = call == instance.update or (name == "torch-manual" and call == instance.loss)
        assert bool(settled) is not exempt
    settled.clear()
    instance.epoch(np.arange(11), 4)
    assert settled


def test_nothing_is_settled_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from impls import torch_device

    monkeypatch.setattr(torch_device, "products_in_tf32", lambda wanted: pytest.fail("the setting is not the CPU's"))
    check_step(registry.find("torch").prepare(PROBLEM), Expected.of(PROBLEM, "float32"))


# --- JAX ------------------------------------------------------------------------------------------------------------


class Gpu(SimpleNamespace):
    """A device as JAX shows it."""

    def __str__(self) -> str:
        return f"cuda:{self.id}"


def gpu(capability: str, number: int = 0) -> Any:
    """One of this compute capability."""
    return Gpu(id=number, platform="gpu", compute_capability=capability, device_kind="a card")


def jax_with(monkeypatch: pytest.MonkeyPatch, devices: list[Any] | str, plugin: bool = True, driver: str = "/") -> None:
    """JAX with these devices on the platform ``gpu``, or with what it says as there are none."""
    jax = pytest.importorskip("jax")
    from pathlib import Path

    from impls import jax_jit

    cpus = jax.devices("cpu")

    def found(platform: str | None = None) -> list[Any]:
        if platform in (None, "cpu"):
            return list(cpus)
        if isinstance(devices, str):
            raise RuntimeError(devices)
        return devices

    monkeypatch.setattr(jax, "devices", found)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: "there" if plugin else None)
    monkeypatch.setattr(jax_jit, "DRIVER", Path(driver))


UNKNOWN = "Unknown backend: 'gpu' requested, but no platforms that are instances of gpu are present.\nPlatforms: cpu"


@pytest.mark.parametrize(
    ("plugin", "driver", "words"),
    [
        (False, "/", "this JAX drives the CPU only: pip install 'jax[cuda12]'"),
        (True, "/nowhere", "no NVIDIA driver is loaded on this machine"),
        (True, "/", "its CUDA plugin does not start (Unknown backend: 'gpu' requested"),
    ],
)
def test_jax_without_a_gpu(plugin: bool, driver: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = available(registry.find("jax"))
    jax_with(monkeypatch, UNKNOWN, plugin, driver)
    with pytest.raises(UserError) as caught:
        entry.load()(PROBLEM, device="gpu")
    assert str(caught.value).startswith("device 'gpu' is absent: JAX sees ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_jax_with_too_few_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = available(registry.find("jax"))
    jax_with(monkeypatch, [gpu("9.0"), gpu("7.5", 1)])
    with pytest.raises(UserError, match="device 'gpu:2' is absent: JAX sees cuda:0, cuda:1"):
        entry.load()(PROBLEM, device="gpu:2")
    with pytest.raises(UserError, match=r"dtype 'tf32' needs compute capability 8.0 or newer: cuda:1 is a a card with"):
        entry.load()(PROBLEM, device="gpu:1", dtype="tf32")


def test_jax_takes_products_as_they_are_named() -> None:
    """TF32 is what JAX takes float32's products in on a GPU unless it is told; all of a step's products carry the wish."""
    jax = pytest.importorskip("jax")
    from impls import jax_jit

    precisions = {dtype: jax_jit.Precision.of(dtype, gpu("9.0")) for dtype in registry.DTYPES}
    assert {dtype: p.products for dtype, p in precisions.items()} == {
        "float32": "float32", "float64": None, "tf32": "tensorfloat32", "bfloat16": None, "float16": None
    }  # fmt: skip
    arguments = (
        [p.astype("float32") for p in PROBLEM.parameters],
        *(a.astype("float32") for a in (PROBLEM.inputs, PROBLEM.targets)),
    )
    for dtype, wish in (("float32", "HIGHEST"), ("tf32", "HIGH"), ("bfloat16", "DEFAULT")):
        made = jax_jit.compiled(PROBLEM.network, "gradient-descent", 1.0, precisions[dtype])
        lines = [line for line in made.step.lower(*arguments).as_text().splitlines() if "dot_general" in line]
        assert len(lines) == 8  # three layers: three products forward, five backward
        if wish == "DEFAULT":
            assert all("bf16" in line and "f32>" not in line for line in lines)
        else:
            assert all(("HIGHEST" in line) is (wish == "HIGHEST") for line in lines), lines
    assert jax.config.jax_default_matmul_precision is None  # nothing is left behind in the process


# --- transfers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("entry", TRANSFERRING, ids=lambda e: e.name)
def test_a_batch_comes_again_as_it_was(entry: Entry, pinned: bool) -> None:
    instance: Any = available(entry).prepare(PROBLEM)
    is_transfers = isinstance(instance, Transfers)
    assert is_transfers
    assert instance.pins is (entry.name != "jax")
    instance.transfer(pinned)
    instance.synchronize()
    if entry.name == "torch-compile":
        check_step(instance, Expected.of(PROBLEM, "float32"))
        return
    check_phases(instance, Expected.of(PROBLEM, "float32"))


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_torch_copies_into_the_buffers_the_step_reads(loss: str) -> None:
    problem = make_problem(Network((5, 7, 4), loss=loss), 9, seed=1)
    instance: Any = available(registry.find("torch")).prepare(problem, dtype="bfloat16")
    inputs, targets = instance.inputs, instance.targets
    kept, places = inputs.clone(), (inputs.data_ptr(), targets.data_ptr())
    instance.transfer(False)  # makes the copies in host memory
    assert instance.host.pageable[0].data_ptr() != inputs.data_ptr()
    inputs.zero_()
    instance.transfer(True)
    assert (instance.inputs.data_ptr(), instance.targets.data_ptr()) == places
    assert bool((instance.inputs == kept).all())


def test_jax_has_fresh_arrays_and_compiles_nothing_anew() -> None:
    instance: Any = available(registry.find("jax")).prepare(PROBLEM)
    instance.step()
    before = instance._compiled.step._cache_size()
    x, kept = instance.x, np.array(instance.x)
    instance.transfer(False)
    assert instance.x is not x
    np.testing.assert_array_equal(np.array(instance.x), kept)
    instance.step()
    instance.synchronize()
    assert instance._compiled.step._cache_size() == before


def test_transfers_are_no_part_of_a_step() -> None:
    from impls.interface import PHASES

    assert TRANSFERS == ("transfer", "transfer-pinned")
    assert not set(TRANSFERS) & set(PHASES)


# --- where there is one -----------------------------------------------------------------------------------------------


def on_a_device(entry: Entry) -> str:
    """Its accelerator, or a skip with the reason."""
    if entry.missing():
        pytest.skip(str(entry.missing()))
    device = entry.devices[-1]
    try:
        entry.prepare(PROBLEM, device)
    except UserError as error:
        pytest.skip(str(error))
    return device


@pytest.mark.parametrize("entry", [e for e in registry.ENTRIES if e.devices != ("cpu",)], ids=lambda e: e.name)
@pytest.mark.parametrize("dtype", registry.DTYPES)
def test_agrees_on_the_device(entry: Entry, dtype: str) -> None:
    device = on_a_device(entry)
    if dtype not in entry.dtypes_on(device):
        pytest.skip(f"{entry.name} has no {dtype}")
    for network in (Network((64, 96, 96, 10), "tanh"), Network((64, 96, 10), "horner-4", "cross_entropy")):
        problem = make_problem(network, 70, seed=3, learning_rate=1.0)
        expected = Expected.of(problem, dtype)
        if "backward" in entry.phases:
            check_phases(entry.prepare(problem, device, dtype), expected)
        instance: Any = entry.prepare(problem, device, dtype)
        if isinstance(instance, Transfers):
            for pinned in (False, True):
                instance.transfer(pinned)
        check_step(instance, expected)


@pytest.mark.parametrize("name", ["torch", "torch-manual", "jax"])
def test_float32_and_tf32_take_turns_on_the_device(name: str) -> None:
    entry = registry.find(name)
    device = on_a_device(entry)
    problem = make_problem(Network((64, 256, 256, 10)), 256, seed=3, learning_rate=1.0)
    made = {dtype: entry.prepare(problem, device, dtype) for dtype in ("tf32", "float32")}
    errors = {}
    for instance in made.values():
        instance.forward()
    for dtype, instance in made.items():
        instance.loss()
        instance.backward()
        errors[dtype] = Expected.of(problem, dtype).check_gradients(instance.gradients())
    assert errors["float32"] < 1e-5 < 1e-4 < errors["tf32"]
