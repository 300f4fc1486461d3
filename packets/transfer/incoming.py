"""Every datagram that comes in finds whom it is for: a transfer, a request that waits, or whoever answers questions."""

from __future__ import annotations

import time
from collections.abc import Callable

from packets.errors import PacketError
from packets.labels import STEERED_DSCP
from packets.security.seal import shard_matches
from packets.transfer.assembly import Feed, Rows
from packets.transfer.guard import Guard, Session
from packets.transfer.outgoing import Outgoing
from packets.transfer.receiver import Receiving
from packets.transfer.refusals import Counters, Refusals
from packets.transfer.requests import Requests
from packets.transfer.udp import Peer, now_us
from packets.transfer.workers import Workers
from packets.wire import SEALED, SHARD_TYPES, Flag, Header, PacketType, decode

QUERIES = frozenset((PacketType.QUERY, PacketType.PROBE))
OnQuery = Callable[[Header, bytes, Peer], None]


class Incoming:
    """What the inbox sorts datagrams into; runs on the I/O thread.

    ``on_query``: takes queries and probes on this very thread, and only notes them: thousands a second are not handed
    from thread to thread.  ``only_steered``: a launch comes by its object's label, as the last switch has marked it, or
    it is an object that finds its own way, or what a former rendezvous holds of one that was steered here.
    """

    def __init__(
        self,
        receiving: Receiving,
        outgoing: Outgoing,
        requests: Requests,
        messages: Workers,
        guard: Guard | None,
        counters: Counters,
        refusals: Refusals,
        on_query: OnQuery | None = None,
        *,
        only_steered: bool = False,
    ) -> None:
        self._receiving, self._outgoing, self._requests = receiving, outgoing, requests
        self._messages, self._guard = messages, guard
        self._counters, self._refusals, self._on_query = counters, refusals, on_query
        self._only_steered = only_steered

    def feed(self, peer: Peer, transfer_id: int) -> Feed | None:
        """Return a transfer that is on its way in."""
        return self._receiving.feed(peer, transfer_id)

    def expects(self, transfer_id: int) -> bool:
        """Tell whether a packet of this transfer id is awaited."""
        return transfer_id in self._outgoing.sendings or transfer_id in self._requests

    def take_shards(self, rows: Rows, raw: memoryview, peer: Peer) -> None:
        """Take shards of one transfer."""
        self._receiving.on_shards(rows, decode(raw)[0], peer, time.monotonic(), now_us())

    def ask_macs(self, raw: memoryview, peer: Peer) -> None:
        """Have the sender of a shard send it again with a MAC."""
        self._receiving.ask_macs(decode(raw)[0], peer, time.monotonic(), now_us())

    def take_one(self, raw: memoryview, peer: Peer, service: int = 0) -> None:
        """Take a datagram, whatever it is."""
        try:
            header, payload = decode(raw)
        except PacketError as error:
            self._refusals.of(error.reason, peer, text=str(error))
            return
        if header.type in SHARD_TYPES:
            self._take_shard(header, payload, raw, peer, service)
        elif header.type in (PacketType.ACK, PacketType.ERROR) and header.transfer_id in self._outgoing.sendings:
            self._outgoing.take_answer(header, payload, raw, peer)
        elif self._guard is not None and (reason := self._guard.check_request(header, raw, peer)) is not None:
            self._refusals.of_header(reason, header, peer)
        elif header.type in (PacketType.ACK, PacketType.ERROR) and not self._requests.awaits(header):
            self._counters.ignored += 1
        else:
            self._take_message(header, bytes(payload), peer)

    def _take_message(self, header: Header, payload: bytes, peer: Peer) -> None:
        """Take a packet of a message: an answer that somebody waits for, or a question; whole ones are handed on."""
        try:
            question = self._requests.take(header, payload, peer)
        except PacketError as error:
            self._refusals.of(error.reason, peer, text=str(error))
            return
        if question is not None:
            self._counters.messages_in += 1
            if self._on_query is not None and header.type in QUERIES:
                self._on_query(header, question, peer)
            elif not self._messages.put(header, question, peer):
                self._counters.overruns += 1

    def ignore(self, peer: Peer, count: int) -> None:
        """Note shards of an unknown transfer: stragglers where everybody is believed, else an attempt."""
        if self._guard is None:
            self._counters.ignored += count
        else:
            self._refusals.of("unknown-transfer", peer, count)

    def refuse(self, reason: str, peer: Peer, count: int) -> None:
        """Note datagrams that were refused."""
        self._refusals.of(reason, peer, count)

    def _past_its_dcc(self, header: Header, service: int) -> bool:
        """Tell whether a launch came straight to this address and has no business to."""
        if not self._only_steered or service >> 2 == STEERED_DSCP or header.flags & Flag.AUTONOMOUS:
            return False
        return not (header.flags & Flag.HANDOVER and self._receiving.awaits(header))

    def _take_shard(self, header: Header, payload: memoryview, raw: memoryview, peer: Peer, service: int) -> None:
        """Take a launch or a single shard, if the guard lets it pass."""
        session: Session | None = None
        if header.flags & Flag.LAUNCH and self._guard is not None:
            found = self._guard.accept(header, raw, peer)
            if isinstance(found, str):
                self._refusals.of_header(found, header, peer)
                return
            if self._past_its_dcc(header, service):
                self._refusals.of_header("unsteered", header, peer)
                return
            session = found
        elif not self._is_sealed(header, raw, peer):
            self._refusals.of_header("mac", header, peer)
            return
        if header.flags & Flag.LAUNCH:
            self._receiving.on_launch(header, peer, time.monotonic(), now_us(), session)
            return
        feed = self._receiving.feed(peer, header.transfer_id)
        if feed is None:
            self.ignore(peer, 1)
        elif feed.strict and not header.flags & Flag.KEYED:
            self.ask_macs(raw, peer)
            return
        self._receiving.on_packet(header, payload, peer, time.monotonic(), now_us())

    def _is_sealed(self, header: Header, raw: memoryview, peer: Peer) -> bool:
        """Tell whether a shard is sealed by its transfer's sender, or by nobody where it is a plain one."""
        feed = self._receiving.feed(peer, header.transfer_id)
        if feed is None:
            return True
        return shard_matches(header, raw, feed.session) if feed.session else not header.flags & SEALED
