"""A worker in which one activity fails for good, where a file says; everything else is a worker like any other.

The file ``FAILING`` holds a ``Failing``; without it nothing fails. Each failure is counted in it before it happens.
At the point "gone" it is the worker that fails: it kills itself before the activity acts.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
import signal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

import worker
from recovery.errors import Fatal


class Failing(BaseModel):
    """Which activity fails, whichever attempt it is, before it acts or after, and how many times more."""

    activity: str
    point: Literal["before", "after", "gone"]
    times: int = 1

    def means(self, activity: str) -> bool:
        """Tell whether it is about this one; people's retries have ids of their own, and names may hold a time."""
        return self.times > 0 and any(fnmatch.fnmatch(activity, f"{self.activity}{end}") for end in ("", "-[0-9]"))

    def write(self, file: Path) -> None:
        """Say it, at once or not at all."""
        new = file.with_suffix(".new")
        new.write_text(self.model_dump_json())
        new.replace(file)


class Faulty(ActivityInboundInterceptor):
    """Fail one activity; what it does is real."""

    def __init__(self, following: ActivityInboundInterceptor, file: Path) -> None:
        super().__init__(following)
        self._file = file

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        """Run the activity, or fail before, or after."""
        failing = Failing.model_validate_json(self._file.read_text()) if self._file.exists() else None
        if failing is None or not failing.means(activity.info().activity_id):
            return await super().execute_activity(input)
        if failing.point == "after":
            await super().execute_activity(input)
        failing.model_copy(update={"times": failing.times - 1}).write(self._file)
        if failing.point == "gone":
            os.kill(os.getpid(), signal.SIGKILL)
        raise Fatal(f"told to fail {failing.point} it acts")


class Faults(Interceptor):
    """Install ``Faulty`` around every activity."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap ``next``."""
        return Faulty(next, Path(os.environ["FAILING"]))


if __name__ == "__main__":
    asyncio.run(worker.main([Faults()]))
