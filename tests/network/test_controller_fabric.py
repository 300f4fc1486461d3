"""Real control centres on the real Fig. 3 network: everybody reaches everybody, objects are steered, links may die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller.oam.hub import EventHub
from experiments.testbed.gateways import Gateways, joined
from experiments.testbed.identities import Identities
from packets.events import Event
from packets.labels import label_address, object_label
from tests.helpers import assert_path, trace_path, wait_until
from topologies.fig3 import PLAN
from topologies.network import Network
from topologies.plan import gateway_address

ROOT = Path(__file__).parents[2]
FIRST_PORT = 6731

# A terminal of few words: registers, then launches a test sample (data node) or takes what arrives (MPVU), and says so.
TERMINAL = """
import json, sys
from packets.labels import DCC_ADDRESS
from packets.messages import *
from packets.transport import Endpoint, OutgoingObject
from packets.wire import PacketType

name, role, address, copy = sys.argv[1:]

def ask(message):
    header, payload = endpoint.request(encode_message(message), to=DCC_ADDRESS, type=PacketType.ANNOUNCE, timeout_s=10)
    return decode_message(payload)

def arrived(obj):
    order = ask(OrderRequest(name=name, object_id=obj.object_id, visit=obj.visit))
    print(json.dumps(dict(got=len(obj.payload), sender=obj.sender, action=order.action)), flush=True)

endpoint = Endpoint(address, on_object=arrived, on_message=lambda *a: None)
endpoint.start()
assert isinstance(ask(Register(name=name, role=role, address=address, attributes={})), Ack)
print("registered", flush=True)
sys.stdin.readline()
if role == "data":
    payload = bytes(300_000)
    reply = ask(AnnounceObject(name=name, kind="test_sample", task="t", size_bytes=len(payload), copy=int(copy)))
    obj = OutgoingObject(object_id=reply.object_id, type=PacketType.DATA_SHARD, payload=payload, owner=address,
                         visit=0, visit_limit=1, requirements=None)
    stats = endpoint.send_object(obj).result(30)
    print(json.dumps(dict(object_id=reply.object_id, sent=stats.bytes)), flush=True)
sys.stdin.readline()
"""


class Collector:
    """Receives the events of a run, as a run does: a hub, whose socket holds a burst."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.sock"
        self.events: list[Event] = []
        self._hub = EventHub(self.path).start()
        self._hub.add_listener(self.events.append)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in list(self.events) if event.kind == kind]

    def close(self) -> None:
        self._hub.close()


