"""Where a frame would go by the rules that all switches of a network hold at one moment.

The rules are read as ``ovs-ofctl dump-flows`` and ``dump-groups`` print them; a walk follows every output, so that it
finds what a probe would have to meet: a loop that only one label is in, a rule that leads into nothing.
"""

from __future__ import annotations

import ipaddress
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from packets.labels import AI_PORT
from topologies.plan import HostPlan, NetworkPlan

MOST_HOPS: Final = 64
MOST_TABLES: Final = 16
PROTOCOLS: Final = {"ip": 0, "tcp": 6, "udp": 17, "icmp": 1}
Place = tuple[str, int]  # switch, port
Frame = dict[str, str]


class Rule(msgspec.Struct, frozen=True):
    """One rule: what it matches, as Open vSwitch names it, and what it does."""

    table: int
    priority: int
    cookie: int
    match: dict[str, str]
    actions: list[str]


class Tables(msgspec.Struct):
    """The rules and groups of all switches that answered."""

    rules: dict[str, list[Rule]]
    groups: dict[str, dict[int, list[list[str]]]] = {}


class End(msgspec.Struct, frozen=True):
    """Where a walk ended: at a ``host`` (then its name is in ``where``), with the ``controller``, nowhere (``drop``),
    or where it had been before (``loop``). ``path``: the switches and ports that it passed.
    """

    how: str
    where: str
    path: tuple[Place, ...] = ()

    def __str__(self) -> str:
        way = " > ".join(f"{switch}:{port}" for switch, port in self.path)
        return f"{self.how} at {self.where} by {way}"


def read(switches: Sequence[str]) -> Tables:
    """Take the rules of these switches now; one that does not answer is left out."""
    tables = Tables({})
    for name in switches:
        try:
            tables.rules[name] = parse_flows(_ask("dump-flows", "--no-stats", name))
            tables.groups[name] = parse_groups(_ask("dump-groups", name), parse_down(_ask("dump-ports-desc", name)))
        except (OSError, subprocess.SubprocessError):
            tables.rules.pop(name, None)
    return tables


