"""The workflows that are measured: apart, because the sandbox loads this file anew for each run."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from recovery.models import Authored, Start
from recovery.procedure import Procedure
from recovery.report import Report

with workflow.unsafe.imports_passed_through():
    from bench.toys import SWITCH, Switch


class Count(Authored):
    """How many steps to take."""

    steps: int


@workflow.defn
class Bare:
    """As many bare activities as the other has steps, one after the other."""

    @workflow.run
    async def run(self, steps: int) -> None:
        """Call the bare activity again and again."""
        for number in range(steps):
            await workflow.execute_activity(
                "bench.bare", Switch(system=f"s{number}"), start_to_close_timeout=timedelta(seconds=10)
            )


@workflow.defn
class Steps(Procedure[Count]):
    """As many steps of the engine: each looks, registers its undo, acts and looks again."""

    parameters = Count

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Do the same action on one system after the other."""
        async with self.conducting(start) as wanted:
            for number in range(wanted.steps):
                await self.do(SWITCH, Switch(system=f"s{number}", drill=True), step=f"switch {number}")
        return self.report()
