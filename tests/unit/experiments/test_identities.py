"""Identities of a run: on unless the scenario says off."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.scenarios.scenario import SCENARIO_FOLDER, load, network_plan
from experiments.testbed.identities import Identities, dcc_name
from packets.security.identity import Directory


@pytest.mark.parametrize("line, on", [("", True), ("security: on\n", True), ("security: off\n", False)])
def test_security_is_on_unless_the_scenario_says_off(tmp_path: Path, line: str, on: bool) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((SCENARIO_FOLDER / "healthcare.yaml").read_text() + line)
    assert load(str(path)).security is on


def test_everybody_in_the_network_has_a_certificate(tmp_path: Path) -> None:
    plan = network_plan(load("healthcare"))
    identities = Identities(plan, tmp_path)
    directory = Directory.load(identities.directory)
    assert len(directory) == len(plan.stations) + len(plan.kas_numbers)
    for host in plan.stations:
        known = directory.by_address(host.address)
        assert known is not None and (known.name, known.role) == (host.name, host.role)
    assert all(directory.by_name(dcc_name(kas)) for kas in plan.kas_numbers)
    assert "h11" in identities and "nobody" not in identities
