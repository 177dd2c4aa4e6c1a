"""In an activity: what goes out with each beat, which is how far the action is and what it leaves to the next attempt.

How far it is is told to its own run, too, now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError
from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.service import RPCError

from recovery.carrying import carrying
from recovery.errors import Transient
from recovery.progress import Pace, Underway, due, heard

SIGNAL = "progress"
_PATIENCE = timedelta(seconds=10)
"""For one signal; what is not heard is not missed, the next one comes."""


class Meter:
    """The progress of one attempt, and what it carries; it begins with what the attempt before it had told.

    Beats carry the newest figures: whoever describes the run sees them, and no history keeps them.
    """

    def __init__(self, before: Sequence[Any]) -> None:
        self._began = datetime.now(UTC)
        self._pace = Pace()
        self._underway = _known(before)
        self.carried = str(before[1]) if len(before) > 1 else ""
        self._signalling: asyncio.Task[None] | None = None

    def hear(self, done: int, total: int | None, of: str, note: str) -> None:
        """Take what the action tells."""
        now = self._pace.take(datetime.now(UTC), done, total, of, note)
        told, times = (self._underway.told, self._underway.times) if self._underway else (None, 0)
        info = activity.info()
        self._underway = Underway(
            run=info.workflow_run_id or "", activity=info.activity_id, progress=now, told=told, times=times
        )
        if info.heartbeat_timeout is not None and self._signalling is None and due(now, told, times, self._began):
            self._underway = self._underway.model_copy(update={"told": now, "times": times + 1})
            self._signalling = asyncio.create_task(self._signal(self._underway.model_copy(update={"told": None})))

    async def carry(self, text: str) -> None:
        """Have the next attempt find ``text``: Temporal has it before this returns. Raises Transient."""
        self.carried, info = text, activity.info()
        activity.heartbeat(*self.details())  # a beat that is on its way must not bring back what was carried before
        if info.heartbeat_timeout is None:
            return
        attempt = activity.client().get_async_activity_handle(task_token=info.task_token)
        try:
            with contextlib.suppress(AsyncActivityCancelledError):  # the cancel itself arrives in answer to a beat
                await attempt.heartbeat(*self.details(), rpc_timeout=info.heartbeat_timeout / 2)
        except RPCError:
            raise Transient(
                "Temporal does not confirm what is to be found by another attempt; go on when it does"
            ) from None

    def details(self) -> tuple[Underway | str | None, ...]:
        """Return what a beat carries: nothing for what tells and leaves nothing."""
        if self.carried:
            return self._underway, self.carried
        return (self._underway,) if self._underway else ()

    async def _signal(self, underway: Underway) -> None:
        try:
            info = activity.info()
            run = activity.client().get_workflow_handle(info.workflow_id or "", run_id=info.workflow_run_id)
            with contextlib.suppress(RPCError):
                await run.signal(SIGNAL, underway, rpc_timeout=_PATIENCE)
        finally:
            self._signalling = None

    def stop(self) -> None:
        """Signal nothing more."""
        if self._signalling is not None:
            self._signalling.cancel()


_METER: ContextVar[Meter] = ContextVar("meter")


@contextlib.asynccontextmanager
async def metered() -> AsyncIterator[None]:
    """Hear what is told within the body."""
    meter = Meter(activity.info().heartbeat_details)
    token = _METER.set(meter)
    try:
        with heard(meter.hear), carrying(meter):
            yield
    finally:
        meter.stop()
        _METER.reset(token)


def details() -> tuple[Underway | str | None, ...]:
    """Return what a beat of this activity carries."""
    meter = _METER.get(None)
    return meter.details() if meter else ()


def _known(before: Sequence[Any]) -> Underway | None:
    with contextlib.suppress(ValidationError):
        return Underway.model_validate(before[0]) if before else None
    return None
