"""Machines and classes of a run: which rows are whose, and that nothing of one machine enters another's times."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import cells, exports, fleet, history_record, load, machines, normalise
from backprop_files import UserError
from tests import planted, planted_comparison
from tests.planted import Host, Noise

SMALL = replace(planted.RANGE, joint=4, heldout=3)
EPYC: dict[str, Any] = {"cpu_model": "EPYC", "memory_bytes": 64 << 30, "cpu": {"count": 8}, "system": "Linux"}
XEON = EPYC | {"cpu_model": "Xeon"}
EVIL = "<script>alert(1)</script>\n../../$x$ | `rm`" + "é" * 300


def test_rows_know_their_machine_and_class(tmp_path: Path) -> None:
    hosts = [Host("a", (1,), facts=EPYC), Host("b", (2,), facts=EPYC), Host("c", (3,), facts=XEON)]
    run = load.load([planted.fleet(tmp_path, hosts, planted.additive, seed=1, chosen=SMALL)])
    owners = run.entries.groupby("pass")["machine"].unique().map(list).to_dict()
    assert owners == {1: ["a"], 2: ["b"], 3: ["c"]}
    assert {(m.node, m.info["cpu_model"]) for m in run.machines} == {("a", "EPYC"), ("b", "EPYC"), ("c", "Xeon")}
    first = load.of_class(run, run.entries.loc[run.entries["machine"] == "c", "machine_class"].iloc[0])
    assert set(first.entries["machine"]) == {"c"}
    assert first.machine["cpu_model"] == "Xeon"
    assert [known.short for known in run.classes] == ["EPYC", "Xeon"]


def test_a_few_megabytes_make_no_class_and_twice_the_memory_does() -> None:
    boundary = (63 << 30) + (1 << 29)  # half a GiB: rounds up or down
    facts = [EPYC | {"memory_bytes": boundary + (mb << 20)} for mb in (-3, 0, 4)] + [EPYC | {"memory_bytes": 128 << 30}]
    assert len({machines.machine_digest(machines.machine_class(f)) for f in facts[:3]}) == 2
    groups = machines.grouped(facts)
    assert len(set(groups[:3])) == 1
    assert groups[3] != groups[0]


@pytest.mark.parametrize("info", [{}, {"accelerators": 5}, {"cpu": 3, "affinity": "x"}, {"memory_bytes": "much"}])
def test_odd_facts_still_make_a_class(info: dict[str, Any]) -> None:
    (own,) = machines.grouped([info])
    (known,) = machines.classes({own: info})
    assert known.short
    assert known.slug


def test_names_of_classes_tell_them_apart_and_are_no_paths() -> None:
    infos = [EPYC | {"cpu_model": EVIL + str(i)} for i in range(3)]
    groups = machines.grouped(infos)
    found = machines.classes(dict(zip(groups, infos, strict=True)))
    assert len({known.slug for known in found}) == len({known.short for known in found}) == 3
    assert all(set(known.slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for known in found)
    assert all(len(known.short) <= machines.LONGEST and "\n" not in known.short for known in found)


def test_differences_are_told_in_words() -> None:
    infos = [EPYC, XEON | {"memory_bytes": 32 << 30}]
    found = machines.classes(dict(zip(machines.grouped(infos), infos, strict=True)))
    assert machines.differences(found) == "processor (EPYC | Xeon); memory in GiB (64 GiB | 32 GiB)"
    assert machines.differences(found[:1]) == ""


def test_every_machine_is_normalised_as_if_it_were_alone(tmp_path: Path) -> None:
    """To the last bit: another machine's reference, quiet level or ceiling must not enter."""
    hosts = [
        Host("a", (1, 2), facts=EPYC),
        Host("b", (3, 4), slower=1.7, facts=EPYC),
        Host("c", (5, 6), 0.6, facts=XEON),
    ]
    noise = Noise(0.01, 0.03, 0.1)
    entries = load.load([planted.fleet(tmp_path, hosts, planted.additive, seed=2, noise=noise, chosen=SMALL)]).entries
    for _, rows in entries.groupby("machine"):
        alone = normalise.normalise(
            rows.drop(columns=["time_s", "disturbed", "weight", "normal_logs", *normalise.MACHINE])
        )
        assert alone["time_s"].tolist() == rows["time_s"].tolist()
        assert alone["weight"].tolist() == rows["weight"].tolist()
        for one, other in zip(alone["normal_logs"], rows["normal_logs"], strict=True):
            assert np.array_equal(one, other)


def test_on_one_machine_names_change_nothing(tmp_path: Path) -> None:
    """Real shape: the planted comparison has disturbed passes, several implementations and memory."""
    run = load.load([planted_comparison.write(tmp_path) / "base"])
    bare = normalise.normalise(
        run.entries.drop(columns=["time_s", "disturbed", "weight", "normal_logs", *normalise.MACHINE])
    )
    assert bare["time_s"].tolist() == run.entries["time_s"].tolist()
    assert bare["disturbed"].tolist() == run.entries["disturbed"].tolist()
    ours, theirs = cells.table(run.entries), cells.table(bare)
    assert ours.to_csv() == theirs.to_csv()
    assert normalise.levelled(run.entries) is run.entries


