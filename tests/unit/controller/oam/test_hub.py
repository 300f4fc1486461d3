"""The collector: every event numbered, logged and handed on; whatever is lost is counted."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.oam.errors import CollectorError
from controller.oam.hub import EventHub
from packets.events import Emitter, Event, decode_event
from tests.helpers import wait_until


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[EventHub]:
    with EventHub(tmp_path / "events.sock", tmp_path / "events.jsonl") as hub:
        yield hub


def test_events_of_all_sources_are_numbered_logged_and_handed_on(hub: EventHub, tmp_path: Path) -> None:
    inbox = hub.subscribe()
    emit = Emitter("h11", str(tmp_path / "events.sock"))
    emit("agent.ready", name="h11")
    assert inbox.get(5) is not None
    hub.emit("run.phase", phase="up", state="start")
    hub.close()
    logged = [decode_event(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]
    assert [(e.id, e.source, e.kind) for e in logged] == [(1, "h11", "agent.ready"), (2, "main", "run.phase")]
    assert not (tmp_path / "events.sock").exists()


def test_close_takes_what_the_socket_still_holds(hub: EventHub, tmp_path: Path) -> None:
    emit = Emitter("dcc1", str(tmp_path / "events.sock"))
    for n in range(300):
        emit("packet.in", kas=1, n=n)
    hub.close()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    lost = json.loads(lines[-1])["data"].get("dropped_before", 0) if lines else 300
    assert hub.received == len(lines)
    assert hub.received + hub.dropped_upstream + emit.dropped >= 300 and lost >= 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have longer queues than the system's default")
def test_a_burst_of_thousands_is_taken_whole(hub: EventHub, tmp_path: Path) -> None:
    emit = Emitter("dcc1", str(tmp_path / "events.sock"))
    for n in range(2000):
        emit("packet.in", kas=1, n=n)
    hub.close()
    assert (hub.received, emit.dropped, hub.dropped_upstream) == (2000, 0, 0)


@pytest.mark.parametrize(
    "junk", [b"", b"{", b"\xff\xfe", b"[]", b'{"kind":1}', b'{"kind":"a","source":"b","t_unix_s":1,"v":9}', b"[" * 9000]
)
def test_malformed_datagrams_are_counted_and_end_nothing(hub: EventHub, tmp_path: Path, junk: bytes) -> None:
    inbox = hub.subscribe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(junk, str(tmp_path / "events.sock"))
    hub.emit("warning", text="still here")
    wait_until(lambda: hub.malformed == 1, 5)
    event = inbox.get(5)
    assert event is not None and event.kind == "warning" and event.id == 1


def test_a_listener_that_sleeps_drops_its_own_events_only(hub: EventHub) -> None:
    slow, fast = hub.subscribe("slow", limit=3), hub.subscribe("fast")
    for n in range(10):
        hub.emit("packet.in", n=n)
    got = [fast.get(5) for _ in range(10)]
    assert [e.data["n"] for e in got if e] == list(range(10))
    assert slow.dropped == 7 and fast.dropped == 0
    assert hub.stats()["listeners"]["slow"] == {"dropped": 7, "errors": 0}


def test_a_listener_that_raises_is_counted_and_called_again(hub: EventHub) -> None:
    seen: list[Event] = []

    def listener(event: Event) -> None:
        seen.append(event)
        raise RuntimeError("listener's own mistake")

    subscription = hub.add_listener(listener)
    hub.emit("warning", text="one")
    hub.emit("warning", text="two")
    hub.close()
    assert [e.data["text"] for e in seen] == ["one", "two"] and subscription.errors == 2


def test_drops_that_a_sender_reports_are_added_up(hub: EventHub) -> None:
    inbox = hub.subscribe()
    emit = Emitter("h11", str(hub.socket_path))
    emit.dropped = 4
    emit("agent.state", name="h11", state="idle")
    assert inbox.get(5) is not None
    assert hub.stats()["dropped_upstream"] == 4


def test_data_that_json_cannot_carry_is_counted(hub: EventHub) -> None:
    inbox = hub.subscribe()
    hub.emit("warning", text=object())
    hub.emit("warning", text="fine")
    event = inbox.get(5)
    assert event is not None and event.data == {"text": "fine"} and hub.malformed == 1


def test_iteration_over_a_subscription_ends_with_the_hub(hub: EventHub) -> None:
    inbox = hub.subscribe()
    hub.emit("warning", text="last words")
    hub.close()
    assert [e.kind for e in inbox] == ["warning"]
    assert list(hub.subscribe()) == []


def test_a_second_collector_on_the_same_path_is_refused(hub: EventHub) -> None:
    with pytest.raises(CollectorError, match="another collector is listening"):
        EventHub(hub.socket_path).start()


def test_a_socket_left_by_a_killed_run_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "events.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(path))
    with EventHub(path) as hub:
        inbox = hub.subscribe()
        Emitter("h11", str(path))("warning", text="hello")
        assert inbox.get(5) is not None


@pytest.mark.parametrize(
    ("path", "fix"),
    [("no/such/dir/e.sock", "make its directory"), ("x" * 120, "shorter runtime directory"), ("file", "move it")],
)
def test_a_path_that_cannot_be_bound_is_one_clear_line(tmp_path: Path, path: str, fix: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CollectorError, match=fix) as caught:
        EventHub(tmp_path / path).start()
    assert "\n" not in str(caught.value)
