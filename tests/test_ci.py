"""The GitHub action and its workflow: what can be checked without GitHub, and their scripts run beside a fake suite."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ACTION = ROOT / "action.yml"
WORKFLOW = ROOT / ".github/workflows/benchmarks.yml"
SCRIPTS = ROOT / ".github/actions"
SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

# --- the YAML -------------------------------------------------------------------------------------------------------


def parsed(text: str) -> dict[str, Any]:
    """YAML 1.1 reads the key ``on`` as true."""
    found: dict[Any, Any] = yaml.safe_load(text)
    return {"on" if key is True else key: value for key, value in found.items()}


def action_complaints(text: str) -> list[str]:
    """What is wrong in the action, whoever calls it."""
    action = parsed(text)
    steps = action["runs"]["steps"]
    names = set(re.findall(r"\binputs\.([\w-]+)", text))
    ids = {step["id"]: step for step in steps if "id" in step}
    return [
        *(f"input {name} is not declared" for name in names - set(action["inputs"])),
        *(f"input {name} is not used" for name in set(action["inputs"]) - names),
        *(f"{key} has no description" for part in ("inputs", "outputs") for key in _undescribed(action[part])),
        *(f"steps.{step}.outputs.{name} is never set" for step, name in _outputs(text) if not _sets(ids, step, name)),
        *(complaint for step in steps for complaint in _step_complaints(step)),
        *(f"a run step has no shell: {step['run']}" for step in steps if "run" in step and "shell" not in step),
        *(f"{step['env']} holds what {step['run']} never reads" for step in steps if _unread(step)),
    ]


def _undescribed(part: dict[str, dict[str, str]]) -> Iterator[str]:
    return (key for key, value in part.items() if not value.get("description"))


def _outputs(text: str) -> set[tuple[str, str]]:
    return set(re.findall(r"\bsteps\.([\w-]+)\.outputs\.([\w-]+)", text))


def _sets(ids: dict[str, dict[str, Any]], step: str, name: str) -> bool:
    return step in ids and bool(re.search(rf"^.*\boutput {name} ", script_of(ids[step]), re.MULTILINE))


def script_of(step: dict[str, Any]) -> str:
    """Text of the script that a step runs; empty where it runs none."""
    found = re.fullmatch(r'bash "\$GITHUB_ACTION_PATH/(\.github/actions/[\w-]+\.sh)"', step.get("run", ""))
    return (ROOT / found[1]).read_text() if found and (ROOT / found[1]).exists() else ""


def _unread(step: dict[str, Any]) -> bool:
    script = script_of(step)
    # gh takes its token from the environment by itself
    return any(not re.search(rf"\b{name}\b", script) for name in step.get("env", {})) if "run" in step else False


def _step_complaints(step: dict[str, Any]) -> Iterator[str]:
    """An expression in a shell script is text put into a program: ``${{ }}`` belongs in ``env`` alone."""
    if "run" in step:
        if "${{" in step["run"]:
            yield f"an expression stands in a script: {step['run']}"
        if subprocess.run(["bash", "-n", "-c", step["run"]], capture_output=True).returncode:
            yield f"is no bash: {step['run']}"
        if "GITHUB_ACTION_PATH" in step["run"] and not script_of(step):
            yield f"runs a script that is not there: {step['run']}"
    used = step.get("uses", "./")
    if used != "./" and not re.fullmatch(r"actions/[\w-]+(/[\w-]+)?@v\d+", used):
        yield f"{used} is not pinned to a major version of GitHub's own"


def workflow_complaints(text: str) -> list[str]:
    """What is wrong in the workflow, and in how it calls the action."""
    workflow, inputs = parsed(text), parsed(ACTION.read_text())["inputs"]
    jobs = workflow["jobs"].items()
    steps = [(name, step) for name, job in jobs for step in job["steps"]]
    ours = [step.get("with", {}) for _, step in steps if step.get("uses") == "./"]
    checkouts = [step["with"] for _, step in steps if step.get("uses", "").startswith("actions/checkout@")]
    return [
        *(f"{event} runs a stranger's code with a token that writes" for event in _risky(workflow)),
        *(f"the action has no input {key}" for call in ours for key in set(call) - set(inputs)),
        *(complaint for _, step in steps for complaint in _step_complaints(step)),
        *(f"job {name} has no timeout" for name, job in jobs if "timeout-minutes" not in job),
        *(f"job {name} may write {key}" for name, job in jobs for key in _writes(job) - {"pull-requests"}),
        *(["jobs may do more than read"] if workflow.get("permissions") != {"contents": "read"} else []),
        *(["two runs may share a runner"] if not workflow.get("concurrency", {}).get("group") else []),
        *(["two artifacts of one name"] if len({call.get("artifact") for call in ours}) < len(ours) else []),
        *("the merge base may be missing" for found in checkouts if found.get("fetch-depth") != 0),
        *("a token stays in the checkout" for found in checkouts if found.get("persist-credentials") is not False),
    ]


def _risky(workflow: dict[str, Any]) -> set[str]:
    return set(workflow["on"]) & {"pull_request_target", "workflow_run", "issue_comment"}


def _writes(job: dict[str, Any]) -> set[str]:
    return {key for key, value in job.get("permissions", {}).items() if value == "write"}


def test_the_action_is_consistent() -> None:
    assert action_complaints(ACTION.read_text()) == []


def test_the_workflow_is_consistent_and_may_do_little() -> None:
    assert workflow_complaints(WORKFLOW.read_text()) == []


def test_actions_are_pinned_as_in_the_other_workflow() -> None:
    pinned: dict[str, set[str]] = {}
    for path in (ACTION, *WORKFLOW.parent.glob("*.yml")):
        for name, version in re.findall(r"uses: (actions/[\w-]+)[\w/-]*@(\S+)", path.read_text()):
            pinned.setdefault(name, set()).add(version)
    assert all(len(versions) == 1 for versions in pinned.values()), pinned


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("inputs.cells }}", "inputs.cell }}", "input cell is not declared"),
        ("inputs.cells }}", "inputs.impls }}", "input cells is not used"),
        ("description: The token that comments", "required: true", "token has no description"),
        ("outputs.verdict }}", "outputs.verdicts }}", "steps.gate.outputs.verdicts is never set"),
        ("- id: gate", "- id: gates", "steps.gate.outputs.verdict is never set"),
        ("actions/gate.sh", "actions/gates.sh", "a script that is not there"),
        (
            'run: bash "$GITHUB_ACTION_PATH/.github/actions/mode.sh"',
            "run: echo ${{ github.head_ref }}",
            "an expression",
        ),
        ('run: bash "$GITHUB_ACTION_PATH/.github/actions/mode.sh"', "run: if true", "is no bash"),
        ("      shell: bash\n      env:\n        MODE", "      env:\n        MODE", "no shell"),
        ("MODE: ${{", "MODES: ${{", "never reads"),
        ("setup-python@v5", "setup-python@main", "not pinned"),
        ("actions/setup-python@v5", "someone/setup-python@v5", "not pinned"),
    ],
)
def test_errors_planted_in_the_action_are_seen(before: str, after: str, complaint: str) -> None:
    text = ACTION.read_text()
    assert before in text
    assert any(complaint in found for found in action_complaints(text.replace(before, after)))


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("  pull_request:\n", "  pull_request_target:\n", "a stranger's code"),
        ("          mode: gate", "          mod: gate", "no input mod"),
        ("  contents: read\n\n", "  contents: write\n\n", "more than read"),
        ("pull-requests: write", "issues: write", "may write issues"),
        ("  group: benchmarks", "  groups: benchmarks", "share a runner"),
        ("artifact: history", "artifact: gate", "two artifacts"),
        ("fetch-depth: 0", "fetch-depth: 1", "merge base"),
        ("persist-credentials: false", "persist-credentials: true", "a token stays"),
        ("    timeout-minutes: 60\n", "", "no timeout"),
        ("- uses: ./", "- run: echo ${{ github.event.pull_request.title }}\n      - uses: ./", "an expression"),
    ],
)
def test_errors_planted_in_the_workflow_are_seen(before: str, after: str, complaint: str) -> None:
    text = WORKFLOW.read_text()
    assert before in text
    assert any(complaint in found for found in workflow_complaints(text.replace(before, after)))


def snippets() -> list[dict[str, Any]]:
    """The workflows that the documentation shows, each as its steps and what is beside them."""
    found = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/ci.md").read_text(), re.MULTILINE | re.DOTALL)
    return [parsed(text) for text in found]


def test_the_documented_workflows_fit_the_action() -> None:
    action = parsed(ACTION.read_text())
    shown = snippets()
    assert len(shown) == 3
    for snippet in shown:
        steps = snippet["steps"] if "steps" in snippet else snippet["jobs"]["benchmarks"]["steps"]
        (ours,) = [step for step in steps if step.get("uses", "").startswith("OWNER/backprop-bench@")]
        assert set(ours["with"]) <= set(action["inputs"])
        text = yaml.safe_dump(steps)
        assert {name for _, name in _outputs(text)} <= set(action["outputs"])
        assert {step for step, _ in _outputs(text)} <= {ours.get("id")}
        assert [found for step in steps for found in _step_complaints(step) if "not pinned" not in found] == []


def shell_complaints(folder: Path) -> str:
    """What bash and, where it is installed, shellcheck say of the scripts of a folder."""
    scripts = sorted(map(str, folder.glob("*.sh")))
    commands = [["bash", "-n", script] for script in scripts]
    if SHELLCHECK:
        commands.append([SHELLCHECK, "-x", *scripts])
    return "".join(
        done.stdout + done.stderr
        for done in (subprocess.run(command, capture_output=True, text=True) for command in commands)
    )


def test_the_scripts_are_sound_shell() -> None:
    assert shell_complaints(SCRIPTS) == ""


@pytest.mark.parametrize(
    ("line", "needs"),
    [("if true; then", "bash"), ('rm -rf "$RUNNER_TEMP/"$out', "shellcheck")],
    ids=["bash", "shellcheck"],
)
def test_errors_planted_in_a_script_are_seen(line: str, needs: str, tmp_path: Path) -> None:
    if needs == "shellcheck" and not SHELLCHECK:
        pytest.skip("shellcheck is not installed")
    for script in SCRIPTS.glob("*.sh"):
        shutil.copy(script, tmp_path)
    with (tmp_path / "gate.sh").open("a") as script_file:
        script_file.write(line + "\n")
    assert "gate.sh" in shell_complaints(tmp_path)


# --- the scripts, beside a fake suite and a fake GitHub -------------------------------------------------------------

FAKE_SUITE = """
import json, os, pathlib, sys
arguments = sys.argv[1:]
with open(os.environ["FAKE_LOG"], "a") as log:
    log.write(json.dumps(arguments) + "\\n")
