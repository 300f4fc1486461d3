"""Send the AI packets of a capture once more, from a terminal, and show what the network says to that.

    .venv/bin/python examples/replay.py --on asker4 /tmp/query.pcap
    .venv/bin/python examples/replay.py --on asker4 runs/latest/capture.pcapng --type QUERY --first 5

Addresses stay as they are in the capture. Frames that the capture cut short (`daitn` captures headers) cannot be sent
again and are left out.
"""

import argparse
from collections import Counter
from pathlib import Path

import standing  # first: makes the project's packages importable
from scapy.error import Scapy_Exception
from scapy.sendrecv import AsyncSniffer, send
from scapy.utils import rdpcap

from packets.ai import AI, AI_PORT, IP
from packets.wire import PacketType


def read(path: Path, kind: str | None, first: int) -> list[IP]:
    """Return the IP packets of a capture that are whole AI packets of a type."""
    try:
        frames = rdpcap(str(path))
    except (OSError, Scapy_Exception) as error:
        standing.fail(f"{path} cannot be read as a capture: {error}")
    packets = [frame[IP] for frame in frames if IP in frame and AI in frame]
    whole = [packet for packet in packets if packet[AI].refused() is None]
    wanted = [packet for packet in whole if kind is None or packet[AI].type == PacketType[kind]]
    sent = len(wanted[:first])
    print(f"{path}: {len(frames)} frames, {len(packets)} AI packets, {len(whole)} of them whole, {sent} sent again")
    return wanted[:first]


def main() -> None:
    """Replay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--on", metavar="HOST", help="terminal to send from, for example asker4")
    parser.add_argument("--type", choices=[kind.name for kind in PacketType], help="packets of this type alone")
    parser.add_argument("--first", type=int, default=100, help="at most so many packets (default 100)")
    parser.add_argument("--times", type=int, default=1, help="send each so often (default 1)")
    parser.add_argument("--wait", type=float, default=3, help="seconds to listen afterwards (default 3)")
    chosen = parser.parse_args()
    standing.at_terminal(chosen.on)
    packets = read(chosen.capture, chosen.type, chosen.first)
    if not packets:
        standing.fail("nothing to send again")
    refusals = standing.Refusals()
    sniffer = AsyncSniffer(filter=f"udp and port {AI_PORT} and dst host {standing.own_address()}")
    sniffer.start()
    for _ in range(chosen.times):
        send(packets, verbose=False)
    said = refusals.wait(chosen.wait)
    for packet in sniffer.stop() or []:
        if AI in packet:
            print(f"answer from {packet[IP].src}: {packet[AI].mysummary()}")
    for words, count in Counter(standing.shown(event) for event in said).items():
        print(f"{count} x refused by {words}")
    if not said:
        print("nobody refused anything")


if __name__ == "__main__":
    main()
