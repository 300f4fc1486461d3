"""Metrics of one's own: what an MDFP measures of itself beside the usual, and how that counts among models."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from packets.terms import Figure

Category = Literal["computing", "communication", "service"]


class OwnMetric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A raw metric of MDFPs. ``source``: ``file.py:function``, called at each MDFP with what it reports of itself.

    ``best`` counts 10 and ``worst`` 0 in its ``category``, what is between them in proportion, what is beyond them as
    they do; whichever is the larger says which way is better. ``weight``: among the metrics of its category.
    """

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    category: Category
    best: Figure
    worst: Figure
    weight: Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)] = 1.0
