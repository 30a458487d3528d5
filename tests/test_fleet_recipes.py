"""The recipes: what a batch system or a cluster is told has all that a worker needs to measure, and to be let in."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from backprop_files import UserError
from bench.fleet import batch, certificates

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="apt-get install openssl")


@needs_openssl
def test_certificates_are_for_their_owner_alone_and_are_kept(tmp_path: Path) -> None:
    """No key of the authority is left, none but the owner reads, and a second call makes no new ones."""
    made = certificates.make(tmp_path / "c")
    assert made.complete
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "c", made.ca, made.cert, made.key)]
    assert not any(mode & 0o077 for mode in modes)
    before = made.cert.read_text()
    assert certificates.make(tmp_path / "c").cert.read_text() == before


@needs_openssl
def test_a_certificate_is_signed_by_its_own_authority_and_by_no_other(tmp_path: Path) -> None:
    """As Dask's ``Security`` will find when scheduler and worker show it to each other."""
    import subprocess

    ours, others = (certificates.make(tmp_path / name) for name in ("a", "b"))
    verify = ["openssl", "verify", "-CAfile"]
    assert subprocess.run([*verify, ours.ca, ours.cert], capture_output=True).returncode == 0
    assert subprocess.run([*verify, others.ca, ours.cert], capture_output=True).returncode != 0


def test_certificates_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each, for the folder and for openssl."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/openssl")
    with pytest.raises(UserError, match="choose another folder"):
        certificates.make(tmp_path / "file" / "c")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="no openssl"):
        certificates.make(tmp_path / "c")


def asked(system: str, folder: Path, *more: str) -> Any:
    """The command line of a recipe."""
    return batch.parsed([system, "--shared", str(folder), "--interface", "lo", *more])


@needs_openssl
@pytest.mark.parametrize(
    ("system", "alone", "cores"),
    [
        ("slurm", "#SBATCH --exclusive", "#SBATCH --cpus-per-task=3"),
        ("pbs", "#PBS -l place=excl", "#PBS -l select=1:ncpus=3:mem=8gb"),
    ],
)
def test_the_job_script_has_what_a_worker_needs(
    system: str, alone: str, cores: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A node alone, cores enough, one thread, the resource, TLS; and the walltime and queue asked for."""
    pytest.importorskip("dask_jobqueue")
    more = ["--cores", "3", "--queue", "night", "--walltime", "01:30:00", "--script"]
    assert batch.run(asked(system, tmp_path, *more)) == 0
    script = capfd.readouterr().out
    worker = next(line for line in script.splitlines() if "dask_worker" in line)
    for part in (alone, cores, "night", "01:30:00"):
        assert part in script
    assert "PROFILE__ENABLED=False" in script
    for part in (
        "tls://127.0.0.1",
        "--dashboard-address 127.0.0.1:0",
        "--nthreads 1 ",
        "--resources measure=1",
        "--tls-key",
        "--tls-ca-file",
    ):
        assert part in worker


def test_ctrl_c_leaves_the_sweep_the_time_to_end_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for, where ``subprocess.run`` would kill it after a quarter of a second."""
    calls: list[str] = []

    class Sweep:
        def __init__(self, command: list[str]) -> None:
            calls.extend(command)

        def wait(self) -> int:
            calls.append("wait")
            if calls.count("wait") == 1:
                raise KeyboardInterrupt
            return 130

    monkeypatch.setattr("subprocess.Popen", Sweep)
    assert batch.measured(["run"]) == 130
    assert calls == ["run", "wait", "wait"]


def test_what_follows_goes_to_the_run(tmp_path: Path) -> None:
    """Options after ``--`` are the sweep's, even those that the recipe has too."""
    found = asked("slurm", tmp_path, "--", "--profile", "full", "--out", "somewhere")
    assert found.run == ["--profile", "full", "--out", "somewhere"]


def documents() -> list[dict[str, Any]]:
    """Of the manifest."""
    return list(yaml.safe_load_all((RECIPES / "kubernetes.yaml").read_text()))


def test_the_manifest_gives_workers_whole_cores_of_a_node_of_their_own() -> None:
    """Requests equal limits in whole cores, or the kubelet shares them; no two workers on a node."""
    pod = documents()[0]["spec"]["worker"]["spec"]
    container = pod["containers"][0]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert float(container["resources"]["limits"]["cpu"]).is_integer()
    apart = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    arguments = container["args"]
    assert arguments[arguments.index("--resources") + 1] == "measure=1"
    assert arguments[arguments.index("--nthreads") + 1] == "1"


def test_the_manifest_lets_in_who_holds_the_certificates_alone() -> None:
    """TLS on both sides, its files from the secret; the operator's own plain address is replaced; a network policy."""
    cluster, policy = documents()
    for part in ("worker", "scheduler"):
        pod = cluster["spec"][part]["spec"]
        arguments = pod["containers"][0]["args"]
        mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert arguments[arguments.index("--protocol") + 1] == "tls"
        assert {volume["name"] for volume in pod["volumes"]} == set(mounted)
        files = [arguments[arguments.index(f"--tls-{kind}") + 1] for kind in ("ca-file", "cert", "key")]
        assert files == [f"{mounted['tls']}/{name}.pem" for name in ("ca", "cert", "key")]
        assert arguments[arguments.index("--dashboard-address") + 1].startswith("127.0.0.1:")
    address = cluster["spec"]["worker"]["spec"]["containers"][0]["env"][0]
    assert address["name"] == "DASK_SCHEDULER_ADDRESS"
    assert address["value"].startswith("tls://")
    assert (
        policy["spec"]["podSelector"]["matchLabels"]
        == policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    )
