"""Labels: how an AI object is named on the wire without naming a place.

An AI object has a 64-bit identity; its low 28 bits are its *label*, and the label is carried as an IPv4
destination in ``240.0.0.0/4`` (class E, assigned to no host).  Layout of the identity, most significant first::

    nonce (36 bit) | home K-AS (8 bit) | sequence (20 bit)
                   '---------- label, 28 bit ---------'

Labels whose home K-AS is 0 are well known: label 1 is "the DCC of the K-AS I am in"; labels from
``CLASS_LABEL_BASE`` on name a *class* of deployed models (what a query asks for).
"""

from __future__ import annotations

import functools
import ipaddress
import zlib

AI_PORT = 55831
STEERED_DSCP = 0b101011  # set by the last switch of a label's path, on no terminal's frame (local use: RFC 2474)
LABEL_BITS = 28
LABEL_MASK = (1 << LABEL_BITS) - 1
LABEL_NETWORK = ipaddress.IPv4Network("240.0.0.0/4")
SEQUENCE_BITS = 20
MAX_SEQUENCE = (1 << SEQUENCE_BITS) - 1
DCC_LABEL = 1
CLASS_LABEL_BASE = 0x1_0000
CLASS_LABELS = 0xF_0000  # up to the last label of home K-AS 0


def make_object_id(home_kas: int, sequence: int, nonce: int) -> int:
    """Build a 64-bit object identity; ``ValueError`` when a part does not fit its field."""
    if not 1 <= home_kas <= 0xFF:
        raise ValueError(f"home K-AS {home_kas} is not in 1..255")
    if not 0 <= sequence <= MAX_SEQUENCE:
        raise ValueError(f"object sequence {sequence} does not fit {SEQUENCE_BITS} bits")
    if not 0 <= nonce < 1 << 36:
        raise ValueError("object nonce does not fit 36 bits")
    return nonce << LABEL_BITS | home_kas << SEQUENCE_BITS | sequence


def object_label(object_id: int) -> int:
    """Return the 28-bit label of an object."""
    return object_id & LABEL_MASK


def home_kas(object_id: int) -> int:
    """Return the K-AS in which the object was announced (0: a well-known label)."""
    return (object_id & LABEL_MASK) >> SEQUENCE_BITS


def class_label(task: str, accuracy_class: int = 0) -> int:
    """Return the label of a class of deployed models, for queries (DESIGN: "queries carry a class label")."""
    return CLASS_LABEL_BASE + zlib.crc32(f"{task}/{accuracy_class}".encode()) % CLASS_LABELS


def is_class_label(label: int) -> bool:
    """Tell whether a label names a class of models rather than one object."""
    return CLASS_LABEL_BASE <= label < CLASS_LABEL_BASE + CLASS_LABELS


def label_address(label: int) -> str:
    """Return the class E IPv4 address that carries a label."""
    if not 0 <= label <= LABEL_MASK:
        raise ValueError(f"label {label} does not fit {LABEL_BITS} bits")
    return str(LABEL_NETWORK.network_address + label)


@functools.lru_cache(maxsize=4096)
def address_label(address: str) -> int:
    """Return the label that an address in 240.0.0.0/4 carries; ``ValueError`` for any other address."""
    ip = ipaddress.IPv4Address(address)
    if ip not in LABEL_NETWORK:
        raise ValueError(f"{address} is not in {LABEL_NETWORK}: it names a place, not an object")
    return int(ip) & LABEL_MASK


DCC_ADDRESS = label_address(DCC_LABEL)
