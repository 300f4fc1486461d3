"""What a terminal does, by its role. ``ROLES`` maps the plan's role names to classes; a plain ``host`` does nothing."""

from __future__ import annotations

from hosts.roles.asker import QueryOwner
from hosts.roles.base import Role
from hosts.roles.compute import ComputeFacility
from hosts.roles.data import DataNode
from hosts.roles.mdfp import Mdfp
from hosts.roles.mpvu import Mpvu
from hosts.roles.owner import ModelOwner

ROLES: dict[str, type[Role]] = {
    "data": DataNode,
    "compute": ComputeFacility,
    "mpvu": Mpvu,
    "mdfp": Mdfp,
    "model_owner": ModelOwner,
    "query_owner": QueryOwner,
    "host": Role,
}

__all__ = ["ROLES", "ComputeFacility", "DataNode", "Mdfp", "ModelOwner", "Mpvu", "QueryOwner", "Role"]
