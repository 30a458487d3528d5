"""Machines and their classes: which machines may stand in one series, and how classes are called.

A machine is a node of a file's ``machine_info``; its class is what two machines must share for a law of one to hold for the
other.  Names come from files: they are shown cut, and never become a path (``slug``).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_GIB = 1 << 30
#: Total memory differs by a few MB from boot to boot; sizes that are sold differ by far more than this share.
SAME_MEMORY = 0.03
#: The longest name that is shown of a machine or a class.
LONGEST = 48
UNNAMED = "unnamed"
#: Facts of a class in words, in the order in which differences are told.
FACTS: Mapping[str, str] = {
    "cpu_model": "processor",
    "cpu_family": "processor family",
    "cpu_number": "processor number",
    "cores": "cores",
    "usable_cores": "usable cores",
    "memory_gib": "memory in GiB",
    "system": "system",
    "architecture": "architecture",
    "accelerators": "accelerators",
}


@dataclass(frozen=True)
class MachineClass:
    """Machines whose times may stand in one series.  ``facts`` as of ``machine_class``; ``name`` in full, ``short`` by what
    tells it from the run's other classes, ``slug`` for folders.
    """

    id: str
    facts: Mapping[str, Any]
    name: str
    short: str
    slug: str


@dataclass(frozen=True)
class Machine:
    """A node, its class (``MachineClass.id``) and what its newest file says of it."""

    node: str
    group: str
    info: Mapping[str, Any]


def machine_class(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts that two machines must share for their times to stand in one series.  Memory counts in whole GiB."""
    cpu = facts.get("cpu") if isinstance(facts.get("cpu"), dict) else {}
    assert isinstance(cpu, dict)
    memory = facts.get("memory_bytes")
    affinity, cards = facts.get("affinity"), facts.get("accelerators")
    return {
        "cpu_model": facts.get("cpu_model") or cpu.get("brand_raw"),
        "cpu_family": cpu.get("family"),
        "cpu_number": cpu.get("model"),
        "cores": cpu.get("count"),
        "usable_cores": len(affinity) if isinstance(affinity, list) else None,
        "memory_gib": round(memory / _GIB) if isinstance(memory, int) else None,
        "system": facts.get("system"),
        "architecture": facts.get("machine"),
        "accelerators": list(cards) if isinstance(cards, list) else [],
    }


def machine_name(machine: dict[str, Any]) -> str:
    """A machine class in a few words."""
    parts = [str(machine["cpu_model"] or "unknown processor")]
    if machine["usable_cores"] or machine["cores"]:
        cores, usable = machine["cores"] or machine["usable_cores"], machine["usable_cores"] or machine["cores"]
        parts.append(f"{cores} core{'s' * (cores != 1)}" + (f" ({usable} usable)" if usable != cores else ""))
    if machine["memory_gib"]:
        parts.append(f"{machine['memory_gib']} GiB")
    parts += [" ".join(str(part) for part in (machine["system"], machine["architecture"]) if part)]
    parts += [str(card.get("name") if isinstance(card, dict) else card) for card in machine["accelerators"]]
    return ", ".join(part for part in parts if part)


def where(info: Mapping[str, Any], measured_at: str) -> str:
    """When and on what something was measured, in words: at 2026-11-26 17:55 on AMD EPYC, 2 cores, …"""
    when = cut(measured_at[:16].replace("T", " "))
    return f"at {when or 'a time that is not told'} on {cut(machine_name(machine_class(dict(info))), 120)}"


def machine_digest(machine: dict[str, Any]) -> str:
    """A machine class in a word."""
    return hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:12]


def node_of(info: Mapping[str, Any]) -> str:
    """A machine's name as its file has it."""
    return str(info.get("node") or UNNAMED)


def cut(text: str, longest: int = LONGEST) -> str:
    """On one line, and no longer than a table can bear."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def grouped(infos: Sequence[dict[str, Any]]) -> list[str]:
    """Of every ``machine_info`` the id of its class.  Classes that differ in nothing but a memory size which is the same
    but for a few MB, on either side of a rounded GiB, are one.
    """
    known: dict[tuple[str, float], tuple[dict[str, Any], str]] = {}  # by digest and memory: its facts, and its class
    found = []
    for info in infos:
        facts, memory = machine_class(info), _memory(info)
        key = (machine_digest(facts), memory)
        if key not in known:
            same = (own for (_, size), (other, own) in known.items() if _alike(facts, memory, other, size))
            known[key] = (facts, next(same, key[0]))
        found.append(known[key][1])
    return found


def _memory(info: Mapping[str, Any]) -> float:
    size = info.get("memory_bytes")
    return float(size) if isinstance(size, int) else 0.0


def _alike(facts: dict[str, Any], memory: float, other: dict[str, Any], size: float) -> bool:
    rest = [key for key in facts if key != "memory_gib" and facts[key] != other[key]]
    return not rest and abs(memory - size) <= SAME_MEMORY * max(memory, size)


def classes(infos: Mapping[str, dict[str, Any]]) -> list[MachineClass]:
    """Classes by id, from one ``machine_info`` of each, with names that tell them apart; in the order of their names."""
    facts = {own: machine_class(info) for own, info in infos.items()}
    differing = [key for key in FACTS if len({json.dumps(f[key], sort_keys=True) for f in facts.values()}) > 1]
    found: list[MachineClass] = []
    for own, its in sorted(facts.items(), key=lambda item: (machine_name(item[1]), item[0])):
        told = ", ".join(_short(key, its[key]) for key in differing if its[key] not in (None, []))
        short = cut(told or machine_name(its))
        if any(other.short == short for other in found):
            short = f"{cut(short, LONGEST - 7)} {own[:6]}"  # cut to the same letters
        slug = re.sub(r"[^a-z0-9]+", "-", short.lower()).strip("-")[:32].strip("-") or "class"
        found.append(MachineClass(own, its, machine_name(its), short, f"{slug}-{own[:6]}"))
    return found


def _short(key: str, value: Any) -> str:
    if key == "accelerators":
        return " + ".join(str(card.get("name") if isinstance(card, dict) else card) for card in value)
    units = {"memory_gib": " GiB", "cores": " cores", "usable_cores": " usable", "cpu_family": " family"}
    return f"{value}{units.get(key, '')}"


def differences(found: Iterable[MachineClass]) -> str:
    """In what the classes differ, in words; empty for one."""
    every = list(found)
    unlike = [
        f"{name} ({' | '.join(cut(_short(key, c.facts[key]) if c.facts[key] not in (None, []) else 'none') for c in every)})"
        for key, name in FACTS.items()
        if len({json.dumps(c.facts[key], sort_keys=True) for c in every}) > 1
    ]
    return "; ".join(unlike)
