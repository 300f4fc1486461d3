"""One life after the other: real processes, that die as told."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.helpers import wait_until
from topologies.plan import OPENFLOW_ADDRESSES

ROOT = Path(__file__).parents[3]
SCRIPT = """
import os, signal, sys, time
from controller import lives
lives.PAUSE_S, lives.LIVED_S = 0.01, 0.05

def serve(life):
    print("life", life.number, life.address, os.getpid(), flush=True)
    {body}

print("status", lives.Lives({port}, serve, lambda text: print("told", text, flush=True), {addresses}).run(), flush=True)
"""
DIES = "os.kill(os.getpid(), signal.SIGKILL)"


def started(body: str, addresses: tuple[str, ...] = OPENFLOW_ADDRESSES) -> subprocess.Popen[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = SCRIPT.format(body=body.replace("\n", "\n    ").replace("PORT", str(port)), port=port, addresses=addresses)
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def lines(body: str, *addresses: str) -> list[str]:
    process = started(body, addresses or OPENFLOW_ADDRESSES)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    return said.splitlines()


def test_a_life_that_dies_is_followed_by_another_at_the_other_address() -> None:
    said = lines(f"life.ready()\nif life.number < 8:\n    time.sleep(0.1); {DIES}\nreturn 0")
    addresses = [line.split()[2] for line in said if line.startswith("life")]
    assert addresses == ["127.0.0.1", "127.0.0.2"] * 4 + ["127.0.0.1"], "progress is made good without end"
    assert said[-1] == "status 0" and sum("status -9 and goes on" in line for line in said) == 8


def test_where_there_is_one_address_all_lives_listen_there_and_nobody_else() -> None:
    """OpenFlow over TLS: a spare session cannot be handed on, so switches have no second target."""
    listens = "with socket.socket() as s:\n    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
    listens = f"import socket\n{listens}    s.bind((life.address, PORT)); s.listen()\n    life.ready()\n"
    said = lines(listens + f"    if life.number < 3:\n        time.sleep(0.1); {DIES}\nreturn 0", "127.0.0.3")
    assert [line.split()[2] for line in said if line.startswith("life")] == ["127.0.0.3"] * 4
    assert said[-1] == "status 0"


def test_what_dies_before_its_switches_are_there_is_given_up() -> None:
    said = lines(DIES)
    assert sum(line.startswith("life") for line in said) == 6 and said[-1] == "status 137"
    assert "for the 6th time" in said[-2]


def test_what_cannot_start_is_not_tried_again() -> None:
    assert [line.split()[0] for line in lines("return 2")] == ["life", "status"]


def test_a_word_of_the_parent_ends_the_life_and_its_death_too() -> None:
    body = (
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\nlife.ready()\nprint('here', flush=True)\ntime.sleep(60)"
    )
    for how in (signal.SIGTERM, signal.SIGKILL):
        process = started(body)
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[3])
        assert process.stdout.readline() == "here\n"
        process.send_signal(how)
        process.wait(5)
        wait_until(lambda child=child: not _runs(child), 5.0, "the child ended with its parent")  # type: ignore[misc]
        process.stdout.close()


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
