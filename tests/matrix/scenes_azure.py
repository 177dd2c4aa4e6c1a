"""How the actions at Azure are tried: on the lab's own Resource Manager, which is struck while they ask it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import ClassVar

from activities.machine_operations import MARK
from activities.machines import MachineSpec, Powered, Way, run_machine
from activities.traffic_manager import PointSpec, Shares, point_traffic
from lab.azure_resources import SIZE
from tests.azures import OTHER_SIZE, Cloud, cloud
from tests.matrix.scenes import S, Scene, Stage, T


class AzureScene(Scene[S, T]):
    """An action at Azure."""

    accidents = ("connection cut", "throttled", "token expired", "Azure away")
    asks: ClassVar[tuple[tuple[str, str], ...]]
    """Requests of apply, by method and the end of their path: one of them is struck."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.ends = AsyncExitStack()
        self.back: set[asyncio.Task[None]] = set()
        self.cloud: Cloud

    async def set(self) -> S:
        """Start Azure anew."""
        folder = self.ends.enter_context(tempfile.TemporaryDirectory(prefix="azure-"))
        self.cloud = await self.ends.enter_async_context(cloud(Path(folder)))
        return self.spec()

    def spec(self) -> S:
        """Return what is to be done there."""
        raise NotImplementedError

    async def strike(self, accident: str, spec: S, chance: Random) -> None:
        """Cause the accident as a request comes, or once it was carried out."""
        struck = asyncio.Event()

        async def strike() -> bool:
            match accident:
                case "throttled":
                    self.cloud.throttle(2, 0.2)
                case "token expired":
                    self.cloud.revoke()
                case "Azure away":
                    self.back.add(asyncio.create_task(self._away()))
            struck.set()
            return accident in ("connection cut", "Azure away")

        method, end = chance.choice(self.asks)
        self.cloud.strike(method, end, chance.choice(["before", "after"]), strike)
        async with asyncio.timeout(10):
            await struck.wait()

    async def _away(self) -> None:
        await self.cloud.stop()
        await asyncio.sleep(0.2)
        await self.cloud.start()

    async def clear(self) -> None:
        """Stop Azure."""
        await asyncio.gather(*self.back)
        await self.ends.aclose()


class RunMachineScene(AzureScene[MachineSpec, Powered]):
    """Start a machine for which there is no room in the size that it has."""

    action = run_machine
    asks = (("GET", "/orders"), ("PATCH", "/orders"), ("POST", "/start"))

    def spec(self) -> MachineSpec:
        """Name another size, and another machine."""
        self.cloud.full = {SIZE}
        return self.cloud.run("running", Way(size=OTHER_SIZE), Way(instead=self.cloud.at("spare")))

    def shows(self, spec: MachineSpec) -> Mapping[str, object]:
        """Return how the machines stand, but for whose write was the last."""
        found = {
            name: (one.power, one.size, one.zone, {tag: text for tag, text in one.tags.items() if tag != MARK})
            for name, one in self.cloud.machines.items()
        }
        return {"machines": found, "jobs": []}

    async def meddle_before(self, spec: MachineSpec) -> None:
        """Somebody gives it a size that nobody named."""
        self.cloud.orders.size = "Standard_B1s"

    async def meddle_after(self, spec: MachineSpec) -> None:
        """Somebody does that later."""
        self.cloud.orders.size = "Standard_B1s"


class PointTrafficScene(AzureScene[PointSpec, Shares]):
    """Move the traffic to the other site."""

    action = point_traffic
    asks = (("GET", "/front"), ("PATCH", "/north-ep"), ("PATCH", "/south-ep"))

    def spec(self) -> PointSpec:
        """Move it south."""
        return self.cloud.point("south")

    def shows(self, spec: PointSpec) -> Mapping[str, object]:
        """Return what each endpoint gets."""
        return {"shares": self.cloud.shares(), "jobs": []}

    async def meddle_before(self, spec: PointSpec) -> None:
        """Somebody gives one another weight."""
        self.cloud.profiles["front"].endpoints["north"].weight = 77

    async def meddle_after(self, spec: PointSpec) -> None:
        """Somebody enables the other one again, with another weight."""
        north = self.cloud.profiles["front"].endpoints["north"]
        north.status, north.weight = "Enabled", 77
