"""What a runbook may say to Failback."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import Field

from recovery.models import Name, Text
from runbooks.procedures import data_center_activation as activation
from runbooks.schema import Estate

SYSTEMS = activation.SYSTEMS
ESTATE = activation.ESTATE
AUTHORED = activation.AUTHORED
INSTEAD = activation.INSTEAD
REBUILD, END = "rebuild the lost site", "declare the end"
GATES = (REBUILD, *activation.GATES, END)


def gates(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the gates that a run with ``parameters`` comes to, or may come to."""
    return (REBUILD, *activation.gates(parameters), END)


def commits(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a run with ``parameters`` passes a point of no return: clients write at home again."""
    return True


class Parameters(activation.Parameters):
    """Which site to go back to, from which recovery, and when that is allowed.

    ``recovery`` is the workflow id of the recovery that took over from the site (``run`` if it is not the newest of
    that id); by default the one under which the runbook's first system is recovered. The criteria for the return:
    ``settled`` is how long the other site has had to serve before, ``steady`` how long the rebuilt one has to replicate
    it, never lacking more than ``max_lag`` bytes, and ``criteria`` are what only people can tell: who approves
    the rebuild answers for them.
    """

    recovery: Text | None = None
    run: Name | None = None
    settled: timedelta = Field(default=timedelta(0), ge=timedelta(0), le=timedelta(days=365))
    steady: timedelta = Field(default=timedelta(minutes=10), ge=timedelta(0), le=timedelta(days=30))
    criteria: tuple[Text, ...] = Field(default=(), max_length=20)


def faults(systems: tuple[str, ...], parameters: Mapping[str, Any], estate: Estate) -> list[str]:
    """Return what is wrong with the systems that a runbook names, for a run with ``parameters``."""
    found = activation.faults(systems, parameters, estate)
    if parameters.get("how", "planned") != "planned":
        found.append("parameters.how: a failback is planned; to take over from a lost site is DataCenterActivation")
    if parameters.get("fence_by"):
        found.append("parameters.fence_by: leave it out; where a failback cannot go on, it goes back to who serves")
    return found
