"""How a record is moved and its TTL changed: on a Knot of its own, through a relay that cuts its updates."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from activities.dns_director import KeepFor, Lasting, PointRecord, Recorded, point_record, set_ttl
from activities.dns_zones import RecordSpec
from tests.knots import ELSEWHERE, NORTH, Between, Knot, between, running
from tests.matrix.scenes import Scene, Stage, T


class ZoneScene(Scene[RecordSpec, T]):
    """An action on a record that points at north."""

    accidents = ("connection cut", "name server killed")

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.ends = AsyncExitStack()
        self.knot: Knot
        self.between: Between

    async def up(self) -> None:
        """Start the primary, and the relay before it."""
        self.knot = Knot(Path(self.ends.enter_context(tempfile.TemporaryDirectory(prefix="knot-"))))
        self.ends.enter_context(running(self.knot))
        self.between = await self.ends.enter_async_context(between(self.knot))

    def shows(self, spec: RecordSpec) -> Mapping[str, object]:
        """Return every record, but for whose write was the last."""
        records = {name: found for name, found in self.knot.records().items() if not name.startswith("_recovery")}
        return {"records": records, "jobs": []}

    async def strike(self, accident: str, spec: RecordSpec, chance: Random) -> None:
        """Cause the accident just before the update arrives, or just after it was done."""

        async def killed() -> None:
            self.knot.kill()
            self.knot.start()
            await self.between.cut()

        struck = asyncio.Event()

        async def strike() -> None:
            struck.set()
            await (killed if accident == "name server killed" else self.between.cut)()

        setattr(self.between, chance.choice(["before", "after"]), strike)
        async with asyncio.timeout(10):
            await struck.wait()

    async def clear(self) -> None:
        """Stop the primary."""
        await self.ends.aclose()


class PointRecordScene(ZoneScene[Recorded]):
    """Move the record to the other site."""

    action = point_record

    async def set(self) -> PointRecord:
        """Start a primary whose record points at north."""
        await self.up()
        return self.knot.point(server=self.between.address)

    async def meddle_before(self, spec: RecordSpec) -> None:
        """Somebody points it elsewhere."""
        self.knot.tell("A", ELSEWHERE)

    async def meddle_after(self, spec: RecordSpec) -> None:
        """Somebody adds another value."""
        self.knot.tell("A", NORTH, ELSEWHERE)


class SetTtlScene(ZoneScene[Lasting]):
    """Lower the TTL."""

    action = set_ttl

    async def set(self) -> KeepFor:
        """Start a primary whose record is kept for an hour."""
        await self.up()
        return KeepFor.model_validate(self.knot.spec(server=self.between.address).model_dump() | {"seconds": 2})

    async def meddle_before(self, spec: RecordSpec) -> None:
        """Somebody sets another TTL."""
        self.knot.tell("A", NORTH, ttl=77)

    async def meddle_after(self, spec: RecordSpec) -> None:
        """Somebody sets another TTL."""
        self.knot.tell("A", NORTH, ttl=78)
