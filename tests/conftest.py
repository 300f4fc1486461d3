"""What all tests share: tiers by folder, a time limit for each, one network at a time, and nothing left behind.

The tiers are ``unit`` (no root, seconds), ``wire`` (bytes, tshark), ``network`` (root, Open vSwitch, Mininet) and
``browser`` (Chromium as well).  What a tier needs and the machine lacks skips its tests with the reason; where
``CI=true``, it fails them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests share the cores with the switch and with each other's processes
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("COLUMNS", "LINES"):  # readline, which pytest imports, sets them for whatever pytest starts
        os.environ.pop(name, None)

import pytest
from hypothesis import settings

from tests.helpers import wait_until
from topologies.machine import cleanup

TESTS = Path(__file__).parent
TIMEOUT_S = {"unit": 60, "wire": 120, "network": 400, "browser": 400}
TIERS = list(TIMEOUT_S)
# What modules of over half a minute take, about: two that share the tests end together when these come first.
LONG_S = {
    "test_flipped": 180, "test_autonomy": 150, "test_experiments_standing": 120, "test_drift": 70, "test_resteer": 60,
    "test_learned_ways": 60, "test_distributed": 60, "test_queries": 60, "test_methods": 50, "test_ways": 45,
    "test_controller_fabric": 45, "test_kinds": 40, "test_fig3": 40, "test_disk": 40, "test_experiments_run": 35,
}  # fmt: skip
NETWORK_LOCK = Path("/run/daitn-net.lock")  # a sandbox has a /run of its own
LOCK_TIMEOUT_S = 900.0
TIDY_TIMEOUT_S = 10.0

# Started by nohup or in the background of a script, we would hand ignored signals on to every program under test.
for ignorable in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(ignorable) is signal.SIG_IGN:
        signal.signal(ignorable, signal.default_int_handler if ignorable is signal.SIGINT else signal.SIG_DFL)

settings.register_profile("daitn", deadline=None)  # a busy machine is not a failing property
settings.load_profile("daitn")


def tier_of(path: Path) -> str | None:
    """Return the tier of a test file: the name of its folder under tests/."""
    parts = path.relative_to(TESTS).parts if path.is_relative_to(TESTS) else ()
    return parts[0] if parts and parts[0] in TIMEOUT_S else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by tier and run the cheap tiers first, in random order; beside others, those that take long first."""
    for item in items:
        if tier := tier_of(item.path):
            item.add_marker(tier)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(TIMEOUT_S[tier]))
    beside = any(hasattr(item.config, "workerinput") for item in items[:1])

    def place(item: pytest.Item) -> tuple[int, int]:
        return TIERS.index(tier_of(item.path) or "unit"), -LONG_S.get(item.path.stem, 0) if beside else 0

    items.sort(key=place)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, saying why; in CI that is a failure."""
    reason = missing(tier_of(item.path) or "unit")
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI=true: not skipped)", pytrace=False)
    elif reason:
        pytest.skip(reason)


_missing: dict[str, str] = {}


def missing(tier: str) -> str:
    """Return what the machine lacks for a tier ("" when nothing), asked once."""
    if tier not in _missing:
        _missing[tier] = _look_for_missing(tier)
    return _missing[tier]


def _look_for_missing(tier: str) -> str:
    programs = {"unit": [], "wire": ["tshark"], "network": ["ovs-vsctl", "mnexec"]}
    programs["browser"] = ["ovs-vsctl", "mnexec", "chromium", "chromedriver"]
    for program in programs[tier]:
        if not shutil.which(program):
            return f"{program} is not installed (scripts/provision.sh)"
    if tier in ("network", "browser"):
        if os.geteuid() != 0:
            return "not root"
        if _output("ovs-vsctl", "--timeout=5", "show") is None:
            return "Open vSwitch does not answer (scripts/provision.sh)"
    return ""


# --- one network at a time, and nothing left of it --------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def tidy_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Network tests of a module run alone on this machine, and what they create is gone when the module is done.

    Networks in fixtures are therefore at most module-scoped.  What a killed run left before (another module's, another
    session's) is removed first: one failure stays one.
    """
    tier = tier_of(request.path)
    if tier not in ("network", "browser") or missing(tier):
        yield
        return
    with NetworkLock():
        cleanup.clean()
        before = standing()
        yield
        wait_until(lambda: not (standing() - before), TIDY_TIMEOUT_S, f"gone: {sorted(standing() - before)}")


class NetworkLock:
    """The machine-wide lock; taken as held when a parent process already has it (``flock FILE pytest ...``)."""

    def __enter__(self) -> None:
        self._file = NETWORK_LOCK.open("a")
        end = time.monotonic() + LOCK_TIMEOUT_S
        while not self._try():
            if time.monotonic() > end:
                pytest.fail(
                    f"{NETWORK_LOCK} is still held by another process after {LOCK_TIMEOUT_S:.0f} s", pytrace=False
                )
            time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return not ancestors().isdisjoint(lock_holders(os.fstat(self._file.fileno()).st_ino))
        return True


def lock_holders(inode: int) -> set[int]:
    """Return the processes that hold a flock on a file."""
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {int(row[4]) for row in rows if row[1] == "FLOCK" and row[5].endswith(f":{inode}")}


def ancestors() -> set[int]:
    """Return the process ids of our parents, up to the first process."""
    found: set[int] = set()
    pid = os.getppid()
    while pid > 0 and pid not in found:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def standing() -> set[str]:
    """Return what a testbed leaves on a machine when it is not taken down, as words for a message."""
    found = {f"namespace {line.split()[0]}" for line in (_output("ip", "netns", "list") or "").splitlines() if line}
    found |= {f"bridge {name}" for name in (_output("ovs-vsctl", "--timeout=5", "list-br") or "").split()}
    foreign = ("lo", "docker", "virbr", "vnet", "veth-")
    found |= {f"interface {name}" for name in os.listdir("/sys/class/net") if not name.startswith(foreign)}
    found |= {f"file {path}" for path in Path("/run/daitn").glob("*") if path.is_dir()}
    found |= {f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob("*daitn*")}
    return found | {f"process {pid}" for pid in tagged_processes()}


def tagged_processes() -> set[int]:
    """Return the processes that carry a run's tag in their environment (without ourselves)."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                tagged = b"\0DAITN_RUN=" in b"\0" + (entry / "environ").read_bytes()
            except OSError:
                continue  # ended meanwhile, or a kernel thread
            found |= {int(entry.name)} if tagged else set()
    return found


def _output(*command: str) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return done.stdout if done.returncode == 0 else None
