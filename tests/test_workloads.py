"""Workloads as data: what they build has the parameters and costs what was reckoned by hand; their laws can be read."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from analysis import expressions
from backprop_files import UserError
from impls import registry
from impls.architectures import conformance, layers, numpy_chain, numpy_layers, reference, workloads
from impls.architectures.layers import Activation, Architecture, Dense
from impls.architectures.problem import Supervised, make_problem
from impls.architectures.workloads import NAMES, PROFILES, Sizes, Workload
from impls.conformance import Mismatch

GUIDE = Path(__file__).parents[1] / "docs" / "architectures.md"


def every_size(workload: Workload) -> list[Sizes]:
    return [point.sizes for point in workload.points("full")]


# --- by hand, as a textbook would, without a look at the layers ---------------------------------------------------------


def dense(*units: int) -> tuple[int, int]:
    """Weights, and weights and biases."""
    pairs = list(pairwise(units))
    weights = sum(a * b for a, b in pairs)
    return weights, weights + sum(units[1:])


Counted = tuple[int, int, int, int]  # m; weights used, forward; products without weights, forward; products in a step


def mlp(z: Sizes) -> Counted:
    w, m = dense(z["inputs"], *[z["width"]] * z["hidden"], z["outputs"])
    return m, w, 0, 3 * w - z["inputs"] * z["width"]


def autoencoder(z: Sizes) -> Counted:
    side = [z["width"]] * z["hidden"]
    w, m = dense(z["inputs"], *side, z["code"], *side, z["inputs"])
    return m, w, 0, 3 * w - z["inputs"] * z["width"]


def cnn(z: Sizes) -> Counted:
    c, k, a = z["channels"], z["kernel"] ** 2, z["inputs"]
    first, second, last = c * a * k, 2 * c * c * k, 8 * c * z["outputs"]
    used = first * z["side"] ** 2 + second * (z["side"] // 2) ** 2 + last
    return first + c + second + 2 * c + last + z["outputs"], used, 0, 3 * used - first * z["side"] ** 2


def recurrent(gates: int) -> Callable[[Sizes], Counted]:
    def counted(z: Sizes) -> Counted:
        u, v, e = z["units"], z["vocabulary"], z["width"]
        inner = gates * u * (e + u)
        used = z["T"] * (inner + u * v)
        # the first step starts from a state of zeros, which wants no gradient; the embedding below wants one
        return v * e + inner + 2 * gates * u + u * v + v, used, 0, 3 * used - gates * u * u

    return counted


def transformer(z: Sizes) -> Counted:
    s, d, v, blocks = z["s"], z["d"], z["vocabulary"], z["blocks"]
    in_block = 12 * d * d + 13 * d  # 4 d² + 4 d of attention, 8 d² + 5 d of dense layers, 4 d of two norms
    used = s * (12 * d * d * blocks + d * v)
    pairs = 2 * s * s * d * blocks
    return v * d + s * d + blocks * in_block + 2 * d + d * v + v, used, pairs, 3 * (used + pairs)


def gan(z: Sizes) -> Counted:
    side = [z["width"]] * z["hidden"]
    g, m_g = dense(z["noise"], *side, z["outputs"])
    d, m_d = dense(z["outputs"], *side, 1)
    of_g = 3 * g - z["noise"] * z["width"]
    of_d = 2 * (3 * d - z["outputs"] * z["width"]) + 2 * d  # real, false, and through it without its own gradients
    return m_g + m_d, g + 3 * d, 0, of_g + of_d


def dqn(z: Sizes) -> Counted:
    w, m = dense(z["inputs"], *[z["width"]] * z["hidden"], z["actions"])
    return m, 2 * w, 0, 4 * w - z["inputs"] * z["width"]


def policy_gradient(z: Sizes) -> Counted:
    w, m = dense(z["inputs"], *[z["width"]] * z["hidden"], z["actions"])
    return m, w, 0, 3 * w - z["inputs"] * z["width"]


BY_HAND: Mapping[str, Callable[[Sizes], Counted]] = {
    "mlp": mlp,
    "autoencoder": autoencoder,
    "cnn": cnn,
    "rnn": recurrent(1),
    "lstm": recurrent(4),
    "transformer": transformer,
    "gan": gan,
    "dqn": dqn,
    "policy_gradient": policy_gradient,
}


def test_names_are_those_of_the_files() -> None:
    assert set(BY_HAND) == set(NAMES)
    assert [workloads.find(name).name for name in NAMES] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_counts_at_every_size(name: str) -> None:
    workload = workloads.find(name)
    for sizes in every_size(workload):
        found = workload.columns(sizes)
        counted = tuple(found[key] for key in ("m", "multiply_adds", "without_weights", "products"))
        assert counted == BY_HAND[name](sizes), sizes


def test_own_variables_say_what_they_claim() -> None:
    z = workloads.find("transformer").at(s=48, blocks=3)
    found = workloads.find("transformer").columns(z)
    assert found["multiply_adds"] == z["s"] * found["weights"]
    assert found["without_weights"] == 2 * found["blocks"] * found["s"] ** 2 * found["d"]
    for name in ("rnn", "lstm"):
        found = workloads.find(name).columns(workloads.find(name).at(T=7, units=24))
        assert found["multiply_adds"] == found["T"] * found["weights"]
    found = workloads.find("cnn").columns(workloads.find("cnn").at(side=12, kernel=5))
    assert found["positions"] == 144
    assert found["patches"] == 144 * 3 * 25 + 36 * 16 * 25
    for name in ("mlp", "autoencoder", "gan", "dqn", "policy_gradient"):
        found = workloads.find(name).columns(workloads.find(name).middle)
        half = found["u"] // 2
        passes = {"dqn": 2 * found["u"], "gan": half + 3 * half}  # its copy evaluates as many; D is gone through thrice
        assert found["evaluations"] == passes.get(name, found["u"])


#: Small enough for a reference of complex numbers; a size that is not here is 3.
SMALL = {"width": 6, "hidden": 2, "inputs": 5, "code": 2, "side": 8, "channels": 2, "T": 4, "units": 5, "vocabulary": 7}
SMALL |= {"s": 5, "d": 8, "heads": 2, "blocks": 2, "noise": 2}


@pytest.mark.parametrize(
    "entry", [entry for entry in registry.ENTRIES if entry.architectures], ids=lambda e: str(e.name)
)
@pytest.mark.parametrize("name", NAMES)
def test_every_workload_conforms_in_every_library(name: str, entry: registry.Entry) -> None:
    if reason := entry.missing():
        pytest.skip(reason)
    workload = workloads.find(name)
    sizes = {size: SMALL.get(size, 3) for size in workload.middle}
    problem = make_problem(workload.objective(sizes), sizes["n"], learning_rate=0.1)
    conformance.check(entry.prepare(problem, dtype="float64"), problem, "float64")


def test_kept_counts_what_layers_put_out() -> None:
    z = workloads.find("mlp").at(hidden=1, width=32)
    assert workloads.kept(workloads.find("mlp").objective(z)) == 32 + 32 + 10
    z = workloads.find("rnn").at(T=5, units=8, width=4, vocabulary=6)
    assert workloads.kept(workloads.find("rnn").objective(z)) == 5 * (4 + 8 + 6)


@pytest.mark.parametrize("name", NAMES)
def test_laws_are_arithmetic_over_the_columns(name: str) -> None:
    workload = workloads.find(name)
    known = [*workload.columns(workload.middle), *workloads.MACHINE]
    laws = workload.laws
    assert [law.name for law in laws] == ["n·m·p", *filter(None, [workload.plain]), "reuse", "own"]
    for terms in [*(law.terms for law in laws), workload.memory_law]:
        assert len(set(terms)) == len(terms)
        for term in terms:
            expressions.parse(term, name, known)
    for axis in workload.axes:
        expressions.parse(axis.variable, name, known)
        assert axis.size in workload.middle


@pytest.mark.parametrize("name", NAMES)
def test_laws_can_be_told_apart_by_the_points(name: str) -> None:
    """No term of a law is a mixture of its others at the sizes that are fitted, and there are points enough."""
    workload = workloads.find(name)
    rows = [workload.columns(point.sizes) for point in workload.points("quick") if not point.heldout]
    columns = {key: np.array([row[key] for row in rows], float) for key in rows[0]}
    columns |= {"itemsize": np.full(len(rows), 4.0), "L2": np.full(len(rows), 2.0**20)}
    for terms in (workload.law, workload.memory_law):
        design = np.column_stack([expressions.parse(term, name, columns)(columns) for term in terms])
        relative = design / design.max(axis=0)
        assert np.linalg.cond(relative) < 1e3, terms
        assert len(rows) >= len(terms) + 3


@pytest.mark.parametrize("name", NAMES)
def test_held_out_sizes_are_more_work_than_any_that_is_fitted(name: str) -> None:
    workload = workloads.find(name)

    def work(sizes: Sizes) -> int:
        return workload.columns(sizes)["products"] * sizes["n"]

    for profile in ("quick", "full"):
        points = workload.points(profile)
        fitted = [work(point.sizes) for point in points if not point.heldout]
        unseen = [work(point.sizes) for point in points if point.heldout]
        assert len(unseen) >= 3
        # lstm: T needs as much memory as a workspace may have before torch's steps are past its overhead
        least = 1.0 if profile == "full" else 1.05 if name == "lstm" else 1.4
        assert min(unseen) > max(fitted) * least


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", NAMES)
def test_points_lie_on_their_axes_each_once(name: str, profile: str) -> None:
    workload = workloads.find(name)
    points = workload.points(profile)
    assert points[0].sizes == workload.middle
    assert len({tuple(point.sizes.values()) for point in points}) == len(points)
    for axis in workload.axes:
        values = axis.full if profile == "full" else axis.quick if profile == "quick" else axis.quick[:1]
        on = [point.sizes for point in points if axis.name in point.axes]
        assert sorted(sizes[axis.size] for sizes in on) == sorted(values)
        others = workload.at(**axis.base)
        assert all(sizes[key] == others[key] for sizes in on for key in others if key != axis.size)
    assert any(point.heldout for point in points) == (profile != "smoke")


def test_the_transformer_is_swept_to_where_pairs_of_positions_outweigh_weights() -> None:
    workload = workloads.find("transformer")
    (axis,) = [axis for axis in workload.axes if axis.name == "positions"]
    long = [s for s in axis.quick if s >= 512]
    assert len(long) >= 3
    found = workload.columns(workload.at(**axis.base, s=max(long)))
    assert found["without_weights"] > found["multiply_adds"]


# --- bad input ----------------------------------------------------------------------------------------------------------


def test_names_have_hyphens_or_underscores() -> None:
    assert workloads.find("policy-gradient") is workloads.find("policy_gradient")


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown architecture 'transfomer': did you mean 'transformer'"):
        workloads.find("transfomer")
    with pytest.raises(UserError, match="unknown size of rnn 'unit': did you mean 'units'"):
        workloads.find("rnn").at(unit=3)
    with pytest.raises(UserError, match="unknown profile 'quickly': did you mean 'quick'"):
        workloads.find("rnn").points("quickly")


@pytest.mark.parametrize(
    ("name", "sizes", "told"),
    [
        ("rnn", {"T": 0}, "a sequence of length 0: give 1 or more"),
        ("transformer", {"heads": 3}, "3 heads, which the width 64 does not divide by"),
        ("cnn", {"side": 2}, "Pool2D"),
        ("mlp", {"width": 0}, "0 units"),
        ("gan", {"n": 0}, "n = 0"),
    ],
)
def test_sizes_that_cannot_be_are_told(name: str, sizes: dict[str, int], told: str) -> None:
    workload = workloads.find(name)
    asked = workload.at(**sizes)
    with pytest.raises(UserError, match=told):
        make_problem(workload.objective(asked), asked["n"])


# --- the guide ----------------------------------------------------------------------------------------------------------


def shown(first: str) -> str:
    """The code that the guide shows and that begins so."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (code,) = [block for block in blocks if block.startswith(f'"""{first}')]
    return str(code)


