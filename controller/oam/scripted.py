"""A scripted run: the events that a fig3 job of eight visits sends, for tests and for working on the page.

Nothing here was measured: the figures only have the shape of a run.  The network's name says "scripted", so that no one
takes a page that shows it for a result.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from packets.events import Event
from packets.labels import make_object_id
from topologies.plan import ROUTER_MAC, HostPlan, LinkPlan, NetworkPlan, Role, SwitchPlan

START_UNIX_S = 1_760_000_000.0
MODEL_BYTES = 1_012_400
OWNER = "owner1"
EXTRA: dict[int, list[tuple[str, Role]]] = {
    1: [("mdfp1", "mdfp"), (OWNER, "model_owner")],
    2: [("mpvu2", "mpvu")],
    3: [("mdfp3", "mdfp")],
    4: [("mpvu4", "mpvu"), ("asker4", "query_owner")],
}
# action, node, data node, broad and expert accuracy (measured at MPVUs, expected elsewhere), words
STOPS = [
    ("train", "h21", "h21", 0.41, 0.30, "largest share of cardiology not yet seen (0.46) at the least transfer time"),
    ("train", "c3", "h32", 0.58, 0.42, "h32 lends data the model has not met; c3 trains it 2.1 times faster"),
    ("verify", "mpvu4", "", 0.561, 0.447, "two visits since the last measurement: measure before planning on"),
    ("train", "h12", "h12", 0.71, 0.55, "broad accuracy is the nearer target: neurology and oncology are missing"),
    ("train", "h43", "h43", 0.80, 0.71, "fills the last two departments; the way back passes an MPVU"),
    ("verify", "mpvu2", "", 0.818, 0.702, "broad target looks met: measure, then turn to cardiology"),
    ("train", "c2", "h22", 0.83, 0.96, "cardiology last, so that it is not forgotten: 61 % of h22 is cardiology"),
    ("verify", "mpvu4", "", 0.847, 0.968, "both targets expected with a margin: confirm on unseen samples"),
]  # fmt: skip


def scripted_plan(kas_count: int = 4) -> NetworkPlan:
    """Return a network like the paper's Fig. 3, with any number of K-AS in a ring (and one chord)."""
    numbers = range(1, kas_count + 1)
    switches = [s for k in numbers for s in _switches(k)]
    hosts = [h for k in numbers for h in _hosts(k)]
    links = [link for k in numbers for link in _lan(k)]
    ring = [(k, k % kas_count + 1) for k in numbers if kas_count > 2 or k < kas_count]
    chord = [(1, 3)] if kas_count > 3 else []
    links += [_wan(a, b, 20.0 if (a, b) in chord else 10.0) for a, b in ring + chord]
    links += [LinkPlan(a=h.name, a_port=0, b=h.switch, b_port=h.port, rate_mbps=100.0) for h in hosts]
    return NetworkPlan(name=f"fig{kas_count - 1} (scripted)", hosts=hosts, switches=switches, links=links)


def _switches(k: int) -> list[SwitchPlan]:
    names = [f"k{k}s1", f"k{k}s2", f"k{k}g"]
    return [SwitchPlan(name=n, dpid=k * 256 + i, kas=k, gateway=n.endswith("g")) for i, n in enumerate(names, 1)]


def _hosts(k: int) -> list[HostPlan]:
    terminals: list[tuple[str, Role]] = [(f"h{k}{i}", "data") for i in (1, 2, 3)]
    terminals += [(f"c{k}", "compute"), *EXTRA.get(k, [])]
    return [
        HostPlan(
            name=name,
            role=role,
            kas=k,
            address=f"10.{k}.{1 + i % 2}.{1 + i // 2}",
            mac=ROUTER_MAC,
            switch=f"k{k}s{1 + i % 2}",
            port=10 + i,
        )
        for i, (name, role) in enumerate(terminals)
    ]


def _lan(k: int) -> list[LinkPlan]:
    pairs = [(f"k{k}s1", f"k{k}g"), (f"k{k}s2", f"k{k}g"), (f"k{k}s1", f"k{k}s2")]
    return [LinkPlan(a=a, a_port=1, b=b, b_port=2, rate_mbps=200.0) for a, b in pairs]


def _wan(a: int, b: int, delay_ms: float) -> LinkPlan:
    return LinkPlan(a=f"k{a}g", a_port=b, b=f"k{b}g", b_port=a, rate_mbps=50.0, delay_ms=delay_ms)


