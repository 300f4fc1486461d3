"""Objects under keys are verified in blocks: what is altered on the way is found, and only its block comes again."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from packets.batch import ShardTrain
from packets.errors import TransferRefused
from packets.events import silent
from packets.options import MAX_BLOCKS, DigestAlgorithm
from packets.security import blocks
from packets.security.blocks import Verifier, block_bytes, contradicts, digest_of
from packets.security.pair_keys import PAGE_WORDS, receiver_session, sender_session
from packets.transfer import assembly, incoming
from packets.transfer.assembly import Assembly, Feed
from packets.transfer.inbox import Inbox
from packets.transfer.incoming import Incoming
from packets.transfer.outgoing import remainder
from packets.transfer.receiver import Receiving
from packets.transfer.refusals import Counters, Refusals
from packets.transfer.sender import Sending
from packets.transfer.udp import Arrivals, Peer, peer_number
from packets.transfers import OutgoingObject, ReceivedObject
from packets.wire import FIXED_BYTES, SEALED, Acknowledgement, Digest, Flag, Header, PacketType, decode, encode
from tests.keys import PEOPLE

SHARD, STEP = 96, 1000  # a shard is a multiple of a cipher block; some are of two blocks
HOLDER, FORMER, HERE = ("10.1.1.2", 55831), ("10.1.1.3", 55831), "10.2.1.1"
SIZES = st.sampled_from([0, 1, 95, 96, 97, 999, 1000, 1001, 1500, 7777, 24_000, 24_001, 50_000])


class Clock:
    """Time that passes when a test says so."""

    now = 50.0

    def monotonic(self) -> float:
        return self.now

    def us(self) -> int:
        return int(self.now * 1e6) & 0xFFFF_FFFF


CLOCK = Clock()


@pytest.fixture(autouse=True, scope="module")
def small_blocks_and_own_time() -> Iterator[None]:
    """Blocks of about a thousand bytes, so that small objects have many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "STEP_BYTES", STEP)
        patch.setattr(assembly, "HASH_STEP", STEP)
        patch.setattr(incoming, "time", CLOCK)
        patch.setattr(incoming, "now_us", CLOCK.us)
        yield


