"""Keys and certificates for OpenFlow over TLS: an authority, and one certificate a control centre and a machine.

A folder of them is made by ``daitn certs``, or for one run alone; every file but the authority's certificate is its
owner's alone to read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.errors import ExperimentError
from packets.security.identity import write_private
from packets.security.x509 import Authority
from topologies.machine.tls import SwitchTls

AUTHORITY, AUTHORITY_KEY = "ca.pem", "ca.key"
HERE = "localhost"
_SAFE = re.compile(r"[^A-Za-z0-9.-]+")


class Certificates:
    """A folder of them. ``need`` says which are missing, before anything is made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = folder / AUTHORITY

    @classmethod
    def fresh(cls, folder: Path, kas: Iterable[int], servers: Iterable[str]) -> Certificates:
        """Make an authority for one run, whose key is kept nowhere, and all that it signs."""
        found = cls(folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found._write(Authority("DA-ITN OpenFlow of a run"), found._wanted(kas, servers))
        return found

    def centre(self, kas: int) -> Path:
        """Return the file of a K-AS' control centre."""
        return self.folder / f"dcc{kas}.pem"

    def switches(self, server: str = HERE) -> Path:
        """Return the file of a machine's switches."""
        return self.folder / f"switches-{_SAFE.sub('-', server)}.pem"

    def switch_tls(self, server: str = HERE) -> SwitchTls:
        """Return what a machine's switches show, and whom they trust."""
        return SwitchTls(self.switches(server), self.authority)

    def controller_options(self, kas: int) -> dict[str, Path]:
        """Return the options of a control centre that speaks TLS."""
        return {"--certificate": self.centre(kas), "--authority": self.authority}

    def need(self, kas: Iterable[int], servers: Iterable[str]) -> None:
        """Check that every file is there; ``ExperimentError`` names one that is not, and how it is made."""
        on = list(servers)
        wanted = [self.authority, *(path for path, _ in self._wanted(kas, on))]
        missing = next((path for path in wanted if not path.is_file()), None)
        if missing is not None:
            command = f"daitn certs {self.folder} SCENARIO --servers {','.join(dict.fromkeys(on))} --add"
            raise ExperimentError(f"{missing} does not exist; `{command}` makes what is missing there")

    def make(self, kas: Iterable[int], servers: Iterable[str], days: int, *, add: bool) -> list[Path]:
        """Write an authority and what it signs; with ``add`` only what is missing, signed by the authority there.

        ``ExperimentError`` when a file would be overwritten.
        """
        wanted, key = self._wanted(kas, servers), self.folder / AUTHORITY_KEY
        there = [path for path in (key, self.authority, *(p for p, _ in wanted)) if path.exists()]
        if there and not add:
            raise ExperimentError(
                f"{there[0]} exists already and is not overwritten; --add makes what is missing, or name another folder"
            )
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ExperimentError(f"{self.folder} cannot be made: {error.strerror}; name another folder") from None
        authority = Authority.load(key, days) if key.exists() else Authority("DA-ITN OpenFlow", days)
        authority.keep(key)
        missing = [(path, name) for path, name in wanted if not path.exists()]
        self._write(authority, missing)
        return [path for path, _ in missing]

    def _wanted(self, kas: Iterable[int], servers: Iterable[str]) -> list[tuple[Path, str]]:
        centres = [(self.centre(k), f"dcc{k}") for k in sorted(set(kas))]
        return centres + [(self.switches(s), f"switches of {s}"[:64]) for s in dict.fromkeys(servers)]

    def _write(self, authority: Authority, wanted: Sequence[tuple[Path, str]]) -> None:
        for path, name in wanted:
            write_private(path, authority.credentials(name, server=name.startswith("dcc")))
        self.authority.write_bytes(authority.pem)
