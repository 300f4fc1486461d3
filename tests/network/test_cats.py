"""A metric of one's own on the real network: MDFPs report it, other K-AS know it, an engine of one's own heeds it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks import move
from benchmarks.queries_net import deployed, kas_of, terminals, trained
from benchmarks.standing import StandingNetwork, standing
from tests.network.daitn import daitn

WATTS = {1: 150.0, 2: 90.0, 3: 40.0}
MINE = f"""
import time
WATTS = {WATTS}

def power(about):
    return WATTS[about["kas"]]

def broken(about):
    raise OSError("no such sensor")

def slow(about):
    time.sleep(60)

def choose(models, path_ms):
    return [(min(models, key=lambda m: m.metrics.get("power_w", 1e9)).node, 100)]
"""
CATS = {
    "power_w": {"source": "mine.py:power", "category": "computing", "best": 20, "worst": 200},
    "broken": {"source": "mine.py:broken", "category": "service", "best": 1, "worst": 0},
    "slow": {"source": "mine.py:slow", "category": "service", "best": 1, "worst": 0},
}
SCENARIO = move.SCENARIO | {"name": "cats", "cats": CATS, "engines": {"qirce": "mine.py:choose"}}


def test_queries_go_to_the_cooler_mdfp_and_what_it_draws_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    with standing(SCENARIO, tmp_path) as network:
        labels, place = deployed(network, trained(network), 2), kas_of(network)
        cool = min(labels, key=lambda name: WATTS[place[name]])
        for name in labels:
            network.wait_until(partial(known, network, name), 10.0, f"the metric of {name}")
        askers = [a for a in terminals(network, "query_owner") if place[a] != place[cool]]
        for asker in askers:
            assert network.at(asker, "query", group="")["answered_by"] == cool
        steered = [network.wait_for("query.steered", kas=place[a]).data for a in askers]
        for told in steered:
            [model] = told["models"]
            assert (model["kas"], model["metrics"]) == (place[cool], {"power_w": WATTS[place[cool]]})
            assert 0 < model["cats"]["score"] < 10 and model["cats"]["computing"] < 10
        why = daitn("explain", "last", cwd=tmp_path, env={"COLUMNS": "200"})
        assert why.status == 0 and "power_w" in why.out and f"{WATTS[place[cool]]:.4g}" in why.out, why
        for name in labels:
            network.wait_until(partial(warnings, network, f"{name}: metric slow"), 10.0, f"what {name} warns of")
        warned = warnings(network, "metric")
        for name in labels:
            assert len([w for w in warned if f"{name}: metric broken: OSError: no such sensor" in w]) == 1, warned
            assert len([w for w in warned if f"{name}: metric slow: no figure within 1 s; it is left out" in w]) == 1
        assert network.events("error") == []


def known(network: StandingNetwork, name: str) -> bool | None:
    return "power_w" in network.state(name)["attributes"].get("metrics", {}) or None


def warnings(network: StandingNetwork, words: str) -> list[str]:
    return [t for e in network.events("warning") if words in (t := str(e.data.get("text")))]
