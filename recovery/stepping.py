"""Run activities as steps, hold where one failed for good, and unwind: what recoveries and their undoing share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import FailureError
from temporalio.workflow import ActivityCancellationType

from recovery import attributes, notices
from recovery.actions import Action, Patience, Probe
from recovery.clock import Cause
from recovery.details import markdown
from recovery.errors import Refused, sentence
from recovery.facts import (
    CancelAsked,
    Ended,
    Fact,
    HoldClosed,
    HoldOpened,
    Leased,
    Outcome,
    Queued,
    Started,
    Stepped,
    StepState,
    Unwinding,
)
from recovery.holds import ANYBODY, Hold, Situation, answers, deadline, overslept, silence
from recovery.inbox import Inbox
from recovery.leases import Asked, Asking, Holder, Leaving, Standing
from recovery.models import Frozen, HoldPolicy, Mode, Resolution, Start, Wire, digest
from recovery.names import activity_id, lease_id
from recovery.notices import Notice
from recovery.notification import announce
from recovery.saga import Entry, Fate, following

R = TypeVar("R")

RETRIES = RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=5))
FEW = RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_attempts=3)
"""For a look without patience: a lost packet or a worker that died costs it nothing, and an outage is told at once."""

AT_ONCE = 12
"""Systems that are asked for at a time: with a hundred at once Temporal answered none of them in time."""

AWAY = "no worker was there when the time was over"
CANCELLED = "cancelled"
RESET = "the run was reset"


class Call(NamedTuple):
    """An activity to run as ``part`` of ``step``, and with whose limits; ``attempt`` counts what people had retried.

    ``look_limit`` is one attempt's where an action only looks; ``whole`` gives one attempt all of the patience.
    ``queue`` is another task queue than the recovery's own: that of a site from which something is to be seen.
    """

    activity: str
    gives: type[Any]
    step: str
    part: Literal["observe", "apply", "undo"]
    limits: Probe[Any, Any] | type[Probe[Any, Any]]
    patience: timedelta
    attempt: int = 1
    look_limit: timedelta | None = None
    whole: bool = False
    queue: str | None = None


class Stepping(Inbox):
    """Steps, holds, and the way back."""

    looks: ClassVar[bool] = False
    """Whether it only looks: then it takes nothing in hand, and ends as checked, with what is not well."""

    def __init__(self) -> None:
        super().__init__()
        self._frozen: Frozen | None = None
        self._start: Start | None = None
        self._stack: list[Entry] = []
        self._fates: dict[str, Fate] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._epochs: dict[str, int] = {}
        self._ordered = 0
        self._held = 0
        self._notices = 0
        self._reset = False
        self._salt = ""
        self._dark = False
        self._forward = False
        self._queue: str | None = None
        self._shown: tuple[str, str] = ("", "")
        self._stale = False
        self._hands = asyncio.Lock()

    @property
    def start(self) -> Start:
        """The object that started this recovery."""
        assert self._start is not None
        return self._start

    @property
    def frozen(self) -> Frozen:
        """The runbook as it was when this recovery began."""
        assert self._frozen is not None
        return self._frozen

    # --- activities --------------------------------------------------------------------------------------

    async def _activity(self, call: Call, argument: Any, cause: Cause) -> Any:
        limit = call.look_limit or call.limits.limit
        try:
            return await workflow.execute_activity(
                call.activity,
                argument,
                task_queue=call.queue or self._queue,
                result_type=call.gives,
                activity_id=activity_id(call.step, call.part, call.attempt),
                start_to_close_timeout=call.patience if call.whole else limit,
                schedule_to_close_timeout=max(call.patience, limit),
                heartbeat_timeout=max(call.limits.beat * 4, timedelta(seconds=3)),
                retry_policy=RETRIES if call.patience else FEW,
                cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                summary=_summary(call.step, call.part, call.limits is Probe),
            )
        except FailureError as failure:
            self._step(call.step, "undo failed" if cause == "undo" else "failed", cause, failure=sentence(failure))
            raise

    def _attempt(self, step: str, part: str) -> int:
        """Count the attempts at ``part`` of ``step`` that were ordered."""
        number = self._attempts[step, part] = self._attempts.get((step, part), 0) + 1
        return number

    def _heed_cancel(self) -> None:
        """Stop here if a cancel was asked for: an activity that ended before it arrived returns normally."""
        if workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError

    # --- holds -------------------------------------------------------------------------------------------

    def _policy(self) -> HoldPolicy:
        return (self._frozen.hold if self._frozen else None) or ANYBODY

    async def _holding(self, now: Situation, step: str, why: str, back_to: Cause = "execute") -> Resolution | None:
        """Wait for an answer; None when there was none in time and silence leads on."""
        again = 0
        while True:
            hold = self._hold_of(now, step, why, again)
            self._hold, self._resolution = hold, None
            self._record(HoldOpened(workflow.now(), hold, again))
            how = await self._answered(hold)
            said, self._hold, self._resolution = self._resolution, None, None
            self._record(HoldClosed(workflow.now(), hold.token, _answer(said) or how, said, back_to))
            if how == CANCELLED:
                raise asyncio.CancelledError
            if how == RESET:
                await self._heed_reset()
                continue
            if said is not None or (hold.silence != "ask again" and not overslept(hold.until, workflow.now())):
                return said
            again += not overslept(hold.until, workflow.now())  # they could not be heard: nobody was silent

    async def _answered(self, hold: Hold) -> str:
        """Tell people and wait for the answer; return "" when there is one, else why there is none."""
        try:
            await self._tell(notices.hold_waits, hold.token)
            await workflow.wait_condition(
                lambda: self._resolution is not None or self._reset,
                timeout=hold.until - workflow.now(),
                timeout_summary=f"hold {hold.token}: the time to answer",
            )
        except TimeoutError:
            return "nobody answered in time"
        except asyncio.CancelledError:
            return CANCELLED
        return RESET if self._reset else ""

    async def _heed_reset(self) -> None:
        """Take over what the run did that this one continues."""

    def _hold_of(self, now: Situation, step: str, why: str, again: int) -> Hold:
        self._held += 1
        policy, at = self._policy(), workflow.now()
        # So that no answer to an earlier hold fits, nor to that of a run before a reset. Not by the time: a query may
        # see it a moment before the workflow does.
        token = f"{self._held}-{digest([self._salt, self._held, step, why])[:6]}"
        until = at + deadline(policy, self._dark, again)
        return Hold(token, now.cause, step, why, answers(now), policy.roles, until, silence(now), now.skippable)

    # --- the way back ------------------------------------------------------------------------------------

    async def _unwind(self, reason: str) -> None:
        """Undo the stack, last first; what could not be undone is held for people, where the runbook says whom."""
        self._unwinding = True
        self._record(Unwinding(workflow.now(), reason))
        await self._unwind_once()
        while (left := self._left()) and self._start is not None and self._holds(self._start.mode):
            why = "; ".join(f"{entry.step}: {self._fates[entry.step]}" for entry in reversed(left))
            said = await self._holding(Situation("residual"), left[-1].step, f"not undone: {why}", "undo")
            if said is None or said.answer == "accept":
                return
            for entry in left:
                self._fates.pop(entry.step, None)
            await self._unwind_once()

    async def _unwind_once(self) -> None:
        while following_one := following(self._stack, lambda entry: self._fates.get(entry.step)):
            entry, fate = following_one
            self._fates[entry.step] = fate or await self._undo(entry)
            if fate == "blocked":
                self._step(entry.step, "undo blocked", "undo", failure="an undo above it failed, which guards it")

    def _left(self) -> list[Entry]:
        """Return the entries that could not be undone, the uppermost last."""
        return [entry for entry in self._stack if self._fates.get(entry.step) in ("failed", "blocked")]

    def _holds(self, mode: Mode) -> bool:
        """Tell whether failures are held for people: in live mode, where the runbook names them."""
        return mode == "live" and self._frozen is not None and self._frozen.hold is not None

    async def _undo(self, entry: Entry) -> Fate:
        self._step(entry.step, "undoing", "undo")
        attempt = self._attempt(entry.step, "undo")
        name = f"{entry.action}.undo"
        patience = Patience.model_validate(entry.order, from_attributes=True).undo_within
        # A second attempt halts the first: cut off early, an undo that starts a database would never end.
        call = Call(name, entry.gives, entry.step, "undo", Action, patience, attempt, whole=True)
        call = call._replace(queue=given_on(entry.order))
        try:
            after = await self._activity(call, self._to_undo(entry.order), "undo")
        except FailureError as failure:
            if not entry.passing:
                return "failed"
            self._step(entry.step, "left behind", "undo", failure=f"{sentence(failure)}. {entry.passing}")
            return "left"
        self._step(entry.step, "undone", "undo", after)
        return "undone"

    async def end_passing(self) -> None:
        """Undo what was to stand only for as long as the recovery lasts, last first, whatever cancels arrive."""
        for entry in [one for one in reversed(self._stack) if one.passing]:
            self._stack.remove(entry)
            await self._shielded(self._undo(entry))

    def _to_undo(self, order: Any) -> Any:
        """Return the order as this run gives it, with the time by which people hear that its undo cannot even begin."""
        spec = order["spec"] if isinstance(order, dict) else order.spec  # it was read from a history
        system = spec["system"] if isinstance(spec, dict) else spec.system
        give_up = workflow.now() + Action.undo_patience
        given = {"give_up": give_up, **self._of_this_run(system)}
        if isinstance(order, dict):
            return order | given | {"give_up": give_up.isoformat()}
        return order.model_copy(update=given)

    def _of_this_run(self, system: str) -> dict[str, Any]:
        """Return by what a target knows the next order of this run from an earlier one."""
        self._ordered += 1
        lease = lease_id(self.frozen.catalog, system)
        return {"lease": lease, "epoch": self._epochs.get(system, 0), "number": self._ordered}

    # --- one hand on a system ----------------------------------------------------------------------------

    async def _take_in_hand(self, instead_of: Sequence[str] = (), waits: bool = True) -> bool:
        """Have every system of the runbook, or what it names instead, in hand; tell whether all of them were free.

        At once where they are, else one after the other: waiting is done in one order, with nothing in hand that comes
        later. Two that each had one, and waited for the other's, would wait for ever.
        """
        async with self._hands:  # asked twice at once, two activities would have one name
            systems = sorted(self.frozen.hands or self.frozen.systems)
            self._epochs = dict.fromkeys(systems, 0)  # left at the end, be it granted or only waited for
            asked = await self._all(self._ask_for(one, instead_of, False) for one in systems)
            found = dict(zip(systems, asked, strict=True))
            free = all(stands.epoch for stands in found.values())
            if waits and not free:
                await self._all(self._let_go(one) for one, stands in found.items() if stands.epoch)
                for system in systems:
                    found[system] = await self._granted_in_turn(system, instead_of)
            for system, stands in found.items():
                if not stands.epoch:
                    raise Refused(f"{system}: {_in_other_hands(stands)}")
                self._epochs[system] = stands.epoch
                self._record(Leased(workflow.now(), system, stands.epoch))
            return free

    async def _all(self, work: Iterable[Coroutine[Any, Any, R]]) -> list[R]:
        """Do all of it side by side, so many at a time; raise what failed once nothing of it is under way any more."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(part: Coroutine[Any, Any, R]) -> R:
            async with turns:
                return await part

        ends = await asyncio.gather(*map(one, work), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return [end for end in ends if not isinstance(end, BaseException)]

    async def _granted_in_turn(self, system: str, instead_of: Sequence[str]) -> Standing:
        """Wait for a system until it is granted; one that is an orphan is nobody's to wait for."""
        stands = await self._ask_for(system, instead_of, True)
        if not stands.epoch and not stands.orphaned:
            self._record(Queued(workflow.now(), system, _whose(stands)))
            lease = lease_id(self.frozen.catalog, system)
            await workflow.wait_condition(lambda: lease in self._granted)
            stands = self._granted.pop(lease)
        if not stands.epoch:
            raise Refused(f"{system}: {_in_other_hands(stands)}")
        return stands

    async def _ask_for(self, system: str, instead_of: Sequence[str], waits: bool) -> Standing:
        asked = Asked(holder=_holder(), instead_of=tuple(instead_of), waits=waits)
        asking = Asking(lease=lease_id(self.frozen.catalog, system), asked=asked)
        stands: Standing = await self._of_lease("ask", asking, system, Standing)
        return stands

    async def _let_go(self, system: str) -> None:
        leaving = Leaving(lease=lease_id(self.frozen.catalog, system), holder=_holder())
        await self._of_lease("leave", leaving, system, type(None))

    async def _leave(self) -> None:
        if not self.looks:  # who looks again and again tells of what has changed
            await self._tell_of_the_end()
        if not self.report().residual:  # what is not as it was stays in the hands of whoever undoes it
            with contextlib.suppress(FailureError):  # then it is orphaned, which is found out
                await self._all(self._let_go(system) for system in self._epochs)
        await workflow.wait_condition(workflow.all_handlers_finished)

    async def _of_lease(self, what: str, argument: Wire, system: str, gives: type[Any]) -> Any:
        return await workflow.execute_activity(
            f"lease.{what}",
            argument,
            result_type=gives,
            activity_id=activity_id(f"lease of {system}", what),
            start_to_close_timeout=timedelta(seconds=5),  # clients may wait for a worker that died while it asked
            schedule_to_close_timeout=timedelta(minutes=5),
            # What is granted while nobody listens any more would be an orphan.
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            retry_policy=RETRIES,
            summary=f"take {system} in hand" if what == "ask" else f"let {system} go",
        )

    async def _shielded(self, work: Coroutine[Any, Any, R]) -> R:
        """Finish ``work`` whatever cancels arrive: a second cancel must not escape and leave half an undo."""
        task = asyncio.create_task(work)
        while not task.done():
            try:
                # Not asyncio.shield: this refuses to wait in a run that is being evicted, instead of never leaving it.
                await workflow.wait_condition(task.done)
            except asyncio.CancelledError:
                self._record(CancelAsked(workflow.now()))
        return task.result()

    async def _tell_of_the_end(self) -> None:
        await self._tell(notices.ended)

    # --- people who are not looking ----------------------------------------------------------------------

    async def _tell(self, make: Callable[..., Notice], *what: str) -> None:
        """Have people told over the runbook's channels; nothing here waits for them to be reached."""
        if self._frozen is not None and self._frozen.notify and self.start.mode != "check":
            self._notices += 1
            await announce(make(self.report(), *what, self._frozen.notify, self._notices), self._salt)

    # --- the record --------------------------------------------------------------------------------------

    def _began(self, start: Start) -> None:
        info = workflow.info()
        self._start = start
        self._record(Started(workflow.now(), start, info.workflow_type, info.workflow_id, info.run_id))

    def _step(
        self, step: str, state: StepState, cause: Cause, shows: Any = None, failure: str = "", kept: str = ""
    ) -> None:
        plain = shows.model_dump(mode="json") if isinstance(shows, Wire) else shows or {}
        self._record(Stepped(workflow.now(), step, step, state, cause, plain, failure, kept))

    def _end(self, outcome: Outcome, failure: str = "", kind_of: str = "") -> None:
        self._record(Ended(workflow.now(), outcome, failure, kind_of))

    def _ended(self) -> bool:
        return self._fold.ended is not None

    def _record(self, fact: Fact) -> None:
        super()._record(fact)
        if self._start is None:
            return
        shown = (self._fold.fields.get("phase", ""), self._fold.fields.get("needs", ""))
        if shown != self._shown:
            self._shown = shown
            workflow.upsert_search_attributes(attributes.of(self.report()))
        if not self._stale:  # several facts of one moment are drawn once
            self._stale = True
            asyncio.get_running_loop().call_soon(self._draw)

    def _draw(self) -> None:
        self._stale = False
        workflow.set_current_details(markdown(self.report()))


def given_on(order: Any) -> str | None:
    """Return the queue on which ``order`` was given: its undo may be possible from there alone."""
    return (order.get("queue") if isinstance(order, dict) else order.queue) or None


def _summary(step: str, part: str, changes: bool) -> str:
    """Say in the timeline what a person would say; the activity's name stands before it."""
    return {"observe": f"look first: {step}" if changes else step, "undo": f"undo: {step}"}.get(part, step)


def _answer(said: Resolution | None) -> str:
    return f"{said.by}: {said.answer}{f' ({said.reason})' if said.reason else ''}" if said else ""


def _holder() -> Holder:
    """Return this run, as leases know it."""
    info = workflow.info()
    return Holder(workflow=info.workflow_id, chain=info.first_execution_run_id, run=info.run_id)


def _whose(stands: Standing) -> str:
    return stands.behind.workflow if stands.behind else "nobody"


def _in_other_hands(stands: Standing) -> str:
    whose = _whose(stands)
    if not stands.orphaned:
        return f"another recovery holds it (workflow {whose}); wait for its end, or cancel it"
    return (
        f"the recovery that had it in hand, {whose}, has {stands.orphaned} without letting it go: undo that one"
        f" (`starter.py undo {whose}`), or look at the system and `starter.py free` it"
    )
