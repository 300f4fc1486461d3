"""What a fresh machine is set up with: locks that say everything, and a script that says no in one line."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "scripts/provision.sh"
LOCKS = ("requirements.lock", "requirements-dev.lock")
NOT_LOCKED = {"torch"}  # provision.sh chooses its build


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(file: str) -> dict[str, str]:
    lines = [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def test_every_dependency_that_we_declare_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {normal(name) for name in project["dependencies"]} - NOT_LOCKED - locked(LOCKS[0]).keys() == set()
    assert {normal(name) for name in project["optional-dependencies"]["dev"]} - locked(LOCKS[1]).keys() == set()


def test_the_locks_are_complete_and_disjoint() -> None:
    runtime, dev = (locked(file) for file in LOCKS)
    assert not runtime.keys() & dev.keys()
    known = runtime.keys() | dev.keys() | NOT_LOCKED | {"ovs"}  # ovs: Debian's python3-openvswitch
    assert {name: missing for name in (runtime | dev) if (missing := needed(name) - known)} == {}


def needed(name: str) -> set[str]:
    """What an installed package needs on this machine, extras left out."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in importlib.metadata.requires(name) or []]
    return {normal(r.name) for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})}


def test_what_is_installed_is_what_is_locked() -> None:
    expected = locked(LOCKS[0]) | locked(LOCKS[1])
    assert {name: importlib.metadata.version(name) for name in expected} == expected


def test_pytorch_is_the_version_and_the_build_that_the_script_means() -> None:
    import torch

    wanted = re.search(r"^# torch==(.+)$", (ROOT / LOCKS[0]).read_text(), re.MULTILINE)
    assert wanted and torch.__version__.split("+")[0] == wanted[1]
    if os.environ.get("DAITN_TORCH") != "any":
        assert torch.version.cuda is None


def provision(path: Path, tree: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the script of ``tree`` with only the programs in ``path``."""
    command = ["/bin/bash", str(tree / SCRIPT), *options]
    return subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True, timeout=15)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with nothing but the script and the locks."""
    (tmp_path / "scripts").mkdir()
    for file in (SCRIPT, *LOCKS):
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder to be the whole PATH: the basics, no apt, no dpkg."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (
        "awk",
        "cat",
        "comm",
        "cut",
        "dirname",
        "flock",
        "grep",
        "head",
        "readlink",
        "rm",
        "sed",
        "sort",
        "tail",
    ):
        (folder / name).symlink_to(shutil.which(name) or name)
    return folder


def fake(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{body}\n")
    (folder / name).chmod(0o755)


def test_not_debian_is_one_line(programs: Path, tree: Path) -> None:
    done = provision(programs, tree)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "not Debian or Ubuntu" in done.stderr


def test_not_root_is_one_line_that_names_what_is_missing(programs: Path, tree: Path) -> None:
    fake(programs, "dpkg-query", 'echo "installed python3"')
    fake(programs, "apt-get", "exit 99")
    fake(programs, "id", "echo 1000")
    done = provision(programs, tree)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "python3-venv" in done.stderr and "sudo scripts/provision.sh" in done.stderr


def test_a_full_disk_is_told_before_anything_is_fetched(programs: Path, tree: Path) -> None:
    fake(programs, "dpkg-query", 'echo "installed python3"')
    fake(programs, "apt-get", "exit 99")
    fake(programs, "id", "echo 0")
    fake(programs, "df", "echo header; echo /dev/x 100 88 12 88% /")
    done = provision(programs, tree)
    assert done.returncode == 2
    assert "disk full" in done.stderr and "12 MB are free" in done.stderr


def test_no_network_is_one_line_and_leaves_a_log(programs: Path, tree: Path) -> None:
    for name in ("mktemp", "tee"):
        (programs / name).symlink_to(shutil.which(name) or name)
    fake(programs, "dpkg-query", 'echo "installed python3"')
    fake(programs, "dpkg", "exit 0")
    fake(programs, "id", "echo 0")
    fake(programs, "df", "echo header; echo /dev/x 9 9 99999 1% /")
    unresolved = "W: Failed to fetch x  Temporary failure resolving 'mirror'"
    fake(
        programs,
        "apt-get",
        f'[ "$1" = update ] && echo "{unresolved}" || {{ echo "E: Unable to locate package"; exit 100; }}',
    )
    done = provision(programs, tree)
    assert done.returncode == 2
    assert "no network" in done.stderr and len(done.stderr.splitlines()) == 1
    log = Path(re.search(r"\[log: (.+)\]", done.stderr)[1])  # type: ignore[index]
    assert "Temporary failure" in log.read_text()
    log.unlink()


def test_an_unknown_option_shows_the_usage(tree: Path) -> None:
    done = subprocess.run(["/bin/bash", str(tree / SCRIPT), "--nonsense"], capture_output=True, text=True, timeout=15)
    assert done.returncode == 2
    assert "--demo" in done.stdout


def test_make_without_a_target_lists_the_targets() -> None:
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, timeout=15)
    assert {"make demo", "make test", "make test-unit", "make bench-route"} <= {
        " ".join(line.split()[:2]) for line in done.stdout.splitlines()
    }


def test_the_command_of_this_checkout_answers() -> None:
    command = ROOT / ".venv/bin/daitn"
    if not command.exists():
        pytest.skip("no .venv made by scripts/provision.sh in this checkout")
    done = subprocess.run([str(command), "--help"], cwd="/", capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout
