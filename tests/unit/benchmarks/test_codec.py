"""The benchmark of the codec measures what it says, in a glance instead of seconds."""

from __future__ import annotations

import pytest

from benchmarks import codec


def test_every_way_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "SLICE_S", 0.0)
    monkeypatch.setattr(codec, "PACKETS", 16)
    rates = codec.measure(100, 2)
    built = {"encode", "batch_write", "word_batch_write", "mac_batch_write", "scapy_build"}
    assert set(rates) == built | {"decode", "batch_parse", "word_batch_parse", "mac_batch_parse", "scapy_parse"}
    assert min(rates.values()) > 0
    assert rates["encode"] > 5 * rates["scapy_build"] and rates["decode"] > 5 * rates["scapy_parse"]
