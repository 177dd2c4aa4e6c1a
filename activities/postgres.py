"""PostgreSQL side copies: lay a backup down, replay it to a moment, and take it away again."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import model_validator

from activities import ssh
from activities.sources import Source
from activities.ssh import HostAt
from activities.targets import Target
from recovery.actions import Action, Probe, Spec
from recovery.models import Wire


class CopySpec(Spec):
    """A side copy: its folder, port and owner (the recovery), on the host of the database."""

    host: HostAt
    bin: str
    copy_dir: str
    copy_port: int
    owner: str
    dbname: str
    dbuser: str

    def values(self) -> dict[str, object]:
        """Return the shell variables that every script about a copy takes."""
        return {
            "bin": self.bin, "copy": self.copy_dir, "copyport": self.copy_port, "owner": self.owner,
            "dbname": self.dbname, "dbuser": self.dbuser,
        }  # fmt: skip

    def job(self, what: str) -> str:
        """Return the name of this copy's job ``what``; a copy's folder belongs to one recovery alone."""
        return f"{self.copy_dir.rsplit('/', maxsplit=1)[-1]}.{what}"


async def _state(spec: CopySpec) -> dict[str, list[str]]:
    text = await ssh.look(spec.host, "copy_state", spec.values())
    return {row[0]: row[1:] for row in (line.split("\t") for line in text.splitlines())}


class PlaceCopy(CopySpec):
    """Which backup to lay down, and how it is to replay: up to ``target``, along ``timeline``.

    ``chain`` are the backups from which an incremental one is put together, the full one first, its own last.
    ``size`` is about how many bytes that writes; 0 is not known. ``rate`` limits how many a second.
    """

    backup: str
    data: str
    timeline: int
    target: Target
    source: Source
    chain: tuple[str, ...] = ()
    size: int = 0
    rate: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _told_before(cls, told: Any) -> Any:
        """Take a spec of a recovery that began when there were only moments to go back to, and folders."""
        if isinstance(told, dict) and "target_time" in told and "target" not in told:
            at = Target.at(datetime.fromisoformat(str(told["target_time"])))
            return told | {"target": at, "source": Source(archive=told.get("archive", ""))}
        return told

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``place_copy``."""
        chain = self.chain if self.source.kind == "native" else ()
        return super().values() | self.source.values() | {
            "backup": "\n".join(chain or (self.backup,)), "data": self.data, "timeline": self.timeline,
            "kind": self.target.kind, "target": self.target.value,
            "inclusive": "on" if self.target.inclusive else "off", "total": self.size, "rate": self.rate or "",
        }  # fmt: skip


class Placed(Wire):
    """Whether the files of a copy stand, whose they are, and of which backup (checked against its manifest)."""

    stage: Literal["absent", "partial", "placed"] = "absent"
    owner: str = ""
    backup: str = ""


class Place(Action[PlaceCopy, Placed]):
    """Lay a verified backup down as a new folder."""

    name = "postgres.place"
    limit = timedelta(hours=4)

    def title(self, spec: PlaceCopy) -> str:
        """Say what is laid down."""
        chain = f", put together from {len(spec.chain)}" if spec.chain else ""
        return f"lay down backup {spec.backup.rsplit('/', maxsplit=1)[-1]}{chain}"

    async def observe(self, spec: PlaceCopy) -> Placed:
        """Look whether the folder stands."""
        seen = await _state(spec)
        stage, owner, backup = (seen.get(key, [default])[0] for key, default in _PLACED)
        return Placed.model_validate({"stage": stage, "owner": owner, "backup": backup})

    def desired(self, spec: PlaceCopy, before: Placed) -> Placed:
        """Want the folder, owned by this recovery."""
        return Placed(stage="placed", owner=spec.owner, backup=spec.backup.rsplit("/", maxsplit=1)[-1])

    def partial(self, spec: PlaceCopy, before: Placed, now: Placed) -> bool:
        """Know an unfinished folder of this recovery, or one whose owner was not written yet."""
        return now.stage == "partial" and now.owner in ("", spec.owner)

    async def apply(self, spec: PlaceCopy, before: Placed) -> None:
        """Copy, check against the manifest, configure, move into place."""
        await ssh.job(spec.host, spec.job("place"), "place_copy", spec.values())

    async def undo(self, spec: PlaceCopy, before: Placed) -> None:
        """Remove the folder; only if it is this recovery's own."""
        await ssh.job(spec.host, spec.job("place"), "drop_copy", spec.values())
        await self.halt(spec)

    async def halt(self, spec: PlaceCopy) -> None:
        """End the job that copies, and remove its traces."""
        await ssh.end_job(spec.host, spec.job("place"))


_PLACED = (("stage", "absent"), ("owner", ""), ("backup", ""))
place = Place()


