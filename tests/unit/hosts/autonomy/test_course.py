"""What a trail says of a journey: how it stands, whom to trust, and what it wants next."""

from __future__ import annotations

from typing import Any

import pytest

from hosts.autonomy.choosing import ahead_on
from hosts.autonomy.course import Course, course_of
from packets.aats.journey import Action, Stop
from packets.terms import Fixed, JobSpec

SPEC = JobSpec(task="t", broad_accuracy=0.8, max_visits=4, deadline_s=100.0)
GROUPS = ["a", "b"]
DATA, MPVU, OTHER = "10.1.1.2", "10.1.1.8", "10.2.1.8"


def stop(action: Action, address: str, **more: Any) -> Stop:
    return Stop(
        address=address, kas=1, action=action, next="train", to="x", why="", at_ms=0, digest=bytes(32), **more
    )  # fmt: skip


def trained(address: str = DATA, **more: Any) -> Stop:
    return stop("train", address, samples=500, epochs=2.0, mix={"a": 0.5, "b": 0.5}, quality=0.8, **more)


def verified(broad: float, *, accepted: bool = True, at: str = MPVU, action: Action = "verify") -> Stop:
    per_group = {"a": broad, "b": broad}
    return stop(action, at, samples=100, broad=broad, per_group=per_group, accepted=accepted)


START = stop("start", "10.1.1.1")


def course(*stops: Stop, spec: JobSpec = SPEC, elapsed_s: float = 1.0) -> Course:
    return course_of(spec, [START, *stops], GROUPS, elapsed_s)


@pytest.mark.parametrize(
    ("stops", "wanted"),
    [
        ([], "train"),
        ([trained()], "verify"),
        ([trained(), verified(0.5)], "train"),
        ([trained(), verified(0.5, accepted=False)], "train"),
        ([trained(), verified(0.9)], "confirm"),
        ([trained(), verified(0.9), verified(0.85, at=OTHER, action="confirm")], "home"),
        ([trained(), verified(0.81), verified(0.6, at=OTHER, action="confirm")], "train"),
        ([trained(problem="broken")], "train"),
        ([trained(), stop("verify", MPVU, problem="broken")], "verify"),
        ([trained(), verified(0.5)] * 4, "confirm"),
        ([*([trained(), verified(0.5)] * 4), verified(0.5, at=OTHER, action="confirm")], "home"),
    ],
)
def test_what_a_journey_wants_next(stops: list[Stop], wanted: str) -> None:
    assert course(*stops).wanted(50)[0] == wanted


def test_a_confirmation_that_fails_raises_the_bar() -> None:
    failed = [trained(), verified(0.81), verified(0.6, at=OTHER, action="confirm")]
    assert course(*failed, trained(), verified(0.805)).wanted(50)[0] == "train"
    assert course(*failed, trained(), verified(0.82)).wanted(50)[0] == "confirm"


def test_a_model_that_was_trained_before_is_measured_first_and_without_a_gate_last() -> None:
    trained_before = JobSpec(task="t", broad_accuracy=0.8, trained=True)
    assert course(spec=trained_before).wanted(50) == ("verify", "see how it stands")
    ungated = JobSpec(task="t", broad_accuracy=0.8, max_visits=2, gate=False)
    assert course(trained(), spec=ungated).wanted(50)[0] == "train"
    assert course(trained(), trained(), spec=ungated).wanted(50)[0] == "verify"
    seldom = JobSpec(task="t", broad_accuracy=0.8, hyper=Fixed(verify_every=2))
    assert course(trained(), spec=seldom).wanted(50)[0] == "train"


def test_time_and_stops_end_it_too() -> None:
    done = [trained(), verified(0.5)]
    assert course(*done, elapsed_s=60.0).wanted(50) == (
        "confirm", "the deadline of 100 s leaves no time for another visit: last measurement"
    )  # fmt: skip
    assert course(*done).wanted(3)[0] == "confirm" and course(*done).wanted(1)[0] == "home"
    assert course(trained()).wanted(1)[0] == "home"


def test_a_job_that_trains_on_does_not_stop_at_its_targets() -> None:
    on = JobSpec(task="t", broad_accuracy=0.8, train_on=True)
    met = [trained(), verified(0.9), verified(0.9, at=OTHER, action="confirm")]
    assert course(*met, spec=on).wanted(50)[0] == "train" and course(*met, spec=on).aim.beyond


def test_who_did_harm_is_not_trusted_any_more() -> None:
    good = course(trained(), verified(0.7))
    assert good.trusted.trust(DATA) > good.trusted.trust("10.1.1.3") > 0.5
    bad = course(trained(), verified(0.7), trained("10.1.1.3"), verified(0.3, accepted=False))
    assert bad.trusted.trust("10.1.1.3") < 0.5 < bad.trusted.trust(DATA)
    assert bad.measured is not None and bad.measured.broad == 0.7, "rolled back: the accepted state counts"


def test_what_came_to_nothing_is_not_visited_again() -> None:
    assert course(trained(problem="no data")).bad == {DATA}


def test_what_of_a_route_is_ahead() -> None:
    route = ["p", "q", "p", "r"]
    start = stop("start", "10.1.1.1", route=route)

    def ahead(*stops: Stop) -> list[str]:
        return ahead_on(course_of(SPEC, [start, *stops], GROUPS, 0.0))

    assert ahead() == route and ahead(trained("p")) == ["q", "p", "r"]
    assert ahead(trained("q")) == ["p", "r"], "p was silent, and is passed by until it is due again"
    assert ahead(trained("p"), verified(0.5), trained("p"), trained("r")) == []
