"""What a control centre is told of what is one's own at its start: engines, which jobs may choose, and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from controller.errors import PluginError
from controller.plugins.engines import Engines
from controller.plugins.loading import DEFAULT, check_name
from controller.plugins.outside import Outside
from controller.values.metrics import OwnMetric


class Setup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``use``: {engine: source}; ``also``: more (engine, source) that a job may choose; ``cats``: metrics by name."""

    use: dict[str, str] = {}
    also: list[tuple[str, str]] = []
    cats: dict[str, OwnMetric] = {}

    @classmethod
    def of(
        cls,
        use: Mapping[str, str],
        jobs: Iterable[Mapping[str, str]],
        cats: Mapping[str, OwnMetric] | None = None,
    ) -> Setup:
        """Return the set-up of a network whose jobs choose engines, too, and whose MDFPs report metrics."""
        also = sorted({pair for chosen in jobs for pair in chosen.items()} - set(use.items()))
        return cls(dict(use), [(name, source) for name, source in also if source != DEFAULT], dict(cats or {}))

    @property
    def own(self) -> list[tuple[str, str]]:
        """Every (engine, source) that is not the default."""
        return [(name, source) for name, source in [*self.use.items(), *self.also] if source != DEFAULT]


def read(path: Path | None) -> Engines:
    """Return the engines that a file of ``Setup`` names; ``PluginError`` when it is none."""
    if path is None:
        return Engines()
    try:
        setup = msgspec.json.decode(path.read_bytes(), type=Setup)
    except (OSError, msgspec.DecodeError) as error:
        raise PluginError(f'--engines {path}: {error}; it holds JSON like {{"use": {{engine: source}}}}') from error
    for name, _ in setup.own:
        check_name(name)
    return Engines(setup.use, {(name, source): Outside(name, source) for name, source in setup.own}, setup.cats)
