"""OpenFlow over TLS: who shows a switch's certificate is let in, nobody else, and what is refused is counted."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path

import pytest

from controller.errors import PlanError
from controller.southbound.session import tls
from controller.southbound.session.tls import Credentials, Handshakes
from packets.security.x509 import Authority

Said = list[tuple[str, int]]


@pytest.fixture
def authority() -> Authority:
    return Authority("test")


@pytest.fixture
def handshakes(authority: Authority, tmp_path: Path) -> tuple[Handshakes, Said]:
    said: Said = []
    (tmp_path / "dcc1.pem").write_bytes(authority.credentials("dcc1", server=True))
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    context = Credentials(tmp_path / "dcc1.pem", tmp_path / "ca.pem").context()
    return Handshakes(context, lambda _address, why, count: said.append((why, count))), said


def switch(tmp_path: Path, shown: bytes | None, trusted: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    (tmp_path / "trusted.pem").write_bytes(trusted)
    context.load_verify_locations(tmp_path / "trusted.pem")
    if shown is not None:
        (tmp_path / "switch.pem").write_bytes(shown)
        context.load_cert_chain(tmp_path / "switch.pem")
    return context


def meet(handshakes: Handshakes, context: ssl.SSLContext | None) -> bool:
    """Tell whether a switch gets through; without a context it says something else than TLS."""
    ours, theirs = socket.socketpair()
    found: list[ssl.SSLSocket | None] = []
    thread = threading.Thread(target=lambda: found.append(handshakes.greet(ours, ("10.0.0.9", 4))))
    thread.start()
    with contextlib.suppress(OSError), theirs:
        if context is None:
            theirs.sendall(bytes([4, 0, 0, 8, 0, 0, 0, 1]))  # a plain OpenFlow hello
            theirs.recv(1)
        else:
            with context.wrap_socket(theirs) as session:
                session.recv(1) if found and found[0] is None else session.send(b"x")
    thread.join(10)
    if found[0] is not None:
        found[0].close()
    return found[0] is not None


def test_a_switch_with_a_certificate_is_let_in(
    handshakes: tuple[Handshakes, Said], authority: Authority, tmp_path: Path
) -> None:
    assert meet(handshakes[0], switch(tmp_path, authority.credentials("switch a", server=False), authority.pem))
    assert handshakes[1] == []


@pytest.mark.parametrize("who", ["none", "stranger", "centre", "plain"])
def test_all_others_are_refused_and_counted(
    who: str, handshakes: tuple[Handshakes, Said], authority: Authority, tmp_path: Path
) -> None:
    shown = {
        "stranger": Authority("test").credentials("switch a", server=False),  # the same names, another key
        "centre": authority.credentials("dcc2", server=True),  # good for a control centre alone
    }.get(who)
    context = None if who == "plain" else switch(tmp_path, shown, authority.pem)
    assert not meet(handshakes[0], context)
    assert len(handshakes[1]) == 1
    assert handshakes[1][0][1] == 1


def test_a_flood_is_told_by_numbers(handshakes: tuple[Handshakes, Said], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("controller.southbound.session.tls.time.monotonic", lambda: now[0])
    for _ in range(5):
        assert not meet(handshakes[0], None)
    now[0] += tls.TOLD_EVERY_S
    assert not meet(handshakes[0], None)
    assert [count for _, count in handshakes[1]] == [1, 5]


def test_who_says_nothing_is_not_waited_for(
    handshakes: tuple[Handshakes, Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_S", 0.05)
    ours, theirs = socket.socketpair()
    with theirs:
        assert handshakes[0].greet(ours, ("10.0.0.9", 4)) is None
    assert "no handshake" in handshakes[1][0][0]


def test_files_that_are_no_good_are_named(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    with pytest.raises(PlanError, match=r"dcc1\.pem: No such file"):
        Credentials(tmp_path / "dcc1.pem", tmp_path / "ca.pem").context()
    (tmp_path / "dcc1.pem").write_text("nonsense")
    with pytest.raises(PlanError, match=r"dcc1\.pem: no PEM"):
        Credentials(tmp_path / "dcc1.pem", tmp_path / "ca.pem").context()
