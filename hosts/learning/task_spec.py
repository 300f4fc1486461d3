"""The description of a learning task, without PyTorch: what a scenario file holds and a command line can check fast."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Kind = Literal["dirichlet", "iid", "one_class", "shards", "natural"]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task as a scenario file names it. Nothing here depends on the seed of a run.

    ``own`` (``name: own``): a task of one's own, ``file.py:Class``; of what follows it takes what it likes.

    ``method``: a way to train in rounds of one's own, ``file.py:Class``; jobs name it as ``method: own``.

    ``data``: file or directory (tables and text). ``train_per_node`` and ``test_per_node`` (for each of the two test
    copies) are vignettes per hospital; tables use ``test_share`` of their rows for testing instead. ``partition``:
    ``dirichlet`` (``alpha``), ``iid``, ``one_class``, ``shards`` (``shards_per_node``) or ``natural`` (by hospital;
    by file). ``epsilon``: privacy budget of the class histogram a node publishes. ``noise``: share of a vignette's
    findings that have nothing to do with its disease. ``optimiser``: AdamW (with ``weight_decay``), or plain
    gradient descent, which one visit to one-sided data throws less far off course. ``hidden``: width of the table
    model's hidden layer (0: logistic regression). ``columns``: of the file those to learn from (default:
    all). ``flip``: faults to try, {data node: share of its training labels that are wrong}.
    """

    name: Literal["vignettes", "table", "text", "digits", "own"] = "vignettes"
    own: str = ""
    method: str = ""
    data: str = ""
    partition: Kind = "dirichlet"
    alpha: Positive = 0.3
    shards_per_node: Count = 2
    train_per_node: Count = 1500
    test_per_node: Count = 200
    test_share: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 1 / 3
    epsilon: Positive = 1.0
    noise: Share = 0.3
    findings_per_vignette: Count = 12
    label_column: str = ""
    columns: list[str] = []
    text_column: str = ""
    hidden: Annotated[int, msgspec.Meta(ge=0)] = 0
    weight_decay: Annotated[float, msgspec.Meta(ge=0.0)] = 0.01
    optimiser: Literal["adamw", "sgd"] = "adamw"
    flip: dict[str, Share] = {}
