"""The page's server: JSON, stream, metrics, and what keeps it on this machine."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from controller.oam import page as page_module
from controller.oam.__main__ import main, play, read_events
from controller.oam.errors import PageError
from controller.oam.metrics import METRICS, Metrics, metrics_table
from controller.oam.page import PageServer, create_app
from controller.oam.scripted import Script
from controller.oam.state.run import NetworkState
from packets.events import Event, encode_event
from tests.helpers import wait_until

STATIC = Path(page_module.__file__).parent / "static"


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def state(script: Script) -> NetworkState:
    state = NetworkState()
    for said in script.run():
        state.apply(said)
    return state


@pytest.fixture
def client(state: NetworkState) -> FlaskClient:
    return create_app(state).test_client()


@pytest.fixture
def server(state: NetworkState) -> Iterator[PageServer]:
    with PageServer(create_app(state, max_streams=2, keep_alive_s=0.2), port=0) as server:
        yield server


class Stream:
    """A bare reader of server-sent events."""

    def __init__(self, server: PageServer, **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        self.connection.request("GET", "/events", headers=headers)
        self.response = self.connection.getresponse()

    def message(self) -> tuple[str, str, object]:
        """Return (name, id, data) of the next message."""
        fields: dict[str, str] = {}
        while line := self.response.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
        if "event" not in fields:
            return "end", "", None
        return fields["event"], fields.get("id", ""), json.loads(fields["data"])

    def until(self, wanted: str) -> tuple[str, object]:
        while True:
            name, event_id, data = self.message()
            assert name != "end", f"the stream ended before {wanted}"
            if name == wanted:
                return event_id, data

    def close(self) -> None:
        self.response.close()
        self.connection.close()


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_the_api_tells_the_run(client: FlaskClient, script: Script) -> None:
    job = client.get(f"/api/jobs/{script.object_id}").get_json()
    assert job["state"] == "finished" and job["object_id"] == str(script.object_id)
    assert len(client.get("/api/jobs").get_json()) == 1
    assert {h["name"] for h in client.get("/api/hosts").get_json()} >= {"h11", "mpvu2", "owner1"}
    network = client.get("/api/network").get_json()
    assert len(network["kas"]) == 4 and len(network["links"]) == 39
    whole = client.get("/api/state").get_json()
    assert whole["run"]["network"]["name"].startswith("fig3") and whole["collector"] is None
    assert client.get("/healthz").get_json()["status"] == "ok"


def test_events_after_an_id(client: FlaskClient) -> None:
    last = client.get("/api/events?limit=5").get_json()
    assert len(last) == 5
    newer = client.get(f"/api/events?after={last[2]['id']}").get_json()
    assert [e["id"] for e in newer] == [e["id"] for e in last[3:]]
    assert client.get("/api/events?after=x&limit=-3").get_json() == []


def test_what_is_not_there_is_told_as_json(client: FlaskClient) -> None:
    for path in ("/api/jobs/17", "/nothing"):
        answer = client.get(path)
        assert answer.status_code == 404 and answer.get_json()["error"].startswith("no ")


@pytest.mark.parametrize("path", ["/", "/api/state", "/api/jobs", "/events", "/metrics"])
@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_nothing_can_be_changed(client: FlaskClient, path: str, method: str) -> None:
    assert getattr(client, method)(path).status_code == 405


# --- staying on this machine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "localhost:8080", "[::1]:8080", "127.0.0.2"])
def test_loopback_names_are_answered(client: FlaskClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "10.1.1.1", "localhost.evil.example", "[::2]"])
@pytest.mark.parametrize("path", ["/", "/api/state", "/events", "/metrics", "/static/page.js"])
def test_a_strangers_name_is_refused(client: FlaskClient, host: str, path: str) -> None:
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == 403 and b"localhost" in answer.data


@pytest.mark.parametrize("path", ["/", "/api/state", "/metrics", "/nothing", "/static/page.css"])
def test_every_answer_carries_the_policy(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"


def test_the_page_needs_no_other_machine_and_no_inline_code(client: FlaskClient) -> None:
    html = client.get("/").get_data(as_text=True)
    assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=|javascript:", html)
    for text in [html, *(p.read_text() for p in STATIC.iterdir())]:
        outside = [
            u for u in re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"')]*", text) if "www.w3.org" not in u
        ]
        assert not outside


def test_every_module_that_the_page_imports_is_there() -> None:
    for module in STATIC.glob("*.js"):
        for name in re.findall(r'from "\./([\w.]+)"', module.read_text()):
            assert (STATIC / name).exists(), f"{module.name} imports {name}"


# --- stream -----------------------------------------------------------------------------------------------------------


def test_a_stream_gives_the_picture_then_what_changes(server: PageServer, state: NetworkState) -> None:
    stream = Stream(server)
    name, _, picture = stream.message()
    assert name == "state" and isinstance(picture, dict) and len(picture["terminals"]) == 22
    state.apply(Event(kind="agent.gone", source="main", t_unix_s=1.0, data={"name": "h11"}))
    while True:
        _, patch = stream.until("patch")
        assert isinstance(patch, dict)
        if "terminals" in patch:
            break
    assert patch["terminals"]["h11"]["state"] == "gone" and list(patch["terminals"]) == ["h11"]
    stream.close()


def test_a_stream_is_resumed_after_the_last_event_seen(server: PageServer, state: NetworkState) -> None:
    first = Stream(server)
    last_id = ""
    while not last_id.endswith(f".{state.last_id}"):
        last_id, _ = first.until("event")
    first.close()
    new = Event(kind="warning", source="main", t_unix_s=2.0, data={"text": "meanwhile"}, id=state.last_id + 1)
    state.apply(new)
    resumed = Stream(server, **{"Last-Event-ID": last_id})
    _, event = resumed.until("event")
    assert isinstance(event, dict) and event["data"] == {"text": "meanwhile"}
    resumed.close()


@pytest.mark.parametrize("last_id", ["otherrun.9", "9" * 40, "x", "-1", "a.b.c"])
def test_an_id_of_another_run_or_nonsense_resumes_from_the_start(server: PageServer, last_id: str) -> None:
    stream = Stream(server, **{"Last-Event-ID": last_id})
    _, event = stream.until("event")
    assert isinstance(event, dict) and event["id"] < 150
    stream.close()


def test_an_idle_stream_is_kept_alive(server: PageServer) -> None:
    stream = Stream(server)
    assert stream.until("ping") == ("", {})
    stream.close()


def test_too_many_streams_are_refused_and_a_closed_one_gives_its_place_back(server: PageServer) -> None:
    streams = [Stream(server), Stream(server)]
    refused = Stream(server)
    assert refused.response.status == 503 and b"2 event streams" in refused.response.read()
    streams[0].close()
    wait_until(lambda: _opens(server), 5, "a place for a new stream")
    streams[1].close()


def _opens(server: PageServer) -> bool:
    stream = Stream(server)
    opened = stream.response.status == 200
    stream.close()
    return opened


def test_closing_the_server_ends_its_streams(state: NetworkState) -> None:
    server = PageServer(create_app(state), port=0).start()
    stream = Stream(server)
    threading.Timer(0.1, server.close).start()
    stream.until("bye")
    with pytest.raises(OSError):
        wait_until(lambda: not socket.create_connection(("127.0.0.1", server.port), 1), 3)


# --- server -----------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_one_clear_line(state: NetworkState) -> None:
    with PageServer(create_app(state), port=0) as first, pytest.raises(PageError, match="is taken") as caught:
        PageServer(create_app(state), port=first.port)
    assert "\n" not in str(caught.value) and str(first.port) in str(caught.value)


def test_an_address_that_is_not_ours_is_one_clear_line(state: NetworkState) -> None:
    with pytest.raises(PageError, match="choose another address"):
        PageServer(create_app(state), host="192.0.2.1", port=0)


def test_the_server_listens_on_loopback_only(server: PageServer) -> None:
    hexadecimal = f":{server.port:04X} "
    rows = [
        r.split()[1]
        for r in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if f"{hexadecimal}00000000:0000 0A" in r
    ]
    assert rows == [f"0100007F:{server.port:04X}"]


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_of_a_run(state: NetworkState, script: Script) -> None:
    metrics = Metrics()
    for said in Script().run():
        metrics.apply(said)
    text = create_app(state, None, metrics).test_client().get("/metrics").get_data(as_text=True)
    for line in (
        'daitn_agents_ready{role="data"} 12.0',
        'daitn_dcc_ready{kas="3"} 1.0',
        'daitn_visits_total{action="train"} 5.0',
        'daitn_visits_total{action="verify"} 3.0',
        f'daitn_job_accuracy_ratio{{job="{script.object_id}",measure="expert"}} 0.968',
        'daitn_jobs_total{state="finished"} 1.0',
        'daitn_queries_total{right="yes"} 1.0',
        "daitn_query_latency_seconds_sum 0.0582",
    ):
        assert line in text, line


def test_metrics_take_odd_data_and_bound_their_labels() -> None:
    metrics = Metrics()
    for n in range(500):
        metrics.apply(Event(kind=f"odd.{n}", source="x", t_unix_s=0.0, data={}))
    metrics.apply(Event(kind="visit.verified", source="x", t_unix_s=0.0, data={"broad": "x", "per_group": 3}))
    metrics.apply(Event(kind="object.delivered", source="x", t_unix_s=0.0, data={"retransmissions": -5}))
    text = metrics.render().decode()
    assert text.count("daitn_events_total{") == 201 and 'kind="other"' in text


def test_the_table_of_metrics_names_them_all() -> None:
    rows = metrics_table().splitlines()
    assert len(rows) == len(METRICS) + 2 and all(row.count("|") == 6 for row in rows)
    assert all(m.name.endswith(m.unit) or f"{m.unit}_total" in m.name for m in METRICS)


# --- a finished run ---------------------------------------------------------------------------------------------------


def test_a_log_is_read_again_and_its_broken_end_passed_over(tmp_path: Path, script: Script) -> None:
    log = tmp_path / "events.jsonl"
    log.write_bytes(b"".join(encode_event(e) + b"\n" for e in script.run()) + b'{"kind": "half')
    state = NetworkState()
    play(read_events(log), state, Metrics(), 0.0, threading.Event())
    assert state.section("jobs")[str(script.object_id)]["state"] == "finished"


def test_a_log_that_is_not_there_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--events", str(tmp_path / "none.jsonl"), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert "none.jsonl" in said and said.count("\n") == 1


def test_nothing_here_takes_a_change_so_nothing_needs_a_token(state: NetworkState) -> None:
    rules = list(create_app(state).url_map.iter_rules())
    assert len(rules) > 10
    assert [r for r in rules if r.methods and r.methods - {"GET", "HEAD", "OPTIONS"}] == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
    ],
)
def test_a_script_of_another_site_is_refused(client: FlaskClient, headers: dict[str, str], status: int) -> None:
    assert client.get("/api/state", headers=headers).status_code == status


def test_requests_are_short(client: FlaskClient) -> None:
    assert client.get("/api/events?" + "x" * 2000).status_code == 414
    assert client.get("/api/state", data=b"x" * 10).status_code == 413
    assert client.options("/api/state").status_code == 405


def test_connections_that_say_nothing_do_not_keep_others_out_for_ever(server: PageServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port), 5) for _ in range(page_module.MAX_CONNECTIONS + 8)]

    def let_go() -> int:
        gone = 0
        for one in silent:
            one.settimeout(0.01)
            try:
                gone += one.recv(1) == b""
            except TimeoutError:
                pass
            except ConnectionError:
                gone += 1
        return gone

    wait_until(lambda: let_go() >= 8, 5)
    for one in silent:
        one.close()

    def answered() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    wait_until(answered, 5)


def test_drops_and_refusals_are_counted_by_declared_reasons() -> None:
    metrics = Metrics()
    for kind, data in (
        ("frame.dropped", {"reasons": {"spoofed-arp": 7, "nonsense": 2}, "more": 9}),
        ("packet.refused", {"reason": "expired", "more": 5}),
        ("packet.refused", {"reason": "expired"}),
        ("packet.refused", {"reason": "no such place on a Tuesday"}),
    ):
        metrics.apply(Event(kind=kind, source="dcc1", t_unix_s=1.0, data=data))
    text = metrics.render().decode()
    assert 'daitn_frames_dropped_total{reason="spoofed-arp"} 7.0' in text
    assert 'daitn_packets_refused_total{reason="expired"} 6.0' in text
    assert 'daitn_packets_refused_total{reason="steering"} 1.0' in text
