"""Data by path: what kind of file it is, which job fits it, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.commands.resolving import resolve, resolve_without_data
from experiments.errors import ExperimentError
from experiments.scenarios.scenario import SCENARIO_FOLDER
from hosts.learning.errors import LearningError


def csv(path: Path, rows: int = 60) -> Path:
    path.write_text("weight,colour,label\n" + "".join(f"{i % 7}.5,{'rgb'[i % 3]},{'yn'[i % 2]}\n" for i in range(rows)))
    return path


def test_a_table_is_a_table(tmp_path: Path) -> None:
    scenario = resolve("table", data=csv(tmp_path / "x.csv"))
    assert scenario.data.name == "table" and {job.task for job in scenario.jobs} == {"table"}


def test_prose_is_text(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(
        "".join(json.dumps({"note": f"patient {i} feels very well", "label": "ab"[i % 2]}) + "\n" for i in range(60))
    )
    scenario = resolve("table", data=file)
    assert scenario.data.name == "text" and {job.task for job in scenario.jobs} == {"text"}


def test_a_table_without_its_label_column_names_what_it_has(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(LearningError, match=r"no label column.*a, b"):
        resolve("table", data=file)


def test_a_missing_file_and_a_label_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="does not exist"):
        resolve("table", data=tmp_path / "none.csv")
    with pytest.raises(ExperimentError, match="--label"):
        resolve("healthcare", label="x")
    with pytest.raises(ExperimentError, match="--data PATH"):
        resolve("heart")


def test_an_expert_group_that_the_data_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"'cardiology' is not in the data; its groups are: n, y"):
        resolve("healthcare", data=csv(tmp_path / "x.csv"))


def test_a_misspelt_department_is_told_before_anything_is_made(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = (SCENARIO_FOLDER / "healthcare.yaml").read_text()
    file.write_text(text.replace("expert_group: cardiology", "expert_group: cardiolgy"))
    with pytest.raises(ExperimentError, match="'cardiolgy' is not in the data; did you mean 'cardiology'"):
        resolve_without_data(str(file))
