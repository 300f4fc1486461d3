"""Control centres that speak over the WAN links: what faults do to that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import border
from benchmarks.standing import standing


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[border.Ring]:
    folder = tmp_path_factory.mktemp("border")
    (folder / "border.yaml").write_text(border.SCENARIO)
    with standing(folder / "border.yaml", folder) as network:
        ring = border.Ring(network)
        ring.until(ring.whole, "all ways", 30.0)
        yield ring


def test_a_cut_is_gone_around_and_what_is_mended_is_used_again(ring: border.Ring) -> None:
    around_s, back_s = border.cut_and_mend(ring, ("k1g", "k2g"))
    assert around_s < 2 and back_s < 10
    assert ring.lost() == 0 and border.loops(ring.network) == 0


def test_a_killed_gateway_comes_back_and_nobody_forgets(ring: border.Ring) -> None:
    back_s, withdrawn = border.kill(ring, "kbg2")
    assert back_s < 15 and withdrawn == 0
    assert ring.lost() == 0


def test_what_a_lying_gateway_tells_is_refused(ring: border.Ring) -> None:
    told, believed = border.lied_to(ring)
    assert told == 5 and believed == 0
