"""Border speakers of a run: whose neighbours they are, and the files that they start with."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.border.kbgp import config
from controller.border.speaker import Process, parse
from experiments.testbed.gateways import Gateways, joined, speaker_config
from experiments.testbed.identities import Identities
from packets.kbgp.messages import PORT
from topologies import fig3, single
from topologies.build import Builder, Rates, Terminal, build_plan


def neighbours(plan_speaker: tuple[object, object]) -> dict[str, str]:
    return {n.gateway: n.link for n in speaker_config(*plan_speaker).neighbours}  # type: ignore[arg-type]


def test_its_neighbours_are_beyond_the_links_of_its_gateway() -> None:
    one, _, three, _ = fig3.PLAN.speakers
    assert neighbours((fig3.PLAN, one)) == {"kbg2": "k1g-k2g", "kbg3": "k1g-k3g", "kbg4": "k4g-k1g"}
    found = speaker_config(fig3.PLAN, three)
    assert (found.kas, found.address, found.port) == (3, three.address, PORT)
    assert {n.cost for n in found.neighbours} == {10.0, 20.0} and {n.port for n in found.neighbours} == {PORT}
    assert found.links == [(1, 2), (1, 3), (1, 4), (2, 3), (3, 4)] == joined(fig3.PLAN)


def test_parallel_links_carry_one_session() -> None:
    plan = build_plan("p", kas={1: ["a:data"], 2: ["b:data"]}, wan=[(1, 2), (1, 2)])
    assert neighbours((plan, plan.speakers[0])) == {"kbg2": "k1g-k2g"}


def test_gateways_of_one_k_as_are_neighbours_of_each_other() -> None:
    builder = Builder(Rates())
    for kas, count in ((1, 2), (2, 1), (3, 1)):
        for _ in range(count):
            builder.add_switch(kas)
    builder.add_link("k1s1", "k1s2", 100.0)
    builder.add_link("k1s1", "k2s1", 50.0, 5.0)
    builder.add_link("k1s2", "k3s1", 50.0, 5.0)
    builder.add_terminal_at("k1s1", Terminal("a", "data"))
    plan = builder.plan("p")
    assert [s.name for s in plan.speakers] == ["kbg1", "kbg1n2", "kbg2", "kbg3"]
    one, two, *_ = plan.speakers
    assert neighbours((plan, one)) == {"kbg2": "k1s1-k2s1", "kbg1n2": "kbg1-kbg1n2"}
    assert neighbours((plan, two)) == {"kbg3": "k1s2-k3s1", "kbg1": "kbg1-kbg1n2"}


@pytest.mark.parametrize("signed", [True, False])
def test_a_speaker_can_start_with_what_is_written(tmp_path: Path, signed: bool) -> None:
    identities = Identities(fig3.PLAN, tmp_path)
    gateways = Gateways(fig3.PLAN, tmp_path, identities, signed=signed)
    for speaker in fig3.PLAN.speakers:
        words = gateways.command(speaker, 4711)
        assert words[:2] == ["nsenter", "--net=/proc/4711/ns/net"] and ("--unsigned" in words) != signed
        options = parse(words[words.index("controller.border.speaker") + 1 :])
        assert Process(options).config == speaker_config(fig3.PLAN, speaker) == config.read(options.config)
        assert options.certificate.stat().st_mode & 0o077 == 0


def test_a_single_k_as_has_none(tmp_path: Path) -> None:
    Gateways(single.PLAN, tmp_path, Identities(single.PLAN, tmp_path), signed=True)
    assert not list(tmp_path.glob("kbg*"))