plan = json.load(open(os.environ["FAKE_PLAN"]))
mine = plan.get(" ".join(arguments[:2]), plan.get(arguments[0], {}))
options = dict(a.split("=", 1) for a in arguments if a.startswith("--"))
for option, text in mine.get("writes", {}).items():
    pathlib.Path(options["--" + option]).write_text(text)
print("progress")
print(mine.get("says", ""), file=sys.stderr)
sys.exit(mine.get("code", 0))
"""
FAKE_GH = """
import json, os, subprocess, sys
arguments = sys.argv[1:]
if os.environ.get("FAKE_GH_REFUSES"):
    sys.exit("gh: Resource not accessible by integration (HTTP 403)")
comments = json.load(open(os.environ["FAKE_COMMENTS"]))
if "graphql" in arguments:
    nodes = {"data": {"repository": {"pullRequest": {"comments": {"nodes": comments}}}}}
    program = arguments[arguments.index("--jq") + 1]
    sys.exit(subprocess.run(["jq", "-r", program], input=json.dumps(nodes), text=True).returncode)
path = next(a for a in arguments if a.startswith("repos/"))
body = open(next(a for a in arguments if a.startswith("body=@"))[6:]).read()
if "PATCH" in arguments:
    next(c for c in comments if str(c["databaseId"]) == path.rsplit("/", 1)[1])["body"] = body
