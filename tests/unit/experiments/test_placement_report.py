"""The picture of where models served: what events say of it, and that it is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.commands.explain import read_events
from experiments.report import placement_plot
from experiments.report.placement import KINDS, placement
from packets.events import Event, encode_event
from tests.fake_fabric import small_plan

PLAN = small_plan()  # an MDFP in K-AS 1 and 3, an asker in K-AS 4
OLD, NEW, THIRD = 0x500_0000_0110_0001, 0x500_0000_0130_0002, 0x500_0000_0110_0003
MASK = 0xFFF_FFFF
BEGIN_S = 1000.0


def event(kind: str, at_s: float, **data: Any) -> Event:
    return Event(kind=kind, source="x", t_unix_s=BEGIN_S + at_s, data=data)


def deployed(at_s: float, node: str, object_id: int, task: str = "vignettes") -> Event:
    return event("model.deployed", at_s, node=node, object_id=object_id, task=task, accuracy={})


def second(at_s: int, asked: int, node: str = "asker4") -> Event:
    return event("load.second", at_s, node=node, asked=asked)


def story() -> list[Event]:
    """A model at K-AS 1 is copied to where it is asked for, mdfp1 is out for a while, and then the copy goes."""
    told = {"label": OLD & MASK, "new_label": NEW & MASK, "reason": "asked for there"}
    return [
        deployed(-5.0, "mdfp1", OLD),
        *(second(n, 10 * n) for n in range(1, 11)),
        deployed(3.5, "mdfp3", NEW),
        event("model.copied", 3.6, **told),
        event("model.out", 5.0, node="mdfp1", reason="silent"),
        event("model.back", 6.5, node="mdfp1"),
        event("model.scaled", 9.0, label=NEW & MASK, reason="nobody asks"),
        event("model.retired", 9.75, label=NEW & MASK, node="mdfp3"),
    ]


def test_bars_say_where_models_served_how_they_came_and_went() -> None:
    found = placement(story(), PLAN)
    assert found is not None
    assert found["rows"] == [{"kas": 1, "node": "mdfp1"}, {"kas": 3, "node": "mdfp3"}] and found["end_s"] == 10.0
    first, copy = found["bars"]
    assert (first["node"], first["from_s"], first["to_s"], first["came"], first["went"]) == (
        "mdfp1", 0.0, 10.0, "deployed", "",
    )  # fmt: skip
    assert (copy["node"], copy["from_s"], copy["to_s"], copy["came"], copy["came_from"], copy["went"]) == (
        "mdfp3", 3.5, 9.75, "copied", "mdfp1", "scaled",
    )  # fmt: skip
    assert (copy["came_why"], copy["went_why"]) == ("asked for there", "nobody asks")
    assert found["outs"] == [{"node": "mdfp1", "from_s": 5.0, "to_s": 6.5}]
    assert found["asked_by_kas"] == {"4": [10.0 * n for n in range(1, 11)]}


def test_it_is_the_same_from_a_runs_folder(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"".join(encode_event(e) + b"\n" for e in story()))
    assert placement(read_events(tmp_path, KINDS), PLAN) == placement(story(), PLAN)


@pytest.mark.parametrize(
    ("end", "went"),
    [
        (deployed(4.0, "mdfp1", THIRD), "replaced"),
        (event("agent.gone", 4.0, name="mdfp1"), "gone"),
        (event("model.retired", 4.0, label=OLD & MASK, node="mdfp1"), "retired"),
    ],
)
def test_a_bar_ends_with_its_model(end: Event, went: str) -> None:
    found = placement([deployed(1.0, "mdfp1", OLD), second(1, 5), end, second(9, 5)], PLAN)
    assert found is not None
    assert (found["bars"][0]["to_s"], found["bars"][0]["went"]) == (4.0, went)
    assert len(found["bars"]) == (2 if went == "replaced" else 1)


def test_another_variant_beside_it_takes_no_place() -> None:
    told = [second(1, 5), deployed(1.0, "mdfp1", OLD), deployed(2.0, "mdfp1", THIRD, "vignettes/cheap"), second(9, 5)]
    found = placement(told, PLAN)
    assert found is not None and [(b["from_s"], b["to_s"]) for b in found["bars"]] == [(1.0, 9.0), (2.0, 9.0)]
    assert ">vignettes/cheap<" in placement_plot.draw(found), "each has a lane, and its name"


def test_a_move_marks_both_ends() -> None:
    told = story()[:3]
    told += [deployed(3.5, "mdfp3", NEW), event("model.moved", 3.6, label=OLD & MASK, new_label=NEW & MASK, reason="r")]
    told += [event("model.retired", 4.6, label=OLD & MASK, node="mdfp1"), second(9, 5)]
    found = placement(told, PLAN)
    assert found is not None and [(b["came"], b["went"]) for b in found["bars"]] == [
        ("deployed", "moved"),
        ("moved", ""),
    ]


def test_of_no_load_there_is_no_picture() -> None:
    assert placement([deployed(1.0, "mdfp1", OLD)], PLAN) is None


def test_odd_events_cost_nothing() -> None:
    odd = [event(kind, 1.0) for kind in KINDS] + [event("model.moved", 1.0, label=[], new_label={}), second(2, 1)]
    found = placement([*odd, *story()], PLAN)
    assert found is not None and len([b for b in found["bars"] if b["node"] in ("mdfp1", "mdfp3")]) == 2
    assert placement_plot.draw(found).startswith("<svg")


def test_it_is_drawn_with_what_its_marks_mean() -> None:
    found = placement(story(), PLAN)
    assert found is not None
    text = placement_plot.draw(found)
    for words in ("K-AS 1 · mdfp1", "K-AS 3 · mdfp3", "copied", "scaled down", "out", "asked from", "K-AS 4"):
        assert f">{words}<" in text, words
    assert ">moved<" not in text and "terminal gone" not in text
