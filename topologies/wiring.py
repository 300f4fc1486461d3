"""Words for the tools: the lines of ``ip -batch``, ``tc -batch`` and ``ovs-vsctl`` that make a declared network.

Pure text, so that a unit test can read what root would do.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence

from topologies.errors import UnsupportedLinkError
from topologies.plan import HostPlan, LinkPlan, SwitchPlan, gateway_address, interface_name

FRAME_BYTES = 1514
QUEUE_MS = (
    50.0  # how long a full queue in front of a link takes to drain: deep enough for TCP, no second of bufferbloat
)
BURST_MS = 2.0  # what may pass at once: covers timer jitter, and is what calibration has to see past
MIN_BURST_BYTES = 16_000
MIN_QUEUE_PACKETS = 100
WIREFILTER_MAX_MBPS = 200.0  # two userspace plugs carry 240-480; promise what holds on a busy machine

GROUP_BASE = 0x4400_0000

Line = tuple[str, str]


def ends(link: LinkPlan) -> tuple[str, str]:
    """Return the two interface names of a link."""
    return interface_name(link.a, link.a_port), interface_name(link.b, link.b_port)


def alias(run_id: str) -> str:
    """Return the ``ifalias`` that marks an interface as a run's own."""
    return f"daitn:{run_id}"


def group(run_id: str) -> int:
    """Return the interface group of a run: set at birth, before an alias can be, and removed in one call."""
    return GROUP_BASE | zlib.crc32(run_id.encode()) & 0xFF_FFFF


def needs_wire(link: LinkPlan, has_netem: bool, has_wirefilter: bool) -> bool:
    """Tell whether a link needs the wire filter; ``UnsupportedLinkError`` when nothing here can do what it asks."""
    if has_netem or not (link.delay_ms or link.loss_percent):
        return False
    asks = f"link {link.name}: delay {link.delay_ms:g} ms, loss {link.loss_percent:g} %"
    if not has_wirefilter:
        raise UnsupportedLinkError(
            f"{asks}: the kernel has no netem and vde2's wirefilter is missing: apt install vde2"
        )
    if link.rate_mbps > WIREFILTER_MAX_MBPS:
        raise UnsupportedLinkError(
            f"{asks} at {link.rate_mbps:g} Mbit/s: without netem the wire filter carries at most"
            f" {WIREFILTER_MAX_MBPS:g} Mbit/s: lower the rate, or drop the delay and loss"
        )
    return True


def burst_bytes(rate_mbps: float) -> int:
    """Return the HTB burst of a link."""
    return max(MIN_BURST_BYTES, int(rate_mbps * 1e6 / 8 * BURST_MS / 1e3))


def queue_packets(rate_mbps: float, extra_ms: float = 0.0) -> int:
    """Return the length of a link's queue, with what ``extra_ms`` of delay keeps in flight."""
    return max(MIN_QUEUE_PACKETS, int(rate_mbps * 1e6 / 8 * (QUEUE_MS + extra_ms) / 1e3 / FRAME_BYTES))


def veth_lines(link: LinkPlan, pid: int | None, run_id: str) -> list[Line]:
    """Make a link's pair of interfaces; end ``a`` is born in the namespace of process ``pid`` (None: here)."""
    a, b = ends(link)
    where, mark = f" netns {pid}" if pid else "", f"group {group(run_id)}"
    return [(f"link add name {b} {mark} type veth peer name {a} {mark}{where}", f"link {link.name}")]


def up_lines(interfaces: Iterable[str], run_id: str) -> list[Line]:
    """Mark interfaces as the run's own and bring them up."""
    return [(f"link set dev {name} alias {alias(run_id)} up", f"interface {name}") for name in interfaces]


def host_lines(host: HostPlan, unreachable: Sequence[str] = ()) -> list[Line]:
    """Give a terminal MAC, address and its one route, to the virtual router (240.0.0.0/4 goes there too).

    ``unreachable``: addresses that are not in this network, said at once: the machine's name servers, which ``ping``
    and ``telnet`` else wait for, two seconds a name.
    """
    device, purpose = interface_name(host.name, 0), f"terminal {host.name}"
    return [
        ("link set dev lo up", purpose),
        (f"link set dev {device} address {host.mac}", purpose),
        (f"addr add {host.address}/16 dev {device}", purpose),
        (f"link set dev {device} up", purpose),
        (f"route add default via {gateway_address(host.kas)} dev {device}", purpose),
        *((f"route add unreachable {address}", purpose) for address in unreachable),
    ]


def name_servers(text: str) -> list[str]:
    """Return the IPv4 name servers of a ``resolv.conf`` that are not on this machine itself."""
    found = re.findall(r"^nameserver\s+(\d+\.\d+\.\d+\.\d+)\s*$", text, re.MULTILINE)
    return [address for address in dict.fromkeys(found) if not address.startswith("127.")]


def shape_lines(link: LinkPlan, device: str, netem: bool) -> list[Line]:
    """Shape what leaves ``device``: HTB for the rate; netem below it for delay and loss, else a plain queue.

    The first line makes the tree; the others also change one that stands.
    """
    purpose = f"link {link.name}, shaping of {device}"
    kbit, burst = round(link.rate_mbps * 1000), burst_bytes(link.rate_mbps)
    leaf = f"pfifo limit {link.queue_packets or queue_packets(link.rate_mbps)}"
    if netem and (link.delay_ms or link.loss_percent):
        limit = link.queue_packets or queue_packets(link.rate_mbps, link.delay_ms)
        leaf = f"netem limit {limit} delay {round(link.delay_ms * 1000)}us"
        leaf += f" loss {link.loss_percent:g}%" if link.loss_percent else ""
    return [
        (f"qdisc replace dev {device} root handle 1: htb default 1", purpose),
        (
            f"class replace dev {device} parent 1: classid 1:1 htb rate {kbit}kbit ceil {kbit}kbit"
            f" burst {burst}b cburst {burst}b quantum {FRAME_BYTES}",
            purpose,
        ),
        (f"qdisc replace dev {device} parent 1:1 handle 10: {leaf}", purpose),
    ]


def bridge_words(
    switch: SwitchPlan, ports: Mapping[str, int], run_id: str, datapath: str, targets: Iterable[str]
) -> list[str]:
    """Return a switch's part of an ``ovs-vsctl`` transaction: bridge, controllers, ports (name -> OpenFlow number)."""
    name, tag = switch.name, f"external-ids:daitn-run={run_id}"
    words = ["--", "add-br", name, "--", "set", "bridge", name, f"other-config:datapath-id={switch.dpid:016x}"]
    words += [
        "fail_mode=secure",
        "protocols=OpenFlow13",
        "other-config:disable-in-band=true",
        f"other-config:dp-desc={name}",
        tag,
    ]
    words += [f"datapath_type={'netdev' if datapath == 'user' else 'system'}"]
    identifiers = []
    for index, target in enumerate(targets):
        identifiers.append(f"@{name}c{index}")
        words += [
            "--",
            f"--id={identifiers[-1]}",
            "create",
            "controller",
            f'target="{target}"',
            "max_backoff=1000",
            tag,
        ]
    if identifiers:
        words += ["--", "set", "bridge", name, f"controller=[{','.join(identifiers)}]"]
    for port, number in ports.items():
        words += ["--", "add-port", name, port, "--", "set", "interface", port, f"ofport_request={number}", tag]
    return words


def unbridge_words(names: Iterable[str]) -> list[str]:
    """Return one transaction that removes switches, those that are gone already included."""
    return [word for name in names for word in ("--", "--if-exists", "del-br", name)]
