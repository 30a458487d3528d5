"""The command line: parse, call, exit code.

Exit codes: 0 done, 2 unusable input, 3 some cells failed, 70 it broke itself, 130 interrupted; of ``gate`` also
1 slower, gone or failed, 4 cannot tell.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backprop_files import ON_REQUEST, UserError, write_whole

if TYPE_CHECKING:
    from analysis.cluster import Prediction as Scaling
    from analysis.comparison import Comparison
    from bench.experiments import Experiment
    from bench.experiments import Settings as AskedOfExperiments
    from bench.plan import Settings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="What does a step of backpropagation cost, and does it grow as O(n·m·p)?",
)
console = Console()
DTYPE_HELP = "float32, float64; bfloat16, float16; on accelerators tf32 (default: float32 where there is one)"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _hand_out(text: str, out: Path | None) -> None:
    """To a file, or as it is to standard output."""
    if out is None:
        sys.stdout.write(text)
    else:
        write_whole(out, text)


@app.command()
def run(
    profile: Annotated[
        str, typer.Option(help="smoke, quick or full; of a GPU's size: gpu, gpu-quick, gpu-large")
    ] = "quick",
    impls: Annotated[str, typer.Option(help="implementations, comma-separated (default: the profile's)")] = "",
    impl: Annotated[list[str] | None, typer.Option(help="your own: file.py:Class or package.module:Class")] = None,
    data: Annotated[
        str, typer.Option(help="synthetic, digits, or a data file (.csv, .npz) of that shape")
    ] = "synthetic",
    device: Annotated[str, typer.Option(help="cpu, cuda[:i] or gpu[:i]")] = "cpu",
    threads: Annotated[int, typer.Option(help="cores to measure with")] = 1,
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "",
    phases: Annotated[
        str,
        typer.Option(
            help="of step,forward,loss,backward,update,transfer,transfer-pinned (default: all; on the CPU no transfers)"
        ),
    ] = "",
    optimizers: Annotated[
        str, typer.Option(help="optimizers, comma-separated (default: gradient-descent; full: all)")
    ] = "",
    passes: Annotated[int, typer.Option(help="fresh processes per implementation (default: the profile's)")] = 0,
    budget: Annotated[float | None, typer.Option(help="seconds for all measuring (default: the profile's)")] = None,
    cell_seconds: Annotated[
        float | None, typer.Option(help="seconds each cell is timed in a pass (default: the profile's)")
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(help="further passes until intervals are so narrow, 0.02 is ±2 %, or the budget is spent"),
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of problems, joint design and order")] = 0,
    out: Annotated[Path | None, typer.Option(help="run directory (default: reports/<profile>-<time>)")] = None,
    resume: Annotated[bool, typer.Option(help="finish the run in --out")] = False,
    laws: Annotated[Path | None, typer.Option(help="laws of your own beside ours, as TOML (see docs/laws.md)")] = None,
    experiments: Annotated[
        str, typer.Option(help="experiments after the sweep, comma-separated, or all (see: experiment --list)")
    ] = "",
    architectures: Annotated[
        str,
        typer.Option(
            help="workloads after the sweep, comma-separated, or all: cnn, transformer, … (docs/architectures.md)"
        ),
    ] = "",
    scheduler: Annotated[str, typer.Option(help="a Dask scheduler whose workers measure: tcp://HOST:PORT")] = "",
    scheduler_file: Annotated[Path | None, typer.Option(help="the file in which a scheduler wrote its address")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="certificate authority of a fleet at tls://HOST:PORT")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="certificate to show there")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="its key")] = None,
    wait: Annotated[float, typer.Option(help="seconds to wait for a worker of the scheduler")] = 60.0,
    open_page: Annotated[bool, typer.Option("--open", help="open the report in the browser at the end")] = False,
) -> None:
    """Measure, and write the report."""
    from analysis.hypotheses import declared
    from analysis.report import write_report
    from bench import plan
    from bench import run as runner
    from bench.experiments import run as experimenter
    from impls import datasets

    settings = plan.Settings(
        profile=profile,
        impls=_names(impls),
        own=tuple(impl or ()),
        device=device,
        threads=threads,
        dtype=dtype,
        phases=_names(phases) or plan.ALL_PHASES,
        seed=seed,
        data=datasets.located(data),
        passes=passes,
        budget_s=budget,
        cell_s=cell_seconds,
        precision=precision,
        optimizers=_names(optimizers),
    )
    declared(laws)  # what is wrong in the file is said before anything is measured
    where = (scheduler, scheduler_file, tls_ca, tls_cert, tls_key, wait) if scheduler or scheduler_file else None
    if where and (experiments or architectures):
        raise UserError("--experiments and --architectures are measured on this machine: leave out --scheduler")
    if not where and (tls_ca or tls_cert or tls_key):
        raise UserError("--tls-ca, --tls-cert and --tls-key belong to --scheduler")
    further = _experiments(f"{experiments},architectures" if _names(architectures) else experiments)
    chosen = _architectures(architectures)
    asked = replace(_asked_of_experiments(settings), architectures=chosen) if further else None
    if asked:
        _tell_left_out(further, asked)
        experimenter.plan_of(further, asked)
    if resume and out is None:
        raise UserError("--resume needs --out: the directory of the run to finish")
    directory = out or runner.default_out(settings)
    code, why = _sweep(settings, directory, resume, where)
    if code == runner.INTERRUPTED:
        print(f"{why}; finished cells are in {directory}, --resume goes on from there", file=sys.stderr)
        raise typer.Exit(code)
    failed = _run_experiments(further, asked, directory, resume) if asked else []
    if code and not any(directory.glob("data/*.json")) and not further:
        print(f"{directory}: no cell could be measured, so there is no report", file=sys.stderr)
        raise typer.Exit(code)
    page = write_report([directory], directory, laws)
    console.print(f"report: {page.resolve()}", soft_wrap=True)
    if open_page:
        _show(page)
    if code or failed:
        print("some cells or tasks failed; the report names them with their reasons", file=sys.stderr)
        raise typer.Exit(code or runner.SOME_FAILED)


def _sweep(settings: Settings, directory: Path, resume: bool, where: tuple[Any, ...] | None) -> tuple[int, str]:
    """Measure here, or by the workers of a scheduler; returns the exit code, and why a run was interrupted."""
    from bench import run as runner

    if where is None:
        return runner.sweep(settings, directory, resume, console), "interrupted"
    from analysis.machines import grouped
    from bench.fleet import run as fleet
    from bench.fleet.connection import Where

    try:
        return fleet.sweep(settings, directory, resume, console, Where(*where), grouped), ""
    except fleet.Interrupted as reason:
        return runner.INTERRUPTED, str(reason)


def _experiments(names: str) -> list[Experiment]:
    """The experiments of these names, ``all`` for all but those on request.  Raises UserError for an unknown one."""
    from bench import experiments

    usual = [name for name in experiments.NAMES if name not in ON_REQUEST]
    wanted = [known for name in _names(names) for known in (usual if name == "all" else (name,))]
    return [experiments.find(name) for name in dict.fromkeys(wanted)]


def _architectures(names: str) -> tuple[str, ...]:
    """Workloads by name; all of them for ``all`` and for none."""
    found = _names(names)
    return () if "all" in found else found


def _asked_of_experiments(settings: Settings) -> AskedOfExperiments:
    """What a sweep's settings ask of the experiments behind it."""
    from bench import experiments

    usual = experiments.Settings()
    return experiments.Settings(
        profile=settings.profile if settings.profile in experiments.PROFILES else usual.profile,
        impls=(*settings.impls, *settings.own),
        device=settings.device,
        threads=settings.threads,
        dtype=settings.dtype or usual.dtype,
        seed=settings.seed,
        data=usual.data if settings.data == "synthetic" else settings.data,
    )