class ReplayCopy(CopySpec):
    """Replay up to the configured target; ``enough`` is a log position surely written after it."""

    enough: str

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``replay_copy``."""
        return super().values() | {"enough": self.enough}


class Replayed(Wire):
    """Whether the copy stands still at its target and can be read, where in the log, at which last commit (UTC).

    ``how`` is "paused", or "promoted" where transactions in flight at the target held locks on tables. A copy that
    was promoted by anybody else is "taken".
    """

    stage: Literal["stopped", "replaying", "ready", "taken"] = "stopped"
    how: str | None = ""
    lsn: str | None = ""
    last_commit: str | None = ""


class Replay(Action[ReplayCopy, Replayed]):
    """Start the copy's server, replay to the target, and stand still there, readable and read-only."""

    name = "postgres.replay"
    limit = timedelta(hours=4)

    def title(self, spec: ReplayCopy) -> str:
        """Say what is replayed."""
        return f"replay the log into the copy of {spec.system}"

    async def observe(self, spec: ReplayCopy) -> Replayed:
        """Look where the server stands."""
        seen = await _state(spec)
        if "server" not in seen:
            return Replayed()
        stage, lsn, last = (*seen.get("replay", ["starting"]), "", "")[:3]
        if stage not in ("paused", "promoted"):
            return Replayed(stage="taken" if stage == "taken" else "replaying")
        return Replayed(stage="ready", how=stage, lsn=lsn, last_commit=last)

    def desired(self, spec: ReplayCopy, before: Replayed) -> Replayed:
        """Want it to stand still at the target, readable; where that is in the log is known after."""
        return Replayed(stage="ready", how=None, lsn=None, last_commit=None)

    def partial(self, spec: ReplayCopy, before: Replayed, now: Replayed) -> bool:
        """Know a server that is on its way."""
        return now.stage == "replaying"

    async def apply(self, spec: ReplayCopy, before: Replayed) -> None:
        """Start it and wait until it has reached the target."""
        await ssh.job(spec.host, spec.job("replay"), "replay_copy", spec.values())

    async def undo(self, spec: ReplayCopy, before: Replayed) -> None:
        """Stop the server."""
        await ssh.job(spec.host, spec.job("replay"), "stop_copy", spec.values())
        await self.halt(spec)

    async def halt(self, spec: ReplayCopy) -> None:
        """End the job that waits, and remove its traces; the server itself stays."""
        await ssh.end_job(spec.host, spec.job("replay"))


replay = Replay()


class AskReadiness(Spec):
    """Ask whether the host can take a copy into ``copies``."""

    host: HostAt
    bin: str
    copies: str

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``readiness``."""
        return {"bin": self.bin, "copies": self.copies, "jobs": self.host.jobs}


class Readiness(Wire):
    """What the host offers. ``skew`` is its clock minus the worker's, in seconds, less the way there."""

    free: int | None
    version: int
    skew: float
    listening: tuple[int, ...]
    faults: tuple[str, ...]


class Ready(Probe[AskReadiness, Readiness]):
    """Look at room, ports, programs and clock of the host that takes the copy."""

    name = "postgres.ready"

    def title(self, spec: AskReadiness) -> str:
        """Say what is looked at."""
        return f"look whether {spec.host.name or spec.host.address} can take a copy of {spec.system}"

    async def observe(self, spec: AskReadiness) -> Readiness:
        """Look on the host; one command. The clock is read first there, so half the way there is taken off."""
        await ssh.look(spec.host, "nothing", {})  # so that the clock reading below does not contain a login
        sent = time.time()
        text = await ssh.look(spec.host, "readiness", spec.values())
        return readiness(text, sent, time.time())


ready = Ready()


def readiness(text: str, sent: float, received: float) -> Readiness:
    """Return what the script ``readiness`` printed; ``sent`` and ``received`` are the worker's clock in seconds."""
    rows = [line.split("\t", maxsplit=1) for line in text.splitlines() if "\t" in line]
    facts = dict(row for row in rows if row[0] in ("now", "free", "version"))
    now = float(facts["now"])
    skew = 0.0 if sent <= now <= received else min(now - sent, now - received, key=abs)
    return Readiness(
        free=int(facts["free"]) if facts.get("free") else None,
        version=int(facts.get("version") or 0),
        skew=round(skew, 3),
        listening=tuple(sorted({int(value, 16) for key, value in rows if key == "listening"})),
        faults=tuple(value for key, value in rows if key == "fault"),
    )


def lag(target: Target, replayed: Replayed) -> float | None:
    """Return the seconds between the last replayed commit and a moment; None if there is none, or no moment."""
    if not replayed.last_commit or target.moment is None:
        return None
    return round((target.moment - datetime.fromisoformat(f"{replayed.last_commit}+00:00")).total_seconds(), 3)


def copy_name(system: str, target: Target, run: str) -> str:
    """Return a folder name that no other recovery has: system, target, the run's last letters.

    Its first ones are the time (UUIDv7): two runs of one minute share eight of them.
    """
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', system)}-{target.label}-{run[-8:]}"
