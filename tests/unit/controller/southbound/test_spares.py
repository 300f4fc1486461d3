"""Sessions in reserve: greeted, silent, and handed over in good order whatever a switch does meanwhile."""

from __future__ import annotations

import selectors
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.southbound.session.spares import (
    ECHO_REPLY,
    ECHO_REQUEST,
    HEADER,
    HELLO,
    ROLE_REQUEST,
    SLAVE,
    Spares,
    message,
)

ADDRESS = "127.0.0.2"


class Reserve:
    """Spares that listen, and switches that connect."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind((ADDRESS, 0))
            self.port = probe.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.spares = Spares(self.port, self.selector)
        self.spares.open(ADDRESS)

    def turn(self) -> None:
        """Do all that is to be done."""
        while ready := self.selector.select(0.01):
            for key, _ in ready:
                self.spares.ready(key.data)

    def switch(self) -> socket.socket:
        made = socket.create_connection((ADDRESS, self.port), 5.0)
        made.settimeout(5.0)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent is there
        self.turn()
        return made


@pytest.fixture
def reserve() -> Reserve:
    return Reserve()


def heard(switch: socket.socket) -> tuple[int, bytes]:
    _, kind, length, _ = HEADER.unpack(switch.recv(HEADER.size, socket.MSG_WAITALL))
    return kind, switch.recv(length - HEADER.size, socket.MSG_WAITALL) if length > HEADER.size else b""


def test_a_switch_is_greeted_made_a_slave_and_kept_alive(reserve: Reserve) -> None:
    switch = reserve.switch()
    assert heard(switch) == (HELLO, b"")
    switch.sendall(message(HELLO, 1, b"\0\1\0\x08\0\0\0\x10"))
    reserve.turn()
    kind, body = heard(switch)
    assert (kind, struct.unpack_from("!I", body)[0]) == (ROLE_REQUEST, SLAVE)
    switch.sendall(message(12, 3, b"a port came up" * 9) + message(ECHO_REQUEST, 4, b"still there?"))
    reserve.turn()
    assert heard(switch) == (ECHO_REPLY, b"still there?")
    (spare,) = reserve.spares.take()
    assert spare.hello == message(HELLO, 1, b"\0\1\0\x08\0\0\0\x10") and not spare.heard
    assert spare.socket.getpeername() == switch.getsockname()
    assert reserve.spares.take() == []


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 40), max_size=6))
def test_a_session_is_handed_over_with_the_beginning_of_what_comes(cuts: list[int]) -> None:
    reserve = Reserve()
    switch, said = reserve.switch(), message(HELLO, 1) + message(12, 2, b"x" * 80)
    at = 0
    for cut in cuts:
        switch.sendall(said[at : at + cut])
        reserve.turn()
        at += cut
    taken = reserve.spares.take()
    if at < HEADER.size:
        assert taken == [], "who has not greeted is not handed over"
    else:
        whole = at >= len(said)
        assert bytes(taken[0].heard) == (b"" if whole else said[HEADER.size : at])
    reserve.spares.close()
    switch.close()


@pytest.mark.parametrize("said", [b"\x04\x00\x00\x03aaaa", b"", b"\x04\x00\x00\x00\x00\x00\x00\x01"])
def test_what_is_no_openflow_or_ends_is_dropped(reserve: Reserve, said: bytes) -> None:
    switch = reserve.switch()
    assert heard(switch) == (HELLO, b"")
    if said:
        switch.sendall(said)
    else:
        switch.shutdown(socket.SHUT_WR)
    reserve.turn()
    assert switch.recv(100) == b"" and reserve.spares.take() == []


def test_an_address_that_is_taken_gives_none_and_is_no_error(reserve: Reserve) -> None:
    other = Spares(reserve.port, reserve.selector)
    other.open(ADDRESS)
    other.close()
    assert other.take() == []
