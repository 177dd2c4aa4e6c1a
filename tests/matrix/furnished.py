"""A lab with everything that surrounds its sites, on which recoveries are disturbed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from lab.addresses import other
from lab.kubernetes import Kubernetes
from tests.furnishing import Furnishing, furnished
from tests.matrix import two_sites
from tests.matrix.disasters import Field
from tests.matrix.pitch import Pitch

USUAL = 2
"""Seconds for which the record is kept outside of recoveries: each of them waits for as long."""


class Furnished(Pitch):
    """Directors, machines, workloads and alerts that each recovery moves, starts, scales or silences."""

    cluster: Kubernetes | None = None
    found: Furnishing | None = None

    async def furnish(self, until: AsyncExitStack, folder: Path, catalogs: Path) -> None:
        """Run them, and write them into the catalog."""
        assert self.cluster is not None
        self.found = await until.enter_async_context(furnished(self.lab, self.cluster, folder / "more", USUAL))
        self.found.author(catalogs / "lab")

    async def ready(self) -> None:
        """Have each recovery find the machine of the site that serves nobody asleep: none puts it to sleep again."""
        await super().ready()
        assert self.found is not None
        self.found.fronts.rest(other(await asyncio.to_thread(two_sites.active, self.lab)))

    def shown(self) -> dict[str, object]:
        """Return how they are as well."""
        assert self.found is not None
        return super().shown() | self.found.shown()

    def proper(self, where: str) -> dict[str, object]:
        """Return how they have to be as well."""
        assert self.found is not None
        return super().proper(where) | self.found.proper(where)


class FurnishedField(Furnished, Field):
    """The same, where a site may be lost."""
