"""Stores of sessions, Valkey or Redis: what one is, how far its replica is, and when nothing is left to replicate."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Literal, Self

from activities import ssh
from activities.ssh import HostAt
from recovery.actions import Probe, Spec
from recovery.errors import Invalid
from recovery.models import Wire
from runbooks.schema import Host, Store


class StoreAt(Wire):
    """How a store is asked, on its host; ``upstream`` is the address at which its peer replicates it."""

    name: str
    host: HostAt
    cli: str
    address: str
    port: int
    secret: str = ""
    upstream: str
    copies: str = ""
    server: str = ""

    @classmethod
    def of(cls, name: str, store: Store, host: Host) -> Self:
        """Return how a store of the estate is asked."""
        known = HostAt.model_validate(host.model_dump() | {"name": store.host})
        return cls(
            name=name, host=known, cli=store.cli, address=store.address, port=store.port, secret=store.secret or "",
            upstream=f"{store.upstream.address}:{store.upstream.port}", copies=store.copies or "",
            server=store.server or "",
        )  # fmt: skip

    def values(self) -> dict[str, object]:
        """Return the shell variables that every script about a store takes."""
        return {"cli": self.cli, "address": self.address, "port": self.port, "secret": self.secret}


class StoreSpec(Spec):
    """A store, and what tells this recovery's jobs on its host from those of another one."""

    store: StoreAt
    run: str = ""


class Replica(Wire):
    """One that replicates a store: where it calls from, how far it is, how long ago it said so."""

    address: str
    state: str
    offset: int
    seconds: int


class Replication(Wire):
    """What a store is and holds. ``history`` (an id) and ``offset`` (bytes of its log) tell how far it is.

    Before ``common`` bytes it was ``former``, another history: what replicates that may go on from there. ``idle`` and
    ``down`` are seconds since it heard from its primary, and since it gave that up, which it does after ``timeout``
    seconds of silence, if not before. ``writes`` was tried, if that was asked. ``clients`` are connected, besides who
    looks and other stores, and ``limit`` is how many may be; None where it does not tell.
    ``lasting`` tells whether a restart finds role and gate as they are; None if nobody can know.
    """

    role: Literal["primary", "replica"]
    of: str = ""
    linked: bool = False
    filling: bool = False
    idle: int | None = None
    down: int | None = None
    timeout: int | None = None
    history: str = ""
    offset: int = 0
    former: str = ""
    common: int = 0
    replicas: tuple[Replica, ...] = ()
    version: str = ""
    used: int = 0
    room: int = 0
    policy: str = ""
    keys: int = 0
    expiring: int = 0
    clients: int | None = None
    limit: int | None = None
    writes: Literal["taken", "refused", ""] = ""
    least: int = 0
    lag: int = 0
    lasting_role: bool | None = None
    lasting_gate: bool | None = None


NOBODY = Replication(role="primary")
"""What stands for a store that could not be seen."""


async def look(
    store: StoreAt, asked: Literal["role", "gate", "all"] = "all", seconds: float = ssh.LOOK_SECONDS
) -> Replication:
    """Look at a store for up to ``seconds``; one command.

    Each thing more that is asked takes the store's own command line once more.
    """
    return replication(await ssh.look(store.host, "store_state", store.values() | {"asked": asked}, seconds))


def replication(text: str) -> Replication:
    """Return what the script ``store_state`` printed. Raises Invalid if that is not what a store tells."""
    try:
        return Replication.model_validate(_facts(dict(line.partition("\t")[::2] for line in text.splitlines())))
    except (KeyError, ValueError):
        raise Invalid("cli: what answers at this address does not tell of itself as Valkey does") from None


