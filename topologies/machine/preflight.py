"""Before anything is made: may we, can we, is anybody else? Each no is one named line."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import resource
import shutil
import socket
from pathlib import Path

from topologies.errors import (
    NameTakenError,
    NotRootError,
    OvsNotRunningError,
    PortTakenError,
    RefusedError,
    RunLiveError,
    ToolMissingError,
)
from topologies.machine import ledger, probe, shell
from topologies.plan import NetworkPlan
from topologies.wiring import ends

LOCK_FILE = "lock"
START_OVS = "/usr/share/openvswitch/scripts/ovs-ctl start --system-id=random"
PROGRAMS = {"ip": "iproute2", "tc": "iproute2", "ovs-vsctl": "openvswitch-switch", "mnexec": "mininet"}


class RunLock:
    """One run at a time on a machine: a lock that the kernel lets go when its holder dies.

    Nested use by one run is fine.
    """

    def __init__(self, run_id: str, base: Path = ledger.RUN_BASE) -> None:
        self.run_id = run_id
        self._path = base / LOCK_FILE
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._refused()
            return self
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{self.run_id} {os.getpid()}\n".encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _refused(self) -> None:
        self.__exit__()
        run_id, pid = lock_note(self._path)
        if (run_id, pid) != (self.run_id, os.getpid()):
            raise _live(run_id, pid)


def _live(run_id: str, pid: int) -> RunLiveError:
    return RunLiveError(
        f"run {run_id or '?'} (process {pid or '?'}) holds this machine's network:"
        " wait for its end, or `daitn down` when it was started with `daitn up`"
    )


def lock_note(path: Path) -> tuple[str, int]:
    """Return (run id, process id) as the last holder of a lock file wrote them."""
    words = path.read_text().split() if path.exists() else []
    return (words[0], int(words[1])) if len(words) == 2 and words[1].isdigit() else ("", 0)


def locked_run(base: Path = ledger.RUN_BASE) -> str | None:
    """Return the run that holds the lock now, None when nobody does."""
    path = base / LOCK_FILE
    if not path.exists():
        return None
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock_note(path)[0] or "?"
    return None


def check_root() -> None:
    """Check that this process may make networks."""
    if os.geteuid():
        raise NotRootError("not root: networks, namespaces and Open vSwitch need it; run this with sudo")


def check_alone(base: Path = ledger.RUN_BASE) -> None:
    """Check that no run holds this machine's network; ``RunLiveError`` as a run would be refused."""
    if locked_run(base) is not None:
        raise _live(*lock_note(base / LOCK_FILE))


def check_machine(ports: list[int] | None = None, page_port: int | None = None) -> list[str]:
    """Check what a run needs and return what was found, one line each; the first thing missing is a named error."""
    check_root()
    for program, package in PROGRAMS.items():
        if not shutil.which(program):
            raise ToolMissingError(
                f"program {program!r} is not installed: apt install {package}, or scripts/provision.sh"
            )
    if importlib.util.find_spec("mininet") is None:
        raise ToolMissingError(
            "Python finds no Mininet: use the .venv that scripts/provision.sh makes (it sees Debian's package)"
        )
    version = check_ovs()
    for port in [*(ports or []), *([page_port] if page_port else [])]:
        check_port(port)
    delays = (
        "netem" if probe.netem() else "VDE wire filter" if probe.wirefilter() else "not available (apt install vde2)"
    )
    lines = ["root", f"Open vSwitch {version}, {'kernel' if probe.datapath() == 'kernel' else 'userspace'} datapath"]
    return [*lines, f"link delay and loss: {delays}", *([f"ports free: {', '.join(map(str, ports))}"] if ports else [])]


def check_ovs() -> str:
    """Return Open vSwitch's version; ``OvsNotRunningError`` says how to start it."""
    answer = shell.run("ovs-vsctl", "--timeout=3", "get", "Open_vSwitch", ".", "ovs_version")
    if answer.returncode:
        how = "systemctl start openvswitch-switch" if Path("/run/systemd/system").exists() else START_OVS
        raise OvsNotRunningError(f"Open vSwitch does not answer: start it with `{how}`")
    alive = shell.run("ovs-appctl", "--timeout=3", "-t", "ovs-vswitchd", "version")
    if alive.returncode:
        raise OvsNotRunningError(f"ovs-vswitchd does not answer (its database does): restart it with `{START_OVS}`")
    return answer.stdout.strip().strip('"')


def check_port(port: int) -> None:
    """Check that nobody listens on a loopback TCP port; ``PortTakenError`` says who does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
            trial.listen(1)
        except OSError as error:
            raise PortTakenError(_taken(port) or f"TCP port {port} cannot be used: {error.strerror}") from None


def _taken(port: int) -> str:
    holder = _holder(port)
    if holder is None:
        return ""
    name, pid = holder
    if run := ledger.environment(pid).get(ledger.RUN_VARIABLE):
        whose, cure = f" of the run {run}", "if that was killed, `daitn clean` removes what it left"
    else:
        whose, cure = "", "end that program, or choose another port"
    return f"TCP port {port} is taken by {name} (process {pid}){whose}: {cure}"


def port_owner(port: int) -> str:
    """Return ``name (process n)`` of who listens on a TCP port, "" when unknown."""
    holder = _holder(port)
    return f"{holder[0]} (process {holder[1]})" if holder else ""


def _holder(port: int) -> tuple[str, int] | None:
    inodes = _listening_inodes(port)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) in inodes for fd in (entry / "fd").iterdir()):
                return (entry / "comm").read_text().strip(), int(entry.name)
        except OSError:
            continue
    return None


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, rows):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


FILES_BESIDES, FILES_A_NODE = 128, 8  # open at once: a node's shell, its pipes and sockets; all else


def check_files(plan: NetworkPlan) -> None:
    """See to it that as many files may be open as a network needs; ``RefusedError`` says how many where not."""
    needed = FILES_BESIDES + FILES_A_NODE * (len(plan.stations) + len(plan.switches))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise RefusedError(
            f"{plan.name}: its {len(plan.hosts)} terminals and {len(plan.switches)} switches need {needed} open files, "
            f"{hard} are allowed: ulimit -n {needed}"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def check_names(plan: NetworkPlan) -> None:
    """Check that no interface or bridge of the plan's names exists; ``NameTakenError`` before anything is made."""
    wanted = {s.name for s in plan.switches} | {name for link in plan.wires for name in ends(link)}
    bridges = shell.must("ovs-vsctl", "--timeout=5", "list-br").split()
    taken = sorted(wanted & ({path.name for path in Path("/sys/class/net").iterdir()} | set(bridges)))
    if taken:
        kind = "bridge" if taken[0] in bridges else "interface"
        raise NameTakenError(
            f"{kind} {taken[0]} exists already: `daitn clean` removes what dead runs left;"
            " what is not ours, rename or remove"
        )
