"""A lab with everything in front of its sites and beneath them, on which recoveries are disturbed."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from tests.fronts import Fronts, fronts
from tests.matrix.disasters import Field
from tests.matrix.pitch import Pitch

USUAL = 2
"""Seconds for which the record is kept outside of recoveries: each of them waits for as long."""


class Furnished(Pitch):
    """Four directors, and a machine at each site, that each recovery moves."""

    fronts: Fronts | None = None

    async def furnish(self, until: AsyncExitStack, folder: Path, catalogs: Path) -> None:
        """Run them, and write them into the catalog."""
        self.fronts = await until.enter_async_context(fronts(self.lab, folder / "fronts", USUAL))
        self.fronts.author(catalogs / "lab")

    def shown(self) -> dict[str, object]:
        """Return where each points as well."""
        assert self.fronts is not None
        return super().shown() | {"fronts": self.fronts.points()}

    def proper(self, where: str) -> dict[str, object]:
        """Return where each has to point as well."""
        assert self.fronts is not None
        return super().proper(where) | {"fronts": self.fronts.at(where)}


class FurnishedField(Furnished, Field):
    """The same, where a site may be lost."""
