"""Checksums of many headers at once: a CRC is linear in its bits, so one header's tells that of its neighbours."""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from packets.wire import FIXED_BYTES

TAG_BYTES = 8  # of an acknowledgement's MAC
FEW = 50
CHECKSUM_AT: Final = FIXED_BYTES - 4
NO_CHECKSUM: Final = bytes(4)

Bytes = NDArray[np.uint8]


def _crc_table(distance: int) -> NDArray[np.uint32]:
    """Return what a byte (0 to 255) does to a CRC when ``i`` bytes follow it, (distance, 256)."""
    table = np.empty((distance, 256), np.uint32)
    table[0] = [zlib.crc32(bytes((byte,))) ^ zlib.crc32(b"\0") for byte in range(256)]
    for i in range(1, distance):
        table[i] = table[0][table[i - 1] & 0xFF] ^ (table[i - 1] >> np.uint32(8))
    return table


_CRC: Final = _crc_table(FIXED_BYTES)


def header_checksums(headers: Bytes) -> NDArray[np.uint32]:
    """Return the checksum of every row of ``headers`` (n, header length), its own field taken as 0."""
    if len(headers) < FEW:
        return _checksums_of_few(headers)
    first = headers[0].tobytes()
    start = zlib.crc32(first[FIXED_BYTES:], zlib.crc32(NO_CHECKSUM, zlib.crc32(first[:CHECKSUM_AT])))
    differ = headers ^ headers[0]
    columns = np.flatnonzero(np.bitwise_or.reduce(differ, axis=0))
    columns = columns[(columns < CHECKSUM_AT) | (columns >= FIXED_BYTES)]
    places = differ.T[columns] + 256 * (headers.shape[1] - 1 - columns)[:, None]  # (columns that differ, n)
    sums: NDArray[np.uint32] = np.bitwise_xor.reduce(_CRC.reshape(-1).take(places), axis=0) ^ np.uint32(start)
    return sums


def _checksums_of_few(headers: Bytes) -> NDArray[np.uint32]:
    """Return the same one by one: below some fifty rows that is cheaper than arrays."""
    rows, length, crc32 = headers.tobytes(), headers.shape[1], zlib.crc32
    sums = [
        crc32(rows[at + FIXED_BYTES : at + length], crc32(NO_CHECKSUM, crc32(rows[at : at + CHECKSUM_AT])))
        for at in range(0, len(rows), length)
    ]
    return np.array(sums, np.uint32)