else:
    comments.append({"databaseId": 100 + len(comments), "viewerDidAuthor": True, "body": body})
json.dump(comments, open(os.environ["FAKE_COMMENTS"], "w"))
"""
TABLE = "### gate\n\n| cell | change |\n| --- | --- |\n| numpy 64-10 | +12 % |\n"
WROTE = {"markdown": TABLE, "json": '{"verdict": "x"}'}


@dataclass
class Result:
    """What a script left behind."""

    code: int
    log: str
    outputs: dict[str, str]
    summary: str
    calls: list[list[str]] = field(default_factory=list)

    @property
    def options(self) -> dict[str, str]:
        """Options of the first call of the suite."""
        return dict(part.removeprefix("--").split("=", 1) for part in self.calls[0] if part.startswith("--"))


@dataclass
class Runner:
    """A machine with a repository, a fake suite and a fake gh."""

    home: Path
    repository: Path

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        """Git's answer, as an author who needs no configuration."""
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *who, *arguments], cwd=cwd or self.repository, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, name: str) -> str:
        """A commit with a file of its own."""
        (self.repository / name).write_text(name)
        self.git("add", name)
        self.git("commit", "-qm", name)
        return self.git("rev-parse", "HEAD")

    def script(
        self, name: str, env: dict[str, str], plan: dict[str, Any] | None = None, cwd: Path | None = None
    ) -> Result:
        """Run a script of the action as GitHub does, with these variables."""
        names = ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_PATH", "FAKE_LOG", "FAKE_PLAN")
        files = {key: self.home / key for key in names}
        for file in files.values():
            file.write_text("")
        files["FAKE_PLAN"].write_text(json.dumps(plan or {}))
        base = {
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "RUNNER_TEMP": str(self.home),
        }
        done = subprocess.run(
            ["bash", str(SCRIPTS / name)],
            cwd=cwd or self.repository,
            env={**base, **{key: str(file) for key, file in files.items()}, **env},
            capture_output=True,
            text=True,
            timeout=120,
        )
        outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        calls = [json.loads(line) for line in files["FAKE_LOG"].read_text().splitlines()]
        return Result(
            done.returncode, done.stdout + done.stderr, outputs, files["GITHUB_STEP_SUMMARY"].read_text(), calls
        )


