"""RestoreVerification: the newest backup restored apart from the running database, proven, and dropped again."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from activities.apart import MIB, Apart, CopyApart, replayed_bytes, slow
from activities.backups import Inventory, backups
from activities.holdings import Unarchived, holdings, unarchived
from activities.last_proven import AskLast, Last, last_proven
from activities.policy import Away, breaches, lost_since
from activities.postgres import Readiness, Replayed, place, ready, replay
from activities.proofs import verify
from activities.restorable import Choice, span
from activities.side_copy import assess, utc
from recovery import notices
from recovery.attributes import BREACHES, PROVEN_AT, VERDICT
from recovery.errors import Fatal
from recovery.models import Start
from recovery.procedure import Procedure, R
from recovery.report import Report
from runbooks.procedures.restore_verification import Parameters
from runbooks.schema import Database, Host

PROVEN = "proven"


@workflow.defn
class RestoreVerification(Procedure[Parameters]):
    """Restore to the newest moment that can be, prove it, measure, drop it; then say what the backups lack."""

    parameters = Parameters
    puts_back = True

    def __init__(self) -> None:
        super().__init__()
        self._last = Last()
        self._lacks: tuple[str, ...] = ()
        self._proven = False
        self._times: dict[str, float] = {}

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Look, lay down, replay, prove; what was made is dropped at the end, however that comes about."""
        async with self.conducting(start) as wanted:
            apart = self._apart(wanted)
            await self._look_back()
            found = await self.look(backups, apart.copy().find(), f"find the backups and the archive of {apart.system}")
            room = await self.look(ready, apart.copy().room(), f"look whether {apart.database.host} can take a copy")
            await self._hold_against(apart, found)
            copy, choice, port = self._chosen(apart, found, room)

            step = f"lay down backup {choice.backup.name} apart"
            await self._timed("lay down", self.do(place, copy.place(choice, port), step))
            reached = await self._timed("replay", self.do(replay, copy.replay(choice, port), "replay the log into it"))
            proof = await self._timed("prove", self.prove(verify, copy.verify(port), "prove it"))
            if proof is not None and proof.failed:
                raise Fatal(f"the copy is not proven: {'; '.join(proof.failed)}")
            if proof is not None:
                self._account(choice, reached)
            self.require(self._lacks)
        return self.report()

    async def _look_back(self) -> None:
        """Know when a restore last worked, and carry that on; not to know it keeps nobody from trying."""
        runbook = self.frozen.runbook
        try:
            self._last = await self.look(last_proven, AskLast(system=self.frozen.systems[0], runbook=runbook))
        except FailureError as failure:
            if is_cancelled_exception(failure):
                raise
        if self.start.mode != "check":
            at = self._last.proven_at
            carried = PROVEN_AT.value_set(at) if at else PROVEN_AT.value_unset()
            workflow.upsert_search_attributes([carried, VERDICT.value_unset(), BREACHES.value_unset()])
        if self._last.proven_at is not None:
            self.measured("last proven before", utc(self._last.proven_at))

    async def _hold_against(self, apart: Apart, found: Inventory) -> None:
        """Find each breach of the policy; what it is about is looked at while nothing is laid down yet."""
        asked = apart.unarchived(found)
        log = await self.look(unarchived, asked, "look what is not archived yet") if asked else Unarchived()
        away = await self._away(apart, found)
        rpo = self.frozen.objectives.rpo
        self._lacks = breaches(apart.wanted.policy, found, log, away, found.now, rpo)
        if limits := span(found):
            since = lost_since(found, log)
            lost = max((found.now - since).total_seconds(), 0.0) if since else 0.0
            self.measured("restorable from", utc(limits[0]))
            self.measured("restorable to", utc(limits[1]))
            self.measured("would be lost with the running database", round(lost, 3), "s", lost <= rpo.total_seconds())

    async def _away(self, apart: Apart, found: Inventory) -> Away | None:
        """See what is off-site, and what has to be, where the policy wants any of it there."""
        wanted = apart.wanted.policy.offsite
        if wanted is None:
            return None
        home = await self.look(holdings, apart.at_home(wanted, found), "list what has to be off-site")
        asked = apart.off_site(wanted, self.system("hosts", wanted.host, Host), found)
        return Away(home, await self.look(holdings, asked, f"list what is on {wanted.host}"))

    def _chosen(self, apart: Apart, found: Inventory, room: Readiness) -> tuple[CopyApart, Choice, int]:
        """Choose the newest backup that carries on to the newest moment that can be restored."""
        limits = span(found)
        copy = apart.copy(limits[1] if limits else found.now)
        assessed = assess(copy, found, room)
        if assessed.blockers or assessed.choice is None:
            self.require([*assessed.blockers, *self._lacks])
            raise Fatal("no backup was chosen although nothing stands in the way")
        return copy, assessed.choice, assessed.port

    async def _timed(self, what: str, work: Coroutine[Any, Any, R]) -> R:
        began = workflow.now()
        done = await work
        self._times[what] = round((workflow.now() - began).total_seconds(), 3)
        return done

    def _account(self, choice: Choice, reached: Replayed) -> None:
        """Record that it worked, how long each part took, and how much data that was."""
        self._proven = True
        workflow.upsert_search_attributes([PROVEN_AT.value_set(workflow.now())])
        self.measured("proven at", utc(workflow.now()))
        for what, seconds in self._times.items():
            self.measured(what, seconds, "s")
        took, rto = round(sum(self._times.values()), 3), self.frozen.objectives.rto
        self.measured("restore", took, "s", took <= rto.total_seconds())
        self.measured("data laid down", round(choice.backup.size / MIB, 1), "MiB")
        if (log := replayed_bytes(choice, reached)) is not None:
            self.measured("log replayed", round(log / MIB, 1), "MiB")
        self._lacks += slow(took, rto, self.frozen.tier)

    async def _tell_of_the_end(self) -> None:
        """Have people told once of what is not as it was; and of what is left behind, always."""
        report = self.report()
        verdict = self._verdict(report)
        if verdict and report.mode != "check":
            workflow.upsert_search_attributes([VERDICT.value_set(verdict), BREACHES.value_set(len(self._lacks))])
        if report.residual:
            await super()._tell_of_the_end()
        elif verdict and verdict != (self._last.verdict or PROVEN):
            why = "\n".join(self._lacks) if self._proven else report.failure
            await self._tell(notices.verdict_changed, verdict, self._last.verdict, why)

    def _verdict(self, report: Report) -> str:
        """Return what the newest backup is worth, "" where it was not tried to the end."""
        if report.outcome == "cancelled":
            return ""
        if report.residual:
            return "not dropped"
        if not self._proven:
            return "not proven"
        fields = sorted({one.partition(":")[0] for one in self._lacks})
        return f"{PROVEN}, but {', '.join(fields)}" if fields else PROVEN

    def _apart(self, wanted: Parameters) -> Apart:
        name, info = self.frozen.systems[0], workflow.info()
        database = self.system("databases", name, Database)
        host = self.system("hosts", database.host, Host)
        return Apart(name, database, host, wanted, info.workflow_id, self.run_name)
