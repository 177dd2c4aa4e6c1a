"""What a runbook may say to FenceWatch."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import Field

from recovery.models import Authored, Name
from runbooks.references import driven_out
from runbooks.schema import Estate

SYSTEMS = ("databases", "stores", "services", "workloads")
ESTATE = ("sites", "hosts", "clusters", *SYSTEMS, "directors", "safety")
GATES: tuple[str, ...] = ()
BESIDE = True
"""It waits for weeks, under the id of its runbook, not of a system."""


def gates(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the gates that a run with ``parameters`` comes to: who had another site take over has approved it."""
    return GATES


def commits(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a hold has to say who is asked: a site that cannot be fenced is nobody's to forget."""
    return True


class Parameters(Authored):
    """The site to fence when it comes back, and for how long it is watched for."""

    site: Name
    patience: timedelta = Field(default=timedelta(days=30), gt=timedelta(0), le=timedelta(days=365))


def faults(systems: tuple[str, ...], parameters: Mapping[str, Any], estate: Estate) -> list[str]:
    """Return what is wrong with the systems that a runbook names, for a run with ``parameters``."""
    site = parameters.get("site")
    kinds = (estate.databases, estate.stores, estate.services)
    sites = {name: estate.hosts[one.host].site for kind in kinds for name, one in kind.items()}
    sites |= {name: estate.clusters[one.cluster].site for name, one in estate.workloads.items()}
    if site is not None and site not in estate.sites:
        return [f"parameters.site: the estate has no such site; there are: {', '.join(sorted(estate.sites))}"]
    found = [
        f"systems: {name} is not at {site}; name only what is to be fenced there"
        for name, at in sites.items()
        if name in systems and site is not None and at != site
    ]
    lonely = [name for name in systems if name in estate.databases and not estate.databases[name].peer]
    found += [f"systems: {name} has no peer; nobody takes its place" for name in lonely]
    return found + driven_out(systems, estate, () if site is None else {site})
