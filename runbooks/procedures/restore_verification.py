"""What a runbook may say to RestoreVerification."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import Field

from recovery.models import Authored, Name
from runbooks.procedures.database_point_in_time_restore import Query
from runbooks.schema import Estate, Path

SYSTEMS = ("databases",)
ESTATE = ("hosts", "databases")
GATES: tuple[str, ...] = ()
AUTHORED = ("queries", "policy")
"""What only a runbook may say: who starts it must not have it prove less, or hosts read whatever they like."""
BESIDE = True
"""It goes on beside recoveries, under the id of its runbook: nobody who recovers the database waits for it."""


def hand(system: str) -> str:
    """Return what is taken in hand instead of ``system``: verifications of it exclude one another, nobody else."""
    return f"{system}.verification"


def gates(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the gates that a run with ``parameters`` comes to: nobody is asked, for nothing stays."""
    return GATES


def commits(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a hold has to say who is asked."""
    return False


class Offsite(Authored):
    """Where a copy of the backups, and of the log's archive, has to be: folders on a host at another site.

    What is younger than ``within`` need not be there yet.
    """

    host: Name
    backups: Path
    archive: Path
    within: timedelta = Field(default=timedelta(hours=1), gt=timedelta(0))


class Policy(Authored):
    """What backups there have to be; what is left empty (null) is not wanted.

    A full backup has to be made at least every ``full_every``, one of any kind every ``incremental_every``; ``grace``
    is how much later than that one may end. What was committed has to be in the log's archive ``log_within``; without
    it within the RPO of the tier. Every moment of the last ``keep_for`` has to be restorable, or since the database
    was made.
    """

    full_every: timedelta | None = Field(default=timedelta(days=1), gt=timedelta(0))
    incremental_every: timedelta | None = Field(default=timedelta(hours=1), gt=timedelta(0))
    grace: timedelta = Field(default=timedelta(minutes=15), ge=timedelta(0))
    log_within: timedelta | None = Field(default=None, gt=timedelta(0))
    keep_for: timedelta | None = Field(default=timedelta(days=30), gt=timedelta(0))
    offsite: Offsite | None = None


class Parameters(Authored):
    """What proves a restore, and which backups there have to be.

    ``queries`` are asked of the copy as it is at the newest moment that can be restored, and ``amcheck`` looks at its
    heaps and indexes.
    """

    queries: tuple[Query, ...] = ()
    amcheck: bool = True
    policy: Policy = Policy()


def faults(systems: tuple[str, ...], parameters: Mapping[str, Any], estate: Estate) -> list[str]:
    """Return what is wrong with the systems that a runbook names, for a run with ``parameters``."""
    if len(systems) > 1:
        return ["systems: name one database; each has a policy, and a runbook, of its own"]
    policy = parameters.get("policy") or {}
    offsite = policy.get("offsite") if isinstance(policy, Mapping) else None
    if not isinstance(offsite, Mapping):
        return []
    kind = estate.databases[systems[0]].backups.kind
    if kind != "native":
        return [
            f"parameters.policy.offsite: what {kind} keeps is not compared by folders; have it watch its own copies"
        ]
    name, own = offsite.get("host"), estate.hosts[estate.databases[systems[0]].host]
    if name not in estate.hosts:
        return ["parameters.policy.offsite.host: the estate has no such host"]
    if estate.hosts[name].site == own.site:
        return [f"parameters.policy.offsite.host: is at {own.site}, too; what is lost with that site is no copy"]
    return []
