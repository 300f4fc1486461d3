"""A gateway that lies: takes a border speaker's place at one neighbour, with its own certificate, and tells tales.

In the namespace of that speaker:

    python -m benchmarks.border_liar --config kbg3.json --certificate kbg3.pem --authority authority.pem --to kbg2

Prints, as JSON, what it told; its neighbour says in ``border.refused`` events what it thinks of that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from controller.border.kbgp import config as configuration
from controller.border.kbgp import tls
from controller.border.kbgp.config import Config, Neighbour
from packets.kbgp.knowledge import Bounds, Knowledge
from packets.kbgp.messages import HEADER, Advertisement, Keepalive, Message, Open, Update, decode, encode, split

STANDS_S = 2.0


def tales(config: Config, to: int) -> dict[str, Update]:
    """Return updates, each false in its own way: {reason with which it is to be refused: update}."""
    own, pairs = config.kas, {frozenset(pair) for pair in config.links}
    third, fourth, *_ = sorted({kas for pair in config.links for kas in pair} - {own, to})
    stranger = next(kas for kas in (third, fourth) if frozenset((own, kas)) not in pairs)

    def told(kas: int, **more: object) -> Knowledge:
        return Knowledge(kas=kas, epoch_ms=2**50, serial=1, **more)  # type: ignore[arg-type]

    def one(path: list[int], knowledge: Knowledge) -> Update:
        return Update(advertised=[Advertisement(path=path, knowledge=knowledge, signature=bytes(64))])

    return {
        "loop": one([own, to, third], told(third)),
        "link": one([own, stranger], told(stranger)),
        "origin": one([own, third], told(fourth)),
        "contradictory": one([own], told(own, compute=Bounds(low=2.0, high=1.0))),
        "signature": one([own], told(own)),
    }


async def lie(config: Config, files: tls.Files, to: Neighbour) -> list[str]:
    """Open a session as the gateway of ``config``, in a later life than its own, and tell every tale."""
    reader, writer = await asyncio.open_connection(to.address, to.port, ssl=tls.context(files, server=False))
    said = tales(config, to.kas)
    opened = Open(
        versions=[1], kas=config.kas, gateway=config.gateway, link=to.link, hold_ms=9000,
        boot_ms=int(time.time() * 1000) + 1000,
    )  # fmt: skip
    await _say(writer, opened)
    while not isinstance(await _hear(reader), Open):
        pass
    await _say(writer, Keepalive(), *said.values())
    await asyncio.sleep(STANDS_S)
    writer.transport.abort()
    return list(said)


async def _say(writer: asyncio.StreamWriter, *messages: Message) -> None:
    writer.write(b"".join(map(encode, messages)))
    await writer.drain()


async def _hear(reader: asyncio.StreamReader) -> Message:
    kind, size = split(await reader.readexactly(HEADER.size))
    return decode(kind, await reader.readexactly(size))


def main(arguments: Sequence[str] | None = None) -> int:
    """Lie once."""
    parser = argparse.ArgumentParser(prog="benchmarks.border_liar", description=(__doc__ or "").splitlines()[0])
    for name in ("config", "certificate", "authority"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--to", required=True, help="the neighbouring gateway that is lied to")
    options = parser.parse_args(arguments)
    config = configuration.read(options.config)
    to = next(n for n in config.neighbours if n.gateway == options.to)
    print(json.dumps(asyncio.run(lie(config, tls.Files(options.certificate, options.authority), to))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