def _tell_left_out(chosen: list[Experiment], settings: AskedOfExperiments) -> None:
    """Of what is measured where no implementation is named: what cannot run here, and why."""
    from bench.experiments import run as experimenter

    left_out = {} if settings.impls else {k: v for e in chosen for k, v in experimenter.usual_impls(e)[1].items()}
    for name, reason in left_out.items():
        console.print(f"left out: {name}: {reason}", markup=False, highlight=False, soft_wrap=True)


def _run_experiments(
    chosen: list[Experiment], settings: AskedOfExperiments, directory: Path, resume: bool
) -> list[dict[str, Any]]:
    """Measure; returns what failed.  Raises Exit when interrupted."""
    from bench.experiments import run as experimenter

    try:
        return experimenter.run(chosen, settings, directory, resume, console)
    except KeyboardInterrupt:
        print(f"interrupted; finished tasks are in {directory}, --resume goes on from there", file=sys.stderr)
        raise typer.Exit(130) from None


@app.command()
def experiment(
    names: Annotated[
        list[str] | None,
        typer.Argument(help=f"experiments, or all (but {' and '.join(ON_REQUEST)}, which are asked for by name)"),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="what there is, and which claim each tests")] = False,
    profile: Annotated[str, typer.Option(help="smoke, quick or full")] = "quick",
    impls: Annotated[str, typer.Option(help="implementations, comma-separated (default: the experiment's)")] = "",
    impl: Annotated[list[str] | None, typer.Option(help="your own: file.py:Class or package.module:Class")] = None,
    data: Annotated[str, typer.Option(help="digits, diabetes, or a file: .csv or .npz (see docs/data.md)")] = "digits",
    architectures: Annotated[
        str, typer.Option(help="of the experiment architectures: workloads, comma-separated (default: all)")
    ] = "",
    ranks: Annotated[
        str, typer.Option(help="of the experiment parallel: numbers of ranks, comma-separated (default: 1,2,4)")
    ] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda[:i] or gpu[:i]")] = "cpu",
    threads: Annotated[int, typer.Option(help="cores to measure with")] = 1,
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "float32",
    seed: Annotated[int, typer.Option(help="seed of data, parameters and order")] = 0,
    out: Annotated[Path | None, typer.Option(help="directory (default: reports/<experiment>-<time>)")] = None,
    resume: Annotated[bool, typer.Option(help="finish what is in --out")] = False,
) -> None:
    """Put the article's other claims to the test: measure, and write the report."""
    from analysis.report import write_report
    from bench import experiments
    from impls import datasets

    if list_:
        _list_experiments()
        return
    if not names:
        raise UserError(f"name an experiment: {', '.join(experiments.NAMES)}, or all; --list says what each tests")
    if resume and out is None:
        raise UserError("--resume needs --out: the directory of the run to finish")
    if architectures and "architectures" not in names:
        raise UserError(
            "--architectures chooses among the workloads of an experiment that was not named: architectures"
        )
    if ranks and "parallel" not in names:
        raise UserError("--ranks are those of an experiment that was not named: parallel")
    settings = experiments.Settings(
        profile=profile,
        impls=(*_names(impls), *(impl or ())),
        device=device,
        threads=threads,
        dtype=dtype,
        seed=seed,
        data=datasets.located(data),
        architectures=_architectures(architectures),
        ranks=_ranks(ranks),
    )
    chosen = _experiments(",".join(names))
    _tell_left_out(chosen, settings)
    directory = out or Path("reports") / f"{'-'.join(names)}-{time.strftime('%Y%m%d-%H%M%S')}"
    failed = _run_experiments(chosen, settings, directory, resume)
    console.print(f"report: {write_report([directory], directory).resolve()}", soft_wrap=True)
    if failed:
        print(f"{len(failed)} tasks failed; the report names them with their reasons", file=sys.stderr)
        raise typer.Exit(3)


