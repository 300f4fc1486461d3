"""Who speaks in a run: fresh keys for all terminals, control centres and border speakers, and their directory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from controller.border.kbgp.trust import dcc_name
from packets.labels import DCC_ADDRESS
from packets.security.identity import DCC_ROLE, Directory, Identity, write_private
from topologies.plan import NetworkPlan

DIRECTORY_FILE = "directory.json"
REVOKED_FILE = "revoked.json"
MAX_REASON = 200


class Identities:
    """The identities of one run. Keys come from the system's random source, never from the scenario's seed.

    The directory holds public keys alone; a private key goes to its own speaker: a terminal's in the order that forks
    its agent, a control centre's in a file that root alone can read.
    """

    def __init__(self, plan: NetworkPlan, runtime: Path) -> None:
        self._runtime = runtime
        speakers: list[tuple[str, str, str]] = [(h.name, h.role, h.address) for h in plan.hosts]
        speakers += [(dcc_name(kas), DCC_ROLE, DCC_ADDRESS) for kas in plan.kas_numbers]
        speakers += [(s.name, s.role, s.address) for s in plan.speakers]
        self._known = {s[0]: Identity.new(*s, number) for number, s in enumerate(speakers, 1)}
        self.directory, self.revoked = runtime / DIRECTORY_FILE, runtime / REVOKED_FILE
        Directory(i.certificate for i in self._known.values()).save(self.directory)

    @classmethod
    def given(cls, runtime: Path, keys: Mapping[str, str]) -> Identities:
        """Return the identities of a part of a run, as given; their directory lies in ``runtime``."""
        made = cls.__new__(cls)
        made._runtime, made.directory = runtime, runtime / DIRECTORY_FILE
        made._known = {name: Identity.from_json(text, f"keys of {name}") for name, text in keys.items()}
        return made

    def keys(self, name: str) -> str:
        """Return a terminal's own keys, for its agent."""
        return self._known[name].to_json().decode()

    def share(self, names: Iterable[str]) -> dict[str, str]:
        """Return the keys of some, for the machine that they stand on."""
        return {name: self.keys(name) for name in names}

    def __getitem__(self, name: str) -> Identity:
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def revoked_names(self) -> set[str]:
        """Return who is revoked."""
        return set(self._orders())

    def _orders(self) -> dict[str, str]:
        return msgspec.json.decode(self.revoked.read_bytes(), type=dict[str, str]) if self.revoked.exists() else {}

    def revoke(self, name: str, reason: str, *, restore: bool = False) -> None:
        """Write down that a terminal is revoked (``restore``: no more), for the control centres."""
        orders = self._orders()
        orders.pop(name, None)
        if not restore:
            orders[name] = reason[:MAX_REASON]
        write_private(self.revoked, msgspec.json.encode(orders))

    def controller_options(self, kas: int) -> dict[str, Path]:
        """Write the key file of a control centre; return the options that name it and the directory."""
        path = self._runtime / f"{dcc_name(kas)}.key"
        self._known[dcc_name(kas)].save(path)
        return {"--identity": path, "--directory": self.directory}
