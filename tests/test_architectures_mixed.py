"""Layers in all kinds of company: every one of many small architectures is what the reference says, layouts, residual
connections, what works in place and what must not.
"""

from __future__ import annotations

import pytest

from impls import dtypes, registry
from impls.architectures import conformance, layers
from impls.architectures.layers import Recurrent
from impls.architectures.problem import make_problem
from impls.registry import Entry
from tests.architecture_problems import PROBLEMS
from tests.test_conformance import available

#: Those that compile have their own, fewer problems.
EAGER = [entry for entry in registry.ENTRIES if entry.architectures and entry.cost.first_call_s < 0.1]


def test_the_problems_have_every_kind_of_layer_loss_and_cell() -> None:
    architectures = [a for objective, _ in PROBLEMS.values() for a in objective.architectures]
    assert {kind for a in architectures for kind in a.kinds} == set(registry.LAYER_KINDS)
    assert {a.loss for a in architectures} == set(layers.LOSSES)
    cells = {layer.cell for a in architectures for layer, _, _ in a.walk() if isinstance(layer, Recurrent)}
    assert cells == set(layers.GATES)


@pytest.mark.parametrize("dtype", dtypes.PLAIN)
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("entry", EAGER, ids=lambda e: e.name)
def test_conforms(entry: Entry, name: str, dtype: str) -> None:
    objective, n = PROBLEMS[name]
    problem = make_problem(objective, n, seed=1, learning_rate=1.0)
    conformance.check(available(entry).prepare(problem, dtype=dtype), problem, dtype)
