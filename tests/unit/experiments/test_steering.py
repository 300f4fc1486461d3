"""Jobs that find their own way, and networks without control centres, as a scenario says them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.commands.session import check_methods
from experiments.errors import ScenarioError
from experiments.scenarios.scenario import SCENARIO_FOLDER, Scenario, dump, from_raw, load
from experiments.scenarios.steering import own_policies


def raw(**job: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((SCENARIO_FOLDER / "healthcare.yaml").read_text())
    del content["query"]
    content["jobs"][0] |= {"steering": "aats"} | job
    return content


def scenario(top: dict[str, Any] | None = None, **job: Any) -> Scenario:
    return from_raw(raw(**job) | (top or {}), "mine.yaml")


def test_a_job_says_its_policy_and_parameters() -> None:
    job = scenario(policy="random-walk", parameters={"jump": 0.3}).jobs[0]
    assert (job.steering, job.policy, job.parameters) == ("aats", "random-walk", {"jump": 0.3})
    assert scenario().jobs[0].policy == "greedy" and load("healthcare").jobs[0].steering == "dcc"


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"policy": "gready"}, "no policy is called 'gready'; did you mean 'greedy'"),
        ({"parameters": {"jump": 1.0}}, "policy greedy has no parameter 'jump'; it has none"),
        ({"policy": "random-walk", "parameters": {"jump": 7}}, "parameter jump = 7 is out of bounds; give 0 to 1"),
        ({"policy": "random-walk", "parameters": {"near": 0}}, "parameter near = 0 is out of bounds; give 1 or more"),
        ({"compression": "auto"}, "compression auto: a control centre chooses it"),
        ({"steering": "dcc", "policy": "planned"}, "policy: only a job that finds its own way"),
        ({"steering": "dcc", "parameters": {"jump": 0.3}}, "parameters: only a job that finds its own way"),
        ({"method": "gossip"}, "method gossip: with `steering: aats` a model travels alone"),
        ({"engines": {"mtrce": "default"}}, "engines of its own"),
        ({"policy": "none.py:f"}, "there is no file"),
        ({"steering": "self"}, "Invalid enum value 'self'"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_it(job: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError, match=words) as caught:
        scenario(**job)
    assert "mine.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("said", [{"policy": "greedy"}, {"parameters": {}}])
def test_a_policy_without_steering_is_refused_even_where_it_is_the_default(said: dict[str, Any]) -> None:
    content = raw(**said)
    del content["jobs"][0]["steering"]
    with pytest.raises(ScenarioError, match=r"mine.yaml: jobs\[0\]: .*add `steering: aats`, or leave it out"):
        from_raw(content, "mine.yaml")


def test_what_a_run_wrote_down_of_a_steered_job_can_be_run_again() -> None:
    written = yaml.safe_load(dump(load("healthcare")))
    assert written["jobs"][0]["policy"] == "greedy" and from_raw(written, "mine.yaml").jobs == load("healthcare").jobs


def test_a_policy_of_ones_own_is_found_from_where_the_scenario_lies(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def last(request, view, options, rng):\n    return [options[-1].handle]\n")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw(policy="mine.py:last")))
    found = load(str(tmp_path / "mine.yaml"))
    assert own_policies(found.jobs) == [f"{(tmp_path / 'mine.py').resolve()}:last"] == [found.jobs[0].policy]
    assert own_policies(scenario().jobs) == []


@pytest.mark.parametrize(
    ("top", "job", "words"),
    [
        ({}, {"steering": "dcc"}, "nobody would steer the jobs"),
        ({"ways": ["cached"]}, {}, "ways needs control centres"),
        ({"queries": {"rate_per_s": 5}}, {}, "queries needs control centres"),
        ({"seeds": 3}, {}, "seeds needs control centres"),
    ],
)
def test_without_control_there_is_only_what_needs_none(top: dict[str, Any], job: dict[str, Any], words: str) -> None:
    assert scenario({"without_control": True, "query": {"group": "cardiology"}, "replicas": 2}).without_control
    with pytest.raises(ScenarioError, match=words):
        scenario({"without_control": True} | top, **job)


def test_a_method_on_the_command_line_is_checked_too() -> None:
    check_methods(scenario(), "routed")
    with pytest.raises(ScenarioError, match="method federated"):
        check_methods(scenario(), "federated")