def _facts(told: dict[str, str]) -> dict[str, object]:
    of = f"{told['master_host']}:{told['master_port']}" if told["role"] == "slave" else ""
    least, lag = told.get("gate", "0 0").split()
    spaces = [_pairs(value) for name, value in told.items() if re.fullmatch(r"db\d+", name)]
    replicas = [_pairs(value) for name, value in told.items() if re.fullmatch(r"slave\d+", name)]
    former = told["master_replid2"]
    return {
        "role": "replica" if of else "primary", "of": of, "linked": told.get("master_link_status") == "up",
        "filling": "1" in (told.get("master_sync_in_progress"), told.get("loading")),
        "idle": _seconds(told, "master_last_io_seconds_ago"), "down": _seconds(told, "master_link_down_since_seconds"),
        "timeout": told.get("timeout") or None,
        "history": told["master_replid"], "offset": told.get("slave_repl_offset") or told["master_repl_offset"],
        "former": former if former.strip("0") else "", "common": max(int(told["second_repl_offset"]) - 1, 0),
        "replicas": tuple(_replica(found) for found in replicas),
        "version": told.get("valkey_version") or told.get("redis_version", ""), "writes": told.get("writes", ""),
        "used": told["used_memory"], "room": told["maxmemory"], "policy": told["maxmemory_policy"],
        "keys": sum(int(space["keys"]) for space in spaces), "least": least, "lag": lag,
        "expiring": sum(int(space["expires"]) for space in spaces),
        "clients": _clients(told), "limit": told.get("maxclients") or None,
        "lasting_role": _lasts(told, "saved_of", of), "lasting_gate": _lasts(told, "saved_gate", told.get("gate")),
    }  # fmt: skip


def _clients(told: dict[str, str]) -> int | None:
    """Return how many clients there are; a replica counts its link to its primary as one, a primary no replica."""
    if "connected_clients" not in told:
        return None
    return max(int(told["connected_clients"]) - 1 - (told.get("master_link_status") == "up"), 0)


def _lasts(told: dict[str, str], name: str, now: str | None) -> bool | None:
    """Tell whether the file of settings says what holds now; without one all is forgotten."""
    return {"read": told.get(name) == now, "none": False}.get(told["file"])


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.partition("=")[::2] for pair in text.split(","))


def _seconds(told: dict[str, str], name: str) -> int | None:
    seconds = int(told.get(name, -1))
    return seconds if seconds >= 0 else None


def _replica(told: dict[str, str]) -> Replica:
    return Replica.model_validate(
        {"address": f"{told['ip']}:{told['port']}", "state": told["state"], "offset": told["offset"]}
        | {"seconds": told["lag"]}
    )


def shared(old: Replication, new: Replication) -> int | None:
    """Return up to which byte of its log ``new`` has all that ``old`` has; None if they have nothing in common."""
    known = {new.former: new.common, new.history: new.offset}
    if old.history in known:
        return known[old.history]
    return min(old.common, known[old.former]) if old.former and old.former in known else None


def alone(old: Replication, new: Replication) -> int | None:
    """Return how many bytes of log only ``old`` has, which it discards when it follows ``new``; None if all of it."""
    common = shared(old, new)
    return None if common is None else max(old.offset - common, 0)


class LookAtStore(Probe[StoreSpec, Replication]):
    """See what a store is, how far it is, and what it holds."""

    name = "valkey.replication"

    def title(self, spec: StoreSpec) -> str:
        """Say what is looked at."""
        return f"look at {spec.system}"

    async def observe(self, spec: StoreSpec) -> Replication:
        """Look; the one write that it tries changes nothing."""
        return await look(spec.store)


look_at_store = LookAtStore()


class CatchUp(StoreSpec):
    """Wait up to ``seconds`` until ``replica`` has all that ``store`` has."""

    replica: StoreAt
    seconds: int = 60


class CaughtUp(Wire):
    """How many bytes of log the replica still lacks (None: it has another history), and how far both are."""

    left: int | None = None
    offset: int = 0
    replica: int = 0


class CatchesUp(Probe[CatchUp, CaughtUp]):
    """Wait until nothing is left to replicate; something that is left is no failure."""

    name = "valkey.caught_up"
    limit = timedelta(minutes=12)
    patience = timedelta(minutes=25)

    def title(self, spec: CatchUp) -> str:
        """Say who waits for what."""
        return f"see all of {spec.system} replicated"

    async def observe(self, spec: CatchUp) -> CaughtUp:
        """Ask the primary first: what it has then, the replica must have after."""
        until = asyncio.get_running_loop().time() + spec.seconds
        while True:
            first = await look(spec.store, "role")
            second = await look(spec.replica, "role")
            left = alone(first, second)
            if left == 0 or asyncio.get_running_loop().time() > until:
                return CaughtUp(left=left, offset=first.offset, replica=second.offset)
            await asyncio.sleep(0.2)


caught_up = CatchesUp()
