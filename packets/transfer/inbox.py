"""What came, sorted: shards of known transfers in bulk, everything else one by one, noise at the cost of a glance.

A flood of strangers' packets must not eat the time of a transfer under way: what needs Python per packet and belongs to
nothing that is known here is taken at no more than ``STRANGERS_PER_S`` of one source, so that others still get through.
"""

from __future__ import annotations

import functools
from typing import Protocol

import numpy as np
import numpy.typing as npt

from packets.batch import GOOD, REASONS, USE_DECODE, Parsed, parse
from packets.security.replay import Budget
from packets.transfer.assembly import Feed, Rows
from packets.transfer.udp import Arrivals, Peer, peer_of
from packets.wire import SHARD_TYPES, Flag

FEW = 3  # datagrams for which arrays are not worth their while
STRANGERS_PER_S = 500.0  # of one source address
QUESTIONS_PER_S = 10_000.0  # where questions are what one is there for
ALL_SOURCES = 4
IS_SHARD = np.isin(np.arange(256), list(SHARD_TYPES))

Bits = npt.NDArray[np.bool_]
_peer_of = functools.lru_cache(1024)(peer_of)


class Sink(Protocol):
    """Who takes what has been sorted."""

    def feed(self, peer: Peer, transfer_id: int) -> Feed | None:
        """Return a transfer that is on its way in."""

    def expects(self, transfer_id: int) -> bool:
        """Tell whether a packet of this transfer id, whatever it is, is awaited."""

    def take_shards(self, rows: Rows, raw: memoryview, peer: Peer) -> None:
        """Take shards of one known transfer, ``raw`` being one of them."""

    def ask_macs(self, raw: memoryview, peer: Peer) -> None:
        """Have the sender of shards, ``raw`` being one of them, send them again with MACs."""

    def take_one(self, raw: memoryview, peer: Peer, service: int) -> None:
        """Take a datagram, whatever it is; ``service``: the type of service of its IP header."""

    def ignore(self, peer: Peer, count: int) -> None:
        """Note shards of an unknown transfer beside one that ``take_one`` got."""

    def refuse(self, reason: str, peer: Peer, count: int) -> None:
        """Note datagrams that were refused."""


class Inbox:
    """Sorts batches of datagrams for a ``Sink``; ``strangers_per_s``: of one source, four times as many of all."""

    def __init__(self, sink: Sink, strangers_per_s: float = STRANGERS_PER_S) -> None:
        self._sink = sink
        one, every = strangers_per_s, ALL_SOURCES * strangers_per_s
        self._budget = Budget(rate=one, burst=one, all_rate=every, all_burst=every)
        self._now = 0.0

    def sort(self, arrivals: Arrivals, count: int, now: float) -> None:
        """Sort ``count`` datagrams."""
        self._now = now
        if count <= FEW:
            for row in range(count):
                self._sink.take_one(arrivals.frame(row), arrivals.peer(row), int(arrivals.services[row]))
            return
        parsed = parse(arrivals.frames[:count], arrivals.sizes[:count])
        shards = (parsed.verdict == GOOD) & IS_SHARD[parsed.type]
        self._refuse(parsed, arrivals)
        self._shards(parsed, arrivals, np.flatnonzero(shards))
        others = ~shards & ((parsed.verdict == GOOD) | (parsed.verdict == USE_DECODE))
        for row in np.flatnonzero(others).tolist():
            self._one(parsed, arrivals, row)

    def _refuse(self, parsed: Parsed, arrivals: Arrivals) -> None:
        wrong = (parsed.verdict != GOOD) & (parsed.verdict != USE_DECODE)
        if not wrong.any():
            return
        for verdict, first, count in zip(*_distinct(parsed.verdict[wrong]), strict=True):
            peer = _peer_of(int(arrivals.peers[: len(parsed)][wrong][first]))
            self._sink.refuse(REASONS[verdict], peer, count)

    def _shards(self, parsed: Parsed, arrivals: Arrivals, rows: npt.NDArray[np.int64]) -> None:
        peers, transfers = arrivals.peers[rows], parsed.transfer_id[rows]
        if not len(rows):
            return
        if bool((peers == peers[0]).all()) and bool((transfers == transfers[0]).all()):
            self._group(parsed, arrivals, rows)
            return
        groups: dict[tuple[int, int], list[int]] = {}
        for row, peer, transfer in zip(rows.tolist(), peers.tolist(), transfers.tolist(), strict=True):
            groups.setdefault((peer, transfer), []).append(row)
        for found in groups.values():
            self._group(parsed, arrivals, np.array(found, np.int64))

    def _group(self, parsed: Parsed, arrivals: Arrivals, rows: npt.NDArray[np.int64]) -> None:
        """Shards that came from one source in one transfer."""
        first = int(rows[0])
        peer = _peer_of(int(arrivals.peers[first]))
        feed = self._sink.feed(peer, int(parsed.transfer_id[first]))
        if feed is None:
            self._one(parsed, arrivals, first)
            if len(rows) > 1:
                self._sink.ignore(peer, len(rows) - 1)
            return
        good = _authentic(parsed, rows, feed)
        if not good.all():
            self._sink.refuse("mac", peer, int(np.count_nonzero(~good)))
            rows = rows[good]
        if feed.strict and len(rows):
            with_mac = (parsed.flags[rows] & int(Flag.KEYED)) != 0
            if not with_mac.all():
                self._sink.ask_macs(arrivals.frame(int(rows[~with_mac][0])), peer)
                rows = rows[with_mac]
        if len(rows):
            self._sink.take_shards(_rows(parsed, arrivals, rows), arrivals.frame(int(rows[0])), peer)

    def _one(self, parsed: Parsed, arrivals: Arrivals, row: int) -> None:
        peer = _peer_of(int(arrivals.peers[row]))
        known = self._sink.expects(int(parsed.transfer_id[row]))
        if known or self._budget.spend(peer[0], 1.0, self._now):
            self._sink.take_one(arrivals.frame(row), peer, int(arrivals.services[row]))
        else:
            self._sink.refuse("throttled", peer, 1)


def _authentic(parsed: Parsed, rows: npt.NDArray[np.int64], feed: Feed) -> Bits:
    """Tell which shards were sealed by their sender, (n,); those without a seal, where the transfer is a plain one."""
    if feed.session is None:
        return ~parsed.sealed[rows]
    right = parsed.words_right(feed.session.words, rows)
    with_mac = (parsed.flags[rows] & int(Flag.KEYED)) != 0
    if with_mac.any():
        right[with_mac] = parsed.macs_right(feed.session.receive_key, rows[with_mac])
    return right


def _rows(parsed: Parsed, arrivals: Arrivals, rows: npt.NDArray[np.int64]) -> Rows:
    return Rows(
        arrivals.frames, rows, parsed.payload_at[rows], parsed.shard_index[rows],
        parsed.offset[rows].astype(np.int64), parsed.length[rows], parsed.shard_count[rows],
        parsed.total_length[rows].astype(np.int64), int(parsed.timestamp_us[rows[-1]]),
    )  # fmt: skip


def _distinct(values: npt.NDArray[np.uint8]) -> tuple[list[int], list[int], list[int]]:
    """Return each value, where it stands first, and how often it is there."""
    found, first, counts = np.unique(values, return_index=True, return_counts=True)
    return found.tolist(), first.tolist(), counts.tolist()
