"""Nodes of the site that was left are emptied, and its workloads brought to stand still: nobody waits for either."""

from __future__ import annotations

from typing import Any

from activities.nodes import look_at_nodes
from activities.sites import Sites
from recovery.procedure import Procedure


async def drain(recovery: Procedure[Any], sites: Sites, kept: str = "") -> None:
    """Empty the nodes of the old site where the estate says so: nothing of it serves any more.

    Look and act may be skipped: nobody is to be held up for good by a cluster that does not answer, or a budget.
    ``kept`` says why nothing of it is undone, where that is so.
    """
    for cluster in sites.drained(sites.old):
        spec, step = sites.nodes(cluster), f"see which nodes of {cluster} are drained"
        if recovery.start.mode == "live":
            seen = await recovery.prove(look_at_nodes, spec, step)
        else:  # a plan names the nodes
            seen = await recovery.look(look_at_nodes, spec, step)
        if seen is not None:
            await recovery.do(*sites.drain_nodes(cluster, seen), kept=kept)
