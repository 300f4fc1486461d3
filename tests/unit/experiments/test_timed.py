"""Timed events: read, checked, and in their order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from experiments.errors import RunFailed, ScenarioError
from experiments.scenarios.events import TimedEvent, Timeline, late
from experiments.scenarios.scenario import from_raw, load, network_plan
from tests.helpers import wait_until


def healthcare(**changes: Any) -> dict[str, Any]:
    raw: dict[str, Any] = msgspec.to_builtins(load("healthcare"))
    return raw | changes


def test_events_are_part_of_a_scenario() -> None:
    raw = healthcare(events=[{"at_s": 3, "do": "collect", "node": "h11", "count": 300, "group": "cardiology"}])
    assert from_raw(raw, "test").events == [TimedEvent(at_s=3, do="collect", node="h11", count=300, group="cardiology")]


@pytest.mark.parametrize(
    "event, why",
    [
        (
            {"at_s": 3, "do": "crash", "node": "h99"},
            "event crash names h99, which is no terminal or switch",
        ),
        ({"at_s": 3, "do": "collect", "node": "mpvu2"}, "mpvu2 is no data node"),
        ({"at_s": -1, "do": "crash", "node": "h11"}, "at_s"),
        ({"at_s": 3, "do": "dance", "node": "h11"}, "dance"),
        ({"at_s": 3, "do": "crash", "nod": "h11"}, "did you mean 'node'"),
    ],
)
def test_what_is_wrong_with_an_event_is_named(event: dict[str, Any], why: str) -> None:
    with pytest.raises(ScenarioError, match=why):
        from_raw(healthcare(events=[event]), "test")


def test_who_joins_first_is_not_there_from_the_start() -> None:
    events = [
        TimedEvent(at_s=9, do="join", node="h11"),
        TimedEvent(at_s=2, do="leave", node="h11"),
        TimedEvent(at_s=1, do="join", node="h12"),
    ]
    assert late(events) == {"h12"}


class Bed:
    """Takes down what would be done; ``h13`` refuses."""

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []
        self.events: list[Any] = []
        self.hub = self
        self.plan = network_plan(load("healthcare"))

    def emit(self, kind: str, /, **data: Any) -> None:
        if kind == "warning":
            self.done.append((kind, data["text"]))

    def tell(self, name: str, op: str, timeout_s: float = 30.0, **arguments: Any) -> dict[str, Any]:
        if name == "h13":
            raise RunFailed("gone")
        self.done.append((op, name))
        return {}

    def start_agent(self, name: str) -> None:
        self.done.append(("join", name))

    def hand_over(self, event: TimedEvent) -> bool:
        if event.link:
            self.done.append(("elsewhere", event.link))
        return bool(event.link)


def test_events_happen_in_the_order_of_their_time_and_a_failure_is_told() -> None:
    bed = Bed()
    events = [
        TimedEvent(at_s=0.2, do="join", node="h21"),
        TimedEvent(at_s=0.0, do="collect", node="h11"),
        TimedEvent(at_s=0.05, do="leave", node="h13"),
        TimedEvent(at_s=0.1, do="crash", node="h14"),
        TimedEvent(at_s=0.15, do="down", link="k1g-k2g"),
    ]
    with Timeline(bed, events):  # type: ignore[arg-type]
        wait_until(lambda: len(bed.done) == 5, 5, "all events")
    assert bed.done == [
        ("collect", "h11"),
        ("warning", "leave of h13 failed: gone"),
        ("warning", "crash of h14 failed: h14 has no process to kill"),
        ("elsewhere", "k1g-k2g"),
        ("join", "h21"),
    ]


def test_the_end_of_training_ends_the_timeline() -> None:
    bed = Bed()
    with Timeline(bed, [TimedEvent(at_s=60, do="join", node="h21")]):  # type: ignore[arg-type]
        pass
    assert not bed.done
