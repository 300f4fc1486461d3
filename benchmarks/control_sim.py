"""One size of ``benchmarks.control`` without a network: agents' reporters, packets, a control centre's intelligence.

    PYTHONMALLOC=malloc python -m benchmarks.control_sim centralised 10000

Everything between a terminal's attribute and the map is the product's own code: reporter, message, packet, both read
again, map. Only the wire is left out, and the clock is this process's. Prints one line of JSON.

``bytes_per_s``: frames of reports that reach the control centre in steady state (``CHANGES_PER_S`` changes a second and
terminal, else heartbeats), over ``WINDOW_S`` after as long a start; beyond ``SAMPLE`` terminals so many of them report,
into the map of all, and the sum is scaled. ``border_bytes_per_s``: to one neighbour, keepalives and what is news of the
aggregates. ``state_bytes``: what the C library has allocated for map and cut, by its own count (so PYTHONMALLOC).
``take_s``: reading one report of each terminal, with all its attributes, into the map; ``decide_s``: one cut and one
decision of a job.

Hierarchical: as many abstract terminals as each has members (the square root). Its tiers are one process in this
version, so tier 1's bytes are those of the reports that would carry what changes of an abstract terminal, by the same
reporter, and ``bytes_per_s`` and ``state_bytes`` are tier 1's; ``..._all`` are those of all control centres together.
``busiest_s``: of the control centre that is busiest, were each on a machine of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from benchmarks.control_terminals import GROUPS, Direct, Light, reporter_of, role_of
from controller.border.kbgp.abstraction import abstract
from controller.border.kbgp.config import Timers
from controller.border.kbgp.session import KEEPALIVES
from controller.border.kbgp.trust import sign
from controller.intelligence import Intelligence
from controller.placement.tiers import Tiered
from controller.values.decisions import JobView, Request
from hosts.terminal.reporter import HEARTBEAT_S, LOOK_S, Reporter
from packets.kbgp.knowledge import Knowledge
from packets.kbgp.messages import Advertisement, Keepalive, Update, encode
from packets.security.identity import DCC_ROLE, Identity
from topologies.plan import DomainPlan, HostPlan, LinkPlan, SwitchPlan

WINDOW_S = 20.0
SAMPLE = 50_000
TELL_S = 1.0  # between two looks at what other K-AS are told
FEW_S = 4.0  # of them, where it takes long
SWITCHES = 16
SALT = b"a salt of sixteen bytes or more"
OBJECT = 1
REQUEST = Request(
    task="vignettes", groups=GROUPS, broad_accuracy=0.8, expert_group=GROUPS[0], expert_accuracy=0.9,
    model_bytes=1_000_000, deadline_s=1e6,  # a thousand members together have an epoch of many minutes
)  # fmt: skip


def domain_of(terminals: int) -> DomainPlan:
    """Declare one K-AS of so many terminals: switches around a gateway."""
    names = [f"s{i}" for i in range(SWITCHES)]
    switches = [SwitchPlan(name=s, dpid=i + 1, kas=1) for i, s in enumerate(names)]
    switches.append(SwitchPlan(name="g", dpid=SWITCHES + 1, kas=1, gateway=True))
    links = [LinkPlan(a=s, a_port=1, b="g", b_port=i + 1, rate_mbps=200.0) for i, s in enumerate(names)]
    hosts = []
    for i in range(terminals):
        at, port = names[i % SWITCHES], 2 + i // SWITCHES
        address = f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}"
        host = HostPlan(name=f"t{i}", role=role_of(i), kas=1, address=address, mac="", switch=at, port=port)
        hosts.append(host)
        links.append(LinkPlan(a=host.name, a_port=0, b=at, b_port=port, rate_mbps=100.0))
    return DomainPlan(kas=[1], switches=switches, hosts=hosts, links=links, borders=[], kas_links=[])


def groups_of(hosts: Sequence[HostPlan]) -> dict[str, list[HostPlan]]:
    """Return abstract terminals: as many as each has members."""
    size = max(2, math.isqrt(len(hosts)))
    parts = [hosts[start : start + size] for start in range(0, len(hosts), size)]
    return {f"at{i}": list(part) for i, part in enumerate(parts) if any(h.role == "data" for h in part)}


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "used", "free", "keepcost")
    ]


def allocated_bytes() -> int:
    """Return what the C library has handed out and not taken back; with PYTHONMALLOC=malloc that is all of Python."""
    gc.collect()
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _Mallinfo
    found = ask()
    return int(found.used + found.hblkhd)


class Centre:
    """A control centre that hears reports at a time of our making. ``groups``: {abstract terminal: its members}."""

    def __init__(self, domain: DomainPlan, groups: Mapping[str, Sequence[HostPlan]]) -> None:
        self.now_s = 0.0
        named = {name: [h.name for h in members] for name, members in groups.items()}
        self.mind = Tiered(domain, salt=SALT, groups=named) if named else Intelligence(domain, salt=SALT)
        self.hosts = {h.name: h for h in [*domain.hosts, *self.mind.domain.hosts]}
        self.line, self.upper = Direct(self._hear), Direct(self._hear_above)

    def clock(self) -> float:
        return self.now_s

    def _hear(self, message: Any, size_bytes: int) -> None:
        self.mind.hear(self.hosts[message.name], message.attributes, self.now_s, size_bytes)

    def _hear_above(self, message: Any, size_bytes: int) -> None:
        Intelligence.hear(self.mind, self.hosts[message.name], message.attributes, self.now_s, size_bytes)

    def reporter(self, host: HostPlan) -> Reporter:
        """Return the reporter of a terminal."""
        return reporter_of(host, self.line, 1, self.clock)

    def above(self, name: str) -> Reporter:
        """Return the reporter of an abstract terminal, by which tier 1 would hear of it."""
        assert isinstance(self.mind, Tiered)
        tier = self.mind.tiers[name]
        terminal = Light(self.hosts[name], self.upper, self.clock)
        return Reporter(terminal, lambda: {key: held.value for key, held in tier.as_one().items()})

    def choose(self) -> str:
        """Cut the topology of a job and plan it; returns the handle of its next stop."""
        if isinstance(self.mind, Tiered):
            self.mind.gather()
        options = self.mind.offers(OBJECT, REQUEST, self.now_s).options
        return asyncio.run(self.mind.next_visits(REQUEST, JobView(), options)).steps[0].option.handle

    def settle(self, handle: str) -> None:
        """Have decided who is met there."""
        asyncio.run(self.mind.settle(OBJECT, handle, self.now_s))
        assert self.mind.place(OBJECT, handle) is not None


class Steady(NamedTuple):
    """Bytes a second that terminals say, and that abstract terminals do; what other K-AS would be told each second."""

    below: float
    above: float
    told: list[Knowledge]


def steady(centre: Centre, parts: Mapping[str, Sequence[HostPlan]], told_s: float) -> Steady:
    """Have terminals report, those of a part to its abstract terminal ('': there is none), and look for ``told_s`` at
    what other K-AS would be told.
    """
    speakers = [centre.reporter(host) for hosts in parts.values() for host in hosts]
    upper = [centre.above(name) for name in parts if name]
    steps, start = round(HEARTBEAT_S / LOOK_S), centre.now_s
    for step in range(steps):  # they came at different times, so their heartbeats do
        centre.now_s = start + step * LOOK_S
        for one in [*speakers[step::steps], *upper[step::steps]]:
            one.register()
    said, said_above, told = centre.line.bytes, centre.upper.bytes, list[Knowledge]()
    for step in range(round(WINDOW_S / LOOK_S)):
        centre.now_s = start + HEARTBEAT_S + step * LOOK_S
        for one in [*speakers, *upper]:
            one.look()
        if step % round(TELL_S / LOOK_S) == 0 and step * LOOK_S < told_s:
            told.append(abstract(1, centre.mind.known.nodes(), []))
    rates = (centre.line.bytes - said) / WINDOW_S, (centre.upper.bytes - said_above) / WINDOW_S
    return Steady(*rates, told)


def border_bytes_per_s(told: Sequence[Knowledge]) -> float:
    """Return what one neighbour hears: keepalives, and what of ``told``, one word a second, is news."""
    signer = Identity.new("dcc1", DCC_ROLE, "10.1.255.254", 1)
    sent = len(encode(Keepalive())) * len(told) * TELL_S * KEEPALIVES / (Timers().hold_ms / 1000)
    for before, now in pairwise(told):
        if now != before:
            advertisement = Advertisement(path=[1], knowledge=now, signature=sign(now, signer))
            sent += len(encode(Update(advertised=[advertisement])))
    return sent / len(told) / TELL_S


def sample(groups: Mapping[str, Sequence[HostPlan]]) -> dict[str, Sequence[HostPlan]]:
    """Return so many whole groups that they hold about ``SAMPLE`` terminals."""
    found, count = dict[str, Sequence[HostPlan]](), 0
    for name, members in groups.items():
        if count >= SAMPLE:
            break
        found[name] = members[:SAMPLE]
        count += len(found[name])
    return found


def _register(centre: Centre, hosts: Sequence[HostPlan]) -> float:
    """Have terminals register, with all their attributes; returns the control centre's seconds."""
    before = centre.line.spent_s
    for host in hosts:
        centre.reporter(host).register()
    return centre.line.spent_s - before


