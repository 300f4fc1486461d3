"""The forger of the flood benchmark: a terminal that writes whole Ethernet frames, whatever its card and address are.

    python -m benchmarks.flood_frames x-eth0 02:da:.. 10.2.1.2 '{"victim": ..., "other": ..., "gateway": ...}'

``go <seconds> <json>``: send each kind at its rate ({kind: frames a second}) for so long; answers with how many left.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from controller.southbound.frames import ETH_ARP, ETH_LLDP, Datagram, build_udp, ip_bytes, mac_bytes
from packets.labels import AI_PORT, DCC_ADDRESS, label_address
from packets.wire import Digest, Flag, Header, PacketType, encode
from topologies.plan import ROUTER_MAC

STEP_S = 0.002
BROADCAST = "ff:ff:ff:ff:ff:ff"
OTHER_MAC = "02:da:00:00:00:77"
STRAY_LABEL = 0x0FF_0_0001
_ARP = struct.Struct("!HHBBH6s4s6s4s")


class Forger:
    """Makes each kind of frame. ``victim``: whose packets it wants; ``other``: in whose name it speaks."""

    def __init__(self, mac: str, address: str, victim: str, other: str, gateway: str) -> None:
        self.mac, self.address = mac, address
        self.victim, self.other, self.gateway = victim, other, gateway

    def kinds(self) -> dict[str, Callable[[], bytes]]:
        """Return the makers of frames by kind, which is the reason for which a switch should drop them (or ``up``)."""
        launch = encode(
            Header(
                type=PacketType.MODEL_SHARD, flags=Flag.LAUNCH, object_id=STRAY_LABEL, transfer_id=7, shard_count=1,
                total_length=5, owner=self.address, digest=Digest.of(b"other"),
            )
        )  # fmt: skip
        return {
            "up": lambda: self.udp(label_address(STRAY_LABEL), launch),
            "up-dcc": lambda: self.udp(DCC_ADDRESS, launch),
            "spoofed-source": lambda: self.udp(self.victim, launch, source=self.other),
            "spoofed-mac": lambda: self.udp(self.victim, launch, mac=OTHER_MAC),
            "spoofed-arp": lambda: self.arp(2, self.gateway, self.victim),
            "spoofed-arp-gratuitous": lambda: self.arp(1, self.victim, self.victim),
            "arp": lambda: self.arp(2, self.address, self.victim),
            "lldp": lambda: self.frame(ETH_LLDP, bytes(60), target="01:80:c2:00:00:0e"),
            "ipv6": lambda: self.frame(0x86DD, b"\x60" + bytes(59)),
            "ethertype": lambda: self.frame(0x88B5, bytes(60)),
            "vlan": lambda: self.frame(0x8100, b"\0\5\x08\0" + self.udp(self.victim, launch)[14:]),
            "label-use": lambda: self.udp(label_address(STRAY_LABEL), launch, port=9),
            "control-address": lambda: self.udp(self.gateway, launch),
            "no-route": lambda: self.udp("203.0.113.9", launch),
            "ttl": lambda: self.udp(self.other, launch, ttl=1),
        }

    def frame(self, kind: int, content: bytes, target: str = BROADCAST) -> bytes:
        return mac_bytes(target) + mac_bytes(self.mac) + kind.to_bytes(2, "big") + content

    def udp(
        self, target: str, payload: bytes, *, source: str = "", mac: str = "", port: int = AI_PORT, ttl: int = 64
    ) -> bytes:
        return build_udp(
            Datagram(
                eth_src=mac or self.mac, eth_dst=ROUTER_MAC, source=source or self.address, target=target,
                source_port=AI_PORT, target_port=port, payload=payload, ttl=ttl,
            )
        )  # fmt: skip

    def arp(self, operation: int, sender: str, target: str) -> bytes:
        """``sender`` is at this card: to everybody."""
        mac = mac_bytes(self.mac)
        said = _ARP.pack(1, 0x0800, 6, 4, operation, mac, ip_bytes(sender), bytes(6), ip_bytes(target))
        return self.frame(ETH_ARP, said + bytes(18))


def send(raw: socket.socket, forger: Forger, seconds: float, rates: dict[str, float]) -> dict[str, Any]:
    """Send frames of each kind at an even rate; return how many of each left."""
    frames = {kind: make() for kind, make in forger.kinds().items() if kind in rates}
    sent, blocked, begun = Counter[str](), 0, time.monotonic()
    while (elapsed := time.monotonic() - begun) < seconds:
        for kind, frame in frames.items():
            for _ in range(min(int(elapsed * rates[kind]) - sent[kind], 200)):
                try:
                    raw.send(frame)
                    sent[kind] += 1
                except OSError:
                    blocked += 1
        time.sleep(STEP_S)
    return {"sent": dict(sent), "blocked": blocked, "seconds": time.monotonic() - begun}


def main() -> int:
    interface, mac, address, told = sys.argv[1:5]
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((interface, 0))
    forger = Forger(mac, address, **json.loads(told))
    sys.stdin.readline()  # keys, which it has no use for
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        word, seconds, rates = line.split(" ", 2)
        if word == "go":
            print(json.dumps(send(raw, forger, float(seconds), json.loads(rates))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
