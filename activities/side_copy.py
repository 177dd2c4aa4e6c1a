"""What a side copy needs, decided from what was found; pure: the specs of its steps, and what stands in its way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from activities.backups import SKEW, FindBackups, Inventory
from activities.postgres import AskReadiness, PlaceCopy, Readiness, ReplayCopy, copy_name
from activities.proofs import CompareCopy, Question, VerifyCopy
from activities.restorable import Choice, choose
from activities.sources import Source
from activities.ssh import HostAt
from activities.targets import Target
from runbooks.procedures.database_point_in_time_restore import Parameters
from runbooks.schema import Database, Host

MARGIN = 256 * 1024 * 1024
"""Bytes kept free beside a copy: its own log, its temporary files, and the neighbours' growth meanwhile."""


BUSY = ("starting up", "shutting down", "recovery mode", "accepting connections", "too many clients")
"""What a server says that is there but cannot be asked just now; any other refusal is about the login."""


@dataclass(frozen=True)
class SideCopy:
    """A copy of ``database`` (``system`` in the estate) at a moment, owned by the recovery ``owner``."""

    system: str
    database: Database
    host: Host
    wanted: Parameters
    workflow: str
    run: str

    @property
    def target(self) -> Target:
        """Return where the copy is to stop."""
        return Target.of(self.wanted)

    def find(self) -> FindBackups:
        """Return where to look for backups and log."""
        d = self.database
        return FindBackups(
            **self.common(), **self._running(), data=d.data, source=Source.of(d), target=self.target,
            wanted=self.wanted.timeline or 0,
        )  # fmt: skip

    def room(self) -> AskReadiness:
        """Return where the copy is to stand."""
        return AskReadiness(
            system=self.system,
            drill=self.database.drill,
            host=self._host(),
            bin=self.database.bin,
            copies=self.database.copies,
        )

    def place(self, choice: Choice, port: int) -> PlaceCopy:
        """Return which backup to lay down, and how it replays."""
        return PlaceCopy(
            **self.of_copy(port),
            backup=choice.backup.path,
            chain=choice.backup.chain,
            source=Source.of(self.database),
            data=self.database.data,
            target=self.target,
            timeline=choice.timeline,
            size=choice.backup.laid or choice.backup.size,
            rate=self.database.io_rate,
        )

    def replay(self, choice: Choice, port: int) -> ReplayCopy:
        """Return how far to replay."""
        return ReplayCopy(**self.of_copy(port), enough=choice.enough)

    def verify(self, port: int) -> VerifyCopy:
        """Return what to prove."""
        questions = tuple(Question(**query.model_dump()) for query in self.wanted.queries)
        return VerifyCopy(**self.of_copy(port), amcheck=self.wanted.amcheck, questions=questions)

    def compare(self, port: int) -> CompareCopy:
        """Return what to compare with the running database: if all of it goes back, all of it."""
        replaces = self.wanted.cutover == "replace"
        tables = () if replaces else self.wanted.tables
        return CompareCopy(**self.of_copy(port), **self._running(), tables=tables, replaces=replaces)

    def address(self, port: int) -> str:
        """Return how people reach the copy, as the arguments of psql on its host."""
        return f"psql -h {self.directory()}/run -p {port} -U {self.database.user} -d {self.database.name}"

    def directory(self) -> str:
        """Return the folder of the copy."""
        return f"{self.database.copies}/{copy_name(self.system, self.target, self.run)}"

    def _host(self) -> HostAt:
        return HostAt.model_validate(self.host.model_dump() | {"name": self.database.host})

    def common(self) -> dict[str, Any]:
        """Return what every spec says of the system."""
        d = self.database
        return {
            "system": self.system, "drill": d.drill, "host": self._host(), "bin": d.bin, "dbname": d.name,
            "dbuser": d.user,
        }  # fmt: skip

    def _running(self) -> dict[str, Any]:
        return {"sockets": self.database.sockets, "port": self.database.port}

    def of_copy(self, port: int) -> dict[str, Any]:
        """Return what every spec says of the copy."""
        owner = f"{self.workflow}@{self.run}"
        return self.common() | {"copy_dir": self.directory(), "copy_port": port, "owner": owner}


@dataclass(frozen=True)
class Assessment:
    """What was decided, or every blocker that was found."""

    blockers: tuple[str, ...]
    choice: Choice | None
    port: int


def assess(copy: SideCopy, found: Inventory, room: Readiness) -> Assessment:
    """Return the backup and port to use, and everything that stands in the way, each with what to do about it."""
    choice = choose(found, copy.target)
    port = next((port for port in copy.database.copy_ports if port not in room.listening), 0)
    blockers = [*room.faults, *found.faults]
    chosen = None if isinstance(choice, str) else choice
    if isinstance(choice, str):
        blockers.append(choice)
    if not port:
        blockers.append("copy_ports: all are in use on the host; drop a copy that nobody needs, or add a port")
    blockers += _checks(copy, found, room)
    if chosen is not None:
        blockers += _fits(chosen, found, room)
    return Assessment(tuple(blockers), chosen, port)


def _checks(copy: SideCopy, found: Inventory, room: Readiness) -> list[str]:
    blockers = []
    if abs(room.skew) > SKEW.total_seconds():
        blockers.append(
            f"clock: the host's is {room.skew:+.1f} s off the worker's; set them right, a target time means both"
        )
    if not found.live and "FATAL" in found.down and not any(busy in found.down for busy in BUSY):
        blockers.append(f"credentials: the running database refuses {copy.database.user}: {found.down}")
    if found.live and not found.archiving:
        blockers.append("archive: archive_mode is off in the running database; nothing later can be restored")
    if found.live and not found.amcheck and copy.wanted.amcheck:
        blockers.append("amcheck: the extension is not installed; create it, or set parameters.amcheck to false")
    return blockers


def _fits(choice: Choice, found: Inventory, room: Readiness) -> list[str]:
    blockers = []
    if room.version and room.version != choice.backup.version:
        blockers.append(
            f"bin: is PostgreSQL {room.version}, the backup is of {choice.backup.version}; name the right bin"
        )
    log = sum((r.last - r.first + 1) * found.segment for r in found.ranges if r.timeline == choice.timeline)
    needed = choice.backup.size + min(log, 2 * 1024**3) + MARGIN
    if room.free is not None and room.free < needed:
        blockers.append(
            f"disk: {room.free // 2**20} MiB are free for copies, {needed // 2**20} MiB are needed; free room"
        )
    return blockers


def utc(at: datetime) -> str:
    """Return ``at`` in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
