"""Workers that die in turn: each is killed at one cell, and followed by another one, until the recovery has ended."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from recovery.report import Report
from tests.matrix.cells import Cell, matrix, recorded, trips
from tests.matrix.disasters import decided
from tests.running import Recovery, Running

Conduct = Callable[[Sequence[Cell]], Awaitable[tuple[Report, Recovery]]]


@dataclass
class Turns:
    """The engine whose workers die, and a folder that tells which cells have struck."""

    engine: Running
    folder: Path

    async def conducted(
        self, start: Callable[[], Awaitable[Recovery]], cells: Sequence[Cell] = (), seconds: float = 120
    ) -> tuple[Report, Recovery]:
        """Conduct what ``start`` starts, with every gate approved; each worker is killed at one of the ``cells``."""
        hurts = iter([self.hurt(cell) for cell in cells])
        self.engine.start_worker(**next(hurts, {}))
        recovery = await start()
        keeping = asyncio.create_task(self._keep(hurts))
        try:
            return await decided(recovery, seconds, by="bob"), recovery
        except BaseException:
            await recovery.handle.terminate()
            raise
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            self.engine.kill_worker()

    async def crash(
        self,
        conduct: Conduct,
        stands: Callable[[], None],
        outcome: str,
        chance: Random,
        subtests: pytest.Subtests,
        share: slice,
        steps: Callable[[str], bool] = bool,
    ) -> None:
        """Kill workers at a ``share`` of the cells, a few of them in each recovery: it ends as if nothing was.

        The cells are of those ``steps`` that a run has which nobody disturbs.
        """
        calm, recovery = await conduct(())
        assert (calm.outcome, calm.residual) == (outcome, ()), calm.failure
        stands()
        known = {step: took for step, took in recorded(await recovery.handle.fetch_history()).items() if steps(step)}
        cells = matrix({"approve": known}, chance)
        assert len(cells) > 12
        for trip in trips(cells[share], list(known)):
            with subtests.test(", ".join(map(str, trip))):
                report, _ = await conduct(trip)
                missed = [str(cell) for cell in trip if not self.struck(cell).exists()]
                assert not missed, f"nobody was killed at {missed}"
                assert (report.outcome, report.residual) == (outcome, ()), report.failure
                stands()

    def struck(self, cell: Cell) -> Path:
        """Return the file that is there once a worker was killed at ``cell``."""
        return self.folder / re.sub(r"\W", "_", f"struck-{cell.activity}-{cell.point}")

    def hurt(self, cell: Cell) -> dict[str, str]:
        """Return the environment in which a worker is killed at ``cell``, once."""
        once = self.struck(cell)
        once.unlink(missing_ok=True)
        return {
            "HURT_ACTIVITY": cell.activity, "HURT_POINT": cell.point, "HURT_SECONDS": str(cell.seconds),
            "HURT_ONCE": str(once),
        }  # fmt: skip

    async def _keep(self, hurts: Iterator[dict[str, str]]) -> None:
        while True:
            if self.engine.died() is not None:
                self.engine.start_worker(**next(hurts, {}))
            await asyncio.sleep(0.05)
