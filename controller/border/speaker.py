"""``python -m controller.border.speaker``: the border gateway protocol of one gateway (KBG), beside its switch.

SIGTERM and SIGINT end it with a word, so that its neighbours forget at once what it told; SIGHUP without one, for a
restart: they keep it, and the next speaker says that it has restarted.  So it does after a crash, too: a mark in the
runtime directory stays behind.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from controller.border.kbgp import config as configuration
from controller.border.kbgp.core import Core
from controller.border.kbgp.rib import take_word
from controller.border.kbgp.runtime import Runtime
from controller.border.kbgp.tls import Files
from controller.border.kbgp.trust import verifier
from controller.errors import ControllerError, PlanError
from controller.runtime.loop import Worker
from packets.errors import IdentityError
from packets.events import Emit, Emitter, silent
from packets.security.clock import unix_ms
from packets.security.identity import Directory

EXAMPLE = (
    "python -m controller.border.speaker --config kbg1.json --certificate kbg1.pem --authority authority.pem "
    "--directory directory.json --runtime-dir /run/daitn/demo"
)


def speaker_socket(runtime_dir: Path, gateway: str) -> Path:
    """Return where a gateway's speaker serves its control centre."""
    return runtime_dir / f"{gateway}.kbgp.sock"


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m controller.border.speaker",
        description="Border speaker of one gateway (KBG): KBGP over TLS 1.3 with its neighbours (packets/kbgp.md), a "
        "unix socket in the runtime directory for its own control centre.",
        epilog=f"example: {EXAMPLE}",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="JSON: who it is, its neighbours")
    parser.add_argument("--certificate", type=Path, required=True, metavar="PEM", help="its key and certificate")
    parser.add_argument("--authority", type=Path, required=True, metavar="PEM", help="the run's authority")
    parser.add_argument("--directory", type=Path, required=True, metavar="FILE", help="JSON: the run's certificates")
    parser.add_argument("--runtime-dir", type=Path, required=True, metavar="DIR", help="where its socket is")
    parser.add_argument("--events", metavar="SOCK", help="unix datagram socket of the event collector")
    parser.add_argument("--keylog", type=Path, metavar="FILE", help="write TLS keys, for Wireshark to read captures")
    parser.add_argument(
        "--unsigned", action="store_true", help="an open network: knowledge that its K-AS has not signed is taken, too"
    )
    return parser.parse_args(arguments)


class Process:
    """One running speaker: the pieces put together, and taken apart again at the end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.config = configuration.read(options.config)
        try:
            self.directory = Directory.load(options.directory)
        except IdentityError as error:
            raise PlanError(str(error)) from error
        if not options.runtime_dir.is_dir():
            raise PlanError(f"--runtime-dir {options.runtime_dir}: no such directory; make it, or give the run's")
        self.mark = options.runtime_dir / f"{self.config.gateway}.running"

    async def run(self) -> None:
        """Speak until a signal comes; raises ``ControllerError`` when it cannot start."""
        options, gateway = self.options, self.config.gateway
        emit: Emit = Emitter(gateway, options.events) if options.events else silent
        verify = take_word if options.unsigned else verifier(self.directory)
        core = Core(
            self.config,
            boot_ms=unix_ms(),
            now_s=time.monotonic(),
            verify=verify,
            restarting=self.mark.exists(),
        )
        files = Files(options.certificate, options.authority, options.keylog)
        socket = speaker_socket(options.runtime_dir, gateway)
        runtime = Runtime(core, files, self.directory, socket, emit, Worker(emit))
        loop = asyncio.get_running_loop()
        over: asyncio.Future[bool] = loop.create_future()
        loop.set_exception_handler(_left_over)

        def end(comes_back: bool) -> None:
            if not over.done():
                over.set_result(comes_back)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end, False)
        loop.add_signal_handler(signal.SIGHUP, end, True)
        restart = False
        try:
            await runtime.open()
            self.mark.write_text(f"{runtime.port}\n")
            emit("border.ready", name=gateway, kas=self.config.kas, pid=os.getpid(), port=runtime.port)
            restart = await over
        finally:
            await runtime.close(word=not restart)
        if not restart:
            self.mark.unlink(missing_ok=True)


def _left_over(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take what asyncio has nobody to tell; how a closed connection ended was told where it was read."""
    if not isinstance(context.get("exception"), OSError):
        loop.default_exception_handler(context)


def main(arguments: list[str] | None = None) -> int:
    """Run a speaker; returns the exit status (2: it could not start, one line on stderr says why)."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    gc.collect()
    gc.freeze()  # what was loaded stays: a look for circles then takes a millisecond
    try:
        asyncio.run(Process(options).run())
    except ControllerError as error:
        print(f"speaker: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
