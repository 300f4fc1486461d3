"""Speakers on random networks, with cuts, flaps and restarts: they settle, without loops and without black holes."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
            assert [network.kas(n) for n in way[1:]] == path


@FEW
@given(links=graphs(), seed=st.integers(0, 999), data=st.data())
def test_cuts_mends_and_restarts_settle(links: list[tuple[str, str]], seed: int, data: st.DataObject) -> None:
    network = Network(links, seed=seed, declared=True)
    network.run(6)
    assert_settled(network)
    for _ in range(data.draw(st.integers(1, 4))):
        link = data.draw(st.sampled_from(sorted(network.links)))
        name = data.draw(st.sampled_from(sorted(network.nodes)))
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
        elif what == "news" and not network.nodes[name].frozen:
            network.originate(name, terminals={"data": 5})
        elif what in ("restart", "cold"):
            network.restart(name, graceful=what == "restart")
        network.run(data.draw(st.floats(0.1, 3.0)))
    network.run(SETTLE_S)
    assert_settled(network)
    for name, node in network.nodes.items():
        for kas, route in [] if node.frozen else node.core.rib.best.items():
            origin = network.nodes[f"{kas}.1"]
            assert route.advertisement.knowledge.serial == origin.serial, f"{name} holds old news of {kas}"
        assert not node.core.rib.refused["loop"], "honest speakers tell no loops"


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
