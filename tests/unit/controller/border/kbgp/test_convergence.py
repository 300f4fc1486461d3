"""Speakers on random networks, with cuts, flaps and restarts: they settle, without loops and without black holes."""

from __future__ import annotations

import random
from itertools import groupby
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packets.kbgp.messages import Update
from tests.kbgp_network import TIMERS, Network

SETTLE_S = TIMERS.hold_ms / 1000 + TIMERS.restart_s + TIMERS.defer_s + 8
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Connected graphs of up to 12 K-AS; some links twice."""
    size = draw(st.integers(2, 12))
    names = [f"{kas}.1" for kas in range(1, size + 1)]
    links = [(names[draw(st.integers(0, i - 1))], names[i]) for i in range(1, size)]
    more = st.tuples(st.sampled_from(names), st.sampled_from(names)).filter(lambda pair: pair[0] != pair[1])
    return links + draw(st.lists(more, max_size=6))


def assert_settled(network: Network) -> None:
    """Everybody knows all that can be reached by a way that is there, and nothing else."""
    for name, node in network.nodes.items():
        if node.frozen:
            continue
        known, reachable = network.known(name), network.reachable(name)
        assert set(known) == reachable, name
        for kas in reachable - {network.kas(name)}:
            assert not node.core.rib.best[kas].stale
            path = known[kas]
            assert len(set(path)) == len(path) and network.kas(name) not in path
            way = network.follow(name, kas)
            assert way is not None, f"black hole: {name} to {kas}"
            passed = [k for k, _ in groupby(map(network.kas, way))]
            assert passed[1:] == path


@st.composite
def gateways(draw: st.DrawFn) -> list[tuple[str, str]]:
    """The same with two gateways in some K-AS, which are neighbours of each other."""
    links, number = draw(graphs()), draw(st.randoms(use_true_random=False))
    double = {kas for pair in links for kas in pair if number.random() < 0.4}
    ends = [
        tuple(kas.split(".")[0] + number.choice([".1", ".2"]) if kas in double else kas for kas in p) for p in links
    ]
    inside = [(kas, kas.split(".")[0] + ".2") for kas in sorted(double)]
    return [*ends, *inside]  # type: ignore[list-item]


def disturb(network: Network, data: st.DataObject) -> None:
    """Cut, mend, flap, kill, restart, tell news: one of these."""
    outside = [link for link, (a, b) in network.links.items() if network.kas(a) != network.kas(b)]
    link, name = data.draw(st.sampled_from(sorted(outside))), data.draw(st.sampled_from(sorted(network.nodes)))
    what = data.draw(st.sampled_from(["cut", "mend", "flap", "restart", "restart", "cold", "kill", "news"]))
    if what == "cut":
        network.cut(link)
    elif what == "mend":
        network.mend(link)
    elif what == "flap":
        for _ in range(3):
            network.cut(link)
            network.run(2.0)
            network.mend(link)
            network.run(0.5)
    elif what == "kill":
        network.kill(name)
    elif what == "news":
        network.originate(name, terminals={"data": 5})
    else:
        network.restart(name, graceful=what == "restart")
    network.run(data.draw(st.floats(0.1, 3.0)))


@pytest.mark.parametrize("kind", [graphs, gateways])
@FEW
@given(seed=st.integers(0, 999), data=st.data())
def test_cuts_mends_and_restarts_settle(kind: Any, seed: int, data: st.DataObject) -> None:
    network = Network(data.draw(kind()), seed=seed, declared=True)
    network.run(6)
    assert_settled(network)
    for _ in range(data.draw(st.integers(1, 4))):
        disturb(network, data)
    network.run(SETTLE_S)
    assert_settled(network)
    for name, node in network.nodes.items():
        for kas, route in [] if node.frozen else node.core.rib.best.items():
            assert route.advertisement.knowledge == network.words[kas], f"{name} holds old news of {kas}"
        assert not node.core.rib.refused, "honest speakers say nothing that is refused"


@FEW
@given(links=graphs(), seed=st.integers(0, 999), data=st.data())
def test_with_damping_it_settles_when_it_has_been_quiet(
    links: list[tuple[str, str]], seed: int, data: st.DataObject
) -> None:
    network = Network(links, seed=seed, damping=(2.0, 1500.0, 750.0, 6.0))
    network.run(12)
    for _ in range(data.draw(st.integers(1, 3))):
        disturb(network, data)
    network.run(SETTLE_S + 12)
    assert_settled(network)


@FEW
@given(links=graphs(), seed=st.integers(0, 999))
def test_a_liar_makes_no_loop_and_when_it_is_gone_all_settles(links: list[tuple[str, str]], seed: int) -> None:
    network, rng = Network(links, seed=seed, declared=True), random.Random(seed)
    liar = rng.choice(sorted(network.nodes))

    def lie(update: Update) -> Update:
        return Update(advertised=[msgspec.structs.replace(a, path=lied(a.path)) for a in update.advertised])

    def lied(path: list[int]) -> list[int]:
        path = [path[0], *rng.sample(path[1:], rng.randint(0, len(path) - 1))]
        return path[rng.random() < 0.1 :] or path

    network.lies[liar] = lie
    for _ in range(6):
        network.run(1)
        network.originate(liar, terminals={"data": rng.randint(1, 99)})
    for name, node in network.nodes.items():
        for kas, route in node.core.rib.best.items():
            assert len(set(route.path)) == len(route.path) and (
                route.peer is None or network.kas(name) not in route.path
            )
            network.follow(name, kas)
    network.kill(liar)
    network.run(SETTLE_S)
    assert_settled(network)


@FEW
@given(links=graphs(), seed=st.integers(0, 999))
def test_what_is_withdrawn_is_gone_everywhere(links: list[tuple[str, str]], seed: int) -> None:
    network = Network(links, seed=seed)
    network.run(6)
    network.nodes["1.1"].core.originate(None, b"", network.now_s)
    network.run(8)
    assert all(1 not in network.known(name) for name in network.nodes)
    network.originate("1.1")
    network.run(8)
    assert_settled(network)
