"""Undo a recovery from its history alone: one that was terminated, or that ended with something not undone."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

from recovery.actions import Patience, Probe
from recovery.errors import Fatal, Refused, kind, sentence
from recovery.facts import CancelAsked, Committed, Darkened, Loaded, Withdrawn
from recovery.models import Authored, Start, Undo
from recovery.names import UNDO
from recovery.past import Done, Past, Which
from recovery.report import Report
from recovery.resets import read
from recovery.stepping import Call, Stepping, given_on


@workflow.defn(name=UNDO)
class Undoing(Stepping):
    """Unwind what another recovery did and did not undo; its history says what that is."""

    takes: ClassVar[type[Authored]] = Undo

    @workflow.run
    async def run(self, undo: Undo) -> Report:
        """Read the history, take the systems in hand, undo last first."""
        self._began(Start(runbook="undo", reason=undo.reason, requested_by=undo.requested_by))
        try:
            await self._conduct(undo)
        except (asyncio.CancelledError, FailureError) as failure:
            await self._shielded(self._fail(failure))
        finally:
            if self._ended():
                await self._shielded(self._leave())
        return self.report()

    async def _conduct(self, undo: Undo) -> None:
        past = await read(Which(workflow=undo.workflow, run=undo.run))
        if past.open:
            raise Refused(f"workflow: {past.workflow} is still running; cancel it, that undoes what it did")
        if past.start is None or past.frozen is None:
            raise Refused(f"workflow: {past.workflow} was never under way as a recovery; there is nothing to undo")
        if past.start.mode == "check":
            raise Refused(f"workflow: {past.workflow} was a check, which changes nothing; there is nothing to undo")
        if past.completed and not undo.completed:
            raise Refused(
                f"workflow: {past.workflow} ended well; to take away what it left, say so (completed: true, or"
                " `starter.py undo --completed`)"
            )
        self._start = past.start.model_copy(update={"reason": undo.reason, "requested_by": undo.requested_by})
        self._frozen, self._people = past.frozen, dict(past.frozen.people)
        self._began(self._start)
        self._record(Loaded(workflow.now(), past.frozen))
        # Also instead of an earlier undo of it, which left something: no two of one id run at once.
        await self._take_in_hand((*past.runs, workflow.info().workflow_id), waits=False)
        if past.dark:
            self._dark = True
            self._record(Darkened(workflow.now(), "before"))
        await self._take_back(past)
        self._stack = past.stack()
        await self._shielded(self._unwind(f"undo of {past.workflow}, run {past.run}: {undo.reason}"))
        if self.report().residual:
            raise Fatal("not everything could be undone; see residual")
        self._end("compensated", f"undone from the history of {past.workflow}, run {past.run}")

    async def _take_back(self, past: Past) -> None:
        """Take the point of no return back if it was seen to have opened nothing; else nothing is undone."""
        if past.committing is None:
            return
        one = past.committing
        home = tuple(entry.step for entry in reversed(past.stack()) if not entry.passing)
        self._record(Committed(workflow.now(), one.step, past.commits, home))
        if one.ended or not await self._unchanged(one):
            raise Refused(
                f"{past.workflow} passed its point of no return ({past.commits}): nothing is undone after it;"
                f" the way home, by hand or by a failback: {', '.join(home)}"
            )
        self._record(Withdrawn(workflow.now(), one.step, "nobody: it was seen to have changed nothing"))

    async def _unchanged(self, one: Done) -> bool:
        patience = Patience.model_validate(one.order).undo_within  # of one that takes long, a look may, too
        call = Call(f"{one.action}.observe", dict, one.step, "observe", Probe, patience, whole=True)
        call = call._replace(queue=given_on(one.order))
        found: dict[str, Any] = await self._activity(call, one.order["spec"], "decide")
        return all(found.get(name) == value for name, value in one.order["before"].items() if value is not None)

    async def _fail(self, failure: BaseException) -> None:
        cancelled = is_cancelled_exception(failure)
        if cancelled:
            self._record(CancelAsked(workflow.now()))
        reason = "cancelled" if cancelled else sentence(failure)
        self._end("cancelled" if cancelled else "failed", reason, "Cancelled" if cancelled else kind(failure))
        report = self.report()
        if cancelled and not report.residual:
            raise asyncio.CancelledError from failure
        more = f" — NOT UNDONE: {'; '.join(report.residual)}" if report.residual else ""
        message = f"{report.outcome}: {reason}{more}"
        raise ApplicationError(message, report, type=report.kind, non_retryable=True) from failure
