"""The whole of a comparison and the gate's exit codes, on planted files; nothing bad is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis import comparison, comparison_report, load
from backprop_files import UserError
from tests import planted_comparison as planted

CELL = "numpy cpu float32 64-32-10 horner-4 mse n=64 step"


def slow_one(found: Any) -> float:
    return 1.1 if found["depth"] == 2 else 1.0


def test_nothing_slower(tmp_path: Path) -> None:
    found = comparison.compare(planted.write(tmp_path), 0.05)
    assert (found.outcome, found.exit_code, found.reasons) == ("nothing slower", 0, ())
    assert {ratio.word for ratio in found.cells} == {"same"}


def test_one_cell_slower(tmp_path: Path) -> None:
    found = comparison.compare(planted.write(tmp_path, slow_one), 0.05)
    assert (found.outcome, found.exit_code) == ("slower", 1)
    assert [ratio.cell for ratio in found.cells if ratio.word == "slower"] == [CELL]
    assert found.reasons[0].startswith(f"{CELL}: +")


def test_cannot_tell_says_what_it_would_need(tmp_path: Path) -> None:
    found = comparison.compare(planted.write(tmp_path, sessions=6, noise=0.06), 0.05)
    assert (found.outcome, found.exit_code) == ("cannot tell", 4)
    wanted = ("sessions would tell", "too near the allowance", "growth may be dearer")
    assert all(any(words in reason for words in wanted) for reason in found.reasons)


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"vanished": {CELL: "removed or renamed"}}, 1, "is gone in HEAD: removed or renamed"),
        ({"failed": [{"cell": CELL, "side": "head", "reason": "wrong gradients"}]}, 1, "failed in HEAD: wrong gradients"),
        ({"failed": [{"cell": CELL, "side": "base", "reason": "wrong gradients"}]}, 4, "failed in BASE"),
        ({"cells": [CELL, "numpy cpu float32 another"]}, 4, "was not measured"),
        ({"new": ["numpy cpu float32 another"]}, 0, ""),
    ],
)  # fmt: skip
def test_it_fails_closed(tmp_path: Path, more: dict[str, Any], code: int, words: str) -> None:
    found = comparison.compare(planted.write(tmp_path, **more), 0.05)
    assert found.exit_code == code
    assert words in " ".join(found.reasons)


def test_nothing_measured_is_not_nothing_slower(tmp_path: Path) -> None:
    planted.write(tmp_path, sessions=1)
    for path in tmp_path.glob("*/data/*.json"):
        path.unlink()
    assert comparison.compare(tmp_path, 0.05).exit_code == 4


def test_one_session_tells_nothing(tmp_path: Path) -> None:
    assert comparison.compare(planted.write(tmp_path, sessions=1), 0.05).exit_code == 4


def test_memory_is_exact(tmp_path: Path) -> None:
    found = comparison.compare(planted.write(tmp_path, peak=lambda f: 1.2 if f["n"] == 128 else 1.0), 0.05)
    assert found.exit_code == 1
    assert [row.cell for row in found.memory if row.larger] == ["numpy cpu float32 64-32-32-10 horner-4 mse n=128 step"]
    assert "peak memory +20.0%" in found.reasons[0]


def test_memory_that_head_no_longer_tells_is_no_silence(tmp_path: Path) -> None:
    planted.write(tmp_path)
    path = tmp_path / "head" / "data" / "numpy-pass1.json"
    document = json.loads(path.read_text())
    document["benchmarks"][0]["extra_info"]["peak_bytes"] = None
    path.write_text(json.dumps(document))
    found = comparison.compare(tmp_path, 0.05)
    assert found.exit_code == 4
    assert "peak memory is not told in HEAD" in found.reasons[0]


def test_machines_that_differ_are_refused(tmp_path: Path) -> None:
    other = {**planted.MACHINE, "cpu_model": "another"}
    planted.write(tmp_path, machines=(planted.MACHINE, other))
    with pytest.raises(UserError, match="different machines: cpu_model"):
        comparison.compare(tmp_path, 0.05)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', '{"schema_version": 99}'])
def test_a_damaged_comparison_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    planted.write(tmp_path)
    (tmp_path / "duel.json").write_text(text)
    with pytest.raises(UserError) as caught:
        comparison.compare(tmp_path, 0.05)
    assert "\n" not in str(caught.value)
    assert "duel.json" in str(caught.value)


def test_a_comparison_is_no_run(tmp_path: Path) -> None:
    planted.write(tmp_path, sessions=1)
    with pytest.raises(UserError, match="is a comparison of two sides; give one of them"):
        load.load([tmp_path])


def test_doubt_ends_when_all_is_told(tmp_path: Path) -> None:
    found = comparison.compare(planted.write(tmp_path), 0.05)
    assert comparison.doubtful(found, 0, words=False) == set()


def test_an_accusation_at_the_first_look_is_measured_again(tmp_path: Path) -> None:
    found = comparison.compare(planted.write(tmp_path, slow_one), 0.05)
    assert CELL in comparison.doubtful(found, 0, words=False)
    assert CELL not in comparison.doubtful(found, 1, words=False)


def test_a_suspect_axis_is_measured_again_whole(tmp_path: Path) -> None:
    planted.write(tmp_path, lambda f: 1 + 0.06 * (f["width"] / 128) ** 3, sessions=4, noise=0.02)
    found = comparison.compare(tmp_path, 0.05)
    change = next(change for change in found.changes if change.name == "m along width")
    if change.suspect:
        assert set(change.cells) <= comparison.doubtful(found, 0, words=False)


def test_markdown_is_text_and_points_at_the_cells(tmp_path: Path) -> None:
    planted.write(tmp_path, slow_one, head={"told": "<script>alert(1)</script> | `x`"})
    found = comparison.compare(tmp_path, 0.05)
    comparison_report.write(found, tmp_path, tmp_path / "comment.md", tmp_path / "out.json")
    text = (tmp_path / "comment.md").read_text()
    assert "<script>" not in text
    assert "**slower**" in text
    assert "64-32-10" in text.split("<details>")[0]
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["exit_code"] == 1
    assert document["outcome"] == "slower"
    assert {row["word"] for row in document["cells"]} == {"slower", "same"}
    assert (tmp_path / "comparison.md").read_text() == text


def test_a_run_is_no_comparison_and_told_so(tmp_path: Path) -> None:
    """A fleet's as any other."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "numpy-pass1.json").write_text("{}")
    with pytest.raises(UserError, match=r"is a run, no comparison .* 'report A B --compare'"):
        comparison.compare(tmp_path, 0.05)
