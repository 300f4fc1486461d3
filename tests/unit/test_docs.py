"""README and docs/ say what is so: links lead somewhere, commands have their options, YAML is part of a scenario."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main
import yaml

from experiments.cli import app
from experiments.scenarios.scenario import from_raw
from topologies.own.topo import Topo

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples/README.md"]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(*kinds: str) -> Iterator[Any]:
    for page in PAGES:
        for found in re.finditer(r"^```(\w+)\n(.*?)^```", page.read_text(), re.M | re.S):
            if found[1] in kinds:
                yield pytest.param(found[2], id=f"{page.name}:{page.read_text()[: found.start()].count(chr(10)) + 1}")


def daitn_lines() -> Iterator[Any]:
    for page in PAGES:
        for line in re.findall(r"^(?:\.venv/bin/)?daitn .*", page.read_text(), re.M):
            yield pytest.param(line.partition("  #")[0], id=f"{page.name}:{line[:50]}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_the_readme_is_one_read() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("line", list(daitn_lines()))
def test_a_command_has_the_options_it_is_shown_with(line: str) -> None:
    _, name, *words = shlex.split(line)
    assert name in COMMANDS or name.startswith("-"), line
    if name not in COMMANDS:
        return
    known = {o for p in COMMANDS[name].params for o in (*p.opts, *p.secondary_opts)}
    assert {w.partition("=")[0] for w in words if w.startswith("-")} <= known | {"--help"}


@pytest.mark.parametrize("text", list(blocks("yaml")))
def test_yaml_is_part_of_a_scenario(text: str, tmp_path: Path) -> None:
    raw = msgspec.yaml.decode((ROOT / "experiments/scenarios/healthcare.yaml").read_bytes())
    said = yaml.safe_load(text)
    if "topohub" in text:
        pytest.importorskip("topohub", reason="the optional package topohub is not installed")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "mine.py").write_text("def power(about): ...")
    from_raw(raw | said, str(tmp_path / "scenario.yaml"))


@pytest.mark.parametrize("text", list(blocks("python")))
def test_python_runs(text: str) -> None:
    ast.parse(text)
    space: dict[str, Any] = {}
    exec(compile(text, "docs", "exec"), space)
    for kind in [k for k in space.values() if isinstance(k, type) and issubclass(k, Topo) and k is not Topo]:
        assert kind().plan.hosts
