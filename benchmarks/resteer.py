"""In-flight re-steer on the real network: rendezvous killed, link cut, the control centre's change of mind.

    make bench-resteer                         # five kills at half of a 64 MB transfer, a cut, a withdrawal
    python -m benchmarks.resteer --kills 2 --mib 16

All figures come from the run's own capture of every link and the parcel's SHA-256 at both ends. ``resteer_s``: from the
kill to the first payload byte at the new rendezvous (median). ``total_overrun_s``: completion after the kill, less the
time that all bytes take at the rate before it; *all* of them, since a dead host takes those along that it had: what is
left to send is the whole object again. ``destinations``: the addresses that shards of the one label were delivered to.
``cut_gap_s`` and ``withdraw_gap_s``: the longest time without a payload byte of the object at any rendezvous, from the
event on. ``cut_resent``, ``withdraw_resent``: shards that reached a rendezvous which had them, or another one had.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import finish, run_main, say
from benchmarks.standing import SHARD_BYTES, Parcel, StandingNetwork, standing
from packets.labels import label_address, object_label

SCENARIO = """
name: resteer
description: A ring of three K-AS in which objects lose their rendezvous.
network:
  kas:
    1: {{data: 1, compute: {compute}, model_owner: 1}}
    2: {{data: 1, mdfp: 1, mpvu: 1}}
    3: {{data: 1, mdfp: 1}}
  wan:
    - {{a: 1, b: 2, rate_mbps: 50, delay_ms: 5}}
    - {{a: 2, b: 3, rate_mbps: 50, delay_ms: 5}}
    - {{a: 3, b: 1, rate_mbps: 50, delay_ms: 10}}
  access_mbps: 100
data: {{name: vignettes, alpha: 0.15}}
jobs:
  - {{task: vignettes, broad_accuracy: 0.5}}
