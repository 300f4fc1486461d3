"""A query for a few listeners: each can check it, nobody else, nothing in it can be changed, and not a byte fewer."""

from __future__ import annotations

import pytest

from packets.security.keeper import Keeper
from packets.wire import Header, PacketType, decode
from tests.keys import Stage, address

PAYLOAD = b"which disease?"


def query(kind: PacketType = PacketType.QUERY, transfer_id: int = 9) -> Header:
    return Header(type=kind, transfer_id=transfer_id, owner=address("owner1"))


def refusal(keeper: Keeper, raw: bytes, source: str = "owner1") -> str | None:
    header, _ = decode(raw)
    return keeper.check_request(header, raw, (address(source), 55831))


@pytest.mark.parametrize("listeners", [["h11", "h12"], ["h11", "mpvu2", "h12"]])
def test_each_listener_takes_it_and_nobody_else(listeners: list[str]) -> None:
    stage = Stage()
    raw = stage["owner1"].sign_for(query(), PAYLOAD, [address(n) for n in listeners])
    assert decode(raw)[0].authentication.tag and len(decode(raw)[0].authentication.tag) == 8 * len(listeners)  # type: ignore[union-attr]
    for name in ("h11", "h12", "mpvu2"):
        assert refusal(stage[name], raw) == (None if name in listeners else "mac")
    assert refusal(stage["h11"], raw) == "replayed"


def test_what_was_changed_is_refused_wherever_it_was_changed() -> None:
    stage = Stage()
    raw = stage["owner1"].sign_for(query(), PAYLOAD, [address("h11"), address("h12")])
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1
        try:
            header, _ = decode(bytes(changed))
        except Exception:
            continue
        found = stage["h11"].check_request(header, bytes(changed), (address("owner1"), 55831))
        own = slice(len(raw) - len(PAYLOAD) - 8, len(raw) - len(PAYLOAD))  # the other listener's
        assert found is not None or own.start <= at < own.stop, at


def test_only_a_query_may_be_for_several() -> None:
    stage = Stage()
    raw = stage["owner1"].sign_for(query(PacketType.TELEMETRY), PAYLOAD, [address("h11"), address("h12")])
    assert refusal(stage["h11"], raw) == "mac"


def test_a_stranger_among_them_or_too_many_are_signed() -> None:
    stage = Stage()
    for listeners in (["10.9.9.9", address("h11")], [address("h11")] * 5):
        raw = stage["owner1"].sign_for(query(), PAYLOAD, listeners)
        assert len(decode(raw)[0].authentication.tag) == 64  # type: ignore[union-attr]
        assert refusal(stage["h12"], raw) is None
        stage.clock.now_ms += 1
