"""One object being put together: its bytes, the shards held, and the answers owed to each transfer that feeds it.

All shards have one size but the last: a shard's place follows from its index, and no packet can write where it does not
belong.  Neighbours in a batch are stored with one copy; the finished front is hashed on the way, and compared block by
block with what the launch said (``blocks.py``).  The shards of a block that is wrong have to come again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from packets.options import MAX_BITMAP_BYTES
from packets.security.blocks import Verifier
from packets.transfer.guard import Session
from packets.transfer.udp import MASK_32, Peer
from packets.transfers import ReceivedObject
from packets.wire import Acknowledgement, Flag, Header

WINDOW_SHARDS = MAX_BITMAP_BYTES * 8
ACK_EVERY = 8
ACK_DELAY_S = 0.004
HASH_STEP = 1 << 18

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]


class Rows(NamedTuple):
    """Shards of one transfer in a block of frames, one row each, all arrays (n,); ``at``: where the payload begins."""

    frames: Bytes  # (any, stride)
    row: Numbers
    at: Numbers
    shard: Numbers
    offset: Numbers
    length: Numbers
    shards: Numbers
    total: Numbers
    timestamp_us: int

    @classmethod
    def single(cls, header: Header, payload: memoryview) -> Rows:
        """Return one shard as rows."""
        frames = np.frombuffer(payload, np.uint8).reshape(1, -1)
        numbers = (0, 0, header.shard_index, header.offset, header.length, header.shard_count, header.total_length)
        row, at, shard, offset, length, shards, total = (np.array([min(n, 1 << 62)], np.int64) for n in numbers)
        return cls(frames, row, at, shard, offset, length, shards, total, header.timestamp_us)

    def only(self, where: Bits | Numbers) -> Rows:
        """Return some of these rows."""
        row, at, shard, offset, length, shards, total = (column[where] for column in self[1:8])
        return Rows(self.frames, row, at, shard, offset, length, shards, total, self.timestamp_us)


class Assembly:
    """One object so far. ``data``: (bytes,); ``held``: (shards,), true below ``base``, false from ``high`` on."""

    def __init__(self, launch: Header, now: float, *, empty: bool = False) -> None:
        self.launch = launch
        self.key = self.key_of(launch)
        self.count, self.total = launch.shard_count, launch.total_length
        self.data: Bytes = np.empty(0 if empty else self.total, np.uint8)  # large pages, unlike zeros; read only whole
        self.held: Bits = np.zeros(0 if empty else self.count, np.bool_)
        self.started_at = self.heard_at = now
        self.packets = self.duplicates = 0
        self.base, self.high = 0 if self.total else self.count, 0
        self.stride = self._launched_stride()
        self.feeds: list[Feed] = []
        self.peer: Peer = ("0.0.0.0", 0)
        self._verifier = Verifier(launch)
        self.wrong: set[int] = set()
        self.refuted = False

    @staticmethod
    def key_of(launch: Header) -> tuple[object, ...]:
        """Return what makes two launches speak of the same bytes in the same pieces."""
        return (launch.object_id, launch.visit, launch.digest, launch.type, launch.shard_count, launch.total_length)

    @property
    def whole(self) -> bool:
        return self.base == self.count

    @property
    def strict(self) -> bool:
        """Whether every shard has to have a MAC: somebody tampers, or bytes are secret and the launch has no blocks."""
        return bool(self.wrong or self.launch.flags & Flag.ENCRYPTED)

    @property
    def weight(self) -> int:
        """Bytes of memory that it takes."""
        return len(self.data) + len(self.held)

    def welcome(self, launch: Header, peer: Peer) -> None:
        """Note who launched it: the holder counts, not who hands over what it had of it."""
        if self.peer[1] == 0 or (self.launch.flags & Flag.HANDOVER and not launch.flags & Flag.HANDOVER):
            self.launch, self.peer = launch, peer

    def fitting(self, rows: Rows) -> Bits:
        """Tell which shards belong to the object that was launched: (n,)."""
        if not self.stride:
            self._learn_stride(rows)
        size = np.where(rows.shard == self.count - 1, self.total - (self.count - 1) * self.stride, self.stride)
        here = (rows.shards == self.count) & (rows.total == self.total) & (rows.shard < self.count)
        fits: Bits = here & (rows.offset == rows.shard * self.stride) & (rows.length == size)
        return fits

    def _launched_stride(self) -> int:
        """Return the size of a shard as the launch says it; 0: it does not, or cannot be right."""
        size = self.total if self.count == 1 else self.launch.offset
        return size if size * (self.count - 1) < self.total <= size * self.count else 0

    def _learn_stride(self, rows: Rows) -> None:
        """Learn the size of a shard from the first one that is consistent with count and total."""
        sizes = np.where(rows.shard == 0, rows.length, rows.offset // np.maximum(rows.shard, 1))
        here = (rows.shards == self.count) & (rows.total == self.total) & (rows.shard < self.count)
        fine = here & (sizes * (self.count - 1) < self.total) & (sizes * self.count >= self.total)
        if fine.any():
            self.stride = int(sizes[fine][0])

    def store(self, rows: Rows, session: Session | None = None) -> None:
        """Store shards that fit; those that are held already count as duplicates.

        ``session``: that of the transfer they came by, which has the key where they are encrypted.
        """
        index = rows.shard
        if not bool((np.diff(index) > 0).all()):
            index, first = np.unique(index, return_index=True)
            self.duplicates += len(rows.shard) - len(index)
            rows = rows.only(first)
        new = ~self.held[index]
        self.duplicates += len(index) - int(np.count_nonzero(new))
        if not new.all():
            rows, index = rows.only(new), index[new]
        if not len(index):
            return
        self._copy(rows, session if self.launch.flags & Flag.ENCRYPTED else None)
        self.held[index] = True
        self.high = max(self.high, int(index[-1]) + 1)
        self._advance()

    def _copy(self, rows: Rows, session: Session | None) -> None:
        """Copy payloads into place, a run of neighbours at a time."""
        index, row, at = rows.shard, rows.row, rows.at
        broken = (np.diff(index) != 1) | (np.diff(row) != 1) | (np.diff(at) != 0) | (np.diff(rows.length) != 0)
        ends = [*(np.flatnonzero(broken) + 1).tolist(), len(index)]
        begin = 0
        for end in ends:
            size, place = int(rows.length[begin]), int(index[begin]) * self.stride
            target = self.data[place : place + (end - begin) * size].reshape(end - begin, size)
            first, column = int(row[begin]), int(at[begin])
            target[:] = rows.frames[first : first + end - begin, column : column + size]
            if session is not None:
                target.reshape(-1)[:] = np.frombuffer(session.cipher(place, target.tobytes()), np.uint8)
            begin = end

    def _advance(self) -> None:
        if self.base == self.count or not self.held[self.base]:
            return
        front = self.held[self.base : self.high]
        gap = int(front.argmin())
        self.base += gap if not front[gap] else len(front)
        if self.whole or self.base * self.stride - self._verifier.at >= HASH_STEP:
            self._verify()

    def _verify(self) -> None:
        block = self._verifier.advance(self.data.data, min(self.base * self.stride, self.total))
        if block is not None:
            self._reject(block)

    def _reject(self, block: int) -> None:
        """Let go of a block's shards, so that they come again, each with a MAC; a second time there is no hope."""
        if block in self.wrong or not self.total:
            self.refuted = True
            return
        self.wrong.add(block)
        begin, end = self._verifier.bounds(block)
        first, stop = begin // self.stride, -(-end // self.stride)
        self.held[first:stop] = False
        self.base = first
        self._verifier.go_back(first * self.stride)
        self.urge()

    def spoilt(self, shards: Numbers) -> Bits:
        """Tell which shards are of blocks that were wrong: (n,)."""
        of = np.zeros(len(shards), np.bool_)
        for begin, end in map(self._verifier.bounds, self.wrong):
            of |= (shards >= begin // self.stride) & (shards * self.stride < end)
        return of

    def matches(self) -> bool:
        """Tell whether all of the object is what was announced."""
        if not self._verifier.done and not self.refuted:
            self._verify()
        return self._verifier.done

    def urge(self) -> None:
        """Answer every feed soon."""
        for feed in self.feeds:
            feed.urgent = True

    def release(self) -> None:
        """Let go of the bytes."""
        self.data, self.held = np.zeros(0, np.uint8), np.zeros(0, np.bool_)

    def received(self, now: float) -> ReceivedObject:
        """Return the whole object; its payload is a view."""
        launch = self.launch
        return ReceivedObject(
            object_id=launch.object_id,
            type=launch.type,
            payload=self.data.data,
            owner=launch.owner,
            visit=launch.visit,
            visit_limit=launch.visit_limit,
            requirements=launch.requirements,
            sender=self.peer[0],
            transfer_id=launch.transfer_id,
            seconds=now - self.started_at,
            packets=self.packets,
            duplicates=self.duplicates,
            mandate=launch.mandate,
            flags=launch.flags,
        )


class Feed:
    """One transfer into an assembly: who sends, and the answer owed."""

    def __init__(self, assembly: Assembly, launch: Header, peer: Peer, now: float) -> None:
        self.assembly, self.launch, self.peer = assembly, launch, peer
        self.session: Session | None = None
        self.owed, self.owed_since, self.urgent, self.answers_launch = 0, now, False, False
        self._echo_us = self._echo_at_us = 0
        self._came: list[Numbers] = []
        assembly.feeds.append(self)

    @property
    def strict(self) -> bool:
        """Whether its shards need MACs; without keys there are none."""
        return self.session is not None and self.assembly.strict

    def note(self, packets: int, timestamp_us: int, now: float, now_us: int) -> None:
        """Note that packets came, so that an answer is owed."""
        if self.owed == 0:
            self.owed_since = now
            self._echo_us, self._echo_at_us = timestamp_us, now_us
        self.owed += packets
        self.assembly.heard_at = now

    def add(self, rows: Rows, now: float, now_us: int) -> int:
        """Take shards; return how many of them belong to the object."""
        fits = self.assembly.fitting(rows)
        if self.assembly.wrong and self.launch.flags & Flag.HANDOVER:  # it may have been wrong there before
            fits &= ~self.assembly.spoilt(rows.shard)
        good = int(np.count_nonzero(fits))
        if not good:
            return 0
        rows = rows if good == len(fits) else rows.only(fits)
        assembly, high, duplicates = self.assembly, self.assembly.high, self.assembly.duplicates
        self.note(good, rows.timestamp_us, now, now_us)
        assembly.packets += good
        low, top = int(rows.shard.min()), int(rows.shard.max()) + 1
        self._came.append(rows.shard)
        assembly.store(rows, self.session)
        if low > high or top - low > good or assembly.duplicates > duplicates or top == assembly.count:
            self.urgent = True
        return good

    def answer_due(self, now: float) -> bool:
        return self.owed >= ACK_EVERY or (self.owed > 0 and (self.urgent or now - self.owed_since >= ACK_DELAY_S))

    def answers(self, now_us: int) -> list[tuple[Acknowledgement, int]]:
        """Return acknowledgements of all that came lately, one as a rule, each with its first bit's shard."""
        found = [(self._acknowledge(start, now_us), start) for start in self._starts()]
        self.owed, self.urgent, self.answers_launch = 0, False, False
        self._came.clear()
        return found

    def _starts(self) -> list[int]:
        """Return where bitmaps begin: two stretches that are sent one after the other may lie far apart."""
        assembly = self.assembly
        if not self._came or assembly.high - assembly.base <= WINDOW_SHARDS:
            return [assembly.base]
        came, starts = np.unique(np.concatenate(self._came)), [assembly.base] if assembly.wrong else []
        top = int(came[-1]) + 1
        start = max(assembly.base, min(int(came[0]), top - WINDOW_SHARDS // 2))
        if top - start <= WINDOW_SHARDS:
            return [*starts, start]
        came = came[came >= assembly.base]
        while came.size:
            starts.append(int(came[0]))
            came = came[came >= starts[-1] + WINDOW_SHARDS]
        return starts

    def _acknowledge(self, start: int, now_us: int) -> Acknowledgement:
        assembly = self.assembly
        bits = assembly.held[start : min(assembly.high, start + WINDOW_SHARDS)]
        return Acknowledgement(
            base=assembly.base,
            echo_us=self._echo_us,
            delay_us=(now_us - self._echo_at_us) & MASK_32,
            window=assembly.count - assembly.base,
            bitmap=np.packbits(bits, bitorder="little").tobytes(),
        )
