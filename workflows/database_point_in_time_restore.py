"""DatabasePointInTimeRestore: a PostgreSQL database as it was at a moment, in a verified copy beside it."""

from __future__ import annotations

from temporalio import workflow

from activities.backups import Choice, backups
from activities.postgres import Replayed, lag, place, ready, replay
from activities.proofs import compare, verify
from activities.side_copy import Assessment, SideCopy, assess, utc
from recovery.errors import Fatal
from recovery.models import Start
from recovery.procedure import Procedure
from recovery.report import Report
from runbooks.procedures.database_point_in_time_restore import Parameters
from runbooks.schema import Database, Host


@workflow.defn
class DatabasePointInTimeRestore(Procedure[Parameters]):
    """Restore a copy to ``target_time``, prove it, and let a person decide whether it is kept."""

    parameters = Parameters

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Find, choose, lay down, replay, prove, ask. The running database and its archive are only read."""
        async with self.conducting(start) as wanted:
            copy = self._copy(wanted)
            found = await self.look(backups, copy.find())
            room = await self.look(ready, copy.room())
            choice, port = self._chosen(assess(copy, found, room))

            await self.do(place, copy.place(choice, port))
            reached = await self.do(replay, copy.replay(choice, port))
            proof = await self.prove(verify, copy.verify(port))
            beyond = await self.prove(compare, copy.compare(port))
            self._measure(wanted, reached)
            if proof is not None and proof.failed:
                raise Fatal(f"the copy is not proven: {'; '.join(proof.failed)}")

            await self.gate("keep the copy", beyond, proof, reached, then="the copy stays, and its address is reported")
            self.delivered("copy", copy.address(port))
        return self.report()

    def _copy(self, wanted: Parameters) -> SideCopy:
        name, info = self.frozen.systems[0], workflow.info()
        database = self.system("databases", name, Database)
        host = self.system("hosts", database.host, Host)
        return SideCopy(name, database, host, wanted, info.workflow_id, self.run_name)

    def _chosen(self, assessed: Assessment) -> tuple[Choice, int]:
        if assessed.choice is not None:
            self.measured("restorable from", utc(assessed.choice.earliest))
            self.measured("restorable to", utc(assessed.choice.latest))
        self.require(assessed.blockers)
        if assessed.choice is None:
            raise Fatal("no backup was chosen although nothing stands in the way")
        return assessed.choice, assessed.port

    def _measure(self, wanted: Parameters, reached: Replayed) -> None:
        seconds = lag(wanted.target_time, reached)
        if seconds is not None:
            met = seconds <= self.frozen.objectives.rpo.total_seconds()
            self.measured("last commit before the target", seconds, "s", met)
