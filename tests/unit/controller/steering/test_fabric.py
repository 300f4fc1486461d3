"""Switches that go and come back: what changed at their ports meanwhile is news, whoever was there to hear of it."""

from __future__ import annotations

from controller.border.messages import LinkState
from controller.southbound import pipeline
from controller.southbound.openflow import FlowMod
from tests.fake_fabric import World, run, small_plan

PLAN = small_plan()


def ports(switch: str) -> set[int]:
    ends = [(link.a, link.a_port) for link in PLAN.links] + [(link.b, link.b_port) for link in PLAN.links]
    return {port for name, port in ends if name == switch}


async def border_of_1() -> tuple[World, int, int, int]:
    """Return a world, and the first border of K-AS 1: switch and port, and the neighbour."""
    world = World(PLAN)
    await world.start()
    dcc = world.by_kas[1]
    (name, port), border = next(iter(dcc.domain.borders.items()))
    return world, dcc.domain.switches[name].dpid, port, border.neighbour_kas


def test_a_border_that_comes_up_while_its_switch_is_away_is_up_again() -> None:
    async def work() -> None:
        world, dpid, port, neighbour = await border_of_1()
        dcc = world.by_kas[1]
        name = dcc.domain.by_dpid[dpid].name
        dcc.fabric.port_changed(dpid, port, up=False)
        await world.settle()
        assert dcc.domain.down_kas == {frozenset((1, neighbour))}
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
        world, dpid, port, neighbour = await border_of_1()
        dcc = world.by_kas[1]
        name = dcc.domain.by_dpid[dpid].name
        dcc.fabric.switch_down(dpid)
        dcc.fabric.switch_up(dpid, ports(name) - {port}, meters=True)
        await world.settle()
        assert dcc.domain.down_kas == {frozenset((1, neighbour))}

    run(work)


def test_what_is_laid_while_a_switch_is_prepared_is_sent_once_its_groups_stand() -> None:
    async def work() -> None:
        world = World(PLAN)
        await world.start()
        communication = world.by_kas[1].services.communication
        dpid, laid, sent = communication.domain.switches["k1g"].dpid, list[FlowMod](), list[object]()
        send, barrier = communication.south.send, communication.south.barrier
        communication._of_objects = lambda name: list(laid)  # type: ignore[method-assign]

        async def meanwhile(dpid: int, timeout_s: float = 5.0) -> None:
            laid.append(FlowMod(pipeline.LABEL, pipeline.label_match(1, 1), 50, (), cookie=pipeline.label_cookie(1)))
            await barrier(dpid, timeout_s)
            sent.clear()

        communication.south.barrier = meanwhile  # type: ignore[method-assign]
        communication.south.send = lambda dpid, mods: (sent.extend(mods), send(dpid, mods))  # type: ignore[assignment]
        await communication.prepare("k1g", meters=True)
        assert sent[:1] == laid and dpid == 259

    run(work)


# --- what others say of borders


def test_a_word_that_comes_late_is_no_news() -> None:
    async def work() -> None:
        world, dpid, port, neighbour = await border_of_1()
        fabric = world.by_kas[1].fabric
        before_s = fabric.services.wall()
        for up in (False, True):
            fabric.port_changed(dpid, port, up=up)
            await world.settle()
        late = LinkState(kas=1, a_kas=neighbour, b_kas=1, up=False, at_unix_s=before_s)
        for dcc in world.dccs:
            dcc.fabric.hear_of_link(late)
            assert dcc.domain.down_kas == set(), dcc.domain.kas
        now = LinkState(kas=1, a_kas=neighbour, b_kas=1, up=False, at_unix_s=fabric.services.wall())
        fabric.hear_of_link(now)  # a link that is a tunnel has no carrier to lose at our end
        assert fabric.domain.down_kas == {frozenset((1, neighbour))}

    run(work)


def test_a_border_whose_own_port_is_down_is_down_whatever_the_other_end_says() -> None:
    async def work() -> None:
        world, dpid, port, neighbour = await border_of_1()
        fabric = world.by_kas[1].fabric
        fabric.port_changed(dpid, port, up=False)
        await world.settle()
        fabric.hear_of_link(LinkState(kas=1, a_kas=neighbour, b_kas=1, up=True, at_unix_s=fabric.services.wall()))
        assert fabric.domain.down_kas == {frozenset((1, neighbour))}

    run(work)


def test_who_was_not_reached_is_told_again() -> None:
    async def work() -> None:
        world, dpid, port, neighbour = await border_of_1()
        other = next(k for k in world.by_kas if k not in (1, neighbour))
        pair = frozenset((1, neighbour))
        world.mute.add(other)
        world.by_kas[1].fabric.port_changed(dpid, port, up=False)
        await world.settle()
        assert pair not in world.by_kas[other].domain.down_kas
        tell_again = world.by_kas[1].table()["borders that are to be told"][0]
        await tell_again()
        world.mute.clear()
        await tell_again()
        assert pair in world.by_kas[other].domain.down_kas
        assert not world.by_kas[1].fabric.borders.untold

    run(work)
