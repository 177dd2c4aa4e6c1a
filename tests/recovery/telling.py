"""A procedure that tells people what it does."""

from __future__ import annotations

from temporalio import workflow

from recovery.errors import Refused
from recovery.models import Authored, Start
from recovery.notices import ended, gate_waits
from recovery.notification import announce
from recovery.procedure import Procedure
from recovery.report import Report


class Wanted(Authored):
    """Whom to tell; and how it is to end."""

    notify: tuple[str, ...] = ()
    system: str = "files"
    fails: bool = False
    waits: bool = False


@workflow.defn
class Telling(Procedure[Wanted]):
    """Announce, go on, and announce the end."""

    parameters = Wanted

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Do as told."""
        try:
            async with self.conducting(start) as wanted:
                await announce(gate_waits(self.report(), "go on", self.frozen.notify, 1))
                await workflow.wait_condition(lambda: not wanted.waits)
                if wanted.fails:
                    raise Refused("told to fail")
        finally:
            if self._frozen:  # without a runbook nobody knows whom to tell
                await announce(ended(self.report(), self.frozen.notify, 2))
        return self.report()
