"""The jobs of a model owner: the latest ones, and their models on disk, as many as there is room for."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hosts.roles.owner_pairs import write
from packets.messages import JobSpec

MODEL_FILE = "model.safetensors"
LOG_FILE = "training-log.json"
JOBS_KEPT = 1024  # as control centres keep
MODELS_BYTES = 1 << 30
TOLD = 8


@dataclass
class OwnJob:
    """A job of this owner. ``model``: the file of the trained one, once it is home.

    ``replaces``: the job whose deployed models have fallen behind, to ``beats`` of 1; this one trains them on.
    """

    spec: JobSpec
    model: Path | None = None
    accuracy: dict[str, float] | None = None
    replaces: int = 0
    beats: float = 0.0
    size_bytes: int = 0


class OwnJobs:
    """By object. The oldest is forgotten, with its folder in ``folder``, where there are too many, or too large."""

    def __init__(self, folder: Path, kept: int = JOBS_KEPT, most_bytes: int = MODELS_BYTES) -> None:
        self._folder, self._kept, self._most_bytes = folder, kept, most_bytes
        self._jobs: dict[int, OwnJob] = {}

    def get(self, object_id: object) -> OwnJob | None:
        """Return a job, None where none is known."""
        return self._jobs.get(object_id) if isinstance(object_id, int) else None

    def __str__(self) -> str:
        latest = [str(i) for i in self._jobs][-TOLD:]
        return (
            ", ".join(latest) + (f" and {len(self._jobs) - TOLD} more" if len(self._jobs) > TOLD else "") or "none yet"
        )

    def put(self, object_id: int, job: OwnJob) -> None:
        """Take a job in."""
        self._jobs[object_id] = job
        while len(self._jobs) > self._kept:
            self._forget(next(iter(self._jobs)))

    def store(self, object_id: int, job: OwnJob, payload: bytes, log: list[dict[str, Any]]) -> Path:
        """Write a model that is home and its log under the object's own folder, which is returned, and beside it as the
        latest of this owner.
        """
        folder = self._folder / f"{object_id:x}"
        for place in (folder, self._folder):
            place.mkdir(parents=True, exist_ok=True)
            write(place / MODEL_FILE, payload)
            write(place / LOG_FILE, msgspec.json.format(msgspec.json.encode(log)))
        job.model, job.size_bytes = folder / MODEL_FILE, len(payload)
        home = [i for i, other in self._jobs.items() if other.model is not None and i != object_id]
        while home and sum(other.size_bytes for other in self._jobs.values()) > self._most_bytes:
            self._forget(home.pop(0))
        return folder

    def _forget(self, object_id: int) -> None:
        del self._jobs[object_id]
        shutil.rmtree(self._folder / f"{object_id:x}", ignore_errors=True)
