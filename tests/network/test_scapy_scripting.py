"""AI packets scripted with Scapy at the terminals of the smallest network: send, sniff, sr1, wrpcap, rdpcap, ls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.helpers import wait_until
from topologies.network import Network
from topologies.single import PLAN

ROOT = Path(__file__).parents[2]
PORT = 6751
ADDRESS = {host.name: host.address for host in PLAN.hosts}

# What a researcher types; `ready` goes out when the capture socket is open.
SNIFF = """
import json
from scapy.all import *
from packets.ai import *
seen = sniff(filter="udp port 55831", count=3, timeout=15, started_callback=lambda: print("ready", flush=True))
print(json.dumps([[p[IP].src, p[AI].type, p[AI].object_id, p[AI].refused(), bytes(p[AI].payload).hex()] for p in seen]))
print([p[AI].mysummary() for p in seen])
"""

SEND = """
import sys
from scapy.all import *
from packets.ai import *
here, there, pcap = sys.argv[1:]
shard = AI(type="MODEL_SHARD", flags="LAST", object_id=0x100001, owner=here, shard_count=1, total_length=3) / b"abc"
probe = AI(type="PROBE", object_id=7, options=[AISentAt(sent_at_ms=5)])
broken = AI(type="PROBE", header_checksum=1) / b"x"
packets = [IP(dst=there) / UDP() / each for each in (shard, probe, broken)]
send(packets, verbose=False)
wrpcap(pcap, packets)
assert [bytes(p[AI]) for p in rdpcap(pcap)] == [bytes(p[AI]) for p in packets]
ls(AI)
"""

REGISTER = """
from scapy.all import *
from packets.ai import *
from packets.labels import DCC_ADDRESS
from packets.messages import Register, decode_message, encode_message
conf.checkIPaddr = False  # the DCC answers, wherever it is
hello = encode_message(Register(name="h11", role="data", address="10.1.1.1", attributes={}))
request = IP(dst=DCC_ADDRESS) / UDP() / AI(type="TELEMETRY", transfer_id=0x51, owner="10.1.1.1") / hello
answer = sr1(request, timeout=10, retry=2, verbose=False)
print(hex(answer[AI].transfer_id), answer[AI].flags, type(decode_message(bytes(answer[AI].payload))).__name__)
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("scripting")
    plan = folder / "all.json"
    plan.write_bytes(msgspec.json.encode(PLAN.domain()))
    command = [sys.executable, "-m", "controller", "--plan", str(plan), "--openflow-port", str(PORT)]
    net = Network(PLAN, f"scripting{os.getpid()}", {1: PORT}, folder)
    with subprocess.Popen(command, cwd=ROOT) as dcc:
        try:
            net.start()
            wait_until(lambda: pings(net, "h11", ADDRESS["mdfp1"]), 30, "routes")
            yield net
        finally:
            net.stop()
            dcc.terminate()
            dcc.wait(timeout=10)


def pings(net: Network, name: str, target: str) -> bool:
    process = net[name].popen(["ping", "-c1", "-W1", "-q", target], stdout=subprocess.DEVNULL)
    return bool(process.wait(10) == 0)


def script(net: Network, name: str, text: str, *arguments: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process: subprocess.Popen[str] = net[name].popen([sys.executable, "-c", text, *arguments], cwd=str(ROOT), **pipes)
    return process


def said(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    return out


def test_send_sniff_rdpcap_and_ls(net: Network, tmp_path: Path) -> None:
    there = script(net, "mdfp1", SNIFF)
    assert there.stdout is not None and there.stdout.readline() == "ready\n"
    fields = said(script(net, "h11", SEND, ADDRESS["h11"], ADDRESS["mdfp1"], str(tmp_path / "sent.pcap")))
    assert "object_id  : XLongField" in fields and "options    : PacketListField" in fields
    packets, words = said(there).splitlines()
    assert json.loads(packets) == [
        [ADDRESS["h11"], 1, 0x100001, None, b"abc".hex()],
        [ADDRESS["h11"], 6, 7, None, ""],
        [ADDRESS["h11"], 6, 0, "header-checksum", b"x".hex()],
    ]
    assert "AI MODEL_SHARD 0x100001 visit 0 shard 0/1 [LAST]" in words


def test_sr1_gets_the_answer_of_the_control_centre(net: Network) -> None:
    assert said(script(net, "h11", REGISTER)).strip() == "0x51 REPLY Ack"
