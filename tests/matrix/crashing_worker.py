"""A worker that hurts itself once, where its environment says; without that it is a worker like any other.

``HURT_ACTIVITY`` is a pattern for the activity id, ``HURT_WORKFLOW`` for the type of its workflow, ``HURT_POINT`` is
before (its body), within (``HURT_SECONDS`` into it), after (its effect, the result not reported) or reported (it is in
the history). ``HURT_SIGNAL`` is KILL or STOP.
``HURT_ONCE`` is a file that is made at the strike: whoever finds it does not strike again.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

import worker


class Plan:
    """When to strike."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.activity, self.point = environment["HURT_ACTIVITY"], environment["HURT_POINT"]
        self.workflow = environment.get("HURT_WORKFLOW", "*")
        self.seconds = float(environment.get("HURT_SECONDS", "0"))
        self.signal = signal.Signals[f"SIG{environment.get('HURT_SIGNAL', 'KILL')}"]
        self.once = Path(environment["HURT_ONCE"])

    def means(self, info: activity.Info) -> bool:
        """Tell whether this is an activity at which to strike."""
        mine = fnmatch(info.activity_id, self.activity) and fnmatch(info.workflow_type or "", self.workflow)
        return mine and not self.once.exists()

    def strike(self) -> None:
        """Hurt this process, unless it was done."""
        try:
            self.once.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), self.signal)


class Hurting(ActivityInboundInterceptor):
    """Strike around one activity."""

    def __init__(self, following: ActivityInboundInterceptor, plan: Plan) -> None:
        super().__init__(following)
        self._plan = plan
        self._watching: set[asyncio.Task[None]] = set()

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        """Run the activity, with the strike at its point."""
        plan = self._plan
        if not plan.means(activity.info()):
            return await super().execute_activity(input)
        match plan.point:
            case "before":
                plan.strike()
            case "within":
                asyncio.get_running_loop().call_later(plan.seconds, plan.strike)
            case "reported":
                self._watching.add(asyncio.create_task(self._strike_when_reported()))
        try:
            return await super().execute_activity(input)
        finally:
            if plan.point in ("within", "after"):
                plan.strike()

    async def _strike_when_reported(self) -> None:
        info = activity.info()
        assert info.workflow_id is not None
        handle = activity.client().get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id)
        scheduled = 0
        async for event in handle.fetch_history_events(wait_new_event=True):
            if event.activity_task_scheduled_event_attributes.activity_id == info.activity_id:
                scheduled = event.event_id
            if scheduled and event.activity_task_completed_event_attributes.scheduled_event_id == scheduled:
                self._plan.strike()


class Hurt(Interceptor):
    """Install ``Hurting`` around every activity."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap ``next``."""
        return Hurting(next, Plan(os.environ))


if __name__ == "__main__":
    asyncio.run(worker.main([Hurt()] if "HURT_ACTIVITY" in os.environ else []))
