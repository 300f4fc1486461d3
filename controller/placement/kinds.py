"""Of which kind a K-AS is (paper, Fig. 3): where its intelligence sits, and what of it others lend."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from controller.errors import PlanError
from controller.plugins.contracts import CONTRACTS
from controller.plugins.loading import check_name

Kind = Literal["centralised", "non_standalone", "hierarchical", "distributed"]
KINDS: tuple[Kind, ...] = ("centralised", "non_standalone", "hierarchical", "distributed")
WORDS: dict[Kind, str] = {k: k.replace("_", "-") for k in KINDS}
NOT_LENT = ("gate",)  # it judges what an MPVU has just measured, with the object waiting: that cannot wait for others
Lenders = Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=255)]], msgspec.Meta(min_length=1, max_length=8)]
Members = Annotated[list[str], msgspec.Meta(min_length=1, max_length=256)]


class KasKind(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The kind of one K-AS. ``borrows``: {engine: K-AS that lend it, the first one first}, each of which has
    ``timeout_s`` to answer; ``abstract_terminals``: {name: terminals that the K-AS sees as this one}.
    """

    kind: Kind = "centralised"
    borrows: Annotated[dict[str, Lenders], msgspec.Meta(max_length=16)] = {}
    timeout_s: Annotated[float, msgspec.Meta(gt=0.0, le=60.0)] = 2.0
    abstract_terminals: Annotated[dict[str, Members], msgspec.Meta(max_length=64)] = {}


class Housing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a control centre is told of itself: its kind, and the engines that it lends, {engine: K-AS}; ``salt``: the
    secret that it shares with the terminals of a distributed K-AS (none: it makes one of its own).
    """

    kind: KasKind = KasKind()
    lends: dict[str, Lenders] = {}
    salt: Annotated[bytes, msgspec.Meta(max_length=64)] = b""


def salt_of(seed: int | None, kas: Iterable[int]) -> bytes:
    """Return a secret that makes handles opaque; under a seed, handles repeat from run to run: planners break ties by
    them.
    """
    numbers = sorted(kas)
    return os.urandom(32) if seed is None else hashlib.blake2b(f"{seed}/{numbers}".encode(), digest_size=32).digest()


def housing(kinds: Mapping[int, KasKind], kas: int, salt: bytes = b"") -> Housing:
    """Return what the control centre of a K-AS is told, of the kinds of all."""
    lends: dict[str, list[int]] = {}
    for borrower, kind in sorted(kinds.items()):
        for engine, lenders in kind.borrows.items():
            if kas in lenders:
                lends.setdefault(engine, []).append(borrower)
    return Housing(kind=kinds.get(kas, KasKind()), lends=lends, salt=salt)


def told(kind: KasKind) -> str:
    """Return a kind in words: ``non-standalone (T-FAM of K-AS 4, else 1)``."""
    parts = [f"{CONTRACTS[e].paper} of K-AS {', else '.join(map(str, k))}" for e, k in kind.borrows.items()]
    parts += [f"{name}: {' '.join(members)}" for name, members in kind.abstract_terminals.items()]
    return WORDS[kind.kind] + (f" ({'; '.join(parts)})" if parts else "")


def read(path: Path | None) -> Housing:
    """Return the housing that a file names (none: centralised); ``PlanError`` when it is none, ``PluginError``."""
    if path is None:
        return Housing()
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Housing)
    except (OSError, msgspec.DecodeError) as error:
        raise PlanError(f'--kind {path}: {error}; it holds JSON like {{"kind": {{"kind": "centralised"}}}}') from error
    for engine in (*found.kind.borrows, *found.lends):
        check_name(engine)
    return found
