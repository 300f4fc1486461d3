"""``python -m experiments.cluster.serve``: a server's side of a run over several machines, started through ssh.

It lives as long as its standard input: when the leader ends, is killed, or says nothing for long, all is taken down.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import sys
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import msgspec

from experiments.cluster import orders
from experiments.cluster.orders import Ask, PartOrder, Way, Word
from experiments.cluster.part import PartBed
from experiments.errors import ExperimentError, RunFailed
from experiments.scenarios.events import TimedEvent, carry_out
from experiments.testbed.processes import end_in_order
from hosts.learning.errors import LearningError
from packets.errors import DaitnError
from packets.events import Event
from topologies.cluster.calibrate import Heard
from topologies.errors import RefusedError, TopologyError
from topologies.machine import shell
from topologies.machine.cleanup import clean

MOST_AT_ONCE = 64
MAKING_S = 60.0
KEPT_BACK = {"network.up", "timed.event"}  # the leader says these of the whole
NOT_FETCHED = {"events.jsonl", "capture.pcapng"}


class Server:
    """Carries out what the leader asks, each in a thread of its own."""

    def __init__(self, heard: IO[bytes], said: IO[bytes]) -> None:
        self._heard, self._said = heard, said
        self._out: queue.Queue[Word | None] = queue.Queue()
        self._over = threading.Event()
        self._bed: PartBed | None = None
        self._under_way, self._changed = 0, threading.Condition()
        self._asks = msgspec.json.Decoder(Ask)
        self._speaker = threading.Thread(target=self._speak, name="speak", daemon=True)

    def run(self) -> None:
        """Greet, serve, and leave nothing."""
        self._speaker.start()
        pool = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="ask")
        try:
            self._say(Word(greeting=orders.greeting()))
            self._serve(pool)
        except (TopologyError, ExperimentError) as error:
            self._say(Word(error=str(error), kind="ExperimentError"))
        finally:
            self._over.set()
            pool.shutdown(wait=True, cancel_futures=True)
            if self._bed is not None:
                self._bed.close()
                self._bed.remove_kept()
            self._out.put(None)
            self._speaker.join(5.0)

    def _serve(self, pool: ThreadPoolExecutor) -> None:
        rest = b""
        while select.select([self._heard], [], [], orders.SILENCE_S)[0]:
            data = os.read(self._heard.fileno(), 1 << 20)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                ask = self._asks.decode(line)
                if ask.op != "beat":
                    pool.submit(self._answer, ask)

    def _answer(self, ask: Ask) -> None:
        with self._changed:
            self._under_way += 1
        try:
            self._try(ask)
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def _try(self, ask: Ask) -> None:
        try:
            done = getattr(self, f"do_{ask.op}")
            typed = {"order": ask.order, "happening": ask.happening, "number": ask.id if ask.op == "fetch" else None}
            result = done(**ask.args, **{name: value for name, value in typed.items() if value is not None})
            self._say(Word(id=ask.id, result=result))
            return
        except RunFailed as error:
            kind, why = "RunFailed", str(error)
        except (ExperimentError, TopologyError, LearningError, DaitnError) as error:
            kind, why = "ExperimentError", str(error)
        except Exception as error:  # told as any failure; where it was stands in the log
            sys.excepthook(type(error), error, error.__traceback__)
            kind, why = "RunFailed", f"{type(error).__name__}: {error}"
        self._say(Word(id=ask.id, error=why, kind=kind))

    def _say(self, word: Word) -> None:
        self._out.put(word)

    def _speak(self) -> None:
        encoder = msgspec.json.Encoder()
        while (word := self._out.get()) is not None:
            try:
                self._said.write(encoder.encode(word) + b"\n")
                self._said.flush()
            except OSError:  # nobody listens any more; what is heard says the same
                return

    def _event(self, event: Event) -> None:
        if event.kind not in KEPT_BACK:
            self._say(Word(event=event))

    @property
    def bed(self) -> PartBed:
        if self._bed is None:
            raise ExperimentError("nothing stands here yet")
        return self._bed

    # --- what may be asked ---

    def do_ways(self, addresses: list[str]) -> dict[str, Way]:
        return {address: way_to(address) for address in addresses}

    def do_stand(self, order: PartOrder) -> None:
        self._bed = bed = PartBed(order, self._over)
        bed.__enter__()
        bed.hub.add_listener(self._event)

    def do_start_network(self, seed: int) -> None:
        self.bed.start_network(seed)

    def do_try_out(self) -> None:
        self.bed.try_out()

    def do_try_tunnel(self, **between: str) -> None:
        self.bed.try_tunnel(**between)

    def do_calibrate(self) -> list[dict[str, Any]]:
        return self.bed.calibrate()

    def do_measure_tunnel(self, **step: str) -> Heard | None:
        return self.bed.measure_tunnel(**step)

    def do_start_measuring(self) -> None:
        self.bed.start_measuring()

    def do_counted(self) -> tuple[dict[str, int], list[str]]:
        return self.bed.counted()

    def do_peak_memory_mib(self) -> float:
        return self.bed.peak_memory_mib()

    def do_start_zygote(self, seed: int) -> None:
        self.bed.start_zygote(seed)

    def do_start_agents(self) -> list[str]:
        self.bed.start_agents()
        return sorted(self.bed.absent)

    def do_start_agent(self, name: str) -> None:
        self.bed.start_agent(name)

    def do_stop_agents(self) -> None:
        self.bed.stop_agents()

    def do_end_control(self) -> None:
        self.bed.end_control()

    def do_tell(self, name: str, command: str, within_s: float, arguments: dict[str, Any]) -> dict[str, Any]:
        return self.bed.tell(name, command, within_s, **arguments)

    def do_happen(self, happening: TimedEvent) -> None:
        carry_out(self.bed, happening)

    def do_stop_capture(self) -> int:
        capture = self.bed.capture
        if capture is None:
            return 0
        capture.stop()
        return capture.dropped()

    def do_finish(self) -> None:
        """Take everything down, once nothing more is being made; what was recorded stays until this process ends."""
        self._over.set()
        with self._changed:
            self._changed.wait_for(lambda: self._under_way == 1, MAKING_S)
        self.bed.close()

    def do_fetch(self, number: int, what: str) -> None:
        """Send files as a tar archive, in pieces: ``capture``, ``home/NAME`` of a terminal, or ``folder``."""
        bed = self.bed
        if what == "capture":
            found = [bed.folder.capture]
        elif what.startswith("home/"):
            found = [bed.runtime / what.removeprefix("home/")]
        else:
            found = [path for path in sorted(bed.kept.iterdir()) if path.name not in NOT_FETCHED]
        pieces: Any = Pieces(lambda piece: self._say(Word(id=number, piece=piece)))  # all of a file that tarfile uses
        with tarfile.open(fileobj=pieces, mode="w|") as archive:
            for path in found:
                if path.exists():
                    archive.add(path, arcname=path.name)


class Pieces:
    """A file to write to, which hands on what it gets in pieces."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send

    def write(self, data: bytes) -> int:
        for start in range(0, len(data), orders.PIECE_BYTES):
            self._send(bytes(data[start : start + orders.PIECE_BYTES]))
        return len(data)


def way_to(address: str) -> Way:
    """Return how this machine reaches an address; ``RefusedError`` when it does not."""
    done = shell.run("ip", "-json", "route", "get", address)
    if done.returncode:
        raise RefusedError(f"there is no route to {address}: {shell.one_line(done.stderr)}")
    route = msgspec.json.decode(done.stdout)[0]
    device = int(Path(f"/sys/class/net/{route['dev']}/mtu").read_text())
    said = [int(m["mtu"]) for m in route.get("metrics", []) if "mtu" in m]
    return Way(local=str(route.get("prefsrc", "")), mtu=min([device, *said]))


def main() -> None:
    """Keep standard output for the leader alone; what libraries print goes to standard error."""
    end_in_order(once=True)
    shell.find_tools()
    if sys.argv[1:2] == ["--clean"]:  # after one of us that was killed
        clean(sys.argv[2], force=True)
        return
    said = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(KeyboardInterrupt):
        Server(sys.stdin.buffer, said).run()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
