"""A worker that hurts itself, or in which an activity fails for good, where files say so; else like any other.

The file ``HURT_PLAN`` is a list of the words of a ``crashing_worker.Plan`` each, the file ``FAILING`` a
``failing_worker.Failing``: they are read at each activity, so that a worker that nothing happens to serves one test
after the other.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

import worker
from tests.matrix.crashing_worker import Hurting, Plan
from tests.matrix.failing_worker import Faults


class Striking(ActivityInboundInterceptor):
    """Strike around the activities that the file means."""

    def __init__(self, following: ActivityInboundInterceptor, file: Path) -> None:
        super().__init__(following)
        self._file, self._kept = file, list[Hurting]()

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        """Run the activity, with the strike that is planned."""
        if not self._file.exists():
            return await super().execute_activity(input)
        meant = [plan for plan in map(Plan, json.loads(self._file.read_text())) if plan.means(activity.info())]
        if not meant:
            return await super().execute_activity(input)
        hurting = Hurting(self.next, meant[0])
        self._kept.append(hurting)  # it watches the history beside the next activities
        return await hurting.execute_activity(input)


class Strikes(Interceptor):
    """Install ``Striking`` around every activity."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap ``next``."""
        return Striking(next, Path(os.environ["HURT_PLAN"]))


async def run() -> None:
    """Work until told to end."""
    await worker.main([Strikes(), Faults()])


if __name__ == "__main__":
    asyncio.run(run())
