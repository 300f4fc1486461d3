"""The keeper: nothing altered, cut, old, repeated or somebody else's is ever taken, and each has its own word."""

from __future__ import annotations

import contextlib
import struct
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packets.errors import IdentityError, PacketError, TransportError
from packets.labels import DCC_ADDRESS
from packets.options import Authentication
from packets.security import seal
from packets.security.keeper import Keeper
from packets.security.pair_keys import Session
from packets.security.replay import WINDOW_MS, Budget
from packets.security.seal import Refusal
from packets.transfers import OutgoingObject
from packets.wire import Acknowledgement, Flag, Header, PacketType, decode, encode
from tests.keys import PEOPLE, ROLES, Stage, address, an_object, launch, launched


def judged(keeper: Keeper, raw: bytes, source: str) -> str:
    """What becomes of a launch packet: the reason of its refusal, or ``taken``."""
    try:
        header, _ = decode(raw)
    except PacketError as error:
        return error.reason
    result = keeper.accept(header, raw, (address(source) if source in ROLES else source, 1))
    return str(result) if isinstance(result, Refusal) else "taken"


def mended(raw: bytes) -> bytes:
    """A packet whose checksums fit again, as an attacker would make them."""
    data = bytearray(raw)
    header_length = struct.unpack_from("!H", data, 4)[0]
    if header_length > len(data):
        return raw
    struct.pack_into("!I", data, 56, zlib.crc32(data[header_length:]))
    struct.pack_into("!I", data, 60, zlib.crc32(bytes(data[:60]) + bytes(4) + bytes(data[64:header_length])))
    return bytes(data)


# --- launches ---


def test_a_launch_is_taken_and_both_ends_agree_on_a_session() -> None:
    stage, obj = Stage(), an_object()
    raw = launch(stage["owner1"], obj)
    at_receiver = stage["h11"].accept(decode(raw)[0], raw, (address("owner1"), 1))
    assert isinstance(at_receiver, Session) and at_receiver.peer.name == "owner1"
    ack = Header(type=PacketType.ACK, flags=Flag.REPLY, object_id=obj.object_id, transfer_id=5,
                 ack=Acknowledgement(base=0))  # fmt: skip
    answer = stage["h11"].answer(ack, at_receiver)
    at_sender = stage["owner1"].confirm(decode(answer)[0], answer, (address("h11"), 1))
    assert isinstance(at_sender, Session) and at_sender.peer.name == "h11"
    assert (at_sender.send_key, at_sender.receive_key) == (at_receiver.receive_key, at_receiver.send_key)
    assert at_receiver.cipher(16, at_sender.cipher(16, b"secret")) == b"secret"


def test_a_repeated_launch_keeps_its_session_and_an_exact_copy_is_refused() -> None:
    stage, obj = Stage(), an_object()
    first = launch(stage["owner1"], obj)
    session = stage["h11"].accept(decode(first)[0], first, (address("owner1"), 1))
    again = launch(stage["owner1"], obj)
    assert stage["h11"].accept(decode(again)[0], again, (address("owner1"), 1)) is session
    for copy in (first, again):
        assert judged(stage["h11"], copy, "owner1") == "replayed"


def test_a_launch_goes_on_from_holder_to_holder_with_its_owners_mandate() -> None:
    stage, obj = Stage(), an_object()
    first = decode(launch(stage["owner1"], obj))[0]
    onward = an_object(payload=b"trained", visit=1, mandate=first.mandate)
    assert judged(stage["mpvu2"], launch(stage["h11"], onward), "h11") == "taken"


def second_hand(stage: Stage, **more: Any) -> OutgoingObject:
    """The owner's object at its second holder."""
    mandate = decode(launch(stage["owner1"], an_object(), 99))[0].mandate
    fields = {"payload": b"trained", "visit": 1, "mandate": mandate}
    return an_object(**(fields | more))


def swapped(stage: Stage) -> bytes:
    """The mandate of another object."""
    other = decode(launch(stage["owner1"], an_object(object_id=77), 98))[0].mandate
    return launch(stage["h11"], second_hand(stage, mandate=other))


def forged_mandate(stage: Stage) -> bytes:
    """An authenticated holder writes the mandate itself, in the owner's name."""
    obj = second_hand(stage)
    word = seal.make_mandate(launched(obj), bytes(32), stage.clock.now_ms, stage.clock.now_ms + 60_000, PEOPLE["h11"])
    return launch(stage["h11"], msgspec.structs.replace(obj, mandate=word))


def unsigned(stage: Stage) -> bytes:
    header, _ = decode(launch(stage["owner1"], an_object()))
    return encode(msgspec.structs.replace(header, authentication=None))


