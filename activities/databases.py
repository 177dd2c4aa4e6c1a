"""PostgreSQL at two sites: what each database is, how far the standby is, and when nothing is left to replicate."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime, timedelta
from typing import Literal, Self

from activities import ssh
from activities.ssh import HostAt
from recovery.actions import Probe, Spec
from recovery.errors import Invalid
from recovery.models import Wire
from recovery.safety import Known
from runbooks.schema import Database, Host

PLACE = re.compile(r"\b(host|port)\s*=\s*'?([^\s']+)")


class DatabaseAt(Wire):
    """How a database is asked and served, on its host; ``upstream`` is how its peer replicates it."""

    name: str
    host: HostAt
    bin: str
    data: str
    sockets: str
    port: int
    dbname: str
    dbuser: str
    archive: str = ""
    copies: str = ""
    upstream: str = ""

    @classmethod
    def of(cls, name: str, database: Database, host: Host) -> Self:
        """Return how a database of the estate is asked."""
        known = HostAt.model_validate(host.model_dump() | {"name": database.host})
        return cls(
            name=name, host=known, bin=database.bin, data=database.data, sockets=database.sockets, port=database.port,
            dbname=database.name, dbuser=database.user, archive=database.archive or "", copies=database.copies,
            upstream=database.upstream or "",
        )  # fmt: skip

    @property
    def reached(self) -> str:
        """Where its peer finds it, as host:port."""
        found = dict(PLACE.findall(self.upstream))
        return f"{found.get('host', '')}:{found.get('port', '5432')}"

    def values(self, owner: str) -> dict[str, object]:
        """Return the shell variables that every script about a switch takes; ``owner`` is the recovery."""
        return {
            "bin": self.bin, "data": self.data, "sockets": self.sockets, "port": self.port, "dbname": self.dbname,
            "dbuser": self.dbuser, "archive": self.archive, "copy": f"{self.data}.switch-{owner}", "owner": owner,
            "jobs": self.host.jobs,
        }  # fmt: skip


class DatabaseSpec(Spec):
    """A database, and what tells this recovery's jobs and files on its host from those of another one.

    ``reach`` is the upstream of its peer where it is to be seen whether this host can replicate that.
    """

    database: DatabaseAt
    owner: str = ""
    reach: str = ""


class DatabaseSeen(Wire):
    """What a database is. Positions in the log are PostgreSQL's (``0/16B3748``); ``free`` is in KiB.

    ``committed`` is when the last transaction was committed that a standby has replayed.
    ``of`` is whom a standby replicates at this moment, ``follows`` whom it is set to; ``reached`` is the system that
    answers at its peer's address, ``unreached`` why none does. ``kept`` tells whether this recovery keeps its settings,
    ``promoted`` and ``joining`` that it began to promote it, or to have it follow, ``written`` that it took a row then.
    ``clients`` are connected, ``limit`` is how many may be, ``reserved`` of these are for administrators alone; None
    where it did not tell. ``left`` are other recoveries of which something lies beside it.
    """

    role: Literal["primary", "standby", "down"] = "down"
    serving: bool = False
    listening: bool = False
    signal: bool = False
    kept: Literal["no", "half", "yes"] = "no"
    promoted: bool = False
    written: bool = False
    joining: bool = False
    system: str = ""
    control: str = ""
    checkpoint: str = ""
    timeline: int = 0
    version: str = ""
    flushed: str = ""
    replayed: str = ""
    committed: datetime | None = None
    of: str = ""
    follows: str = ""
    streaming: bool = False
    followers: int = 0
    synchronous: int = 0
    clients: int = 0
    limit: int | None = None
    reserved: int | None = None
    rewinds: bool = False
    settings: dict[str, str] = {}
    free: int | None = None
    reached: str = ""
    unreached: str = ""
    left: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


async def look(
    database: DatabaseAt, owner: str = "", reach: str = "", seconds: float = ssh.LOOK_SECONDS
) -> DatabaseSeen:
    """Look at a database for up to ``seconds``; one command."""
    return seen(await ssh.look(database.host, "pg_state", database.values(owner) | {"reach": reach}, seconds))


def seen(text: str) -> DatabaseSeen:
    """Return what the script ``pg_state`` printed. Raises Invalid if that is not what a database tells."""
    rows = [line.partition("\t")[::2] for line in text.splitlines()]
    told = dict(rows)
    try:
        live = json.loads(told["live"]) if "live" in told else {}
        settings = {name: str(value) for name, value in (live.get("settings") or {}).items()}
        return DatabaseSeen(
            role=live.get("role", "down"),
            kept=told.get("kept", "no"),
            **{
                name: told.get(name) == "yes"
                for name in ("serving", "listening", "signal", "promoted", "written", "joining")
            },
            **{name: told.get(name, "") for name in ("system", "control", "checkpoint", "reached", "unreached")},
            timeline=int(live.get("line") or told.get("timeline") or 0),
            version=live.get("version", ""),
            flushed=live.get("flushed") or "",
            replayed=live.get("replayed") or "",
            committed=live.get("committed"),
            of=live.get("of", ""),
            follows=live.get("follows", ""),
            streaming=live.get("streaming", False),
            followers=live.get("followers", 0),
            synchronous=live.get("synchronous", 0),
            clients=live.get("clients", 0),
            limit=live.get("limit"),
            reserved=live.get("reserved"),
            rewinds=told.get("checksums", "0") != "0" or settings.get("wal_log_hints") == "on",
            settings=settings,
            free=int(told["free"]) if told.get("free") else None,
            left=tuple(owner for name, owner in rows if name == "left"),
            faults=tuple(fault for name, fault in rows if name == "fault"),
        )
    except (AttributeError, KeyError, ValueError):
        raise Invalid("bin: what answers at this address does not tell of itself as PostgreSQL does") from None


def known(name: str, seen: DatabaseSeen) -> Known:
    """Return what the safety rules are to go by: whether a database takes writes, or would once it is started; pure."""
    if seen.role != "down":
        return Known(name, seen.role == "primary", seen=f"is a {seen.role}")
    if seen.serving:
        return Known(name, None, seen="runs, and does not answer")
    if seen.signal:
        return Known(name, False, "proven", "is fenced: stopped, and would come up as a standby")
    if seen.system:
        return Known(name, None, seen="is stopped, but would come up as a primary")
    return Known(name, None, seen="is not to be found where its data was")


def position(lsn: str) -> int:
    """Return a position in the log in bytes; 0 for none."""
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16) if low else 0


class LookAtDatabase(Probe[DatabaseSpec, DatabaseSeen]):
    """See what a database is, how far it is, and what it could serve."""

    name = "postgres.replication"

    def title(self, spec: DatabaseSpec) -> str:
        """Say what is looked at."""
        return f"look at {spec.system}"

    async def observe(self, spec: DatabaseSpec) -> DatabaseSeen:
        """Look."""
        return await look(spec.database, spec.owner, spec.reach)


look_at_database = LookAtDatabase()


class CatchUp(DatabaseSpec):
    """Wait up to ``seconds`` until the standby ``behind`` has all that the database has."""

    behind: DatabaseAt
    seconds: int = 60


class CaughtUp(Wire):
    """How many bytes of log the standby lacks of what the primary had when it was asked (None: that is not known).

    ``stopped`` tells whether that is the last there will be: the primary was shut down in order, at ``last``.
    """

    left: int | None = None
    last: str = ""
    stopped: bool = False


class CatchesUp(Probe[CatchUp, CaughtUp]):
    """Wait until nothing is left to replicate; something that is left is no failure."""

    name = "postgres.caught_up"
    limit = timedelta(minutes=12)
    patience = timedelta(minutes=25)

    def title(self, spec: CatchUp) -> str:
        """Say who waits for what."""
        return f"see all of {spec.system} replicated"

    async def observe(self, spec: CatchUp) -> CaughtUp:
        """Ask the primary first: what it has then, the standby must have after."""
        until = asyncio.get_running_loop().time() + spec.seconds
        while True:
            first, second = await look(spec.database, spec.owner), await look(spec.behind, spec.owner)
            found = missing(first, second)
            if found.left == 0 or asyncio.get_running_loop().time() > until:
                return found
            await asyncio.sleep(0.2)


caught_up = CatchesUp()


def missing(primary: DatabaseSeen, standby: DatabaseSeen) -> CaughtUp:
    """Return what ``standby`` lacks; of a primary that was stopped in order, up to its last checkpoint; pure.

    The record of that checkpoint begins at ``last``: who has anything beyond it has all of it.
    """
    stopped = primary.role == "down" and not primary.serving and primary.control.startswith("shut down")
    has = position(standby.flushed)
    if primary.system != standby.system or standby.role != "standby" or not has:
        return CaughtUp(last=primary.checkpoint if stopped else "", stopped=stopped)
    if stopped:
        left = max(position(primary.checkpoint) + 1 - has, 0)
        return CaughtUp(left=left, last=primary.checkpoint, stopped=True)
    if primary.role != "primary":
        return CaughtUp()
    return CaughtUp(left=max(position(primary.flushed) - has, 0), last=primary.flushed)
