"""What reaches a running recovery from outside: decisions, answers at holds, notes, and the status query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from recovery import holds
from recovery.errors import Refused, fields
from recovery.facts import Decided, Fact, Noted, Progressed, Refusal
from recovery.gates import Gate, needed, refusal
from recovery.holds import Hold
from recovery.leases import Granted, Standing
from recovery.models import Answer, Decision, Note, Pause, Resolution, Resolved, Verdict
from recovery.progress import Underway
from recovery.report import Fold, Report

A = TypeVar("A", bound=BaseModel)

EXAMPLE = '{"gate": "keep the copy", "by": "bob", "plan": "DIGEST SHOWN", "evidence": "DIGEST SHOWN", "reason": "…"}'
AT_A_HOLD = '{"hold": "TOKEN SHOWN", "by": "bob", "answer": "retry", "reason": "…"}'


class Inbox:
    """Keep the facts of a recovery, and let people in."""

    def __init__(self) -> None:
        self._fold = Fold()
        self._gates: dict[str, Gate] = {}
        self._decisions: list[Decision] = []
        self._people: dict[str, tuple[str, ...]] = {}
        self._hold: Hold | None = None
        self._resolution: Resolution | None = None
        self._pause: Pause | None = None
        self._unwinding = False
        self._granted: dict[str, Standing] = {}

    def _record(self, fact: Fact) -> None:
        self._fold.take(fact)

    def _awake(self, where: str = "") -> None:
        """Find out whether this run was reset, before anything that people sent may count."""

    def report(self) -> Report:
        """Return the report as of now."""
        return self._fold.report(workflow.now())

    @workflow.query(description="The whole recovery as one JSON model: the report's, also while it runs.")
    def status(self) -> Report:
        """Return the report as of now, on which the asking for a cancel is already seen."""
        return self.report()

    # --- gates -------------------------------------------------------------------------------------------

    @workflow.update(description=f'Decide at a gate; answered. Example: {EXAMPLE[:-1]}, "verdict": "approve"}}')
    async def decide(self, decision: Decision) -> Answer:
        """Count ``decision``; the validator has refused what does not count."""
        self._awake()
        return self._count(decision)

    @decide.validator
    def _admissible(self, decision: Decision) -> None:
        if no := self._refusal(decision):
            raise Refused(no)

    @workflow.signal(description=f"Approve at a gate. Example: {EXAMPLE}")
    def approve(self, decision: RawValue) -> None:
        """Count an approval sent as a signal; a bad one is shown in status and log."""
        self._signalled("approve", decision)

    @workflow.signal(description=f"Reject at a gate. Example: {EXAMPLE}")
    def reject(self, decision: RawValue) -> None:
        """Count a rejection sent as a signal; a bad one is shown in status and log."""
        self._signalled("reject", decision)

    # --- holds and notes ---------------------------------------------------------------------------------

    @workflow.update(description=f"Answer at a hold; answered. Example: {AT_A_HOLD}")
    async def resolve_step(self, resolution: Resolution) -> Resolved:
        """Take ``resolution``; the validator has refused what does not count."""
        self._awake()
        return self._resolve(resolution)

    @resolve_step.validator
    def _resolvable(self, resolution: Resolution) -> None:
        if no := self._unresolved(resolution):
            raise Refused(no)

    @workflow.signal(description=f"Answer at a hold. Example: {AT_A_HOLD}")
    def resolve(self, resolution: RawValue) -> None:
        """Take an answer sent as a signal; a bad one is shown in status and log."""
        self._awake()
        if (said := self._read("resolve", resolution, Resolution)) is None:
            return None
        if no := self._unresolved(said):
            return self._refuse(f"signal resolve: {no}")
        self._resolve(said)
        return None

    @workflow.signal(description='Hold before the next action. Example: {"by": "bob", "reason": "wait for the vendor"}')
    def hold(self, pause: RawValue) -> None:
        """Hold before the next action; a bad request is shown in status and log."""
        self._awake()
        if (said := self._read("hold", pause, Pause)) is None:
            return None
        if no := holds.who(self._people, (), said.by):
            return self._refuse(f"signal hold: {no}")
        if self._unwinding:
            return self._refuse("signal hold: it is going back already; that is not held up")
        self._pause = said
        self._record(Noted(workflow.now(), Note(by=said.by, text=f"hold before the next action: {said.reason}")))
        return None

    @workflow.signal(description='Write into the record. Example: {"by": "bob", "text": "the vendor was called"}')
    def note(self, note: RawValue) -> None:
        """Keep a note; a bad one is shown in status and log."""
        self._awake()
        if (said := self._read("note", note, Note)) is None:
            return None
        if no := holds.who(self._people, (), said.by):
            return self._refuse(f"signal note: {no}")
        self._record(Noted(workflow.now(), said))
        return None

    @workflow.signal(description="Sent by the lease of a system, not by people.")
    def granted(self, granted: RawValue) -> None:
        """Hear that the turn has come, or that it never will; what was for a run before a reset counts no more."""
        said = self._read("granted", granted, Granted)
        if said is not None and said.run == workflow.info().run_id:
            self._granted[said.lease] = said.standing

    @workflow.signal(description="Sent by what is under way, not by people.")
    def progress(self, underway: RawValue) -> None:
        """Hear how far a step is; what was for a run before a reset, or is over by now, counts no more."""
        said = self._read("progress", underway, Underway)
        if said is not None and said.run == workflow.info().run_id:
            self._record(Progressed(workflow.now(), said.activity, said.progress))

    @workflow.signal(dynamic=True, description="No signal, do not choose: any other name is only noted.")
    def unknown(self, name: str, args: Sequence[RawValue]) -> None:
        """Show a signal that no recovery knows; its name is the sender's, its content stays unread."""
        self._refuse("signal: there is no such signal; use approve, reject, resolve, hold or note")

    # --- what counts -------------------------------------------------------------------------------------

    def _signalled(self, verdict: Verdict, raw: RawValue) -> None:
        self._awake()
        decision = self._read(verdict, raw, Decision)
        if decision is None:
            return None
        if "verdict" in decision.model_fields_set and decision.verdict != verdict:
            return self._refuse(f"signal {verdict}: verdict: it says {decision.verdict}; send that signal instead")
        decision = decision.model_copy(update={"verdict": verdict})
        if no := self._refusal(decision):
            return self._refuse(f"signal {verdict}: {no}")
        self._count(decision)
        return None

    def _read(self, signal: str, raw: RawValue, model: type[A]) -> A | None:
        """Return what a signal carries; what cannot be read is shown in status and log."""
        try:
            said = workflow.payload_converter().from_payload(raw.payload, model)
        except (ApplicationError, ValidationError) as error:
            text = fields(error) if isinstance(error, ValidationError) else error.message
            self._refuse(f"signal {signal}: {text}")
            return None
        except (RuntimeError, KeyError, ValueError):  # what a payload that is no JSON at all ends in
            said = None
        if not isinstance(said, model):
            self._refuse(f"signal {signal}: not readable; send one JSON object")
            return None
        return said

    def _refusal(self, decision: Decision) -> str | None:
        gate = self._gates.get(decision.gate)
        if gate is None:
            return f"gate: there is none of this name; this recovery has: {', '.join(self._gates) or 'none yet'}"
        return refusal(gate, decision, [d for d in self._decisions if d.gate == decision.gate])

    def _unresolved(self, resolution: Resolution) -> str | None:
        if self._resolution is not None:
            return "hold: it was answered already"
        return holds.refusal(self._hold, self._people, resolution)

    def _refuse(self, message: str) -> None:
        workflow.logger.warning("%s", message)
        self._record(Refusal(workflow.now(), message))

    def _count(self, decision: Decision) -> Answer:
        # A second sender may have come between validator and handler.
        if no := self._refusal(decision):
            raise Refused(no)
        self._decisions.append(decision)
        self._record(Decided(workflow.now(), decision))
        policy = self._gates[decision.gate].policy
        missing = needed(policy, [d for d in self._decisions if d.gate == decision.gate])
        return Answer(gate=decision.gate, verdict=decision.verdict, by=decision.by, needed=missing)

    def _resolve(self, resolution: Resolution) -> Resolved:
        if no := self._unresolved(resolution):
            raise Refused(no)
        self._resolution = resolution
        return Resolved(hold=resolution.hold, answer=resolution.answer, by=resolution.by)
