"""The four kinds of K-AS of the paper's Fig. 3 in one network: who decides changes as a model crosses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.standing import standing
from experiments.commands.client import request
from experiments.scenarios.scenario import SCENARIO_FOLDER

SPEC = {"broad_accuracy": 0.8, "expert_group": "cardiology", "expert_accuracy": 0.95, "max_visits": 6, "seed": 1}


def test_who_decides_changes_as_a_model_crosses_all_four_kinds(tmp_path: Path) -> None:
    with standing(SCENARIO_FOLDER / "fig3.yaml", tmp_path, "--seed", "1") as network:
        (up,) = network.events("network.up")
        assert [w.split(" ")[0] for w in up.data["kinds"].values()] == [
            "distributed", "non-standalone", "hierarchical", "centralised",
        ]  # fmt: skip
        ended = request("submit", 120.0, spec=SPEC)
        assert ended["targets_met"], ended
        by: list[Any] = [e.data["by"] for e in network.events("job.decided", action="train")]
        first, *later = by
        assert first is None, "its owner's K-AS has an MTRCE of its own"
        assert later and {(b["terminal"], b["kas"]) for b in later} == {("holder", 1)}
        assert {e.data["node"] for e in network.events("holder.decided")} == {"mpvu1"}
