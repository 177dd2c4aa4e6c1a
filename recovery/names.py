"""The one place where workflow ids, activity ids and queue names are made."""

from __future__ import annotations

import re

LEASE = "SystemLease"
UNDO = "Undo"
NOTIFICATION = "Notification"


def recovery_id(catalog: str, system: str, mode: str) -> str:
    """Return the workflow id of the recovery of ``system``; checks only look, so they have their own."""
    return f"{catalog}/{system}" + ("/check" if mode == "check" else "")


def lease_id(catalog: str, system: str) -> str:
    """Return the workflow id of the lease of ``system``."""
    return f"lease/{catalog}/{system}"


def of_lease(lease: str) -> tuple[str, str]:
    """Return catalog and system of a lease, by its workflow id."""
    catalog, _, system = lease.partition("/")[2].partition("/")
    return catalog, system


def undo_id(workflow: str) -> str:
    """Return the workflow id under which the recovery ``workflow`` is undone from its history."""
    return f"undo/{workflow}"


def notice_id(run: str, number: int) -> str:
    """Return the workflow id under which the notice ``number`` of a recovery's ``run`` is delivered."""
    return f"notice/{run}/{number}"


def activity_id(step: str, part: str, attempt: int = 1) -> str:
    """Return the stable id under which an operator can finish a stuck ``part`` of ``step`` by hand.

    ``attempt`` counts how often a person had it tried again.
    """
    again = f"-{attempt}" if attempt > 1 else ""
    return f"{re.sub(r'[^a-z0-9]+', '-', step.lower()).strip('-')}.{part}{again}"