"""
EVENTS_S = 5.0
COMPLETE_S = 60.0


class Shard(NamedTuple):
    """A payload-carrying frame on some link: when, where, to which address, which bytes of the object."""

    t_s: float
    interface: str
    target: str
    offset: int
    size: int


class Case(NamedTuple):
    """One transfer that something happened to."""

    what: str
    object_id: int
    at_s: float
    first: str
    kept_at_s: float
    intact: bool
    noticed_s: float
    moved_ms: float
    handed_over: int = 0


# --- what is done to transfers


def killed(net: StandingNetwork, size: int) -> Case:
    """Kill the rendezvous at half of a transfer."""
    parcel = Parcel(net, "owner1", size, "compute")
    first = parcel.under_way(0.5)
    at_s = net.kill(first)
    moved = parcel.said("object.resteered", EVENTS_S)
    noticed = net.wait_for("agent.gone", EVENTS_S, name=first, reason="has no agent any more")
    return _end(parcel, "kill", at_s, first, noticed.t_unix_s - at_s, moved.data["resteer_ms"])


def link_cut(net: StandingNetwork, size: int) -> Case:
    """Cut the border link that a transfer goes over, at half of it."""
    parcel = Parcel(net, "owner1", size, "mpvu")
    first = parcel.under_way(0.5)
    at_s = net.cut("k1g", "k2g")
    try:
        moved = parcel.said("object.rerouted", EVENTS_S)
        return _end(parcel, "cut", at_s, first, moved.t_unix_s - at_s, moved.data["reroute_ms"])
    finally:
        net.mend("k1g", "k2g")


def withdrawn(net: StandingNetwork, size: int) -> Case:
    """Withdraw a live rendezvous at half of a transfer: it hands over what it holds."""
    parcel = Parcel(net, "owner1", size, "mdfp")
    first = parcel.under_way(0.5)
    at_s = time.time()
    net.at(first, "withdraw")
    moved = parcel.said("object.resteered", EVENTS_S)
    case = _end(parcel, "withdraw", at_s, first, moved.t_unix_s - at_s, moved.data["resteer_ms"])
    return case._replace(handed_over=parcel.said("object.handed_over", COMPLETE_S).data["bytes"])


def _end(parcel: Parcel, what: str, at_s: float, first: str, noticed_s: float, moved_ms: float) -> Case:
    kept = parcel.said("parcel.kept", COMPLETE_S)
    intact = (kept.data["bytes"], kept.data["sha256"]) == (parcel.size, parcel.sha256)
    say(f"{what}: {first} -> {kept.data['node']}, {kept.t_unix_s - at_s:.2f} s after, {'' if intact else 'not '}intact")
    return Case(what, parcel.object_id, at_s, first, kept.t_unix_s, intact, noticed_s, moved_ms)


# --- what the capture shows


def shards(path: Path, wanted: set[int]) -> Iterator[tuple[int, Shard]]:
    """Yield (object, shard) for every payload-carrying frame of some objects in a capture, of every link it crossed."""
    ticks, names = list[float](), list[str]()
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            kind, length = struct.unpack("<II", head)
            body = file.read(length - 8)
            if kind == 1:
                options = _options(body)
                ticks.append(10.0 ** -options[9][0] if 9 in options else 1e-6)
                names.append(options.get(2, b"").decode(errors="replace"))
            elif kind == 6 and len(body) > 90:
                index, high, low = struct.unpack_from("<III", body)
                object_id = int.from_bytes(body[20 + 50 : 20 + 58], "big")
                size = int.from_bytes(body[20 + 48 : 20 + 50], "big")
                if object_id in wanted and body[20 + 43] in (1, 2) and size:
                    target = ".".join(str(b) for b in body[20 + 30 : 20 + 34])
                    offset = int.from_bytes(body[20 + 74 : 20 + 82], "big")
                    yield object_id, Shard((high << 32 | low) * ticks[index], names[index], target, offset, size)


def _options(body: bytes) -> dict[int, bytes]:
    """Return the options of a capture's interface block: 2 is its name, 9 its time unit."""
    found, at = dict[int, bytes](), 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from("<HH", body, at)
        if code == 0:
            break
        found[code] = body[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
    return found


class Seen(NamedTuple):
    """What the capture shows of one case: delivered shards (not those under the label), in order of time."""

    case: Case
    delivered: list[Shard]
    labels: set[str]

    @property
    def destinations(self) -> list[str]:
        return list(dict.fromkeys(s.target for s in self.delivered))

    @property
    def resteer_s(self) -> float:
        """From the event to the first payload byte at another rendezvous than before it."""
        before = next(s.target for s in self.delivered)
        return next(s.t_s for s in self.delivered if s.target != before) - self.case.at_s

    @property
    def rate_before(self) -> float:
        """Payload bytes a second that the first rendezvous got before the event."""
        early = [s for s in self.delivered if s.t_s < self.case.at_s]
        return sum(s.size for s in early) / (early[-1].t_s - early[0].t_s)

    @property
    def gap_s(self) -> float:
        """The longest silence from the event on."""
        times = [self.case.at_s, *(s.t_s for s in self.delivered if s.t_s >= self.case.at_s)]
        return max(b - a for a, b in itertools.pairwise(times))

    def resent(self, handed_over: bool) -> int:
        """Shards delivered more than once (a hand-over's own trip from holder to holder is not counted)."""
        times: dict[tuple[str, int] | int, int] = {}
        for s in self.delivered:
            key = (s.target, s.offset) if handed_over else s.offset
            times[key] = times.get(key, 0) + 1
        return sum(n - 1 for n in times.values())


def see(path: Path, cases: Sequence[Case], doors: dict[str, str]) -> list[Seen]:
    """Read the capture once. A shard is delivered when its frame is at its target's own door (address: interface)."""
    seen = {c.object_id: Seen(c, [], set()) for c in cases}
    for object_id, shard in shards(path, set(seen)):
        if doors.get(shard.target) == shard.interface:
            seen[object_id].delivered.append(shard)
        elif shard.target not in doors:
            seen[object_id].labels.add(shard.target)
    return list(seen.values())


def measure(kills: int, size: int, folder: Path) -> dict[str, Any]:
    """Do everything on one network and read the figures off."""
    scenario = folder / "resteer.yaml"
    scenario.write_text(SCENARIO.format(compute=kills + 1))
    with standing(scenario, folder) as net:
        cases = [killed(net, size) for _ in range(kills)]
        cases += [link_cut(net, size // 2), withdrawn(net, size // 2)]
        doors = net.doors()
    return figures(see(net.folder / "capture.pcapng", cases, doors), size)


def figures(seen: Sequence[Seen], size: int) -> dict[str, Any]:
    """Return the result line."""
    kills = [s for s in seen if s.case.what == "kill"]
    cut = next(s for s in seen if s.case.what == "cut")
    changed = next(s for s in seen if s.case.what == "withdraw")
    overruns = [s.case.kept_at_s - s.case.at_s - size / s.rate_before for s in kills]
    own_label = all(s.labels == {label_address(object_label(s.case.object_id))} for s in seen)
    return {
        "resteer_s": _median(s.resteer_s for s in kills),
        "resteer_s_worst": round(max(s.resteer_s for s in kills), 4),
        "noticed_s": _median(s.case.noticed_s for s in kills),
        "dcc_ms": _median(s.case.moved_ms for s in kills),
        "total_overrun_s": _median(overruns),
        "total_overrun_s_worst": round(max(overruns), 4),
        "rate_before_mbps": round(statistics.median(s.rate_before for s in kills) * 8e-6, 1),
        "intact": all(s.case.intact for s in seen),
        "one_label": own_label,
        "destinations": sorted({len(s.destinations) for s in kills}),
        "cut_noticed_s": round(cut.case.noticed_s, 4),
        "cut_gap_s": round(cut.gap_s, 4),
        "cut_resent": cut.resent(handed_over=False),
        "withdraw_noticed_s": round(changed.case.noticed_s, 4),
        "withdraw_gap_s": round(changed.gap_s, 4),
        "withdraw_handed_over_bytes": changed.case.handed_over,
        "withdraw_resent": changed.resent(handed_over=True),
        "kills": len(kills),
        "bytes": size,
        "shards": -(-size // SHARD_BYTES),
    }


def _median(values: Iterator[float] | Sequence[float]) -> float:
    return round(statistics.median(values), 4)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; exit status 1 when an object came out broken."""
    parser = argparse.ArgumentParser(prog="benchmarks.resteer", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=5, help="how many rendezvous to kill (default %(default)s)")
    parser.add_argument("--mib", type=int, default=64, help="size of an object in MiB (default %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="daitn-resteer-") as folder:
        result = measure(options.kills, options.mib << 20, Path(folder))
    finish(result)
    return 0 if result["intact"] and result["one_label"] else 1


if __name__ == "__main__":
    run_main(main)
