"""What the zygote is told before the network stands: the task with its data, and which node holds which part of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from controller.values.metrics import OwnMetric
from hosts.errors import BadScenario
from hosts.learning.task import TaskSpec

MAX_MEMBERS = 1024  # terminals that an autonomous object can know of


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One terminal of the run. ``index`` counts the nodes of its role, from 0, in the whole network; ``address``: where
    autonomous objects ask for it ('': nobody does).
    """

    name: str
    role: str
    kas: int
    index: int
    address: str = ""


class ZygoteScenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The zygote's part of a run's scenario. ``metrics``: of one's own, that MDFPs report; ``policies``: of one's own,
    ``file.py:function``, for autonomous objects.
    """

    task: TaskSpec
    nodes: list[NodeSpec]
    metrics: dict[str, OwnMetric] = {}
    policies: list[str] = []

    @property
    def data_nodes(self) -> list[str]:
        """Return the names of the data nodes, in the order in which the data is dealt out."""
        return [n.name for n in self.nodes if n.role == "data"]


def load_scenario(path: Path) -> ZygoteScenario:
    """Read the scenario file; ``BadScenario`` names the file and what is wrong in it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ZygoteScenario)
    except OSError as error:
        raise BadScenario(f"scenario file {path}: {error.strerror}; give the JSON file that the run wrote") from None
    except msgspec.DecodeError as error:
        text = " ".join(str(error).split())
        raise BadScenario(f'scenario file {path}: {text}; expected {{"task": {{...}}, "nodes": [...]}}') from None
