"""The edge cache: what is answered from memory, what never is, when what is kept ends, who asks for what is missing."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hosts.errors import BadCommand
from hosts.inference import onward
from hosts.inference.caching import Cache, key_of
from hosts.inference.serving import Hosted
from hosts.inference.ways import NO_MODEL, Answerer
from hosts.learning.errors import LearningError
from hosts.learning.task import model_to_bytes
from hosts.learning.ways.split import cut_model
from hosts.roles.own_jobs import OwnJob
from hosts.roles.owner import ModelOwner
from packets.messages import (
    Ack,
    Answer,
    Ask,
    Busy,
    JobSpec,
    Need,
    Refused,
    Retire,
    State,
    Way,
    decode_message,
    encode_message,
)
from packets.wire import Header, PacketType
from tests.unit.hosts.inference.test_ways import ASKER, LARGE, TEXT, House, chances_of, owner, samples

TASK = "vignettes/cached"
OTHER = model_to_bytes(TEXT.new_model(77))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(onward, "RETRY_S", 0.01)
    monkeypatch.setattr(onward, "REFRESH_S", 0.01)
    return House(tmp_path)


def cached(house: House, at: int = 0, **way: Any) -> int:
    """Deploy a cache; return its label."""
    return house.deploy(at, NO_MODEL, "cached", 0.9, kind="cached", asks=[""], **way)


def with_model(house: House, at: int = 1, **way: Any) -> int:
    house.deploy(at, LARGE, accuracy=0.9)
    label = cached(house, **way)
    until(lambda: house.places[0].role.onward.knows("vignettes"))
    return label


def hosted(house: House, label: int, at: int = 0) -> Hosted:
    return house.places[at].role._by_label[label]


def answered(house: House, label: int, sample: list[float], **more: Any) -> Answer:
    _, answer, _ = house.ask(label, TASK, sample, **more)
    assert isinstance(answer, Answer), answer
    return answer


def until(look: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not look():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- what is answered


@pytest.mark.parametrize("at", [0, 1])
def test_the_second_time_nothing_is_computed(house: House, at: int) -> None:
    label, sample = with_model(house, at), samples()[0]
    first, second = answered(house, label, sample), answered(house, label, sample)
    assert not first.cached and first.infer_ms > 0 and second.cached and second.infer_ms == 0
    assert first.answer == second.answer == TEXT.labels[int(chances_of(TEXT, 1, sample).argmax())]
    assert second.model_accuracy == {"broad": 0.9}
    assert (second.answered_by, second.state and second.state.label) == ("m1", label)
    plain = next(iter(house.labels["vignettes"]))
    assert hosted(house, plain, at).in_flight == 0 and len([a for a in house.net.asks if a.hops]) == at
    told = hosted(house, label).told(0.0)
    assert (told["hits"], told["misses"], told["in_flight"]) == (1, 1, 0) and told["service_ms"] > 0


def test_what_is_asked_otherwise_is_another_question(house: House) -> None:
    label, (one, other) = with_model(house), samples(2)
    answered(house, label, one)
    for sample, more in (
        (other, {}), (one, {"chances": True}), (one, {"need": Need(broad_accuracy=0.5)}),
        ([*one[:-1], one[-1] + 1], {}),
    ):  # fmt: skip
        assert not answered(house, label, sample, **more).cached
        assert answered(house, label, sample, **more).cached
    late = Need(deadline_ms=900, local=True)
    assert answered(house, label, one, need=late).cached, "until when it is of use changes no answer"


def test_an_answer_for_a_third_place_goes_there_from_memory_too(house: House) -> None:
    label, sample = with_model(house), samples()[0]
    answered(house, label, sample)
    _, reply, by = house.ask(label, TASK, sample, answer_to="10.1.0.77")
    assert isinstance(reply, Ack) and by == "10.1.0.1"


def test_who_sends_on_to_a_cache_has_its_answer_without_a_state(house: House) -> None:
    label, sample = with_model(house), samples()[0]
    answered(house, label, sample)
    to = {"answer_to": ASKER[0], "answer_port": ASKER[1]}
    assert (answer := answered(house, label, sample, **to)).cached and answer.state is None


# --- what is kept, and for how long


def test_refusals_are_not_kept(house: House) -> None:
    label = with_model(house)
    for _ in range(2):
        _, reply, _ = house.ask(label, TASK, [1.0, 2.0])
        assert isinstance(reply, Refused)
    _, reply, _ = house.ask(label, TASK, [], activations=b"x")
    assert isinstance(reply, Refused) and "takes samples" in reply.reason
    cache = hosted(house, label).model.cache
    assert cache is not None and not len(cache) and not cache._waiting


def test_a_model_that_is_too_busy_is_told_of_and_not_kept(house: House) -> None:
    label, sample = with_model(house), samples()[0]
    serving = house.places[1].role.serving
    serving.in_flight = serving.limit
    _, reply, _ = house.ask(label, TASK, sample)
    assert isinstance(reply, Busy) and reply.state.label == label, "the cache's state: it is the one that was asked"
    serving.in_flight = 0
    assert not answered(house, label, sample).cached and answered(house, label, sample).cached


def test_a_busy_model_beside_the_cache_is_passed_by_where_there_is_another(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    label, (one, other) = with_model(house, 0), samples(2)
    busy = Busy(reason="full", state=State(label=5))
    monkeypatch.setattr(house.places[0].role.serving, "put", lambda *_: busy)
    _, reply, _ = house.ask(label, TASK, one)
    assert isinstance(reply, Busy) and reply.reason == "full"
    house.deploy(1, LARGE, accuracy=0.9)
    until(lambda: len(house.places[0].role.onward.elsewhere("vignettes")) == 1)
    assert answered(house, label, other).answer and [a.task for a in house.net.asks if a.hops] == ["vignettes"]


def test_who_answers_too_badly_for_the_class_is_refused(house: House) -> None:
    house.deploy(1, LARGE, accuracy=0.6)
    label = cached(house)
    until(lambda: house.places[0].role.onward.knows("vignettes"))
    _, reply, _ = house.ask(label, TASK, samples()[0], need=Need(broad_accuracy=0.8))
    assert isinstance(reply, Refused) and "not good enough in broad" in reply.reason
    house.deploy(2, OTHER, accuracy=0.85)
    until(lambda: len(house.places[0].role.onward.elsewhere("vignettes")) == 2)
    for number in range(4):
        sample = samples()[number]
        right = TEXT.labels[int(chances_of(TEXT, 77, sample).argmax())]
        assert answered(house, label, sample, need=Need(broad_accuracy=0.8)).answer == right


def test_nobody_to_ask_is_said(house: House) -> None:
    _, reply, _ = house.ask(cached(house), TASK, samples()[0])
    assert isinstance(reply, Refused) and "no model of task vignettes" in reply.reason


def test_answers_expire(house: House) -> None:
    label, sample = with_model(house, expiry_s=0.2), samples()[0]
    answered(house, label, sample)
    assert answered(house, label, sample).cached
    time.sleep(0.25)
    assert not answered(house, label, sample).cached


def test_of_more_than_fit_the_one_asked_for_longest_ago_goes(house: House) -> None:
    label, (one, two, three) = with_model(house, entries=2), samples(3)
    for sample in (one, two, one, three):
        answered(house, label, sample)
    assert [answered(house, label, s).cached for s in (one, three, two)] == [True, True, False]
    cache = hosted(house, label).model.cache
    assert cache is not None and len(cache) == 2


@pytest.mark.parametrize("at", [0, 1])
def test_a_model_that_is_deployed_anew_answers_for_itself(house: House, at: int) -> None:
    label, sample = with_model(house, at), samples()[0]
    answered(house, label, sample)
    old = next(iter(house.labels["vignettes"]))
    new = house.deploy(at, OTHER, accuracy=0.9)  # the old label goes on being answered, by the new one
    del house.labels["vignettes"][old]
    until(lambda: at == 0 or house.places[0].role.onward.elsewhere("vignettes")[0].label == new)
    answer = answered(house, label, sample)
    assert not answer.cached and answer.answer == TEXT.labels[int(chances_of(TEXT, 77, sample).argmax())]
    assert answered(house, label, sample).cached


def test_a_model_beside_the_cache_that_ends_is_spoken_for_no_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    label, sample = with_model(house, 0), samples()[0]
    answered(house, label, sample)
    monkeypatch.setattr(onward, "REFRESH_S", 60.0)  # nobody else tells of it
    old = next(iter(house.labels["vignettes"]))
    time.sleep(0.05)
    house.places[0].role.serve_dcc(Retire(label=old))
    _, reply, _ = house.ask(label, TASK, sample)
    assert isinstance(reply, Refused)


def test_a_model_that_is_gone_is_spoken_for_no_more(house: House) -> None:
    label, sample = with_model(house), samples()[0]
    answered(house, label, sample)
    house.labels["vignettes"].clear()
    until(lambda: not house.places[0].role.onward.knows("vignettes"))
    _, reply, _ = house.ask(label, TASK, sample)
    assert isinstance(reply, Refused)


# --- alone, by its own clock


def of(label: int, word: str = "yes") -> Answer:
    return Answer(answer=word, confidence=0.9, answered_by="m1", state=State(label=label))


def test_a_version_that_is_news_ends_what_was_before_it() -> None:
    cache = Cache(60.0, 8)
    cache.keep(b"a", of(1), {1}, 0.0)
    cache.keep(b"b", of(2), {1}, 0.0)  # label 1 was asked, 2 answers: nobody had told of it yet
    assert cache.find(b"a", {1}, 0.0) is None and cache.find(b"b", {2}, 0.0) == of(2)
    assert (cache.hits, cache.misses) == (1, 1)


def test_an_answer_of_no_known_version_is_not_kept() -> None:
    cache = Cache(60.0, 8)
    cache.keep(b"a", msgspec.structs.replace(of(1), state=None), {1}, 0.0)
    assert not len(cache)


def test_a_key_is_all_that_matters_and_nothing_else() -> None:
    ask = Ask(task="t", sample=[1, 2], need=Need(broad_accuracy=0.8))
    same: list[dict[str, Any]] = [
        {"hops": 2},
        {"answer_to": "10.0.0.1"},
        {"need": Need(broad_accuracy=0.8, deadline_ms=5)},
    ]
    other: list[dict[str, Any]] = [{"sample": [1, 3]}, {"sample": [12]}, {"chances": True}, {"need": Need()},
             {"need": Need(broad_accuracy=0.8, expert_group="g", expert_accuracy=0.1)}]  # fmt: skip
    assert {key_of(msgspec.structs.replace(ask, **more)) for more in same} == {key_of(ask)}
    assert len({key_of(msgspec.structs.replace(ask, **more)) for more in other} | {key_of(ask)}) == 6


def test_bytes_that_are_no_cache_are_not_deployed() -> None:
    with pytest.raises(LearningError, match="a cache is deployed as"):
        Answerer(TEXT, LARGE, Way(kind="cached", asks=[""]))
    with pytest.raises(LearningError, match="0 variants to ask"):
        Answerer(TEXT, NO_MODEL, Way(kind="cached"))
    for bad in ({"expiry_s": 0.0}, {"expiry_s": 1e9}, {"entries": 0}, {"entries": 1 << 20}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"kind": "cached", "asks": [""], **bad}, Way)


# --- many at once


def test_those_that_ask_the_same_at_once_have_it_asked_once(house: House) -> None:
    label, sample, gate = with_model(house), samples()[0], threading.Event()
    role = house.places[1].role
    infer = role.serving._infer
    role.serving._infer = lambda hosted, asks: (gate.wait(5), infer(hosted, asks))[1]
    many = 6
    for number in range(many):
        header = Header(type=PacketType.QUERY, object_id=label, transfer_id=500 + number)
        house.net.to_label(ASKER, header, encode_message(Ask(task=TASK, sample=sample)), label)
    until(lambda: hosted(house, label).in_flight == many)
    gate.set()
    heard = [house.net.heard.get(timeout=5) for _ in range(many)]
    assert {header.transfer_id for header, _, _ in heard} == set(range(500, 500 + many))
    assert len({message.answer for _, message, _ in heard if isinstance(message, Answer)}) == 1
    further = [a for a in house.net.asks if a.hops]
    assert len(further) == 1 and hosted(house, label).in_flight == 0
    with pytest.raises(queue.Empty):
        house.net.heard.get(timeout=0.05)


def test_a_cache_holds_as_many_queries_as_a_model_does(house: House) -> None:
    label, gate = with_model(house), threading.Event()
    role = house.places[1].role
    infer = role.serving._infer
    role.serving._infer = lambda hosted, asks: (gate.wait(5), infer(hosted, asks))[1]
    house.places[0].role.serving.limit = 1
    header = Header(type=PacketType.QUERY, object_id=label, transfer_id=900)
    house.net.to_label(ASKER, header, encode_message(Ask(task=TASK, sample=samples()[0])), label)
    until(lambda: hosted(house, label).in_flight == 1)
    _, reply, _ = house.ask(label, TASK, samples()[1])
    assert isinstance(reply, Busy) and "1 queries wait here" in reply.reason
    gate.set()
    assert isinstance(house.net.heard.get(timeout=5)[1], Answer)


# --- models that stand beside those that they ask


def test_a_model_that_asks_one_of_its_own_terminal_needs_no_network(house: House) -> None:
    lower, upper = cut_model(TEXT, TEXT.new_model(1), 1)
    house.deploy(0, upper.to_bytes(), "split-upper", kind="upper", cut=1, seal=upper.seal)
    label = house.deploy(0, lower.to_bytes(), "split", kind="lower", cut=1, seal=lower.seal, asks=["split-upper"])
    for sample in samples(3):
        _, answer, by = house.ask(label, "vignettes/split", sample)
        assert isinstance(answer, Answer) and by == "10.1.0.1" and answer.state is None
        assert answer.answer == TEXT.labels[int(chances_of(TEXT, 1, sample).argmax())]
    assert not [a for a in house.net.asks if a.hops]


def test_old_answers_stay_as_they_are() -> None:
    encoded = encode_message(of(1))
    assert b"cached" not in encoded and decode_message(encoded) == of(1)
    assert b"expiry" not in msgspec.msgpack.encode(Way(kind="switched", asks=["a"]))


# --- the owner


def own_trained(role: ModelOwner, folder: Path) -> None:
    """Have a trained model of job 7 at home."""
    file = folder / "trained"
    file.write_bytes(LARGE)
    role._jobs.put(7, OwnJob(JobSpec(task="vignettes"), file, {"broad": 0.8}))


def test_an_owner_deploys_a_cache_as_what_it_is(tmp_path: Path) -> None:
    role, network = owner(tmp_path)
    own_trained(role, tmp_path)
    way = {"kind": "cached", "asks": [""], "expiry_s": 5.0}
    role.command({"op": "deploy", "object_id": 7, "variant": "cached", "way": way, "to": "3:@mdfp/0"})
    (told,) = network.asked
    assert (told.size_bytes, told.target, told.accuracy) == (len(NO_MODEL), "3:@mdfp/0", {"broad": 0.8})
    assert told.way == Way(kind="cached", asks=[""], expiry_s=5.0)


def test_an_owner_cuts_its_model_for_the_way_between_two_places(tmp_path: Path) -> None:
    role, _ = owner(tmp_path)
    own_trained(role, tmp_path)
    about = {"object_id": 7, "shares": [1.0, 1.0], "rtt_ms": 4.0}
    slow = role.command({"op": "split", "rate_mbps": 0.05, **about})
    assert slow["at"] == 2, "the later the cut the less travels"
    for variant, kind in (("split", "lower"), ("split-upper", "upper")):
        source, way = slow[variant]["source"], msgspec.convert(slow[variant]["way"], Way)
        assert way.kind == kind and source["accuracy"] == {"broad": 0.8}
        assert Answerer(TEXT, Path(source["file"]).read_bytes(), way).way.cut == 2
    assert slow["split"]["way"]["asks"] == ["split-upper"]
    for bad in ({"rate_mbps": 0}, {"rate_mbps": "fast"}, {"rate_mbps": 1.0, "shares": [1.0]}, {}):
        with pytest.raises(BadCommand, match="split: "):
            role.command({"op": "split", **about, **bad})
