"""What the zygote is told before the network stands: the task with its data, and which node holds which part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from controller.values.metrics import OwnMetric
from hosts.errors import BadScenario
from hosts.learning.task import TaskSpec
from topologies.plan import DomainPlan

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


class HouseSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the terminals of a distributed K-AS are born with: their K-AS as declared, and the secret that they share
    with its control centre.
    """

    plan: DomainPlan
    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=64)]


def house_file(runtime_dir: Path, kas: int) -> Path:
    """Return where a run keeps what the terminals of a distributed K-AS are born with."""
    return runtime_dir / f"house{kas}.json"


def load_house(path: Path) -> HouseSpec | None:
    """Read the file (None: there is none, the K-AS is of another kind); ``BadScenario`` names what is wrong in it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=HouseSpec)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise BadScenario(f"house file {path}: {' '.join(str(error).split())}; the run writes it") from None


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
