"""Sessions, failover, damping, graceful restart and liars, on small simulated networks."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from controller.border.kbgp.session import State
from packets.kbgp.knowledge import Bounds, Data, Knowledge
from packets.kbgp.messages import Advertisement, Answer, Code, KbgpError, Open, Reply, Sub, Update
from tests.kbgp_network import NEVER, TIMERS, Network

LINE = [("1.1", "2.1"), ("2.1", "3.1"), ("3.1", "4.1")]
SQUARE = [*LINE, ("4.1", "1.1")]
HOLD_S = TIMERS.hold_ms / 1000


def settled(links: list[tuple[str, str]], seconds: float = 5, **more: object) -> Network:
    network = Network(links, **more)  # type: ignore[arg-type]
    network.run(seconds)
    return network


def test_both_connect_and_one_connection_stays() -> None:
    for seed in range(30):
        network = settled([("1.1", "2.1")], seed=seed)
        for name in ("1.1", "2.1"):
            (session,) = network.nodes[name].core.sessions.values()
            assert session.state is State.ESTABLISHED and len(session.connections) == 1
        before = [len(n.said) for n in network.nodes.values()]
        network.run(5)
        assert before == [len(n.said) for n in network.nodes.values()], f"seed {seed}: they do not come to rest"


def test_knowledge_reaches_the_far_end_with_its_path() -> None:
    network = settled(LINE)
    assert network.known("1.1") == {1: [1], 2: [2], 3: [2, 3], 4: [2, 3, 4]}
    network.originate("4.1", terminals={"data": 9})
    network.run(1)
    assert network.nodes["1.1"].core.rib.best[4].advertisement.knowledge.terminals == {"data": 9}


def test_a_question_crosses_two_k_as_and_the_answer_comes_back() -> None:
    network = settled(LINE)
    assert network.ask("1.1", 4, b"xyz") == Reply(id=7, code=Answer.ANSWERED, body=b"zyx")
    (asked,) = network.nodes["4.1"].told
    assert asked.trail == [1, 2, 3, 4] and asked.left_ms < 2000
    assert not any(len(node.core.relay) for node in network.nodes.values())


def test_who_cannot_be_reached_is_told_at_once_and_who_is_silent_in_time() -> None:
    network = settled(LINE)
    assert (reply := network.ask("1.1", 9)) is not None and reply.code == Answer.UNREACHABLE
    network.nodes["4.1"].core.originate(None, b"", network.now_s)
    assert (reply := network.ask("1.1", 4)) is not None and reply.code == Answer.ABSENT
    network.nodes["3.1"].frozen = True
    before_s = network.now_s
    assert (reply := network.ask("1.1", 3, left_ms=600)) is not None and reply.code == Answer.TIMEOUT
    assert network.now_s - before_s < 1


def test_a_session_that_ends_fails_what_was_asked_over_it() -> None:
    network = settled(LINE)
    network.nodes["4.1"].frozen = True
    network.nodes["1.1"].told.clear()
    assert (reply := network.ask("1.1", 4, left_ms=20_000)) is not None
    assert reply.code == Answer.CUT and "session" in reply.reason


def test_the_hold_timer_ends_a_silent_session_and_its_knowledge_goes() -> None:
    network = settled(LINE)
    network.cut("2.1-3.1")
    network.run(HOLD_S + 0.6)
    assert network.up("2.1") == {"1.1-2.1"}
    assert network.known("1.1") == {1: [1], 2: [2]}
    assert any("nothing heard" in s.data["why"] for s in network.nodes["2.1"].said if s.kind == "border.down")
    network.mend("2.1-3.1")
    network.run(4)
    assert set(network.known("1.1")) == {1, 2, 3, 4}


def test_another_way_is_taken() -> None:
    network = settled(SQUARE)
    assert network.known("1.1")[2] == [2]
    network.cut("1.1-2.1")
    network.run(HOLD_S + 1)
    assert network.known("1.1")[2] == [4, 3, 2]
    assert (reply := network.ask("1.1", 2)) is not None and reply.code == Answer.ANSWERED


def test_a_link_that_its_own_control_centre_says_is_down_ends_the_session_at_once() -> None:
    network = settled(SQUARE)
    network.cut("1.1-2.1")
    for name, beyond in (("1.1", 2), ("2.1", 1)):
        network.nodes[name].core.cut_off([beyond], network.now_s)
    network.run(1)
    assert network.known("1.1")[2] == [4, 3, 2] and network.up("1.1") == {"4.1-1.1"}
    assert (reply := network.ask("1.1", 2)) is not None and reply.code == Answer.ANSWERED
    network.run(3)
    assert network.up("1.1") == {"4.1-1.1"}, "nobody dials where no link is"
    network.mend("1.1-2.1")
    for name in ("1.1", "2.1"):
        network.nodes[name].core.cut_off([], network.now_s)
    network.run(1)
    assert network.up("1.1") == {"1.1-2.1", "4.1-1.1"} and network.known("1.1")[2] == [2]


def test_while_a_control_centre_is_started_again_its_word_stands_and_who_asks_it_is_told() -> None:
    network = settled(LINE)
    network.nodes["4.1"].core.left(network.now_s)
    network.run(TIMERS.restart_s - 0.5)
    assert network.known("1.1")[4] == [2, 3, 4]
    assert (reply := network.ask("1.1", 4)) is not None and reply.code == Answer.ABSENT
    network.originate("4.1")
    network.run(TIMERS.restart_s + 1)
    assert network.known("1.1")[4] == [2, 3, 4]
    assert (reply := network.ask("1.1", 4)) is not None and reply.code == Answer.ANSWERED
    network.nodes["4.1"].core.left(network.now_s)
    network.run(TIMERS.restart_s + 1)
    assert 4 not in network.known("1.1"), "it has not come back"


def test_what_a_gateway_of_ours_passes_on_leaves_our_k_as_here() -> None:
    """Two gateways of K-AS 2 that both think the other is nearer to K-AS 3 would else send a question to and fro."""
    network = settled([("1.1", "2.1"), ("2.1", "2.2"), ("2.2", "3.1")])
    core = network.nodes["2.2"].core
    inside, outside = ("2.1", "2.1-2.2"), ("3.1", "2.2-3.1")
    assert core._next_hop(3, [1, 2], inside) == outside
    network.cut("2.2-3.1")
    core.cut_off([3], network.now_s)
    network.run(0.3)
    assert core._next_hop(1, [3], "dcc") == inside
    assert core._next_hop(1, [3, 2], inside) is None, "from inside it goes out, not back in"


def test_a_standing_session_outlives_a_second_connection_of_the_same_life() -> None:
    network = settled([("1.1", "2.1")])
    for name, other in (("1.1", "2.1"), ("2.1", "1.1")):
        core = network.nodes[name].core
        (session,) = core.sessions.values()
        stands = session.up
        assert stands is not None and stands.open is not None
        second = core.accepted(other, network.now_s)
        core.received(second, stands.open, network.now_s)
        core.take()
        assert session.up is stands and session.connections == [stands], "whoever has the greater name"


def test_parallel_sessions_the_cheap_one_first_then_the_other() -> None:
    network = settled([("1.1", "2.1"), ("1.1", "2.1")])
    core = network.nodes["1.1"].core
    assert network.up("1.1") == {"1.1-2.1", "1.1-2.1-2"}
    assert core.rib.best[2].peer is not None and core.rib.best[2].peer.key == ("2.1", "1.1-2.1")
    network.cut("1.1-2.1")
    network.run(HOLD_S + 0.6)
    assert core.rib.best[2].peer.key == ("2.1", "1.1-2.1-2") and network.known("1.1")[2] == [2]
    assert (reply := network.ask("1.1", 2)) is not None and reply.code == Answer.ANSWERED


def test_several_gateways_of_one_k_as_tell_each_other_what_they_hear() -> None:
    network = settled([("1.1", "2.1"), ("2.1", "2.2"), ("2.2", "3.1"), ("2.1", "2.3"), ("2.2", "2.3"), ("2.3", "4.1")])
    assert network.known("1.1") == {1: [1], 2: [2], 3: [2, 3], 4: [2, 4]}
    assert network.known("2.3") == {1: [1], 2: [2], 3: [3], 4: [4]}
    reply = network.ask("1.1", 3)
    assert reply is not None and reply.code == Answer.ANSWERED
    network.cut("2.2-3.1")
    network.run(HOLD_S + 2)
    assert 3 not in network.known("1.1") and 3 not in network.known("2.3")


def test_while_a_speaker_restarts_its_knowledge_is_kept_and_nobody_flaps() -> None:
    network = settled(LINE)
    network.run(1)
    core = network.nodes["1.1"].core
    network.kill("3.1")
    network.run(0.5)
    assert network.nodes["2.1"].core.rib.best[4].stale
    assert (reply := network.ask("2.1", 4)) is not None and reply.code == Answer.UNREACHABLE, "no black hole"
    updates = core.counts["Update"]
    network.restart("3.1")
    network.run(4)
    assert network.known("1.1")[4] == [2, 3, 4] and not network.nodes["2.1"].core.rib.best[4].stale
    assert core.counts["Update"] <= updates + 1, "only the new word of K-AS 3 itself"
    assert not core.rib._penalties


def test_who_does_not_come_back_is_forgotten_after_the_restart_time() -> None:
    network = settled(LINE)
    network.kill("3.1")
    network.run(TIMERS.restart_s - 0.5)
    assert 4 in network.known("1.1")
    network.run(1.5)
    assert network.known("1.1") == {1: [1], 2: [2]}


def test_what_a_restarted_speaker_does_not_tell_again_is_gone() -> None:
    network = settled(LINE)
    network.kill("4.1")
    network.kill("3.1")
    network.run(0.5)
    network.restart("3.1")
    network.run(4)
    assert network.known("1.1") == {1: [1], 2: [2], 3: [2, 3]}


def test_shut_down_with_a_word_is_gone_at_once() -> None:
    network = settled(LINE)
    network.nodes["3.1"].core.stop(network.now_s)
    network.run(1)
    assert network.known("1.1") == {1: [1], 2: [2]}


def test_a_flapping_route_is_left_alone_and_used_again_when_it_is_quiet() -> None:
    network = settled(LINE, damping=(4.0, 2500.0, 750.0, 12.0))
    for _ in range(4):
        network.nodes["3.1"].core.originate(None, b"", network.now_s)
        network.run(0.5)
        network.originate("3.1")
        network.run(0.5)
    network.run(0.5)
    assert 3 not in network.known("2.1") and 3 not in network.known("1.1")
    assert 4 in network.known("1.1"), "others are not punished"
    network.run(12)
    assert network.known("1.1")[3] == [2, 3]


def test_a_damped_route_is_the_last_resort_once_it_has_stood_for_a_while() -> None:
    network = settled(LINE, damping=(60.0, 2500.0, 750.0, 240.0))
    for _ in range(4):
        network.nodes["3.1"].core.originate(None, b"", network.now_s)
        network.run(0.5)
        network.originate("3.1")
        network.run(0.5)
    assert 3 not in network.known("2.1") and 3 not in network.known("1.1"), "it has not come to rest"
    network.run(4)
    assert network.known("1.1")[3] == [2, 3], "long before its penalty is worn off"


def test_news_of_the_same_path_are_no_flaps() -> None:
    network = settled(LINE, damping=(4.0, 2500.0, 750.0, 12.0))
    for _ in range(30):
        network.originate("3.1")
        network.run(0.2)
    assert network.known("1.1")[3] == [2, 3]


def knowledge(kas: int, serial: int = 1, **more: object) -> Knowledge:
    return Knowledge(kas=kas, epoch_ms=1, serial=serial, **more)  # type: ignore[arg-type]


def lie_of(path: list[int], told: Knowledge, *, twice: bool = False) -> Update:
    return Update(advertised=[Advertisement(path=path, knowledge=told)] * (2 if twice else 1))


@pytest.mark.parametrize(
    "lie, reason",
    [
        (lie_of([2, 1, 3], knowledge(3)), "loop"),
        (lie_of([2, 3, 2, 4], knowledge(4)), "loop"),
        (lie_of([3, 4], knowledge(4)), "neighbour"),
        (lie_of([2, 4], knowledge(4)), "link"),
        (lie_of([2, 3], knowledge(4)), "origin"),
        (lie_of([2, 3], knowledge(3), twice=True), "contradictory"),
        (replace(lie_of([2, 3], knowledge(3)), withdrawn=[3]), "contradictory"),
        (lie_of([2, 3], knowledge(3, compute=Bounds(low=2, high=1))), "contradictory"),
        (lie_of([2, 3], knowledge(3, data=Data(samples=Bounds(low=1, high=2), shares={"a": 0.9, "b": 0.9}))),
         "contradictory"),
    ],
)  # fmt: skip
def test_lies_are_refused_counted_and_count_as_withdrawn(lie: Update, reason: str) -> None:
    network = settled(LINE, declared=True)
    rib = network.nodes["1.1"].core.rib
    before = dict(rib.best)
    reasons = rib.learn(("2.1", "1.1-2.1"), lie, network.now_s)
    assert reasons and all(r.startswith(reason) for r in reasons) and rib.refused[reason] == len(lie.advertised)
    rib.select(network.now_s)
    assert lie.advertised[0].origin not in rib.best and before
    assert network.up("1.1") == {"1.1-2.1"}, "the session stays"


def test_two_words_of_one_version_contradict_each_other() -> None:
    network = settled([("1.1", "2.1"), ("1.1", "3.1"), ("2.1", "4.1"), ("3.1", "4.1")])
    rib = network.nodes["1.1"].core.rib
    told = rib.best[4].advertisement.knowledge
    forged = replace(told, terminals={"data": 999})
    (reason,) = rib.learn(("3.1", "1.1-3.1"), lie_of([3, 4], forged), network.now_s)
    assert reason.startswith("contradictory")
    rib.select(network.now_s)
    assert rib.best[4].path == [2, 4] and rib.best[4].advertisement.knowledge == told


def test_a_neighbour_that_lies_harms_only_what_it_alone_can_tell() -> None:
    network = Network([*SQUARE, ("2.1", "4.1")], declared=True, seed=3)

    def lie(update: Update) -> Update:
        forged = [
            Advertisement(path=[2, *([1, 3] if a.origin == 3 else a.path[1:])], knowledge=a.knowledge)
            for a in update.advertised
        ]
        return Update(withdrawn=update.withdrawn, advertised=forged)

    network.lies["2.1"] = lie
    network.run(6)
    for name in ("1.1", "4.1"):
        assert network.known(name)[3] in ([4, 3], [3])
        assert network.follow(name, 3)
    assert network.nodes["1.1"].core.rib.refused["loop"]


def test_a_signature_that_does_not_hold_is_refused() -> None:
    network = settled(LINE, verify=lambda told: told.origin != 4)
    assert 4 not in network.known("3.1") and network.nodes["3.1"].core.rib.refused["signature"]


def test_what_is_out_of_place_ends_the_session_with_a_word_and_it_comes_back() -> None:
    network = settled([("1.1", "2.1")], damping=NEVER)
    core = network.nodes["1.1"].core
    (session,) = core.sessions.values()
    assert session.up is not None and isinstance(session.up.open, Open)
    core.received(session.up, session.up.open, network.now_s)
    assert session.state is State.IDLE and core.counts["error state"] == 1
    network.run(4)
    assert session.state is State.ESTABLISHED and session.up is not None
    core.broken(session.up, KbgpError(Code.UPDATE, Sub.MALFORMED, "nonsense"), network.now_s)
    network.run(4)
    assert session.state is State.ESTABLISHED
    assert any("nonsense" in s.data["why"] for s in network.nodes["2.1"].said if s.kind == "border.down")


@pytest.mark.parametrize(
    "change, why",
    [
        ({"kas": 9}, "says it is of K-AS 9"),
        ({"gateway": "7.1"}, "calls itself 7.1"),
        ({"link": "elsewhere"}, "no neighbour over elsewhere"),
        ({"versions": [7]}, r"speaks KBGP \[7\]"),
        ({"hold_ms": 0}, "hold time 0"),
    ],
)
def test_an_open_that_does_not_fit_is_refused(change: dict[str, object], why: str) -> None:
    network = settled([("1.1", "2.1")])
    core = network.nodes["1.1"].core
    (session,) = core.sessions.values()
    assert session.up is not None and session.up.open is not None
    stranger = core.accepted("2.1", network.now_s)
    core.received(stranger, replace(session.up.open, **change), network.now_s)
    assert stranger not in session.connections
    texts = [e.data["text"] for e in core.take() if getattr(e, "kind", "") == "error"]
    assert re.search(why, texts[0]) and session.state is State.ESTABLISHED
