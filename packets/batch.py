"""Many shards at once: the batch codec.  Same layout and same verdicts as ``wire.py``, no Python object per packet.

``ShardTrain`` writes shards of one object end to end (what UDP_SEGMENT wants), ``parse`` reads a block of received
datagrams into arrays.  Per packet there is one ``zlib.crc32`` of the payload (one BLAKE2b where each is to have a MAC),
the rest is array arithmetic.  The CRC of a header is linear in its bits: that of one header, XORed with table entries
for the bytes in which another header of the same length differs, is that of the other.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from packets.errors import PacketError
from packets.security.checksums import CHECKSUM_AT, header_checksums
from packets.wire import (
    FIXED_BYTES,
    SEALED,
    SHARD_TYPES,
    VERSION,
    Buffer,
    Flag,
    Header,
    PacketType,
    encode,
)

REASONS: Final = ("", "short", "version", "length", "header-checksum", "type", "option", "payload-checksum", "shard")
GOOD, USE_DECODE = 0, 255
SHORT, WRONG_VERSION, WRONG_LENGTH, WRONG_HEADER, WRONG_TYPE, _, WRONG_PAYLOAD, WRONG_SHARD = range(1, len(REASONS))

_FIXED: Final = np.dtype(
    [
        ("version_class", "u1"), ("type", "u1"), ("flags", ">u2"), ("header_length", ">u2"), ("length", ">u2"),
        ("object_id", ">u8"), ("owner", ">u4"), ("transfer_id", ">u4"), ("shard_index", ">u4"), ("shard_count", ">u4"),
        ("offset", ">u8"), ("total_length", ">u8"), ("visit", ">u2"), ("visit_limit", ">u2"), ("timestamp_us", ">u4"),
        ("payload_checksum", ">u4"), ("header_checksum", ">u4"),
    ]
)  # fmt: skip
_KNOWN_TYPE: Final = np.isin(np.arange(256), list(PacketType))
_IS_SHARD: Final = np.isin(np.arange(256), list(SHARD_TYPES))

_SUMS_AT, _SUM_BYTES = CHECKSUM_AT - 4, 4  # payload checksum, then header checksum

_Kind = TypeVar("_Kind", np.int64, np.uint64)

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Longs = NDArray[np.uint64]
Words = NDArray[np.uint32]
Truths = NDArray[np.bool_]


class _Field(Generic[_Kind]):
    """A field of the fixed header as an attribute of ``Parsed``, converted to native byte order when asked for."""

    def __init__(self, source: str, kind: type[_Kind], *, shift: int = 0, mask: int | None = None) -> None:
        self._kind: type[_Kind] = kind
        self._source, self._shift, self._mask = source, shift, mask

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, parsed: Parsed, owner: type) -> NDArray[_Kind]:
        value: NDArray[Any] = parsed.raw[self._source].astype(self._kind)
        if self._mask is not None:
            value = (value >> self._shift) & self._mask
        parsed.__dict__[self._name] = value  # found there from now on, without coming here
        return value


class ShardTrain:
    """All shards of one object, ready to be written in batches.

    ``template`` gives the fields that all shards share (shard count and total length are filled in). Sealed are they by
    ``words``, which gives one a shard (ONE_TIME), or by ``mac``, the key of a keyed BLAKE2b (KEYED).  ``PacketError``
    when a value does not fit.
    """

    def __init__(
        self,
        template: Header,
        payload: Buffer,
        shard_bytes: int,
        *,
        words: Callable[[Numbers], Words] | None = None,
        mac: bytes | None = None,
    ) -> None:
        self._payload = memoryview(payload).cast("B")
        self._bytes: Bytes = np.frombuffer(self._payload, np.uint8)
        self.shard_bytes, self.total = shard_bytes, len(self._payload)
        self.count = max(-(-self.total // shard_bytes), 1)
        self._last_bytes = self.total - (self.count - 1) * shard_bytes
        self._words, self._mac = words, None if mac is None else _keyed(mac)
        self.stride = FIXED_BYTES + shard_bytes
        seal = int(Flag.ONE_TIME) if words else int(Flag.KEYED) if mac else 0
        self._flags = int(template.flags) | seal
        self._first: Bytes = np.frombuffer(self._first_header(template), np.uint8)

    def _first_header(self, template: Header) -> bytes:
        """Return a header with all that the shards share, its checksums 0."""
        header = encode(msgspec.structs.replace(template, shard_count=self.count, total_length=self.total))
        if len(header) != FIXED_BYTES:
            raise PacketError("field", "shards carry no option")
        return header[:_SUMS_AT] + bytes(2 * _SUM_BYTES)

    def write(
        self, into: bytearray | memoryview, at: int, indices: Sequence[int] | Numbers, *, timestamp_us: int, high: int
    ) -> int:
        """Write shards end to end into ``into`` from ``at`` on; return the position after them.

        Shards below ``high`` are marked REPEATED.  Each takes ``stride`` bytes; only the object's last shard may be
        shorter, and is written last wherever it stands in ``indices``.
        """
        which = np.asarray(indices, np.int64)
        if not len(which):
            return at
        if int(which.min()) < 0 or int(which.max()) >= self.count:
            raise PacketError("field", f"shards {which.min()} to {which.max()} of an object that has {self.count}")
        if self._last_bytes == self.shard_bytes:
            return self._write(into, at, which, self.shard_bytes, timestamp_us, high)
        is_last = which == self.count - 1
        at = self._write(into, at, which[~is_last], self.shard_bytes, timestamp_us, high)
        return self._write(into, at, which[is_last], self._last_bytes, timestamp_us, high)

    def _write(
        self, into: bytearray | memoryview, at: int, which: Numbers, size: int, timestamp_us: int, high: int
    ) -> int:
        """Write shards of ``size`` bytes each."""
        head, count = FIXED_BYTES, len(which)
        end = at + count * (head + size)
        if not count:
            return at
        rows: Bytes = np.frombuffer(into, np.uint8, end - at, at).reshape(count, head + size)
        headers = self._headers(which, size, timestamp_us, high)
        rows[:, head:] = self._shards(which, size)
        fields = _fields(headers)
        fields["payload_checksum"] = self._sums(which, size, headers)
        fields["header_checksum"] = header_checksums(headers)
        rows[:, :head] = headers
        return end

    def _shards(self, which: Numbers, size: int) -> Bytes:
        """Return the payloads of these shards, (n, size); a view where they are neighbours."""
        first, count = int(which[0]), len(which)
        if count == 1 or bool((np.diff(which) == 1).all()):
            begin = first * self.shard_bytes
            return self._bytes[begin : begin + count * size].reshape(count, size)
        if size < self.shard_bytes:  # the last shard, several times
            return np.broadcast_to(self._shards(which[:1], size), (count, size))
        whole = self.total // size
        return self._bytes[: whole * size].reshape(whole, size)[which]

    def _sums(self, which: Numbers, size: int, headers: Bytes) -> Words:
        """Return the payload checksums of these shards, as they are sealed, (n,)."""
        begins = (which * self.shard_bytes).tolist()
        if self._mac is not None:
            return _tags(self._mac, headers, self._payload, begins, [begin + size for begin in begins])
        view, crc32 = self._payload, zlib.crc32
        sums = np.array([crc32(view[begin : begin + size]) for begin in begins], np.uint32)
        return sums if self._words is None else sums ^ self._words(which)

    def _headers(self, which: Numbers, size: int, timestamp_us: int, high: int) -> Bytes:
        """Return the headers of these shards, (n, header bytes), checksums 0."""
        headers: Bytes = np.tile(self._first, (len(which), 1))
        fixed = _fields(headers)
        fixed["length"], fixed["timestamp_us"] = size, timestamp_us
        fixed["shard_index"], fixed["offset"] = which, which * self.shard_bytes
        last = (which == self.count - 1) * int(Flag.LAST)
        fixed["flags"] = self._flags | last | (which < high) * int(Flag.REPEATED)
        return headers


class Parsed:
    """The fixed fields of a block of datagrams, one array of length n each, and the ``verdict`` on every datagram.

    ``verdict``: GOOD; USE_DECODE (it has options: ask ``wire.decode``); else the position in ``REASONS``.  The fields
    of a datagram that is not GOOD are what happens to stand there.  ``sealed``: a shard whose payload checksum only
    ``words_right`` or ``macs_right`` can check.
    """

    def __init__(self, frames: Bytes, sizes: Numbers) -> None:
        if (
            frames.dtype != np.uint8
            or frames.ndim != 2
            or not frames.flags.c_contiguous
            or frames.shape[1] < FIXED_BYTES
        ):
            raise ValueError(f"frames are contiguous bytes, (n, at least {FIXED_BYTES})")
        self._frames, self._sizes = frames, np.asarray(sizes, np.int64)
        self._heads: Bytes = frames[:, :FIXED_BYTES].copy()
        self.raw = _fields(self._heads)
        self.type: Bytes = self.raw["type"]
        self.header_length = self.payload_at = _numbers(self.raw["header_length"])
        self.length = _numbers(self.raw["length"])
        self.payload_checksum = _numbers(self.raw["payload_checksum"])
        self.sealed: Truths = _IS_SHARD[self.type] & ((self.flags & int(SEALED)) != 0)
        self._sums: Words = np.zeros(len(frames), np.uint32)
        self.verdict: Bytes = self._judge()

    version = _Field("version_class", np.int64, shift=4, mask=0xF)
    traffic_class = _Field("version_class", np.int64, mask=0xF)
    flags = _Field("flags", np.int64)
    object_id = _Field("object_id", np.uint64)
    owner = _Field("owner", np.int64)
    transfer_id = _Field("transfer_id", np.int64)
    shard_index = _Field("shard_index", np.int64)
    shard_count = _Field("shard_count", np.int64)
    offset = _Field("offset", np.uint64)
    total_length = _Field("total_length", np.uint64)
    visit = _Field("visit", np.int64)
    visit_limit = _Field("visit_limit", np.int64)
    timestamp_us = _Field("timestamp_us", np.int64)
    header_checksum = _Field("header_checksum", np.int64)

    def __len__(self) -> int:
        return len(self.type)

    def payload(self, row: int) -> memoryview:
        """Return the payload of one good datagram, a view of the block."""
        begin = int(self.payload_at[row])
        return self._frames[row, begin : begin + int(self.length[row])].data

    def words_right(self, words: Callable[[Numbers], Words], rows: Numbers) -> Truths:
        """Tell which of these good shards were sealed with their words, (len(rows),)."""
        right: Truths = (self.flags[rows] & int(SEALED)) == int(Flag.ONE_TIME)
        right &= (self._sums[rows] ^ words(self.shard_index[rows])) == self.payload_checksum[rows]
        return right

    def macs_right(self, key: bytes, rows: Numbers) -> Truths:
        """Tell which of these good shards were sealed with a MAC under this key, (len(rows),)."""
        heads = self._heads[rows]
        heads[:, _SUMS_AT:] = 0
        made = _tags(_keyed(key), heads, self._frames.reshape(-1).data, *self._payload_bounds(rows))
        right: Truths = (self.flags[rows] & int(SEALED)) == int(Flag.KEYED)
        right &= made == self.payload_checksum[rows]
        return right

    def _judge(self) -> Bytes:
        """Apply the rules, the first of the table last: it is the one that counts."""
        short, version = self._sizes < FIXED_BYTES, self.version != VERSION
        misfit = (self.header_length < FIXED_BYTES) | (self.header_length + self.length != self._sizes)
        misfit |= self._sizes > self._frames.shape[1]
        options = self.header_length != FIXED_BYTES
        readable = ~(short | version | misfit | options)
        altered, unknown = self._altered_headers(readable), ~_KNOWN_TYPE[self.type]
        verdict = np.where(self._misplaced(), np.uint8(WRONG_SHARD), np.uint8(GOOD))
        verdict[self._altered_payloads(readable & ~altered & ~unknown)] = WRONG_PAYLOAD
        for wrong, what in (
            (unknown, WRONG_TYPE), (altered, WRONG_HEADER), (options, USE_DECODE), (misfit, WRONG_LENGTH),
            (version, WRONG_VERSION), (short, SHORT),
        ):  # fmt: skip
            verdict[wrong] = what
        return verdict

    def _altered_headers(self, rows: Truths) -> Truths:
        altered = np.zeros(len(self), np.bool_)
        if rows.any():
            every: Any = slice(None) if rows.all() else rows  # the usual case, without a copy
            altered[every] = header_checksums(self._heads[every]) != self.header_checksum[every]
        return altered

    def _altered_payloads(self, rows: Truths) -> Truths:
        which = np.flatnonzero(rows & ~(self.sealed & ((self.flags & int(Flag.KEYED)) != 0)))
        view, crc32 = self._frames.reshape(-1).data, zlib.crc32
        sums = [crc32(view[begin:end]) for begin, end in zip(*self._payload_bounds(which), strict=True)]
        self._sums[which] = sums
        altered: Truths = rows & ~self.sealed & (self._sums != self.payload_checksum)
        return altered

    def _payload_bounds(self, rows: Numbers) -> tuple[list[int], list[int]]:
        """Return begin and end of these datagrams' payloads in the flat block."""
        begin = rows * self._frames.shape[1] + self.payload_at[rows]
        return begin.tolist(), (begin + self.length[rows]).tolist()

    def _misplaced(self) -> Truths:
        """Tell which shards contradict themselves; a launch without options has no digest."""
        length = self.length.astype(np.uint64)
        outside = (self.total_length < self.offset) | (self.total_length - self.offset < length)
        launch = (self.flags & int(Flag.LAUNCH)) != 0
        wrong: Truths = _IS_SHARD[self.type] & (launch | (self.shard_index >= self.shard_count) | outside)
        return wrong