def test_a_slower_clock_shows_in_seconds_and_not_in_dimensionless_time(tmp_path: Path) -> None:
    hosts = [Host("a", (1,), facts=EPYC), Host("b", (2,), slower=1.5, facts=EPYC)]
    still = Noise(1e-6, 1e-6)
    run = load.load([planted.fleet(tmp_path, hosts, planted.additive, seed=1, noise=still, chosen=SMALL)])
    own = run.entries.assign(unit=normalise.own_reference_s(run.entries))
    by_node = {node: rows.set_index(["layers", "activation", "n"]) for node, rows in own.groupby("machine")}
    seconds = by_node["b"]["time_s"] / by_node["a"]["time_s"]
    plain = seconds * by_node["a"]["unit"] / by_node["b"]["unit"]
    assert seconds.to_numpy() == pytest.approx(1.5, rel=1e-3)
    assert plain.to_numpy() == pytest.approx(1.0, rel=1e-3)
    levelled = normalise.levelled(run.entries).groupby("machine")["time_s"].apply(list)
    assert levelled["a"] == pytest.approx(levelled["b"], rel=1e-3)


def test_every_machine_has_its_own_ceilings(tmp_path: Path) -> None:
    hosts = [Host("a", (1,), facts=EPYC), Host("b", (2,), slower=2.0, facts=EPYC), Host("c", (3,), 4.0, facts=EPYC)]
    entries = load.load([planted.fleet(tmp_path, hosts, planted.additive, seed=1, chosen=SMALL)]).entries
    own = cells.machine_ceilings(entries).reset_index().set_index("machine")["ceiling_flops"]
    assert own.to_dict() == {"a": 1e11, "b": 5e10, "c": 2.5e10}
    assert cells.ceilings(entries)["ceiling_flops"].tolist() == [5e10]
    share = entries.groupby("machine")["weight"].median()  # of its own ceiling, on any clock
    assert share.to_numpy() == pytest.approx(share.iloc[0], rel=0.1)


def test_unlike_versions_within_a_directory_are_noted(tmp_path: Path) -> None:
    hosts = [Host("a", (1,), facts=EPYC), Host("b", (2,), facts=EPYC | {"libraries": {"numpy": "3"}})]
    run = load.load([planted.fleet(tmp_path, hosts, planted.additive, seed=1, chosen=SMALL)])
    assert run.notes == ["machines have different versions of numpy: 2 on a; 3 on b"]


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hosts = [Host("a", (1, 2), facts=EPYC), Host("b", (3, 4), facts=EPYC, slower=1.3), Host("c", (5,), 2.0, facts=XEON)]
    return planted.fleet(tmp_path_factory.mktemp("two"), hosts, planted.additive, seed=4, chosen=SMALL)


def test_several_classes_want_a_choice_in_one_line(two_classes: Path) -> None:
    run = load.load([two_classes])
    for wanted, words in (("", "choose one with --machine-class, of epyc-"), ("Cray", "fits none"), ("n", "fits 2 of")):
        with pytest.raises(UserError, match=words) as caught:
            load.one_class(run, wanted)
        assert "\n" not in str(caught.value)
    for wanted in ("xeon", run.classes[1].slug, run.classes[1].id, "Xeon"):
        assert set(load.one_class(run, wanted).entries["machine"]) == {"c"}


def test_runs_on_different_devices_of_different_machines_stand_side_by_side(tmp_path: Path) -> None:
    """As ever: nothing is fitted across devices, so there are no classes to choose from and no machines to compare."""
    paths = []
    for i, (facts, device) in enumerate(((EPYC, "cpu"), (XEON, "cuda:0"))):
        paths.append(
            planted.fleet(tmp_path / device[:4], [Host(f"m{i}", (1, 2), facts=facts)], planted.additive, seed=i)
        )
        for path in (paths[-1] / "data").iterdir():
            content = json.loads(path.read_text())
            for benchmark in content["benchmarks"]:
                benchmark["extra_info"]["device"] = device
            path.write_text(json.dumps(content))
    run = load.load(paths)
    assert len(run.classes) == 2
    assert not load.of_several_classes(run)
    assert not fleet.several_machines(run)
    assert load.one_class(run) is run


def test_export_and_history_take_one_class(two_classes: Path) -> None:
    with pytest.raises(UserError, match="--machine-class"):
        exports.export(two_classes, "gab")
    told = json.loads(exports.export(two_classes, "gab", "Xeon"))
    assert told
    with pytest.raises(UserError, match="--machine-class"):
        history_record.record(two_classes, "abc", "2026-01-01T00:00:00Z")
    record = history_record.record(two_classes, "abc", "2026-01-01T00:00:00Z", "EPYC")
    assert record.machine["cpu_model"] == "EPYC"
    (kernel,) = [p for p in record.points if p.quantity == "reference kernel"]
    assert kernel.interval.value == pytest.approx(1e-4 * (1 + 1.3) / 2, rel=0.02)


def test_history_joins_machines_of_a_class_by_their_own_references(two_classes: Path) -> None:
    """In multiples of its own reference a machine with a slower clock is no slower: intervals stay narrow."""
    record = history_record.record(two_classes, "abc", "2026-01-01T00:00:00Z", "EPYC")
    times = [p.interval for p in record.points if p.quantity == "time"]
    assert np.median([(found.high - found.low) / found.value for found in times]) < 0.06