class Bed:
    """Fig. 3 with its control centres; one per K-AS, or one for all."""

    __test__ = False

    def __init__(self, together: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dcctest")
        self.folder = Path(self._folder.name)
        self.collector = Collector(self.folder)
        self.domains = [PLAN.kas_numbers] if together else [[k] for k in PLAN.kas_numbers]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        ports = {k: FIRST_PORT + i for i, kas in enumerate(self.domains) for k in kas}
        self.net = Network(PLAN, f"dcctest{os.getpid()}", ports, self.folder)
        self.gateways = Gateways(PLAN, self.folder, Identities(PLAN, self.folder), signed=False)
        self.speakers: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for number in range(len(self.domains)):
            self.start_dcc(number)
        self.net.start()
        if len(self.domains) > 1:
            for speaker in PLAN.speakers:
                command = self.gateways.command(speaker, self.net[speaker.name].pid)
                self.speakers.append(subprocess.Popen(command, cwd=ROOT))
        self.wait_ready(len(PLAN.kas_numbers))
        pairs = joined(PLAN) if self.speakers else []
        for kas, other in [*pairs, *((b, a) for a, b in pairs)]:
            wait_until(partial(self.heard, kas, other), 20, f"K-AS {kas} hears of K-AS {other}")

    def start_dcc(self, number: int) -> None:
        plan = self.folder / f"plan{number}.json"
        plan.write_bytes(msgspec.json.encode(PLAN.domain(*self.domains[number])))
        options = {"plan": plan, "openflow-port": FIRST_PORT + number, "runtime-dir": self.folder}
        options |= {"events": self.collector.path, "database": self.folder / f"dcc{number}.db", "seed": 1}
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        self.processes[number] = subprocess.Popen([sys.executable, "-m", "controller", *words], cwd=ROOT)

    def wait_ready(self, count: int) -> None:
        wait_until(lambda: len(self.collector.of("dcc.ready")) >= count, 20, f"{count} control centres ready")

    def heard(self, kas: int, other: int) -> bool:
        return any((d["kas"], d["to"]) == (kas, other) and d["path"] for d in self.collector.of("border.way"))

    def stop(self) -> None:
        processes = [*self.speakers, *self.processes.values()]
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(3)
        self.net.stop()
        self.collector.close()
        self._folder.cleanup()

    def ping(self, name: str, target: str, *options: str) -> bool:
        process = self.net[name].popen(["ping", "-c1", "-W2", "-q", *options, target], stdout=subprocess.DEVNULL)
        return bool(process.wait(10) == 0)

    def unreached(self) -> list[str]:
        """Ping from every host to every other; return the pairs that lost."""
        words = "for a in {}; do ping -c1 -W2 -q $a >/dev/null || echo $a; done"
        addresses = " ".join(h.address for h in PLAN.hosts)
        hosts = PLAN.hosts
        lost = []
        for some in (hosts[i : i + 6] for i in range(0, len(hosts), 6)):
            pings = [
                (h, self.net[h.name].popen(["sh", "-c", words.format(addresses)], stdout=subprocess.PIPE)) for h in some
            ]
            for host, process in pings:
                output, _ = process.communicate(timeout=120)
                lost += [f"{host.name} -> {line}" for line in output.decode().split()]
        return lost

    def terminal(self, name: str, copy: int = 0) -> subprocess.Popen[str]:
        host = next(h for h in PLAN.hosts if h.name == name)
        command = [sys.executable, "-c", TERMINAL, name, host.role, host.address, str(copy)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process: subprocess.Popen[str] = self.net[name].popen(command, cwd=str(ROOT), **pipes)
        return process


@pytest.fixture(scope="module", params=[False, True], ids=["one DCC per K-AS", "one DCC for all"])
def testbed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    bed = Bed(request.param)
    try:
        bed.start()
        yield bed
    finally:
        bed.stop()


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_pingall_loses_nothing(testbed: Bed) -> None:
    assert testbed.unreached() == []
    assert not testbed.collector.of("error")


def test_declared_links_are_confirmed_and_loads_are_told(testbed: Bed) -> None:
    trunks = [k for k in PLAN.links if k.a in {s.name for s in PLAN.switches}]
    wait_until(lambda: len(testbed.collector.of("link.confirmed")) >= 2 * len(trunks), 40, "all links confirmed")
    testbed.ping("h11", "10.4.1.1")
    told = wait_until(lambda: {d["link"] for d in testbed.collector.of("link.load")}, 10, "link loads")
    assert told <= {k.name for k in PLAN.links} | {f"{k.b}-{k.a}" for k in PLAN.links} | {
        d["link"] for d in testbed.collector.of("link.load") if "kas" in d["link"]
    }


def test_the_gateway_answers_and_time_to_live_ends_packets(testbed: Bed) -> None:
    assert testbed.ping("h11", gateway_address(1))
    assert not testbed.ping("h11", "10.3.1.1", "-t", "2")
    assert testbed.ping("h11", "10.3.1.1", "-t", "3")
    assert not testbed.ping("h11", "10.1.9.9", "-W", "1")


@pytest.mark.parametrize("sender, copy, receiver", [("h11", 0, "mpvu2"), ("h12", 1, "mpvu4"), ("h21", 1, "mpvu4")])
def test_an_object_is_steered_across_k_as_and_delivered_whole(
    testbed: Bed, sender: str, copy: int, receiver: str
) -> None:
    terminals = {n: testbed.terminal(n, copy) for n in ("mpvu2", "mpvu4", sender)}
    try:
        assert [hear(t) for t in terminals.values()] == ["registered"] * 3
        before = len(testbed.collector.of("packet.in"))
        say(terminals[sender])
        sent = json.loads(hear(terminals[sender]))
        got = json.loads(hear(terminals[receiver]))
        address = next(h.address for h in PLAN.hosts if h.name == sender)
        assert got == {"got": 300_000, "sender": address, "action": "keep_test_sample"}
        label = label_address(object_label(sent["object_id"]))
        path, end = trace_path(PLAN, sender, label, udp_port=55831)
        assert end == receiver and len(path) == len(set(path))
        steered = [d for d in testbed.collector.of("object.steered") if d["object_id"] == sent["object_id"]]
        assert sorted(s for d in steered for s in d["switches"]) == sorted(path)
        assert len(testbed.collector.of("packet.in")) - before <= 3, "the launch alone is handed up (or its repetition)"
    finally:
        for terminal in terminals.values():
            terminal.kill()
            terminal.communicate(timeout=5)


def test_switches_go_around_a_dead_link_by_themselves(testbed: Bed) -> None:
    before, _ = trace_path(PLAN, "h11", "10.2.1.1")
    link = next(k for k in PLAN.links if {k.a, k.b} == set(before[:2]))
    interface = f"{link.a}-eth{link.a_port}"
    for process in testbed.processes.values():
        process.send_signal(signal.SIGSTOP)
    try:
        subprocess.run(["ip", "link", "set", interface, "down"], check=True)
        wait_until(lambda: testbed.ping("h11", "10.2.1.1", "-W", "1"), 4, "a way around, there and back")
    finally:
        subprocess.run(["ip", "link", "set", interface, "up"], check=True)
        for process in testbed.processes.values():
            process.send_signal(signal.SIGCONT)
    wait_until(lambda: trace_path(PLAN, "h11", "10.2.1.1")[0] == before, 5, "the old path")
    assert not testbed.collector.of("error")


def test_a_dead_link_is_routed_around_and_taken_back(testbed: Bed) -> None:
    host = next(h for h in PLAN.hosts if h.name == "h11")
    before, _ = trace_path(PLAN, "h11", "10.2.1.1")
    assert before[:2] == [host.switch, "k1g"]
    link = next(k for k in PLAN.links if {k.a, k.b} == {host.switch, "k1g"})
    interface = f"{link.a}-eth{link.a_port}"
    subprocess.run(["ip", "link", "set", interface, "down"], check=True)
    try:
        wait_until(lambda: trace_path(PLAN, "h11", "10.2.1.1")[0] != before, 5, "another path")
        assert testbed.ping("h11", "10.2.1.1") and testbed.ping("h21", host.address)
    finally:
        subprocess.run(["ip", "link", "set", interface, "up"], check=True)
    wait_until(lambda: trace_path(PLAN, "h11", "10.2.1.1")[0] == before, 5, "the old path")
    assert_path(PLAN, "h11", "h21", via=[*before])


def test_a_killed_control_centre_loses_no_packet_and_comes_back(testbed: Bed) -> None:
    ready = len(testbed.collector.of("dcc.ready"))
    process = testbed.processes[0]
    process.send_signal(signal.SIGKILL)
    process.wait(5)
    assert all(testbed.ping("h11", f"10.{k}.1.1") for k in (2, 3, 4)), "fail-secure: switches go on by their rules"
    testbed.start_dcc(0)
    testbed.wait_ready(ready + len(testbed.domains[0]))
    assert testbed.ping("h11", "10.3.1.1")
