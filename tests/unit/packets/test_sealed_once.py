"""A datagram that leaves sealed is encoded once, and nobody reads back what was just written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from packets import wire
from packets.errors import PacketError
from packets.options import Authentication
from packets.security import seal
from packets.wire import Header, PacketType, authenticated, decode, encode
from tests.keys import PEOPLE, Stage, address

HEADER = Header(type=PacketType.ANNOUNCE, object_id=3, owner="10.1.1.2", transfer_id=9, sent_at_ms=77)
KEY = bytes(range(32))


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the codec's workings, each time that one runs."""
    ran: list[str] = []

    def watched(name: str) -> Any:
        really = getattr(wire, name)

        def watch(*args: Any) -> Any:
            ran.append(name)
            return really(*args)

        return watch

    for name in ("encode_options", "_encode_fixed", "decode_options"):
        monkeypatch.setattr(wire, name, watched(name))
    return ran


@pytest.mark.parametrize("to", [address("h12"), "10.9.9.9"], ids=["a MAC", "a signature"])
def test_a_request_is_encoded_once_and_never_read_again(codec: list[str], to: str) -> None:
    raw = Stage()["h11"].sign_request(HEADER, b"payload", to)
    assert codec == ["encode_options", "_encode_fixed"]
    header, payload = decode(raw)
    assert (header.object_id, bytes(payload)) == (3, b"payload")


def test_a_packet_sealed_on_the_way_is_the_one_that_is_encoded_with_its_tag() -> None:
    for options in ({}, {"error": 5}, {"key_share": bytes(32), "others": ((0x8001, b"xy"),)}):
        plain = msgspec.structs.replace(HEADER, **options)
        raw = seal.seal_with_mac(plain, b"payload", KEY, 0x0203, 16)
        header, payload = decode(raw)
        assert encode(header, payload) == raw
        assert header.authentication == Authentication(
            algorithm=seal.BLAKE2B, key_id=0x0203, tag=seal.tag(KEY, authenticated(raw), 16)
        )
        signed = seal.seal_with_signature(plain, b"payload", PEOPLE["h11"])
        assert encode(*decode(signed)) == signed
        assert seal.signature_matches(decode(signed)[0], signed, PEOPLE["h11"].certificate.signing_key)


def test_what_cannot_be_sealed_is_a_packet_error() -> None:
    with pytest.raises(PacketError, match="without an Authentication"):
        wire.seal(HEADER, b"", lambda before, payload: b"")
    with pytest.raises(PacketError, match="cannot be built"):
        seal.seal_with_mac(msgspec.structs.replace(HEADER, visit=1 << 20), b"", KEY, 1)