def _ranks(text: str) -> tuple[int, ...]:
    """Numbers of ranks, each once.  Raises UserError for what is no such list."""
    if not all(name.isdecimal() and int(name) > 0 for name in _names(text)):
        raise UserError(f"--ranks {text}: give numbers of processes with commas: 1,2,4")
    return tuple(dict.fromkeys(map(int, _names(text))))


def _list_experiments() -> None:
    from bench import experiments

    table = Table("experiment", "claim", "how it is tested", box=None, pad_edge=False, padding=(0, 2, 1, 0))
    for name in experiments.NAMES:
        found = experiments.find(name)
        table.add_row(name, found.claim, found.summary)
    console.print(table)


@app.command()
def report(
    paths: Annotated[list[Path], typer.Argument(help="run directories or pytest-benchmark JSON files")],
    out: Annotated[Path | None, typer.Option(help="where to write (default: the run directory, or ./report)")] = None,
    laws: Annotated[Path | None, typer.Option(help="laws of your own beside ours, as TOML (see docs/laws.md)")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="runs side by side, ratios over the first one")] = False,
) -> None:
    """Write the report from files alone."""
    from analysis.report import write_report

    if compare:
        from analysis.hypotheses import declared
        from analysis.page.compare import write_comparison

        page = write_comparison(paths, out or Path("compare"), declared(laws))
        console.print(f"comparison: {page.resolve()}", soft_wrap=True)
        return
    directory = out or (paths[0] if paths[0].is_dir() else Path("report"))
    console.print(f"report: {write_report(paths, directory, laws).resolve()}", soft_wrap=True)


