"""The JSON schema of a scenario file, for editors that check YAML as it is typed."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from experiments.scenarios.scenario import Scenario

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def scenario_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a scenario file, made from the structs that read it."""
    schema = msgspec.json.schema(Scenario)
    for part in schema["$defs"].values():
        if "description" in part:
            part["description"] = " ".join(part["description"].replace("``", "`").split())
    return {"$schema": DIALECT, "title": "DA-ITN scenario", **_plain(schema)}


def _plain(value: Any) -> Any:
    """Write whole bounds as whole numbers: ``typing`` takes 0 and 0.0 for one, and keeps whichever came first."""
    if isinstance(value, dict):
        bounds = {k: int(v) for k, v in value.items() if "imum" in k and isinstance(v, float) and v.is_integer()}
        return {key: bounds.get(key, _plain(part)) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def schema_text() -> str:
    """Return the scenario's JSON schema as text."""
    return json.dumps(scenario_schema(), indent=2) + "\n"
