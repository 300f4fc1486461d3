"""Frames lost or altered on a real interface, a link given another rate; and nothing left of it, however we end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.chaos import noise
from experiments.errors import RunFailed
from packets.labels import AI_PORT
from tests.network.topologies_support import new_network, output
from topologies import single
from topologies.changes import change_link
from topologies.machine import netns
from topologies.machine.waiting import wait_until

FRAMES = 1000
HOLD = """
from experiments.chaos import noise
mend = noise.disturb([(None, "lo")], "loss", "t", 0.5)
print(".", flush=True)
input()
"""


def tables() -> str:
    return output("nft", "list", "tables")


def passed(payload: bytes) -> list[bytes]:
    """Send frames over the loopback of this namespace, and return what comes."""
    came: list[bytes] = []
    with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        receiver.bind(("127.0.0.1", AI_PORT))
        receiver.setblocking(False)
        for _ in range(FRAMES):
            sender.sendto(payload, ("127.0.0.1", AI_PORT))
            with contextlib.suppress(BlockingIOError):  # what is not lost is there when the sender returns
                came.append(receiver.recv(2048))
    return came


@pytest.mark.parametrize("how", ["loss", "corruption"])
def test_a_share_of_the_frames_is_lost_or_altered_and_then_none(how: noise.Noise) -> None:
    def there() -> tuple[list[bytes], str, list[bytes], str]:
        output("ip", "link", "set", "lo", "up")
        mend = noise.disturb([(None, "lo")], how, "daitn_test", 0.25)
        during, standing = passed(bytes(200)), tables()
        mend()
        return during, standing, passed(bytes(200)), tables()

    during, standing, after, left = netns.inside(None, there)
    whole = sum(frame == bytes(200) for frame in during)
    assert FRAMES * 0.65 < whole < FRAMES * 0.85, whole
    assert len(during) == (whole if how == "loss" else FRAMES)
    assert standing.split() == ["table", "netdev", "daitn_test_lo"]
    assert (after, left) == ([bytes(200)] * FRAMES, "")


def test_both_ends_of_a_link_in_one_namespace() -> None:
    def there() -> tuple[int, str]:
        output("ip", "link", "add", "one", "type", "veth", "peer", "name", "other")
        mend = noise.disturb([(None, "one"), (None, "other")], "loss", "t", 0.5)
        standing = len(tables().splitlines())
        mend()
        return standing, tables()

    assert netns.inside(None, there) == (2, "")


def test_nothing_is_left_of_a_campaign_that_is_killed() -> None:
    def there() -> tuple[str, bool]:
        child = subprocess.Popen(
            [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert child.stdout is not None
        child.stdout.readline()
        standing = tables()
        os.kill(child.pid, signal.SIGKILL)
        child.communicate(timeout=5)
        return standing, wait_until(lambda: not tables(), 5.0)

    assert netns.inside(None, there) == ("table netdev t_lo\n", True)


def test_a_refused_rule_is_told_and_nothing_stands() -> None:
    def there() -> str:
        with pytest.raises(RunFailed, match="nft refused a rule: "):
            noise.disturb([(None, "lo"), (None, "no such")], "loss", "t", 0.5)
        wait_until(lambda: not tables(), 5.0)
        return tables()

    assert netns.inside(None, there) == ""


def test_a_standing_link_gets_another_rate_and_its_own_again() -> None:
    with new_network(single.PLAN, "rate") as network:
        link = network.plan.links[0]
        device = network.links[0].intf2.name

        def rate() -> str:
            return re.findall(r"rate (\S+)", output("tc", "class", "show", "dev", device))[0]

        before = rate()
        change_link(network, link.name, rate_mbps=1.5)
        assert rate() == "1500Kbit"
        change_link(network, link.name, rate_mbps=link.rate_mbps)
        assert rate() == before
