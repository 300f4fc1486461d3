"""Runs that are interrupted or refused, a network left standing: nothing of ours stays, nothing foreign goes."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.network.daitn import Running, assert_as_before, daitn, foreign, read_json, refused, running, standing, tool

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
        trains_and_answers(tmp_path)
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
