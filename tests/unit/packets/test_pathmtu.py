"""How many bytes of an object a packet carries, whatever the path does."""

from __future__ import annotations

import pytest

from packets.transfer.pathmtu import BASE_MTU, CIPHER_BLOCK_BYTES, OVERHEAD, RAISE_S, ShardSize


@pytest.mark.parametrize("mtu", [1500, 1499, 1450, 1420, 1280, 600])
def test_a_shard_ends_with_a_block_of_the_cipher_and_fills_the_packet_but_for_less_than_one(mtu: int) -> None:
    size = ShardSize(mtu)
    for found, carried in ((size.now(0.0), mtu), (size.least, min(mtu, BASE_MTU))):
        assert found % CIPHER_BLOCK_BYTES == 0
        assert carried - CIPHER_BLOCK_BYTES < found + OVERHEAD <= carried


def test_a_narrowed_path_is_tried_again_later() -> None:
    size = ShardSize(1500)
    size.narrow(10.0)
    assert size.now(10.0) == size.least < size.now(10.0 + RAISE_S)
