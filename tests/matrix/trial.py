"""One trial of one action: the activities that the worker registers, run directly against the real system."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from temporalio import activity
from temporalio.testing import ActivityEnvironment

import worker
from recovery.actions import Action, Order
from recovery.errors import Transient
from recovery.fencing import Hand, acting
from recovery.names import lease_id
from tests.matrix.scenes import Scene, Stage, quiet
from tests.matrix.theatre import SCENES

ACTIVITIES = {activity._Definition.must_from_callable(call).name or "": call for call in worker.ACTIVITIES}


class Trial:
    """A fresh spec of an action, the state that was seen before, and the order that a workflow would give."""

    def __init__(self, scene: Scene[Any, Any], spec: Any, before: Any) -> None:
        self.scene, self.action, self.spec, self.before = scene, scene.action, spec, before
        self.desired = self.action.desired(spec, before)
        self.order = Order[self.action.spec_type, self.action.state_type](  # type: ignore[name-defined]
            spec=spec, before=before, mode="live", not_after=datetime.now(UTC) + timedelta(minutes=5),
            lease=lease_id("trials", spec.system),
        )  # fmt: skip
        self.environment = ActivityEnvironment()
        self.part, self.number = "apply", 1
        self.untouched = self.shows()

    @classmethod
    async def of(cls, name: str, stage: Stage) -> Trial:
        """Set the scene of the action ``name``."""
        scene = SCENES[name](stage)
        spec = await scene.set()
        return cls(scene, spec, await scene.action.observe(spec))

    async def end(self) -> None:
        """Clear the scene; nothing but the lab's own programs may run then."""
        await self.scene.clear()
        await quiet(self.scene.lab)

    async def again(self) -> None:
        """Begin anew: by undo, or where there is none on a new scene."""
        if undoable(self.action):
            await self.undo()
            await self.scene.reopen(self.spec)
            return
        await self.end()
        spec = await self.scene.set()
        self.__init__(self.scene, spec, await self.action.observe(spec))  # type: ignore[misc]

    async def apply(self, **changes: Any) -> Any:
        """Run ``<name>.apply`` once, with ``changes`` to the order."""
        return await self._run("apply", changes)

    async def undo(self, **changes: Any) -> Any:
        """Run ``<name>.undo`` once, with ``changes`` to the order."""
        return await self._run("undo", changes)

    async def write(self, part: str, late: Hand) -> None:
        """Do what the activity does after it has looked, as ``late``."""
        with acting(replace(late, system=self.spec.system, lease=self.order.lease)):
            async with asyncio.timeout(40):
                await ActivityEnvironment().run(getattr(self.action, part), self.spec, self.before)

    async def look(self) -> Any:
        """Run ``<name>.observe``."""
        return await ActivityEnvironment().run(ACTIVITIES[f"{self.action.name}.observe"], self.spec)

    def shows(self) -> dict[str, object]:
        """Return what the system itself shows of all that apply may change."""
        return dict(self.scene.shows(self.spec))

    async def cancelled_after(self, seconds: float) -> None:
        """Run apply, and cancel it after so many seconds, as Temporal would."""
        applying = asyncio.create_task(self.apply())
        await asyncio.sleep(seconds)
        self.environment.cancel()
        await asyncio.gather(applying, return_exceptions=True)

    async def struck_by(self, accident: str, chance: Random) -> None:
        """Run apply once, with an accident in its middle; it may survive, or ask to be tried again."""
        applying = asyncio.create_task(self.apply())
        try:
            await self.scene.strike(accident, self.spec, chance)
        finally:
            found = (await asyncio.gather(applying, return_exceptions=True))[0]
        assert not isinstance(found, BaseException) or isinstance(found, Transient), repr(found)

    async def _run(self, part: str, changes: dict[str, Any]) -> Any:
        self.environment = ActivityEnvironment()
        if part != self.part:  # a workflow would order it anew
            self.part, self.number = part, self.number + 1
        order = self.order.model_copy(update={"epoch": 1, "number": self.number} | changes)
        async with asyncio.timeout(40):
            return await self.environment.run(ACTIVITIES[f"{self.action.name}.{part}"], order)


def undoable(action: Action[Any, Any]) -> bool:
    """Tell whether the action can be undone; ``kept`` says why not."""
    return not getattr(action, "kept", "")


async def retried(call: Callable[[], Awaitable[Any]], seconds: float = 20) -> Any:
    """Run ``call`` again after each failure that Temporal would retry."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await call()
        except Transient:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)
