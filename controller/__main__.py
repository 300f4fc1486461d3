"""``python -m controller``: the control centre of one K-AS (or of several), without a manager process."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import gc
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from controller.errors import BorderError, ControllerError, PlanError, PortTaken
from controller.lives import Life, Lives
from controller.placement.kinds import read as read_kind
from controller.plugins.setup import read as read_engines
from controller.southbound.session.tls import Credentials, Handshakes
from packets.errors import IdentityError
from packets.events import Emit, Emitter, silent
from packets.security.clock import unix_ms
from packets.security.identity import Directory, Identity
from packets.security.keeper import Keeper
from topologies.machine.ledger import RUN_VARIABLE
from topologies.plan import OPENFLOW_ADDRESSES, DomainPlan

if TYPE_CHECKING:  # what loads slowly comes once the options are known to be right
    from controller.border.kbgp.border import KbgpBorder
    from controller.border.messages import Ask, Reply
    from controller.dcc import Dcc
    from controller.runtime.loop import Table, Worker
    from controller.store import Store

HOST = "127.0.0.1"
TELL_S = 1.0
COLLECT = 20_000, 20, 50  # objects made between two looks of the garbage collector, looks between two longer ones
EXAMPLE = "python -m controller --plan dcc1.json --openflow-port 6653 --runtime-dir /run/daitn/demo"


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m controller",
        description="Control centre (DCC) of the K-AS in a plan file. It serves OpenFlow 1.3 on the loopback (or over "
        "TLS), and speaks with other DCCs by way of its gateways' border speakers, whose "
        "sockets are in the runtime directory. Without a runtime directory it is alone: routing and ARP work.",
        epilog=f"example: {EXAMPLE}",
    )
    parser.add_argument(
        "--plan", type=Path, required=True, metavar="FILE", help="the declared network: JSON of a DomainPlan"
    )
    parser.add_argument("--openflow-port", type=int, default=6653, metavar="P", help="OpenFlow port (6653)")
    parser.add_argument(
        "--openflow-host", default=HOST, metavar="IP", help="address to listen on (the loopback; another: with TLS)"
    )
    parser.add_argument(
        "--certificate", type=Path, metavar="PEM", help="its key and certificate: OpenFlow over TLS (daitn certs)"
    )
    parser.add_argument("--authority", type=Path, metavar="PEM", help="whose certificates switches must show")
    parser.add_argument("--runtime-dir", type=Path, metavar="DIR", help="where the sockets of its border speakers are")
    parser.add_argument("--events", metavar="SOCK", help="unix datagram socket of the event collector")
    parser.add_argument(
        "--database", type=Path, metavar="FILE", help="SQLite file of this DCC's state (default: in memory)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="makes the handles of rendezvous repeatable")
    parser.add_argument(
        "--scenario-groups", type=Path, metavar="FILE", help="JSON: the groups of each task, {task: [group]}"
    )
    parser.add_argument("--engines", type=Path, metavar="FILE", help="JSON: engines of one's own (daitn run --engine)")
    parser.add_argument("--kind", type=Path, metavar="FILE", help="JSON: of which kind its K-AS is, and what it lends")
    parser.add_argument(
        "--identity", type=Path, metavar="FILE", help="this DCC's keys; with them it refuses what is not authentic"
    )
    parser.add_argument(
        "--any-source", action="store_true", help="with --identity: terminals may send from others' addresses (routers)"
    )
    parser.add_argument(
        "--revoked", type=Path, metavar="FILE", help="JSON {terminal: why}: who is revoked; read again when it changes"
    )
    parser.add_argument("--directory", type=Path, metavar="FILE", help="JSON: the certificates of the run's speakers")
    parser.add_argument(
        "--place-every", type=float, default=0.0, metavar="S", help="look every so often where deployed models belong"
    )
    return parser.parse_args(arguments)


def read_plan(path: Path) -> DomainPlan:
    """Read a plan file; ``PlanError`` says what is wrong with it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=DomainPlan)
    except OSError as error:
        raise PlanError(
            f"--plan {path}: {error.strerror}; write one with topologies.plan.NetworkPlan.domain"
        ) from error
    except msgspec.DecodeError as error:
        raise PlanError(f"--plan {path}: not the JSON of a DomainPlan: {error}") from error


