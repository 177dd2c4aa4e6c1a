"""A copy of a database apart from it: what a verification lays down, from the backups and the archive alone; pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from activities.backups import FindBackups, Inventory
from activities.holdings import AskHoldings, AskUnarchived
from activities.policy import newest_run
from activities.postgres import PlaceCopy, Replayed
from activities.restorable import Choice
from activities.side_copy import SideCopy
from activities.ssh import HostAt
from activities.timelines import position, segment_name
from recovery.details import span
from runbooks.procedures import database_point_in_time_restore as restore
from runbooks.procedures.restore_verification import Offsite, Parameters, hand
from runbooks.schema import Database, Host

MIB = 1024 * 1024


@dataclass(frozen=True)
class CopyApart(SideCopy):
    """A side copy that is made as if the running database was gone, its own log too."""

    def find(self) -> FindBackups:
        """Return where to look for backups and log."""
        return super().find().model_copy(update={"data": self._nowhere()})

    def place(self, choice: Choice, port: int) -> PlaceCopy:
        """Return which backup to lay down, and how it replays."""
        return super().place(choice, port).model_copy(update={"data": self._nowhere()})

    def _nowhere(self) -> str:
        """Return a folder in which no database is found."""
        return self.database.archive or self.database.copies


@dataclass(frozen=True)
class Apart:
    """What a verification asks and makes: of ``database`` (``system`` in the estate) on ``host``, for one run."""

    system: str
    database: Database
    host: Host
    wanted: Parameters
    workflow: str
    run: str

    def copy(self, target: datetime = datetime(2000, 1, 1, tzinfo=UTC)) -> CopyApart:
        """Return the copy at ``target``; where to look for backups does not depend on that.

        It takes the last of the ports that is free, and leaves the first to who recovers the database meanwhile.
        """
        ports = tuple(reversed(self.database.copy_ports[1:] or self.database.copy_ports))
        wanted = restore.Parameters(target_time=target, queries=self.wanted.queries, amcheck=self.wanted.amcheck)
        database = self.database.model_copy(update={"copy_ports": ports})
        return CopyApart(hand(self.system), database, self.host, wanted, self.workflow, self.run)

    def unarchived(self, found: Inventory) -> AskUnarchived | None:
        """Return for which log to ask the running database: what comes after the last that can be restored."""
        run = newest_run(found)
        if run is None:
            return None
        d = self.database
        return AskUnarchived(
            system=self.system,
            host=self._at(d.host, self.host),
            bin=d.bin,
            data=d.data,
            next=segment_name(run.timeline, run.last + 1, found.segment),
        )

    def at_home(self, wanted: Offsite, found: Inventory) -> AskHoldings:
        """Return how to ask what has to be off-site by now."""
        return AskHoldings(
            system=self.system, host=self._at(self.database.host, self.host), segment=found.segment,
            backups=self.database.backups.folder or "", archive=self.database.archive or "",
            settled=int(wanted.within.total_seconds()), packed=self.database.restore_command is not None,
        )  # fmt: skip

    def off_site(self, wanted: Offsite, host: Host, found: Inventory) -> AskHoldings:
        """Return how to ask what is off-site."""
        return AskHoldings(
            system=self.system, host=self._at(wanted.host, host), backups=wanted.backups, archive=wanted.archive,
            segment=found.segment, packed=self.database.restore_command is not None,
        )  # fmt: skip

    def _at(self, name: str, host: Host) -> HostAt:
        return HostAt.model_validate(host.model_dump() | {"name": name})


def replayed_bytes(choice: Choice, reached: Replayed) -> int | None:
    """Return how many bytes of log were replayed, None if nobody knows."""
    return position(reached.lsn) - position(choice.backup.start_lsn) if reached.lsn else None


def slow(took: float, rto: timedelta, tier: str) -> tuple[str, ...]:
    """Return what to say of a restore that took so many seconds, if it took longer than the tier allows."""
    if took <= rto.total_seconds():
        return ()
    return (
        f"objectives.rto: the restore alone took {span(took)}, and {span(rto.total_seconds())} is the objective of tier"
        f" {tier}; take backups more often, so that less log is replayed, or have faster disks",
    )
