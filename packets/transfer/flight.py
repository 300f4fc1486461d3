"""Which shards of an object are unsent, flying, lost or held; which go next, and what an answer tells of them.

All of it lies in arrays, one place a shard: Python's work is per batch and per acknowledgement, not per packet.  Loss
is judged by time in the manner of RACK (RFC 8985): a shard is lost when one sent sufficiently later has arrived.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from packets.transfer.congestion import Sent
from packets.wire import Acknowledgement

UNSENT, FLYING, LOST, HELD = range(4)

Indices = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]
NOTHING: Indices = np.zeros(0, np.int64)


class Batch(NamedTuple):
    """Shards that left together."""

    number: int
    sent: Sent
    indices: Indices


class Settled(NamedTuple):
    """What an acknowledgement brought: shards that it is the first to speak of, whether some of them were never sent
    from here, and the newest batch of which it tells.
    """

    fresh: int
    from_elsewhere: bool
    newest: Sent | None


class Flight:
    """The shards of one object, from one launch to the next. ``only``: those that are to go, when not all.

    ``had``: what a former rendezvous held goes last, and backwards: it may come from there, to meet us half way;
    ``tail`` is where that begins, if ``waits`` forbids to send it now.
    """

    def __init__(self, count: int, only: Truths | None = None, had: Truths | None = None) -> None:
        self.count = count
        self.state: npt.NDArray[np.uint8] = np.zeros(count, np.uint8)
        order = np.arange(count) if had is None else np.concatenate((np.flatnonzero(~had), np.flatnonzero(had)[::-1]))
        self.order: Indices = order if only is None else order[only[order]]
        self.tail, self.waits, self.partial = self.order.size, False, only is not None
        self.limit = count
        self.flying = self.held = 0
        self.probes: list[int] = []
        self.batch_of: npt.NDArray[np.int32] = np.zeros(count, np.int32)
        self._next = self._base = self._number = 0
        self._newest_at = 0.0
        self._batches: deque[Batch] = deque()
        self._sent: dict[int, Sent] = {}
        self._lost: deque[int] = deque()

    @property
    def unsent(self) -> bool:
        """Whether something may still be sent for the first time, or must be again."""
        return bool(self._lost) or self._next < self.end

    @property
    def end(self) -> int:
        """How far in its order the sender may go now: not to what a former rendezvous is handing over."""
        return self.tail if self.waits else self.order.size

    @property
    def arrived(self) -> bool:
        """Whether all that is to go is held."""
        return bool((self.state[self.order] == HELD).all())

    # --- out

    def pick(self, room: int) -> Indices:
        """Choose so many shards: probes, then lost ones, then those never sent; the object's last one last."""
        again: list[int] = []
        while len(again) < room and self.probes:
            again.append(self.probes.pop())
        while len(again) < room and self._lost:
            index = self._lost.popleft()
            if self.state[index] == LOST:
                again.append(index)
        if not again:
            return self._pick_fresh(room)
        first = np.unique(np.asarray(again, np.int64))
        if first[-1] == self.count - 1:
            return first
        return np.concatenate((first, self._pick_fresh(room - first.size)))

    def _pick_fresh(self, room: int) -> Indices:
        while room > 0 and self._next < self.end:
            some = self.order[self._next : min(self._next + room, self.end)]
            beyond = np.flatnonzero(some >= self.limit)
            if beyond.size:
                some = some[: beyond[0]]
            self._next += some.size
            some = some[self.state[some] == UNSENT]
            if some.size or beyond.size:
                return self._last_one_last(some)
        return NOTHING

    def _last_one_last(self, chosen: Indices) -> Indices:
        """The object's last shard may be shorter than the others, which only the end of a train can be."""
        last = chosen == self.count - 1
        return np.concatenate((chosen[~last], chosen[last])) if last[:-1].any() else chosen

    def sent(self, indices: Indices, record: Sent) -> int:
        """Note shards that left; return how many of them had left before."""
        again = int(np.count_nonzero(self.batch_of[indices]))
        self._number += 1
        self.flying += indices.size - int(np.count_nonzero(self.state[indices] == FLYING))
        self.state[indices] = FLYING
        self.batch_of[indices] = self._number
        self._batches.append(Batch(self._number, record, indices))
        self._sent[self._number] = record
        return again

    def put_back(self, indices: Indices) -> None:
        """Note shards that the kernel would not take now."""
        idle = indices[self.state[indices] != FLYING]
        self.state[idle] = LOST
        self._lost.extendleft(reversed(idle.tolist()))

    def probe(self, most: int) -> None:
        """Choose the oldest shards to be sent again: their acknowledgement tells what else is missing."""
        self.probes = self._oldest(most) or ([] if self.unsent else [int(self.order[self.end - 1])])

    def _oldest(self, wanted: int) -> list[int]:
        found: list[int] = []
        for batch in self._batches:
            found += self._still_flying(batch)[: wanted - len(found)].tolist()
            if len(found) >= wanted:
                break
        return found

    def _still_flying(self, batch: Batch) -> Indices:
        here = (self.batch_of[batch.indices] == batch.number) & (self.state[batch.indices] == FLYING)
        found: Indices = batch.indices[here]
        return found

    # --- what comes back

    def settle(self, ack: Acknowledgement, start: int) -> Settled:
        """Note what the receiver holds; bit 0 of the acknowledgement stands for shard ``start``."""
        fresh = self._newly_held(ack, start)
        flown = fresh[self.state[fresh] == FLYING]
        from_elsewhere = bool((self.state[fresh] == UNSENT).any())
        self.state[fresh] = HELD
        self.flying -= flown.size
        self.held += fresh.size
        newest = self._sent.get(int(self.batch_of[flown].max())) if flown.size else None
        if newest is not None:
            self._newest_at = max(self._newest_at, newest.at)
        return Settled(int(fresh.size), from_elsewhere, newest)

    def _newly_held(self, ack: Acknowledgement, start: int) -> Indices:
        """Return the shards that an acknowledgement is the first to speak of."""
        fresh = NOTHING
        if ack.base > self._base:
            fresh = self._base + np.flatnonzero(self.state[self._base : ack.base] != HELD)
            self._base = ack.base
        if not ack.bitmap or start >= self.count:
            return fresh
        bits = np.unpackbits(np.frombuffer(ack.bitmap, np.uint8), bitorder="little")[: self.count - start]
        bits &= self.state[start : start + bits.size] != HELD
        above = start + np.flatnonzero(bits)
        above = above[above >= self._base]
        return np.concatenate((fresh, above)) if fresh.size else above

    def again(self, ack: Acknowledgement, start: int) -> None:
        """Note that an acknowledgement is the whole truth: what was held and is not any more goes again."""
        if self.partial:  # what is handed over from here may have been wrong before
            return
        self._base = min(self._base, ack.base)
        bits = np.unpackbits(np.frombuffer(ack.bitmap, np.uint8), bitorder="little")[: max(self.count - start, 0)]
        gone = start + np.flatnonzero((bits == 0) & (self.state[start : start + bits.size] == HELD))
        self.state[gone] = LOST
        self.held -= gone.size
        self._lost.extend(gone.tolist())

    def losses(self, reorder_s: float) -> Iterator[int]:
        """Note what the receiver should hold by now but does not; yield how many shards of each batch are lost."""
        horizon = self._newest_at - reorder_s
        while self._batches and self._batches[0].sent.at < horizon:
            batch = self._batches.popleft()
            missing = self._still_flying(batch)
            del self._sent[batch.number]
            if missing.size:
                self.state[missing] = LOST
                self.flying -= missing.size
                self._lost.extend(missing.tolist())
                yield int(missing.size)
