"""A run over several machines, without any: what is said on the command line, who is asked, what goes wrong there."""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from experiments.cluster import gathering, orders
from experiments.cluster.orders import Ask, Greeting, PartOrder, Word
from experiments.cluster.server import Server, ServerLost, check_alike
from experiments.cluster.where import Where, check_servers
from experiments.errors import ExperimentError, RunFailed
from experiments.scenarios.scenario import load
from experiments.testbed.openflow_tls import Certificates
from packets.events import Event
from packets.security.x509 import Authority
from topologies.cluster.ssh import SSH_VARIABLE
from topologies.errors import PlanError

GREETING = Greeting(
    protocol=orders.PROTOCOL, sources="me", python="3.11", torch="2", open_vswitch="3", netem=False, wirefilter=True
)
Make = Callable[..., Server]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A server that says these words after its greeting, whatever it is asked, and then ends with a status."""
    heard: list[Event] = []

    def make(*words: Word, greets: bool = True, status: int = 0, complains: str = "") -> Server:
        said = b"".join(
            msgspec.json.encode(w) + b"\n" for w in ([Word(greeting=GREETING)] if greets else []) + [*words]
        )
        (tmp_path / "said").write_bytes(said)
        script = tmp_path / "ssh"
        script.write_text(
            f"#!/bin/sh\n[ -z '{complains}' ] || echo '{complains}' >&2\nhead -n 1 {tmp_path}/said\n"
            f"read line; tail -n +2 {tmp_path}/said\nexit {status}\n"
            if greets
            else f"#!/bin/sh\necho '{complains}' >&2\ncat {tmp_path}/said\nexit {status}\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv(SSH_VARIABLE, str(script))
        server = Server("b", tmp_path / "server-b.log", heard.append)
        server.start()
        return server

    return make


def test_a_server_answers_what_it_is_asked(there: Make) -> None:
    server = there(Word(id=1, result={"x": 1}))
    assert server.greet() == GREETING
    assert server.ask("counted", 10) == {"x": 1}
    server.end()


@pytest.mark.parametrize(("kind", "error"), [("RunFailed", RunFailed), ("ExperimentError", ExperimentError)])
def test_what_a_server_cannot_do_is_raised_here(there: Make, kind: str, error: type[Exception]) -> None:
    server = there(Word(id=1, error="no such thing", kind=kind))
    server.greet()
    with pytest.raises(error, match="server b: no such thing"):
        server.ask("stand", 10)
    server.end()


@pytest.mark.parametrize(
    ("status", "complains", "named"),
    [
        (255, "root@b: Permission denied (publickey).", "server b cannot be reached by ssh: root@b: Permission denied"),
        (255, "ssh: Could not resolve hostname b", "server b cannot be reached by ssh: ssh: Could not resolve"),
        (127, "sh: cd: no such directory", "server b does not start its part .status 127.: .* must lie in"),
    ],
)
def test_a_server_that_does_not_come_says_why(there: Make, status: int, complains: str, named: str) -> None:
    server = there(greets=False, status=status, complains=complains)
    with pytest.raises(ServerLost, match=named):
        server.greet()
    server.end()


def test_a_machine_that_is_not_ready_says_why(there: Make) -> None:
    server = there(Word(error="Open vSwitch does not answer", kind="ExperimentError"), greets=False)
    with pytest.raises(ServerLost, match="server b cannot take part: Open vSwitch does not answer"):
        server.greet()
    server.end()


def test_a_server_that_dies_is_missed_by_who_waits_and_who_asks_later(there: Make) -> None:
    server = there(status=255, complains="Connection to b closed")
    server.greet()
    for _ in range(2):
        with pytest.raises(ServerLost, match=r"server b is gone in mid-run .ssh: Connection to b closed"):
            server.ask("counted", 10)
    with pytest.raises(ServerLost):
        server.check()
    server.end()


def test_nonsense_ends_the_connection(there: Make, tmp_path: Path) -> None:
    server = there(greets=False)
    server.end()
    (tmp_path / "ssh").write_text("#!/bin/sh\necho nonsense; sleep 5\n")
    server = Server("b", tmp_path / "server-b.log", lambda event: None)
    server.start()
    with pytest.raises(ServerLost, match="said what cannot be read"):
        server.greet()
    server.end()


def test_files_come_in_pieces_and_never_outside_their_folder(there: Make, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as files:
        for name in ("logs/dcc1.log", "../outside"):
            entry = tarfile.TarInfo(name)
            entry.size = 3
            files.addfile(entry, io.BytesIO(b"abc"))
    half = len(archive.getvalue()) // 2
    pieces = archive.getvalue()[:half], archive.getvalue()[half:]
    server = there(*(Word(id=1, piece=piece) for piece in pieces), Word(id=1))
    server.greet()
    with pytest.raises(RunFailed, match="outside' would lie outside"):
        gathering.fetch(server, "folder", tmp_path / "run")
    assert (tmp_path / "run/logs/dcc1.log").read_bytes() == b"abc"
    assert not (tmp_path / "outside").exists()
    server.end()


def test_orders_survive_the_way() -> None:
    scenario = load("healthcare")
    order = PartOrder(
        scenario=scenario, run_id="1-a", server="b", kas=[2], cuts=[], mtu=1450, files={"x": b"\0\xff"}, keys={},
        signed=True, capture=True,
    )  # fmt: skip
    ask = Ask(op="stand", id=3, order=order)
    assert msgspec.json.decode(msgspec.json.encode(ask), type=Ask) == ask


def test_servers_must_be_alike() -> None:
    change = msgspec.structs.replace
    check_alike({"a": GREETING, "b": GREETING}, "me")
    for other, named in [
        (change(GREETING, sources="you"), "server b has another version of this project"),
        (change(GREETING, torch="3"), "server b has torch 3, server a 2"),
        (change(GREETING, netem=True), "server a has no netem"),
    ]:
        with pytest.raises(ExperimentError, match=named):
            check_alike({"a": GREETING, "b": other}, "me")


def test_the_command_line_says_what_is_wrong_with_it() -> None:
    scenario = load("healthcare")
    Where(servers="a,b,c", place="4=c").check(scenario)
    for where, named in [
        (Where(servers="a,a"), "a is named twice"),
        (Where(servers="a,-oProxyCommand=x"), "no name of a machine"),
        (Where(servers="a,b", place="x=a"), "'x=a' is not K=SERVER"),
        (Where(place="1=a"), "it needs --servers too"),
        (Where(servers="a,b", certs=Path("/nowhere")), "/nowhere/ca.pem does not exist"),
    ]:
        with pytest.raises(ExperimentError, match=named):
            where.check(scenario)
    with pytest.raises(PlanError, match="server e would have no K-AS"):
        Where(servers="a,b,c,d,e").check(scenario)
    with pytest.raises(ExperimentError, match="at least one"):
        check_servers(" , ")


def test_certificates_are_private_and_never_overwritten(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "certs")
    made = certificates.make([1, 2], ["a", "root@b"], 30, add=False)
    assert [p.name for p in made] == ["dcc1.pem", "dcc2.pem", "switches-a.pem", "switches-root-b.pem"]
    secret = [*made, certificates.folder / "ca.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    before = {path: path.read_bytes() for path in secret}
    with pytest.raises(ExperimentError, match=r"ca\.key exists already"):
        certificates.make([1, 2], ["a"], 30, add=False)
    added = certificates.make([1, 2, 3], ["a"], 30, add=True)
    assert [p.name for p in added] == ["dcc3.pem"]
    assert {path: path.read_bytes() for path in secret} == before
    certificates.need([1, 2, 3], ["a"])
    with pytest.raises(ExperimentError, match=r"switches-c\.pem does not exist"):
        certificates.need([1], ["c"])
    assert Authority.load(certificates.folder / "ca.key").pem == certificates.authority.read_bytes()
