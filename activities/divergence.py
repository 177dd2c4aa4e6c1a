"""What a lost database has that the one which took over never had: told by its log, exported before it is rebuilt."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import ClassVar

from activities import ssh
from activities.databases import DatabaseAt, DatabaseSpec
from activities.salvage import Salvaged, salvaged
from recovery.actions import Action, Probe
from recovery.errors import Invalid
from recovery.models import Wire


class PartedSpec(DatabaseSpec):
    """A fenced database, the one ``other`` that took over from it, and the folder that an export goes ``out`` to."""

    other: DatabaseAt
    out: str = ""

    def values(self) -> dict[str, object]:
        """Return the shell variables of the scripts that read its log."""
        more = {"upstream": self.other.upstream, "from": self.other.reached, "out": self.out}
        return self.database.values(self.owner) | more


class Divergence(Wire):
    """Where two databases parted (``fork``, a position in the log; "" where they have not), and what came after it.

    ``commits`` is how many transactions the lost one committed after that, ``first`` and ``last`` when, by its clock.
    Its log ends at ``end``.
    """

    line: int = 0
    fork: str = ""
    end: str = ""
    commits: int = 0
    first: datetime | None = None
    last: datetime | None = None


class LookForDivergence(Probe[PartedSpec, Divergence]):
    """Read in the log of a fenced database what the other one never had; it need not run for that."""

    name = "postgres.divergence"
    limit = timedelta(minutes=30)  # all log after the fork is read
    patience = timedelta(hours=1)

    def title(self, spec: PartedSpec) -> str:
        """Say what is looked for."""
        return f"see what only {spec.system} has"

    async def observe(self, spec: PartedSpec) -> Divergence:
        """Look."""
        return divergence(await ssh.look(spec.database.host, "divergence", spec.values(), ssh.within(self.limit)))


look_for_divergence = LookForDivergence()


def divergence(text: str) -> Divergence:
    """Return what the script ``divergence`` printed. Raises Invalid if that is none of it."""
    try:
        return Divergence.model_validate(dict(line.partition("\t")[::2] for line in text.splitlines()))
    except ValueError:
        raise Invalid("bin: what pg_waldump and pg_controldata tell there is not known here") from None


class ExportDivergence(Action[PartedSpec, Salvaged]):
    """Export every row that only a fenced database has; it is read as a standby that follows nobody.

    Of each table what transactions that committed after the fork left is taken, found by a scan of all. What they
    deleted stands at the other site; the places of those rows are told.
    """

    name = "postgres.export_divergence"
    limit = timedelta(hours=4)
    kept: ClassVar[str] = "what only the lost site had is nowhere else once that is rebuilt; people throw it away"
    skip: ClassVar[str] = "what only the lost site has is not exported: it is gone for good once that is rebuilt"

    def title(self, spec: PartedSpec) -> str:
        """Say what is exported."""
        return f"export what only {spec.system} has"

    async def observe(self, spec: PartedSpec) -> Salvaged:
        """Look at the export and its manifest."""
        return salvaged(await ssh.look(spec.database.host, "salvage_state", spec.values()))

    def desired(self, spec: PartedSpec, before: Salvaged) -> Salvaged:
        """Want it whole, of this recovery; what is in it is known after."""
        return Salvaged(stage="exported", owner=spec.owner, rows=None, tables=None, notes=None, manifest=None)

    def partial(self, spec: PartedSpec, before: Salvaged, now: Salvaged) -> bool:
        """Know an unfinished export of this recovery, or one whose owner was not written yet."""
        return now.stage == "partial" and now.owner in ("", spec.owner)

    async def apply(self, spec: PartedSpec, before: Salvaged) -> None:
        """Read it, table by table; cancelled, it leaves no server behind: there is no undo that would end that."""
        try:
            await ssh.job(spec.database.host, self.job(spec), "export_divergence", spec.values())
        except asyncio.CancelledError:
            if ssh.wanted():
                await asyncio.shield(self.halt(spec))
            raise

    async def undo(self, spec: PartedSpec, before: Salvaged) -> None:
        """Do nothing: see ``kept``."""

    async def halt(self, spec: PartedSpec) -> None:
        """End the job, and the server that it reads; what is half exported goes."""
        await ssh.end_job(spec.database.host, self.job(spec))
        await ssh.look(spec.database.host, "end_reading", spec.values())

    def job(self, spec: PartedSpec) -> str:
        """Return the name of its job on the host."""
        return f"{spec.system}-{spec.owner}.export_divergence"


export_divergence = ExportDivergence()
