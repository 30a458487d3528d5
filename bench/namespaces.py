"""Hosts of a network that this machine plays: one network namespace each, links of limited bandwidth, delay where it can be.

Without delay the hosts are joined by a bridge, each by a pair of virtual ends (veth) that a token bucket (tbf) holds to its
rate in both directions.  Linux delays packets with netem; where the kernel lacks that, each host has a tunnel (tun) to a
forwarder, a process of ours that hands every packet on when it is due.  All of it is gone when the ``with`` ends.

Linux, iproute2 and root (CAP_NET_ADMIN, CAP_SYS_ADMIN) alone can do that.  The namespaces have no way out and none in: what
listens there can be reached from its neighbours alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from backprop_files import UserError
from bench.parent import LAUNCHER, die_with_parent

INTERFACE = "wire"
#: A bucket holds what flows in so long, at least a few packets: what a link may send at once beyond its rate.
BUCKET_S, LEAST_BUCKET_BYTES = 0.001, 16_384
#: A packet that would wait longer for the link is dropped, as in a switch of little memory; TCP then slows down.
QUEUE_S = 0.1
#: Larger packets through the forwarder, so that few pass through it.
TUNNEL_MTU = 9000
WHERE = Path("/run/netns")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h


@dataclass(frozen=True)
class Network:
    """``hosts`` on links of ``bits_per_s`` in either direction; ``delay_s`` is that of a packet on its way to another host."""

    hosts: int
    bits_per_s: float
    delay_s: float = 0.0

    def __str__(self) -> str:
        delay = f", {1e3 * self.delay_s:g} ms" if self.delay_s else ""
        return f"{self.bits_per_s / 1e6:g} Mbit/s{delay}"


@dataclass(frozen=True)
class Place:
    """One of the hosts: how a command is started there, and where it is found by the others."""

    name: str
    prefix: tuple[str, ...]
    address: str
    interface: str = INTERFACE


def missing() -> str | None:
    """Why hosts cannot be played here, in a line; None where they can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if not shutil.which("ip") or not shutil.which("tc"):
        return "network namespaces need iproute2's programs ip and tc"
    if os.geteuid() != 0:
        return "network namespaces need root: run it as root, or in a container of your own"
    name = _name(0)
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    if made.returncode:
        return f"network namespaces are not permitted here: {made.stderr.strip().splitlines()[-1]}"
    return None


def has_netem() -> bool:
    """Whether the kernel delays packets itself."""
    name = _name(0)
    try:
        _run("ip", "netns", "add", name)
        _in(name, "ip", "link", "set", "lo", "up")
        _in(name, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
    except UserError:
        return False
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return True


@contextmanager
def played(network: Network) -> Iterator[list[Place]]:
    """The hosts, for as long as the ``with`` lasts.  Raises UserError where that is not permitted."""
    if reason := missing():
        raise UserError(reason)
    places = [Place(_name(i), ("ip", "netns", "exec", _name(i)), f"10.77.0.{i}") for i in range(1, network.hosts + 1)]
    forwarder = None
    try:
        for place in places:
            _run("ip", "netns", "add", place.name)
            _in(place.name, "ip", "link", "set", "lo", "up")
        tunnels = network.delay_s > 0 and not has_netem()
        if tunnels:
            forwarder = _tunnelled(places, network)
        else:
            _bridged(places, network)
        yield places
    finally:
        if forwarder:
            forwarder.kill()
            forwarder.wait()
        for name in [*(place.name for place in places), _name(0)]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)  # its links go with it


def _name(number: int) -> str:
    """Number 0 is the switch; the process makes them its own."""
    return f"backprop-{os.getpid()}-{number}"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{' '.join(command)}: {told[-1] if told else 'failed'}")


def _in(name: str, *command: str) -> None:
    _run("ip", "netns", "exec", name, *command)


# --- by the kernel ----------------------------------------------------------------------------------------------------


