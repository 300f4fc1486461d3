"""KBGP's codec: what is in bounds comes back the same, everything else is refused with the right NOTIFICATION."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from packets.kbgp.knowledge import MAX_KNOWLEDGE_BYTES, MOST, Bounds, Knowledge, contradictions
from packets.kbgp.messages import (
    HEADER,
    LIMITS,
    MARKER,
    MAX_BODY_BYTES,
    MAX_HOPS,
    MAX_PATH,
    TYPES,
    Advertisement,
    Announce,
    Code,
    KbgpError,
    Message,
    Notification,
    Open,
    Reply,
    Request,
    Sub,
    Type,
    Update,
    decode,
    encode,
    split,
)
from tests.fuzz.targets import good_border, kbgp_message

kas = st.integers(1, 255)
words = st.text(min_size=1, max_size=48)
bounds = st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)).map(lambda p: Bounds(low=min(p), high=max(p)))
knowledges = st.builds(
    Knowledge, kas=kas, epoch_ms=st.integers(0, MOST), serial=st.integers(0, MOST),
    terminals=st.dictionaries(st.sampled_from(["data", "mdfp", "host"]), st.integers(0, 10**6)),
    compute=st.none() | bounds,
)  # fmt: skip
paths = st.lists(kas, min_size=1, max_size=MAX_PATH)
advertisements = st.builds(Advertisement, path=paths, knowledge=knowledges, signature=st.binary(max_size=64))
questions = {
    "id": st.integers(0, 2**53), "to_kas": kas, "trail": st.lists(kas, min_size=1, max_size=MAX_HOPS),
    "left_ms": st.integers(0, 600_000), "body": st.binary(max_size=200),
}  # fmt: skip
messages = st.one_of(
    st.builds(
        Open, versions=st.lists(st.integers(0, 255), min_size=1, max_size=8), kas=kas, gateway=words, link=words,
        hold_ms=st.integers(0, 240_000), boot_ms=st.integers(0, MOST), restart_s=st.integers(0, 4095),
        restarting=st.booleans(), capabilities=st.lists(words, max_size=3),
    ),
    st.builds(Update, withdrawn=st.lists(kas, max_size=255), advertised=st.lists(advertisements, max_size=8)),
    st.builds(Notification, code=st.integers(0, 255), sub=st.integers(0, 255), reason=st.text(max_size=200)),
    st.builds(Request, **questions),
    st.builds(Announce, **questions, object_id=st.integers(0, 2**64 - 1), visit=st.integers(0, 65535)),
    st.builds(Reply, id=st.integers(0, 2**53), code=st.integers(0, 255), reason=st.text(max_size=200)),
)  # fmt: skip


@given(message=messages)
def test_what_is_sent_is_what_is_read(message: Message) -> None:
    data = encode(message)
    kind, size = split(data[: HEADER.size])
    assert size == len(data) - HEADER.size and decode(kind, data[HEADER.size :]) == message


def test_all_types_are_among_the_good_ones() -> None:
    assert {TYPES[type(message)] for message in good_border()} == set(Type)
    assert all(kbgp_message(encode(message)) == message for message in good_border())


@given(message=messages, cut=st.integers(1, 50))
def test_what_is_cut_is_refused(message: Message, cut: int) -> None:
    data = encode(message)[HEADER.size :]
    with pytest.raises(KbgpError):
        decode(TYPES[type(message)], data[:-cut])


@pytest.mark.parametrize(
    "header, sub",
    [
        (HEADER.pack(b"KBGQ", 1, 4, 0, 12), Sub.MARKER),
        (HEADER.pack(MARKER, 1, 4, 7, 12), Sub.MARKER),
        (HEADER.pack(MARKER, 2, 4, 0, 12), Sub.VERSION),
        (HEADER.pack(MARKER, 1, 0, 0, 12), Sub.TYPE),
        (HEADER.pack(MARKER, 1, 4, 0, 13), Sub.LENGTH),
        (HEADER.pack(MARKER, 1, 4, 0, 0), Sub.LENGTH),
        (HEADER.pack(MARKER, 1, 1, 0, 12), Sub.LENGTH),
        (HEADER.pack(MARKER, 1, 1, 0, 12 + 1025), Sub.LENGTH),
    ],
)
def test_a_header_is_judged_before_its_body_is_read(header: bytes, sub: Sub) -> None:
    with pytest.raises(KbgpError) as refused:
        split(header)
    assert (refused.value.code, refused.value.sub) == (Code.HEADER, sub)


def raw(kind: Type, **fields: object) -> bytes:
    good = next(m for m in good_border() if TYPES[type(m)] is kind)
    return msgspec.msgpack.encode(msgspec.to_builtins(good, builtin_types=(bytes,)) | fields)


@pytest.mark.parametrize(
    "kind, fields, code",
    [
        (Type.OPEN, {"kas": 0}, Code.OPEN),
        (Type.OPEN, {"kas": 256}, Code.OPEN),
        (Type.OPEN, {"gateway": "x" * 49}, Code.OPEN),
        (Type.OPEN, {"versions": []}, Code.OPEN),
        (Type.OPEN, {"strange": 1}, Code.OPEN),
        (Type.UPDATE, {"withdrawn": [1] * 256}, Code.UPDATE),
        (Type.UPDATE, {"advertised": [{"path": [], "knowledge": {"kas": 1, "epoch_ms": 0, "serial": 0}}]}, Code.UPDATE),
        (Type.UPDATE, {"advertised": [{"path": [1], "knowledge": {"kas": 1, "epoch_ms": 0, "serial": 0,
         "compute": {"low": float("nan"), "high": 1.0}}}]}, Code.UPDATE),
        (Type.UPDATE, {"advertised": [{"path": [1], "knowledge": {"kas": 1, "epoch_ms": 0, "serial": 0,
         "compute": {"low": 0.0, "high": float("inf")}}}]}, Code.UPDATE),
        (Type.REQUEST, {"trail": [1] * (MAX_HOPS + 1)}, Code.RELAY),
        (Type.REQUEST, {"left_ms": -1}, Code.RELAY),
        (Type.REQUEST, {"body": bytes(MAX_BODY_BYTES + 1)}, Code.RELAY),
        (Type.ANNOUNCE, {"visit": 65536}, Code.RELAY),
        (Type.REPLY, {"reason": "x" * 201}, Code.RELAY),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused(kind: Type, fields: dict[str, object], code: Code) -> None:
    with pytest.raises(KbgpError) as refused:
        decode(kind, raw(kind, **fields))
    assert refused.value.code is code and "\n" not in str(refused.value)


def test_the_largest_update_fits_its_limit() -> None:
    largest = LIMITS[Type.UPDATE]
    told = Knowledge(kas=1, epoch_ms=MOST, serial=MOST)
    one = Advertisement(path=[255] * MAX_PATH, knowledge=told, signature=bytes(64))
    own = len(msgspec.msgpack.encode(one)) - len(msgspec.msgpack.encode(told))
    assert 8 * (MAX_KNOWLEDGE_BYTES + own) + 3 * 255 < largest


def test_contradictions_are_seen() -> None:
    good = next(m for m in good_border() if isinstance(m, Update)).advertised[0].knowledge
    assert not list(contradictions(good))
    assert list(contradictions(replace(good, terminals={"data": 4}))) == ["models without a place that hosts them"]
    assert list(contradictions(replace(good, compute=Bounds(low=3, high=2))))
