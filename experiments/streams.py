"""One query of many samples on a network that stands: put at an asker, its answers in order, as they come."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from experiments.errors import ExperimentError, RunFailed
from experiments.load import ANSWER_S, askers_of
from experiments.testbed.testbed import Bed
from packets.queries import MAX_STREAM, Need, query_label, variant_task

NEXT_S = 40.0  # more than an asker's own patience with a part
Answer = dict[str, Any]


class RunningStream:
    """A stream that has begun at the first query owner; iterate for its answers, each one a mapping. ``figures``: what
    came of it so far. ``ExperimentError``: what is asked for cannot be; ``RunFailed``: nobody answers, or a part never
    came.
    """

    def __init__(
        self, bed: Bed, group: str, count: int, *, need: Mapping[str, Any] | None = None, way: str = ""
    ) -> None:
        if not 1 <= count <= MAX_STREAM:
            raise ExperimentError(f"count {count}: a stream has 1 to {MAX_STREAM} samples")
        self.bed, self.group, self.stopped = bed, group, False
        self.asker = askers_of(bed)[0]
        self._way = way
        self._need = msgspec.convert(need or {}, Need)
        wanted = msgspec.to_builtins(self._need)
        begun = bed.tell(
            self.asker, "stream", ANSWER_S, task=bed.scenario.data.name, group=group, count=count, need=wanted, way=way
        )
        self.figures: dict[str, Any] = {k: begun[k] for k in ("id", "samples", "parts")}

    def __iter__(self) -> Iterator[Answer]:
        over, refused = False, ""
        try:
            while not over:
                found = self.bed.tell(self.asker, "stream_next", NEXT_S, id=self.figures["id"])
                over = found["over"]
                self.figures = {k: v for k, v in found.items() if k not in ("ok", "answers", "over")}
                yield from found["answers"]
        except RunFailed as error:
            over, refused = True, str(error).removeprefix(f"{self.asker} refused 'stream_next': ")
            raise
        finally:
            if not over:
                self.stop()
            self._tell(refused)

    def stop(self) -> None:
        """Ask no more."""
        self.stopped = True
        with contextlib.suppress(RunFailed, ExperimentError):  # it has ended meanwhile
            self.bed.tell(self.asker, "stream_stop", ANSWER_S, id=self.figures["id"])

    def _tell(self, refused: str) -> None:
        """Tell of which class it was, and why it was refused (``experiments.load.put``)."""
        task = variant_task(self.bed.scenario.data.name, self._way)
        self.bed.hub.emit(
            "query.classed", id=self.figures["id"], node=self.asker, task=task, label=query_label(task, self._need),
            need=msgspec.to_builtins(self._need), group=self.group, refused=refused, of_load=False,
        )  # fmt: skip
