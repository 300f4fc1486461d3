"""Queries on the real network while a model moves, and while one dies."""

from __future__ import annotations

from pathlib import Path

from benchmarks import move
from benchmarks.queries_net import terminals


def test_no_query_is_lost_while_a_model_moves_and_when_one_dies(tmp_path: Path) -> None:
    with move.serving(tmp_path) as (network, labels):
        askers = terminals(network, "query_owner")[:3]
        moved = move.moved(network, askers, labels, 60.0)
        assert (moved["lost"], moved["refused"]) == (0, 0), moved
        killed = move.killed(network, askers, labels, 60.0)
        assert (killed["lost"], killed["refused"]) == (0, 0), killed
        assert killed["recovery_s"] < 3.0, killed
