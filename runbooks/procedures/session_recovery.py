"""What a runbook may say to SessionRecovery."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field

from recovery.models import Authored, Name
from runbooks.schema import Estate, Keys, Path

SYSTEMS = ("stores",)
ESTATE = ("sites", "hosts", "stores", "safety")
OVERWRITE, PROMOTE, RESTORE = "overwrite the store", "promote the store", "restore the sessions"
GATES = (OVERWRITE, PROMOTE, RESTORE)
GATE = {"reattach": OVERWRITE, "promote": PROMOTE, "restore": RESTORE}


def gates(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the gates that a run with ``parameters`` comes to, or may come to."""
    return (GATE.get(str(parameters.get("how")), OVERWRITE),)


def commits(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a run with ``parameters`` passes a point of no return.

    Sessions are taken where they were not, or how they were before is forgotten.
    """
    return parameters.get("how") in ("promote", "restore")


class Parameters(Authored):
    """Which store is to become what.

    ``reattach`` makes ``store`` a replica of its peer, which takes writes; ``promote`` has it take them instead of its
    peer; ``restore`` puts what a ``snapshot`` (RDB) holds, and the store lacks, into it. That is a file, or a folder as
    a recovery leaves it, under ``copies`` on the store's host. Where both have a session the newer one stays: the one
    that has more in ``version``, a field of hashes with a number or a time that grows with each write; else the one
    that expires later; else that of the store.

    ``match`` is a pattern of the keys that are sessions; a session has to arrive within ``lag``, and a replica to
    catch up within ``catch_up``.
    """

    how: Literal["reattach", "promote", "restore"]
    store: Name
    snapshot: Path | None = None
    version: Name | None = None
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
    if wrong:
        return [f"systems: name {name} and its peer {peer}, and nothing else"]
    how = parameters.get("how")
    if how == "restore":
        return _restored(name, parameters, estate)
    more = [field for field in ("snapshot", "version") if parameters.get(field) is not None and how is not None]
    return [f"parameters.{field}: is for restore alone; leave it out to {how}" for field in more]


def _restored(name: str, parameters: Mapping[str, Any], estate: Estate) -> list[str]:
    """Return what is wrong with a restore; a ``snapshot`` that is left to who starts is not there yet."""
    store = estate.stores[name]
    wrong = [
        f"stores.{name}.{field}: is missing; {what}"
        for field, what in (
            ("server", "name the host's valkey-server, which reads snapshots"),
            ("copies", "name a folder on the host, in which snapshots lie"),
        )
        if getattr(store, field) is None
    ]
    given = parameters.get("snapshot", "")
    if given is None:
        wrong.append("parameters.snapshot: is missing; name the file, or the folder, from which sessions are restored")
    # Who starts a recovery names it: they must not have any file of the host read as if it were sessions.
    if given and store.copies and not _under(str(given), store.copies):
        wrong.append(f"parameters.snapshot: lies outside {store.copies}, the folder for copies; have it copied there")
    return wrong


def _under(path: str, folder: str) -> bool:
    return path.startswith(f"{folder.rstrip('/')}/") and ".." not in path.split("/")
