"""Every reason for which a frame, a packet or a request is refused, in one place: what is counted has its word here.

Switches drop frames and count them by rule (event ``frame.dropped``); control centres and terminals refuse what reaches
them (event ``packet.refused``).  ``reasons_table`` writes the documentation from the same declaration, and a test holds
the code to it.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Where = Literal["switch", "control centre", "reader"]


class Reason(NamedTuple):
    """One reason: its word, who refuses by it, and what it says.  ``reader``: whoever reads the packet, a terminal too.

    ``number``: of a switch's reasons, which its rules carry in their cookies.
    """

    word: str
    where: Where
    help: str
    number: int = 0


REASONS: Final = (
    Reason("spoofed-mac", "switch", "Sent from another's Ethernet address.", 1),
    Reason("spoofed-source", "switch", "Sent from another's IPv4 address (its control centre is told: `source`).", 2),
    Reason("spoofed-arp", "switch", "ARP that names another's Ethernet or IPv4 address as its sender.", 3),
    Reason("arp", "switch", "ARP that asks for nothing: replies, gratuitous ARP, addresses that nobody has.", 4),
    Reason("ipv6", "switch", "IPv6, which this network does not carry.", 5),
    Reason("vlan", "switch", "Tagged by the terminal itself, or of a class of its own.", 6),
    Reason("lldp", "switch", "LLDP from a terminal: it would forge a link.", 7),
    Reason("ethertype", "switch", "Of an EtherType that this network does not carry.", 8),
    Reason("label-use", "switch", "To a label, but no AI packet.", 9),
    Reason("label-way", "switch", "To a label, on a way that no control centre has laid.", 10),
    Reason("control-address", "switch", "To a gateway or border speaker, by who has no business there.", 11),
    Reason("no-route", "switch", "To an address that nobody has.", 12),
    Reason("ttl", "switch", "Its time to live was spent at a gateway.", 13),
    Reason("revoked", "switch", "AI traffic from, or to, a terminal that is revoked.", 14),
    Reason("label-mark", "switch", "Bears the mark of what was steered, which only a label's last switch sets.", 16),
    Reason("meter", "switch", "More packets for the control centre than its port may send up.", 15),
    Reason("packet-in rate", "control centre", "The same, at a switch that cannot meter."),
    Reason("packet-in queue", "control centre", "Its port has as many packets waiting as one may have."),
    Reason("frame", "control centre", "Not the frame that it claims to be, or from nobody's port."),
    Reason("source", "control centre", "Sent from another's address; its switch let it go no further."),
    Reason("steering", "control centre", "Authentic, but not to be steered; the text says why."),
    Reason("not-owner", "control centre", "Asks about an object or a model that is another's."),
    Reason("report", "control centre", "Reports what cannot be true, or for another."),
    Reason("revoked-key", "reader", "Signed, launched or owned by a terminal that is revoked."),
    Reason("unsteered", "reader", "Launched straight to this address, past its control centre."),
    Reason("unsigned", "reader", "No, or not the right kind of authentication, mandate, time or key share."),
    Reason("holder", "reader", "Who sends is not who the certificate, the mandate or the control centre says."),
    Reason("owner", "reader", "No such owner, or the mandate is the holder's own make."),
    Reason("expired", "reader", "Sent At outside the window, or the mandate's time is over."),
    Reason("replayed", "reader", "Said before."),
    Reason("mandate", "reader", "Not the owner's word for this object, this content, this visit."),
    Reason("signature", "reader", "The signature is wrong."),
    Reason("mac", "reader", "The keyed MAC is wrong."),
    Reason("role", "reader", "The receiver may not read this object."),
    Reason("throttled", "reader", "More costly checks than the budget of one source, or of all."),
    Reason("unknown-transfer", "reader", "A shard of no transfer that is known here."),
    Reason("busy", "reader", "No room for another object, or another sender of one."),
    Reason("too-large", "reader", "An object of more bytes or shards than are taken."),
    Reason("digest", "reader", "A whole object that is not what its launch announced."),
    Reason("message", "reader", "No control message, or one with a figure out of bounds."),
    Reason("short", "reader", "Shorter than a header."),
    Reason("version", "reader", "Of another version."),
    Reason("length", "reader", "Its lengths contradict each other."),
    Reason("header-checksum", "reader", "The header was altered."),
    Reason("payload-checksum", "reader", "The payload was altered."),
    Reason("type", "reader", "Of a type that there is not."),
    Reason("option", "reader", "An option is broken, or stands twice."),
    Reason("field", "reader", "A field has a value that it cannot have."),
    Reason("shard", "reader", "A shard outside of its object."),
)
WORDS: Final = frozenset(reason.word for reason in REASONS)
BY_NUMBER: Final = {reason.number: reason.word for reason in REASONS if reason.number}
NUMBER: Final = {word: number for number, word in BY_NUMBER.items()}


def reasons_table() -> str:
    """Return the documentation of all reasons as a Markdown table."""
    rows = ["| reason | refused by | what it says |", "|---|---|---|"]
    rows += [f"| `{reason.word}` | {reason.where} | {reason.help} |" for reason in REASONS]
    return "\n".join(rows) + "\n"
