"""The two sides of a comparison: revisions, the working tree, environments, and all that cannot be compared."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from backprop_files import UserError
from bench import sides
from bench.plan import Settings
from bench.sides import Described, Wish
from tests.gate_check import ROOT

OWN = (Path(__file__).parent / "own_implementations" / "good.py").read_text()
MINE = ("mine.py:Linear",)
SMOKE = Settings(profile="smoke", impls=("numpy",), phases=("step",))


def git(repository: Path, *arguments: str) -> str:
    """Run git there as somebody."""
    who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=repository, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's repository with an implementation of its own, two commits, tag ``old`` at the first."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "mine.py").write_text(OWN)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    git(folder, "tag", "old")
    (folder / "mine.py").write_text(OWN + "# changed\n")
    git(folder, "commit", "-qam", "second")
    monkeypatch.chdir(folder)
    return folder


def test_a_revision_is_what_was_committed(repository: Path, tmp_path: Path) -> None:
    base, head = sides.make(Wish("old"), tmp_path / "sides", MINE)
    assert (base.code / "mine.py").read_text() == OWN
    assert (head.code / "mine.py").read_text().endswith("# changed\n")
    assert base.told.startswith("old (")
    assert head.told.startswith("the working tree (")
    assert "uncommitted" not in head.told
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "worktree", "list").count("\n") == 1


def test_a_dirty_tree_is_taken_as_it_is_and_said(repository: Path, tmp_path: Path) -> None:
    (repository / "mine.py").write_text("# edited\n")
    (repository / "new.py").write_text("# new\n")
    (repository / ".gitignore").write_text("ignored.py\n")
    (repository / "ignored.py").write_text("")
    _, head = sides.make(Wish("HEAD"), tmp_path / "sides", MINE)
    assert "with uncommitted changes" in head.told
    assert head.commit["dirty"] is True
    assert (head.code / "mine.py").read_text() == "# edited\n"
    assert (head.code / "new.py").exists()
    assert not (head.code / "ignored.py").exists()
    (repository / "mine.py").write_text("# edited again\n")  # a snapshot does not follow
    assert (head.code / "mine.py").read_text() == "# edited\n"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish("no-such-branch"), "unknown revision 'no-such-branch'"),
        (Wish("main", "--output=x"), "unknown revision '--output=x'"),
        (Wish("main"), "are the same code"),
        (Wish("main", "HEAD"), "are the same code"),
        (Wish(""), "unknown revision ''"),
        (Wish(), "nothing to compare with"),
        (Wish(base_python=Path(sys.executable)), "are the same: nothing to compare with"),
        (Wish("old"), "say which code of it to compare, --impl"),
        (Wish(base_python=Path("/no/python")), "no Python interpreter"),
    ],
)
def test_what_cannot_be_compared_is_refused(repository: Path, tmp_path: Path, wish: Wish, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        sides.make(wish, tmp_path / "sides")
    assert "\n" not in str(caught.value)


def test_revisions_need_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare").mkdir()
    monkeypatch.chdir(tmp_path / "bare")
    with pytest.raises(UserError, match="in no git repository"):
        sides.make(Wish("main"), tmp_path / "sides")
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    base, head = sides.make(Wish(base_python=other), tmp_path / "sides")
    assert base.told == f"the code as installed with {other}"
    assert (base.python, head.python) == (other, Path(sys.executable))


def test_a_users_own_implementation_is_each_sides(repository: Path, tmp_path: Path) -> None:
    base, head = sides.make(Wish("old"), tmp_path / "sides", MINE)
    settings = Settings(profile="smoke", own=("mine.py:Linear",), phases=("step",))
    for side in (base, head):
        found = sides.describe(side, settings)
        assert {cell.setting.entry.target for cell in found.cells.values()} == {f"{side.code / 'mine.py'}:Linear"}
    assert sides.describe(base, settings).cells.keys() == sides.describe(head, settings).cells.keys()


def test_a_side_without_the_own_implementation_says_so(repository: Path, tmp_path: Path) -> None:
    git(repository, "rm", "-q", "mine.py")
    (repository / "other.py").write_text(OWN)
    _, head = sides.make(Wish("old"), tmp_path / "sides", MINE)
    with pytest.raises(UserError, match=r"head, the working tree .* has no mine\.py"):
        sides.describe(head, Settings(profile="smoke", own=("mine.py:Linear",)))


def test_new_files_that_are_no_code_make_no_difference(repository: Path, tmp_path: Path) -> None:
    (repository / "notes.txt").write_text("")
    with pytest.raises(UserError, match="are the same code"):
        sides.make(Wish("HEAD"), tmp_path / "sides", MINE)


def test_an_own_implementation_is_looked_up_in_each_side_however_it_is_named(repository: Path, tmp_path: Path) -> None:
    base, head = sides.make(Wish("old"), tmp_path / "sides", MINE)
    for side in (base, head):
        found = sides.describe(side, Settings(profile="smoke", own=(f"{repository / 'mine.py'}:Linear",)))
        assert {cell.setting.entry.target for cell in found.cells.values()} == {f"{side.code / 'mine.py'}:Linear"}
    outside = tmp_path / "outside.py"
    outside.write_text(OWN)
    with pytest.raises(UserError, match="it would be the same on both sides"):
        sides.describe(base, Settings(profile="smoke", own=(f"{outside}:Linear",)))
    for wrong in ("mine.py", "mine.py:", ":Linear"):
        with pytest.raises(UserError, match=r"give path/to/file\.py:Class"):
            sides.describe(base, Settings(profile="smoke", own=(wrong,)))


def test_code_that_is_imported_from_the_working_tree_is_refused(repository: Path, tmp_path: Path) -> None:
    base, _ = sides.make(Wish("old"), tmp_path / "sides", MINE)
    sides.refuse_foreign(base, [str(base.code / "mine.py"), str(repository / ".venv" / "lib.py"), "/usr/lib/x.py"])
    with pytest.raises(UserError, match=r"base, old .*: mine\.py was imported from the working tree"):
        sides.refuse_foreign(base, [str(repository / "mine.py")])


def test_the_harness_may_be_the_working_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout of the suite, installed from there: the harness measures both sides, the implementations are theirs."""
    folder = suite(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sides, "OURS", folder)
    (folder / "impls" / "losses.py").write_text((folder / "impls" / "losses.py").read_text() + "# changed\n")
    base, _ = sides.make(Wish("main"), tmp_path / "sides")
    sides.refuse_foreign(base, [str(base.home / "bench" / "worker.py"), str(base.home / "impls" / "losses.py")])
    with pytest.raises(UserError, match=r"impls/losses\.py was imported from the working tree"):
        sides.refuse_foreign(base, [str(folder / "impls" / "losses.py")])