def altered(stage: Stage) -> bytes:
    raw = bytearray(launch(stage["owner1"], an_object()))
    raw[11] ^= 1
    return bytes(raw)


def altered_and_mended(stage: Stage) -> bytes:
    raw = bytearray(launch(stage["h11"], second_hand(stage)))
    raw[45] ^= 1  # the visit
    return mended(raw)


def long_mandate(stage: Stage) -> bytes:
    raw = launch(stage["h11"], second_hand(stage))
    header, _ = decode(raw)
    assert header.mandate is not None
    word = msgspec.structs.replace(header.mandate, expires_ms=header.mandate.expires_ms + 1)
    return seal.seal_with_signature(msgspec.structs.replace(header, mandate=word), b"", PEOPLE["h11"])


def old_mandate(stage: Stage) -> bytes:
    raw = launch(stage["h11"], second_hand(stage))
    stage.clock.now_ms += 24 * 3_600_000
    header = msgspec.structs.replace(decode(raw)[0], sent_at_ms=stage.clock.now_ms)
    return seal.seal_with_signature(header, b"", PEOPLE["h11"])


def another_start(stage: Stage) -> bytes:
    """The owner's mandate, on visit 0, over other content."""
    genuine = decode(launch(stage["owner1"], an_object(), 97))[0].mandate
    return launch(stage["owner1"], an_object(payload=b"poison", mandate=genuine))


def late(stage: Stage) -> bytes:
    raw = launch(stage["owner1"], an_object())
    stage.clock.now_ms += WINDOW_MS + 1
    return raw


def early(stage: Stage) -> bytes:
    stage.clock.now_ms += 60_000
    raw = launch(stage["owner1"], an_object())
    stage.clock.now_ms -= 60_000
    return raw


def no_owner(stage: Stage) -> bytes:
    header = msgspec.structs.replace(decode(launch(stage["h11"], second_hand(stage)))[0], owner="10.8.8.8")
    return seal.seal_with_signature(header, b"", PEOPLE["h11"])


@pytest.mark.parametrize(
    "make, source, reason",
    [
        (unsigned, "owner1", "unsigned"),
        (altered, "owner1", "header-checksum"),
        (altered_and_mended, "h11", "signature"),
        (long_mandate, "h11", "mandate"),
        (swapped, "h11", "mandate"),
        (another_start, "owner1", "mandate"),
        (forged_mandate, "h11", "owner"),
        (no_owner, "h11", "owner"),
        (lambda s: launch(s["h11"], an_object(mandate=second_hand(s).mandate)), "h11", "holder"),
        (lambda s: launch(s["h11"], second_hand(s)), "h12", "holder"),
        (lambda s: launch(s["h11"], second_hand(s)), "10.7.7.7", "holder"),
        (late, "owner1", "expired"),
        (early, "owner1", "expired"),
        (old_mandate, "h11", "expired"),
        (lambda s: launch(s["h11"], second_hand(s, visit=41)), "h11", "mandate"),
    ],
)
def test_each_wrong_has_its_own_word(make: Any, source: str, reason: str) -> None:
    stage = Stage()
    assert judged(stage["mpvu2"], make(stage), source) == reason


def test_nobody_gives_a_mandate_for_what_is_not_theirs() -> None:
    with pytest.raises(TransportError, match="no mandate"):
        launch(Stage()["h11"], an_object())


@given(st.integers(0, 10_000), st.integers(1, 255))
@settings(max_examples=200)
def test_no_altered_launch_is_taken_even_with_its_checksums_mended(where: int, change: int) -> None:
    stage = Stage()
    good = launch(stage["h11"], second_hand(stage))
    raw = bytearray(good)
    raw[where % len(raw)] ^= change
    assert judged(stage["mpvu2"], bytes(raw), "h11") != "taken"
    fixed = mended(bytes(raw))
    if fixed != good:  # what was altered may have been the checksum
        assert judged(stage["mpvu2"], fixed, "h11") != "taken"


@given(st.data())
def test_no_truncated_launch_is_taken(data: st.DataObject) -> None:
    stage = Stage()
    raw = launch(stage["h11"], second_hand(stage))
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    assert judged(stage["mpvu2"], cut, "h11") in ("short", "length")


def test_bad_launches_cost_no_more_verifications_than_the_budget() -> None:
    stage = Stage()
    keeper = stage.keeper("mpvu2", budget=Budget(rate=10, burst=6, all_rate=100, all_burst=100))
    stage.clock.now_ms += 10
    seen = [judged(keeper, altered_and_mended_as(stage, n), "h11") for n in range(20)]
    assert seen == ["signature"] * 3 + ["throttled"] * 17
    assert judged(keeper, launch(stage["owner1"], an_object()), "owner1") == "taken", "others have their own budget"
    stage.clock.now_ms += 1000
    assert judged(keeper, launch(stage["h11"], second_hand(stage), 500), "h11") == "taken"


