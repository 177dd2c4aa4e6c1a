"""Sessions at two sites, proven to be at both: what the procedures share that have a store replicate another one."""

from __future__ import annotations

from typing import Any

from activities.sessions import Comparison, PairOfStores, compare_sessions, write_canary
from recovery.errors import Fatal
from recovery.procedure import Procedure


async def prove_sessions(procedure: Procedure[Any], given: Comparison) -> None:
    """Prove that a session arrives at the replica, and that both hold the same; raises Fatal where they do not."""
    name, shared = given.replica.name, PairOfStores.model_fields
    pair = PairOfStores.model_validate(given.model_dump(include=set(shared)))
    canary = await procedure.prove(write_canary, pair)
    if canary is not None and not canary.arrived:
        why = canary.refused or canary.failed or f"not within {given.seconds:g} s"
        raise Fatal(f"a session does not arrive at {name}: {why}")
    if canary is not None:
        procedure.measured(f"a session arrives at {name} after", canary.seconds, "s", True)
    await prove_alike(procedure, given)


async def prove_alike(procedure: Procedure[Any], given: Comparison) -> None:
    """Prove that both hold the same, as far as a sample tells; raises Fatal where they do not."""
    name = given.replica.name
    found = await procedure.prove(compare_sessions, given, f"compare a sample of {given.primary.name} and {name}")
    if found is not None and (found.failed or found.differences):
        raise Fatal(f"{name} is not the same: {found.failed or '; '.join(found.named)}")
    if found is not None:
        procedure.measured(f"sessions of {name} compared with {given.primary.name}, all alike", found.compared)
