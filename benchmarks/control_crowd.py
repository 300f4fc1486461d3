"""The terminals of ``benchmarks.control`` on the emulated network: one process, a socket in the namespace of each.

    python -m benchmarks.control_crowd HOSTS.json KIND SECONDS     # [{name, role, kas, address, pid, ...}]

Each runs the agents' own reporter in a thread; where terminals gossip (``distributed``), it tells its control centre
only that it is there, and the rest to the others, by ``hosts.gossip`` within its usual budget. (Records are sealed by a
digest as long as a signature: Ed25519 for hundreds of terminals is more than one process does.)

Prints two lines of JSON: when all have registered and told what they have, and at the end what was sent meanwhile.
"""

from __future__ import annotations

import json
import os
import select
import socket
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.control_gossip import TICK_S, Speaker
from benchmarks.control_terminals import CHANGES_PER_S, FRAME_BYTES, Light, Vitals
from benchmarks.map_terminals import socket_in
from hosts.gossip.core import Limits
from hosts.terminal.reporter import LOOK_S, Reporter
from packets.distributed.gossip import Digest, News, Talk
from packets.errors import DaitnError
from packets.labels import AI_PORT
from packets.messages import decode_message, encode_message
from packets.parts import MESSAGE_ROOM
from packets.terms import Message
from packets.transfer.requests import Requests
from packets.wire import NO_FLAGS, Flag, Header, PacketType, TrafficClass, decode, encode
from topologies.plan import HostPlan

REGISTER_S = 90.0
WARM_S = 10.0
ANSWER_S, AT_ONCE = 1.0, 4  # as of ``hosts.gossip.runtime``, which loads PyTorch
Peer = tuple[str, int]


class Station:
    """One terminal's socket, and what asks and answers through it."""

    def __init__(self, host: HostPlan, pid: int, own_namespace: int) -> None:
        self.host, self.sent_bytes = host, 0
        self.socket: socket.socket = socket_in(pid, own_namespace, host.address)
        self.asking = Requests(host.address, self._put, MESSAGE_ROOM)
        self.gossip: Gossiper | None = None
        self.number = 0

    def request(
        self, payload: bytes, *, to: str, type: PacketType, timeout_s: float = 10, object_id: int = 0
    ) -> tuple[Header, bytes]:
        return self.asking.ask(payload, to=to, type=type, timeout_s=timeout_s, object_id=object_id)

    def _put(self, header: Header, payload: bytes, peer: Peer) -> None:
        packet = encode(header, payload)
        self.sent_bytes += len(packet) + FRAME_BYTES
        try:
            self.socket.sendto(packet, peer)
        except OSError:
            return  # as lost: it is asked again

    def readable(self) -> None:
        """Take a packet: an answer that is waited for, or another terminal's gossip."""
        try:
            packet, peer = self.socket.recvfrom(2048)
            header, payload = decode(packet)
            whole = self.asking.take(header, bytes(payload), peer)
            if whole is not None and self.gossip is not None:
                self.gossip.take(header, decode_message(whole), peer)
        except (OSError, DaitnError, msgspec.DecodeError):
            return

    def say(self, talk: Talk, peer: Peer, answers: int = 0) -> int:
        """Send gossip, or the answer to message number ``answers``; returns its number."""
        self.number += not answers
        payload = encode_message(talk)
        header = Header(
            type=PacketType.PROBE, traffic_class=TrafficClass.CONTROL, flags=Flag.REPLY if answers else NO_FLAGS,
            owner=self.host.address, transfer_id=answers or self.number, total_length=len(payload),
        )  # fmt: skip
        self.asking.send(header, payload, peer)
        return answers or self.number


class Gossiper:
    """The gossip of one terminal through its socket, as ``hosts.gossip.runtime``, but no thread waits for answers."""

    def __init__(self, station: Station, hosts: Sequence[HostPlan]) -> None:
        self.station = station
        self.address_of = {h.name: h.address for h in hosts}
        self.name_of = {h.address: h.name for h in hosts}
        self.one = Speaker(station.host, [h.name for h in hosts], time.monotonic(), Limits())
        self.lock = threading.Lock()
        self._asked: dict[int, tuple[str, float]] = {}

    def take(self, header: Header, talk: Message, peer: Peer) -> None:
        """Take what another terminal says: answer it, or give it what it wants."""
        name, now_s = self.name_of.get(peer[0], ""), time.monotonic()
        if not isinstance(talk, Digest | News):
            return
        with self.lock:
            reply = bool(header.flags & Flag.REPLY)
            if reply and self._asked.pop(header.transfer_id, None) is None:
                return
            answer = self.one.core.hear(name, talk, now_s).answer
            if not reply:
                self.station.say(answer, peer, answers=header.transfer_id)
            elif answer.records:
                self._tell(name, answer, now_s)

    def turn(self, look: bool) -> None:
        """Say what is to be said now, and note who has not answered."""
        now_s = time.monotonic()
        with self.lock:
            if look:
                self.one.look(now_s)
            for number in [n for n, (_, since_s) in self._asked.items() if now_s - since_s > ANSWER_S]:
                self.one.core.missed(self._asked.pop(number)[0], now_s)
            for name, talk in self.one.core.tick(now_s):
                if len(self._asked) < AT_ONCE:
                    self._tell(name, talk, now_s)

    def _tell(self, name: str, talk: Talk, now_s: float) -> None:
        self._asked[self.station.say(talk, (self.address_of[name], AI_PORT))] = name, now_s


