"""Gates: ask people on facts, keep what they approved, and ask again when that is no longer good."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow

from recovery import gates, notices
from recovery.errors import Refused
from recovery.facts import GateClosed, GateOpened
from recovery.holds import overslept
from recovery.models import Frozen, Wire, digest
from recovery.stepping import AWAY, RESET, Stepping


@dataclass(frozen=True)
class Approval:
    """What was approved: the gate, what it showed, what approval leads to, and until when it may be acted on."""

    gate: str
    shown: tuple[dict[str, Any], ...]
    then: str
    until: datetime


class Asking(Stepping):
    """Open gates, and know which approvals are still good."""

    def __init__(self) -> None:
        super().__init__()
        self._approvals: dict[str, Approval] = {}
        self._asked: dict[str, int] = {}

    def _prepare_gates(self, frozen: Frozen) -> None:
        for name, policy in frozen.gates.items():
            self._gates[name] = gates.Gate(
                name, policy, frozen.people, self.start.requested_by, plan=frozen.digest, open=False
            )

    async def gate(self, name: str, *evidence: Wire | None, then: str = "it goes on") -> None:
        """Wait until the people named by the runbook decide on the plan and this evidence.

        ``then`` says what approval leads to, as a person would.
        """
        policy, shown = self._gates[name].policy, tuple(e.model_dump(mode="json") for e in evidence if e is not None)
        if self.start.mode == "check":
            how = f"would ask {policy.approvals} × {' or '.join(policy.roles)}, within {policy.within}"
            return self._record(GateClosed(workflow.now(), name, how, evidence=shown))
        if self.start.mode == "drill" and policy.in_drill == "pass":
            return self._record(GateClosed(workflow.now(), name, "passed without people: a drill"))
        await self._heed_reset()
        await self._ask(name, shown, then)
        return None

    async def _ask(self, name: str, shown: tuple[dict[str, Any], ...], then: str, again: str = "") -> None:
        before = self._gates[name]
        self._asked[name] = self._asked.get(name, 0) + 1
        if again:  # also part of the digest: what was decided on the first asking must not count for this one
            shown = (*shown, {"asked_again": f"{again} (time {self._asked[name]})"})
        within = self._within(before.policy.within)
        gate = gates.Gate(
            name, before.policy, before.people, before.starter, before.plan, digest(shown) if shown else "", open=True
        )
        early, self._decisions = self._decisions, [d for d in self._decisions if d.gate != name]
        self._gates[name] = gate
        self._record(GateOpened(workflow.now(), gate, workflow.now() + within, shown, then))
        await self._tell(notices.gate_waits, name)
        for decision in (d for d in early if d.gate == name and not again):
            self._again(decision)
        how = await self._decided(name, within)
        if how == RESET:
            await self._heed_reset()
        if how in (RESET, AWAY):
            return await self._ask(name, shown[:-1] if again else shown, then, how)
        base = shown[:-1] if again else shown
        self._approvals[name] = Approval(name, base, then, workflow.now() + before.policy.valid)
        return None

    def spent(self, name: str) -> None:
        """Know what was approved at a gate as done: from here on it does not matter how long that was good for."""
        self._approvals.pop(name, None)

    def _within(self, usual: timedelta) -> timedelta:
        """Return how long people have; while clients are shut out it is short."""
        return min(usual, self._policy().dark_within) if self._dark else usual

    def _lapsed(self) -> Approval | None:
        """Return an approval that may not be acted on any more."""
        return next((one for one in self._approvals.values() if one.until <= workflow.now()), None)

    async def _ask_again(self, lapsed: Approval, why: str) -> None:
        del self._approvals[lapsed.gate]
        await self._ask(lapsed.gate, lapsed.shown, lapsed.then, why)

    async def _decided(self, name: str, within: timedelta) -> str:
        policy, opened = self._gates[name].policy, workflow.now()

        def verdict() -> str | None:
            return gates.outcome(policy, [d for d in self._decisions if d.gate == name])

        try:
            await workflow.wait_condition(
                lambda: verdict() is not None or self._reset,
                timeout=within,
                timeout_summary=f"gate {name}: the time to decide",
            )
        except TimeoutError:
            if overslept(opened + within, workflow.now()):
                self._record(GateClosed(workflow.now(), name, AWAY))
                return AWAY
            self._record(GateClosed(workflow.now(), name, "nobody decided in time"))
            raise Refused(f"gate {name}: nobody decided within {within}") from None
        finally:  # who decides now is not heard any more, and has to know
            self._gates[name] = replace(self._gates[name], closed=True)
        if self._reset:
            self._record(GateClosed(workflow.now(), name, RESET))
            return RESET
        said = [d for d in self._decisions if d.gate == name]
        who = ", ".join(f"{d.by} {d.verdict}s" for d in said)
        self._record(GateClosed(workflow.now(), name, who))
        if verdict() == "reject":
            raise Refused(f"gate {name}: rejected by {next(d.by for d in said if d.verdict == 'reject')}")
        return who

    def _again(self, decision: Any) -> None:
        if no := self._refusal(decision):
            self._refuse(f"early decision: {no}")
        else:
            self._count(decision)
