"""The second half of the flood benchmark: a port that floods its control centre, and forges all that can be forged.

The same network, now with switches that hold terminals to their own addresses.  From the attacker's port: packets that
go up (10,000 a second), spoofed sources, ARP poisoning and all else that a switch refuses, for a minute; meanwhile
objects travel from ``a`` to ``c`` as before it and after it, and ``b`` asks the same control centre.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from typing import Any, Protocol

from benchmarks.common import say
from topologies.network import Network
from topologies.plan import NetworkPlan, gateway_address

SECONDS = 60.0
UP_PPS = 10_000.0
FORGED_PPS = 100.0
FORGED = (
    "spoofed-source", "spoofed-mac", "spoofed-arp", "spoofed-arp-gratuitous", "arp", "lldp", "ipv6", "ethertype",
    "vlan", "label-use", "control-address", "no-route", "ttl",
)  # fmt: skip
QUIET = 3  # transfers before, and after
ASKED = 40
COUNTED_S = 5.0  # until the counters of switches have been read once more
LEAST = 0.9


class Scene(Protocol):
    """The standing network of ``flood``: ``dropped`` by switches, ``told`` by control centre and terminals."""

    plan: NetworkPlan
    net: Network
    address: dict[str, str]
    dropped: Counter[str]
    told: Counter[str]

    def control(self, *, any_source: bool) -> None:
        """Have another control centre instead."""

    def run(self, name: str, module: str, *arguments: str) -> None:
        """Start a process at a terminal."""

    def tell(self, name: str, line: str) -> None:
        """Tell it something."""

    def hear(self, name: str) -> dict[str, Any]:
        """Wait for its answer."""

    def ask(self, name: str, line: str) -> dict[str, Any]:
        """Do both."""

    def transfer(self, attack: dict[str, Any] | None, size: int) -> dict[str, Any]:
        """Send one object."""


def reason_of(kind: str) -> str:
    """Return the reason for which a switch drops frames of a kind."""
    return "spoofed-arp" if kind.startswith("spoofed-arp") else kind


def begin(scene: Scene) -> None:
    """Have the switches hold terminals to their own addresses, and the forger at the attacker's place."""
    scene.control(any_source=False)
    host = next(h for h in scene.plan.hosts if h.name == "x")
    told = {"victim": scene.address["c"], "other": scene.address["a"], "gateway": gateway_address(2)}
    scene.run("x", "benchmarks.flood_frames", "x-eth0", host.mac, host.address, json.dumps(told))


def measure(
    scene: Scene, *, seconds: float = SECONDS, up_pps: float = UP_PPS, size: int, quiet: int = QUIET
) -> dict[str, Any]:
    """Transfers alone, under the flood, and alone again; return the figures."""
    dropped, refused = Counter(scene.dropped), Counter(scene.told)
    alone = [scene.transfer(None, size) for _ in range(quiet)]
    asked_alone = scene.ask("b", f"ask {ASKED}")["took_ms"]
    rates = dict.fromkeys(FORGED, FORGED_PPS) | {"up": up_pps * 0.9, "up-dcc": up_pps * 0.1}
    scene.tell("x", f"go {seconds:.1f} {json.dumps(rates)}")
    begun, flooded, asked = time.monotonic(), list[dict[str, Any]](), list[float | None]()
    while time.monotonic() - begun < seconds - size * 8 / 50e6 - 1.5 or not flooded:
        asked += scene.ask("b", f"ask {ASKED}")["took_ms"]
        flooded.append(scene.transfer(None, size))
    attack = scene.hear("x")
    alone += [scene.transfer(None, size) for _ in range(quiet)]
    time.sleep(COUNTED_S)
    by_switch = scene.dropped - dropped
    sent = Counter[str]()
    for kind, frames in attack["sent"].items():
        sent[reason_of(kind) if not kind.startswith("up") else "up"] += frames
    goodput = {"alone": _median(alone), "flooded": _median(flooded)}
    ratio = goodput["flooded"] / goodput["alone"]
    say(f"goodput {goodput['alone']:.1f} Mbit/s alone, {goodput['flooded']:.1f} flooded ({ratio:.3f})")
    refused_by_dcc = scene.told - refused
    counted = {word: [sent[word], by_switch[word]] for word in sorted(sent) if word != "up"}
    return {
        "seconds": round(attack["seconds"], 1),
        "packet_in_pps": round(sent["up"] / attack["seconds"]),
        "goodput_alone_mbps": round(goodput["alone"], 2),
        "goodput_flooded_mbps": round(goodput["flooded"], 2),
        "goodput_ratio": round(ratio, 4),
        "transfers": {"alone": len(alone), "flooded": len(flooded)},
        "sent_and_dropped": counted,
        "all_counted": all(abs(seen - left) <= 0.01 * left for left, seen in counted.values()),
        "sent_up": sent["up"],
        "dropped_by_meter": by_switch["meter"],
        "refused_by_control_centre": dict(refused_by_dcc),
        "bystander_answered": sum(t is not None for t in asked) / len(asked),
        "bystander_alone_ms": _percentiles(asked_alone),
        "bystander_flooded_ms": _percentiles(asked),
        "poisoned": _poisoned(scene),
        "holds": ratio >= LEAST and all(t is not None for t in asked),
    }


def _poisoned(scene: Scene) -> int:
    """Return how many terminals believe that an address is at the attacker's card."""
    card = next(h.mac for h in scene.plan.hosts if h.name == "x")
    return sum(card in scene.net[name].cmd("ip neigh") for name in ("a", "b", "c"))


def _median(transfers: list[dict[str, Any]]) -> float:
    return float(statistics.median(t["goodput_mbps"] for t in transfers))


def _percentiles(took_ms: list[float | None]) -> dict[str, float]:
    known = sorted(t for t in took_ms if t is not None)
    return {f"p{p}": known[min(len(known) - 1, len(known) * p // 100)] for p in (50, 99)} if known else {}
