"""A query of many samples on the real network, of which the model that answers it dies in the middle."""

from __future__ import annotations

from pathlib import Path

from benchmarks import streams
from benchmarks.queries_net import terminals

SAMPLES = 600


def test_the_rest_comes_from_the_other_replica_in_order_when_one_dies(tmp_path: Path) -> None:
    with streams.serving(tmp_path, loss_percent=1.0) as (network, labels):
        asker = terminals(network, "query_owner")[-1]
        found = streams.killed(network, asker, streams.drawn(SAMPLES))
        assert found["in_order"] and found["answered"] == SAMPLES, found
        assert found["models"].keys() == labels.keys() and sum(found["models"].values()) == SAMPLES, found
        assert found["models"][found["killed"]] >= found["killed_at"] >= SAMPLES / 4, "it stayed with one until then"
        assert found["last_of_killed"] <= found["killed_at"] + 9 * 8 and found["gap_ms"] < 5000, found
        event = network.wait_for("query.answered", samples=SAMPLES)
        assert set(event.data["answered_by"].split(", ")) == set(labels)