def measure(kind: str, terminals: int) -> dict[str, Any]:
    """Return the figures of one kind at one size."""
    domain = domain_of(terminals)
    groups = groups_of(domain.hosts) if kind == "hierarchical" else {}
    centre = Centre(domain, groups)
    empty = allocated_bytes()
    spent = [_register(centre, members) for members in (groups or {"": domain.hosts}).values()]
    below_bytes = allocated_bytes() - empty
    begun = time.perf_counter()
    handle = centre.choose()
    chosen = time.perf_counter()
    state = allocated_bytes() - empty
    settling = time.perf_counter()
    centre.settle(handle)
    tier1_s, tier2_s = chosen - begun, time.perf_counter() - settling
    parts = sample(groups or {"": domain.hosts})
    scale = terminals / sum(map(len, parts.values()))
    said = steady(centre, parts, WINDOW_S if scale == 1 else FEW_S)
    below, above = said.below * scale, said.above * scale
    top = (above, state - below_bytes) if groups else (below, state)
    return {
        "kind": kind,
        "terminals": terminals,
        "abstract_terminals": len(groups),
        "bytes_per_s": round(top[0], 1),
        "state_bytes": top[1],
        "bytes_per_s_all": round(below + above, 1),
        "state_bytes_all": state,
        "take_s": round(sum(spent), 3),
        "decide_s": round(tier1_s + tier2_s, 3),
        "s": round(sum(spent) + tier1_s + tier2_s, 3),
        "busiest_s": round(max(max(spent) + tier2_s, tier1_s) if groups else spent[0] + tier1_s, 3),
        "border_bytes_per_s": round(border_bytes_per_s(said.told), 1),
        "reporting": sum(map(len, parts.values())),
    }


def main(arguments: Sequence[str]) -> int:
    """Measure one kind at one size."""
    kind, terminals = arguments
    warm = domain_of(100)
    first = Centre(warm, groups_of(warm.hosts) if kind == "hierarchical" else {})
    _register(first, warm.hosts)
    first.settle(first.choose())  # what is loaded at the first decision is no state
    print(json.dumps(measure(kind, int(terminals))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
