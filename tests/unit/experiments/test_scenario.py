"""Scenarios: what is built in loads, what is wrong is named."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from experiments.commands.session import check_methods
from experiments.errors import ExperimentError, ScenarioError
from experiments.scenarios import scenario
from experiments.scenarios.built_in import names
from experiments.scenarios.network import KasSpec, NetworkSpec, lacking
from topologies.fig3 import PLAN


def raw(name: str = "healthcare") -> dict:
    return msgspec.yaml.decode((scenario.SCENARIO_FOLDER / f"{name}.yaml").read_bytes())


@pytest.mark.parametrize(
    ("kas", "words"),
    [
        (
            {1: {}, 2: {"borrows": {"mtrce": [1], "tfam": 4}}},
            "`scenario.kas.2.borrows.tfam`; for example `borrows: {tfam: [4",
        ),
        ({2: {}, 1: "distributed"}, "got `str` - at `scenario.kas.1`; for example `kas: {1: {kind: distributed}}`"),
        ({1: {"abstract_terminals": {"b": ["x"], "a": 3}}}, "`scenario.kas.1.abstract_terminals.a`; for example"),
        ({1: {"timeout_s": "x"}}, "got `str` - at `scenario.kas.1.timeout_s`$"),
        ({"one": {}}, "at `key` in `scenario.kas`; for example `kas: {1:"),
        ({3: {}, 2: {"borrowz": {}}}, "unknown key 'borrowz' at kas.2; did you mean 'borrows'"),
    ],
)
def test_a_wrong_kind_of_kas_is_named_by_its_keys(kas: dict[object, object], words: str) -> None:
    raw = msgspec.yaml.decode((scenario.SCENARIO_FOLDER / "fig3.yaml").read_bytes()) | {"kas": kas}
    with pytest.raises(ScenarioError, match=words.replace("[", r"\[").replace("{", r"\{")) as caught:
        scenario.from_raw(raw, "mine.yaml")
    assert "\n" not in str(caught.value) and raw["kas"] == kas


def test_an_empty_file_and_a_folder_are_called_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("")
    with pytest.raises(ScenarioError, match="the file is empty, a mapping of keys is expected; begin with"):
        scenario.load(str(tmp_path / "mine.yaml"))
    with pytest.raises(ScenarioError, match="is a folder; give the path of a YAML file"):
        scenario.load(str(tmp_path))


@pytest.mark.parametrize("name", names())
def test_every_built_in_scenario_declares_a_network(name: str) -> None:
    plan = scenario.network_plan(scenario.load(name))
    assert any(h.role == "model_owner" for h in plan.hosts)
    assert len({h.address for h in plan.hosts}) == len(plan.hosts)


def test_healthcare_runs_on_the_network_of_figure_3() -> None:
    plan = scenario.network_plan(scenario.load("healthcare"))
    assert {(h.name, h.role, h.kas, h.data_may_move) for h in plan.hosts} == {
        (h.name, h.role, h.kas, h.data_may_move) for h in PLAN.hosts
    }
    wan = {(x.a, x.b, x.rate_mbps, x.delay_ms) for x in plan.links if x.delay_ms}
    assert wan == {(x.a, x.b, x.rate_mbps, x.delay_ms) for x in PLAN.links if x.delay_ms}


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        (("nme",), "name"),
        (("network", "kas", 1, "comput"), "compute"),
        (("network", "wan", 0, "delay"), "delay_ms"),
        (("jobs", 0, "broad_acuracy"), "broad_accuracy"),
        (("data", "alfa"), "alpha"),
        (("query", "grup"), "group"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_right_one(path: tuple, nearest: str) -> None:
    content = raw()
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = 1
    with pytest.raises(ScenarioError, match=f"'{path[-1]}'.*did you mean '{nearest}'") as caught:
        scenario.from_raw(content, "mine.yaml")
    assert "mine.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_a_file_that_is_no_mapping_is_an_error(content: object) -> None:
    with pytest.raises(ScenarioError, match="mapping"):
        scenario.from_raw(content, "mine.yaml")


def test_wan_to_an_undeclared_kas_is_named() -> None:
    content = raw()
    content["network"]["wan"].append({"a": 1, "b": 9})
    with pytest.raises(ScenarioError, match="1-9 names K-AS 9"):
        scenario.from_raw(content, "mine.yaml")


def test_a_wrong_name_gets_the_nearest(tmp_path) -> None:
    with pytest.raises(ScenarioError, match="did you mean 'healthcare'"):
        scenario.load("helthcare")
    with pytest.raises(ScenarioError, match="does not exist"):
        scenario.load(str(tmp_path / "none.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,\n")
    with pytest.raises(ScenarioError, match=r"broken\.yaml"):
        scenario.load(str(broken))


def test_the_resolved_scenario_reads_back_the_same(tmp_path) -> None:
    first = scenario.load("healthcare")
    file = tmp_path / "resolved.yaml"
    file.write_bytes(scenario.dump(first))
    assert scenario.load(str(file)) == first


@pytest.mark.parametrize("role", ["data", "mpvu", "model_owner"])
def test_a_network_that_cannot_do_the_job_says_who_is_missing(role: str) -> None:
    content = raw()
    for kas in content["network"]["kas"].values():
        kas.pop(role, None)
    with pytest.raises(ScenarioError, match=f"no K-AS in network.kas has a {role}"):
        scenario.from_raw(content, "mine.yaml")


def test_the_method_that_a_scenario_names_is_checked() -> None:
    found = scenario.load("healthcare")
    check_methods(found, "learned")
    wrong = msgspec.structs.replace(found, jobs=[msgspec.structs.replace(found.jobs[0], method="nonsense")])
    with pytest.raises(ExperimentError, match="no method is called 'nonsense'; there are: routed"):
        check_methods(wrong)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("alpha", 0, "scenario.data.alpha"),
        ("noise", 1.5, "scenario.data.noise"),
        ("test_share", 1.0, "scenario.data.test_share"),
        ("epsilon", 0.0, "scenario.data.epsilon"),
        ("train_per_node", 0, "scenario.data.train_per_node"),
        ("flip", {"h11": 2.0}, "scenario.data.flip"),
        ("flip", {"h99": 1.0}, "data.flip names 'h99', which is no data node; there are: h11, h12"),
        ("flip", {"c1": 1.0}, "data.flip names 'c1', which is no data node"),
    ],
)
def test_data_that_cannot_be_dealt_out_is_named(key: str, value: object, told: str) -> None:
    content = raw()
    content["data"][key] = value
    with pytest.raises(ScenarioError, match=re.escape(told)):
        scenario.from_raw(content, "mine.yaml")


def test_what_a_network_does_without_is_said() -> None:
    healthcare = scenario.load("healthcare")
    assert lacking(scenario.network_plan(healthcare), asks=True) == []
    kas = {1: KasSpec(data=1, mpvu=1, model_owner=1)}
    bare = scenario.network_plan(msgspec.structs.replace(healthcare, network=NetworkSpec(kas=kas)))
    said = ["one K-AS", r"1 data node\(s\)", "one mpvu", "no mdfp"]
    assert all(re.search(word, note) for word, note in zip(said, lacking(bare, asks=True), strict=True))


def test_a_network_file_without_its_class_is_named_as_it_was_said() -> None:
    with pytest.raises(ScenarioError, match=r"topology 'mine.py': give file.py:Class"):
        scenario.with_topo(scenario.load("healthcare"), "mine.py")