@app.command(name="open")
def open_(
    run: Annotated[
        Path | None, typer.Argument(help="run directory or page (default: the newest report under reports/)")
    ] = None,
) -> None:
    """Open a run's page in the browser."""
    _show(_page_of(run))


def _page_of(run: Path | None) -> Path:
    """The page of a run directory, or the newest under reports/.  Raises UserError where there is none."""
    if run is None:
        pages = sorted(Path("reports").glob("*/report.html"), key=lambda page: page.stat().st_mtime)
        if not pages:
            raise UserError("no report under reports/: name a run directory, or make one with 'backprop-bench run'")
        return pages[-1]
    if run.is_file() and run.suffix == ".html":
        return run
    for name in ("report.html", "compare.html"):
        if (run / name).is_file():
            return run / name
    hint = f"'backprop-bench report {run}' writes it" if run.exists() else "no such directory"
    raise UserError(f"{run}: has no report.html: {hint}")


def _show(page: Path) -> None:
    """In the browser; where none can be opened, its address."""
    import webbrowser

    address = page.resolve().as_uri()
    if not webbrowser.open(address):
        console.print(f"no browser could be opened; the page is {address}", soft_wrap=True, markup=False)


Base = Annotated[str | None, typer.Argument(help="git revision to compare with")]
Head = Annotated[str | None, typer.Argument(help="git revision that is judged (default: the working tree as it is)")]
Cells = Annotated[str, typer.Option(help="cells by part of their name or pattern, comma-separated (default: all)")]
Compared = Annotated[str, typer.Option(help="implementations, comma-separated (default: the quick profile's)")]
Own = Annotated[list[str] | None, typer.Option("--impl", help="your own, as each side has it: file.py:Class")]
Profile = Annotated[str, typer.Option(help="whose cells: smoke, quick or full")]
Phases = Annotated[str, typer.Option(help="of step,forward,loss,backward,update")]
Optimizers = Annotated[str, typer.Option(help="optimizers, comma-separated (default: gradient-descent; full: all)")]
Device = Annotated[str, typer.Option(help="cpu, cuda[:i] or gpu[:i]")]
Threads = Annotated[int, typer.Option(help="cores to measure with")]
Dtype = Annotated[str, typer.Option(help=DTYPE_HELP)]
BasePython = Annotated[Path | None, typer.Option(help="interpreter or virtual environment of the base")]
HeadPython = Annotated[Path | None, typer.Option(help="interpreter or virtual environment of the head")]
With = Annotated[list[str] | None, typer.Option("--with", help="a library as head has it: torch==2.12")]
Allow = Annotated[float, typer.Option(help="slower by so much is no regression: 0.05 is 5 %")]
Seconds = Annotated[float, typer.Option("--budget", help="seconds after which no further session starts")]
Seed = Annotated[int, typer.Option(help="seed of problems and order")]
Out = Annotated[Path | None, typer.Option(help="where measurements go (default: reports/ab-<time>)")]
From = Annotated[Path | None, typer.Option("--from", help="judge what was measured there, measure nothing")]
Markdown = Annotated[Path | None, typer.Option(help="also write the table there, for a pull request")]
Json = Annotated[Path | None, typer.Option("--json", help="also write the result there, for scripts")]


def _comparing(words: bool) -> Callable[..., None]:
    """The command of ``ab``, which tells each cell's word, and of ``gate``, which wants them cleared and exits by that."""

    def command(
        base: Base = None,
        head: Head = None,
        cells: Cells = "",
        impls: Compared = "",
        impl: Own = None,
        profile: Profile = "smoke",
        phases: Phases = "step",
        optimizers: Optimizers = "",
        device: Device = "cpu",
        threads: Threads = 1,
        dtype: Dtype = "",
        base_python: BasePython = None,
        head_python: HeadPython = None,
        with_: With = None,
        allow: Allow = 0.05,
        budget: Seconds = 300.0,
        seed: Seed = 0,
        out: Out = None,
        from_: From = None,
        markdown: Markdown = None,
        json_file: Json = None,
    ) -> None:
        code = _compare(locals(), words)
        raise typer.Exit(0 if words else code)

    return command


app.command("ab", help="Two revisions, environments or library versions side by side: faster, same, slower.")(
    _comparing(words=True)
)
app.command(
    "gate", help="The same for CI: exits with 0 nothing slower, 1 slower (proved), 4 cannot tell, 2 bad input."
)(_comparing(words=False))