def parse(frames: Bytes, sizes: Sequence[int] | Numbers) -> Parsed:
    """Parse datagrams: row i of ``frames`` (n, stride) holds the first bytes of one that has ``sizes[i]``."""
    return Parsed(frames, np.asarray(sizes, np.int64))


def _fields(headers: Bytes) -> NDArray[Any]:
    """Return the fixed headers of ``headers`` (n, at least 64) as a structured view, (n,)."""
    return np.ndarray((len(headers),), _FIXED, headers, strides=(headers.strides[0],))


def _numbers(field: NDArray[Any]) -> Numbers:
    return field.astype(np.int64)


def _keyed(key: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(key=key, digest_size=_SUM_BYTES)


def _tags(keyed: hashlib.blake2b, heads: Bytes, view: memoryview, begin: Sequence[int], end: Sequence[int]) -> Words:
    """Return the MAC of each packet, (n,): over its header (checksums 0) and its payload ``view[begin:end]``."""
    fixed, tags = heads.tobytes(), bytearray()
    for row, (first, stop) in enumerate(zip(begin, end, strict=True)):
        mac = keyed.copy()
        mac.update(fixed[row * FIXED_BYTES : (row + 1) * FIXED_BYTES])
        mac.update(view[first:stop])
        tags += mac.digest()
    return np.frombuffer(tags, ">u4").astype(np.uint32)
