"""The policies by which autonomous objects choose: pure, repeatable, and each worth its name."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.topology.trust import Ledger
from controller.values.decisions import JobView, Measured, Option, Request, Visit
from hosts.autonomy.policies import POLICIES, end_to_end, find_policy, fresh_of, greedy, load_policies, random_walk
from hosts.autonomy.probing import Heard, options_of
from hosts.errors import HostError
from packets.aats.probe import ProbeReply

GROUPS = ["a", "b", "c"]
ASKED = Request(task="t", groups=GROUPS, broad_accuracy=0.8, expert_group="c", expert_accuracy=0.9, model_bytes=100_000)


def option(handle: str, mix: dict[str, float], samples: int = 1500, **more: float) -> Option:
    about = {"epoch_s": 1.0, "reach_s": 0.1, "quality": 0.9} | more
    return Option(kas=1, handle=handle, mix=mix, samples=samples, **about)  # type: ignore[arg-type]


EVEN = {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
OFFERS = [
    option("10.1.1.1", {"a": 0.9, "b": 0.1}), option("10.1.1.2", EVEN), option("10.1.1.3", {"c": 1.0}),
    option("10.1.1.4", {"b": 0.8, "a": 0.2}),
]  # fmt: skip
NOTHING = JobView()


def visit(handle: str, mix: dict[str, float], *, accepted: bool = True) -> Visit:
    return Visit(kas=1, handle=handle, mix=mix, samples=1500, epochs=2.0, accepted=accepted)


def rng(seed: int = 1) -> random.Random:
    return random.Random(seed)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_names_what_is_on_offer_and_repeats_itself(name: str) -> None:
    choose = POLICIES[name].choose
    found = choose(ASKED, NOTHING, OFFERS, rng())
    assert found and set(found) <= {o.handle for o in OFFERS}
    assert list(found) == list(choose(ASKED, NOTHING, OFFERS, rng()))


def test_greedy_begins_with_what_teaches_all_groups() -> None:
    assert greedy(ASKED, NOTHING, OFFERS, rng())[0] == "10.1.1.2"


def test_greedy_counts_by_the_second() -> None:
    slow = [*OFFERS, option("10.1.1.5", EVEN, epoch_s=30.0)]
    quick = [*OFFERS, option("10.1.1.5", EVEN, epoch_s=0.2)]
    assert greedy(ASKED, NOTHING, slow, rng())[0] == "10.1.1.2"
    assert greedy(ASKED, NOTHING, quick, rng())[0] == "10.1.1.5"


def test_greedy_goes_for_what_is_missing() -> None:
    known = Measured(broad=0.82, per_group={"a": 0.95, "b": 0.93, "c": 0.5}, samples=300)
    view = JobView(visits=[visit("10.1.1.2", EVEN)] * 2, measured=known)
    assert greedy(ASKED, view, OFFERS, rng())[0] == "10.1.1.3"


def test_greedy_leaves_out_what_would_come_too_late() -> None:
    late = [*OFFERS, option("10.1.1.6", EVEN, epoch_s=500.0)]
    assert "10.1.1.6" not in greedy(ASKED, NOTHING, late, rng())
    assert greedy(ASKED, JobView(elapsed_s=169.9), OFFERS, rng()) == []


def test_what_was_met_last_or_rejected_lately_is_left_out_where_there_is_other() -> None:
    view = JobView(visits=[visit("10.1.1.3", {"c": 1.0}, accepted=False), visit("10.1.1.2", EVEN)])
    assert [o.handle for o in fresh_of(view, OFFERS)] == ["10.1.1.1", "10.1.1.4"]
    assert fresh_of(view, OFFERS[1:3]) == OFFERS[1:3]


def test_a_walk_goes_to_near_places_and_now_and_then_jumps() -> None:
    far = [option(f"10.1.2.{n}", EVEN, reach_s=float(n)) for n in range(1, 21)]
    walked = [random_walk(ASKED, NOTHING, far, rng(s), jump=0.0)[0] for s in range(200)]
    assert set(walked) == {"10.1.2.1", "10.1.2.2", "10.1.2.3"}
    jumped = [random_walk(ASKED, NOTHING, far, rng(s), jump=1.0)[0] for s in range(400)]
    assert len(set(jumped)) == 20
    some = [random_walk(ASKED, NOTHING, far, rng(s), jump=0.2)[0] for s in range(400)]
    beyond = sum(handle not in walked for handle in some) / 400
    assert 0.1 < beyond < 0.25, "a fifth of the steps are jumps, 17 of 20 of which go far"


def test_a_route_from_end_to_end_is_as_long_as_the_budget() -> None:
    route = end_to_end(ASKED, NOTHING, OFFERS, rng())
    assert len(route) == ASKED.max_visits and route[0] == POLICIES["planned"].choose(ASKED, NOTHING, OFFERS, rng())[0]


@given(
    st.lists(
        st.tuples(st.integers(1, 5000), st.floats(0.01, 100), st.floats(0, 5), st.sampled_from([EVEN, {"a": 1.0}])),
        min_size=1, max_size=12,
    ),
    st.sampled_from(sorted(POLICIES)),
)  # fmt: skip
def test_any_offers_are_answered_with_some_of_them(places: list[tuple[int, float, float, dict]], name: str) -> None:
    offers = [
        option(f"10.1.3.{n}", mix, samples, epoch_s=epoch_s, reach_s=reach_s)
        for n, (samples, epoch_s, reach_s, mix) in enumerate(places)
    ]
    assert set(POLICIES[name].choose(ASKED, NOTHING, offers, rng())) <= {o.handle for o in offers}


# --- what terminals said ---


def heard(address: str, **said: object) -> Heard:
    about = {"samples": 1000, "samples_per_s": 500.0, "mix": {"a": 0.5, "c": 0.3, "x": 0.2}} | said
    return Heard(address, ProbeReply(name="h", role="data", kas=2, task="t", **about), 0.02)  # type: ignore[arg-type]


def test_what_was_heard_becomes_an_offer() -> None:
    (offer,) = options_of([heard("10.2.1.1", queue=1)], GROUPS, Ledger(), at_kas=1)
    assert (offer.handle, offer.samples, offer.kas, offer.borders) == ("10.2.1.1", 800, 2, 1)
    assert offer.mix == {"a": pytest.approx(0.625), "c": pytest.approx(0.375)}, "of the task's groups alone"
    assert offer.epoch_s == pytest.approx(4.0), "two thousand samples' time, one is before us"
    assert offer.reach_s == pytest.approx(0.08)


@pytest.mark.parametrize("said", [{"samples": 0}, {"samples_per_s": 0.0}, {"mix": {}}, {"mix": {"x": 1.0}}])
def test_who_has_nothing_for_a_task_is_no_offer(said: dict[str, object]) -> None:
    assert options_of([heard("10.2.1.1", **said)], GROUPS, Ledger(), at_kas=1) == []


# --- of one's own ---


def test_a_policy_of_ones_own_is_found_by_its_source_and_has_its_parameters(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def last(request, view, options, rng, *, step=2.0):\n    return [o.handle for o in options][:: -int(step)]\n"
        "def once(request, view, options, rng):\n    return []\nonce.whole = True\n"
    )
    known = load_policies([f"{file}:last", f"{file}:once"])
    assert known[f"{file}:last"].parameters == {"step": 2.0} and not known[f"{file}:last"].whole
    assert known[f"{file}:once"].whole and set(POLICIES) < set(known)
    assert find_policy(f"{file}:last", {"step": 1.0}, known).choose(ASKED, NOTHING, OFFERS, rng())[0] == "10.1.1.4"


@pytest.mark.parametrize(("jump", "near"), [(0, 1), (1, 3), (0.5, 99)])
def test_parameters_within_their_bounds_are_taken(jump: float, near: float) -> None:
    assert find_policy("random-walk", {"jump": jump, "near": near}) is POLICIES["random-walk"]


@pytest.mark.parametrize("said", [{"jump": 7.0}, {"jump": -0.1}, {"jump": float("nan")}, {"near": 0.0}])
def test_parameters_out_of_bounds_are_one_line(said: dict[str, float]) -> None:
    with pytest.raises(HostError, match=f"policy random-walk: parameter {next(iter(said))} = .* out of bounds"):
        find_policy("random-walk", said)


def test_bounds_of_ones_own_hold_and_annotations_that_cannot_be_read_say_none(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\nfrom typing import Annotated\nimport msgspec\n"
        "def most(request, view, options, rng, *, n: Annotated[float, msgspec.Meta(le=4)] = 2.0):\n    return []\n"
        "def unread(request, view, options, rng, *, n: Nowhere = 2.0):\n    return []\n"
    )
    known = load_policies([f"{file}:most", f"{file}:unread"])
    with pytest.raises(HostError, match="n = 5 is out of bounds; give 4 or less"):
        find_policy(f"{file}:most", {"n": 5.0}, known)
    assert find_policy(f"{file}:unread", {"n": 5.0}, known)


def test_one_of_ones_own_that_was_not_brought_along_says_where_to_name_it() -> None:
    with pytest.raises(HostError, match=r"policy mine\.py:f is not known here; name one of your own in a job"):
        find_policy("mine.py:f", {})


@pytest.mark.parametrize(("source", "words"), [("none.py:f", "no file none.py"), ("mine", "give file.py:function")])
def test_a_policy_that_cannot_be_loaded_is_one_line(source: str, words: str) -> None:
    with pytest.raises(HostError, match=words) as caught:
        load_policies([source])
    assert "\n" not in str(caught.value)
