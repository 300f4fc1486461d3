"""Terminals that are revoked: off the map, refused everywhere from then on, and their ports closed for AI traffic.

An operator says so in a file; the control centre of the terminal's K-AS acts on it, tells its terminals and all other
control centres, which tell theirs.  It signs what it tells, and each K-AS is heard of its own terminals alone.  What
was at a revoked terminal goes elsewhere, as if that had died.  All of it is in the store: who starts again remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature

from controller.access.authenticity import Authenticity
from controller.border.revoking import Revocations
from controller.errors import BorderError, ControllerError, SteeringError
from controller.runtime.loop import Worker
from controller.services import Services
from controller.southbound.guard import closed_mods
from packets.calls import MAX_REVOKED, Revoked
from packets.security.clock import unix_ms
from packets.security.identity import DCC_ROLE
from packets.security.keeper import Keeper
from topologies.plan import KBG_ROLE, kas_prefix

LOOK_S = 0.5
MAX_FILE_BYTES = 1 << 20
Orders = dict[str, str]  # {terminal: why}


def read_orders(path: Path) -> Orders:
    """Return who is to be revoked, and why; ``SteeringError`` when the file is none of ours."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_FILE_BYTES), type=Orders)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        fault = " ".join(str(error).split())[:200]
        raise SteeringError(f"{path}: {fault}; it holds JSON like {{terminal: why}}") from None


class Revocation:
    """The revoked terminals that one control centre knows of. ``on_revoked(name, why)``: one of this domain is."""

    def __init__(self, services: Services, worker: Worker, authenticity: Authenticity) -> None:
        self.services, self.worker, self._authenticity = services, worker, authenticity
        self.orders: Path | None = None
        self.on_revoked: Callable[[str, str], None] = lambda name, why: None
        self.of: dict[int, Revocations] = {}
        self._stamp: tuple[int, int] | None = None
        self._told: dict[tuple[int, int], int] = {}
        for row in services.store.rows("revoked"):
            self._know(msgspec.json.decode(row["word"], type=Revocations))

    @property
    def keeper(self) -> Keeper | None:
        """Who checks what comes in (None: nobody)."""
        return self._authenticity.keeper

    @property
    def names(self) -> set[str]:
        """All that are revoked, of whatever K-AS."""
        return {name for word in self.of.values() for name in word.names}

    # --- the operator's word

    async def look(self) -> None:
        """Do what the operator's file says, when it has changed; repeat what others have not heard (periodic)."""
        try:
            found = self.orders.stat() if self.orders else None
        except OSError:
            found = None
        if found and self._stamp != (stamp := (found.st_mtime_ns, found.st_size)) and self.orders:
            self._stamp = stamp
            try:
                await self.order(read_orders(self.orders))
            except ControllerError as error:
                self.services.emit("warning", text=str(error)[:400])
        await self._tell_others()

    async def order(self, orders: Orders) -> None:
        """Revoke these terminals, as far as they are of this domain, and let others in again."""
        if self.keeper is None and orders:
            raise SteeringError("nobody can be revoked in an open network: nothing is checked there")
        domain = self.services.domain
        for kas in sorted(domain.kas):
            mine = {h.name for h in domain.hosts_of(kas) if h.role != KBG_ROLE}
            wanted = sorted(mine.intersection(orders))[:MAX_REVOKED]
            before = self.of[kas].names if kas in self.of else []
            if wanted == before or self.keeper is None:
                continue
            epoch = max(unix_ms(), self.of[kas].epoch + 1 if kas in self.of else 0)
            word = Revocations(kas=kas, from_kas=kas, epoch=epoch, names=wanted)
            self._know(msgspec.structs.replace(word, signature=self.keeper.identity.signing.sign(word.text())))
            self._close(before, wanted, orders)
            await self._tell_terminals()

    def _close(self, before: list[str], now: list[str], orders: Orders) -> None:
        communication, domain = self.services.communication, self.services.domain
        for name in sorted({*before, *now}):
            host, gone = domain.hosts[name], name in now
            if gone == (name in before):
                continue
            mods = closed_mods(host, reopen=not gone)
            communication.south.send(domain.switches[host.switch].dpid, mods)
            if gone:
                self.on_revoked(name, "is revoked")
            kind = "terminal.revoked" if gone else "terminal.restored"
            self.services.emit(kind, name=name, role=host.role, kas=host.kas, reason=orders.get(name, "")[:200])

    # --- known

    def _know(self, word: Revocations) -> None:
        self.of[word.from_kas] = word
        self.services.store.revoked(word.from_kas, msgspec.json.encode(word).decode())
        names = self.names
        self.services.communication.closed = self.services.processes.revoked = names
        if self.keeper is not None:
            self.keeper.revoked = frozenset(names)

    def heard(self, word: Revocations) -> None:
        """Another control centre tells of its terminals; ``SteeringError`` when it is not its word, or not its own."""
        if self.keeper is None:
            return
        known = self.of.get(word.from_kas)
        if known is not None and word.epoch <= known.epoch:
            return
        self._check(self.keeper, word)
        self._know(word)
        self.services.emit("revocations.heard", kas=word.from_kas, names=word.names)
        self.worker.spawn(self._tell_terminals(), "word of revoked terminals")

    @staticmethod
    def _check(keeper: Keeper, word: Revocations) -> None:
        teller = keeper.directory.by_name(f"dcc{word.from_kas}")
        prefix = kas_prefix(word.from_kas).rpartition(".0.0/")[0] + "."
        known = [keeper.directory.by_name(name) for name in word.names]
        if any(c is not None and not c.address.startswith(prefix) for c in known):
            raise SteeringError(f"K-AS {word.from_kas} may not revoke terminals of another")
        try:
            if teller is None or teller.role != DCC_ROLE:
                raise SteeringError(f"the directory knows no control centre of K-AS {word.from_kas}")
            teller.signing_key.verify(word.signature, word.text())
        except InvalidSignature:
            raise SteeringError(f"who is revoked in K-AS {word.from_kas} is not its control centre's word") from None

    # --- told

    async def _tell_others(self) -> None:
        """Tell every other K-AS of ours, until it has heard."""
        domain = self.services.domain
        due = [
            msgspec.structs.replace(word, kas=other)
            for word in self.of.values()
            for other in self.services.all_kas
            if word.from_kas in domain.kas and other not in domain.kas
            and self._told.get((other, word.from_kas)) != word.epoch
        ]  # fmt: skip

        async def tell(word: Revocations) -> None:
            try:
                await self.services.must(word)
            except BorderError as error:
                self.services.emit("warning", text=f"K-AS {word.kas} has not heard who is revoked: {error}"[:400])
            else:
                self._told[word.kas, word.from_kas] = word.epoch

        await asyncio.gather(*(tell(word) for word in due))

    async def _tell_terminals(self) -> None:
        hosts = [h for h in self.services.domain.plan.hosts if h.name in self.services.krrm]
        await asyncio.gather(*(self._tell(h.name) for h in hosts))

    async def _tell(self, name: str) -> None:
        host = self.services.domain.hosts[name]
        try:
            await self.services.processes.tell(host, Revoked(names=sorted(self.names)[:MAX_REVOKED]), 0)
        except SteeringError as error:
            self.services.emit("warning", text=f"{name} has not heard who is revoked: {error}"[:400])

    def joined(self, name: str) -> None:
        """A terminal is there (again): it has to know whom to refuse."""
        if self.of and name in self.services.domain.hosts:
            self.worker.spawn(self._tell(name), f"word of revoked terminals to {name}")
