"""What is signed, MACed and ciphered, to the byte; the memory of what was said, and the budget for checks."""

from __future__ import annotations

import hashlib
import struct

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from packets.batch import ShardTrain
from packets.security import seal
from packets.security.pair_keys import Session, pair_keys, receiver_session, sender_session
from packets.security.replay import WINDOW_MS, Budget, Memory
from packets.wire import Header, Mandate, PacketType, decode, encode
from tests.keys import NEED, PAYLOAD, PEOPLE, Stage, an_object, launched

# --- exact bytes ---


def test_what_an_owner_signs_is_exactly_this() -> None:
    header = launched(an_object())
    text = seal.mandate_text(header, bytes(range(32)), 0x0102030405060708, 0x1112131415161718)
    assert text == (
        b"DA-ITN mandate 1" + bytes.fromhex("0000123400100001" "0a010101" "01" "0028")
        + struct.pack("!IHHHHI", NEED.task_class, 8000, 0, 0, 0, 170_000) + bytes(range(32))
        + bytes.fromhex("0102030405060708" "1112131415161718")
    )  # fmt: skip
    bare = msgspec.structs.replace(header, requirements=None)
    assert len(seal.mandate_text(bare, bytes(32), 0, 0)) == len(text) - 16


def test_a_mac_covers_header_with_zero_checksum_and_payload() -> None:
    header = Header(type=PacketType.ANNOUNCE, object_id=3, owner="10.1.1.2", transfer_id=9, sent_at_ms=77)
    key = bytes(range(32))
    raw = seal.seal_with_mac(header, b"payload", key, 0x0203, 8)
    expected = hashlib.blake2b(raw[:60] + bytes(4) + raw[64:76] + b"payload", key=key, digest_size=8).digest()
    assert raw[76:92] == bytes.fromhex("ffff000c01000203") + expected and raw[92:] == b"payload"
    assert expected.hex() == "9d55584764928a6a"
    assert seal.mac_matches(decode(raw)[0], raw, key, 8)
    assert not seal.mac_matches(decode(raw)[0], raw, key), "a tag of another length is no tag"
    assert not seal.mac_matches(decode(raw)[0], raw, bytes(32), 8)


def test_a_signature_is_ed25519_over_the_same_bytes() -> None:
    header = Header(type=PacketType.QUERY, object_id=3, owner="10.1.1.2", transfer_id=9, sent_at_ms=77)
    raw = seal.seal_with_signature(header, b"ask", PEOPLE["h11"])
    covered = raw[:60] + bytes(4) + raw[64:76] + b"ask"
    assert raw[76:84] == bytes.fromhex("ffff004402000002")
    PEOPLE["h11"].certificate.signing_key.verify(raw[84:148], covered)
    assert raw[84:100].hex() == "c8011eff5b61dc931f39d2ddfc1685e9", "Ed25519 is deterministic"


def shared(object_id: int = 1, transfer_id: int = 2) -> tuple[Session, Session]:
    ours, theirs = (X25519PrivateKey.from_private_bytes(hashlib.sha256(w).digest()) for w in (b"ours", b"theirs"))
    ours_public, theirs_public = (k.public_key().public_bytes_raw() for k in (ours, theirs))
    ids = object_id, transfer_id
    return (
        sender_session(ours, theirs_public, *ids, PEOPLE["h12"].certificate, 2),
        receiver_session(theirs, ours_public, *ids, PEOPLE["h11"].certificate, 3),
    )


def test_both_ends_of_a_session_have_the_same_keys_crossed_over() -> None:
    sender, receiver = shared()
    assert (sender.send_key, sender.receive_key) == (receiver.receive_key, receiver.send_key)
    assert sender.send_key != sender.receive_key and sender.peer.name == "h12" and receiver.peer.name == "h11"
    assert sender.send_key[:16].hex() == "beef7c09e4fbecb335838e6acb4dea01"
    words = sender.words(np.array([0, 1, 1 << 31]))
    assert [int(word) for word in words] == [0x9E5969C2, 0x9B7640F6, 0x24321C65]
    assert (receiver.words(np.array([0, 1, 1 << 31])) == words).all()
    for other in (shared(object_id=9), shared(transfer_id=9)):
        assert other[0].send_key != sender.send_key
        assert not (other[0].words(np.arange(50)) == sender.words(np.arange(50))).any()


