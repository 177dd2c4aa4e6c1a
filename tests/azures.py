"""The lab's Azure for tests: with two machines and a profile, asked by who has an identity in its environment."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from activities import azure
from activities.azure import AzureAt
from activities.machine_operations import MachineAt
from activities.machines import MachineSpec, Way
from activities.traffic_manager import PointSpec
from lab.azure import GROUP, SUBSCRIPTION, Arm, Strike
from lab.azure_resources import SIZES, Endpoint, Machine, Profile

OTHER_SIZE = "Standard_E2s_v5"


class Cloud(Arm):
    """The lab's Azure, and specs for what it has: machines orders (zone 1) and spare (zone 2), the profile front."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.anew()

    def anew(self) -> None:
        """Forget what was done, and what is to go wrong."""
        self.machines |= {"orders": Machine("orders"), "spare": Machine("spare", zone="2")}
        north, south = Endpoint("north-ep", weight=10), Endpoint("south-ep", status="Disabled", weight=20)
        self.profiles = {"front": Profile("front", {"north": north, "south": south})}
        self.requests, self.strikes, self.fails, self.full, self.seconds = [], [], [], set(), 0.05
        self.sizes, self.granted, self.others = dict(SIZES), {}, {}
        self.throttle(0, 0)

    @property
    def orders(self) -> Machine:
        """The machine."""
        return self.machines["orders"]

    def at(self, name: str = "orders", **more: Any) -> MachineAt:
        """Return where a machine is."""
        return MachineAt.model_validate(self._place() | {"machine": name, "name": name} | more)

    def run(self, wanted: str = "running", *alternatives: Way, **more: Any) -> MachineSpec:
        """Return what starts the machine, or deallocates it."""
        name = more.pop("name", "orders")
        ways = {"at": self.at(name), "wanted": wanted, "alternatives": alternatives}
        return MachineSpec.model_validate({"system": name, "drill": True} | ways | more)

    def point(self, site: str = "south", **more: Any) -> PointSpec:
        """Return what moves the traffic."""
        sites = {"north": "north-ep", "south": "south-ep"}
        there = {"at": AzureAt.model_validate(self._place()), "profile": "front", "sites": sites}
        return PointSpec.model_validate({"system": "front", "drill": True, "site": site} | there | more)

    def shares(self) -> dict[str, tuple[str, int]]:
        """Return what each endpoint of the profile gets."""
        return {site: (one.status, one.weight) for site, one in self.profiles["front"].endpoints.items()}

    def strike(self, method: str, end: str, when: str, call: Callable[[], Awaitable[bool]], skip: int = 0) -> None:
        """Have ``call`` called when such a request has come, or was carried out."""
        self.strikes.append(Strike(method, end, when, call, skip))

    def _place(self) -> dict[str, object]:
        return {
            "subscription": SUBSCRIPTION, "resource_group": GROUP, "endpoint": self.endpoint, "ca": str(self.ca),
        }  # fmt: skip


async def cut() -> bool:
    """Cut the connection."""
    return True


@contextlib.asynccontextmanager
async def cloud(folder: Path) -> AsyncIterator[Cloud]:
    """Run the lab's Azure, with an identity in the environment that it knows."""
    found = Cloud(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        await found.start()
        try:
            yield found
        finally:
            await azure.close()
            await found.close()
