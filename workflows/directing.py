"""What directors need that cannot call clients back: what those were told is kept for a time, as DNS has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from temporalio import workflow

from activities.dns_director import Resolved
from activities.pointing import Sighted
from activities.sites import Sites
from activities.traffic_manager import WELL, Health
from recovery.models import Wire
from recovery.procedure import Procedure


async def shorten(procedure: Procedure[Any], sites: Sites, directors: Mapping[str, Sighted]) -> None:
    """Have clients keep for a short time only where they are sent, well before they are sent elsewhere."""
    for name, seen in directors.items():
        if shorter := sites.front(name).keep_for(sites.front(name).lowered(seen)):
            await procedure.do(*shorter, f"lower the TTL of {name}")
    await outlast(procedure, sites, directors, "until everybody asks often enough; clients are served")


async def outlast(procedure: Procedure[Any], sites: Sites, directors: Mapping[str, Sighted], why: str) -> None:
    """Wait until what clients were told when ``directors`` were seen, and keep, is over."""
    kept = {name: sites.front(name).kept(seen) for name, seen in directors.items()}
    longest = max(kept.values(), default=0)
    if longest and procedure.start.mode == "live":
        for name in (name for name, seconds in kept.items() if seconds):
            procedure.measured(f"clients keep what {name} told them for", kept[name], "s")
        await workflow.sleep(longest, summary=f"wait {longest} s, {why}")


async def lengthen(procedure: Procedure[Any], sites: Sites, directors: Mapping[str, Sighted]) -> None:
    """Have clients keep where they are sent as long again as outside of recoveries."""
    for name, seen in directors.items():
        if usual := sites.front(name).keep_for(sites.front(name).usual(seen)):
            await procedure.do(*usual, f"restore the TTL of {name}")


async def see_told(procedure: Procedure[Any], sites: Sites) -> None:
    """See that clients are told of the new site, and tell by how many resolvers, and how long that took."""
    for name in sites.directors:
        if look := sites.front(name).told(sites.new):
            found = await procedure.prove(*look)
            if isinstance(found, Health):
                procedure.measured(
                    f"{sites.new} as the monitor of {name} sees it", found.monitor, met=found.monitor == WELL
                )
            else:
                _tell(procedure, name, sites.new, found)


def tell_drained(procedure: Procedure[Any], name: str, left: Wire | None) -> None:
    """Tell how long it took until clients were told of no site any more, where a director cannot call them back."""
    if isinstance(left, Resolved):
        _tell(procedure, name, "nobody", left)


def _tell(procedure: Procedure[Any], name: str, where: str, told: Resolved | None) -> None:
    if told is not None:
        procedure.measured(f"resolvers of {name} that send clients to {where}", len(told.answers) - told.left)
        procedure.measured(f"resolvers of {name} that do not, yet", told.left)
        procedure.measured(f"clients of {name} are sent to {where} after", told.seconds, "s")