def executable(path: Path, program: str) -> None:
    """A Python program that can be called by its name."""
    path.write_text(f"#!{sys.executable}\n{program}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """On a branch ``topic`` of two commits, off ``main``, which has moved on."""
    (tmp_path / "bin").mkdir()
    executable(tmp_path / "bin" / "backprop-bench", FAKE_SUITE)
    executable(tmp_path / "bin" / "gh", FAKE_GH)
    found = Runner(tmp_path, tmp_path / "origin")
    found.repository.mkdir()
    found.git("init", "-q", "-b", "main")
    for name in ("first", "fork"):
        found.commit(name)
    found.git("tag", "fork-point")
    found.git("checkout", "-q", "-b", "topic")
    for name in ("change", "more"):
        found.commit(name)
    found.git("checkout", "-q", "main")
    found.commit("moved-on")
    found.git("checkout", "-q", "topic")
    return found


def clone(runner: Runner, *options: str, branch: str = "topic") -> Path:
    """A checkout of its own, as actions/checkout makes one."""
    target = runner.home / "clone"
    runner.git("clone", "-q", *options, "--branch", branch, f"file://{runner.repository}", str(target), cwd=runner.home)
    return target


def gate(
    runner: Runner, code: int = 0, *, wrote: dict[str, str] = WROTE, says: str = "", cwd: Path | None = None, **env: str
) -> Result:
    """The gate in a full checkout of a pull request."""
    cwd = cwd or (runner.home / "clone" if (runner.home / "clone").exists() else clone(runner))
    event = {"BASE_REF": "main", "BASE_SHA": runner.git("rev-parse", "main"), "DEFAULT_BRANCH": "main"}
    return runner.script("gate.sh", event | env, {"gate": {"code": code, "writes": wrote, "says": says}}, cwd)


def test_a_pull_request_is_compared_with_its_merge_base(runner: Runner) -> None:
    result = gate(runner, ALLOW="0.1", PROFILE="smoke", IMPLS="numpy,torch", CELLS="-x y", BUDGET="")
    fork, topic = runner.git("rev-parse", "fork-point"), runner.git("rev-parse", "topic")
    assert result.code == 0, result.log
    assert result.calls[0][:3] == ["gate", fork, topic]
    assert (result.outputs["base"], result.outputs["head"]) == (fork, topic)
    assert {
        "allow": "0.1",
        "profile": "smoke",
        "impls": "numpy,torch",
        "cells": "-x y",
    }.items() <= result.options.items()
    assert "budget" not in result.options
    assert "impl" not in result.options


def test_implementations_of_ones_own_are_options_of_their_own(runner: Runner) -> None:
    for script in (gate, history):
        result = script(runner, IMPL="a.py:A\n  *.py:B\n")
        assert [part for part in result.calls[0] if part.startswith("--impl=")] == ["--impl=a.py:A", "--impl=*.py:B"]


def test_the_merge_of_a_pull_request_is_compared_with_what_it_was_merged_into(runner: Runner) -> None:
    stale = runner.git("rev-parse", "fork-point")  # the event's tip may be older than the branch
    target = clone(runner)
    runner.git("checkout", "-q", "--detach", "origin/main", cwd=target)
    runner.git("merge", "-q", "--no-ff", "origin/topic", cwd=target)
    result = gate(runner, BASE_SHA=stale)
    assert result.outputs["base"] == runner.git("rev-parse", "main")


@pytest.mark.parametrize("options", [("--depth", "1"), ("--depth", "1", "--no-single-branch"), ("--single-branch",)])
def test_a_checkout_that_lacks_commits_fetches_them(options: tuple[str, ...], runner: Runner) -> None:
    result = gate(runner, cwd=clone(runner, *options))
    assert result.code == 0, result.log
    assert result.outputs["base"] == runner.git("rev-parse", "fork-point")


def test_a_checkout_that_cannot_fetch_says_what_to_do(runner: Runner) -> None:
    target = clone(runner, "--depth", "1")
    runner.git("remote", "set-url", "origin", str(runner.home / "nowhere"), cwd=target)
    result = gate(runner, cwd=target)
    assert result.code == 2
    assert re.search(r"^::error title=unusable input::no common commit .* fetch-depth: 0", result.log, re.MULTILINE)
    assert result.outputs["verdict"] == "unusable-input"
    assert result.calls == []


def test_on_the_branch_itself_the_last_commit_is_judged(runner: Runner) -> None:
    target = clone(runner, branch="main")
    result = gate(runner, cwd=target, BASE_REF="", BASE_SHA="")
    assert result.calls[0][1:3] == [runner.git("rev-parse", "main^"), runner.git("rev-parse", "main")]


def test_a_base_that_is_given(runner: Runner) -> None:
    assert gate(runner, BASE="fork-point~1").outputs["base"] == runner.git("rev-parse", "fork-point~1")
    assert gate(runner, BASE="main").outputs["base"] == runner.git("rev-parse", "main")  # known as origin/main alone
    for wrong in ("no-such", "--help", "$(touch injected)"):
        result = gate(runner, BASE=wrong)
        assert result.code == 2
        assert f"::error title=unusable input::base '{wrong}' is no commit" in result.log
    assert not list(runner.home.rglob("injected"))


@pytest.mark.parametrize(
    ("code", "fails", "exit_code", "verdict", "annotation"),
    [
        (0, "false", 0, "ok", ""),
        (1, "false", 1, "slower", "::error title=slower::"),
        (4, "false", 0, "cannot-tell", "::warning title=cannot tell::"),
        (4, "true", 4, "cannot-tell", "::warning title=cannot tell::"),
        (130, "false", 130, "interrupted", "::error title=interrupted::"),
        (3, "false", 3, "failed", "::error title=failed::"),
        (137, "false", 137, "failed", "::error title=failed::"),
    ],
)
def test_exit_codes_of_the_gate(
    code: int, fails: str, exit_code: int, verdict: str, annotation: str, runner: Runner
) -> None:
    result = gate(runner, code, FAIL_ON_CANNOT_TELL=fails)
    assert result.code == exit_code, result.log
    assert (result.outputs["verdict"], result.outputs["exit-code"]) == (verdict, str(code))
    found = re.findall(r"^::(?:error|warning|notice) .*", result.log, re.MULTILINE)
    assert len(found) == (1 if annotation else 0)
    assert all(line.startswith(annotation) for line in found)
    assert result.summary == Path(result.outputs["markdown"]).read_text() == TABLE
    assert json.loads(Path(result.outputs["json"]).read_text()) == {"verdict": "x"}
    assert Path(result.outputs["directory"]) == Path(result.outputs["markdown"]).parent
    assert "progress" in result.log


def test_unusable_input_is_told_in_its_own_words(runner: Runner) -> None:
    result = gate(runner, 2, wrote={}, says="error: --impls numpi: 100% unknown\nerror: did you mean 'numpy'")
    assert result.code == 2
    assert "::error title=unusable input::did you mean 'numpy'\n" in result.log
    assert result.outputs["verdict"] == "unusable-input"
    assert "json" not in result.outputs
    assert "    error: --impls numpi: 100% unknown" in result.summary
    assert Path(result.outputs["markdown"]).read_text() == result.summary


def test_a_frame_around_an_error_is_taken_off_and_percent_signs_survive(runner: Runner) -> None:
    framed = "Usage: backprop-bench gate\n╭─ Error ──╮\n│ No such option: --allow at 5%    │\n╰──────────╯"
    result = gate(runner, 2, wrote={}, says=framed)
    assert "::error title=unusable input::No such option: --allow at 5%25\n" in result.log


@pytest.mark.parametrize("code", [0, 1, 4])
def test_a_verdict_without_a_result_is_a_failure(code: int, runner: Runner) -> None:
    result = gate(runner, code, wrote={}, says="Traceback (most recent call last):\nKeyError: 'x'")
    assert result.code == (code or 1)
    assert result.outputs["verdict"] == "failed"
    assert f"broke off with exit code {code}: KeyError: 'x'" in result.log


def test_a_summary_keeps_to_what_github_takes(runner: Runner) -> None:
    row = "| numpy cpu float32 64-10 | +12 % |\n"
    result = gate(runner, wrote={**WROTE, "markdown": row * 50_000})
    assert len(result.summary.encode()) < 1 << 20
    assert result.summary.startswith(row)
    assert "the rest is in the files" in result.summary
    assert set(result.summary.split("\n")[:-3]) <= {row.strip(), ""}


@pytest.mark.parametrize(
    ("mode", "event", "expected"),
    [
        ("auto", "pull_request", "gate"),
        ("auto", "workflow_dispatch", "gate"),
        ("auto", "push", "history"),
        ("gate", "push", "gate"),
        ("history", "pull_request", "history"),
    ],
)
def test_what_is_done_for_an_event(mode: str, event: str, expected: str, runner: Runner) -> None:
    assert runner.script("mode.sh", {"MODE": mode, "GITHUB_EVENT_NAME": event}).outputs == {"mode": expected}


def test_a_mode_that_is_none(runner: Runner) -> None:
    result = runner.script("mode.sh", {"MODE": "gaet", "GITHUB_EVENT_NAME": "push"})
    assert result.code == 2
    assert "::error title=backprop-bench::mode is 'gaet'" in result.log


# --- history --------------------------------------------------------------------------------------------------------


def history(runner: Runner, codes: dict[str, int] | None = None, **env: str) -> Result:
    """The history's script; ``run``, ``add`` and ``page`` end with these codes."""
    codes = {"run": 0, "add": 0, "page": 0} | (codes or {})
    plan = {
        "run": {"code": codes["run"], "says": "error: run"},
        "history add": {"code": codes["add"], "says": "error: add", "writes": {"db": "database"}},
        "history page": {"code": codes["page"], "says": "error: page", "writes": {"out": "<html>"}},
    }
    inputs = {"HISTORY_DB": "~/kept/history.db", "PROFILE": "smoke", "REPO_URL": "https://example.org/a/b"}
    return runner.script("history.sh", inputs | env, plan)


def test_a_push_is_measured_and_added(runner: Runner) -> None:
    result = history(runner)
    assert result.code == 0, result.log
    assert "::notice title=history::no history at ~/kept/history.db: a new one begins" in result.log
    database = runner.home / "kept" / "history.db"
    out = Path(result.outputs["directory"])
    assert result.calls == [
        ["run", f"--out={out}/run", "--profile=smoke"],
        ["history", "add", f"{out}/run", f"--db={database}"],
        ["history", "page", f"--db={database}", f"--out={out}/history.html", "--repo-url=https://example.org/a/b"],
    ]
    assert result.outputs["added"] == "true"
    assert result.outputs["page"] == f"{out}/history.html"
    assert (out / "history.db").read_text() == database.read_text() == "database"
    assert "was added" in result.summary
    assert "a new one begins" not in history(runner).log  # the second run finds the first


@pytest.mark.parametrize(
    ("codes", "added", "told"),
    [
        ({"run": 2}, False, "exit code 2: run"),
        ({"run": 130}, False, "exit code 130: run"),
        ({"run": 3}, True, "exit code 3: some cells failed; the others were added"),
        ({"add": 2}, False, "exit code 2: add"),
        ({"page": 2}, True, "exit code 2: page"),
    ],
)
def test_a_history_that_fails(codes: dict[str, int], added: bool, told: str, runner: Runner) -> None:
    result = history(runner, codes)
    assert result.code == next(iter(codes.values()))
    assert result.outputs["exit-code"] == str(result.code)
    assert ("added" in result.outputs) is added
    assert f"::error title=history::{told}\n" in result.log


# --- the comment ----------------------------------------------------------------------------------------------------

needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="the fake gh answers queries with jq")


