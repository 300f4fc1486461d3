"""Engines of one's own on the command line and in scenarios: parsed, found, tried out, compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from controller.plugins.contracts import CONTRACTS
from experiments.commands.engines import check_engines, parse, recorded, say_engines, try_engines, with_words
from experiments.comparing.command import engines_side_by_side, make_plan
from experiments.comparing.runs import Comparison
from experiments.errors import ExperimentError
from experiments.scenarios.scenario import Scenario, engine_setup, from_raw, load

TEMPLATE = Path(__file__).parents[3] / "examples/mtrce_nearest.py"


def scenario(*words: str) -> Scenario:
    return with_words(load("healthcare"), words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mtrce"], "give ENGINE=SOURCE"),
        (["mtrce="], "give ENGINE=SOURCE"),
        (["mtrec=x.py:f"], "did you mean 'mtrce'"),
        (["gate=a.py:f", "gate=b.py:f"], "was given already"),
    ],
)
def test_a_wrong_engine_word_is_one_line(words: list[str], said: str) -> None:
    with pytest.raises(ExperimentError, match=said):
        parse(words)


def test_a_scenario_names_engines_for_all_and_for_a_job(tmp_path: Path) -> None:
    import msgspec

    raw = msgspec.yaml.decode((Path(__file__).parents[3] / "experiments/scenarios/healthcare.yaml").read_bytes())
    raw["engines"] = {"mtrce": "mine.py:plan"}
    raw["jobs"][0]["engines"] = {"mtrce": "default", "gate": "theirs.py:judge"}
    found = from_raw(raw, str(tmp_path / "scenario.yaml"))
    setup = engine_setup(found)
    assert setup.use == {"mtrce": f"{tmp_path / 'mine.py'}:plan"}
    assert setup.own == [("mtrce", f"{tmp_path / 'mine.py'}:plan"), ("gate", f"{tmp_path / 'theirs.py'}:judge")]
    raw["engines"] = {"mtrec": "mine.py:plan"}
    with pytest.raises(ExperimentError, match=r"scenario here\.yaml: engines: no engine is called 'mtrec'"):
        from_raw(raw, "here.yaml")


def test_the_recorded_requests_are_answered_by_the_defaults() -> None:
    asked = recorded()
    assert set(asked) == set(CONTRACTS) and all(asked.values())
    for name, contract in CONTRACTS.items():
        for arguments in asked[name]:
            assert contract.fault(arguments, contract.of_default(*arguments)) == ""


def test_check_tries_an_engine_on_what_was_asked_in_a_run(tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    try_engines(scenario(f"mtrce={TEMPLATE}:plan"), console)
    assert "recorded requests answered, twice alike" in console.export_text()
    dice = tmp_path / "dice.py"
    dice.write_text(
        "import os\ndef plan(request, view, options, load):\n"
        "    return sorted((o.handle for o in options), key=lambda h: os.urandom(4))\n"
    )
    with pytest.raises(ExperimentError, match="the same request twice, two answers"):
        try_engines(scenario(f"mtrce={dice}:plan"), console)
    with pytest.raises(ExperimentError, match="there is no file"):
        check_engines(scenario("mtrce=nowhere.py:plan"))


def test_engines_are_listed_with_contract_and_source() -> None:
    console = Console(record=True, width=300)
    say_engines(console)
    text = console.export_text()
    assert all(c.signature in text and c.source in text for c in CONTRACTS.values())


def test_engines_side_by_side_are_runs_with_labels(tmp_path: Path) -> None:
    sides = engines_side_by_side(f"mtrce=default,{TEMPLATE}:plan")
    assert sides == {"mtrce=default": "mtrce=default", "mtrce=mtrce_nearest.py:plan": f"mtrce={TEMPLATE}:plan"}
    plan = make_plan("healthcare", "", range(2), engine=f"mtrce=default,{TEMPLATE}:plan", out=tmp_path)
    assert [plan.method(label) for label in plan.methods] == ["routed", "routed"]
    folder = Comparison(plan, print).folder("mtrce=mtrce_nearest.py:plan", 1)
    assert folder.name == "seed-001-mtrce-mtrce_nearest.py-plan"
    with pytest.raises(ExperimentError, match="two different sources"):
        engines_side_by_side("mtrce=default")
    with pytest.raises(ExperimentError, match="give one of them"):
        make_plan("healthcare", "random", range(2), engine="mtrce=default,x.py:f")
