"""The pages of docs/ that come from the code are those of this code, and the schema says what the reader takes."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.oam.metrics import METRICS
from experiments.commands.reference import DOCS, PAGES, cli_text, metrics_text, write
from experiments.scenarios.built_in import FOLDER as SCENARIO_FOLDER
from experiments.scenarios.built_in import names
from experiments.scenarios.schema import scenario_schema


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), f"docs/{name} is old: run `make docs`"


def test_only_what_is_old_is_written(tmp_path: Path) -> None:
    assert {file.name for file in write(tmp_path)} == set(PAGES)
    (tmp_path / "cli.md").write_text("old")
    assert [file.name for file in write(tmp_path)] == ["cli.md"]


def test_every_command_and_every_metric_has_its_place() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "experiments.cli", "--help"], capture_output=True, text=True, timeout=30
    )
    commands = [line.split("`")[1] for line in cli_text().splitlines() if line.startswith("## `")]
    assert len(commands) > 15 and all(command.split()[1] in shown.stdout for command in commands)
    assert all(f"`{metric.name}`" in metrics_text() for metric in METRICS)


def faults(value: Any, schema: dict[str, Any], where: str = "$") -> list[str]:
    """What of ``value`` a schema of the kinds that ours has refuses; each fault named by its place."""
    if "$ref" in schema:
        return faults(value, scenario_schema()["$defs"][schema["$ref"].rpartition("/")[2]], where)
    if "anyOf" in schema:
        tried = [faults(value, way, where) for way in schema["anyOf"]]
        return [] if [] in tried else tried[0]
    if "enum" in schema:
        return [] if value in schema["enum"] else [where]
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "integer": (int,),
        "number": (int, float), "null": (type(None),),
    }  # fmt: skip
    if "type" in schema:
        right = isinstance(value, kinds[schema["type"]]) and (schema["type"] == "boolean") == isinstance(value, bool)
        if not right:
            return [where]
    if isinstance(value, (int, float)) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return [where]
    found: list[str] = []
    if isinstance(value, list):
        for at, item in enumerate(value):
            found += faults(item, schema.get("items", {}), f"{where}[{at}]")
    if isinstance(value, dict):
        found += [f"{where}.{key}" for key in schema.get("required", []) if key not in value]
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties", True))
            found += (
                [f"{where}.{key}"] if inner is False else faults(item, {} if inner is True else inner, f"{where}.{key}")
            )
    return found


@pytest.mark.parametrize("name", names())
def test_the_schema_takes_what_we_ship(name: str) -> None:
    raw = json.loads(json.dumps(yaml.safe_load((SCENARIO_FOLDER / f"{name}.yaml").read_text())))
    assert faults(raw, scenario_schema()) == []


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [((), "sede", 1), (("network",), "wann", []), (("jobs", 0), "broad_accuracy", "high"), ((), "seeds", 0)],
)
def test_the_schema_refuses_what_the_reader_refuses(place: tuple[Any, ...], key: str, value: Any) -> None:
    raw = json.loads(json.dumps(yaml.safe_load((SCENARIO_FOLDER / "healthcare.yaml").read_text())))
    spot = changed = copy.deepcopy(raw)
    for step in place:
        spot = spot[step]
    spot[key] = value
    assert len(faults(changed, scenario_schema())) == 1


def test_daitn_schema_prints_the_file() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", "schema"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0 and done.stdout == (DOCS / "scenario.schema.json").read_text()
