"""Whole journeys without a control centre: real roles, models and keys, the network between them in this process."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from controller.values.decisions import JobView, Option, Request
from experiments.commands.explain import explain, say
from hosts.autonomy.policies import POLICIES, Policy, greedy
from hosts.errors import BadCommand, HostError
from packets.aats.journey import Journey, pack, unpack
from packets.aats.probe import Probe
from packets.events import Event
from packets.labels import DCC_ADDRESS, LABEL_MASK
from packets.wire import Flag
from tests.autonomy import ADDRESSES, NAMES, Town, arrived


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("keys", [True, False])
def test_a_model_finds_its_way_to_its_target_and_home(tmp_path: Path, policy: str, keys: bool) -> None:
    town = Town(tmp_path, keys=keys)
    reply = town.submit(policy=policy)
    assert reply["admitted"] and reply["object_id"] >> 28
    town.run()
    assert town.of("error") == []
    (finished,) = town.of("job.finished")
    assert finished["state"] == "finished" and finished["broad"] >= 0.8 and finished["reason"] == "target met"
    assert [to for _, to in town.asked if to == DCC_ADDRESS] == [], "no control centre is asked for anything"
    assert all(obj.flags & Flag.AUTONOMOUS and obj.to in NAMES for obj in town.launched)
    whole = policy == "end-to-end"
    assert all(bool(obj.flags & Flag.END_TO_END) is whole for obj in town.launched)
    route = town.route()
    assert route[0].startswith("h") and route[1].startswith("mpvu") and route[-1] == "owner1"
    assert route[-2].startswith("mpvu") and route[-2] != route[-3], "confirmed where no verdict was given"
    assert len(town.of("visit.trained")) == sum(name.startswith("h") for name in route)
    (home,) = town.of("object.returned")
    trail = msgspec.json.decode((Path(home["folder"]) / "trail.json").read_bytes())["trail"]
    assert [NAMES[s["to"]] for s in trail] == route
    assert (Path(home["folder"]) / "model.safetensors").stat().st_size == home["bytes"]


def test_what_a_report_is_made_of_is_told(tmp_path: Path) -> None:
    town = Town(tmp_path)
    object_id = town.submit()["object_id"]
    town.run()
    kinds = [kind for kind, data in town.events if data.get("object_id") == object_id]
    assert kinds[:3] == ["job.submitted", "job.assessed", "job.decided"] and kinds[-1] == "job.finished"
    assert len(town.of("job.reached")) == 1
    for decided in town.of("job.decided"):
        assert decided["to"] and decided["reason"] and decided["kas"] in (1, 2), decided
    trained, decisions = town.of("visit.trained"), {d["visit"]: d for d in town.of("job.decided")}
    assert [decisions[t["visit"]]["to"] for t in trained] == [t["node"] for t in trained]


def test_where_a_terminal_does_not_take_the_object_another_one_is_chosen(tmp_path: Path) -> None:
    town = Town(tmp_path, {"h11-first": Policy("h11-first", h11_first)})
    town.deaf = {ADDRESSES["h11"]}
    owner = town.role("owner1").terminal
    owner.stopping.clear()
    town.submit(policy="h11-first")
    owner.stopping.set()
    town.deaf = set()
    assert town.route()[0] == "h11" and len(town.under_way) == 1
    assert "another stop is chosen" in town.of("warning")[0]["text"]
    town.run()
    assert town.of("job.finished")[0]["state"] == "finished"


def test_a_terminal_that_is_silent_is_not_chosen(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.dead = {ADDRESSES["h11"], ADDRESSES["mpvu1"]}
    assert town.submit()["admitted"]
    town.run()
    assert town.of("job.finished")[0]["state"] == "finished"
    assert not {"h11", "mpvu1"} & set(town.route())


def test_where_a_stop_comes_to_nothing_the_object_goes_on_elsewhere(tmp_path: Path) -> None:
    town = Town(tmp_path, {"h11-first": Policy("h11-first", h11_first)})
    town.role("h11")._halted.note(town.submit(policy="h11-first")["object_id"], "told to stop")
    town.run()
    assert town.of("job.finished")[0]["state"] == "finished"
    assert town.route().count("h11") == 1 and "told to stop" in town.of("error")[0]["text"]


def h11_first(request: Request, view: JobView, options: Sequence[Option], rng: random.Random) -> list[str]:
    return [*([] if view.visits else [ADDRESSES["h11"]]), *greedy(request, view, options, rng)]


@pytest.mark.parametrize("answer", [["10.9.9.9"], [7], 3, None])
def test_a_policy_that_answers_nonsense_is_told_of_and_greedy_chooses(tmp_path: Path, answer: Any) -> None:
    town = Town(tmp_path, {"odd": Policy("odd", lambda *_: answer)})
    assert town.submit(policy="odd")["admitted"]
    town.run()
    assert town.of("job.finished")[0]["state"] == "finished"
    assert "policy odd failed at owner1, greedy chooses" in town.of("error")[0]["text"]


def test_a_job_that_cannot_be_met_stays_with_its_owner(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.dead = {ADDRESSES["mpvu1"], ADDRESSES["mpvu2"]}
    reply = town.submit()
    assert not reply["admitted"] and "no MPVU" in " ".join(reply["reasons"]) and not town.launched


def test_a_budget_that_is_used_up_brings_the_best_there_is_home(tmp_path: Path) -> None:
    town = Town(tmp_path)
    assert town.submit(broad_accuracy=0.0, max_visits=2)["admitted"]
    town.run()
    (finished,) = town.of("job.finished")
    assert (finished["visits"], finished["reason"]) == (2, "no target to meet"), "met by any model"
    assert town.route()[-1] == "owner1" and len(town.of("visit.trained")) == 2


def test_a_limit_of_stops_brings_it_home(tmp_path: Path) -> None:
    town = Town(tmp_path)
    owner = town.role("owner1")
    object_id = town.submit(broad_accuracy=0.88)["object_id"]
    sender, obj = town.under_way.popleft()
    journey, model = unpack(obj.payload)
    town.under_way.append((sender, msgspec.structs.replace(obj, payload=pack(journey, model), visit_limit=4)))
    town.run()
    assert town.launched[-1].visit == 3 and town.route()[-1] == "owner1"
    (finished,) = town.of("job.finished")
    assert finished["state"] == "failed" and "stops are left" in finished["reason"]
    assert object_id not in owner.itself.homes


def test_an_object_that_is_overdue_is_given_up_and_not_taken_later(tmp_path: Path) -> None:
    town = Town(tmp_path)
    object_id = town.submit()["object_id"]
    owner = town.role("owner1")
    journey = owner.itself.homes[object_id]
    late = msgspec.structs.replace(journey.charter, issued_ms=journey.charter.issued_ms - 200_000)
    owner.itself.homes[object_id] = msgspec.structs.replace(journey, text=msgspec.msgpack.encode(late))
    owner.tick()
    (finished,) = town.of("job.finished")
    assert finished["state"] == "failed" and "did not come home" in finished["reason"]
    town.run()
    assert len(town.of("job.finished")) == 1 and "waits for no such object" in town.of("error")[-1]["text"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"policy": "gready"}, "did you mean 'greedy'"),
        ({"policy": "greedy", "parameters": {"jump": 1}}, "greedy has no parameter 'jump'; it has none"),
        ({"policy": "random-walk", "parameters": {"jmp": 1}}, "it has: jump, near"),
        ({"method": "gossip"}, "travels alone"),
        ({"engines": {"mtrce": "default"}}, "travels alone"),
    ],
)
def test_what_a_job_cannot_ask_for_is_said(tmp_path: Path, spec: dict[str, Any], words: str) -> None:
    town = Town(tmp_path)
    with pytest.raises(BadCommand, match=words):
        town.submit(**spec)
    assert not town.events and not town.asked


def test_nothing_reaches_it_meanwhile(tmp_path: Path) -> None:
    town = Town(tmp_path)
    object_id = town.submit()["object_id"]
    for op in ("inquire", "change"):
        with pytest.raises(BadCommand, match="finds its own way"):
            town.role("owner1").command({"op": op, "object_id": object_id})


# --- what lies ---


def stopped(town: Town) -> tuple[str, Any, Journey, bytes]:
    """Return the object on its way from its first data node to an MPVU."""
    assert town.submit()["admitted"]
    sender, obj = town.under_way.popleft()
    town.roles[obj.to].object_arrived(arrived(sender, obj))  # type: ignore[index]
    sender, obj = town.under_way.popleft()
    return sender, obj, *unpack(obj.payload)


def test_a_figure_that_was_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    town = Town(tmp_path)
    sender, obj, journey, model = stopped(town)
    better = msgspec.structs.replace(journey.trail[1], samples=99_999)
    forged = msgspec.structs.replace(journey, trail=[journey.trail[0], better])
    assert obj.to is not None
    town.roles[obj.to].object_arrived(arrived(sender, msgspec.structs.replace(obj, payload=pack(forged, model))))
    assert not town.under_way and "not what was signed" in town.of("error")[0]["text"]
    town.roles[obj.to].object_arrived(arrived(sender, obj))
    assert not town.under_way, "the same stop again: a duplicate"


def test_an_object_for_another_place_is_refused(tmp_path: Path) -> None:
    town = Town(tmp_path)
    sender, obj, *_ = stopped(town)
    town.role("h22").object_arrived(arrived(sender, obj))
    assert not town.under_way and f"not to {ADDRESSES['h22']}" in town.of("error")[0]["text"]


def test_a_model_that_is_not_the_verified_one_does_not_count(tmp_path: Path) -> None:
    town = Town(tmp_path)
    assert town.submit()["admitted"]
    while town.under_way[0][1].to != ADDRESSES["owner1"]:
        sender, obj = town.under_way.popleft()
        town.roles[obj.to].object_arrived(arrived(sender, obj))  # type: ignore[index]
    sender, obj = town.under_way.popleft()
    journey, model = unpack(obj.payload)
    other = model[:-4] + bytes(4)
    town.role("owner1").object_arrived(arrived(sender, msgspec.structs.replace(obj, payload=pack(journey, other))))
    (finished,) = town.of("job.finished")
    assert finished["state"] == "failed" and "not the model that was verified" in finished["reason"]


@pytest.mark.parametrize("payload", [b"", b"DAJ1", b"DAJ1\xff\xff\xff\xff", b"DAJ1\0\0\0\1\x80", b"a model" * 99])
def test_bytes_that_are_no_journey_are_an_error_and_nothing_else(tmp_path: Path, payload: bytes) -> None:
    town = Town(tmp_path)
    sender, obj, *_ = stopped(town)
    assert obj.to is not None
    town.roles[obj.to].object_arrived(arrived(sender, msgspec.structs.replace(obj, payload=payload)))
    assert not town.under_way and len(town.of("error")) == 1


def test_a_person_is_told_why_it_went_where(tmp_path: Path) -> None:
    town = Town(tmp_path)
    object_id = town.submit()["object_id"]
    town.run()
    events = [Event(kind=k, source="x", t_unix_s=float(n), data=d) for n, (k, d) in enumerate(town.events)]
    told = explain(events, object_id)
    assert [d["place"] for d in told["decisions"]] == town.route()
    console = Console(record=True, width=200)
    say(told, console)
    text = console.export_text()
    assert "because greedy: " in text and "finished: broad" in text and "samples" in text


# --- deployment ---


def at_home(town: Town) -> int:
    """Return the object of a model that has come home."""
    object_id: int = town.submit()["object_id"]
    town.run()
    return object_id


def deploy(town: Town, object_id: int) -> str:
    """Have the owner deploy a model; return the name of the terminal that it was sent to."""
    told = town.role("owner1").command({"op": "deploy", "object_id": object_id, "aats": True})
    return NAMES[told["to"]]


def test_a_model_that_is_home_goes_on_to_mdfps_and_each_has_its_own(tmp_path: Path) -> None:
    town = Town(tmp_path)
    object_id = at_home(town)
    places = []
    for _ in range(2):
        places.append(deploy(town, object_id))
        town.run()
    assert sorted(places) == ["mdfp1", "mdfp2"], "where there is none of its task yet"
    first, second = town.of("model.deployed")
    (finished,) = town.of("job.finished")
    assert [first["node"], second["node"]] == places and first["object_id"] == object_id
    assert first["accuracy"]["broad"] == round(finished["broad"], 4), "as MPVUs measured it, by the trail"
    reply = town.role(places[0]).itself.told(Probe(name="x", object_id=0, task="digits"))
    (hosting,) = reply.models
    assert (hosting.task, hosting.label) == ("digits", object_id & LABEL_MASK)
    assert town.of("error") == [] and DCC_ADDRESS not in {to for _, to in town.asked}


def test_an_mdfp_takes_no_model_but_the_verified_one(tmp_path: Path) -> None:
    town = Town(tmp_path)
    place = deploy(town, at_home(town))
    sender, obj = town.under_way.popleft()
    journey, model = unpack(obj.payload)
    other = msgspec.structs.replace(obj, payload=pack(journey, model[:-4] + bytes(4)))
    town.role(place).object_arrived(arrived(sender, other))
    assert town.of("model.deployed") == [] and "not the model that was verified" in town.of("error")[-1]["text"]


def test_only_what_has_come_home_is_deployed_so_and_only_where_somebody_answers(tmp_path: Path) -> None:
    town = Town(tmp_path)
    object_id = town.submit()["object_id"]
    with pytest.raises(HostError, match="not home yet"):
        deploy(town, object_id)
    town.run()
    town.dead = {ADDRESSES["mdfp1"], ADDRESSES["mdfp2"]}
    with pytest.raises(HostError, match="no MDFP answers"):
        deploy(town, object_id)
