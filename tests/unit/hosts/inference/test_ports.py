"""The proof that a query carries: a signature for strangers, shared keys for those that are known to answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from hosts.inference.ports import Ports
from packets.events import silent
from packets.wire import NO_FLAGS, Flag, Header, PacketType
from tests.keys import Stage, address

LABEL = 0x1_2345


@contextlib.contextmanager
def ports(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    keeper = Stage()["owner1"]
    one = Ports("127.0.0.1", keeper, silent, lambda _: True)

    def proof(flags: Flag = NO_FLAGS) -> int:
        """Bytes of the tag that a query would carry."""
        from packets.wire import decode

        header = Header(type=PacketType.QUERY, flags=flags, owner=address("owner1"), transfer_id=1)
        data = one._signed(keeper, header, b"?", LABEL)
        tag = decode(data)[0].authentication
        return len(tag.tag) if tag else 0

    with contextlib.closing(one):
        yield one, proof


def test_proof_gets_cheaper_as_those_who_answer_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with ports(monkeypatch) as (one, proof):
        assert proof() == 64
        one.answers(LABEL, address("h11"))
        assert proof() == 16 and proof(Flag.REPEATED) == 64, "sent again, anybody may have to read it"
        one.expect(LABEL, 2)
        assert proof() == 64, "one of the two is not known yet"
        one.answers(LABEL, address("h12"))
        one.answers(LABEL, address("h12"))
        assert proof() == 16, "two MACs of 8 bytes"
        one.expect(LABEL, 5)
        assert proof() == 64
        one.forget(LABEL)
        assert proof() == 64