def test_what_an_implementation_prints_is_no_answer(repository: Path, tmp_path: Path) -> None:
    (repository / "mine.py").write_text("print('hello')\n" + OWN)
    _, head = sides.make(Wish("old"), tmp_path / "sides", MINE)
    assert sides.describe(head, Settings(profile="smoke", own=MINE, phases=("step",))).cells


def test_links_odd_names_and_export_rules_do_not_change_a_snapshot(repository: Path, tmp_path: Path) -> None:
    (repository / "link.py").symlink_to("/nowhere/at/all.py")
    (repository / ".gitattributes").write_text("mine.py export-ignore\n")
    odd = os.fsdecode(b"\xff.txt")
    (repository / odd).write_text("")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "odd")
    (repository / "mine.py").write_text(OWN + "# again\n")
    base, head = sides.make(Wish("HEAD"), tmp_path / "sides", MINE)
    for side in (base, head):
        assert (side.code / "mine.py").is_file()
        assert (side.code / "link.py").is_symlink()
        assert (side.code / odd).is_file()


def test_a_head_that_does_not_import_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = suite(tmp_path)
    monkeypatch.chdir(folder)
    registry = folder / "impls" / "registry.py"
    registry.write_text(registry.read_text() + "import no_such_module\n")
    with sides.prepared(Wish("main"), SMOKE) as (_, (before, after)):
        assert before.cells
        assert not after.cells
        assert "no_such_module" in after.why_not(next(iter(before.cells.values())))