def comment(runner: Runner, markdown: str = TABLE, **env: str) -> Result:
    """The comment's script under pull request 7."""
    (runner.home / "gate.md").write_text(markdown)
    event = {"GITHUB_REPOSITORY": "a/b", "PULL_REQUEST": "7", "GH_TOKEN": "x", "MARKDOWN": str(runner.home / "gate.md")}
    return runner.script("comment.sh", event | {"FAKE_COMMENTS": str(runner.home / "comments.json")} | env)


def comments(runner: Runner) -> list[dict[str, Any]]:
    """Comments under the pull request."""
    found: list[dict[str, Any]] = json.loads((runner.home / "comments.json").read_text())
    return found


@needs_jq
def test_one_comment_is_kept_up_to_date(runner: Runner) -> None:
    others = [
        {"databaseId": 1, "viewerDidAuthor": False, "body": "<!-- backprop-bench: gate -->\nnot ours to change"},
        {"databaseId": 2, "viewerDidAuthor": True, "body": "quotes <!-- backprop-bench: gate -->"},
    ]
    (runner.home / "comments.json").write_text(json.dumps(others))
    for text in ("slower\n", "ok\n"):
        result = comment(runner, text)
        assert result.code == 0, result.log
        assert "::notice" not in result.log, result.log
    assert comments(runner)[:2] == others
    assert [found["body"] for found in comments(runner)[2:]] == ["<!-- backprop-bench: gate -->\nok\n"]
    comment(runner, "other\n", KEY='a"b')
    assert comments(runner)[3]["body"] == "<!-- backprop-bench: a-b -->\nother\n"
    assert comments(runner)[2]["body"].endswith("\nok\n")