def _ask(*words: str) -> str:
    command = ["ovs-ofctl", "-O", "OpenFlow13", "--no-names", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout


def parse_flows(text: str) -> list[Rule]:
    """Read ``dump-flows --no-stats``, first the rules that are asked first."""
    rules = []
    for line in text.splitlines():
        match, found, actions = line.strip().partition(" actions=")
        if not found:
            continue
        fields = dict(_pair(word) for word in re.split(r"[,\s]+", match) if word)
        table, priority = int(fields.pop("table", "0")), int(fields.pop("priority", "32768"))
        cookie = int(fields.pop("cookie", "0"), 16)
        rules.append(Rule(table, priority, cookie, fields, _split(actions)))
    return sorted(rules, key=lambda rule: -rule.priority)


def parse_groups(text: str, down: Collection[int] = ()) -> dict[int, list[list[str]]]:
    """Read ``dump-groups``: {group: the actions of each bucket}; of a fast-failover group of the one that serves.

    ``down``: the switch's ports whose link is down.
    """
    found = {}
    for line in text.splitlines():
        if number := re.search(r"group_id=(\d+)", line):
            buckets = line.split("bucket=")[1:]
            if "type=ff" in line:
                buckets = [b for b in buckets if int(re.findall(r"watch_port:(\d+)|$", b)[0] or 0) not in down][:1]
            found[int(number[1])] = [_split(b.partition("actions=")[2]) for b in buckets]
    return found


def parse_down(text: str) -> set[int]:
    """Read ``dump-ports-desc``: the ports whose link is down."""
    port, found = 0, set[int]()
    for line in text.splitlines():
        if number := re.match(r"\s*(\d+)(\(.*\))?: addr", line):
            port = int(number[1])
        elif "LINK_DOWN" in line or "PORT_DOWN" in line:
            found.add(port)
    return found


def _pair(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


def _split(actions: str) -> list[str]:
    """Split a list of actions at the commas that are in no brackets."""
    return [part for part in re.split(r",(?![^(\[]*[)\]])", actions.strip()) if part]


class Walker:
    """Walks frames through the rules of a moment."""

    def __init__(self, plan: NetworkPlan, tables: Tables) -> None:
        self.tables = tables
        self._far: dict[Place, Place] = {}
        self._host: dict[Place, str] = {(h.switch, h.port): h.name for h in plan.stations}
        for link in plan.links:
            if (link.b, link.b_port) not in self._host:
                self._far[link.a, link.a_port], self._far[link.b, link.b_port] = (
                    (link.b, link.b_port), (link.a, link.a_port),
                )  # fmt: skip

    def walk(self, switch: str, port: int, frame: Frame) -> list[End]:
        """Return where all copies of a frame end that comes into a switch at a port."""
        return self._go(switch, port, frame, ())

    def _go(self, switch: str, port: int, frame: Frame, path: tuple[Place, ...]) -> list[End]:
        here = (switch, port)
        if here in path or len(path) >= MOST_HOPS:
            return [End("loop", switch, (*path, here))]
        path = (*path, here)
        if switch not in self.tables.rules:
            return [End("drop", f"{switch}, which does not answer", path)]
        outputs, frame = self._switch(switch, port, dict(frame))
        ends = []
        for out in outputs:
            place = (switch, port if out == "in_port" else int(out)) if out != "controller" else None
            if place is None:
                ends.append(End("controller", switch, path))
            elif place in self._host:
                ends.append(End("host", self._host[place], path))
            elif place in self._far:
                ends += self._go(*self._far[place], frame, path)
            else:
                ends.append(End("drop", f"{switch}, port {place[1]}, where nothing is", path))
        return ends or [End("drop", switch, path)]

    def _switch(self, switch: str, port: int, frame: Frame) -> tuple[list[str], Frame]:
        """Return where a switch puts a frame out, and the frame as its rules have changed it."""
        frame["in_port"], table, outputs = str(port), 0, list[str]()
        for _ in range(MOST_TABLES):
            rule = next((r for r in self.tables.rules[switch] if r.table == table and matches(r.match, frame)), None)
            following = self._act(switch, rule.actions, frame, outputs) if rule else None
            if following is None:
                break
            table = following
        return outputs, frame

    def _act(self, switch: str, actions: Sequence[str], frame: Frame, outputs: list[str]) -> int | None:
        """Carry actions out; return the table that they go on with."""
        following = None
        for action in actions:
            word, _, value = action.partition(":")
            if action.startswith("goto_table"):
                following = int(value)
            elif word == "output":
                outputs.append(value)
            elif word.upper() == "CONTROLLER":
                outputs.append("controller")
            elif word.upper() == "IN_PORT":
                outputs.append("in_port")
            elif word == "group":
                buckets = self.tables.groups.get(switch, {}).get(int(value), [])
                for bucket in buckets:  # what the only one changes, is changed on the way on
                    self._act(switch, bucket, frame if len(buckets) == 1 else dict(frame), outputs)
            elif word == "set_field":
                new, _, field = value.rpartition("->")
                frame[
                    {"ip_dst": "nw_dst", "ip_src": "nw_src", "eth_dst": "dl_dst", "eth_src": "dl_src"}.get(field, field)
                ] = new
        return following


def matches(match: Mapping[str, str], frame: Frame) -> bool:
    """Tell whether a rule's match holds for a frame of IPv4; a field that a frame does not have is not matched."""
    for name, wanted in match.items():
        if name in PROTOCOLS:
            if PROTOCOLS[name] and frame.get("nw_proto") != str(PROTOCOLS[name]):
                return False
        elif name in ("dl_type", "eth_type"):
            if int(wanted, 16) != 0x0800:
                return False
        elif name in ("nw_src", "nw_dst"):
            if ipaddress.ip_address(frame[name]) not in ipaddress.ip_network(wanted, strict=False):
                return False
        elif name in ("dl_src", "dl_dst") and "/" in wanted:
            value, mask = (int(part.replace(":", ""), 16) for part in wanted.split("/"))
            if int(frame.get(name, "0").replace(":", ""), 16) & mask != value:
                return False
        elif (wanted and frame.get(name) != wanted) or not wanted:
            return False
    return True


def ordinary(sender: HostPlan, to: str) -> Frame:
    """Return an ordinary datagram of a terminal, as its switch gets it."""
    return {
        "dl_src": sender.mac, "nw_src": sender.address, "nw_dst": to, "nw_proto": "17", "tp_src": "9", "tp_dst": "9"
    }  # fmt: skip


def labelled(sender: HostPlan, label: str) -> Frame:
    """Return a frame of an AI object."""
    return ordinary(sender, label) | {"tp_dst": str(AI_PORT)}
