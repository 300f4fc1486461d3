"""Machines that are sandboxes of this one, each with sshd and an Open vSwitch of its own, on one Ethernet.

``python -m tests.network.machines a,b,c -- COMMAND``: make three, run a command on the first, take them down.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from topologies.cluster.ssh import SSH_VARIABLE
from topologies.machine import shell
from topologies.machine.waiting import wait_until
from topologies.sandbox.sandbox import Sandbox

SSHD = "/usr/sbin/sshd"  # sshd wants to be called by its whole path
BRIDGE, NET, MTU = "machines", "10.99.0", 1500
DAEMON = """
ListenAddress {address}
HostKey {folder}/host-{name}
AuthorizedKeysFile {folder}/person.pub
PidFile none
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
"""
CLIENT = """
Host {name}
  HostName {address}
  User root
  IdentityFile {folder}/person
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
"""
LEFT = "ls -A /run/daitn | grep -vx lock; ovs-vsctl list-br; ovs-vsctl get-ssl; ls /sys/class/net"
LEFT += " | grep -vxE 'lo|eth0|ovs-netdev'; ps -eo args= | grep -E '[c]luster.serve|[z]ygote|[m] controller'"


@dataclass
class Machines:
    """They stand; ``ssh``: the ssh with which they know each other."""

    boxes: dict[str, Sandbox]
    ssh: str

    def words(self, name: str, *command: str) -> list[str]:
        """Return the words that run a command on a machine."""
        return self.boxes[name].words("env", f"{SSH_VARIABLE}={self.ssh}", *command)

    def left(self, name: str) -> str:
        """Return what of a run there is on a machine, in a tool's own words."""
        return shell.run(*self.words(name, "sh", "-c", f"({LEFT}) 2>/dev/null | grep -v '^$'")).stdout.strip()


@contextlib.contextmanager
def machines(names: Sequence[str], mtu: int = MTU) -> Iterator[Machines]:
    """Make machines with these names; whatever is done with them, nothing of them is left."""
    shell.find_tools()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="machines-")))
        _make_key(folder / "person")
        shell.must("ip", "link", "add", BRIDGE, "mtu", str(mtu), "type", "bridge")
        stack.callback(shell.run, "ip", "link", "del", BRIDGE)
        shell.must("ip", "link", "set", BRIDGE, "up")
        boxes = {}
        for number, name in enumerate(names, 1):
            boxes[name] = stack.enter_context(Sandbox(name))
            _equip(boxes[name], folder, f"{NET}.{number}", mtu)
        for number in range(1, len(names) + 1):
            listens = boxes[names[0]].words("timeout", "1", "bash", "-c", f": < /dev/tcp/{NET}.{number}/22")
            assert wait_until(partial(_does, listens), 10.0)
        yield Machines(boxes, f"ssh -F {folder}/config")


def _does(words: list[str]) -> bool:
    return shell.run(*words).returncode == 0


def _equip(box: Sandbox, folder: Path, address: str, mtu: int) -> None:
    port = f"to-{box.name}"
    shell.must(*f"ip link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {box.pid}".split())
    shell.must("ip", "link", "set", port, "master", BRIDGE, "up")
    box.must("ip", "address", "add", f"{address}/24", "dev", "eth0")
    box.must("ip", "link", "set", "eth0", "up")
    _make_key(folder / f"host-{box.name}")
    about = {"folder": folder, "name": box.name, "address": address}
    (folder / f"sshd-{box.name}").write_text(DAEMON.format(**about))
    for file, line in (
        ("config", CLIENT.format(**about)),
        ("known", f"{address} {(folder / f'host-{box.name}.pub').read_text()}"),
    ):
        with (folder / file).open("a") as text:
            text.write(line)
    box.must("mkdir", "-p", "/run/sshd")
    box.must(SSHD, "-f", str(folder / f"sshd-{box.name}"))


def _make_key(path: Path) -> None:
    shell.must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))


def main() -> int:
    """Run a command on the first of some machines; say what it left on each."""
    names, command = sys.argv[1].split(","), sys.argv[sys.argv.index("--") + 1 :]
    with machines(names, int(os.environ.get("MACHINES_MTU", MTU))) as there:
        status = subprocess.run(there.words(names[0], *command), check=False).returncode
        for name in names:
            print(f"left on {name}: {there.left(name) or 'nothing'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
