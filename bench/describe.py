"""Which cells a checkout has, told by its own code: run as a file in a side's interpreter (``bench.sides``).

Reads settings as JSON from standard input, writes
``{"cells", "absent", "known", "left_out", "facts"}`` or ``{"error"}`` into the file it is given.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer the one request."""
    request = json.load(sys.stdin)
    from backprop_files import UserError

    try:
        answer = describe(request)
    except UserError as error:
        answer = {"error": str(error)}
    Path(sys.argv[1]).write_text(json.dumps(answer))


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """The plan of these settings as data.  Raises UserError as the plan does."""
    from bench import plan
    from impls import registry

    known = {field.name for field in fields(plan.Settings)}  # an older checkout may have fewer
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in request.items() if key in known
    }
    absent = [name for name in given["impls"] if name not in registry.names()]
    given["impls"] = tuple(name for name in given["impls"] if name not in absent)
    if absent and not given["impls"] and not given["own"]:
        return _answer([], absent, [])
    if not given["impls"] and not given["own"]:
        usual = [entry for entry in registry.ENTRIES if "quick" in entry.sweeps and not entry.missing()]
        given["impls"] = tuple(entry.name for entry in usual)
    planned = plan.make(plan.Settings(**given | {"passes": 1}))
    cells = [_row(job) for job in planned.jobs if job.pass_number == 1]
    return _answer(cells, absent, planned.left_out)


def _answer(cells: list[dict[str, Any]], absent: list[str], left_out: list[dict[str, Any]]) -> dict[str, Any]:
    from impls import registry

    known = list(registry.names())
    return {"cells": cells, "absent": absent, "known": known, "left_out": left_out, "facts": _facts()}


def _facts() -> dict[str, Any]:
    """Of machine and libraries, by the installed suite on both sides: a side's own code may know others."""
    spec = importlib.util.spec_from_file_location("machine_facts", Path(__file__).with_name("machine.py"))
    assert spec is not None and spec.loader is not None
    machine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(machine)
    facts: dict[str, Any] = machine.facts()
    return facts


def _row(job: Any) -> dict[str, Any]:
    entry, point, network = job.setting.entry, job.point, job.point.network
    return {
        "impl": entry.name,
        "target": entry.target,
        "summary": entry.summary,
        "requires": entry.requires,
        "object_bytes": getattr(entry, "object_bytes", 0),
        "device": job.setting.device,
        "dtype": job.setting.dtype,
        "layers": network.layers,
        "activation": network.activation,
        "loss": network.loss,
        "optimizer": getattr(point, "optimizer", "gradient-descent"),  # an older checkout has no other
        "n": point.n,
        "axes": point.axes,
        "heldout": point.heldout,
        "phases": job.phases,
    }


if __name__ == "__main__":
    main()
