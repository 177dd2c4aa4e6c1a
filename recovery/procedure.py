"""The engine: what every procedure inherits. It knows no vendor and no procedure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, FailureError, WorkflowAlreadyStartedError, is_cancelled_exception
from temporalio.workflow import ActivityCancellationType, ParentClosePolicy

from recovery import attributes, gates
from recovery.actions import Action, Order, Probe, Spec, agrees
from recovery.clock import Cause, misdated
from recovery.details import markdown
from recovery.errors import Fatal, Invalid, Refused, kind, sentence
from recovery.facts import (
    Blocked,
    CancelAsked,
    Delivered,
    Ended,
    Fact,
    GateClosed,
    GateOpened,
    Loaded,
    Measured,
    Outcome,
    Started,
    Stepped,
    StepState,
    Unwinding,
)
from recovery.inbox import Inbox
from recovery.models import Authored, Frozen, Load, Start, Wire, digest
from recovery.names import CLAIM, activity_id, claim_id
from recovery.saga import Entry, Fate, following

P = TypeVar("P", bound=Authored)
S = TypeVar("S", bound=Spec)
T = TypeVar("T", bound=Wire)
M = TypeVar("M", bound=Authored)

RETRIES = RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=5))


class Call(NamedTuple):
    """An activity to run as ``part`` of ``step``, and with whose limits."""

    activity: str
    gives: type[Wire]
    step: str
    part: Literal["observe", "apply", "undo"]
    limits: Probe[Any, Any] | type[Action[Any, Any]]
    patience: timedelta


class _Enough(Exception):
    """A check has seen what it can see."""


class Procedure(Inbox, Generic[P]):
    """A recovery: conduct it, look, do, prove, ask people; undo what was done when it does not succeed."""

    parameters: ClassVar[type[Authored]]

    def __init__(self) -> None:
        super().__init__()
        self._frozen: Frozen | None = None
        self._start: Start | None = None
        self._stack: list[Entry] = []
        self._fates: dict[str, Fate] = {}
        self._names: set[str] = set()
        self._imagined = False
        self._claims: list[workflow.ChildWorkflowHandle[Any, None]] = []
        self._shown: tuple[str, str] = ("", "")
        self._stale = False

    # --- what a procedure writes -------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def conducting(self, start: Start) -> AsyncIterator[P]:
        """Open the recovery, yield its parameters, and bring it to a named outcome whatever happens inside."""
        info = workflow.info()
        self._start = start
        self._record(Started(workflow.now(), start, info.workflow_type, info.workflow_id, info.run_id))
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

    async def look(self, probe: Probe[S, T], spec: S, step: str = "") -> T:
        """Look at the world, in every mode."""
        return await self._look(probe, spec, step or probe.title(spec), "decide")

    async def prove(self, probe: Probe[S, T], spec: S, step: str = "") -> T | None:
        """Look at what this recovery made; None where it was only planned (check, or no drill target)."""
        step = step or probe.title(spec)
        if self._imagined:
            self._name(step)
            self._step(step, "would look", "verify")
            return None
        return await self._look(probe, spec, step, "verify")

    async def do(self, action: Action[S, T], spec: S, step: str = "") -> T:
        """Bring a system into the state that ``action`` desires, proven; its undo is registered before."""
        step = step or action.title(spec)
        before = await self._look(action, spec, step, "execute")
        desired = action.desired(spec, before)
        if agrees(desired, before):
            self._step(step, "unchanged", "execute", before)
            return before
        if not self._acts(spec):
            self._imagined = True
            self._step(step, "would change", "execute", desired)
            return desired
        expires = min(action.expires, self.frozen.not_after)
        order: Order[S, T] = Order(spec=spec, before=before, mode=self.start.mode, not_after=workflow.now() + expires)
        # Registered first: a worker that dies after acting must still find the undo.
        self._stack.append(Entry(step, action.name, order))
        self._step(step, "changing", "execute", desired)
        call = Call(f"{action.name}.apply", action.state_type, step, "apply", action, expires + action.limit)
        after: T = await self._activity(call, order, "execute")
        self._step(step, "changed", "execute", after)
        return after

    def require(self, blockers: Sequence[str]) -> None:
        """Refuse to go on while anything stands in the way; a check lists it and ends."""
        if blockers:
            self._record(Blocked(workflow.now(), tuple(blockers)))
            if self.start.mode == "check":
                raise _Enough
            raise Refused("; ".join(blockers))

    def measured(self, name: str, value: float | str, unit: str = "", met: bool | None = None) -> None:
        """Report a figure that was measured on the systems."""
        self._record(Measured(workflow.now(), name, value, unit, met))

    def delivered(self, name: str, where: str) -> None:
        """Report what this recovery leaves for people to use, unless it was only planned or a drill."""
        if self.start.mode == "live":
            self._record(Delivered(workflow.now(), name, where))

    async def gate(self, name: str, *evidence: Wire | None, then: str = "it goes on") -> None:
        """Wait until the people named by the runbook decide on the plan and this evidence.

        ``then`` says what approval leads to, as a person would.
        """
        gate = self._gates[name]
        policy = gate.policy
        if self.start.mode == "check":
            how = f"would ask {policy.approvals} × {' or '.join(policy.roles)}, within {policy.within}"
            return self._record(GateClosed(workflow.now(), name, how))
        if self.start.mode == "drill" and policy.in_drill == "pass":
            return self._record(GateClosed(workflow.now(), name, "passed without people: a drill"))
        shown = tuple(e.model_dump(mode="json") for e in evidence if e is not None)
        gate = gates.Gate(name, policy, gate.people, gate.starter, gate.plan, digest(shown) if shown else "", open=True)
        early, self._decisions = self._decisions, [d for d in self._decisions if d.gate != name]
        self._gates[name] = gate
        self._record(GateOpened(workflow.now(), gate, workflow.now() + policy.within, shown, then))
        for decision in (d for d in early if d.gate == name):
            self._again(decision)
        await self._decided(name)
        return None

    def system(self, kind_of: str, name: str, model: type[M]) -> M:
        """Return the system ``name`` of the frozen estate, as ``model``."""
        return model.model_validate(self.frozen.estate[kind_of][name])

    # --- the rest is the engine's ------------------------------------------------------------------------

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
        for name, policy in frozen.gates.items():
            self._gates[name] = gates.Gate(
                name, policy, frozen.people, start.requested_by, plan=frozen.digest, open=False
            )
        self._record(Loaded(workflow.now(), frozen))
        if start.mode != "check":
            for system in sorted(frozen.systems):
                await self._claim(system)
        return self.parameters.model_validate(frozen.parameters)  # type: ignore[return-value]

    async def _claim(self, system: str) -> None:
        """Hold ``system`` by the id of a child, so that no second recovery acts on it, whatever its own id."""
        try:
            claim = await workflow.start_child_workflow(
                CLAIM,
                id=claim_id(self.frozen.catalog, system),
                parent_close_policy=ParentClosePolicy.TERMINATE,
                static_summary=f"{system} is held by {workflow.info().workflow_id}",
            )
        except WorkflowAlreadyStartedError as error:
            raise Refused(
                f"{system}: another recovery holds it (parent of workflow {error.workflow_id}); wait for its end,"
                " or cancel it"
            ) from None
        self._claims.append(claim)

    async def _close(self) -> None:
        if workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError
        if self.start.mode == "check":
            return self._end("checked")
        if self.start.mode == "drill":
            await self._shielded(self._unwind("the drill is over: everything is put back"))
            if self.report().residual:
                raise Fatal("the drill could not put everything back; see residual")
            return self._end("drilled")
        return self._end("recovered")

    async def _fail(self, failure: BaseException) -> None:
        """Undo what was done, name the outcome, and close the workflow accordingly."""
        cancelled = is_cancelled_exception(failure)
        if cancelled:
            self._record(CancelAsked(workflow.now()))
        if self.start.mode == "check" and not cancelled and kind(failure) != "Invalid":
            self._record(Blocked(workflow.now(), (sentence(failure),)))
            return self._end("checked")
        reason = "cancelled" if cancelled else sentence(failure)
        await self._shielded(self._unwind(reason))
        residual, undone = self.report().residual, "undone" in self._fates.values()
        outcome: Outcome = "failed" if residual or not undone else "compensated"
        self._end("cancelled" if cancelled else outcome, reason, "Cancelled" if cancelled else kind(failure))
        if cancelled and not residual:
            raise asyncio.CancelledError from failure
        message = f"{outcome}: {reason}" + (f" — NOT UNDONE: {'; '.join(residual)}" if residual else "")
        report = self.report()
        raise ApplicationError(message, report, type=report.kind, non_retryable=True) from failure

    async def _unwind(self, reason: str) -> None:
        self._record(Unwinding(workflow.now(), reason))
        while following_one := following(self._stack, lambda entry: self._fates.get(entry.step)):
            entry, fate = following_one
            self._fates[entry.step] = fate or await self._undo(entry)
            if fate == "blocked":
                self._step(entry.step, "undo blocked", "undo", failure="an undo above it failed, which guards it")

    async def _undo(self, entry: Entry) -> Fate:
        self._step(entry.step, "undoing", "undo")
        gives, patience = type(entry.order.before), Action.undo_patience
        call = Call(f"{entry.action}.undo", gives, entry.step, "undo", Action, patience)
        try:
            after = await self._activity(call, entry.order, "undo")
        except FailureError:
            return "failed"
        self._step(entry.step, "undone", "undo", after)
        return "undone"

    async def _look(self, probe: Probe[S, T], spec: S, step: str, cause: Cause) -> T:
        self._name(step)
        self._step(step, "looking", cause)
        # A check tells what is wrong now; only who acts waits for it to pass.
        patience = timedelta(0) if self.start.mode == "check" else probe.patience
        call = Call(f"{probe.name}.observe", probe.state_type, step, "observe", probe, patience)
        seen: T = await self._activity(call, spec, cause)
        self._step(step, "seen", cause, seen)
        return seen

    async def _activity(self, call: Call, argument: Wire, cause: Cause) -> Any:
        try:
            result = await workflow.execute_activity(
                call.activity,
                argument,
                result_type=call.gives,
                activity_id=activity_id(call.step, call.part),
                start_to_close_timeout=call.limits.limit,
                schedule_to_close_timeout=max(call.patience, call.limits.limit),
                heartbeat_timeout=max(call.limits.beat * 4, timedelta(seconds=3)),
                retry_policy=RETRIES,
                cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                summary=_summary(call.step, call.part, isinstance(call.limits, Action)),
            )
        except FailureError as failure:
            self._step(call.step, "undo failed" if cause == "undo" else "failed", cause, failure=sentence(failure))
            raise
        # An activity that ended before its cancel arrived returns normally; the cancel must not be lost.
        if cause != "undo" and workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError
        return result

    async def _decided(self, name: str) -> None:
        policy = self._gates[name].policy

        def verdict() -> str | None:
            return gates.outcome(policy, [d for d in self._decisions if d.gate == name])

        try:
            await workflow.wait_condition(
                lambda: verdict() is not None,
                timeout=policy.within,
                timeout_summary=f"gate {name}: the time to decide",
            )
        except TimeoutError:
            self._record(GateClosed(workflow.now(), name, "nobody decided in time"))
            raise Refused(f"gate {name}: nobody decided within {policy.within}") from None
        said = [d for d in self._decisions if d.gate == name]
        who = ", ".join(f"{d.by} {d.verdict}s" for d in said)
        self._record(GateClosed(workflow.now(), name, who))
        if verdict() == "reject":
            raise Refused(f"gate {name}: rejected by {next(d.by for d in said if d.verdict == 'reject')}")

    def _again(self, decision: Any) -> None:
        if no := self._refusal(decision):
            self._refuse(f"early decision: {no}")
        else:
            self._count(decision)

    async def _shielded(self, work: Coroutine[Any, Any, None]) -> None:
        """Finish ``work`` whatever cancels arrive: a second cancel must not escape and leave half an undo."""
        task = asyncio.create_task(work)
        while not task.done():
            try:
                # Not asyncio.shield: this refuses to wait in a run that is being evicted, instead of never leaving it.
                await workflow.wait_condition(task.done)
            except asyncio.CancelledError:
                self._record(CancelAsked(workflow.now()))
        task.result()

    async def _leave(self) -> None:
        for claim in self._claims:
            # Somebody may have closed the claim by hand; then the system is free already.
            with contextlib.suppress(FailureError):
                await claim.signal("release")
                await claim
        await workflow.wait_condition(workflow.all_handlers_finished)

    def _acts(self, spec: Spec) -> bool:
        mode = self.start.mode
        return mode == "live" or (mode == "drill" and spec.drill)

    def _name(self, step: str) -> None:
        # A duplicate pending activity id makes a workflow stick for ever.
        if step in self._names:
            raise Invalid(f"step: {step!r} is named twice in this procedure; give one another name")
        self._names.add(step)

    def _step(self, step: str, state: StepState, cause: Cause, shows: Wire | None = None, failure: str = "") -> None:
        plain = shows.model_dump(mode="json") if shows is not None else {}
        self._record(Stepped(workflow.now(), step, step, state, cause, plain, failure))

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


def _summary(step: str, part: str, changes: bool) -> str:
    """Say in the timeline what a person would say; the activity's name stands before it."""
    return {"observe": f"look first: {step}" if changes else step, "undo": f"undo: {step}"}.get(part, step)
