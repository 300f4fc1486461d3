"""What the servers of a run recorded, brought together in its one folder.

``servers/<name>/`` has what came from each; its control centres' databases and logs lie where those of one machine do,
and the captures become one file each.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from experiments.cluster.server import Server
from experiments.errors import RunFailed
from experiments.testbed.folder import RunFolder
from experiments.testbed.gateways import KEYLOG

FETCH_S = 600.0
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")
OF_ONE = re.compile(r"(dcc\d+|kbg\w+)\.log")


def safe(name: str) -> str:
    """Return a server's name as part of a file's."""
    return _UNSAFE.sub("-", name)


def fetch(server: Server, what: str, target: Path) -> None:
    """Fetch files of a server (``capture``, ``folder``, ``home/NAME``) into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target) as archive:
        server.ask("fetch", FETCH_S, into=archive, what=what)
        archive.seek(0)
        try:
            with tarfile.open(fileobj=archive) as files:
                _unpack(files, target.resolve())
        except (tarfile.TarError, ValueError) as error:
            raise RunFailed(f"what server {server.name} sent of {what} is no good: {error}") from None


def _unpack(files: tarfile.TarFile, target: Path) -> None:
    """Write plain files below ``target``, and nothing else (Debian 12's Python has no filters for this)."""
    for member in files:
        path = (target / member.name).resolve()
        if not path.is_relative_to(target):
            raise ValueError(f"{member.name!r} would lie outside its folder")
        source = files.extractfile(member) if member.isfile() else None
        if source is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # TLS keys may be in it
            with source, path.open("wb") as file:
                shutil.copyfileobj(source, file)
            path.chmod(member.mode & 0o666)


def fetch_folder(server: Server, folder: RunFolder) -> None:
    """Fetch all that a server recorded, and put in its place what one machine would have there."""
    own = folder.path / "servers" / safe(server.name)
    fetch(server, "folder", own)
    for path in own.glob("dcc*.sqlite*"):
        shutil.move(path, folder.path / path.name)
    for path in (own / "logs").glob("*.log"):
        if OF_ONE.fullmatch(path.name):
            shutil.move(path, folder.logs / path.name)
        elif path.name == KEYLOG:
            with (folder.logs / KEYLOG).open("ab") as keys:
                keys.write(path.read_bytes())
            path.unlink()
    border = own / folder.border.name
    if border.exists():
        merge([folder.border, border] if folder.border.exists() else [border], folder.border)
        border.unlink()


def merge(captures: list[Path], target: Path) -> None:
    """Make one capture of several, in the order of time, every interface still its own."""
    draft = target.with_suffix(".merged")
    done = subprocess.run(
        ["mergecap", "-F", "pcapng", "-I", "none", "-w", str(draft), *map(str, captures)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        draft.unlink(missing_ok=True)
        raise RunFailed(f"captures could not be merged: {' '.join(done.stderr.split())}")
    draft.replace(target)


class Captures:
    """The captures of all servers, as the one of a run on one machine."""

    def __init__(self, folder: RunFolder, servers: Mapping[str, Server]) -> None:
        self._folder, self._servers, self._lost = folder, servers, 0

    def stop(self) -> None:
        """End them all and make one file of them; whole afterwards."""
        parts = []
        for server in self._servers.values():
            own = self._folder.path / "servers" / safe(server.name)
            self._lost += int(server.ask("stop_capture"))
            fetch(server, "capture", own)
            parts.append(own / self._folder.capture.name)
        merge([p for p in parts if p.exists()], self._folder.capture)
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink()

    def dropped(self) -> int:
        """Return how many frames they say they lost."""
        return self._lost
