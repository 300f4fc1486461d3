"""Runs that are interrupted or refused, a network left standing: nothing of ours stays, nothing foreign goes."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from packets.events import decode_event
from packets.security.reasons import WORDS
from tests.helpers import wait_until
from tests.network.daitn import Running, assert_as_before, daitn, foreign, read_json, refused, running, standing, tool
from topologies.machine.ledger import RUN_BASE

SEED = ("--seed", "1")


@pytest.fixture(scope="module", autouse=True)
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], None]]:
    """What somebody else has on this machine while all of this goes on; checked once more at the end."""
    with foreign(tmp_path_factory.mktemp("foreign")) as untouched:
        yield untouched
        untouched()


@pytest.fixture
def before(others: Callable[[], None]) -> set[str]:
    return standing()


# --- interrupted ------------------------------------------------------------------------------------------------------


def at_network(run: Running) -> None:
    run.wait_for("run.phase", phase="network", state="start")


def at_calibration(run: Running) -> None:
    run.wait_for("run.phase", phase="calibrate", state="start")


def at_agents(run: Running) -> None:
    run.wait_for("agent.ready")


def at_training(run: Running) -> None:
    run.wait_for("visit.trained")


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        (at_network, signal.SIGTERM),
        (at_calibration, signal.SIGINT),
        (at_agents, signal.SIGHUP),
        (at_training, signal.SIGTERM),
    ],
)
def test_an_interrupted_run_takes_everything_down(
    tmp_path: Path, before: set[str], others: Callable[[], None], moment: Callable[[Running], None], number: int
) -> None:
    with running(tmp_path, *SEED) as run:
        moment(run)
        assert standing() - before, "nothing stood, so nothing was tested"
        said = run.end(number)
    assert said.status == 130, said
    assert len(said.err.splitlines()) == 1 and "torn down" in said.err, said
    assert_as_before(before)
    others()


def test_a_second_ctrl_c_does_not_cut_the_teardown_short(tmp_path: Path, before: set[str]) -> None:
    with running(tmp_path, *SEED) as run:
        at_training(run)
        run.process.send_signal(signal.SIGINT)
        while run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(0.2)
        said = run.ended()
    assert said.status == 130, said
    assert_as_before(before)


def test_kill_9_leaves_what_clean_removes_and_a_network_comes_up_at_once(
    tmp_path: Path, before: set[str], others: Callable[[], None]
) -> None:
    with running(tmp_path, *SEED) as run:
        run.wait_for("job.decided")
        assert refused_as_second(tmp_path)
        assert "left alone" in daitn("clean", cwd=tmp_path).out  # a live run is not touched
        run.wait_for("object.arrived")
        run.process.kill()
        run.ended()
    assert standing() - before
    said = daitn("clean", cwd=tmp_path)
    assert said.status == 0 and "removed" in said.out and "could not" not in said.out, said
    assert_as_before(before)
    others()
    again = daitn("clean", cwd=tmp_path)
    assert "nothing to remove" in again.out
    assert daitn("check", cwd=tmp_path).status == 0


def refused_as_second(folder: Path) -> bool:
    said = daitn("run", "healthcare", "--no-page", "--run-dir", str(folder / "second"), cwd=folder)
    refused(said, "holds this machine's network")
    return not (folder / "second").exists()


# --- refused ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def taken(port: int) -> Iterator[int]:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen(1)
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("command", [["run", "healthcare", "--no-page"], ["up", "--no-page", "-d"], ["check"]])
def test_a_taken_openflow_port_is_named_with_its_owner(tmp_path: Path, before: set[str], command: list[str]) -> None:
    with taken(6653):
        refused(daitn(*command, cwd=tmp_path), "6653", "process")
    assert_as_before(before)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "up.log"] == []


def test_a_taken_page_port_is_named(tmp_path: Path, before: set[str]) -> None:
    with taken(0) as port:
        refused(daitn("run", "healthcare", "--page-port", str(port), cwd=tmp_path), str(port))
    assert_as_before(before)
    assert list(tmp_path.iterdir()) == []


def test_open_vswitch_that_does_not_answer_is_named(tmp_path: Path, before: set[str]) -> None:
    elsewhere = {"OVS_RUNDIR": str(tmp_path / "none"), "OVS_DBDIR": str(tmp_path / "none")}
    refused(daitn("run", "healthcare", "--no-page", cwd=tmp_path, env=elsewhere), "Open vSwitch", "start")
    assert_as_before(before)
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_with_something_in_it_is_refused(tmp_path: Path, before: set[str]) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    refused(daitn("run", "healthcare", "--run-dir", str(tmp_path), cwd=tmp_path), "not empty")
    assert_as_before(before)


# --- standing ---------------------------------------------------------------------------------------------------------


def test_a_standing_network_is_used_from_other_terminals(
    tmp_path: Path, before: set[str], others: Callable[[], None]
) -> None:
    folder = tmp_path / "result"
    try:
        said = daitn("up", "healthcare", *SEED, "--no-page", "--run-dir", str(folder), "--detach", cwd=tmp_path)
        assert said.status == 0 and "the network stands" in said.out, said
        shows_its_state(tmp_path)
        refused(daitn("up", "--detach", cwd=tmp_path), "standing already", "daitn down")
        refused(daitn("run", "healthcare", "--no-page", cwd=tmp_path), "holds this machine's network")
        rejects_a_dream(tmp_path)
        revokes_one(tmp_path, folder)
        trains_and_answers(tmp_path)
        drops_and_refuses_nothing_of_its_own(folder)
        keeps_its_secrets(tmp_path, folder)
    finally:
        down = daitn("down", cwd=tmp_path)
    assert down.status == 0 and "torn down" in down.out, down
    assert_as_before(before)
    refused(daitn("status", cwd=tmp_path), "no network is standing")
    assert len(read_json(folder / "manifest.json")["links"]) == 39
    others()


def shows_its_state(folder: Path) -> None:
    said = daitn("status", cwd=folder)
    assert said.status == 0, said
    assert [name for name in ("h11", "c4", "mpvu2", "mdfp3", "owner1", "asker4") if name not in said.out] == []
    answer = json.loads(daitn("status", "--json", cwd=folder).out)
    assert len(answer["state"]["terminals"]) == 22


def rejects_a_dream(folder: Path) -> None:
    refused(daitn("submit", "--method", "fast", cwd=folder), "'fast'", "routed")
    said = daitn("submit", "--broad", "0.999", "--max-visits", "1", cwd=folder)
    assert said.status == 1, said
    assert "rejected" in said.out and "nearest requirement" in said.out and "targets met" not in said.out


def told(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the data of a run's events of a kind."""
    lines = (folder / "events.jsonl").read_bytes().splitlines()
    return [event.data for event in map(decode_event, lines) if event.kind == kind]


