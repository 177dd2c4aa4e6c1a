"""What reaches a running recovery from outside: decisions, by update or by signal, and the status query."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from recovery.errors import Refused, fields
from recovery.facts import Decided, Fact, Refusal
from recovery.gates import Gate, needed, refusal
from recovery.models import Answer, Decision, Verdict
from recovery.report import Fold, Report

EXAMPLE = '{"gate": "keep the copy", "by": "bob", "plan": "DIGEST SHOWN", "evidence": "DIGEST SHOWN", "reason": "…"}'


class Inbox:
    """Keep the facts of a recovery, and let people in."""

    def __init__(self) -> None:
        self._fold = Fold()
        self._gates: dict[str, Gate] = {}
        self._decisions: list[Decision] = []

    def _record(self, fact: Fact) -> None:
        self._fold.take(fact)

    def report(self) -> Report:
        """Return the report as of now."""
        return self._fold.report(workflow.now())

    @workflow.query(description="The whole recovery as one JSON model: the report's, also while it runs.")
    def status(self) -> Report:
        """Return the report as of now, on which the asking for a cancel is already seen."""
        return self.report()

    @workflow.update(description=f'Decide at a gate; answered. Example: {EXAMPLE[:-1]}, "verdict": "approve"}}')
    async def decide(self, decision: Decision) -> Answer:
        """Count ``decision``; the validator has refused what does not count."""
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

    @workflow.signal(dynamic=True, description="No signal, do not choose: any other name is only noted.")
    def unknown(self, name: str, args: Sequence[RawValue]) -> None:
        """Show a signal that no recovery knows; its name is the sender's, its content stays unread."""
        self._refuse("signal: there is no such signal; use approve or reject")

    def _signalled(self, verdict: Verdict, raw: RawValue) -> None:
        try:
            decision = workflow.payload_converter().from_payload(raw.payload, Decision)
        except (ApplicationError, ValidationError) as error:
            text = fields(error) if isinstance(error, ValidationError) else error.message
            return self._refuse(f"signal {verdict}: {text}")
        except (RuntimeError, KeyError, ValueError):  # what a payload that is no JSON at all ends in
            decision = None
        if not isinstance(decision, Decision):
            return self._refuse(f"signal {verdict}: not readable; send one JSON object")
        if "verdict" in decision.model_fields_set and decision.verdict != verdict:
            return self._refuse(f"signal {verdict}: verdict: it says {decision.verdict}; send that signal instead")
        decision = decision.model_copy(update={"verdict": verdict})
        if no := self._refusal(decision):
            return self._refuse(f"signal {verdict}: {no}")
        self._count(decision)
        return None

    def _refusal(self, decision: Decision) -> str | None:
        gate = self._gates.get(decision.gate)
        if gate is None:
            return f"gate: there is none of this name; this recovery has: {', '.join(self._gates) or 'none yet'}"
        return refusal(gate, decision, [d for d in self._decisions if d.gate == decision.gate])

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