def suite(tmp_path: Path) -> Path:
    """A checkout of this suite, as git has it now, in a repository of its own."""
    folder = tmp_path / "suite"
    folder.mkdir()
    names = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in filter(None, names.stdout.split("\0")):
        if name.split("/")[0] in ("impls", "bench", "backprop_files.py"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "base")
    return folder


def test_a_checkout_of_the_suite_measures_its_own_implementations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = suite(tmp_path)
    monkeypatch.chdir(folder)
    registry = folder / "impls" / "registry.py"
    registry.write_text(registry.read_text().replace('"numpy-loop",', '"numpy-slowly",'))
    base, head = sides.make(Wish("main"), tmp_path / "sides")
    assert (head.home / "impls").resolve() == (head.code / "impls").resolve()
    assert (head.home / "bench").resolve() == (ROOT / "bench").resolve()
    settings = Settings(profile="smoke", impls=("numpy", "numpy-loop"), phases=("step",))
    before, after = sides.describe(base, settings), sides.describe(head, settings)
    gone = before.cells.keys() - after.cells.keys()
    assert gone
    assert all(label.startswith("numpy-loop ") for label in gone)
    assert after.absent == ["numpy-loop"]


def test_a_base_that_does_not_import_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = suite(tmp_path)
    monkeypatch.chdir(folder)
    good = (folder / "impls" / "registry.py").read_text()
    (folder / "impls" / "registry.py").write_text(good + "import no_such_module\n")
    git(folder, "commit", "-qam", "broken")
    (folder / "impls" / "registry.py").write_text(good)
    base, _ = sides.make(Wish("main"), tmp_path / "sides")
    with pytest.raises(UserError, match=r"base, main \(.*\), cannot be measured: .*no_such_module") as caught:
        sides.describe(base, SMOKE)
    assert "\n" not in str(caught.value)


def test_machines_that_differ_are_refused() -> None:
    facts = {"cpu_model": "a", "libraries": {"numpy": "2"}}
    same = Described({}, [], [], facts)
    sides.same_machine(same, same, environments=False)
    with pytest.raises(UserError, match="cpu_model"):
        sides.same_machine(same, Described({}, [], [], facts | {"cpu_model": "b"}), environments=True)
    other = Described({}, [], [], facts | {"libraries": {"numpy": "1"}})
    with pytest.raises(UserError, match="libraries"):
        sides.same_machine(same, other, environments=False)
    sides.same_machine(same, other, environments=True)


def wheel(folder: Path, name: str, version: str) -> Path:
    """A distribution of nothing but its name."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"__version__ = '{version}'\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_another_version_of_a_library_is_heads_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare").mkdir()
    monkeypatch.chdir(tmp_path / "bare")
    given = str(wheel(tmp_path, "autograd", "99.0"))
    base, head = sides.make(Wish(with_=(given,)), tmp_path / "sides")
    assert head.told == f"the code as installed with {given}"
    before, after = sides.describe(base, SMOKE), sides.describe(head, SMOKE)
    assert after.facts["libraries"]["autograd"] == "99.0"
    assert before.facts["libraries"].get("autograd") != "99.0"
    assert after.facts["libraries"]["numpy"] == before.facts["libraries"]["numpy"]
    assert before.cells.keys() == after.cells.keys()


def test_a_library_that_cannot_be_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--with \./nothing-here\.whl: ") as caught:
        sides.make(Wish(with_=("./nothing-here.whl",)), tmp_path / "sides")
    assert "\n" not in str(caught.value)
