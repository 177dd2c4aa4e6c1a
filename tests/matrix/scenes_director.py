"""How the traffic director's action is tried: on a Caddy of its own, through a relay that cuts its writes."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from activities.director import MARK, Point, Pointed, point
from tests.caddies import Between, Caddy, between, caddy
from tests.matrix.scenes import Scene, Stage


class PointScene(Scene[Point, Pointed]):
    """Move the traffic to the other site."""

    action = point
    accidents = ("connection cut", "director killed")

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.ends = AsyncExitStack()
        self.director: Caddy
        self.between: Between

    async def set(self) -> Point:
        """Start a director that points at north."""
        folder = self.ends.enter_context(tempfile.TemporaryDirectory(prefix="caddy-"))
        self.director = self.ends.enter_context(caddy(Path(folder)))
        self.between = await self.ends.enter_async_context(between(self.director))
        return self.director.point(admin=self.between.address)

    def shows(self, spec: Point) -> Mapping[str, object]:
        """Return the configuration, but for whose write was the last."""
        server = self.director.server()
        server["routes"] = [route for route in server["routes"] if MARK not in json.dumps(route)]
        return {"server": server, "jobs": []}

    async def meddle_before(self, spec: Point) -> None:
        """Somebody points it elsewhere."""
        self.director.repoint({"dial": "192.0.2.9:80"})

    async def meddle_after(self, spec: Point) -> None:
        """Somebody adds another upstream."""
        self.director.repoint(*self.director.upstreams(), {"dial": "192.0.2.9:80"})

    async def strike(self, accident: str, spec: Point, chance: Random) -> None:
        """Cause the accident just before the write arrives, or just after it was done."""

        async def killed() -> None:
            self.director.kill()
            self.director.start()
            await self.between.cut()

        struck = asyncio.Event()

        async def strike() -> None:
            struck.set()
            await (killed if accident == "director killed" else self.between.cut)()

        setattr(self.between, chance.choice(["before", "after"]), strike)
        async with asyncio.timeout(10):
            await struck.wait()

    async def clear(self) -> None:
        """Stop the director."""
        await self.ends.aclose()
