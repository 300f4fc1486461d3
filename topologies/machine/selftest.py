"""Does what a host's kernel sends arrive? Ping can work while every UDP and TCP packet is dropped for its checksum."""

from __future__ import annotations

import socket
import time
from typing import Protocol

from topologies.errors import RefusedError
from topologies.machine import netns
from topologies.plan import HostPlan

PORT = 55830
ATTEMPT_S = 0.2


class Host(Protocol):
    """A standing terminal: its declaration and a process in its namespace."""

    plan: HostPlan
    pid: int


def check_udp(source: Host, target: Host, timeout_s: float = 3.0) -> float:
    """Send UDP from one standing host to another until it arrives, and return after how many seconds it did.

    Needs routes in the switches. ``RefusedError`` when nothing arrives: a switch in userspace drops partial checksums.
    """
    begin, token = time.monotonic(), f"{source.plan.name}>{target.plan.name}".encode()
    receiver = netns.inside(target.pid, lambda: _udp(target.plan.address))
    sender = netns.inside(source.pid, lambda: _udp(source.plan.address))
    try:
        receiver.settimeout(ATTEMPT_S)
        while time.monotonic() - begin < timeout_s:
            sender.sendto(token, (target.plan.address, PORT))
            try:
                if receiver.recv(64) == token:
                    return time.monotonic() - begin
            except TimeoutError:
                continue
    finally:
        receiver.close()
        sender.close()
    raise RefusedError(
        f"UDP from {source.plan.name} to {target.plan.name} does not arrive within {timeout_s:g} s: look for routes"
        f" (ovs-ofctl dump-flows), then for checksum offload (ethtool -k {source.plan.name}-eth0 must say"
        " tx-checksumming: off)"
    )


def _udp(address: str) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, PORT))
    return udp
