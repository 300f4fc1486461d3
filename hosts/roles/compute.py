"""Compute facility: models train here on data that is asked for per visit and dropped after it."""

from __future__ import annotations

from hosts.roles.trainer import Trainer


class ComputeFacility(Trainer):
    """Trains visits whose order names a data node; holds no data of its own."""