def revokes_one(cwd: Path, folder: Path) -> None:
    """A terminal is let in no more, in any K-AS, until it is restored; another stays out while a model trains."""
    refused(daitn("revoke", "h99", cwd=cwd), "h99", "daitn status")
    for name in ("h11", "h31"):
        said = daitn("revoke", name, "--reason", "stolen", cwd=cwd)
        assert said.status == 0 and f"{name} of K-AS" in said.out, said
    refused(daitn("revoke", "h11", cwd=cwd), "revoked already", "--restore")
    assert {"h11", "h31"} <= {d["name"] for d in told(folder, "agent.gone")}
    state = json.loads(daitn("status", "--json", cwd=cwd).out)["state"]
    assert state["terminals"]["h11"]["revoked"] and "revoked" in daitn("status", cwd=cwd).out
    wait_until(
        lambda: sum(d["names"] == ["h31"] for d in told(folder, "revocations.heard")) == 3, 10
    )  # by K-AS 1, 2, 4
    wait_until(lambda: any(d["node"] == "h11" and "revoked" in d["reasons"] for d in told(folder, "frame.dropped")), 10)
    assert daitn("revoke", "h11", "--restore", cwd=cwd).status == 0
    wait_until(lambda: sum(d["name"] == "h11" for d in told(folder, "terminal.joined")) == 2, 15)


