"""A worker is killed at any activity of RestoreVerification: it proves the restore all the same, and leaves nothing."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from lab.estate import Lab
from recovery.report import Report
from tests.conftest import SEED
from tests.copies import in_copies, servers_of_copies, strangers
from tests.matrix.cells import Cell
from tests.matrix.disturbed import PROGRAM
from tests.matrix.turns import Turns
from tests.running import Recovery, running
from tests.workflows.test_restore_verification import archived

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

PARTS = 3
"""Of all cells: each part takes some minutes by itself."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def turns(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Turns]:
    await asyncio.to_thread(lab.base_backup)
    await archived(lab)
    async with running(lab, PROGRAM, False) as engine:
        yield Turns(engine, tmp_path_factory.mktemp("struck"))


async def crash(lab: Lab, turns: Turns, chance: random.Random, subtests: pytest.Subtests, share: slice) -> None:
    async def conducted(cells: Sequence[Cell]) -> tuple[Report, Recovery]:
        async def start() -> Recovery:
            given = {"runbook": "lab/verify-orders", "reason": "a test", "requested_by": "alice"}
            client, name = turns.engine.client, f"lab/{secrets.token_hex(4)}"
            queue = turns.engine.settings.task_queue
            return Recovery(await client.start_workflow("RestoreVerification", given, id=name, task_queue=queue))

        return await turns.conducted(start, cells)

    def stands() -> None:
        assert (in_copies(lab), servers_of_copies(lab), strangers(lab)) == ([], [], [])

    await turns.crash(conducted, stands, "verified", chance, subtests, share)


async def test_killed_worker_leaves_nothing_of_a_verification(
    lab: Lab, turns: Turns, chance: random.Random, subtests: pytest.Subtests
) -> None:
    await crash(lab, turns, chance, subtests, slice(2))


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
async def test_worker_killed_anywhere_leaves_nothing_of_a_verification(
    lab: Lab, turns: Turns, part: int, subtests: pytest.Subtests
) -> None:
    await crash(lab, turns, random.Random(f"{SEED}/verification"), subtests, slice(part, None, PARTS))