def _compare(given: dict[str, Any], words: bool) -> int:
    """Measure and judge, or judge what is there; prints tables, writes files, returns the gate's exit code."""
    from analysis import comparison, comparison_report

    allow: float = given["allow"]
    if not 0 < allow < 1:
        raise UserError(f"--allow {allow:g}: give a share of the time above 0, such as 0.05")
    if not (given["budget"] > 0 and math.isfinite(given["budget"])):
        raise UserError(f"--budget {given['budget']:g}: give a positive number of seconds")
    if given["from_"] and (given["base"] or given["out"]):
        raise UserError("--from judges what was measured: leave out BASE, HEAD and --out")
    directory: Path = given["from_"] or given["out"] or Path("reports") / f"ab-{time.strftime('%Y%m%d-%H%M%S')}"
    if given["from_"] is None:
        _measure_sides(given, directory, words)
    found = comparison.compare(directory, allow)
    comparison_report.write(found, directory, given["markdown"], given["json_file"])
    _tell_comparison(found, directory)
    return found.exit_code


def _measure_sides(given: dict[str, Any], directory: Path, words: bool) -> None:
    """Both sides into ``directory``, cells in doubt again and again.  Raises UserError, or Exit when interrupted."""
    from analysis import comparison
    from bench import duel, plan, sides

    settings = plan.Settings(
        profile=given["profile"],
        impls=_names(given["impls"]),
        own=tuple(given["impl"] or ()),
        device=given["device"],
        threads=given["threads"],
        dtype=given["dtype"],
        phases=_names(given["phases"]) or plan.ALL_PHASES,
        seed=given["seed"],
        optimizers=_names(given["optimizers"]),
    )
    wish = sides.Wish(
        given["base"], given["head"], given["base_python"], given["head_python"], tuple(given["with_"] or ())
    )
    deadline = time.monotonic() + given["budget"]

    def judge(look: int) -> set[str]:
        return comparison.doubtful(comparison.compare(directory, given["allow"], whole=False), look, words)

    duel.refuse_used(directory)
    try:
        with sides.prepared(wish, settings) as (pair, described), console.status("preparing both sides") as status:
            for side in pair:
                console.print(f"{side.name}: {side.told}", soft_wrap=True, highlight=False)
            asked = duel.Duel(pair, described, settings, directory, _names(given["cells"]))
            asked.tell = lambda text: status.update(escape(text))
            asked.measure(judge, deadline)
    except KeyboardInterrupt:
        kept = (
            f"; finished sessions are kept: --from {directory} judges them"
            if (directory / "duel.json").exists()
            else ""
        )
        print(f"interrupted{kept}", file=sys.stderr)
        raise typer.Exit(130) from None


def _tell_comparison(found: Comparison, directory: Path) -> None:
    """Cells by series, then what changed of growth, prices and memory, then the whole."""
    from analysis import comparison_report as report

    for series, rows in report.by_series(found).items():
        _print_rows(series, rows)
    _print_rows("growth that is dearer, or may be", [r for r in report.change_rows(found) if r["word"] in STYLES])
    _print_rows(
        "overhead, crossover, prices", [r for r in report.quantity_rows(found) if r["word"] in ("larger", "smaller")]
    )
    _print_rows("peak bytes that changed", report.memory_rows(found))
    if told := report.growth_told(found):
        console.print(told, style="dim", markup=False, highlight=False)
    for label in found.new:
        console.print(f"new in head, nothing to compare with: {label}", style="dim", markup=False)
    for row in found.left_out:
        console.print(f"left out: {row['impl']} {row['cell']}: {row['reason']}", style="dim", markup=False)
    colour = {"slower": "red", "cannot tell": "yellow", "nothing slower": "green"}[found.outcome]
    for reason in found.reasons:
        console.print(f"  {reason}", style=colour, markup=False, soft_wrap=True, highlight=False)
    console.print(report.headline(found), style=f"bold {colour}", markup=False, soft_wrap=True, highlight=False)
    console.print(f"all of it: {directory / 'comparison.md'}", soft_wrap=True, highlight=False)


def _print_rows(title: str, rows: list[dict[str, str]]) -> None:
    if not rows:
        return
    table = Table(box=None, pad_edge=False, title=escape(title), title_justify="left", title_style="bold")
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("cell", "series", "axis", "quantity", "word") else "right")
    for row in rows:
        table.add_row(*map(escape, row.values()), style=STYLES.get(row["word"]))
    console.print(table, "")


