"""How other machines are reached: with OpenSSH, its options, keys and names those of the person who calls."""

from __future__ import annotations

import os
import shlex
import subprocess

from topologies.errors import PlanError

SSH_VARIABLE = "DAITN_SSH"  # the ssh to use, with options of one's own: "ssh -F other_config"
SSH_FAILED = 255  # ssh's own status where it comes to no session, or loses it


OPTIONS = {"BatchMode": "yes", "ConnectTimeout": 10, "ServerAliveInterval": 5, "ServerAliveCountMax": 3}


def ssh_command() -> list[str]:
    """Return the ssh to call: it asks for nothing, and notices a dead line."""
    own = shlex.split(os.environ.get(SSH_VARIABLE, "")) or ["ssh"]
    return [*own, *(word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}"))]


def ssh_words(server: str) -> list[str]:
    """Return the words that run a command on a server; its output comes back, nothing of a terminal's."""
    return [*ssh_command(), "-T", "--", server]


def address_of(server: str) -> str:
    """Return the IPv4 address of a server, as ssh's configuration names it; ``PlanError`` when it has none."""
    from mininet.examples.cluster import RemoteMixin  # brings Mininet along: not for every command

    done = subprocess.run(
        [*ssh_command(), "-G", "--", server], capture_output=True, text=True, timeout=20, check=False
    )  # fmt: skip
    named = [line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith("hostname ")]
    found = RemoteMixin.findServerIP(named[0]) if named else None
    if not found:
        raise PlanError(f"server {server}: no IPv4 address is known of {named[0] if named else server}")
    return str(found)