class Crowd:
    """All of them. ``kind``: of which kind their K-AS is."""

    def __init__(self, hosts: Sequence[dict[str, Any]], kind: str) -> None:
        own = os.open("/proc/self/ns/net", os.O_RDONLY)
        plans = [msgspec.convert({k: v for k, v in h.items() if k != "pid"}, HostPlan) for h in hosts]
        self.stations = [Station(plan, h["pid"], own) for plan, h in zip(plans, hosts, strict=True)]
        self.kind, self.registered, self.stopping = kind, 0, threading.Event()
        if kind == "distributed":
            for station in self.stations:
                station.gossip = Gossiper(station, plans)
        self._epoll, self._by_fd = select.epoll(), {s.socket.fileno(): s for s in self.stations}
        for fd in self._by_fd:
            self._epoll.register(fd, select.EPOLLIN)

    def start(self) -> None:
        """Begin to read and to report; ``TimeoutError`` when not all can register."""
        threading.Thread(target=self._read, daemon=True).start()
        for station in self.stations:
            threading.Thread(target=self._reporter(station).run, args=(self._is_registered,), daemon=True).start()
        end_s = time.monotonic() + REGISTER_S
        while self.registered < len(self.stations):
            if time.monotonic() > end_s:
                raise TimeoutError(f"{len(self.stations) - self.registered} terminals did not register")
            time.sleep(0.1)
        if self.kind == "distributed":
            threading.Thread(target=self._talk, daemon=True).start()

    def _is_registered(self) -> None:
        self.registered += 1

    def _reporter(self, station: Station) -> Reporter:
        light = Light(station.host, station)
        light.stopping = self.stopping
        if self.kind == "distributed":
            return Reporter(light, lambda: {"reachable": True})
        vitals = Vitals(station.host, 1, CHANGES_PER_S, time.monotonic())
        return Reporter(light, lambda: vitals.at(time.monotonic()))

    def _read(self) -> None:
        while not self.stopping.is_set():
            for fd, _ in self._epoll.poll(0.1):
                self._by_fd[fd].readable()

    def _talk(self) -> None:
        every, step = round(LOOK_S / TICK_S), 0
        while not self.stopping.is_set():
            began_s = time.monotonic()
            for number, station in enumerate(self.stations):
                assert station.gossip is not None
                station.gossip.turn(step % every == number % every)
            step += 1
            time.sleep(max(0.0, TICK_S - (time.monotonic() - began_s)))

    def sent_bytes(self) -> int:
        return sum(s.sent_bytes for s in self.stations)

    def maps(self) -> dict[str, float]:
        """Return how whole and how old the terminals' maps are (nothing where they hold none)."""
        now_s, ages, held = time.monotonic(), list[float](), 0
        for gossip in (s.gossip for s in self.stations if s.gossip is not None):
            with gossip.lock:
                known = gossip.one.core.held(now_s)
            ages += [now_s - one.t_s for one in known.values()]
            held += len(known)
        if not ages:
            return {}
        return {"held_share": round(held / len(self.stations) ** 2, 4), "age_p50_s": round(statistics.median(ages), 2)}


def main(arguments: Sequence[str]) -> int:
    """Be the terminals."""
    file, kind, seconds = arguments
    crowd = Crowd(json.loads(Path(file).read_text()), kind)
    crowd.start()
    time.sleep(WARM_S)
    before, cpu_s = crowd.sent_bytes(), time.process_time()
    print(json.dumps({"registered": crowd.registered}), flush=True)
    time.sleep(float(seconds))
    sent, cpu_s = crowd.sent_bytes() - before, time.process_time() - cpu_s
    print(json.dumps({"sent_bytes": sent, "cores": round(cpu_s / float(seconds), 2), **crowd.maps()}), flush=True)
    crowd.stopping.set()
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # threads that wait for answers are not waited for
