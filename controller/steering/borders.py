"""Which K-AS are joined: by the ports of our own borders, and by what both ends of each border say.

Words of two ends cross, and one that could not be delivered comes late; so each says when it was true, and the newest
counts. Where our own port is down there is no border, whatever the other end says.
"""

from __future__ import annotations

import asyncio

from controller.border.messages import LinkState
from controller.errors import BorderError
from controller.services import Services

Pair = frozenset[int]


class Borders:
    """Keeps ``down_kas`` of the domain. ``untold``: words that a K-AS has not got yet."""

    def __init__(self, services: Services) -> None:
        self.services, self.domain = services, services.domain
        self._down = services.store.kept("borders that are down", tuple[int, int], bool)
        self.domain.down_kas |= {frozenset(pair) for pair in self._down}
        self._words: dict[Pair, tuple[float, bool]] = {}
        self._own: dict[tuple[int, int], bool] = {}
        self.untold: set[tuple[int, int, int]] = set()

    def look(self, kas: int, neighbour: int) -> bool:
        """One of our links to a neighbour came or went: they are joined as long as one is there. Tells whether that
        is news, to be told (``tell``).
        """
        up = self.domain.border(kas, neighbour) is not None
        if self._own.get((kas, neighbour), frozenset((kas, neighbour)) not in self.domain.down_kas) == up:
            return False
        self._own[kas, neighbour] = up
        if self._note(kas, neighbour, self.services.wall(), up):
            word = "up" if up else "down"
            self.services.emit("warning", text=f"link between K-AS {kas} and K-AS {neighbour} is {word}")
        return True

    def look_at_all(self) -> list[tuple[int, int]]:
        """Look at all of ours, after an earlier life: a link may have come back while nobody lived to hear of it."""
        ours = {
            (self.domain.switches[name].kas, border.neighbour_kas) for (name, _), border in self.domain.borders.items()
        }
        return [pair for pair in sorted(ours) if self.look(*pair)]

    def hear(self, link: LinkState) -> bool:
        """Another DCC tells of a border; whether that changes anything."""
        return self._note(link.a_kas, link.b_kas, link.at_unix_s, link.up)

    def _note(self, a: int, b: int, at_unix_s: float, up: bool) -> bool:
        pair = frozenset((a, b))
        if pair in self._words and at_unix_s < self._words[pair][0]:
            return False  # an older word, which comes late
        self._words[pair] = at_unix_s, up
        up = up and all(self.domain.border(*ends) for ends in ((a, b), (b, a)) if ends[0] in self.domain.kas)
        if (pair not in self.domain.down_kas) == up:
            return False
        key = min(pair), max(pair)
        if up:
            self.domain.down_kas.discard(pair)
            self._down.pop(key, None)
        else:
            self.domain.down_kas.add(pair)
            self._down[key] = True
        return True

    def word(self, to: int, kas: int, neighbour: int) -> LinkState:
        """Return what is to be said to a K-AS of a border of ours."""
        up = self.domain.border(kas, neighbour) is not None
        return LinkState(kas=to, a_kas=kas, b_kas=neighbour, up=up, at_unix_s=self.services.wall())

    async def tell(self, kas: int, neighbour: int) -> None:
        """Tell all other K-AS how a border of ours is."""
        others = [k for k in self.services.all_kas if k not in self.domain.kas]
        self.untold |= {(other, kas, neighbour) for other in others}
        await asyncio.gather(*(self._tell(other, kas, neighbour) for other in others))

    async def tell_again(self) -> None:
        """Tell those that have not got it (periodic)."""
        await asyncio.gather(*(self._tell(*one) for one in list(self.untold)))

    async def _tell(self, to: int, kas: int, neighbour: int) -> None:
        word = self.word(to, kas, neighbour)
        try:
            await self.services.must(word)
        except BorderError as error:
            self.services.emit("warning", text=str(error))
            return
        if self.word(to, kas, neighbour).up == word.up:
            self.untold.discard((to, kas, neighbour))