def read_groups(path: Path | None) -> dict[str, list[str]]:
    """Read the groups of each task (a bare list: of any task); ``PlanError`` when the file is none of these."""
    if path is None:
        return {}
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, list[str]] | list[str])
    except (OSError, msgspec.DecodeError) as error:
        raise PlanError(f"--scenario-groups {path}: {error}; it holds JSON like {{task: [group, ...]}}") from error
    return {"": found} if isinstance(found, list) else found


def read_keeper(identity: Path | None, directory: Path | None) -> Keeper | None:
    """Return the keeper of this DCC's word (None: an open network); ``PlanError`` when its files are no good."""
    if identity is None:
        return None
    if directory is None:
        raise PlanError("--identity needs --directory FILE too: the certificates of those who speak to this DCC")
    try:
        return Keeper(Identity.load(identity), Directory.load(directory))
    except IdentityError as error:
        raise PlanError(str(error)) from error


def read_credentials(options: argparse.Namespace) -> Credentials | None:
    """Return what OpenFlow over TLS is spoken with (None: plain, on the loopback alone); ``PlanError``."""
    if (options.certificate is None) != (options.authority is None):
        raise PlanError("--certificate and --authority go together: OpenFlow over TLS needs both")
    if options.certificate is None:
        if options.openflow_host != HOST:
            raise PlanError(
                f"--openflow-host {options.openflow_host}: beyond the loopback OpenFlow is spoken over TLS; "
                "give --certificate and --authority (`daitn certs` makes them)"
            )
        return None
    found = Credentials(options.certificate, options.authority)
    found.context()
    return found


