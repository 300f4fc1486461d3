"""Metrics of one's own in a scenario: found from where it lies, checked at once, told to all whom they concern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from experiments.commands.engines import try_metrics
from experiments.errors import ExperimentError, ScenarioError
from experiments.scenarios import scenario
from experiments.scenarios.scenario import engine_setup, from_raw
from hosts.process.config import load_scenario

ROOT = Path(__file__).parents[3]
WATTS = {"source": "mine.py:power", "category": "computing", "best": 20, "worst": 200}


def raw(cats: dict[str, Any]) -> dict[str, Any]:
    content = msgspec.yaml.decode((scenario.SCENARIO_FOLDER / "healthcare.yaml").read_bytes())
    return dict(content) | {"cats": cats}


@pytest.fixture
def where(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text("WATTS = 61.5\n\ndef power(about):\n    return WATTS\n")
    (tmp_path / "bad.py").write_text("\nimport nothing_of_that_name\n")
    return str(tmp_path / "scenario.yaml")


def test_control_centres_and_terminals_are_told_of_it(where: str, tmp_path: Path) -> None:
    found = from_raw(raw({"power_w": WATTS}), where)
    source = f"{tmp_path / 'mine.py'}:power"
    assert found.cats["power_w"].source == source and found.cats["power_w"].weight == 1.0
    setup = engine_setup(found)
    assert setup.cats == found.cats and setup.own == []
    file = tmp_path / "agents.json"
    told = {"task": {}, "nodes": [], "metrics": msgspec.to_builtins(found.cats)}
    file.write_bytes(msgspec.json.encode(told))
    assert load_scenario(file).metrics == found.cats


def test_the_template_is_one() -> None:
    path = ROOT / "examples/qirce_cool.py"
    assert from_raw(raw({"power_w": WATTS | {"source": f"{path}:power"}}), "here.yaml").cats


def test_check_asks_it_once(where: str, tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    try_metrics(from_raw(raw({"power_w": WATTS}), where), console)
    assert "metric power_w: 61.5" in console.export_text()
    (tmp_path / "mine.py").write_text("def power(about):\n    return about['watts']\n")
    with pytest.raises(ExperimentError, match=r"metric power_w: KeyError: 'watts' \(mine.py, line 2\)$"):
        try_metrics(from_raw(raw({"power_w": WATTS}), where), console)
    try_metrics(from_raw(raw({}), where), console)


@pytest.mark.parametrize(
    ("cats", "words"),
    [
        ({"power_w": WATTS | {"worse": 1}}, "'worse' at cats.power_w; did you mean 'worst'"),
        ({"power_w": {"source": "mine.py:power"}}, "`category`"),
        ({"power_w": WATTS | {"category": "warmth"}}, "warmth"),
        ({"power_w": WATTS | {"weight": 0}}, "> 0"),
        ({"power_w": WATTS | {"best": "low"}}, "best"),
        ({"power_w": WATTS | {"worst": float("nan")}}, "worst"),
        ({"power_w": WATTS | {"worst": 20}}, "metric power_w: best and worst are both 20"),
        ({"Power": WATTS}, "metric Power: a name is 1 to 32 small letters"),
        ({"p" * 33: WATTS}, "a name is 1 to 32 small letters"),
        ({"service_ms": WATTS}, "every model has a metric of that name"),
        ({"power_w": WATTS | {"source": "mine.py"}}, "give file.py:function"),
        ({"power_w": WATTS | {"source": "none.py:power"}}, "there is no file"),
        ({"power_w": WATTS | {"source": "mine.py:watts"}}, "has no function 'watts'"),
        ({"power_w": WATTS | {"source": "mine.py:WATTS"}}, "has no function 'WATTS'"),
        ({"power_w": WATTS | {"source": "bad.py:power"}}, "nothing_of_that_name' (bad.py, line 2)"),
        ({f"m{n}": WATTS for n in range(9)}, "cats"),
    ],
)
def test_one_that_cannot_be_is_named(where: str, cats: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        from_raw(raw(cats), where)
    assert words in str(caught.value) and "\n" not in str(caught.value), caught.value


def test_somebody_must_report_it(where: str) -> None:
    content = raw({"power_w": WATTS})
    for kas in content["network"]["kas"].values():
        kas.pop("mdfp", None)
    with pytest.raises(ScenarioError, match="cats: no K-AS has an mdfp"):
        from_raw(content, where)
