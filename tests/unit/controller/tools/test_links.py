"""The control links of the tools layer are narrow: no other layer reaches past them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.tools.communication import Communication
from controller.tools.links import LINKS
from controller.tools.location import Location
from controller.tools.process import Processes
from controller.tools.sensing import Sensing

CONTROLLER = Path(__file__).parents[4] / "controller"
MANAGERS = {"communication": Communication, "location": Location, "sensing": Sensing, "processes": Processes}
WIRING = {"tell"}  # handed in when a control centre is put together, not asked for


def names_of(link: type) -> set[str]:
    return {n for n in (*vars(link), *link.__annotations__) if not n.startswith("_")}


def asked() -> Iterator[tuple[str, str, str]]:
    """Yield (file, manager, name) wherever a layer above reaches for a manager."""
    for path in sorted(CONTROLLER.rglob("*.py")):
        if "tools" in path.parts or "__pycache__" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr in LINKS:
                yield path.name, node.value.attr, node.attr


def test_nobody_reaches_past_a_control_link() -> None:
    uses = list(asked())
    assert {manager for _, manager, _ in uses} == set(LINKS), "every manager is in use"
    past = [use for use in uses if use[2] not in names_of(LINKS[use[1]]) | WIRING]
    assert not past


@pytest.mark.parametrize("manager", sorted(LINKS))
def test_every_manager_has_what_its_link_promises(manager: str) -> None:
    kind = MANAGERS[manager]
    source = ast.parse((CONTROLLER / "tools" / f"{kind.__module__.rsplit('.', 1)[1]}.py").read_text())
    own = {n.attr for n in ast.walk(source) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}
    assert [n for n in names_of(LINKS[manager]) if not hasattr(kind, n) and n not in own] == []
