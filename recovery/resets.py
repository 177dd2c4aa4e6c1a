"""Find out that this run continues one that somebody reset, and take over what that one did."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

from temporalio import workflow

from recovery.asking import Asking
from recovery.errors import Refused, sentence
from recovery.facts import Loaded, WasReset
from recovery.holds import Situation
from recovery.models import digest
from recovery.past import Past, Which
from recovery.stepping import RETRIES

READ = "history.read"


class Resets(Asking):
    """After a reset: merge the undo stack of the run that it came from, void what was approved there, and hold.

    Temporal replays the events before the reset point with the code that made them, so the answer must be "no" there
    and "yes" from the first new event on: a patch does exactly that.
    """

    def __init__(self) -> None:
        super().__init__()
        self._committed = ""
        self._merged_run = ""
        self._unended: tuple[str, ...] = ()
        self._awakenings = 0
        self._single = False

    def _awake(self, where: str = "") -> None:
        info = workflow.info()
        if self.looks:  # it has nothing to take over, and its later runs are not what was reset
            return
        if self._reset or info.run_id == (self._merged_run or info.first_execution_run_id):
            return
        self._awakenings += not where  # a place that every run passes once at most has a name instead
        if workflow.patched(f"reset-{where or self._awakenings}"):
            # By the time, which a replay knows: by the run's id, no run that this one is reset to could be replayed.
            self._reset, self._salt = True, digest(workflow.now().isoformat())
            self._decisions, self._resolution, self._hold = [], None, None
            # Decisions name the digest that they were made on: none that was made for the other run fits any more.
            self._gates = {
                name: dataclasses.replace(gate, plan=digest([gate.plan, self._salt]))
                for name, gate in self._gates.items()
            }

    async def _heed_reset(self) -> None:
        """Hold, once, in a run that continues another one."""
        self._awake()
        if not self._reset:
            return
        # Shielded: read twice at once, or with half of the leases, nothing could be undone.
        await self._shielded(self._merge())
        if self._unwinding:
            return
        self._heed_cancel()
        if self.start.mode == "check":
            return
        why = "this run was reset; what the run before it did is known here, what was approved there is void"
        said = await self._holding(
            Situation("reset", bool(self._committed), forward=self._forward), "go on after the reset", why
        )
        if said is None or said.answer == "compensate":
            who = f"{said.by}: {said.reason or 'compensate'}" if said else "nobody answered in time"
            raise Refused(f"the run was reset, and {who}")
        if said.answer == "step":
            self._single = True
        now = workflow.now()
        self._approvals = {n: dataclasses.replace(one, until=now) for n, one in self._approvals.items()}

    async def _merge(self) -> None:
        """Take over the stack of the run that this one came from, once; also where it fails before its first step."""
        self._awake()
        if not self._reset:
            return
        past = await read(Which(workflow=workflow.info().workflow_id, run=workflow.info().run_id))
        self._reset, self._merged_run = False, past.run
        self._stack, self._fates = past.stack(), {}
        self._committed, self._dark, self._unended = past.commits, past.dark, past.unended
        steps = tuple(entry.step for entry in self._stack if not entry.passing)
        self._record(WasReset(workflow.now(), steps, past.commits, past.dark))
        if self._frozen is None and past.frozen is not None:
            self._frozen = past.frozen
            self._record(Loaded(workflow.now(), past.frozen))
        if self.start.mode != "check" and self._frozen is not None:
            try:
                await self._take_in_hand(waits=False)
            except Refused as held:  # nothing is undone beneath the hands of whoever acts on these systems now
                self._stack = []
                for entry in reversed(past.stack()):
                    self._step(entry.step, "undo blocked", "undo", failure=sentence(held))
                raise


async def read(which: Which) -> Past:
    """Return what the recovery ``which`` did, once nothing of its earlier runs is in flight any more."""
    result: Any = await workflow.execute_activity(
        READ,
        which,
        result_type=Past,
        activity_id="read-the-history",
        start_to_close_timeout=timedelta(minutes=5),
        schedule_to_close_timeout=timedelta(hours=1),
        heartbeat_timeout=timedelta(seconds=10),
        retry_policy=RETRIES,
        summary=f"read what {which.workflow} did",
    )
    past: Past = result
    return past
