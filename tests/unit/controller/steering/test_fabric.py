"""Switches that go and come back: what changed at their ports meanwhile is news, whoever was there to hear of it."""

from __future__ import annotations

from tests.fake_fabric import World, run, small_plan

PLAN = small_plan()


def ports(switch: str) -> set[int]:
    ends = [(link.a, link.a_port) for link in PLAN.links] + [(link.b, link.b_port) for link in PLAN.links]
    return {port for name, port in ends if name == switch}


def test_a_border_that_comes_up_while_its_switch_is_away_is_up_again() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        dcc = world.by_kas[1]
        (name, port), border = next(iter(dcc.domain.borders.items()))
        dpid = dcc.domain.switches[name].dpid
        dcc.fabric.port_changed(dpid, port, up=False)
        await world.settle()
        assert dcc.domain.down_kas == {frozenset((1, border.neighbour_kas))}
        dcc.fabric.switch_down(dpid)
        dcc.fabric.switch_up(dpid, ports(name), meters=True)
        await world.settle()
        assert (name, port) not in dcc.domain.down and not dcc.domain.down_kas
        assert all(not world.by_kas[kas].domain.down_kas for kas in world.by_kas), "all others are told"
        dcc.fabric.port_changed(dpid, port, up=True)  # told late
        await world.settle()
        assert dcc.domain.down_kas == set()

    run(work)


def test_a_link_that_breaks_while_its_switch_is_away_is_down() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        dcc = world.by_kas[1]
        (name, port), border = next(iter(dcc.domain.borders.items()))
        dpid = dcc.domain.switches[name].dpid
        dcc.fabric.switch_down(dpid)
        dcc.fabric.switch_up(dpid, ports(name) - {port}, meters=True)
        await world.settle()
        assert dcc.domain.down_kas == {frozenset((1, border.neighbour_kas))}

    run(work)
