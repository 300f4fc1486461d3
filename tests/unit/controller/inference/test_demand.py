"""Demand as rounds of looking see it: a burst or a pause of one round is chance, of two it holds."""

from __future__ import annotations

from controller.inference.demand import SteadyDemand

KEY = ("vignettes", 0)


def seen(*rounds: dict[str, float]) -> list[dict[str, float]]:
    demand = SteadyDemand()
    return [demand.saw(KEY, asked) for asked in rounds]


def test_what_is_asked_once_is_chance_and_twice_is_demand() -> None:
    assert seen({"3": 9.0}, {}, {}, {"3": 9.0}, {"3": 7.0}) == [{}, {}, {}, {}, {"3": 7.0}]


def test_one_pause_is_chance_and_two_are_an_end() -> None:
    steady, pause = {"1": 4.0, "3": 5.0}, {"1": 4.0}
    assert seen(steady, steady, pause, steady, steady) == [{}, steady, steady, steady, steady]
    assert seen(steady, steady, pause, pause)[2:] == [steady, pause]


def test_models_do_not_mix() -> None:
    demand = SteadyDemand()
    demand.saw(KEY, {"1": 4.0})
    assert demand.saw(("vignettes/cheap", 0), {"1": 4.0}) == {}