def _bridged(places: Sequence[Place], network: Network) -> None:
    switch = _name(0)
    _run("ip", "netns", "add", switch)
    _in(switch, "ip", "link", "add", "bridge", "type", "bridge")
    _in(switch, "ip", "link", "set", "bridge", "up")
    for i, place in enumerate(places, 1):
        port = f"port{i}"
        _in(switch, "ip", "link", "add", port, "type", "veth", "peer", "name", INTERFACE, "netns", place.name)
        _in(switch, "ip", "link", "set", port, "master", "bridge", "up")
        _up(place)
        for name, end in ((place.name, INTERFACE), (switch, port)):
            _limited(name, end, network.bits_per_s)
        if network.delay_s:
            delay = ("netem", "delay", f"{1e6 * network.delay_s:.0f}us", "limit", "100000")
            _in(place.name, "tc", "qdisc", "add", "dev", INTERFACE, "parent", "1:1", "handle", "10:", *delay)


def _up(place: Place) -> None:
    _in(place.name, "ip", "address", "add", f"{place.address}/24", "dev", INTERFACE)
    _in(place.name, "ip", "link", "set", "dev", INTERFACE, "up")


def _limited(name: str, end: str, bits_per_s: float) -> None:
    bucket = max(LEAST_BUCKET_BYTES, int(bits_per_s / 8 * BUCKET_S))
    tbf = ("tbf", "rate", f"{bits_per_s:.0f}bit", "burst", f"{bucket}b", "latency", f"{1e3 * QUEUE_S:.0f}ms")
    _in(name, "tc", "qdisc", "add", "dev", end, "root", "handle", "1:", *tbf)


# --- by a forwarder of ours -------------------------------------------------------------------------------------------


def _tunnelled(places: Sequence[Place], network: Network) -> subprocess.Popen[bytes]:
    for place in places:
        _in(place.name, "ip", "tuntap", "add", "dev", INTERFACE, "mode", "tun")
    hosts = [f"{place.name}={place.address}" for place in places]
    forwarder = subprocess.Popen(
        [sys.executable, "-m", "bench.namespaces", str(network.delay_s), *hosts],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | {LAUNCHER: str(os.getpid())},
    )
    assert forwarder.stdout is not None
    try:
        if not forwarder.stdout.readline():
            raise UserError("the forwarder that holds packets back could not be started: is /dev/net/tun there?")
        for place in places:
            _in(place.name, "ip", "link", "set", "dev", INTERFACE, "mtu", str(TUNNEL_MTU))
            _up(place)
            _limited(place.name, INTERFACE, network.bits_per_s)
    except UserError:
        forwarder.kill()
        forwarder.wait()
        raise
    return forwarder


def _tunnel(name: str) -> int:
    """The near end of a host's tunnel; this process is in its namespace afterwards."""
    with (WHERE / name).open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {name}")
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH14x", INTERFACE.encode(), _IFF_TUN | _IFF_NO_PI))
    return end


def forward(delay_s: float, hosts: dict[str, str]) -> None:
    """Hand every packet on to the host of its destination address, when it is due; for ever."""
    ends = {socket.inet_aton(address): _tunnel(name) for name, address in hosts.items()}
    print("ready", flush=True)
    held: list[tuple[float, int, int, bytes]] = []
    count = 0
    while True:
        wait = None if not held else max(0.0, held[0][0] - time.monotonic())
        readable, _, _ = select.select(list(ends.values()), [], [], wait)
        now = time.monotonic()
        for end in readable:
            with suppress(BlockingIOError):
                while True:
                    packet = os.read(end, 1 << 16)
                    if to := ends.get(packet[16:20]):  # an IPv4 header's destination
                        count += 1
                        heapq.heappush(held, (now + delay_s, count, to, packet))
        while held and held[0][0] <= time.monotonic():
            _, _, to, packet = heapq.heappop(held)
            with suppress(OSError):  # its queue is full: lost, as on any link
                os.write(to, packet)


if __name__ == "__main__":
    die_with_parent()
    forward(float(sys.argv[1]), dict(host.split("=") for host in sys.argv[2:]))
