"""Hosts in network namespaces: built as asked and gone afterwards; and what the law says of them, on planted rows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from backprop_files import UserError
from bench import namespaces
from bench.namespaces import INTERFACE, Network, played
from tests import namespaces_check, planted_parallel
from tests.planted_parallel import Truth

BITS = 1e8


def told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def ours() -> list[str]:
    return [line for line in told("ip", "netns", "list").splitlines() if line.startswith(f"backprop-{os.getpid()}-")]


def test_without_root_it_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda name: f"/sbin/{name}")
    with pytest.raises(UserError, match="need root") as caught, played(Network(2, BITS)):
        pass
    assert "\n" not in str(caught.value)
    assert namespaces_check.main([]) == 0


def test_without_iproute2_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "iproute2" in str(namespaces.missing())


@pytest.mark.skipif(namespaces.missing() is not None, reason="namespaces are not permitted here")
@pytest.mark.parametrize("delay_s", [0.0, 0.001])
def test_hosts_reach_each_other_and_nothing_is_left(delay_s: float) -> None:
    with played(Network(3, BITS, delay_s)) as places:
        assert len(ours()) >= 3
        for place in places:
            assert "rate 100Mbit" in told(*place.prefix, "tc", "qdisc", "show", "dev", INTERFACE)
            assert "default" not in told(*place.prefix, "ip", "route")  # no way out
        assert told(*places[0].prefix, *_ping(places[2].address)).strip() == "answered"
    assert not ours()


@pytest.mark.skipif(namespaces.missing() is not None, reason="namespaces are not permitted here")
@pytest.mark.parametrize("delay_s", [0.0, 0.001])
def test_nothing_is_left_when_the_work_fails(delay_s: float) -> None:
    with pytest.raises(ZeroDivisionError), played(Network(2, BITS, delay_s)):
        raise ZeroDivisionError
    assert not ours()
    assert "bench.namespaces" not in told("ps", "-o", "args", "--ppid", str(os.getpid()))


def _ping(address: str) -> list[str]:
    """Whoever has no server refuses a connection, and that is an answer."""
    code = (
        "import socket\n"
        f"try: socket.create_connection(('{address}', 9), 10)\n"
        "except ConnectionRefusedError: print('answered')"
    )
    return [sys.executable, "-c", code]


@dataclass(frozen=True)
class Linked(Truth):
    """Hosts that share cores and have links of their own, round which gradients go in a ring."""

    hops: Callable[[int], float] = field(default=lambda k: k - 1.0)

    def sends(self, k: int, size: float, cores: int = 0) -> float:
        return self.alpha_s * self.hops(k) + self.beta_s * size * (k - 1) / k


def compared(truth: Truth, network: Network) -> list[namespaces_check.Compared]:
    rows = planted_parallel.rows(truth, passes=1, launch=0.0, noise=0.0)
    return namespaces_check.compare("torch-ddp", network, rows)


def test_the_law_predicts_hosts_that_follow_it() -> None:
    """Three predictions that differ by what they know: a network as promised, as measured, and what cores are shared for."""
    network = Network(4, 2 * 8 / 4e-10, 5e-5 / 2)
    as_promised = compared(Linked(contention=1.0), network)
    assert {one.hosts for one in as_promised} == {2, 4}
    for one in as_promised:
        assert one.nominal_s == pytest.approx(one.measured_s, rel=1e-3)
        assert one.measured_network_s == pytest.approx(one.measured_s, rel=1e-3)


def test_a_network_that_is_not_as_promised_is_seen() -> None:
    slower = compared(Linked(contention=1.0, beta_s=4e-9), Network(4, 2 * 8 / 4e-10, 5e-5 / 2))
    assert min(one.nominal_s / one.measured_s for one in slower) < 0.6
    for one in slower:
        assert one.measured_network_s == pytest.approx(one.measured_s, rel=1e-3)


def test_what_ranks_at_once_cost_each_other_is_told_apart() -> None:
    for one in compared(Linked(contention=1.3), Network(4, 2 * 8 / 4e-10, 5e-5 / 2)):
        assert one.with_contention_s == pytest.approx(one.measured_s, rel=1e-3)
        assert one.measured_network_s < one.measured_s
