"""A deployed model falls behind the world on the real network: found, trained on, put in its own places anew; then one
of the places dies.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import move
from benchmarks.queries_net import begin, ended, terminals
from experiments.load import AHEAD_S, nodes_of
from experiments.scenarios.queries import QueriesSpec
from hosts.inference.asked import Row, summary

LOAD_S, AFTER_S = 90.0, 6.0  # of queries at the most, and once the model is back
WAITED_S = 2.0  # a load that is stopped waits no longer for the latest queries


def right(rows: Sequence[Row], start_s: float, end_s: float) -> float:
    share = summary([r for r in rows if start_s < r.at_s < end_s])["accuracy"]
    assert share is not None
    return float(share)


def test_a_model_that_falls_behind_is_deployed_anew_and_no_query_is_lost_then_or_when_one_dies(tmp_path: Path) -> None:
    with move.serving(tmp_path) as (network, labels):
        askers = terminals(network, "query_owner")[:3]
        began_s = time.time() + AHEAD_S
        begin(network, askers, QueriesSpec(rate_per_s=30.0, seconds=LOAD_S))
        drift = {"group": "", "seed": 1, "count": 800, "tests": 0.2}
        for name in [*askers, *terminals(network, "data")]:
            network.at(name, "drift", **drift)
        drifted_s = max(0.0, time.time() - began_s)
        fallen = network.wait_for("model.drifted", 15.0)
        anew = network.wait_for("model.redeployed", 50.0)
        deployed = network.events("model.deployed")
        time.sleep(AFTER_S)
        answered_s = time.time() - began_s - WAITED_S
        for name in askers:
            network.at(name, "load_stop")
        rows = [r for r in ended(network, askers) if r.at_s < answered_s]
        killed = move.killed(network, askers, labels, 60.0)
    assert (killed["lost"], killed["refused"]) == (0, 0), killed
    assert killed["recovery_s"] < 3.0, killed
    assert fallen.data["broad"] < fallen.data["was"] - 0.1
    assert any("broad accuracy has fallen" in why for why in fallen.data["reasons"])
    nodes = nodes_of(deployed)
    assert {nodes[label][0] for label in anew.data["labels"]} == set(labels), "in the same places"
    found = summary(rows)
    assert (found["lost"], found["refused"]) == (0, 0), found
    # The old model answers until the first place has the new one, however soon the fall was found.
    first_s = min(e.t_unix_s for e in deployed if e.t_unix_s > fallen.t_unix_s) - began_s
    assert right(rows, anew.t_unix_s - began_s, answered_s) > right(rows, drifted_s, first_s) + 0.1
