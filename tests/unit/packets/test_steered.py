"""Who launches straight to a terminal, past its control centre, is refused; what may come so is told apart."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from packets.labels import STEERED_DSCP
from packets.transfer.udp import Arrivals, UdpSocket
from packets.wire import Flag, PacketType
from tests.helpers import wait_until
from tests.unit.packets.test_guarded import Terminal

MARK = STEERED_DSCP << 2


@pytest.fixture
def stage() -> Iterator[dict[str, Terminal]]:
    terminals = {name: Terminal(name, only_steered=name == "h12") for name in ("h11", "mpvu2", "h12")}
    yield terminals
    for one in terminals.values():
        one.endpoint.close()


def launch(sender: Terminal, *, marked: bool, **more: Any) -> Any:
    """Launch to h12, as the last switch of a label's path would let it out, or straight."""
    sender.endpoint._socket._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, MARK if marked else 0)
    return sender.endpoint.send_object(sender.object("h12", payload=b"x" * 20_000, **more))


def test_a_launch_past_the_control_centre_is_refused_and_counted_and_nothing_is_stored(stage: Any) -> None:
    straight = launch(stage["h11"], marked=False)
    wait_until(lambda: stage["h12"].refused.get("unsteered"), 5)
    assert not stage["h12"].objects and not stage["h12"].endpoint._receiving.busy
    straight.cancel()
    launch(stage["mpvu2"], marked=True, object_id=8).result(10)
    wait_until(lambda: stage["h12"].objects, 5)
    assert [o.object_id for o in stage["h12"].objects] == [8], "what was steered here is taken"


def test_an_object_that_finds_its_own_way_comes_to_an_address(stage: Any) -> None:
    launch(stage["h11"], marked=False, flags=Flag.AUTONOMOUS, type=PacketType.MODEL_SHARD).result(10)
    wait_until(lambda: stage["h12"].objects, 5)
    assert not stage["h12"].refused


def test_a_hand_over_is_taken_of_what_is_steered_here_alone(stage: Any) -> None:
    stranger = launch(stage["h11"], marked=False, flags=Flag.HANDOVER, object_id=9)
    wait_until(lambda: stage["h12"].refused.get("unsteered"), 5)
    stranger.cancel()
    launch(stage["mpvu2"], marked=True, object_id=10).result(10)
    again = launch(stage["mpvu2"], marked=False, flags=Flag.HANDOVER, object_id=10)
    again.result(10)
    wait_until(lambda: stage["h12"].objects, 5)
    assert [o.object_id for o in stage["h12"].objects] == [10], "it was here already"


@pytest.mark.parametrize("batches", [True, False], ids=["recvmmsg", "one by one"])
def test_the_mark_of_each_datagram_is_its_own(batches: bool) -> None:
    sock = UdpSocket("127.0.0.1", 0, batches=batches)
    arrivals, services = Arrivals(8), [MARK, 0, 4 << 2, MARK]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(2):  # room that was used before
            for service in services:
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, service)
                sender.sendto(b"x", sock.address)
            wait_until(lambda: sock.receive(arrivals), 5)
            assert arrivals.services[: len(services)].tolist() == services
    sock.close()
