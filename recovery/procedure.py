"""The engine: what every procedure inherits. It knows no vendor and no procedure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

from recovery.actions import Action, Order, Probe, Spec, agrees
from recovery.clock import Cause, misdated
from recovery.errors import Fatal, Invalid, Refused, kind, sentence, worker_died
from recovery.facts import (
    Blocked,
    CancelAsked,
    Checked,
    CheckState,
    Committed,
    Darkened,
    Delivered,
    Loaded,
    Measured,
    Outcome,
    Withdrawn,
)
from recovery.holds import Situation
from recovery.models import Authored, Begin, Choice, Frozen, Load, Resolution, Start, Wire
from recovery.names import activity_id
from recovery.resets import Resets
from recovery.saga import Entry
from recovery.stepping import RETRIES, Call

P = TypeVar("P", bound=Authored)
S = TypeVar("S", bound=Spec)
T = TypeVar("T", bound=Wire)
M = TypeVar("M", bound=Authored)
R = TypeVar("R")

NEWS = timedelta(seconds=30)
"""For how long what was seen before an order is news while something else is waited for: people may be asked then."""

DEATHS = 2
"""How often a look without patience is taken again because the worker died that took it."""

_BACK: dict[bool, tuple[str, Outcome]] = {True: ("the drill", "drilled"), False: ("the verification", "verified")}


class _Enough(Exception):
    """A check has seen what it can see."""


class _Left(Exception):
    """A proof was left out, as a person said."""


class Missed(ApplicationError):
    """A step that holds nobody up (`beside`) has failed by itself: whoever asked for it goes on without, and says so.

    What people say at that step, or a cancel, is none: that leads back from there as from anywhere.
    """

    def __init__(self, failure: FailureError) -> None:
        """Keep what it failed by."""
        super().__init__(sentence(failure), type=kind(failure), non_retryable=True)


class Turned(Exception):
    """People chose another way on, which the procedure offered."""


class _Stopped(Exception):
    """A branch begins nothing more: another one has failed."""


@dataclass(frozen=True)
class Change(Generic[S, T]):
    """A step that is to act: on what, from which state to which, and what it means to the recovery as a whole."""

    action: Action[S, T]
    spec: S
    step: str
    began: datetime
    before: T
    desired: T
    commits: str = ""
    dark: bool = False
    queue: str | None = None
    kept: str = ""


class Procedure(Resets, Generic[P]):
    """A recovery: conduct it, look, do, prove, ask people; undo what was done when it does not succeed."""

    takes: ClassVar[type[Authored]] = Start
    parameters: ClassVar[type[Authored]]
    puts_back: ClassVar[bool] = False
    """Whether nothing that it makes is to stay: it undoes all of it at its end, however that comes about."""

    def __init__(self) -> None:
        super().__init__()
        self._names: set[str] = set()
        self._imagined = False
        self._committing: Change[Any, Any] | None = None
        self._turn = asyncio.Lock()
        self._failing = False
        self._beside = 0
        self._unseen: list[str] = []
        self._turned = ""
        self._offered: tuple[Choice, ...] = ()
        self._taken = True

    # --- what a procedure writes -------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def conducting(self, start: Start) -> AsyncIterator[P]:
        """Open the recovery, yield its parameters, and bring it to a named outcome whatever happens inside."""
        self._began(start)
        try:
            yield await self._open(start)
            await self._close()
        except _Enough:
            self._end("checked")
        except (asyncio.CancelledError, FailureError) as failure:  # a bug is neither: it stays a task failure
            await self._fail(failure)
        finally:
            if self._ended():
                await self._shielded(self._leave())

    async def look(
        self,
        probe: Probe[S, T],
        spec: S,
        step: str = "",
        *,
        queue: str | None = None,
        patience: timedelta | None = None,
    ) -> T:
        """Look at the world, in every mode; ``queue`` is that of a site from which it is seen.

        ``patience`` takes the place of the probe's own, in modes that wait at all.
        """
        step = self._name(step or probe.title(spec))
        return await self._look(probe, spec, step, "decide", queue, patience)

    async def taking(self, assess: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Take every system in hand, and look beside that, since clients wait; a procedure that does so `hurries`.

        Where others had one of them in hand it is looked again once they have let it go: they may have changed it.
        """
        if self._taken:
            return await assess()
        self._taken = True
        looking = asyncio.create_task(assess())
        try:
            free = await self._take_in_hand()
        except BaseException:
            looking.cancel()
            raise
        finally:  # what is under way comes to its end first
            await asyncio.gather(looking, return_exceptions=True)
        if free:
            return await looking
        usual, self._turned = self._turned, f"{self._turned}, once all were in hand"
        try:
            return await assess()
        finally:
            self._turned = usual

    async def glance(self, probe: Probe[S, T], spec: S, step: str = "", *, instead: T, queue: str | None = None) -> T:
        """Look as ``look`` does, but have a check that cannot see go on with ``instead``: it is to list all at once."""
        step = step or probe.title(spec)
        try:
            return await self.look(probe, spec, step, queue=queue)
        except FailureError as failure:
            if self.start.mode != "check" or is_cancelled_exception(failure):
                raise
            self._unseen.append(f"{step}: {sentence(failure)}")
            return instead

    async def prove(self, probe: Probe[S, T], spec: S, step: str = "", *, queue: str | None = None) -> T | None:
        """Look at what this recovery made; None where that was only planned, or is left out as a person said."""
        step = self._name(step or probe.title(spec))
        if self._imagined:
            self._step(step, "would look", "verify")
            return None
        try:
            return await self._look(probe, spec, step, "verify", queue)
        except _Left:
            return None

    async def do(
        self,
        action: Action[S, T],
        spec: S,
        step: str = "",
        *,
        commits: str = "",
        dark: bool = False,
        queue: str | None = None,
        kept: str = "",
        once: Callable[[], Coroutine[Any, Any, Any]] | None = None,
    ) -> T:
        """Bring a system into the state that ``action`` desires, proven; its undo is registered before.

        ``dark`` marks the step that shuts clients out. ``commits`` says what the step opens to clients: it is the
        point of no return, recorded in the event that schedules it; nothing is compensated after it. ``queue`` is that
        of a site from which alone the system may be reached, also to undo it. ``kept`` says why this is not undone.
        ``once`` is waited for between the look and the order: what has to be so before it acts, but not to look.
        """
        step = self._name(step or action.title(spec))
        began, before = await self._before(action, spec, step, queue, once)
        # A drill puts everything back: there is no point of no return in it, and nobody to shut out.
        commits, dark = (commits, dark) if self.start.mode == "live" else ("", False)
        change = Change(action, spec, step, began, before, action.desired(spec, before), commits, dark, queue, kept)
        # What commits is ordered even so: whoever reads the history has to find that it was passed. So is what the run
        # before a reset was cut off in: its attempt may have left traces beside its effect.
        if agrees(change.desired, before) and not change.commits and step not in self._unended:
            self._step(step, "unchanged", "execute", before)
            if self._acts(spec):
                self._mark(change)
            return before
        if not self._acts(spec):
            self._imagined = True
            self._step(step, "would change", "execute", change.desired)
            return change.desired
        return await self._change(change)

    async def _before(
        self,
        action: Action[S, T],
        spec: S,
        step: str,
        queue: str | None,
        once: Callable[[], Coroutine[Any, Any, Any]] | None,
    ) -> tuple[datetime, T]:
        """Look at what is to be changed, beside what has to be so first; again where that took too long to be news."""
        began = workflow.now()
        before = await self._look(action, spec, step, "execute", queue)
        if once is None:
            return began, before
        await once()
        if workflow.now() - began < NEWS:
            return began, before
        return await self._before(action, spec, step, queue, None)

    async def together(self, *branches: Coroutine[Any, Any, Any]) -> None:
        """Run branches side by side, their steps as ever; raises the first failure once all have come to an end.

        People are asked about one of them at a time, and while they are asked no branch begins anything. Where one has
        failed the others end what they have begun, and nothing more.
        """
        self._beside += 1
        try:
            ends = await asyncio.gather(*(self._branch(one) for one in branches), return_exceptions=True)
        finally:
            self._beside -= 1
            # A branch may have branches of its own: as long as others run beside it they have to hear of a failure.
            self._failing = self._failing and self._beside > 0
        failures = [end for end in ends if isinstance(end, BaseException)]
        # What people chose comes first, then what failed; what was only stopped by that tells least.
        for failure in sorted(failures, key=lambda one: (not isinstance(one, Turned), isinstance(one, _Stopped))):
            raise failure

    async def _branch(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except BaseException:
            self._failing = True
            raise

    async def begin(self, procedure: str, runbook: str) -> str:
        """Start another recovery, which outlives this one, under the id of its runbook; return that.

        Only where this one is live; one of that id that is under way goes on.
        """
        if self.start.mode == "live":
            reason = f"{workflow.info().workflow_id}: {self.start.reason}"[:500]
            start = Start(
                runbook=runbook, reason=reason, requested_by=self.start.requested_by, incident=self.start.incident
            )
            await workflow.execute_activity(
                "recovery.begin",
                Begin(procedure=procedure, id=runbook, start=start),
                result_type=str,
                activity_id=activity_id(runbook, "begin"),
                start_to_close_timeout=timedelta(seconds=20),
                schedule_to_close_timeout=timedelta(hours=1),
                retry_policy=RETRIES,
                summary=f"begin {runbook}",
            )
        return runbook

    def work_from(self, queue: str | None) -> None:
        """Have every step from here on done by the workers of one site: those of another one may see another world."""
        self._queue = queue

    def require(self, blockers: Sequence[str]) -> None:
        """Refuse to go on while anything stands in the way; a check lists it and ends."""
        if blockers := [*self._unseen, *blockers]:
            self._record(Blocked(workflow.now(), tuple(blockers)))
            if self._only_looks:
                raise _Enough
            raise Refused("; ".join(blockers))

    def measured(
        self,
        name: str,
        value: int | float | str,
        unit: str = "",
        met: bool | None = None,
        *,
        told_at: Sequence[str] = (),
        again: bool = False,
    ) -> None:
        """Report a figure that was measured on the systems; the gates in ``told_at`` tell it themselves.

        ``again`` has it take the place of what was measured by that name before.
        """
        self._record(Measured(workflow.now(), name, value, unit, met, tuple(told_at), again))

    def delivered(self, name: str, where: str) -> None:
        """Report what this recovery leaves for people to use, unless it was only planned or a drill."""
        if self.start.mode == "live":
            self._record(Delivered(workflow.now(), name, where))

    def checked(self, name: str, how: CheckState, evidence: str, by: tuple[str, ...] = ()) -> None:
        """Report how something that had to be seen was: what shows it, or ``by`` whom it was attested."""
        self._record(Checked(workflow.now(), name, how, evidence, by))

    def system(self, kind_of: str, name: str, model: type[M]) -> M:
        """Return the system ``name`` of the frozen estate, as ``model``."""
        return model.model_validate(self.frozen.estate[kind_of][name])

    @property
    def _only_looks(self) -> bool:
        return self.looks or self.start.mode == "check"

    @property
    def run_name(self) -> str:
        """The run in names that are given to things on systems: the same one also after a reset."""
        return workflow.info().first_execution_run_id

    # --- opening and closing -----------------------------------------------------------------------------

    async def _open(self, start: Start) -> P:
        if wrong := misdated(start.outage_started_at, start.detected_at, workflow.now()):
            raise Invalid(wrong)
        self._frozen = frozen = await workflow.execute_activity(
            "catalog.load",
            Load(start=start, procedure=workflow.info().workflow_type),
            result_type=Frozen,
            activity_id="load-the-runbook",
            start_to_close_timeout=timedelta(seconds=10),
            schedule_to_close_timeout=timedelta(minutes=5),
            retry_policy=RETRIES,
            summary=f"load the runbook {start.runbook}",
        )
        self._people = dict(frozen.people)
        self._prepare_gates(frozen)
        self._record(Loaded(workflow.now(), frozen))
        self._awake("at-the-opening")
        wanted: P = self.parameters.model_validate(frozen.parameters)  # type: ignore[assignment]
        self._taken = self._only_looks or self._reset  # a run that was reset asks anew, and does so later
        if not self._taken and not self._hurries(wanted):
            await self._take_in_hand()
            self._taken = True
        return wanted

    def _hurries(self, wanted: P) -> bool:
        """Tell whether it takes its systems in hand by itself (`taking`)."""
        return False

    async def _close(self) -> None:
        await self._heed_reset()
        if workflow.cancellation_reason() is not None and not self._committed:
            raise asyncio.CancelledError
        if self._only_looks:
            return self._end("checked")
        if self.start.mode != "drill" and not self.puts_back:
            await self.end_passing()
            return self._end("recovered")
        what, outcome = _BACK[self.start.mode == "drill"]
        await self._shielded(self._unwind(f"{what} is over: everything is put back"))
        if self.report().residual:
            raise Fatal(f"{what} could not put everything back; see residual")
        return self._end(outcome)

    async def _fail(self, failure: BaseException) -> None:
        """Undo what was done, name the outcome, and close the workflow accordingly."""
        cancelled = is_cancelled_exception(failure)
        if cancelled and not self._fold.cancels:
            self._record(CancelAsked(workflow.now()))
        if self._only_looks and not cancelled and kind(failure) != "Invalid":
            self._record(Blocked(workflow.now(), (sentence(failure),)))
            return self._end("checked")
        reason = "cancelled" if cancelled else sentence(failure)
        await self._shielded(self._go_back(reason))
        residual = self.report().residual
        undone = any(self._fates.get(entry.step) == "undone" for entry in self._stack if not entry.passing)
        back = undone and not self.puts_back  # where going back is the usual end, it does not tell of a failure
        outcome: Outcome = "compensated" if back and not residual else "failed"
        self._end("cancelled" if cancelled else outcome, reason, "Cancelled" if cancelled else kind(failure))
        residual = self.report().residual
        if cancelled and not residual:
            raise asyncio.CancelledError from failure
        message = f"{outcome}: {reason}" + (f" — NOT UNDONE: {'; '.join(residual)}" if residual else "")
        report = self.report()
        raise ApplicationError(message, report, type=report.kind, non_retryable=True) from failure

    async def _go_back(self, reason: str) -> None:
        """Unwind, unless the point of no return was passed: then nothing is undone."""
        try:
            await self._merge()
        except FailureError as lost:  # what the run before it did is not known, or others act there now
            self._step("go on after the reset", "undo blocked", "undo", failure=sentence(lost))
            return
        # Who cancels asks to go back: a commit that was seen to have changed nothing is taken back with it.
        if self._committing is not None and await self._unchanged(self._committing):
            self._withdraw(self._committing, "nobody: it was cancelled before it had changed anything")
        await (self.end_passing() if self._committed else self._unwind(reason))

    # --- steps -------------------------------------------------------------------------------------------

    async def _look(
        self,
        probe: Probe[S, T],
        spec: S,
        step: str,
        cause: Cause,
        queue: str | None = None,
        longer: timedelta | None = None,
    ) -> T:
        died = 0
        while True:
            async with self._turn:
                self._heed_failing()
                await self._heed_reset()
            self._step(step, "looking", cause)
            # A check tells what is wrong now; only who acts waits for it to pass.
            usual = longer or (probe.look_patience if isinstance(probe, Action) else probe.patience)
            patience = timedelta(0) if self.start.mode == "check" else self._within(usual)
            try:
                call = self._looking(probe, step, patience)._replace(queue=queue)
                seen: T = await self._activity(call, spec, cause)
            except FailureError as failure:
                if not patience and died < DEATHS and worker_died(failure):
                    died += 1
                    continue
                if probe.beside and not is_cancelled_exception(failure):
                    raise Missed(failure) from failure
                now = Situation(
                    "failure",
                    bool(self._committed),
                    skippable=probe.skip if cause == "verify" else "",
                    forward=self._forward,
                    offers=self._offered,
                )
                said = await self._answer(now, step, failure, cause)
                if said is None or said.answer == "compensate":
                    raise
                if said.answer == "skip":
                    self._step(step, "skipped", cause, failure=f"skipped by {said.by}: {said.reason}")
                    raise _Left from None
                continue
            self._heed_cancel()
            self._step(step, "seen", cause, seen)
            return seen

    def _looking(self, probe: Probe[S, T], step: str, patience: timedelta) -> Call:
        """Return the look of ``step``; an action's other limits are those of acting."""
        name, attempt = f"{probe.name}.observe", self._attempt(step, "observe")
        if isinstance(probe, Action):
            return Call(name, probe.state_type, step, "observe", Probe, patience, attempt, probe.look_limit)
        return Call(name, probe.state_type, step, "observe", probe, patience, attempt)

    async def _change(self, change: Change[S, T]) -> T:
        began = change.began
        while True:
            if await self._may_act(change.step):
                began = workflow.now()  # people have looked at it: the order is given anew
            order = self._order(change, began)
            if not (change.action.kept or change.kept):
                action = change.action
                self._register(Entry(change.step, action.name, order, action.state_type, action.guards, order.passing))
            self._mark(change)
            self._step(change.step, "changing", "execute", change.desired, kept=change.action.kept or change.kept)
            try:
                after: T = await self._apply(change, order)
            except FailureError as failure:
                if (left := await self._go_on(change, failure)) is not None:
                    return left
                began = workflow.now()
                continue
            self._step(change.step, "changed", "execute", after)
            self._settle(change)
            self._heed_cancel()
            return after

    async def _apply(self, change: Change[S, T], order: Order[S, T]) -> T:
        action, attempt = change.action, self._attempt(change.step, "apply")
        patience = min(action.expires, self.frozen.not_after) + action.limit
        call = Call(f"{action.name}.apply", action.state_type, change.step, "apply", action, patience, attempt)
        call = call._replace(queue=change.queue)
        work = self._activity(call, order, "execute")
        # Cut off half way, the step that commits would leave nobody with a place to write to.
        after: T = await (self._shielded(work) if change.commits else work)
        return after

    def _order(self, change: Change[S, T], began: datetime) -> Order[S, T]:
        """Return the order to act, void when what it was decided on is no longer news."""
        until = [began + min(change.action.expires, self.frozen.not_after)]
        until += [] if self._committed else [approval.until for approval in self._approvals.values()]
        dark = self._policy().dark_within if self._dark or change.dark else None
        given = [one for one in (dark, change.action.insists(change.spec)) if one is not None]
        give_up = workflow.now() + min(given) if given else None
        return Order(
            spec=change.spec, before=change.before, mode=self.start.mode, not_after=min(until), give_up=give_up,
            step=change.step, commits=change.commits, dark=change.dark, kept=change.action.kept or change.kept,
            guards=change.action.guards, undo_within=change.action.undo_patience,
            passing=change.action.passing(change.spec),
            queue=change.queue or self._queue or "",
            **self._of_this_run(change.spec.system),
        )  # fmt: skip

    def _register(self, entry: Entry) -> None:
        # Registered first: a worker that dies after acting must still find the undo.
        if entry.step not in {one.step for one in self._stack}:
            self._stack.append(entry)

    def _mark(self, change: Change[Any, Any]) -> None:
        """Record what ``change`` means to the recovery as a whole, before it is ordered."""
        if change.dark and not self._dark:
            self._dark = True
            self._record(Darkened(workflow.now(), change.step))
        if change.commits and not self._committed:
            self._committed, self._committing = change.commits, change
            home = tuple(entry.step for entry in reversed(self._stack) if not entry.passing)
            self._record(Committed(workflow.now(), change.step, change.commits, home))

    def _settle(self, change: Change[Any, Any]) -> None:
        """Know the step that commits as done: clients are let in."""
        if change.commits:
            self._committing, self._dark = None, False

    async def _may_act(self, step: str) -> bool:
        """Hold before an action where people asked for it, or where what they approved is no longer good.

        Returns whether people were asked.
        """
        asked, waited = False, self._turn.locked()
        async with self._turn:
            while True:
                self._heed_failing()
                await self._heed_reset()
                if self._pause is not None or (self._single and not asked):
                    asked, waited = True, True
                    await self._paused(step)
                elif (lapsed := self._lapsed()) and not self._committed:
                    waited = True
                    await self._ask_again(lapsed, "the approval is no longer good: too much time has passed since")
                else:
                    return waited

    async def _paused(self, step: str) -> None:
        asked = self._pause
        why = f"{asked.by}: {asked.reason}" if asked else "single step"
        self._pause, self._single = None, False
        said = await self._holding(Situation("asked", bool(self._committed), forward=self._forward), step, why)
        if said is None or said.answer == "compensate":
            raise Refused(_given_up(said, f"at the hold before {step}"))
        self._single = said.answer == "step"

    async def _go_on(self, change: Change[S, T], failure: FailureError) -> T | None:
        """Hold a failed action: None to try again, what is there of it to go on without it; raises what leads back."""
        if change.action.beside and not is_cancelled_exception(failure):
            raise Missed(failure) from failure
        while True:
            unchanged = change is self._committing and await self._unchanged(change)
            if unchanged:
                self._heed_cancel()  # it came while the step that commits was shielded from it
            skip = "" if change.commits else change.action.skip
            now = Situation("failure", bool(self._committed), unchanged, skip, self._forward, self._offered)
            said = await self._answer(now, change.step, failure, "execute")
            if said is None or said.answer == "compensate":
                raise failure
            if said.answer == "skip":
                # Not what was wanted: it is missing, or half there, and whoever goes on has to know that.
                left = await self._afresh(change, timedelta(0)) or change.before
                self._step(change.step, "skipped", "execute", left, f"skipped by {said.by}: {said.reason}")
                return left
            if said.answer == "retry":
                return None
            if await self._unchanged(change):  # it is seen once more: the answer may have taken its time
                self._withdraw(change, said.by)
                raise failure

    async def _answer(self, now: Situation, step: str, failure: FailureError, cause: Cause) -> Resolution | None:
        """Hold for an answer to ``failure``, unless there is nobody to ask: then what follows is as with silence."""
        if is_cancelled_exception(failure) or not (self._holds(self.start.mode) or now.committed):
            return None
        async with self._turn:
            if not now.committed:
                self._heed_cancel()  # a worker that dies with the cancel on its way misses a beat: that came instead
            if self._failing:
                return None  # it goes back already
            await self._heed_reset()
            said = await self._holding(now, step, f"{kind(failure)}: {sentence(failure)}", cause)
        if said is not None and said.answer in now.offers:
            raise Turned(said.answer) from None
        return said

    def _heed_failing(self) -> None:
        """Begin nothing in a branch beside one that has failed."""
        if self._failing:
            raise _Stopped

    async def _unchanged(self, change: Change[Any, Any]) -> bool:
        """Look afresh whether the step that commits has changed nothing."""
        seen = await self._afresh(change, change.action.look_patience)
        return seen is not None and agrees(change.before, seen)

    async def _afresh(self, change: Change[S, T], patience: timedelta) -> T | None:
        """Look once more at what ``change`` was to act on; None where that cannot be seen."""
        try:
            call = self._looking(change.action, change.step, patience)._replace(queue=change.queue)
            seen: T = await self._activity(call, change.spec, "execute")
        except FailureError as failure:
            if is_cancelled_exception(failure):
                raise
            return None
        return seen

    def _withdraw(self, change: Change[Any, Any], by: str) -> None:
        self._committed, self._committing = "", None
        self._record(Withdrawn(workflow.now(), change.step, by))

    def _acts(self, spec: Spec) -> bool:
        mode = self.start.mode
        return mode == "live" or (mode == "drill" and spec.drill)

    def _name(self, step: str) -> str:
        # A duplicate pending activity id makes a workflow stick for ever.
        step += self._turned
        if step in self._names:
            raise Invalid(f"step: {step!r} is named twice in this procedure; give one another name")
        self._names.add(step)
        return step

    def _turn_to(self, way: str) -> None:
        """Go on another way than was begun, on which steps may be named as they were before."""
        self._turned, self._offered, self._failing = f", {way}", (), False


def _given_up(said: Resolution | None, where: str) -> str:
    return f"{said.by} {where}: {said.reason or 'compensate'}" if said else f"nobody answered in time {where}"
