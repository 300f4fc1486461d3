"""How many bytes of an object a packet carries, whatever the path does."""

from __future__ import annotations

import pytest

from packets.security.checksums import SEALED_BYTES
from packets.security.pair_keys import BLOCK_BYTES
from packets.transfer.pathmtu import BASE_MTU, RAISE_S, ShardSize
from packets.wire import FIXED_BYTES, IP_UDP_BYTES


@pytest.mark.parametrize("mtu", [1500, 1499, 1450, 1420, 1280, 600])
def test_a_sealed_shard_ends_with_a_block_and_fills_the_packet_but_for_less_than_one(mtu: int) -> None:
    size = ShardSize(mtu, sealed=True)
    for found, carried in ((size.now(0.0), mtu), (size.least, min(mtu, BASE_MTU))):
        assert found % BLOCK_BYTES == 0
        assert carried - BLOCK_BYTES < found + IP_UDP_BYTES + SEALED_BYTES <= carried


def test_an_open_shard_fills_the_packet() -> None:
    assert ShardSize(1450, sealed=False).now(0.0) == 1450 - IP_UDP_BYTES - FIXED_BYTES


def test_a_narrowed_path_is_tried_again_later() -> None:
    size = ShardSize(1500, sealed=True)
    size.narrow(10.0)
    assert size.now(10.0) == size.least < size.now(10.0 + RAISE_S)
