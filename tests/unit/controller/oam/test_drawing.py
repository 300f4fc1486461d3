"""The map on the page: as JSON, and as a drawing that parses and shows who is trusted and who is gone."""

from __future__ import annotations

from xml.etree import ElementTree

import msgspec

from controller.oam.page import create_app
from controller.oam.state.run import NetworkState
from packets.events import Event
from topologies.fig3 import PLAN

LOCAL = {"Host": "127.0.0.1"}


def state() -> NetworkState:
    shown = NetworkState()
    told = [
        ("network.up", {"plan": msgspec.to_builtins(PLAN)}),
        ("krrm.updated", {"name": "h11", "kas": 1, "attributes": {"trust": 0.4, "samples": 1500}}),
        ("agent.gone", {"name": "h12"}),
        ("map.fresh", {"kas": [1], "terminals": 6, "telemetry_bytes_per_s": 700.0, "p50_ms": 0.7, "p99_ms": 4.0}),
    ]
    for number, (kind, data) in enumerate(told, 1):
        shown.apply(Event(kind=kind, source="dcc1", t_unix_s=float(number), data=data, id=number))
    return shown


def test_the_drawing_has_every_node_and_link() -> None:
    answer = create_app(state()).test_client().get("/map.svg", headers=LOCAL)
    assert answer.mimetype == "image/svg+xml"
    root = ElementTree.fromstring(answer.text)
    space = "{http://www.w3.org/2000/svg}"
    labels = [e.text for e in root.iter(f"{space}text")]
    assert len(labels) == len(PLAN.hosts) + len(PLAN.switches) and "h11 0.40" in labels
    assert len(list(root.iter(f"{space}line"))) == len(PLAN.links)
    faded = [e.text for e in root.iter(f"{space}text") if e.get("opacity")]
    assert faded == ["h12"]


def test_an_empty_network_is_an_empty_drawing() -> None:
    root = ElementTree.fromstring(create_app(NetworkState()).test_client().get("/map.svg", headers=LOCAL).text)
    assert len(root) == 0


def test_the_map_says_what_is_known_and_what_it_costs() -> None:
    found = create_app(state()).test_client().get("/api/map", headers=LOCAL).get_json()
    assert found["terminals"]["h11"]["attributes"]["trust"] == 0.4
    assert found["kas"]["1"]["fresh"] == {"terminals": 6, "telemetry_bytes_per_s": 700, "p50_ms": 0.7, "p99_ms": 4}