STYLES = {"slower": "red", "larger": "red", "faster": "green", "smaller": "green", "cannot tell": "yellow"}


MachineClass = Annotated[str, typer.Option(help="where machines of several classes measured: which, by its name")]


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="run directory or pytest-benchmark JSON file")],
    format_: Annotated[
        str, typer.Option("--format", help="gab (github-action-benchmark) or bmf (Bencher Metric Format)")
    ],
    out: Annotated[Path | None, typer.Option(help="file to write (default: standard output)")] = None,
    machine_class: MachineClass = "",
) -> None:
    """A run as JSON for a service that watches benchmarks (see docs/ci.md)."""
    from analysis import exports

    _hand_out(exports.export(run, format_, machine_class), out)


@app.command()
def predict(
    run: Annotated[Path, typer.Option(help="run directory or pytest-benchmark JSON to predict from")],
    impl: Annotated[str, typer.Option(help="implementation")],
    n: Annotated[int, typer.Option("--n", help="training examples in one step")],
    widths: Annotated[str, typer.Option(help="units of every layer, inputs first: 784,2048,2048,10")],
    activation: Annotated[str, typer.Option(help="horner-K, or one that the run measured")] = "horner-4",
    optimizer: Annotated[str, typer.Option(help="one whose updates the run measured (default: its usual one)")] = "",
    rows: Annotated[int | None, typer.Option(help="also an epoch: so many examples in batches of --n")] = None,
    device: Annotated[str, typer.Option(help="where the run has several")] = "",
    dtype: Annotated[str, typer.Option(help="where the run has several")] = "",
    laws: Annotated[Path | None, typer.Option(help="laws of your own beside ours, as TOML")] = None,
    machine_class: MachineClass = "",
    ranks: Annotated[
        str, typer.Option(help="over so many ranks: 1..4096, which doubles, or 1,2,3,8 (docs/parallel.md)")
    ] = "",
    alpha: Annotated[float | None, typer.Option(help="seconds a hop of an all-reduce (default: as measured)")] = None,
    beta: Annotated[float | None, typer.Option(help="seconds a byte of an all-reduce (default: as measured)")] = None,
    out: Annotated[Path | None, typer.Option(help="with --ranks: where figures go")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False,
) -> None:
    """Time and memory of a step that was never measured, from a run's winning laws; with --ranks over a cluster."""
    from analysis import load
    from analysis import predict as predictor
    from analysis.hypotheses import declared

    layers = _sizes(widths)
    if ranks:
        from analysis import cluster

        if optimizer or rows is not None:
            raise UserError("--optimizer and --rows go without --ranks")
        wanted = cluster.ranks_of(ranks)
        base = cluster.from_run(
            run, impl, layers, activation, (alpha, beta), declared(laws), device, dtype, machine_class
        )
        _tell_cluster(cluster.predicted(base, layers, activation, n, wanted), out, as_json)
        return
    if alpha is not None or beta is not None or out is not None:
        raise UserError("--alpha, --beta and --out go with --ranks: over how many ranks, such as 1..4096")
    measured = load.one_class(load.load([run]), machine_class)
    series = predictor.series(measured, impl, declared(laws), device, dtype)
    found = predictor.predict(series, layers, n, activation, optimizer)
    epoch = None if rows is None else predictor.epoch(series, layers, n, activation, rows, optimizer)
    if as_json:
        print(json.dumps(predictor.document(found, epoch), indent=1))
        return
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    for key, value in predictor.told(found, epoch):
        table.add_row(key, value)
    console.print(table, markup=False)
    for warning in found.beyond:
        console.print(f"[yellow]extrapolated:[/yellow] {escape(warning)}")


def _tell_cluster(found: Scaling, out: Path | None, as_json: bool) -> None:
    from analysis import cluster, cluster_figures

    document = cluster.document(found)
    written = cluster_figures.write(found, document, out) if out else []
    if as_json:
        print(json.dumps(document, indent=1))
        return
    table = Table(*cluster.HEADER, box=None, pad_edge=False)
    for column in table.columns:
        column.justify, column.no_wrap = "right" if column.header != "scaling" else "left", True
    for row in cluster.table(found):
        table.add_row(*row)
    console.print(table, markup=False)
    for sentence in cluster.told(found):
        console.print(sentence, markup=False, highlight=False)
    console.print("Assumed:")
    for one in found.assumptions:
        console.print(f"- {one}", markup=False, highlight=False)
    for warning in found.beyond:
        console.print(f"[yellow]extrapolated:[/yellow] {escape(warning)}")
    for path in written:
        console.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--widths {text}: give whole numbers with commas, inputs first: 784,2048,2048,10") from error


@app.command(name="list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False) -> None:
    """Implementations: what each can do, and what is missing for it."""
    from bench import machine
    from impls import registry

    rows: list[dict[str, Any]] = [
        {
            "impl": entry.name,
            "summary": entry.summary,
            "devices": list(entry.devices),
            "devices_here": [device for device in entry.devices if not machine.device_missing(device)],
            "devices_missing": {
                device: reason for device in entry.devices if (reason := machine.device_missing(device))
            },
            "dtypes": list(entry.dtypes),
            "accelerator_dtypes": list(entry.accelerator_dtypes),
            "phases": list(entry.phases),
            "missing": entry.missing(),
        }
        for entry in registry.ENTRIES
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("implementation", "what", "devices", "dtypes", "here", box=None, pad_edge=False)
    for row in rows:
        absent = [f"[dim]{device}: {escape(row['devices_missing'][device])}[/dim]" for device in row["devices_missing"]]
        devices = "\n".join([", ".join(row["devices_here"]), *absent])
        dtypes = [*row["dtypes"], *(f"{dtype} (accelerators)" for dtype in row["accelerator_dtypes"])]
        table.add_row(row["impl"], row["summary"], devices, ", ".join(dtypes), _here(row))
    console.print(table)
    for i, card in enumerate(machine.accelerators()):
        console.print(f"accelerator {i}: {machine.told(card)}", markup=False, highlight=False, soft_wrap=True)


def _here(row: dict[str, Any]) -> str:
    """Whether an implementation can run on this machine, in a word or with the reason."""
    if row["missing"]:
        return f"[yellow]{escape(row['missing'])}[/yellow]"
    return "[green]ready[/green]" if row["devices_here"] else "[yellow]no device for it here[/yellow]"


@app.command()
def doctor(
    threads: Annotated[int, typer.Option(help="cores to measure with")] = 1,
    noise: Annotated[
        bool, typer.Option("--noise", help="an A/A test of about a minute: the smallest change seen")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False,
) -> None:
    """Machine facts, threads as every library sees them, noise, and what would spoil a run."""
    from bench import doctor as examiner
    from bench import machine
    from bench.process import check_threads

    check_threads(threads)
    if noise:
        _tell_noise(threads, as_json)
        return
    found = examiner.examine(threads)
    if as_json:
        print(json.dumps(found, indent=1, default=str))
        return
    table = Table("fact", "value", box=None, pad_edge=False)
    for key, value in found["machine"].items():
        told = "; ".join(map(machine.told, value)) or "none" if key == "accelerators" else str(value)
        table.add_row(key.replace("_", " "), told)
    for device, reason in found["devices"].items():
        table.add_row(f"device {device}", reason)
    for kernel, spread in found["noise"].items():
        told = f"{spread['median_s'] * 1e3:.3f} ms, spread {spread['spread']:.1%}, worst {spread['worst']:.1f}×"
        table.add_row(f"noise of the {kernel} kernel", told)
    for name, seen in found["threads"].items():
        pools = ", ".join(f"{pool['internal_api']} {pool['num_threads']}" for pool in seen.get("pools", []))
        extra = "".join(f"; {key} {seen[key]}" for key in ("torch", "jax") if key in seen)
        cores = f"; cores {seen.get('affinity')}"
        table.add_row(f"threads of {name}", seen.get("missing") or f"{pools or 'no pool'}{extra}{cores}", style=None)
    console.print(table, markup=False)
    for warning in found["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {warning}")
    if not found["warnings"]:
        console.print("[green]nothing found that would spoil a run[/green]")


def _tell_noise(threads: int, as_json: bool) -> None:
    from bench import noise

    found = noise.test(60.0, threads)
    if as_json:
        print(json.dumps([asdict(row) for row in found], indent=1))
        return
    columns = [f"smallest change, {k} passes each" for k in noise.SIDES]
    table = Table("cell", "time", "CV between processes", *columns, box=None, pad_edge=False)
    for row in found:
        table.add_row(
            row.cell, row.kind, f"{row.deviation:.1%}", *(f"{row.smallest_change[k]:.1%}" for k in noise.SIDES)
        )
    console.print(table)
    console.print(f"{found[0].processes} fresh processes of {noise.IMPLEMENTATION}; changes told apart at 95 %")


history = typer.Typer(no_args_is_help=True, help="What changed from commit to commit: one file that runs are added to.")
app.add_typer(history, name="history")
_Db = Annotated[Path, typer.Option("--db", help="the history's one file")]
_DB = Path("history.db")


@history.command(name="add")
def history_add(
    run: Annotated[Path, typer.Argument(help="run directory or pytest-benchmark JSON file")],
    db: _Db = _DB,
    commit: Annotated[str, typer.Option(help="id of the commit that was measured, where the run does not tell")] = "",
    commit_time: Annotated[str, typer.Option(help="when it was committed: 2026-01-31T12:00:00Z")] = "",
    machine_class: MachineClass = "",
) -> None:
    """Add a run: its cells, exponents, overhead, laws and memory."""
    from analysis import history as store
    from analysis.history_record import record

    console.print(store.add(db, record(run, commit, commit_time, machine_class)), markup=False, soft_wrap=True)
    store.read(db)  # finds what changed now, so that whoever looks need not wait


@history.command(name="show")
def history_show(
    db: _Db = _DB,
    impl: Annotated[str, typer.Option(help="implementation")] = "",
    phase: Annotated[str, typer.Option(help="step, forward, loss, backward, update or memory")] = "",
    cell: Annotated[str, typer.Option(help="cells whose name holds this: n=64, or 64-128-10")] = "",
    quantity: Annotated[str, typer.Option(help="time, exponents, memory, costs, law, machine, or one quantity")] = "",
    machine: Annotated[str, typer.Option(help="machine class: its id, or a part of its name")] = "",
    limit: Annotated[int, typer.Option(min=0, help="series at most, those with steps first; 0 for all")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False,
) -> None:
    """Series with their latest values and what changed in them."""
    from analysis import history as store

    found = store.read(db)
    chosen = store.ranked(found, store.select(found, impl, phase, cell, machine, quantity))
    shown = chosen[: limit or None]
    if as_json:
        print(json.dumps(store.document(found, shown), indent=1))
        return
    header, *rows = store.table(found, shown)
    table = Table(*header, box=None, pad_edge=False)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for row in rows:
        table.add_row(*map(escape, row))
    wide = console if console.is_terminal else Console(width=180)  # a log has no width of its own
    wide.print(table)
    if len(shown) < len(chosen):
        wide.print(f"{len(chosen) - len(shown)} more series: --limit 0 shows all")
    for machine_told in store.machines_told(found, chosen):
        wide.print(f"machine {escape(machine_told)}")
    for note in store.notes(found, chosen):
        wide.print(f"[yellow]note:[/yellow] {escape(note)}")


@history.command(name="export")
def history_export(
    db: _Db = _DB,
    form: Annotated[str, typer.Option("--format", help="csv or json")] = "csv",
    out: Annotated[Path | None, typer.Option(help="file to write (default: standard output)")] = None,
) -> None:
    """The long table: one row for each number of each run, with stable columns."""
    from analysis import history as store

    _hand_out(store.export(db, form), out)


@history.command(name="page")
def history_page(
    db: _Db = _DB,
    out: Annotated[Path, typer.Option(help="page to write")] = Path("history.html"),
    repo_url: Annotated[
        str, typer.Option(help="where commits can be seen, or a pattern with {id} (default: the git remote's)")
    ] = "",
) -> None:
    """One page with every series, that needs no network."""
    from analysis.history_page import write_page

    console.print(f"page: {write_page(db, out, repo_url).resolve()}", markup=False, soft_wrap=True)


#: What nobody foresaw (sysexits.h's EX_SOFTWARE): no verdict of any kind.
BROKEN = 70


def main() -> None:
    """Entry point: bad input becomes one line and exit code 2; what nobody foresaw one line and exit code 70, with its
    traceback where ``BACKPROP_BENCH_TRACEBACK`` is set.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if os.environ.get("BACKPROP_BENCH_TRACEBACK"):
            raise
        text = " ".join(str(error).split())[:300]
        print(f"error: {type(error).__name__}: {text}; BACKPROP_BENCH_TRACEBACK=1 shows where", file=sys.stderr)
        sys.exit(BROKEN)


def _interrupt(*_: object) -> None:
    """A cancelled job ends as Ctrl-C does: workers stopped, folders removed."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