def altered_and_mended_as(stage: Stage, number: int) -> bytes:
    raw = bytearray(launch(stage["h11"], second_hand(stage), 100 + number))
    raw[45] ^= 2
    return mended(bytes(raw))


# --- first acknowledgements ---


def answered(stage: Stage, by: str, **more: Any) -> bytes:
    obj = an_object(**more)
    raw = launch(stage["owner1"], obj)
    session = stage[by].accept(decode(raw)[0], raw, (address("owner1"), 1))
    assert isinstance(session, Session)
    ack = Header(type=PacketType.ACK, flags=Flag.REPLY, object_id=obj.object_id, transfer_id=5,
                 ack=Acknowledgement(base=0))  # fmt: skip
    return stage[by].answer(ack, session)


def confirmed(stage: Stage, raw: bytes, source: str) -> str:
    result = stage["owner1"].confirm(decode(raw)[0], raw, (address(source), 1))
    return str(result) if isinstance(result, Refusal) else "taken"


def test_only_the_right_role_may_answer_for_what_is_encrypted() -> None:
    for by, source, outcome in (("mpvu2", "mpvu2", "taken"), ("h11", "h11", "role"), ("h11", "mpvu2", "holder")):
        stage = Stage()
        assert confirmed(stage, answered(stage, by, receiver_roles=("mpvu",)), source) == outcome


def test_what_is_handed_over_keeps_its_mandate_and_its_readers() -> None:
    """An MPVU that is withdrawn passes on what its owner encrypted for an MPVU: to no other role."""
    stage = Stage()
    mandate = decode(launch(stage["h11"], an_object("h11"), 9))[0].mandate
    obj = an_object("h11", flags=Flag.HANDOVER | Flag.ENCRYPTED)
    header = msgspec.structs.replace(launched(obj), mandate=mandate)
    raw = stage["mpvu2"].launch(obj, header)
    session = stage["h12"].accept(decode(raw)[0], raw, (address("mpvu2"), 1))
    assert isinstance(session, Session), "on visit 0 from another than the owner, with the owner's content"
    ack = Header(type=PacketType.ACK, flags=Flag.REPLY, object_id=obj.object_id, transfer_id=5,
                 ack=Acknowledgement(base=0))  # fmt: skip
    answer = stage["h12"].answer(ack, session)
    assert stage["mpvu2"].confirm(decode(answer)[0], answer, (address("h12"), 1)) == "role"


def test_a_forged_first_acknowledgement_is_refused() -> None:
    stage = Stage()
    raw = answered(stage, "mpvu2")
    header = decode(raw)[0]
    assert confirmed(stage, encode(msgspec.structs.replace(header, authentication=None)), "mpvu2") == "unsigned"
    other_share = msgspec.structs.replace(header, key_share=bytes(31) + b"\x09")
    assert confirmed(stage, encode(other_share), "mpvu2") == "signature"
    stranger = msgspec.structs.replace(header, transfer_id=6)
    assert confirmed(stage, encode(stranger), "mpvu2") == "unsigned", "an acknowledgement of no transfer of ours"


# --- requests ---


def request(keeper: Keeper, to: str, transfer_id: int = 1, kind: PacketType = PacketType.ANNOUNCE) -> bytes:
    header = Header(type=kind, owner=keeper.own.address, transfer_id=transfer_id, total_length=4)
    return keeper.sign_request(header, b"word", to)


def checked(keeper: Keeper, raw: bytes, source: str) -> str:
    refusal = keeper.check_request(decode(raw)[0], raw, (address(source), 1))
    return str(refusal) if refusal else "taken"


def test_a_request_is_for_its_listener_alone_and_counts_once() -> None:
    stage = Stage()
    raw = request(stage["h11"], address("mpvu2"))
    assert checked(stage["h12"], raw, "h11") == "mac"
    assert checked(stage["mpvu2"], raw, "h12") == "holder"
    assert checked(stage["mpvu2"], raw, "h11") == "taken"
    assert checked(stage["mpvu2"], raw, "h11") == "replayed"
    stage.clock.now_ms += 200
    assert checked(stage["mpvu2"], request(stage["h11"], address("mpvu2")), "h11") == "taken", "a repeat, sent anew"
    late_one = request(stage["h11"], address("mpvu2"), 2)
    stage.clock.now_ms += WINDOW_MS + 1
    assert checked(stage["mpvu2"], late_one, "h11") == "expired"