class Script:
    """Writes events in order; ``clock_s`` is the time in the run."""

    def __init__(self, kas_count: int = 4) -> None:
        self.plan = scripted_plan(kas_count)
        self.object_id = make_object_id(1, 3, 0x9_8765_4321)
        self.deploy_id = make_object_id(1, 4, 0x1_2345_6789)
        self.clock_s = self._job_s = 0.0
        self._hosts = {h.name: h for h in self.plan.hosts}
        self._next_id = 1
        self._bytes = {link.name: 0 for link in self.plan.links}

    def event(self, kind: str, source: str, /, after_s: float = 0.0, **data: Any) -> Event:
        """Return the next event, ``after_s`` later than the last."""
        self.clock_s += after_s
        made = Event(kind=kind, source=source, t_unix_s=START_UNIX_S + self.clock_s, data=data, id=self._next_id)
        self._next_id += 1
        return made

    def run(self) -> Iterator[Event]:
        """Yield a whole run: network up, test samples gathered, job, eight stops, home, deployed, queried."""
        yield from self.start()
        yield from self.samples()
        yield from self.admitted()
        at = OWNER
        for visit, stop in enumerate(STOPS):
            yield from self.stop(visit, at, stop)
            at = stop[1]
        yield from self.home(at)
        yield from self.served()

    def start(self) -> Iterator[Event]:
        """Network, DCCs, agents."""
        yield self.event("run.phase", "main", phase="network", state="start")
        yield self.event("network.up", "main", 1.5, plan=msgspec.to_builtins(self.plan))
        for link in self.plan.links:
            if link.delay_ms:
                yield self.event(
                    "link.calibrated", "main", 0.02, link=link.name, rate_mbps=link.rate_mbps, measured_mbps=48.1,
                    delay_ms=link.delay_ms, measured_delay_ms=link.delay_ms + 0.3, ok=True,
                )  # fmt: skip
        for kas in self.plan.kas_numbers:
            yield self.event("dcc.ready", f"dcc{kas}", 0.1, kas=kas)
        for n, host in enumerate(self.plan.hosts):
            who = {"name": host.name, "role": host.role, "kas": host.kas, "address": host.address}
            yield self.event("agent.ready", host.name, 0.03, **who, pid=4000 + n)
            about: dict[str, Any] = {"trust": 0.9, "queue": 0}
            about |= {"samples": 1400 + 37 * n} if host.role == "data" else {}
            yield self.event("krrm.updated", f"dcc{host.kas}", 0.001, name=host.name, kas=host.kas, attributes=about)
        yield self.event("run.phase", "main", phase="network", state="end", seconds=round(self.clock_s, 2))

    def samples(self) -> Iterator[Event]:
        """Each data node sends its two disjoint test samples to the MPVUs."""
        yield self.event("run.phase", "main", phase="test samples", state="start")
        for n, host in enumerate(h for h in self.plan.hosts if h.role == "data"):
            for copy, mpvu in enumerate(("mpvu2", "mpvu4")):
                sample = make_object_id(host.kas, 10 + copy, 77 + n)
                yield from self.move(sample, 0, host.name, mpvu, "DATA_SHARD", "test_sample", 24_000, 0.06)
        yield self.event("run.phase", "main", phase="test samples", state="end", seconds=3.1)

    def admitted(self) -> Iterator[Event]:
        """The owner's job and T-FAM's verdict."""
        spec = {"task": "vignettes", "broad_accuracy": 0.80, "expert_group": "cardiology", "expert_accuracy": 0.95}
        self._job_s = self.clock_s
        yield self.event("run.phase", "main", phase="training", state="start")
        yield self.event(
            "job.submitted", "dcc1", 0.3, object_id=self.object_id, owner=OWNER, spec={**spec, "max_visits": 10}
        )
        yield self.event(
            "job.assessed", "dcc1", 0.05, object_id=self.object_id, admitted=True, reasons=[], nearest={},
            predicted={"broad": 0.86, "cardiology": 0.97},
        )  # fmt: skip

    def stop(self, visit: int, at: str, stop: tuple[str, str, str, float, float, str]) -> Iterator[Event]:
        """One stop: decided, steered, moved, then trained or verified."""
        action, node, data_node, broad, expert, words = stop
        kas = self._hosts[node].kas
        yield self.event(
            "job.decided", "dcc1", 0.15, object_id=self.object_id, visit=visit, action=action, kas=kas,
            reason=words, alternatives=[[f"{kas % 4 + 1}/a3", 0.71], ["2/b1", 0.64]], handle=f"{kas}/x{visit}",
            ages={"samples": 3.2, "queue": 0.4},
            expected={"broad": broad, "cardiology": expert}, plan=[s[1] for s in STOPS[visit:]],
        )  # fmt: skip
        yield from self.move(self.object_id, visit, at, node, "MODEL_SHARD", action, MODEL_BYTES, 0.35)
        if action == "verify":
            yield from self._verify(visit, node, kas, broad, expert)
        else:
            yield from self._train(visit, node, data_node, kas)

    def _train(self, visit: int, node: str, data_node: str, kas: int) -> Iterator[Event]:
        if data_node != node:
            yield from self.move(
                make_object_id(kas, 40 + visit, 5), visit, data_node, node, "DATA_SHARD", "data", 610_000, 0.2
            )
        yield self.event("agent.state", node, 0.05, name=node, state="training", object_id=self.object_id)
        yield self.event(
            "visit.trained", node, 4.2, object_id=self.object_id, visit=visit, node=node, data_node=data_node, kas=kas,
            facility=node, loss=round(1.9 / (visit + 1), 3), samples=1530, epochs=2.0, seconds=4.2,
        )  # fmt: skip
        yield self.event("agent.state", node, name=node, state="idle", object_id=0)

    def _verify(self, visit: int, node: str, kas: int, broad: float, expert: float) -> Iterator[Event]:
        yield self.event("agent.state", node, 0.05, name=node, state="verifying", object_id=self.object_id)
        yield self.event(
            "visit.verified", node, 0.9, object_id=self.object_id, visit=visit, node=node, kas=kas, broad=broad,
            expert=expert, per_group={"cardiology": expert, "neurology": broad},
            samples=1440, accepted=True, reason="better than before",
        )  # fmt: skip
        yield self.event("agent.state", node, name=node, state="idle", object_id=0)

    def move(
        self, object_id: int, visit: int, at: str, to: str, kind: str, purpose: str, size: int, takes_s: float
    ) -> Iterator[Event]:
        """An object goes from one terminal to another: launched, packet-in, steered per K-AS, arrived."""
        here, there = self._hosts[at], self._hosts[to]
        yield self.event("object.launched", at, 0.02, object_id=object_id, visit=visit, node=at, bytes=size)
        yield self.event(
            "packet.in", f"dcc{here.kas}", 0.002, kas=here.kas, switch=here.switch, label=object_id & 0xFFFFFFF
        )
        about = {"object_id": object_id, "visit": visit, "type": kind, "purpose": purpose}
        for kas, switches, ends in self._parts(at, to):
            yield self.event(
                "object.steered", f"dcc{kas}", 0.004, **about, kas=kas, **ends, switches=switches, flows=len(switches)
            )
        yield from self._load(here.kas, there.kas, size)
        yield self.event(
            "object.arrived", to, takes_s, object_id=object_id, visit=visit, node=to, sender=at, bytes=size,
            seconds=takes_s, goodput_mbps=round(size * 8e-6 / takes_s, 1), retransmissions=0,
        )  # fmt: skip

    def _parts(self, at: str, to: str) -> list[tuple[int, list[str], dict[str, str]]]:
        """Return (K-AS, its switches on the way, the ends it knows); the receiving K-AS speaks first, as in a run."""
        here, there = self._hosts[at], self._hosts[to]
        if here.kas == there.kas:
            return [(here.kas, list(dict.fromkeys([here.switch, there.switch])), {"from_node": at, "node": to})]
        last = (there.kas, [f"k{there.kas}g", there.switch], {"node": to})
        first = (here.kas, [here.switch, f"k{here.kas}g"], {"from_node": at})
        between = [] if _beside(self.plan, here.kas, there.kas) else [(1, ["k1g"], dict[str, str]())]
        return [last, *between, first]

    def _load(self, a: int, b: int, size: int) -> Iterator[Event]:
        for link in self.plan.links:
            if {link.a, link.b} == {f"k{a}g", f"k{b}g"} and a != b:
                self._bytes[link.name] += size
                moved = {"tx_bytes": self._bytes[link.name], "rx_bytes": self._bytes[link.name] // 20}
                yield self.event("link.load", f"dcc{a}", kas=a, link=link.name, **moved)

    def home(self, at: str) -> Iterator[Event]:
        """Targets met: the model goes home with its log."""
        words = "both targets are met on samples of two MPVUs: home"
        yield self.event(
            "job.decided",
            "dcc1",
            0.1,
            object_id=self.object_id,
            visit=len(STOPS),
            action="home",
            kas=1,
            reason=words,
            expected={},
        )
        yield from self.move(self.object_id, len(STOPS), at, OWNER, "MODEL_SHARD", "home", MODEL_BYTES + 9000, 0.4)
        yield self.event("object.returned", OWNER, 0.05, object_id=self.object_id, node=OWNER, bytes=MODEL_BYTES + 9000)
        yield self.event(
            "job.finished", "dcc1", 0.01, object_id=self.object_id, state="finished", broad=0.847, expert=0.968,
            visits=len(STOPS), reason="targets met",
        )  # fmt: skip
        yield self.event(
            "run.phase", "main", phase="training", state="end", seconds=round(self.clock_s - self._job_s, 2)
        )

    def served(self) -> Iterator[Event]:
        """Deployed to an MDFP and asked a question."""
        yield from self.move(self.deploy_id, 0, OWNER, "mdfp3", "MODEL_SHARD", "deploy", MODEL_BYTES, 0.4)
        accuracy = {"broad": 0.847, "cardiology": 0.968}
        about = {"object_id": self.deploy_id, "node": "mdfp3", "task": "vignettes", "accuracy": accuracy}
        yield self.event("model.deployed", "mdfp3", 0.1, **about)
        yield self.event("query.sent", "asker4", 0.2, id="q1", node="asker4", task="vignettes")
        yield self.event(
            "query.answered", "asker4", 0.06, id="q1", node="asker4", answered_by="mdfp3", answer="atrial fibrillation",
            expected="atrial fibrillation", latency_ms=58.2,
        )  # fmt: skip

    def asked(self, seconds: int = 20) -> Iterator[Event]:
        """A load of queries on the deployed model and one beside it, of a class; mdfp1 falls silent meanwhile."""
        here, label = self.deploy_id & 0xFFF_FFFF, 0x0A1_B2C3
        far: dict[str, Any] = {"kas": 3, "path_ms": 10.1, "service_ms": 7.7, "in_flight": 2, "accuracy": 0.85}
        cats = {"metrics": {"power_w": 61.5}, "cats": {"computing": 8.2, "score": 9.1}}
        models = [{"label": here, "weight": 100, "age_s": 0.2, **far, **cats}]
        need = {"broad_accuracy": 0.8, "deadline_ms": 50}
        about = {"task": "vignettes", "kas": 4, "label": label, "need": need}
        yield self.event("query.steered", "dcc4", 0.1, **about, models=models, weights=[["3:@mdfp/0", 100]])
        yield self.event("query.unserved", "dcc2", task="vignettes", kas=2, label=label, reason="no MDFP is in reach")
        yield self.event("model.out", "dcc1", node="mdfp1", kas=1, reason="no answer to two knocks")
        for second in range(seconds):
            answered, refused = 30 + 7 * (second % 4), second % 3
            counts = {"asked": answered + refused, "answered": answered, "refused": refused, "lost": 0}
            spread = {"17.78": answered - 12, "23.71": 10, "56.23": 2}
            yield self.event(
                "load.second", "asker4", 1.0, node="asker4", policy="qirce", under_way=2, latency_buckets=spread,
                **counts,
            )  # fmt: skip

    def placed(self) -> Iterator[Event]:
        """The deployed model is copied to where it is asked for, is out there for a while, and goes again."""
        here, copy = self.deploy_id & 0xFFF_FFFF, make_object_id(3, 2, 3)
        why = "answers 14 of 20 queries/s (1) in 6.1 ms; from the next replica 26.1 ms"
        told: dict[str, Any] = {"label": here, "new_label": copy & 0xFFF_FFFF, "to": "1:@mdfp/0", "seconds": 0.8}
        for second in range(60):
            for asker, asked in (("asker4", 3 + second % 3), ("owner1", 14 if 12 < second < 40 else 2)):
                counts: dict[str, Any] = {"asked": asked, "answered": asked, "refused": 0, "lost": 0, "under_way": 1}
                about: dict[str, Any] = {"node": asker, "policy": "qirce", "latency_buckets": {"17.78": asked}}
                yield self.event("load.second", asker, 0.5, **about, **counts)
            if second == 18:
                yield self.event("model.deployed", "mdfp1", node="mdfp1", object_id=copy, task="vignettes", accuracy={})
                yield self.event("model.copied", "dcc3", reason=why, **told)
            elif second in (25, 30):
                kind = "model.out" if second == 25 else "model.back"
                yield self.event(kind, "dcc1", node="mdfp1", kas=1, reason="no answer to two knocks")
            elif second == 50:
                yield self.event("model.scaled", "dcc3", label=copy & 0xFFF_FFFF, reason="at 1:@mdfp/0: nobody asks")
                yield self.event("model.retired", "dcc1", 0.0, node="mdfp1", kas=1, label=copy & 0xFFF_FFFF)


def _beside(plan: NetworkPlan, a: int, b: int) -> bool:
    return any({link.a, link.b} == {f"k{a}g", f"k{b}g"} for link in plan.links)