def test_the_guides_example_is_a_workload_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tagger.py").write_text(shown("A tagger"), encoding="utf-8")
    monkeypatch.setattr(workloads, "__path__", [*workloads.__path__, str(tmp_path)])
    monkeypatch.setattr(workloads, "NAMES", workloads.names())
    try:
        assert workloads.NAMES[-1] == "tagger"
        tagger = workloads.find("tagger")
        check_example(tagger)
    finally:
        sys.modules.pop("impls.architectures.workloads.tagger", None)


def check_example(tagger: Workload) -> None:
    z = tagger.at(n=3, T=4, units=5, width=3, vocabulary=7, tags=2)
    found = tagger.columns(z)
    weights = 3 * 5 * (3 + 5) + 5 * 2
    assert found["m"] == 7 * 3 + weights + 2 * 3 * 5 + 2
    assert found["multiply_adds"] == 4 * weights == found["T"] * found["weights"]
    assert len([point for point in tagger.points("quick") if point.heldout]) >= 3
    work: dict[bool, list[int]] = {True: [], False: []}
    for point in tagger.points("quick"):
        work[point.heldout].append(point.sizes["n"] * tagger.columns(point.sizes)["products"])
        for term in (*tagger.law, *tagger.memory_law):
            expressions.parse(term, "tagger", [*tagger.columns(point.sizes), *workloads.MACHINE])
    assert min(work[True]) > max(work[False])
    problem = make_problem(tagger.objective(z), z["n"])
    for entry in registry.ENTRIES:
        if entry.architectures and not entry.missing():
            conformance.check(entry.prepare(problem, dtype="float64"), problem, "float64")


