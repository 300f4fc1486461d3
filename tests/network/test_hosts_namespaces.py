"""Agents in namespaces made by hand, on one bridge with a fake DCC: real packets, real forks, real training and memory.

    h11 (data), mpvu1, owner1 --- bridge --- fake DCC (240.0.0.1)

Label rules rewrite the destination, as the real pipeline does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hosts.control import call
from hosts.process.namespaces import enter_network_namespace, open_network_namespace
from packets.labels import AI_PORT, DCC_ADDRESS, label_address, object_label
from packets.messages import (
    Ack,
    AnnounceObject,
    AnnounceReply,
    Message,
    Order,
    OrderRequest,
    Refused,
    Register,
    Report,
    Returned,
    Submit,
    SubmitReply,
    Verdict,
    VerdictReply,
    VisitDone,
    decode_message,
    encode_message,
)
from packets.wire import Flag, Header, decode, encode
from tests.helpers import wait_until
from topologies.plan import HostPlan

BRIDGE = "dhtest"
HOSTS = {
    "h11": ("data", "10.1.1.1"),
    "mpvu1": ("mpvu", "10.1.1.2"),
    "owner1": ("model_owner", "10.1.1.3"),
    "dcc": ("host", "10.1.1.4"),
}
FIRST_OBJECT = 0x0100001
JOB = 0x0100077
AGENT_MIB = 30.0


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=20, capture_output=True)


def mac(index: int) -> str:
    return f"02:00:00:00:01:{index:02x}"


class Fabric:
    """One bridge, three namespaces (each held by a sleeping process), fixed neighbours, label rules by hand."""

    def __init__(self) -> None:
        self.holders: dict[str, subprocess.Popen[bytes]] = {}
        run("ovs-vsctl", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev")
        for index, (name, (_, address)) in enumerate(HOSTS.items(), 1):
            self._add(index, name, address)
        self.flow(f"priority=10,ip,nw_dst={DCC_ADDRESS},actions=mod_dl_dst:{mac(4)},output:4")

    def _add(self, index: int, name: str, address: str) -> None:
        inside, outside = f"dh{index}in", f"dh{index}out"
        holder = subprocess.Popen(["unshare", "--net", "sleep", "300"])
        self.holders[name] = holder
        own = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != own, 5, f"namespace of {name}")
        run(
            "ip",
            "link",
            "add",
            outside,
            "type",
            "veth",
            "peer",
            "name",
            inside,
            "address",
            mac(index),
            "netns",
            str(holder.pid),
        )
        run("ip", "link", "set", outside, "up")
        run("ovs-vsctl", "add-port", BRIDGE, outside, "--", "set", "interface", outside, f"ofport_request={index}")
        addresses = [f"{address}/16"] + ([f"{DCC_ADDRESS}/32"] if name == "dcc" else [])
        for one in addresses:
            self.inside(name, "ip", "addr", "add", one, "dev", inside)
        self.inside(name, "ip", "link", "set", inside, "up")
        self.inside(name, "ethtool", "-K", inside, "tx", "off")
        self.inside(name, "ip", "route", "add", "240.0.0.0/4", "via", "10.1.255.254", "dev", inside, "onlink")
        neighbours = {a: mac(i) for i, (_, a) in enumerate(HOSTS.values(), 1)} | {"10.1.255.254": "00:00:5e:00:01:01"}
        for one, at in neighbours.items():
            if one != address:
                self.inside(name, "ip", "neigh", "add", one, "lladdr", at, "dev", inside)

    def inside(self, name: str, *command: str) -> None:
        run("nsenter", "--net", "-t", str(self.holders[name].pid), *command)

    def flow(self, text: str) -> None:
        run("ovs-ofctl", "add-flow", BRIDGE, text)

    def steer(self, object_id: int, to_host: str) -> None:
        to, address = list(HOSTS).index(to_host) + 1, HOSTS[to_host][1]
        label = label_address(object_label(object_id))
        self.flow(f"priority=10,ip,nw_dst={label},actions=mod_dl_dst:{mac(to)},mod_nw_dst:{address},output:{to}")

    def close(self) -> None:
        run("ovs-vsctl", "--if-exists", "del-br", BRIDGE)
        for index in range(1, len(self.holders) + 1):
            run("ip", "link", "del", f"dh{index}out")
        for holder in self.holders.values():
            holder.kill()
            holder.wait(5)


class FakeDcc:
    """Answers terminals from inside its own namespace: registers all, names objects and steers them to the MPVU."""

    def __init__(self, fabric: Fabric) -> None:
        self.heard: list[Message] = []
        self._fabric, self._next = fabric, FIRST_OBJECT
        self._answers: dict[tuple[str, int], bytes] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(5)

    def _run(self) -> None:
        namespace = open_network_namespace(self._fabric.holders["dcc"].pid)
        enter_network_namespace(namespace)  # this thread alone
        os.close(namespace)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((DCC_ADDRESS, AI_PORT))
        self._ready.set()
        while True:
            data, peer = self._socket.recvfrom(2048)
            if not data:
                return
            header, payload = decode(data)
            key = (peer[0], header.transfer_id)
            if key not in self._answers:
                self._answers[key] = encode_message(self._answer(decode_message(payload)))
            reply = Header(type=header.type, flags=Flag.REPLY, transfer_id=header.transfer_id)
            self._socket.sendto(encode(reply, self._answers[key]), peer)

    def _answer(self, message: Message) -> Message:
        self.heard.append(message)
        match message:
            case Register() | Report():
                return Ack()
            case AnnounceObject(kind="test_sample"):
                self._next += 1
                self._fabric.steer(self._next, "mpvu1")
                return AnnounceReply(object_id=self._next)
            case Submit():
                self._fabric.steer(JOB, "h11")
                return SubmitReply(object_id=JOB, admitted=True)
            case OrderRequest(object_id=object_id, visit=visit) if object_id == JOB:
                log = [{"visit": 0, "node": "h11"}]
                action = ("train", "verify", "home")[visit]
                return Order(
                    action=action, object_id=JOB, visit=visit, task="vignettes", epochs=2.0, log=log, log_length=1
                )
            case VisitDone():
                self._fabric.steer(JOB, "mpvu1")
                return Ack()
            case Verdict():
                self._fabric.steer(JOB, "owner1")
                return VerdictReply(accepted=True, reason="good enough for a test")
            case Returned():
                return Ack()
            case OrderRequest():
                return Order(action="keep_test_sample", object_id=message.object_id, visit=message.visit)
        return Refused(reason="not in this test")


class Scene:
    """The running whole: fabric, DCC, zygote with its events."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.events = folder, []  # type: tuple[Path, list[dict[str, Any]]]
        self.collector = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.collector.bind(str(folder / "events"))
        threading.Thread(target=self._collect, daemon=True).start()
        node = {"name": "h11", "role": "data", "kas": 1, "index": 0}
        (folder / "scenario.json").write_text(json.dumps({"task": {"name": "vignettes"}, "nodes": [node]}))
        command = [
            sys.executable,
            "-m",
            "hosts.process.zygote",
            "--runtime-dir",
            str(folder),
            "--events",
            str(folder / "events"),
        ]
        self.zygote = subprocess.Popen([*command, "--scenario", str(folder / "scenario.json"), "--seed", "1"])
        self.fabric = Fabric()
        self.dcc = FakeDcc(self.fabric)

    def fork(self, name: str) -> int:
        role, address = HOSTS[name]
        host = HostPlan(name=name, role=role, kas=1, address=address, mac=mac(1), switch="s", port=1)  # type: ignore[arg-type]
        order = {"op": "fork", "host": msgspec.to_builtins(host), "netns_pid": self.fabric.holders[name].pid}
        reply = call(self.folder / "zygote.sock", order)
        assert reply["ok"], reply
        return int(reply["pid"])

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [e["data"] for e in list(self.events) if e["kind"] == kind]

    def _collect(self) -> None:
        """A queue of datagrams is short (10 by default): it is read at once."""
        with contextlib.suppress(OSError):
            while line := self.collector.recv(65536):
                self.events.append(json.loads(line))

    def close(self) -> None:
        self.zygote.kill()
        self.zygote.wait(5)
        self.fabric.close()
        self.collector.shutdown(socket.SHUT_RDWR)
        self.collector.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="dh") as folder:
        scene = Scene(Path(folder))
        try:
            yield scene
        finally:
            scene.close()


