"""A sweep on a cluster with a batch system, in one command: workers as jobs of Slurm or PBS, through dask-jobqueue.

    python -m bench.fleet.batch slurm --workers 4 --shared ~/fleet -- --profile full --out DIR

The scheduler runs here, on a node that the workers can reach, and ends with the sweep; what stands after ``--`` is
``backprop-bench run``'s.  Every worker has a node of its own, so that nothing else is measured beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backprop_files import UserError
from bench.fleet.certificates import Certificates, make
from bench.fleet.loopback import STILL

#: Arguments of dask-jobqueue's ``SLURMCluster`` and ``PBSCluster``.
Options = dict[str, Any]


def common(asked: argparse.Namespace, certificates: Certificates) -> Options:
    """What both systems are told: one worker a job, which takes one task at a time."""
    from distributed import Security

    security: Any = Security  # its own types say nothing
    roles = ("scheduler", "worker", "client")
    files = {f"tls_{role}_{kind}": str(getattr(certificates, kind)) for role in roles for kind in ("cert", "key")}
    options: Options = {
        "cores": 1,  # threads of the worker: it waits while a process of its own measures
        "processes": 1,
        "memory": asked.memory,
        "walltime": asked.walltime,
        "python": asked.python,
        # without an address of its own the server of metrics would listen everywhere, even with --no-dashboard
        "worker_extra_args": ["--resources", "measure=1", "--dashboard-address", "127.0.0.1:0"],
        "job_script_prologue": [f"export {name}={value}" for name, value in STILL.items()],
        "local_directory": asked.local,
        "log_directory": str(asked.shared / "logs"),
        "protocol": "tls://",
        "security": security(tls_ca_file=str(certificates.ca), require_encryption=True, **files),
        "scheduler_options": {"dashboard_address": "127.0.0.1:0", **({"host": asked.host} if asked.host else {})},
        "death_timeout": 120,
        "silence_logs": logging.CRITICAL + 1,  # the sweep tells what matters; a client that leaves is no catastrophe
    }
    given = {"queue": asked.queue, "account": asked.account, "interface": asked.interface}
    return options | {name: value for name, value in given.items() if value}


def slurm(asked: argparse.Namespace) -> Options:
    """Slurm's own: a node alone, and cores for the worker to measure on and to wait on."""
    return {"job_cpu": asked.cores, "job_extra_directives": ["--exclusive", *asked.directive]}


def pbs(asked: argparse.Namespace) -> Options:
    """PBS's own."""
    spec = f"select=1:ncpus={asked.cores}:mem={asked.memory.lower().replace('ib', 'b')}"
    return {"resource_spec": spec, "job_extra_directives": ["-l place=excl", *asked.directive]}


SYSTEMS = {"slurm": ("SLURMCluster", slurm), "pbs": ("PBSCluster", pbs)}


def cluster(asked: argparse.Namespace, certificates: Certificates) -> Any:
    """The scheduler, started, with no worker yet.  Raises UserError without dask-jobqueue."""
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise UserError("dask-jobqueue is not installed: pip install -c constraints.txt 'backprop-bench[batch]'")
    import dask_jobqueue

    name, own = SYSTEMS[asked.system]
    return getattr(dask_jobqueue, name)(**common(asked, certificates), **own(asked))


def run(asked: argparse.Namespace) -> int:
    """Start scheduler and workers, measure, end both; returns the sweep's exit code."""
    certificates = make(asked.shared / "certificates")
    with cluster(asked, certificates) as started:
        if asked.script:
            print(started.job_script())
            return 0
        started.scale(jobs=asked.workers)
        scheduler = ["--scheduler", started.scheduler_address, *certificates.options]
        command = [sys.executable, "-m", "backprop_bench", "run", *scheduler, *asked.run]
        return measured(command)


def measured(command: Sequence[str]) -> int:
    """The sweep's exit code.  Ctrl-C reaches the sweep as well, which is left the time to end in order."""
    sweep = subprocess.Popen(command)
    try:
        return sweep.wait()
    except KeyboardInterrupt:
        return sweep.wait()


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet.batch", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("system", choices=SYSTEMS)
    add("--workers", type=int, default=2, help="jobs, each with one worker (default 2)")
    add("--shared", type=Path, required=True, help="folder that all nodes see: certificates, logs of the jobs")
    add("--python", default=sys.executable, help="interpreter of the workers (default: this one, if all nodes see it)")
    add("--cores", type=int, default=2, help="cores of a job: one to measure on, one to wait on (default 2)")
    add("--memory", default="8GiB", help="memory of a job (default 8GiB)")
    add("--walltime", default="04:00:00", help="of a job (default 04:00:00)")
    add("--queue", default="", help="partition or queue (default: the system's)")
    add("--account", default="", help="account that is charged")
    add("--interface", default="", help="network that nodes reach each other by: ib0 (default: the host name's)")
    add("--host", default="", help="address that the scheduler listens on (default: that of --interface)")
    add("--local", default="/tmp", help="folder of a worker's own on its node (default /tmp)")
    add("--directive", action="append", default=[], help="a further directive of the batch system, as often as needed")
    add("--script", action="store_true", help="print the job script, and start nothing")
    own, run = _at_dashes(list(arguments))
    asked = parser.parse_args(own)
    asked.run = run
    asked.shared = asked.shared.expanduser().resolve()
    return asked


def _at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before ``--``, and what after it."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:end], arguments[end + 1 :]


def main(arguments: Sequence[str]) -> int:
    """Parse, run, exit code."""
    asked = parsed(arguments)
    try:
        return run(asked)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the jobs are cancelled", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