def check_port(port: int, host: str = HOST) -> None:
    """Raise ``PortTaken`` when the OpenFlow port cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise PortTaken(
                f"OpenFlow port {port} on {host}: {why}; end who listens there, or choose --openflow-port"
            ) from error


class Process:
    """One running control centre: the pieces put together, and taken apart again at the end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.life, self.run_id = Life(0, HOST), os.environ.get(RUN_VARIABLE) or secrets.token_hex(8)
        self.plan = read_plan(options.plan)
        self.groups = read_groups(options.scenario_groups)
        self.keeper = read_keeper(options.identity, options.directory)
        self.engines = read_engines(options.engines)
        self.housing = read_kind(options.kind)
        self.credentials = read_credentials(options)
        self.border: KbgpBorder | None = None
        self._marks: list[Path] = []
        self._locks: list[IO[str]] = []

    def voice(self) -> Emit:
        """Return what tells the events of this control centre."""
        name = "dcc" + "-".join(str(k) for k in self.plan.kas)
        return Emitter(name, self.options.events) if self.options.events else silent

    async def run(self) -> None:
        """Serve until a signal comes; raises ``ControllerError`` when it cannot start."""
        self.keeper = read_keeper(self.options.identity, self.options.directory)  # what it has heard is this life's
        check_port(self.options.openflow_port, self.life.address)
        from controller import app
        from controller.dcc import Dcc
        from controller.runtime.loop import Worker
        from controller.services import Means
        from controller.store import Store

        emit = self.voice()
        loop, worker = asyncio.get_running_loop(), Worker(emit)
        told = emit
        store = Store(self.options.database, self.run_id, lambda text: told("warning", text=text))
        emit = store.audited(emit)
        switches, worker.emit = app.Switches(loop, store.commit), emit
        means = Means(
            switches, worker, store, time.monotonic, emit, self._ask, self.options.seed, self.groups, self.engines,
            keeper=self.keeper, any_source=self.options.any_source, housing=self.housing,
        )  # fmt: skip
        dcc = Dcc(self.plan, means)
        dcc.deployment.every_s = max(0.0, self.options.place_every)
        dcc.fabric.on_ready = self._say_ready
        dcc.revocation.orders = self.options.revoked
        over = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, over.set)
        try:
            dcc.restore()
            await self._open_border(dcc, emit, store)
            worker.spawn(dcc.lending.warm(), "start of the engines that are lent")
            worker.watch()
            where = self.options.openflow_port, self.life.address
            app.start(dcc.fabric, switches, *where, self.life.spares, self._handshakes(emit))
            await dcc.resume()
            worker.every(dcc.table() | self._border_table(dcc))
            await over.wait()
        finally:
            await dcc.lending.close()
            await self.engines.close()
            self._close(store, worker)

    def _handshakes(self, emit: Emit) -> Handshakes | None:
        if self.credentials is None:
            return None
        kas = self.plan.kas[0]

        def refused(address: str, why: str, count: int) -> None:
            emit("switch.refused", kas=kas, address=address, reason=why, count=count)

        return Handshakes(self.credentials.context(), refused)

    async def _open_border(self, dcc: Dcc, emit: Emit, store: Store) -> None:
        from controller.border.kbgp.border import KbgpBorder
        from controller.border.speaker import speaker_socket

        folder = self.options.runtime_dir
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._lock(folder)
        own = sorted(dcc.domain.kas)
        others = [k for k in dcc.services.all_kas if k not in dcc.domain.kas]
        sockets = {k: [speaker_socket(folder, s.name) for s in dcc.domain.speakers(k)] for k in own}
        identities = dict.fromkeys(own, self.keeper.identity) if self.keeper else {}
        epoch_ms = store.epoch(unix_ms())
        self.border = border = KbgpBorder(own, others, sockets, emit, identities, epoch_ms, store.commit)

        def tell_of_links() -> None:
            for speaker in [s for k in own for s in dcc.domain.speakers(k)]:
                border.cut_off(speaker_socket(folder, speaker.name), dcc.domain.cut_from(speaker.switch))

        dcc.fabric.on_borders = tell_of_links
        await border.open(dcc.serving.serve)

    def _lock(self, folder: Path) -> None:
        """Be the only control centre of our K-AS there; ``PortTaken`` when another one is."""
        for kas in self.plan.kas:
            path = folder / f"dcc{kas}.lock"
            lock = path.open("a")
            self._locks.append(lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise PortTaken(
                    f"{path}: another control centre of this K-AS is running; end it, or give another --runtime-dir"
                ) from error
            self._marks.append(path)

    def _border_table(self, dcc: Dcc) -> Table:
        """Return the periodic duties towards other K-AS."""
        if self.border is None or not self.border.others:
            return {}
        border = self.border

        def tell() -> None:
            for kas in border.own:
                border.tell(dcc.knowledge(kas))

        return {"what other K-AS are told": (tell, TELL_S)}

    async def _ask(self, kas: int, body: Ask) -> Reply:
        if self.border is None:
            raise BorderError(f"K-AS {kas} cannot be asked: this control centre has no --runtime-dir")
        return await self.border.ask(kas, body)

    def _say_ready(self) -> None:
        self.life.ready()
        if self.options.runtime_dir is not None:
            for path in [self.options.runtime_dir / f"dcc{kas}.ready" for kas in self.plan.kas]:
                path.write_text(f"{os.getpid()}\n")
                self._marks.append(path)

    def _close(self, store: Store, worker: Worker) -> None:
        worker.stop()
        if self.border is not None:
            self.border.close()
        for path in self._marks:
            path.unlink(missing_ok=True)
        store.close()


def _collect_seldom() -> None:
    """Keep the garbage collector from looking through all that was loaded while reports wait: it stays for good."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)


def main(arguments: list[str] | None = None) -> int:
    """Run a control centre; returns the exit status (2: it could not start, one line on stderr says why)."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        process = Process(options)
        check_port(options.openflow_port, options.openflow_host)
        _load()
    except ControllerError as error:
        print(f"controller: {error}", file=sys.stderr)
        return 2

    def serve(life: Life) -> int:
        process.life = life
        try:
            asyncio.run(process.run())
        except ControllerError as error:
            print(f"controller: {error}", file=sys.stderr)
            return 2
        finally:
            sys.stderr.flush()
        return 0  # and out: os-ken's threads are not daemons and cannot be told to end

    def warn(text: str) -> None:
        name = f"the control centre of K-AS {', '.join(map(str, process.plan.kas))}"
        print(f"{name}: {text}", file=sys.stderr, flush=True)
        process.voice()("warning", text=f"{name}: {text}")

    where = OPENFLOW_ADDRESSES if process.credentials is None else (options.openflow_host,)  # no spares over TLS
    return Lives(options.openflow_port, serve, warn, where).run()


def _load() -> None:
    """Load what loads slowly, once for all lives."""
    import controller.app
    import controller.border.kbgp.border
    import controller.dcc  # noqa: F401

    _collect_seldom()


if __name__ == "__main__":
    sys.exit(main())