def test_a_sealed_shard_is_checked_alone_as_in_a_block() -> None:
    sender, receiver = shared()
    template = Header(type=PacketType.DATA_SHARD, object_id=1, transfer_id=2)
    for sealed in ({"words": sender.words}, {"mac": sender.send_key}):
        train = ShardTrain(template, bytes(range(250)), 100, **sealed)  # type: ignore[arg-type]
        for index in range(train.count):
            raw = bytearray(train.stride)
            raw = raw[: train.write(raw, 0, [index], timestamp_us=1, high=0)]
            assert seal.shard_matches(decode(raw)[0], raw, receiver)
            assert not seal.shard_matches(decode(raw)[0], raw, shared(object_id=9)[1])
            raw[-1] ^= 1
            assert not seal.shard_matches(decode(raw)[0], raw, receiver)
    bare = encode(msgspec.structs.replace(template, shard_count=1))
    assert not seal.shard_matches(decode(bare)[0], bare, receiver)


def test_a_share_that_forces_the_secret_is_refused() -> None:
    with pytest.raises(ValueError):
        sender_session(X25519PrivateKey.generate(), bytes(32), 1, 2, PEOPLE["h12"].certificate, 2)


@given(st.binary(min_size=1, max_size=5000), st.data())
def test_parts_are_ciphered_as_the_whole_is(text: bytes, data: st.DataObject) -> None:
    """AES-256-CTR from the library over the whole object, and ours part by part, at any multiple of 16."""
    sender, receiver = shared()
    whole = Cipher(algorithms.AES256(sender._cipher_key), modes.CTR(bytes(16))).encryptor().update(text)
    start = 16 * data.draw(st.integers(0, (len(text) - 1) // 16))
    assert sender.cipher(start, text[start:]) == whole[start:]
    assert receiver.cipher(start, memoryview(whole)[start:]) == text[start:]
    with pytest.raises(ValueError):
        sender.cipher(start + 1, text)


def test_pair_keys_cross_over_and_differ_by_direction_and_pair() -> None:
    one, other = PEOPLE["h11"], PEOPLE["mpvu2"]
    forth, back = pair_keys(one, other.certificate)
    assert pair_keys(other, one.certificate) == (back, forth)
    assert len({forth, back, *pair_keys(one, PEOPLE["h12"].certificate)}) == 4
    assert forth[:16].hex() == "9d34581b3b41fd55e838bf2624f34d6e"


# --- memory and budget ---


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-40_000, 40_000)), max_size=200))
def test_the_memory_takes_nothing_twice_and_stays_small(said: list[tuple[int, int]]) -> None:
    memory, now, taken = Memory(0, kept=3), 1_000_000, set()
    for step, (what, offset) in enumerate(said):
        now += 1000 * (step % 7)
        sent = now + offset
        verdict = memory.judge(1, what, sent, now)
        if verdict:
            assert verdict in ("expired", "replayed")
            continue
        assert (what, sent) not in taken and now - WINDOW_MS <= sent
        taken.add((what, sent))
        memory.note(1, what, sent, now)
        assert len(memory._said[1]) <= 3


def test_a_memory_remembers_nothing_from_before_it_was_made() -> None:
    memory = Memory(5000)
    assert memory.judge(1, "x", 4999, 6000) == "replayed"
    assert memory.judge(1, "x", 5000, 6000) == ""


def test_budgets_are_per_source_with_one_over_all_and_their_number_is_bounded() -> None:
    budget = Budget(rate=1, burst=2, all_rate=1, all_burst=4, sources=3)
    assert [budget.spend("a", 1, 0.0) for _ in range(3)] == [True, True, False]
    assert [budget.spend("b", 1, 0.0) for _ in range(3)] == [True, True, False]
    assert not budget.spend("c", 1, 0.0), "all together are bounded"
    assert budget.spend("c", 1, 1.0)
    for n in range(50):
        budget.spend(f"x{n}", 1, 2.0)
    assert len(budget._buckets) <= 3


def test_a_mandate_lasts_its_deadline_and_some_slack() -> None:
    stage = Stage()
    word = stage["owner1"].mandate(launched(an_object()))
    assert word.expires_ms - word.issued_ms == 170_000 + 300_000
    assert isinstance(word, Mandate) and word.digest == hashlib.sha256(PAYLOAD).digest()