def test_a_request_is_not_played_back_to_who_made_it() -> None:
    stage = Stage()
    raw = request(stage["h11"], address("mpvu2"))
    header, payload = decode(raw)
    assert header.authentication is not None
    number = PEOPLE["mpvu2"].certificate.number
    turned = msgspec.structs.replace(header.authentication, key_id=number)
    back = encode(msgspec.structs.replace(header, authentication=turned), payload)
    assert checked(stage["h11"], back, "mpvu2") == "mac"


def test_a_terminal_speaks_with_the_control_centre_of_its_own_k_as() -> None:
    stage = Stage()
    raw = request(stage["h11"], DCC_ADDRESS)
    assert checked(stage["dcc1"], raw, "h11") == "taken"
    assert checked(stage["dcc2"], raw, "h11") == "mac"
    header = Header(type=PacketType.ANNOUNCE, flags=Flag.REPLY, transfer_id=1)
    answer = stage["dcc1"].sign_request(header, b"ack", address("h11"))
    assert checked(stage["h11"], answer, "dcc1") == "taken"
    forged = stage["dcc2"].sign_request(header, b"ack", address("h11"))
    assert checked(stage["h11"], forged, "dcc1") == "holder"


def test_a_query_to_a_class_of_models_is_signed_for_whoever_gets_it() -> None:
    stage = Stage()
    raw = request(stage["h11"], "240.1.2.3", kind=PacketType.QUERY)
    for listener in ("dcc1", "mpvu2"):
        assert checked(stage[listener], raw, "h11") == "taken"
        assert checked(stage[listener], raw, "h11") == "replayed"


def test_a_script_signs_a_query_with_a_key_file() -> None:
    stage = Stage()
    plain = encode(Header(type=PacketType.QUERY, owner=address("h11"), transfer_id=8), b"ask")
    raw = seal.sign_query(plain, PEOPLE["h11"], stage.clock.now_ms)
    assert checked(stage["mpvu2"], raw, "h11") == "taken"
    with pytest.raises(IdentityError, match="owner"):
        seal.sign_query(plain, PEOPLE["h12"])
    with pytest.raises(IdentityError, match="query"):
        seal.sign_query(encode(Header(type=PacketType.PROBE)), PEOPLE["h11"])


@given(st.integers(0, 10_000), st.integers(1, 255), st.booleans())
def test_no_altered_request_is_taken(where: int, change: int, query: bool) -> None:
    stage = Stage()
    kind = PacketType.QUERY if query else PacketType.ANNOUNCE
    good = request(stage["h11"], "240.1.2.3" if query else address("mpvu2"), kind=kind)
    raw = bytearray(good)
    raw[where % len(raw)] ^= change
    fixed = mended(bytes(raw))
    if fixed == good:
        return
    with contextlib.suppress(PacketError):
        assert checked(stage["mpvu2"], fixed, "h11") != "taken"


def test_an_unsigned_request_and_a_tag_of_an_unknown_kind_are_refused() -> None:
    stage = Stage()
    plain = encode(Header(type=PacketType.TELEMETRY, sent_at_ms=stage.clock.now_ms), b"")
    assert checked(stage["mpvu2"], plain, "h11") == "unsigned"
    own = PEOPLE["h11"].certificate.number
    zero = Authentication(algorithm=1, key_id=own, tag=bytes(16))
    raw = encode(Header(type=PacketType.TELEMETRY, sent_at_ms=stage.clock.now_ms, authentication=zero))
    assert checked(stage["mpvu2"], raw, "h11") == "mac"


# --- revoked ---


def test_who_is_revoked_is_refused_as_holder_owner_receiver_and_speaker_and_taken_again_when_restored() -> None:
    stage, obj = Stage(), an_object()
    raw = launch(stage["owner1"], obj)
    onward = an_object(visit=1, mandate=decode(raw)[0].mandate)
    held = launch(stage["h11"], onward, 6)
    said = request(stage["h11"], address("mpvu2"))
    answer = answered(stage, "mpvu2")
    stage["mpvu2"].revoked = frozenset({"h11", "owner1"})
    assert judged(stage["mpvu2"], raw, "owner1") == "revoked-key", "its owner launches"
    stage["mpvu2"].revoked = frozenset({"h11"})
    assert (
        judged(stage["mpvu2"], held, "h11") == "revoked-key" and checked(stage["mpvu2"], said, "h11") == "revoked-key"
    )
    stage["mpvu2"].revoked = frozenset({"owner1"})
    assert judged(stage["mpvu2"], held, "h11") == "revoked-key", "another launches what is its own"
    stage["mpvu2"].revoked = frozenset()
    assert judged(stage["mpvu2"], held, "h11") == "taken" and checked(stage["mpvu2"], said, "h11") == "taken"
    for keeper in stage.keepers.values():
        keeper.revoked = frozenset({"mpvu2"})
    assert confirmed(stage, answer, "mpvu2") == "revoked-key", "nothing is sent to a rendezvous that is revoked"
