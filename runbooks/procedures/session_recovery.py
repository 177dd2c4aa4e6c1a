"""What a runbook may say to SessionRecovery."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field

from recovery.models import Authored, Name
from runbooks.schema import Estate, Keys

SYSTEMS = ("stores",)
ESTATE = ("sites", "hosts", "stores", "safety")
OVERWRITE, PROMOTE = "overwrite the store", "promote the store"
GATES = (OVERWRITE, PROMOTE)


def gates(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the gates that a run with ``parameters`` comes to, or may come to."""
    return (PROMOTE,) if parameters.get("how") == "promote" else (OVERWRITE,)


def commits(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a run with ``parameters`` passes a point of no return: sessions are taken where they were not."""
    return parameters.get("how") == "promote"


class Parameters(Authored):
    """Which store is to become what.

    ``reattach`` makes ``store`` a replica of its peer, which takes writes; ``promote`` has it take them instead of its
    peer. ``match`` is a pattern of the keys that are sessions; a session has to arrive within ``lag``, and a replica to
    catch up within ``catch_up``.
    """

    how: Literal["reattach", "promote"]
    store: Name
    match: Keys = "*"
    sample: int = Field(default=1000, ge=10, le=100_000)
    lag: timedelta = Field(default=timedelta(seconds=5), ge=timedelta(milliseconds=100), le=timedelta(seconds=30))
    catch_up: timedelta = Field(default=timedelta(minutes=1), gt=timedelta(0), le=timedelta(minutes=10))


def faults(systems: tuple[str, ...], parameters: Mapping[str, Any], estate: Estate) -> list[str]:
    """Return what is wrong with the systems that a runbook names, for a run with ``parameters``."""
    name = parameters.get("store")
    if name is None:
        return []
    if name not in systems:
        return [f"parameters.store: is none of the runbook's systems: {', '.join(systems)}"]
    peer = estate.stores[name].peer
    wrong = sorted(set(systems) ^ {name, peer})
    return [f"systems: name {name} and its peer {peer}, and nothing else"] if wrong else []