@needs_jq
def test_a_comment_keeps_to_what_github_takes(runner: Runner) -> None:
    (runner.home / "comments.json").write_text("[]")
    comment(runner, "| µ |\n" * 20_000)
    assert len(comments(runner)[0]["body"]) < 1 << 16


def test_a_token_that_may_not_comment_fails_nothing(runner: Runner) -> None:
    result = comment(runner, FAKE_GH_REFUSES="yes")
    assert result.code == 0
    assert "::notice title=comment::this token may not comment" in result.log


def test_a_runner_without_gh_fails_nothing(runner: Runner) -> None:
    (runner.home / "bin" / "gh").unlink()
    tools = ("bash", "dirname", "mktemp", "awk", "cat")
    for tool in tools:
        (runner.home / "bin" / tool).symlink_to(str(shutil.which(tool)))
    result = comment(runner, PATH=str(runner.home / "bin"))
    assert result.code == 0
    assert "gh is not on this runner" in result.log


# --- the installation -----------------------------------------------------------------------------------------------


def test_the_suite_gets_an_environment_of_its_own(runner: Runner) -> None:
    program = """
import os, pathlib, sys
if sys.argv[1:3] == ["-m", "venv"]:
    target = pathlib.Path(sys.argv[3]) / "bin"
    target.mkdir(parents=True)
    (target / "python").symlink_to(os.path.realpath(__file__))
else:
    print(sys.argv[1:])
"""
    executable(runner.home / "bin" / "python", program)
    where = {"GITHUB_ACTION_PATH": "/the action"}
    full = runner.script("install.sh", where | {"EXTRAS": "torch,jax", "PIP_ARGS": "--pre --find-links=x"})
    assert full.code == 0, full.log
    assert "'--pre', '--find-links=x', '-c', '/the action/constraints.txt', '-e', '/the action[torch,jax]'" in full.log
    (path,) = (runner.home / "GITHUB_PATH").read_text().splitlines()
    assert (Path(path) / "python").exists()
    bare = runner.script("install.sh", where | {"EXTRAS": "", "PIP_ARGS": ""})
    assert "'--disable-pip-version-check', '-c', '/the action/constraints.txt', '-e', '/the action']" in bare.log
