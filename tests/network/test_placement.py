"""MDO by itself on the real network: a model goes to where it is asked for, and no query is lost meanwhile."""

from __future__ import annotations

from pathlib import Path

from benchmarks import move
from benchmarks.queries_net import begin, deployed, ended, kas_of, terminals, trained
from benchmarks.standing import StandingNetwork, standing
from experiments.scenarios.queries import QueriesSpec
from hosts.inference import asked
from packets.events import Event

EVERY_S = 1.0
NETWORK = {
    "kas": {
        1: {"data": 2, "compute": 1, "mpvu": 1, "mdfp": 1, "model_owner": 1, "query_owner": 1},
        2: {"data": 1, "mpvu": 1},
        3: {"mdfp": 1, "query_owner": 1},
    },
    "wan": [
        {"a": 1, "b": 2, "rate_mbps": 50, "delay_ms": 3},
        {"a": 2, "b": 3, "rate_mbps": 50, "delay_ms": 5},
        {"a": 1, "b": 3, "rate_mbps": 50, "delay_ms": 8},
    ],
}
SCENARIO = move.SCENARIO | {"name": "placement", "network": NETWORK, "place_every_s": EVERY_S}


def test_a_model_follows_who_asks_for_it_and_no_query_is_lost(tmp_path: Path) -> None:
    with standing(SCENARIO, tmp_path) as network:
        place = kas_of(network)
        [home] = deployed(network, trained(network), 1)
        there = next(k for k in (1, 3) if k != place[home])
        askers = [a for a in terminals(network, "query_owner") if place[a] == there]
        begin(network, askers, QueriesSpec(rate_per_s=40.0, seconds=9.0), seed=1)
        came = network.wait_until(lambda: arrival(network), 9.0, "a copy or a move")
        rows = ended(network, askers)
        found = asked.summary(rows)
        assert found["answered"] == found["asked"] > 250, found
        assert came.data["to"].startswith(f"{there}:@mdfp/0") and "answers" in came.data["reason"]
        late = [r for r in rows if r.at_s > 8.0]
        assert {r.model for r in late} == {came.data["new_label"]}, "it is asked where it has come to"
        early = sorted(r.latency_ms for r in rows if r.at_s < 1.5)
        assert sorted(r.latency_ms for r in late)[len(late) // 2] < early[len(early) // 2] - 8.0, "and is nearer"
        changes = [e for kind in ("model.moved", "model.copied", "model.scaled") for e in network.events(kind)]
        assert len(changes) <= 2, "no to and fro"


def arrival(network: StandingNetwork) -> Event | None:
    return next((e for kind in ("model.moved", "model.copied") for e in network.events(kind)), None)