def drops_and_refuses_nothing_of_its_own(folder: Path) -> None:
    """Nothing that the network's own terminals do is refused, but for what was revoked."""
    late = {"unsigned"}  # an acknowledgement of a transfer that is over
    assert {d["reason"] for d in told(folder, "packet.refused")} & WORDS <= {"revoked-key", *late}
    dropped = {(d["node"], reason) for d in told(folder, "frame.dropped") for reason in d["reasons"]}
    calibration = {(node, "ethertype") for node, _ in dropped}
    assert dropped - calibration <= {("h11", "revoked"), ("h31", "revoked")}, dropped
    assert not [d for d in told(folder, "visit.trained") if "h31" in (d["node"], d["data_node"])]


def keeps_its_secrets(cwd: Path, folder: Path) -> None:
    """No private key stands in a process list, a log, the run's folder, or a file that others may read."""
    (runtime,) = [path.parent for path in RUN_BASE.glob("*/control.sock")]
    assert runtime.stat().st_mode & 0o077 == 0
    own = cwd / "h11.key"
    assert daitn("keys", "h11", "--out", str(own), cwd=cwd).status == 0
    secrets = [bytes(secret) for file in (own, *runtime.glob("*.key")) for secret in private_parts(file)]
    secrets += [b"PRIVATE KEY"]
    assert len(secrets) >= 11
    for file in [p for p in folder.rglob("*") if p.is_file()]:
        content = file.read_bytes()
        assert not [s for s in secrets if s in content], file
        assert file.stat().st_mode & 0o077 == 0 or file.name != "tls-keys.log", file
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            said = process.read_bytes()
            assert not [s for s in secrets if s in said], process
    for file in (own, *runtime.glob("*.key"), *runtime.glob("*.pem"), folder / "logs" / "tls-keys.log"):
        assert file.stat().st_mode & 0o077 == 0 or file.name == "authority.pem", file


def private_parts(file: Path) -> list[bytes]:
    """Return the private keys of a file, as they would stand in text and in memory."""
    held = json.loads(file.read_bytes())
    texts = [held[word].encode() for word in ("signing_private", "agreement_private")]
    return [*texts, *(base64.b64decode(text) for text in texts)]


def trains_and_answers(folder: Path) -> None:
    nothing = daitn("query", "cardiology", cwd=folder)
    assert nothing.status != 0 and len(nothing.err.splitlines()) == 1, nothing
    for mtu, warned in ((1400, True), (1500, False)):
        set_mtu_of_gateways(mtu)
        said = daitn("submit", "--broad", "0.5", "--max-visits", "6", *SEED, cwd=folder, timeout_s=200)
        assert said.status == 0 and "targets met" in said.out, said
        assert ("smaller MTU; it goes on in packets of 1280" in said.out) is warned
    answered = daitn("query", "cardiology", cwd=folder)
    assert answered.status == 0 and "by mdfp" in answered.out, answered
    refused(daitn("query", "cardiolgy", cwd=folder), "cardiolgy", "cardiology")
    assert "finished" in daitn("status", cwd=folder).out


def set_mtu_of_gateways(mtu: int) -> None:
    """Give ports on the way an MTU as tunnels have: objects go on in smaller packets, and a warning says so."""
    for path in Path("/sys/class/net").glob("k?g-eth*"):
        tool("ip", "link", "set", path.name, "mtu", str(mtu))


def test_up_gives_mininets_command_line(tmp_path: Path, before: set[str]) -> None:
    words = "h11 ping -c1 -W3 h41\nexit\n"
    said = daitn("up", "healthcare", "--no-page", "--run-dir", str(tmp_path / "r"), cwd=tmp_path, stdin=words)
    assert said.status == 0, said
    assert " 0% packet loss" in said.err and "10.4.1.1" in said.err, said  # Mininet talks on standard error
    assert_as_before(before)