def launch_of(payload: bytes) -> Header:
    digest, hashes = digest_of(payload)
    return Header(
        type=PacketType.MODEL_SHARD, flags=Flag.LAUNCH, total_length=len(payload), digest=digest, blocks=hashes,
        shard_count=max(-(-len(payload) // SHARD), 1), object_id=9, transfer_id=7,
    )  # fmt: skip


# --- the hashes


@given(SIZES)
def test_blocks_cover_an_object_and_a_launch_has_room_for_them(size: int) -> None:
    launch = launch_of(random.Random(size).randbytes(size))
    count = len(launch.blocks) // 32 if launch.blocks else 1
    assert count <= MAX_BLOCKS and block_bytes(size) % STEP == 0
    assert (count - 1) * block_bytes(size) < max(size, 1) <= count * block_bytes(size)
    assert not contradicts(decode(encode(launch))[0])
    assert count > 1 or launch.digest == Digest.of(random.Random(size).randbytes(size))


@given(SIZES.filter(bool), st.data())
def test_any_flipped_bit_is_found_and_its_block_named(size: int, data: st.DataObject) -> None:
    payload = random.Random(size).randbytes(size)
    verifier, bit = Verifier(launch_of(payload)), data.draw(st.integers(0, size * 8 - 1))
    altered = bytearray(payload)
    altered[bit // 8] ^= 1 << bit % 8
    steps = sorted(data.draw(st.lists(st.integers(0, size), max_size=5)))
    found = [verifier.advance(memoryview(altered), until) for until in [*steps, size]]
    block = verifier.block_at(bit // 8)
    assert found[-1] == block and {*found} <= {None, block} and not verifier.done
    assert verifier.bounds(block)[0] <= bit // 8 < verifier.bounds(block)[1]
    verifier.go_back(bit // 8)
    assert verifier.advance(memoryview(payload), size) is None and verifier.done


def test_a_launch_whose_hashes_are_not_its_digests_contradicts_itself() -> None:
    launch = launch_of(bytes(5000))
    assert launch.blocks is not None and launch.digest is not None
    other = bytes(32) + launch.blocks[32:]
    changes: list[dict[str, Any]] = [
        {"blocks": None}, {"blocks": other}, {"blocks": launch.blocks[32:]}, {"total_length": 4000},
        {"digest": Digest(launch.digest.value)}, {"digest": None},
        {"digest": Digest(launch.digest.value, DigestAlgorithm.BLAKE2B_256)},
    ]  # fmt: skip
    assert not contradicts(launch)
    assert all(contradicts(msgspec.structs.replace(launch, **change)) for change in changes)


def test_both_ends_have_the_same_word_for_each_shard_and_no_word_twice() -> None:
    ends = sessions(9, 7)
    shards = np.concatenate((np.arange(3 * PAGE_WORDS)[::-1], [1 << 31]))
    words = ends[0].words(shards)
    assert (words == ends[1].words(shards)).all() and len(np.unique(words)) > 0.999 * len(words)
    for part in (shards[:5], shards[5:6], shards[:0]):
        assert ends[1].words(part).tolist() == words[np.searchsorted(-shards[:-1], -part)].tolist()
    assert not (sessions(9, 7)[0].words(shards[:100]) == words[:100]).any(), "of another transfer, others"


# --- on the wire


def sessions(object_id: int, transfer_id: int) -> tuple[Any, Any]:
    """The two ends of a transfer's session."""
    one, two = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    share = {key: key.public_key().public_bytes_raw() for key in (one, two)}
    return (
        sender_session(one, share[two], object_id, transfer_id, PEOPLE["mpvu2"].certificate, 2),
        receiver_session(two, share[one], object_id, transfer_id, PEOPLE["h11"].certificate, 4),
    )


Tamper = Callable[[list[bytes]], list[bytes]]


class Rendezvous:
    """A receiving side with its inbox, fed by datagrams; ``tamper`` is who sits on the way to it."""

    def __init__(self, tamper: Tamper = list, *, deaf: Callable[[], bool] = lambda: False) -> None:
        self.tamper, self.deaf = tamper, deaf
        self.objects: list[ReceivedObject] = []
        self.shards: list[Header] = []
        self.answers: list[tuple[Header, bytes, Peer]] = []
        self.refusals = Refusals(Counters(), silent)
        self.receiving = Receiving(
            send=lambda header, payload, peer, _session, _first: self.answers.append((header, payload, peer)),
            deliver=lambda received: self.objects.append(received) or True,
            refused=self.refusals.of_header, max_object_bytes=1 << 20, max_total_bytes=1 << 21, max_objects=4,
        )  # fmt: skip
        nobody: Any = None
        sink = Incoming(self.receiving, nobody, nobody, nobody, nobody, Counters(), self.refusals)
        self._inbox, self._arrivals = Inbox(sink), Arrivals()

    def launch(self, sending: Sending, peer: Peer, *, keys: bool = True) -> None:
        header = sending.launch(CLOCK.now, CLOCK.us())
        assert header is not None
        session, theirs = sessions(header.object_id, header.transfer_id) if keys else (None, None)
        sending.session = session
        self.receiving.on_launch(decode(encode(header))[0], peer, CLOCK.now, CLOCK.us(), theirs)
        self.answer(sending, peer, heard=True)

    def step(self, sending: Sending, peer: Peer) -> int:
        """Let a sender send once, and hear the answers; returns how many shards it sent."""
        CLOCK.now += 0.005
        sending.check(CLOCK.now)
        indices, into = sending.take(CLOCK.now), bytearray(200 * sending.frame_bytes)
        end = sending.write(into, indices, CLOCK.us())
        sending.sent(indices, CLOCK.now)
        frames = [bytes(into[at : min(at + sending.frame_bytes, end)]) for at in range(0, end, sending.frame_bytes)]
        self.shards += [decode(frame)[0] for frame in frames]
        self.arrive(self.tamper(frames), peer)
        self.answer(sending, peer, heard=not self.deaf())
        return len(indices)

    def arrive(self, frames: list[bytes], peer: Peer) -> None:
        for at in range(0, len(frames), 128):
            some = frames[at : at + 128]
            for row, frame in enumerate(some):
                self._arrivals.frames[row, : len(frame)] = np.frombuffer(frame, np.uint8)
                self._arrivals.sizes[row], self._arrivals.peers[row] = len(frame), peer_number(peer)
            self._inbox.sort(self._arrivals, len(some), CLOCK.now)

    def answer(self, sending: Sending, peer: Peer, *, heard: bool) -> None:
        CLOCK.now += 0.005
        self.receiving.answer(CLOCK.now, CLOCK.us())
        for header, payload, where in self.answers:
            if heard and where == peer and header.transfer_id == sending.transfer_id:
                if header.type is PacketType.ERROR:
                    sending.on_error(header, payload.decode(), CLOCK.now)
                else:
                    sending.on_ack(decode(encode(header))[0], HERE, CLOCK.now, CLOCK.us())
        self.answers.clear()

    def transfer(self, sending: Sending, peer: Peer = HOLDER, *, keys: bool = True) -> Sending:
        self.launch(sending, peer, keys=keys)
        for _ in range(3000):
            if sending.handle.done:
                return sending
            if not self.step(sending, peer):
                CLOCK.now = max(CLOCK.now, sending.wake_at(CLOCK.now))
        raise AssertionError("it does not end")


def sending_of(size: int, **more: Any) -> Sending:
    payload = random.Random(size).randbytes(size)
    fields: dict[str, Any] = {"object_id": 9, "type": PacketType.MODEL_SHARD, "payload": payload, "owner": HOLDER[0]}
    return Sending(OutgoingObject(**(fields | more)), 7, SHARD, CLOCK.now)


def mended(frame: bytes, at: int, change: int) -> bytes:
    """A shard with a byte of its payload changed by who knows its word, as it has seen the shard."""
    data = bytearray(frame)
    data[FIXED_BYTES + at % (len(data) - FIXED_BYTES)] ^= change
    word = struct.unpack_from("!I", frame, 56)[0] ^ zlib.crc32(frame[FIXED_BYTES:])
    struct.pack_into("!I", data, 56, word ^ zlib.crc32(data[FIXED_BYTES:]))
    struct.pack_into("!I", data, 60, zlib.crc32(bytes(data[:60]) + bytes(4)))
    return bytes(data)


class Meddler:
    """Alters, on the way, shards for which ``wants`` says so."""

    def __init__(self, wants: Callable[[int, Header], bool], at: int = 5, change: int = 1) -> None:
        self.wants, self.at, self.change = wants, at, change
        self.seen = self.altered = 0

    def __call__(self, frames: list[bytes]) -> list[bytes]:
        return [self._one(frame) for frame in frames]

    def _one(self, frame: bytes) -> bytes:
        self.seen += 1
        if len(frame) == FIXED_BYTES or not self.wants(self.seen, decode(frame)[0]):
            return frame
        self.altered += 1
        return mended(frame, self.at, self.change)


@settings(max_examples=50, deadline=None)
@given(SIZES, st.sampled_from([Flag(0), Flag.ENCRYPTED]), st.integers(0, 1 << 32))
def test_an_object_arrives_whatever_becomes_of_the_order(size: int, flags: Flag, seed: int) -> None:
    """Shuffled, some twice, some not at all, and some answers lost; nothing is altered, so no MAC is asked for."""
    rng = random.Random(seed)

    def weather(frames: list[bytes]) -> list[bytes]:
        kept = [frame for frame in frames for _ in range(rng.choice([0, 1, 1, 1, 1, 2]))]
        rng.shuffle(kept)
        return kept

    here = Rendezvous(weather, deaf=lambda: rng.random() < 0.2)
    sending = here.transfer(sending_of(size, flags=flags))
    assert [one.payload for one in here.objects] == [sending.object.payload]
    assert not here.refusals.by_reason
    seal = Flag.KEYED if flags else Flag.ONE_TIME
    assert all(shard.flags & SEALED == seal for shard in here.shards)


@settings(max_examples=60, deadline=None)
@given(SIZES.filter(bool), st.data())
def test_one_altered_bit_of_any_shard_is_found_and_only_its_block_comes_again(size: int, data: st.DataObject) -> None:
    sending = sending_of(size)
    which = data.draw(st.integers(1, sending.count))
    meddler = Meddler(
        lambda number, _: number == which, data.draw(st.integers(0, SHARD)), 1 << data.draw(st.integers(0, 7))
    )
    here = Rendezvous(meddler)
    here.transfer(sending)
    assert meddler.altered == 1
    assert [one.payload for one in here.objects] == [sending.object.payload]
    again = [shard for shard in here.shards if shard.flags & Flag.REPEATED]
    assert all(shard.flags & SEALED == Flag.KEYED for shard in again), "and who tampers once is not trusted again"
    assert 0 < len(again) <= block_bytes(size) // SHARD + 2 + 64, "its block, and what was on its way"


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("size", [80, 24_001, 120_000])
def test_who_alters_every_tenth_shard_to_the_end_changes_nothing(size: int, keys: bool) -> None:
    """By words, then by MACs that cannot be mended; without keys a block may be wrong twice, and that is the end."""
    rng = random.Random(size)
    meddler = Meddler(lambda _, header: rng.random() < 0.1 and bool(keys or not header.flags & Flag.REPEATED))
    here = Rendezvous(meddler, deaf=lambda: rng.random() < 0.1)
    sending = here.transfer(sending_of(size), keys=keys)
    assert [one.payload for one in here.objects] == [sending.object.payload]
    assert set(here.refusals.by_reason) <= {"mac"}
    if size > STEP and keys:
        assert here.refusals.by_reason["mac"] > 10


def test_a_flood_of_forged_shards_is_refused_shard_by_shard_and_costs_no_block() -> None:
    """Right numbers and checksums; of a thousand guesses at a word of 32 bits none is right."""
    sending, rng = sending_of(50_000), random.Random(4)

    def flood(frames: list[bytes]) -> list[bytes]:
        forged = [
            encode(
                msgspec.structs.replace(
                    sending.shard(rng.randrange(sending.count - 1), 0)[0], payload_checksum=rng.getrandbits(32),
                    flags=rng.choice([Flag.ONE_TIME, Flag.KEYED, SEALED, Flag(0)]),
                ), rng.randbytes(SHARD),
            ) for _ in range(40)
        ]  # fmt: skip
        mixed = frames + forged
        rng.shuffle(mixed)
        return mixed

    here = Rendezvous(flood)
    here.transfer(sending)
    assert [one.payload for one in here.objects] == [sending.object.payload]
    assert here.refusals.by_reason["mac"] >= 40
    assert not any(shard.flags & (Flag.KEYED | Flag.REPEATED) for shard in here.shards)


def test_the_word_of_one_shard_is_no_good_for_another() -> None:
    sending = sending_of(50_000)
    swapped = 0

    def swap(frames: list[bytes]) -> list[bytes]:
        nonlocal swapped
        if len(frames) < 2 or swapped:
            return frames
        swapped, data = 1, bytearray(frames[0])
        data[24:40] = frames[1][24:40]  # index, count, offset
        struct.pack_into("!I", data, 60, zlib.crc32(bytes(data[:60]) + bytes(4)))
        return [bytes(data), *frames[1:]]

    here = Rendezvous(swap)
    here.transfer(sending)
    assert here.refusals.by_reason == {"mac": 1}
    assert [one.payload for one in here.objects] == [sending.object.payload]


@pytest.mark.parametrize("size", [80, 24_001])
def test_who_sends_other_bytes_than_it_launched_is_told_so(size: int) -> None:
    sending = sending_of(size)
    sending.payload = memoryview(bytes(size))
    here = Rendezvous()
    here.transfer(sending)
    with pytest.raises(TransferRefused, match="digest"):
        sending.handle.result(0)
    assert not here.objects and here.refusals.by_reason == {"digest": 1}


def test_a_launch_that_contradicts_itself_is_refused_before_a_byte_is_stored() -> None:
    here, launch = Rendezvous(), launch_of(bytes(5000))
    here.receiving.on_launch(msgspec.structs.replace(launch, blocks=bytes(160)), HOLDER, CLOCK.now, 0)
    assert here.refusals.by_reason == {"digest": 1} and not here.receiving.busy


def test_the_size_of_a_shard_is_the_launchs_word_not_the_first_shards() -> None:
    """An object of few shards could be cut otherwise too; a shard that says so belongs to none."""
    sending, here = sending_of(250), Rendezvous()
    here.launch(sending, HOLDER, keys=False)
    header, _ = sending.shard(1, 0)
    here.arrive([encode(msgspec.structs.replace(header, offset=120), bytes(120))], HOLDER)
    assert here.refusals.by_reason == {"shard": 1}
    while not sending.handle.done:
        here.step(sending, HOLDER)
    assert [one.payload for one in here.objects] == [sending.object.payload]


def test_what_was_spoilt_before_a_hand_over_comes_from_its_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The former rendezvous hands over a shard that was altered on its way to there; it does not know."""
    sending = sending_of(100_000)
    former = Rendezvous(Meddler(lambda _, header: header.shard_index == 3))
    monkeypatch.setattr(assembly, "HASH_STEP", 1 << 20)
    former.launch(sending, HOLDER)
    while sending.handle.delivered_bytes < 60_000:
        former.step(sending, HOLDER)
    held = former.receiving.withdraw(9, 0)
    assert held is not None and held.held[3] and not held.wrong
    monkeypatch.setattr(assembly, "HASH_STEP", STEP)
    rest = remainder(held, HERE, 8, CLOCK.now)
    here = Rendezvous()
    sending.relaunch(CLOCK.now)
    here.launch(rest, FORMER)
    here.launch(sending, HOLDER)
    for _ in range(2000):
        if sending.handle.done:
            break
        sent = here.step(rest, FORMER) if not rest.handle.done else 0
        if not sent + here.step(sending, HOLDER):
            CLOCK.now = max(CLOCK.now, sending.wake_at(CLOCK.now))
    assert [one.payload for one in here.objects] == [sending.object.payload]
    assert sending.handle.result(0).retransmissions and rest._strict
    assert not here.refusals.by_reason.keys() - {"shard"}, "what it hands over of the wrong block is not taken"


def test_of_a_wrong_block_nothing_is_handed_over_again() -> None:
    here, source = Rendezvous(), Assembly(launch_of(bytes(20_000)), 1.0)
    source.stride, source.held[:30] = SHARD, True
    rest = remainder(source, HERE, 8, CLOCK.now)
    here.launch(rest, FORMER, keys=False)
    one = next(iter(here.receiving._assemblies.values()))
    one.wrong.add(1)
    here.step(rest, FORMER)
    assert np.flatnonzero(~one.held[:30]).tolist() == list(range(STEP // SHARD, 2 * STEP // SHARD + 1))
    told = Acknowledgement(base=0, window=one.count, bitmap=bytes(8))
    rest.on_ack(Header(type=PacketType.ACK, flags=Flag.REPLY | Flag.AGAIN, ack=told), HERE, CLOCK.now, CLOCK.us())
    assert rest._strict and rest._flight.held == 19, "what is held there is not sent again"


def test_once_tampered_with_shards_without_a_mac_are_answered_and_not_taken() -> None:
    """Their sender may not have heard of it: an answer was lost."""
    sending, here = sending_of(100_000), Rendezvous(Meddler(lambda number, _: number == 2))
    here.launch(sending, HOLDER)
    one = next(iter(here.receiving._assemblies.values()))
    while not one.wrong:
        here.step(sending, HOLDER)
    before, untold = one.held.copy(), np.flatnonzero(~one.held)
    train = ShardTrain(sending.header, sending.payload, SHARD, words=sending.session.words)  # type: ignore[union-attr]
    for shards in (untold[-40:-20], untold[-60:-59]):  # many, and one
        into = bytearray(train.stride * len(shards))
        train.write(into, 0, shards, timestamp_us=CLOCK.us(), high=0)
        here.arrive([bytes(into[at : at + train.stride]) for at in range(0, len(into), train.stride)], HOLDER)
        assert (one.held == before).all()
        CLOCK.now += 0.01
        here.receiving.answer(CLOCK.now, CLOCK.us())
        assert here.answers and all(header.flags & Flag.AGAIN for header, _, _ in here.answers)
        here.answers.clear()
    while not sending.handle.done:
        here.step(sending, HOLDER)
    assert [got.payload for got in here.objects] == [sending.object.payload] and not here.refusals.by_reason


def test_a_shard_of_two_blocks_that_comes_again_is_looked_at_in_both() -> None:
    """Without keys: its part of the second block is altered, then, when it comes again, that of the first."""
    size = 24_000
    first = STEP // SHARD  # its bytes 0 to 39 are of block 0
    assert first * SHARD < STEP < (first + 1) * SHARD and block_bytes(size) == STEP
    seen = 0

    def meddle(frames: list[bytes]) -> list[bytes]:
        nonlocal seen
        found = list(frames)
        for row, frame in enumerate(frames):
            if decode(frame)[0].shard_index == first and seen < 2:
                found[row], seen = mended(frame, (90, 3)[seen], 1), seen + 1
        return found

    here = Rendezvous(meddle)
    sending = here.transfer(sending_of(size), keys=False)
    assert seen == 2 and [one.payload for one in here.objects] == [sending.object.payload]


def test_a_block_far_behind_is_asked_for_again() -> None:
    """More shards lie between it and what came last than an acknowledgement has bits."""
    size, count = 3_000_000, 3_000_000 // SHARD
    one = Assembly(launch_of(bytes(size)), 1.0)

    feed = Feed(one, one.launch, HOLDER, 1.0)
    one.stride, one.high, one.base = SHARD, count, 100
    one.held[:100], one.held[2000:] = True, True
    feed._came.append(np.arange(count - 20, count))
    assert feed._starts()[0] > 100
    one.wrong.add(0)
    feed._came.append(np.arange(count - 20, count))
    assert feed._starts()[0] == 100 and len(feed._starts()) == 2
