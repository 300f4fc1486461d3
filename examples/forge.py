"""Send forged packets to a terminal and show that each is refused, and why.

    .venv/bin/python examples/forge.py --on asker4 --target mdfp1

For each forgery: what the codec says of the bytes (`AI.refused()`), and what their target reported. "unsigned",
"holder" and the like need a network with security on, which is the default of `daitn up`.
"""

import argparse
from collections.abc import Iterator

import standing  # first: makes the project's packages importable
from scapy.packet import Raw
from scapy.sendrecv import send

from packets.ai import AI, AI_PORT, IP, UDP, AIAuthentication, AIDigest, AISentAt
from packets.messages import Ask, encode_message


def forgeries(own: str) -> Iterator[tuple[str, bytes]]:
    """Yield forged packets: what was done, and the bytes."""
    question = encode_message(Ask(task="vignettes", sample=[1.0]))
    query = bytes(AI(type="QUERY", owner=own, transfer_id=1) / question)
    shard = {"type": "MODEL_SHARD", "object_id": 0x100001, "shard_count": 1, "total_length": 3}
    launch = shard | {"flags": "LAUNCH", "owner": own}
    yield "cut to 40 bytes", query[:40]
    yield "cut by one byte", query[:-1]
    yield "one bit of the header turned", query[:20] + bytes((query[20] ^ 1,)) + query[21:]
    yield "one bit of the payload turned", query[:-1] + bytes((query[-1] ^ 1,))
    yield "version 1", bytes(AI(version=1, type="QUERY") / question)
    yield "unknown type", bytes(AI(type=77) / question)
    yield "shard outside its object", bytes(AI(**shard | {"offset": 9}) / b"abc")
    yield "launch without digest", bytes(AI(**launch))
    yield "query without signature", query
    yield "launch without signature", bytes(AI(**launch, options=[AIDigest()]))
    seal = [AISentAt(sent_at_ms=1), AIAuthentication(key_id=1)]
    yield "query of long ago, somebody's key id", bytes(AI(type="QUERY", owner=own, options=seal) / question)
    yield "shard of a transfer that nobody launched", bytes(AI(**shard, transfer_id=99) / b"abc")


def address_of(name: str) -> str:
    """Return the address of a terminal of the standing network (or the address that was given)."""
    terminals = standing.status()["state"]["terminals"]
    found = {one["name"]: one["address"] for one in (terminals.values() if isinstance(terminals, dict) else terminals)}
    if name not in found and name.count(".") != 3:
        standing.fail(f"no terminal {name!r}; `daitn status` lists them")
    return str(found.get(name, name))


def main() -> None:
    """Forge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", metavar="HOST", help="terminal to send from, for example asker4")
    parser.add_argument("--target", default="mdfp1", help="terminal (or address) to send to (default mdfp1)")
    parser.add_argument("--wait", type=float, default=1, help="seconds to wait for each report (default 1)")
    chosen = parser.parse_args()
    standing.at_terminal(chosen.on)
    own, target = standing.own_address(), address_of(chosen.target)
    refusals = standing.Refusals()
    print(f"{'forgery':42} {'the codec says':18} {chosen.target} reported")
    with standing.port_of_ours() as port:
        for what, data in forgeries(own):
            send(IP(src=own, dst=target) / UDP(sport=port, dport=AI_PORT) / Raw(data), verbose=False)
            said = [standing.shown(event) for event in refusals.wait(chosen.wait) if event.get("sender", own) == own]
            print(f"{what:42} {AI(data).refused() or 'well-formed':18} {'; '.join(said) or 'nothing'}")


if __name__ == "__main__":
    main()