def private_mib(pid: int) -> float:
    """Memory that this process alone holds (what one more agent costs), MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def namespace_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def test_an_object_moves_between_two_agents(scene: Scene) -> None:
    wait_until((scene.folder / "zygote.sock").exists, 60, "zygote")
    pids = {name: scene.fork(name) for name in ("mpvu1", "h11")}
    for name, pid in pids.items():
        assert namespace_of(pid) == namespace_of(scene.fabric.holders[name].pid) != namespace_of(scene.zygote.pid)
    wait_until(lambda: len(scene.of_kind("agent.ready")) == 2, 30, "both agents registered")
    wait_until(lambda: len(scene.of_kind("object.delivered")) == 2, 30, "both test samples delivered")

    registered = {m.name: m for m in scene.dcc.heard if isinstance(m, Register)}
    assert registered["h11"].attributes["samples"] == 1500 and registered["h11"].address == "10.1.1.1"
    arrived = scene.of_kind("object.arrived")
    assert {(a["object_id"], a["node"], a["sender"]) for a in arrived} == {
        (FIRST_OBJECT + 1, "mpvu1", "10.1.1.1"), (FIRST_OBJECT + 2, "mpvu1", "10.1.1.1"),
    }  # fmt: skip
    mpvu = scene.folder / "agents" / "mpvu1.sock"
    wait_until(lambda: call(mpvu, {"op": "state"})["attributes"].get("test_samples") == 400, 10, "400 samples at mpvu1")
    assert [m for m in scene.dcc.heard if isinstance(m, Report) and m.attributes.get("test_samples")]

    idle = {name: private_mib(pid) for name, pid in pids.items()}
    print(f"private memory of idle agents, MiB: {idle}")
    assert max(idle.values()) < AGENT_MIB, idle

    started = time.monotonic()
    scene.zygote.send_signal(signal.SIGTERM)
    assert scene.zygote.wait(5) == 0
    assert time.monotonic() - started < 1.5
    assert {gone["name"] for gone in scene.of_kind("agent.gone")} == {"h11", "mpvu1"}
    assert not list(scene.folder.rglob("*.sock"))


def test_a_model_travels_is_trained_verified_and_comes_home(scene: Scene) -> None:
    wait_until((scene.folder / "zygote.sock").exists, 60, "zygote")
    pids = {name: scene.fork(name) for name in ("mpvu1", "h11", "owner1")}
    wait_until(lambda: len(scene.of_kind("object.delivered")) == 2, 30, "both test samples delivered")
    wait_until(lambda: len(scene.of_kind("agent.ready")) == 3, 30, "all agents registered")

    spec = {"task": "vignettes", "expert_group": "cardiology", "seed": 5}
    submitted = call(scene.folder / "agents" / "owner1.sock", {"op": "submit", "spec": spec})
    assert submitted["ok"] and submitted["reply"]["object_id"] == JOB
    wait_until(lambda: any(isinstance(m, Returned) for m in scene.dcc.heard), 60, "the model back with its owner")

    (trained,), (verified,) = scene.of_kind("visit.trained"), scene.of_kind("visit.verified")
    assert (trained["node"], trained["samples"], trained["epochs"]) == ("h11", 1500, 2.0)
    assert verified["samples"] == 400 and verified["broad"] > 3 / 48, "it learned something"
    journey = [(e["node"], e["visit"]) for e in scene.of_kind("object.arrived") if e["object_id"] == JOB]
    assert journey == [("h11", 0), ("mpvu1", 1), ("owner1", 2)]
    home = scene.folder / "owner1"
    assert len((home / "model.safetensors").read_bytes()) > 100_000
    assert json.loads((home / "training-log.json").read_text()) == [{"visit": 0, "node": "h11"}]
    used = {name: private_mib(pid) for name, pid in pids.items()}
    print(f"private memory after a job, MiB: {used}; training {trained['seconds']:.1f} s")
    assert max(used.values()) < 3 * AGENT_MIB, used
