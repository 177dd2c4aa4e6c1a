"""DatabasePointInTimeRestore: a PostgreSQL database as it was at a moment: proven, then kept, cut over, copied back."""

from __future__ import annotations

from datetime import datetime

from temporalio import workflow

from activities.backups import backups
from activities.cut_over import fence, install, promote
from activities.door import close, first_write_seen, open_doors
from activities.extraction import copy_back, copying_back, preview, previewing
from activities.postgres import Replayed, lag, place, ready, replay
from activities.proofs import Comparison, compare, verify
from activities.redundancy import archive, base_backup
from activities.replacing import Replacing
from activities.restorable import Choice, way
from activities.salvage import Salvaged, SalvageSpec, salvage
from activities.side_copy import Assessment, SideCopy, assess, utc
from activities.standing import Standing, cut_over_blockers, look_at_standing
from recovery.errors import Drifted, Fatal
from recovery.models import Start, Wire
from recovery.procedure import Procedure
from recovery.report import Report
from runbooks.procedures.database_point_in_time_restore import Parameters
from runbooks.schema import Database, Host


@workflow.defn
class DatabasePointInTimeRestore(Procedure[Parameters]):
    """Restore a copy to a target in the log, prove it, let people decide, and keep it, cut over to it, or copy back."""

    parameters = Parameters

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Find, choose, lay down, replay, prove, ask; until the gate the running database is only read."""
        async with self.conducting(start) as wanted:
            copy = self._copy(wanted)
            found = await self.look(backups, copy.find())
            room = await self.look(ready, copy.room())
            standing = await self._standing(copy)
            choice, port = self._chosen(copy, assess(copy, found, room), standing)

            await self.do(place, copy.place(choice, port))
            reached = await self.do(replay, copy.replay(choice, port))
            proof = await self.prove(verify, copy.verify(port))
            beyond = await self.prove(compare, copy.compare(port))
            self._measure(copy, reached)
            taken = way(found, choice, copy.target)
            if proof is not None and proof.failed:
                raise Fatal(f"the copy is not proven: {'; '.join(proof.failed)}")

            if standing is not None:
                await self._replace(Replacing(copy), port, standing, beyond, taken, proof, reached)
            else:
                await self._decide(copy, port, taken, beyond, proof, reached)
        return self.report()

    async def _decide(self, copy: SideCopy, port: int, *evidence: Wire | None) -> None:
        """Ask, then keep the proven copy, or copy rows of it back."""
        if copy.wanted.cutover == "extract":
            return await self._extract(copy, port, *evidence)
        await self.gate("keep the copy", *evidence, then="the copy stays, and its address is reported")
        return self.delivered("copy", copy.address(port))

    async def _extract(self, copy: SideCopy, port: int, *evidence: Wire | None) -> None:
        """Show which rows would go back and which are there with other content, ask, copy them back at once."""
        rows = await self.prove(preview, previewing(copy, port))
        self.require(rows.blockers if rows else ())
        await self.gate("copy back", rows, *evidence, then=f"the rows go back into {copy.system}, in one transaction")
        commits = "clients see and use the rows that went back"
        await self.do(copy_back, copying_back(copy, port), commits=commits)
        for table in rows.tables if rows else ():
            self.measured(f"rows of {table.table} that went back", table.missing)
            self.measured(f"rows of {table.table} left as they are, with other content", table.conflicts)
        self.delivered("copy", copy.address(port))

    async def _replace(
        self, new: Replacing, port: int, standing: Standing, beyond: Comparison | None, *proofs: Wire | None
    ) -> None:
        """Ask, then shut, export, fence, promote, install, archive, open; after that there is only a way forward."""
        took = self._took(compare.title(new.copy.compare(port)))
        means = new.outlook(beyond, standing, self.frozen.keep_for, took)
        then = f"clients are shut out and the copy replaces {new.copy.system}"
        await self.gate("cut over", beyond, means, *proofs, then=then)
        cut = new.cut(port, standing)
        shut = workflow.now()  # no later than that: what is measured is not less than clients felt
        await self.do(close, cut, dark=True)
        lost = await self.do(salvage, new.salvage(port, standing))
        await self.do(fence, cut)
        await self.do(promote, new.promote(port, standing))
        await self.do(install, cut)
        await self.do(archive, cut)
        await self._exported(new.salvage(port, standing), lost)
        await self.do(open_doors, cut, commits="clients write into the restored database")
        first = await self.prove(first_write_seen, new.first_write(port, standing))
        backup = await self.do(base_backup, new.base_backup(port, standing, workflow.now()))
        self._account(new, lost, first.at if first else None, shut)
        self.delivered("redundancy", new.redundancy(backup))

    async def _exported(self, export: SalvageSpec, lost: Salvaged) -> None:
        """Go no further where what would be lost is not where it was put any more."""
        found = await self.prove(salvage, export, "see that the export stands")
        if found is not None and lost.stage == "exported" and found != lost:
            raise Drifted(f"{export.out}: somebody else changed or removed the export; the running database goes back")

    async def _standing(self, copy: SideCopy) -> Standing | None:
        """Look at the running database, if it is to be replaced."""
        if copy.wanted.cutover != "replace":
            return None
        return await self.look(look_at_standing, Replacing(copy).look())

    def _copy(self, wanted: Parameters) -> SideCopy:
        name, info = self.frozen.systems[0], workflow.info()
        database = self.system("databases", name, Database)
        host = self.system("hosts", database.host, Host)
        return SideCopy(name, database, host, wanted, info.workflow_id, self.run_name)

    def _chosen(self, copy: SideCopy, assessed: Assessment, standing: Standing | None) -> tuple[Choice, int]:
        if assessed.choice is not None and assessed.choice.earliest and assessed.choice.latest:
            self.measured("restorable from", utc(assessed.choice.earliest))
            self.measured("restorable to", utc(assessed.choice.latest))
        kind = copy.database.backups.kind
        self.require([*assessed.blockers, *(cut_over_blockers(standing, kind) if standing else ())])
        if assessed.choice is None:
            raise Fatal("no backup was chosen although nothing stands in the way")
        return assessed.choice, assessed.port

    def _took(self, step: str) -> float:
        lines = (line for line in self.report().steps if line.title == step)
        return sum((line.ended - line.began).total_seconds() for line in lines)

    def _measure(self, copy: SideCopy, reached: Replayed) -> None:
        seconds = lag(copy.target, reached)
        if seconds is not None:
            met = seconds <= self.frozen.objectives.rpo.total_seconds()
            self.measured("last commit before the target", seconds, "s", met)
        elif reached.last_commit:
            self.measured("last commit in the copy", f"{reached.last_commit} UTC")

    def _account(self, new: Replacing, lost: Salvaged, first: datetime | None, shut: datetime) -> None:
        """Say what was lost, for how long clients were shut out, and where what was put aside lies."""
        until = utc(workflow.now() + self.frozen.keep_for)
        if lost.stage == "exported" and lost.rows is not None:  # not where it was only planned, or skipped
            self.measured("rows exported that the restored database lacks", lost.rows)
        for table in lost.tables or ():
            self.measured(f"rows of {table.table}", table.keys or table.rows)
        if first is not None:
            self.measured("clients shut out until their first write", round((first - shut).total_seconds(), 3), "s")
        self.delivered("rows written after the target", new.lost(lost, until))
        self.delivered("the database that was replaced", f"{new.fenced} (keep until {until})")