def test_the_guides_kind_of_layer_conforms_in_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    jax_layers, torch_layers = (pytest.importorskip(f"impls.architectures.{name}_layers") for name in ("jax", "torch"))
    for module, name in (
        (reference, "FORMULAS"),
        (numpy_chain, "KINDS"),
        (numpy_chain, "LAYOUTS"),
        (torch_layers, "MODULES"),
        (jax_layers, "FUNCTIONS"),
    ):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))  # what the guide adds is gone afterwards
    made = ModuleType("guide")
    monkeypatch.setitem(sys.modules, "guide", made)  # where dataclasses look for it
    exec(shown("A kind of layer"), made.__dict__)  # our own page
    factor = made.Factor()
    layers = (Dense(4), factor, Activation("tanh"), factor, Dense(2))
    for shape in ((3,), (5, 3)):
        problem = make_problem(Supervised(Architecture(shape, layers)), 6)
        for target in (numpy_layers.NumpyLayers, torch_layers.TorchLayers, jax_layers.JaxLayers):
            conformance.check(target(problem, dtype="float64"), problem, "float64")
    wrong = shown("A kind of layer").replace("b(np.multiply, y.d, gain, x.d)", "b(np.copyto, x.d, y.d)")
    exec(wrong, made.__dict__)
    problem = make_problem(Supervised(Architecture((3,), (Dense(4), made.Factor(), Dense(2)))), 6)
    with pytest.raises(Mismatch):
        conformance.check(numpy_layers.NumpyLayers(problem, dtype="float64"), problem, "float64")


