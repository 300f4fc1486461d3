"""KBGP as a Scapy layer, for scripts: build messages, and read what a TLS session said once its keys are known.

>>> from packets.kbgp.layer import KBGP
>>> from packets.kbgp.messages import Keepalive
>>> KBGP.of(Keepalive()).summary()
'KBGP KEEPALIVE'
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from scapy.fields import ByteEnumField, ByteField, IntField, ShortField, StrFixedLenField, StrLenField
from scapy.packet import Packet

from packets.kbgp.messages import HEADER, MARKER, VERSION, KbgpError, Message, Type, decode, encode, split


class KBGP(Packet):  # type: ignore[misc]
    """One message; ``length`` left out is set when it is built. ``read`` gives its body as a message."""

    name = "KBGP"
    fields_desc: ClassVar = [
        StrFixedLenField("marker", MARKER, len(MARKER)),
        ByteField("version", VERSION),
        ByteEnumField("type", Type.KEEPALIVE, {int(kind): kind.name for kind in Type}),
        ShortField("reserved", 0),
        IntField("length", None),
        StrLenField("body", b"", length_from=lambda packet: max((packet.length or 0) - HEADER.size, 0)),
    ]

    @classmethod
    def of(cls, message: Message) -> KBGP:
        """Return the packet of a message."""
        return cls(encode(message))

    def read(self) -> Message:
        """Return the message; ``KbgpError`` when it is none."""
        kind, _ = split(bytes(self)[: HEADER.size])
        return decode(kind, self.body)

    def post_build(self, packet: bytes, payload: bytes) -> bytes:
        """Set the length where none was given."""
        if self.length is None:
            packet = packet[:8] + len(packet).to_bytes(4, "big") + packet[HEADER.size :]
        return packet + payload

    def extract_padding(self, data: bytes) -> tuple[bytes, bytes | None]:
        """What follows is the next message of the stream, and no payload of this one."""
        return b"", data

    def mysummary(self) -> str:
        """Name the message in one line."""
        kind = self.type
        return f"KBGP {Type(kind).name if kind in Type._value2member_map_ else f'type {kind}'}"


def messages(stream: bytes) -> Iterator[KBGP]:
    """Yield the messages of one direction of a session (decrypted); ``KbgpError`` where it breaks the protocol."""
    at = 0
    while at + HEADER.size <= len(stream):
        _, size = split(stream[at : at + HEADER.size])
        end = at + HEADER.size + size
        if end > len(stream):
            return
        yield KBGP(stream[at:end])
        at = end


__all__ = ["KBGP", "KbgpError", "messages"]
