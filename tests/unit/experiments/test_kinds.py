"""The kinds of K-AS as a scenario says them: checked, told, and handed to each control centre."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller.errors import ControllerError
from controller.oam.state.run import NetworkState
from controller.placement.kinds import Housing, KasKind, housing, read
from experiments.commands.engines import with_words
from experiments.errors import ScenarioError
from experiments.scenarios import scenario
from experiments.scenarios.kinds import all_kinds, summary
from experiments.testbed.control import tell_control
from hosts.errors import BadScenario
from hosts.process.config import house_file, load_house
from packets.events import Event

NON_STANDALONE = {"kind": "non_standalone", "borrows": {"tfam": [4, 1]}, "timeout_s": 1.5}
DISTRIBUTED = {"kind": "distributed"}
HIERARCHICAL = {"kind": "hierarchical", "abstract_terminals": {"at31": ["h31", "h32", "c3"]}}


def raw(kas: Any) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.yaml.decode((scenario.SCENARIO_FOLDER / "healthcare.yaml").read_bytes())
    return content | {"kas": kas}


def load(kas: Any) -> scenario.Scenario:
    return scenario.from_raw(raw(kas), "mine.yaml")


def test_every_k_as_is_centralised_unless_it_says_otherwise() -> None:
    healthcare = scenario.load("healthcare")
    kinds = all_kinds(healthcare.kas, scenario.network_plan(healthcare))
    assert summary(kinds) == "K-AS 1, 2, 3, 4 centralised"
    assert housing(healthcare.kas, 2) == Housing()


def test_kinds_are_read_and_told() -> None:
    loaded = load({2: NON_STANDALONE, 3: HIERARCHICAL, 4: {"kind": "centralised"}})
    assert loaded.kas[2] == KasKind(kind="non_standalone", borrows={"tfam": [4, 1]}, timeout_s=1.5)
    assert summary(all_kinds(loaded.kas, scenario.network_plan(loaded))) == (
        "K-AS 1, 4 centralised; K-AS 2 non-standalone (T-FAM of K-AS 4, else 1); K-AS 3 hierarchical (at31: h31 h32 c3)"
    )
    again = msgspec.yaml.decode(scenario.dump(loaded))
    assert scenario.from_raw(again, "mine.yaml").kas == loaded.kas, "the resolved scenario of a run loads again"


WRONG: list[tuple[Any, str]] = [
    ({2: {"kind": "centralized"}}, "'centralized' .*did you mean 'centralised'"),
    ({2: {"kind": "nonstandalone"}}, "did you mean 'non_standalone'"),
    ({2: {"knd": "centralised"}}, "unknown key 'knd' at kas.*did you mean 'kind'"),
    ({7: NON_STANDALONE}, r"kas\.7: the network has no K-AS 7; there are: 1, 2, 3, 4"),
    ({"two": NON_STANDALONE}, "Expected `int`"),
    ({2: {"kind": "non_standalone"}}, r"kas\.2: kind: .*say which, from whom"),
    ({2: NON_STANDALONE | {"kind": "centralised"}}, r"kas\.2: borrows: a centralised K-AS has all engines"),
    ({2: NON_STANDALONE | {"timeout_s": 0}}, "timeout_s"),
    ({2: NON_STANDALONE | {"borrows": {"tfan": [4]}}}, r"kas\.2\.borrows: .*'tfan'; did you mean 'tfam'"),
    ({2: NON_STANDALONE | {"borrows": {"gate": [4]}}}, r"kas\.2\.borrows: gate: .*not lent"),
    ({2: NON_STANDALONE | {"borrows": {"tfam": []}}}, "length >= 1"),
    ({2: NON_STANDALONE | {"borrows": {"tfam": [2, 4]}}}, r"kas\.2\.borrows\.tfam: K-AS 2 cannot lend to itself"),
    ({2: NON_STANDALONE | {"borrows": {"tfam": [9]}}}, r"kas\.2\.borrows\.tfam: the network has no K-AS 9"),
    ({2: NON_STANDALONE | {"borrows": {"tfam": [4, 4]}}}, "K-AS 4 stands there twice"),
    ({2: NON_STANDALONE, 4: NON_STANDALONE | {"borrows": {"tfam": [1]}}}, r"K-AS 4 borrows its own tfam; .*: 1, 3"),
    ({1: {"kind": "distributed", "borrows": {"mtrce": [2]}}}, r"kas\.1: borrows\.mtrce: the terminals of a dist"),
    ({1: DISTRIBUTED, 2: NON_STANDALONE | {"borrows": {"mtrce": [1]}}}, "K-AS 1 has mtrce at its terminals"),
    ({1: {"kind": "distributed", "abstract_terminals": {"a": ["h11"]}}}, "a distributed K-AS has none"),
    ({1: {"kind": "distribted"}}, "did you mean 'distributed'"),
    ({3: {"kind": "hierarchical"}}, r"kas\.3: kind: a hierarchical K-AS has abstract terminals"),
    ({3: HIERARCHICAL | {"kind": "centralised"}}, r"kas\.3: abstract_terminals: .*say `kind: hierarchical`"),
    ({3: HIERARCHICAL | {"abstract_terminals": {"h31": ["h32"]}}}, "h31: it needs a name of its own"),
    ({3: HIERARCHICAL | {"abstract_terminals": {"a b": ["h32"]}}}, "a b: it needs a name of its own"),
    ({3: HIERARCHICAL | {"abstract_terminals": {"at": ["h39"]}}}, "'h39' is no data node .*did you mean 'h3"),
    ({3: HIERARCHICAL | {"abstract_terminals": {"at": ["h31", "mdfp3"]}}}, "'mdfp3' is no data node"),
    ({3: HIERARCHICAL | {"abstract_terminals": {"at": ["h31"], "b": ["h31"]}}}, "'h31' is in at already"),
    ({3: HIERARCHICAL | {"abstract_terminals": {"at": ["c3"]}}}, "none of its terminals is a data node"),
]  # fmt: skip


@pytest.mark.parametrize(("kas", "why"), WRONG)
def test_what_cannot_be_is_named_in_one_line(kas: Any, why: str) -> None:
    with pytest.raises(ScenarioError, match=why) as caught:
        load(kas)
    assert "mine.yaml" in str(caught.value) and "kas" in str(caught.value) and "\n" not in str(caught.value)


def test_a_distributed_k_as_runs_the_default_mtrce_at_its_terminals() -> None:
    content = raw({1: {"kind": "distributed"}})
    assert scenario.from_raw(content, "mine.yaml").kas[1].kind == "distributed"
    with pytest.raises(ScenarioError, match=r"mine\.yaml: kas\.1: its terminals run the default mtrce"):
        scenario.from_raw(content | {"engines": {"mtrce": "mine.py:plan"}}, "mine.yaml")
    wanted = scenario.load("healthcare")
    wanted = msgspec.structs.replace(wanted, kas={2: KasKind(kind="distributed")})
    with pytest.raises(ScenarioError, match=r"kas\.2: its terminals run the default mtrce"):
        with_words(wanted, ["mtrce=mine.py:plan"])


def test_the_terminals_of_a_distributed_k_as_and_its_control_centre_share_a_secret_and_nobody_else_does(
    tmp_path: Path,
) -> None:
    loaded = load({1: {"kind": "distributed"}})
    plan = scenario.network_plan(loaded)
    for kas in plan.kas_numbers:
        told = tell_control(tmp_path, loaded, plan, kas, 7)
        assert read(Path(str(told["--kind"]))).kind == loaded.kas.get(kas, KasKind())
    house = load_house(house_file(tmp_path, 1))
    assert house is not None and house.salt == read(tmp_path / "kind1.json").salt and house.plan == plan.domain(1)
    assert load_house(house_file(tmp_path, 2)) is None and read(tmp_path / "kind2.json").salt == b""
    assert house_file(tmp_path, 1).stat().st_mode & 0o077 == 0
    house_file(tmp_path, 1).write_text("{}")
    with pytest.raises(BadScenario, match=r"house1\.json"):
        load_house(house_file(tmp_path, 1))


def test_a_lender_is_told_to_whom_it_lends_what(tmp_path: Path) -> None:
    kinds = load({2: NON_STANDALONE, 3: {"kind": "non_standalone", "borrows": {"tfam": [1], "tag": [4]}}}).kas
    lender = housing(kinds, 4)
    assert (lender.kind, lender.lends) == (KasKind(), {"tfam": [2], "tag": [3]})
    assert housing(kinds, 1).lends == {"tfam": [2, 3]}
    assert (housing(kinds, 2).kind, housing(kinds, 2).lends) == (kinds[2], {})
    file = tmp_path / "kind.json"
    file.write_bytes(msgspec.json.encode(lender))
    assert read(file) == lender and read(None) == Housing()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"kind": {"kind": "odd"}}', '{"lend": {}}', '{"lends": {"tfan": [1]}}', '{"lends": {"tag": [0]}}'],
)
def test_a_kind_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kind.json"
    file.write_text(text)
    with pytest.raises(ControllerError) as caught:
        read(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(ControllerError, match=r"--kind .*none\.json"):
        read(tmp_path / "none.json")


def test_the_page_is_told_the_kind_of_each_k_as() -> None:
    state = NetworkState()
    plan = {"name": "n", "switches": [{"name": "k1g", "kas": 1, "dpid": 1}], "hosts": [], "links": []}

    def up(kinds: Any) -> None:
        state.apply(Event(kind="network.up", source="main", t_unix_s=1.0, data={"plan": plan, "kinds": kinds}))

    up({"1": "hierarchical"})
    assert state.section("kas")["1"]["kind"] == "hierarchical"
    for odd in ("x", 3, {"": "x"}, {"k": "x"}):
        up(odd)
    assert set(state.section("kas")) == {"1"} and state.section("kas")["1"]["kind"] == "hierarchical"
