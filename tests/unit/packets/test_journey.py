"""Charter and trail of autonomous objects: what was signed is believed, and nothing that was altered, cut, too long."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packets.aats.journey import (
    MAX_ROUTE,
    MAX_STOPS,
    Charter,
    Journey,
    Stop,
    TrailError,
    begun,
    pack,
    unpack,
)
from packets.aats.probe import MAX_GROUPS, Probe, ProbeReply
from packets.messages import JobSpec, decode_message, encode_message
from packets.security.identity import Directory
from tests.keys import DIRECTORY, PEOPLE, address

OBJECT = 0x1234_0010_0001
OWNER, H11, H12, MPVU = (address(name) for name in ("owner1", "h11", "h12", "mpvu2"))
AT = {address(name): PEOPLE[name] for name in ("owner1", "h11", "h12", "mpvu2")}
ROUTE = [("start", OWNER, "train", H11), ("train", H11, "verify", MPVU), ("verify", MPVU, "train", H12)]
CHARTER = Charter(object_id=OBJECT, owner=OWNER, spec=JobSpec(task="vignettes"), issued_ms=1_700_000_000_000)


def stop(action: Any, where: str, then: Any, to: str, **more: Any) -> Stop:
    return Stop(
        address=where, kas=1, action=action, next=then, to=to, why="near", at_ms=1_700_000_000_001, digest=bytes(32),
        **more,
    )  # fmt: skip


def journey(route: list[tuple[str, str, str, str]] = ROUTE, *, keys: bool = True) -> Journey:
    found = begun(CHARTER, PEOPLE["owner1"] if keys else None)
    for entry in route:
        found = found.grown(stop(*entry), AT[entry[1]] if keys else None)
    return found


def check(
    found: Journey, here: str = H12, visit: int = 2, directory: Directory | None = DIRECTORY, **more: Any
) -> None:
    about: dict[str, Any] = {"object_id": OBJECT, "owner": OWNER, "visit": visit, "here": here} | more
    found.check(directory=directory, **about)


def test_what_was_signed_is_believed_and_comes_over_the_wire() -> None:
    found, model = unpack(pack(journey(), b"a model"))
    assert (found, model) == (journey(), b"a model")
    check(found)
    assert found.charter == CHARTER


def test_each_entry_is_checked_at_each_stop() -> None:
    for count in range(1, len(ROUTE) + 1):
        check(journey(ROUTE[:count]), here=ROUTE[count - 1][3], visit=count - 1)


ALTERED: dict[str, dict[str, Any]] = {
    "figure": {"samples": 7}, "reason": {"why": "far"}, "time": {"at_ms": 5}, "model": {"digest": bytes(31) + b"x"},
    "verdict": {"accepted": True}, "signature": {"signature": bytes(64)}, "no signature": {"signature": b""},
}  # fmt: skip


@pytest.mark.parametrize("what", ALTERED)
@pytest.mark.parametrize("at", range(len(ROUTE)))
def test_an_entry_that_was_altered_is_not_believed(what: str, at: int) -> None:
    good = journey()
    trail = [*good.trail]
    trail[at] = msgspec.structs.replace(trail[at], **ALTERED[what])
    with pytest.raises(TrailError, match="not what was signed"):
        check(msgspec.structs.replace(good, trail=trail))


@pytest.mark.parametrize("change", [{"spec": JobSpec(task="other")}, {"issued_ms": 9}])
def test_a_charter_that_was_altered_is_not_believed(change: dict[str, Any]) -> None:
    text = msgspec.msgpack.encode(msgspec.structs.replace(CHARTER, **change))
    with pytest.raises(TrailError, match="not what was signed"):
        check(msgspec.structs.replace(journey(), text=text))


def test_a_trail_that_was_cut_or_reordered_is_not_believed() -> None:
    good = journey()
    for trail in (good.trail[1:], good.trail[:1] + good.trail[2:], good.trail[:2], []):
        with pytest.raises(TrailError, match="entries in the trail"):
            check(msgspec.structs.replace(good, trail=trail))
    with pytest.raises(TrailError, match="entry 1 is verify"):
        check(msgspec.structs.replace(good, trail=[good.trail[0], good.trail[2], good.trail[1]]))


def test_an_entry_of_another_journey_does_not_fit() -> None:
    other = begun(msgspec.structs.replace(CHARTER, issued_ms=7), PEOPLE["owner1"])
    for entry in ROUTE:
        other = other.grown(stop(*entry), AT[entry[1]])
    mixed = msgspec.structs.replace(journey(), trail=[*journey().trail[:2], other.trail[2]])
    with pytest.raises(TrailError, match="not what was signed"):
        check(mixed)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"here": H11}, f"sends the object to {H12}, not to {H11}"),
        ({"visit": 3}, "3 entries in the trail of an object at stop 3"),
        ({"object_id": 5}, "charter is that of another"),
        ({"owner": H11}, "charter is that of another"),
    ],
)
def test_an_object_for_somebody_else_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(TrailError, match=words):
        check(journey(), **more)


@pytest.mark.parametrize(
    "route",
    [
        [("start", OWNER, "verify", H11), ("verify", H11, "train", H12)],
        [("start", OWNER, "train", MPVU), ("train", MPVU, "verify", H12)],
    ],
)
def test_nobody_does_what_his_certificate_does_not_say(route: list[tuple[str, str, str, str]]) -> None:
    with pytest.raises(TrailError, match="may not"):
        check(journey(route), here=H12, visit=1)


def test_a_model_that_was_home_is_deployed_and_nothing_else_is() -> None:
    home = [*ROUTE[:2], ("verify", MPVU, "home", OWNER)]
    check(journey([*home, ("home", OWNER, "deploy", H12)]), visit=3)
    with pytest.raises(TrailError, match="leads from home to train"):
        check(journey([*home, ("home", OWNER, "train", H12)]), visit=3)
    with pytest.raises(TrailError, match="leads from verify to deploy"):
        check(journey([*ROUTE[:2], ("verify", MPVU, "deploy", H12)]))


@pytest.mark.parametrize(
    "route", [[("start", OWNER, "start", H12)], [("start", OWNER, "home", OWNER), ("home", OWNER, "train", H12)]]
)
def test_a_trail_does_not_begin_again_nor_go_on_from_home(route: list[tuple[str, str, str, str]]) -> None:
    with pytest.raises(TrailError, match="leads from"):
        check(journey(route), here=H12, visit=len(route) - 1)


def test_an_owner_who_is_none_gives_no_charter() -> None:
    mine = msgspec.structs.replace(CHARTER, owner=H11)
    found = begun(mine, PEOPLE["h11"]).grown(stop("start", H11, "train", H12), PEOPLE["h11"])
    with pytest.raises(TrailError, match="no model owner"):
        check(found, owner=H11, visit=0)


def test_an_open_network_believes_a_chain_that_fits() -> None:
    check(journey(keys=False), directory=None)
    with pytest.raises(TrailError, match="not what was signed"):
        check(journey(keys=False))


def test_a_journey_that_is_too_long_does_not_leave_nor_come_in() -> None:
    there_and_back = [("start", OWNER, "train", H11)] + [("train", H11, "train", H11)] * MAX_STOPS
    found = journey(there_and_back[: MAX_STOPS + 1], keys=False)
    with pytest.raises(TrailError, match="longer than any may be"):
        pack(found, b"")
    text = msgspec.msgpack.encode(found)
    with pytest.raises(TrailError, match="no journey"):
        unpack(b"DAJ1" + len(text).to_bytes(4, "big") + text)
    with pytest.raises(TrailError, match="does not begin"):
        unpack(b"DAJ1" + (1 << 30).to_bytes(4, "big") + bytes(64))


@pytest.mark.parametrize("cut", [0, 3, 4, 7, 8, 9, 40, -9])
def test_a_file_that_is_cut_is_refused(cut: int) -> None:
    whole = pack(journey(), b"")
    with pytest.raises(TrailError):
        unpack(whole[:cut])


@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    for data in (noise, b"DAJ1" + len(noise).to_bytes(4, "big") + noise):
        with pytest.raises(TrailError):
            unpack(data)


@pytest.mark.parametrize(
    "bad",
    [
        {"mix": {f"g{n}": 0.0 for n in range(MAX_GROUPS + 1)}}, {"mix": {"a": 1.5}}, {"mix": {"g" * 81: 0.1}},
        {"mix": {"a": math.nan}}, {"broad": math.nan}, {"broad": -0.1}, {"epochs": math.inf}, {"loss": math.nan},
        {"why": "w" * 201}, {"samples": -1}, {"samples": 1 << 31}, {"route": ["10.1.1.1"] * (MAX_ROUTE + 1)},
        {"digest": bytes(31)}, {"kas": 256}, {"to": ""}, {"action": "rest"}, {"more": 1},
    ],
)  # fmt: skip
def test_an_entry_out_of_bounds_is_refused(bad: dict[str, Any]) -> None:
    entry = msgspec.to_builtins(journey().trail[0], builtin_types=(bytes,)) | bad
    told = {"text": journey().text, "word": journey().word, "trail": [entry]}
    text = msgspec.msgpack.encode(told)
    with pytest.raises(TrailError, match="no journey"):
        unpack(b"DAJ1" + len(text).to_bytes(4, "big") + text)


# --- probes ---

NAMES = st.text("abcdefghij0123456789", min_size=1, max_size=32)
SHARES = st.floats(0, 1)
COUNTS = st.integers(0, (1 << 31) - 1)
REPLIES = st.builds(
    ProbeReply, name=NAMES, role=NAMES, kas=st.integers(0, 255), task=NAMES, ready=st.booleans(), queue=COUNTS,
    samples_per_s=st.floats(0, 1e12), samples=COUNTS, quality=SHARES, test_samples=COUNTS, at_work=st.booleans(),
    mix=st.dictionaries(st.text(max_size=80), SHARES, max_size=MAX_GROUPS), last_visit=st.integers(-1, 0xFFFF),
)  # fmt: skip


@given(REPLIES | st.builds(Probe, name=NAMES, object_id=st.integers(0, (1 << 64) - 1), task=NAMES))
def test_a_probe_and_its_reply_come_over_the_wire(message: Probe | ProbeReply) -> None:
    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize(
    "bad",
    [
        {"mix": {f"g{n}": 0.0 for n in range(MAX_GROUPS + 1)}}, {"mix": {"a": -0.1}}, {"mix": {"a": math.nan}},
        {"quality": 1.1}, {"quality": math.nan}, {"samples_per_s": math.inf}, {"samples_per_s": -1.0},
        {"samples": -1}, {"queue": 1 << 31}, {"last_visit": -2}, {"last_visit": 1 << 16}, {"kas": -1},
        {"name": ""}, {"name": "n" * 33}, {"role": 5}, {"ready": "yes"}, {"mix": {"g" * 81: 0.5}},
    ],
)  # fmt: skip
def test_a_reply_out_of_bounds_is_no_message(bad: dict[str, Any]) -> None:
    good = {"m": "probe=", "name": "h11", "role": "data", "kas": 1, "task": "t"}
    assert isinstance(decode_message(msgspec.msgpack.encode(good)), ProbeReply)
    with pytest.raises(msgspec.DecodeError):
        decode_message(msgspec.msgpack.encode(good | bad))