def test_the_guide_names_every_workload_and_every_layer() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    for name in (*NAMES, *layers.KINDS):
        assert f"`{name}`" in text, name


def test_the_guides_table_tells_sizes_and_counts_as_they_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \|", GUIDE.read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == list(NAMES)
    for name, sizes, m, products, reuse in rows:
        workload = workloads.find(name)
        told = {key: int(value) for key, value in re.findall(r"(\w+) (\d+)", sizes)}
        assert told == dict(workload.middle)
        found = workload.columns(workload.middle)
        assert (int(m.replace(",", "")), int(products.replace(",", ""))) == (found["m"], found["products"])
        assert float(reuse) == pytest.approx(found["products"] / 3 / found["m"], rel=0.01)


def test_the_guides_table_of_laws_tells_them_as_they_are() -> None:
    rows = re.findall(r"^\| (\w+) \| [^|]* \| (\S+) \| ([^|]*) \| ([^|]*) \|$", GUIDE.read_text(), re.MULTILINE)
    told = {name: rest for name, *rest in rows if name in NAMES}
    assert list(told) == list(NAMES)
    for name, (short, law, memory) in told.items():
        workload = workloads.find(name)
        assert short == (workload.plain or "n·m")
        assert ["1", *law.split(" + ")] == list(workload.law)
        assert ["1", *memory.split(" + ")] == list(workload.memory_law)
