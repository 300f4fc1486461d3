"""``python -m topologies.sandbox [--name NAME] -- COMMAND``: run a command on a machine of its own; its status is ours.

Ctrl-C, SIGTERM and SIGHUP are passed on to the command once each; nothing is left when it has ended.
"""

from __future__ import annotations

import argparse
import signal
import sys

from topologies.errors import TopologyError
from topologies.sandbox.first import FORWARDED
from topologies.sandbox.sandbox import Sandbox


def main() -> None:
    """Lead one sandbox from its making to its end."""
    parser = argparse.ArgumentParser(prog="python -m topologies.sandbox")
    parser.add_argument("--name", default="")
    parser.add_argument("command", nargs="+")
    said = parser.parse_args()
    for number in FORWARDED:
        signal.signal(number, _interrupt)
    box = Sandbox(said.name, said.command)
    try:
        box.start()
        for number in FORWARDED:
            signal.signal(number, lambda number, _: box.send(number))
        sys.exit(box.wait())
    except TopologyError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        for number in FORWARDED:
            signal.signal(number, signal.SIG_IGN)
        box.stop()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
