"""A site is lost, again and again: the other one takes over, and clients go home; each order is there, or listed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lab import ledger
from tests.matrix import two_sites
from tests.matrix.disasters import KINDS, Field, Kind, Round
from tests.running import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

KILLS, ROUNDS, RETURNS = 10, 50, 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def field(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    found = Field(tmp_path_factory.mktemp("field"))
    yield found
    await found.close()


async def lost_and_home(found: Round, kind: Kind, chance: random.Random) -> None:
    """Lose the site, take over, have it back at some moment after that, and go home."""
    with found.pinned if kind != "cut off" else contextlib.nullcontext():
        await eventually(lambda: ledger.count(found.lab.place.load / "acknowledged.jsonl") > found.known + 20, "orders")
        await asyncio.sleep(chance.uniform(0, 0.5))
        outage = await asyncio.to_thread(found.lose, kind)
        taken_over = await found.take_over(outage)
        assert (taken_over.outcome, taken_over.residual) == ("recovered", ()), taken_over.failure
        refused = ledger.refused_for(found.lab.place.load, outage)
        await asyncio.sleep(chance.uniform(0, 3))
        await found.come_back()
        assert (await found.fenced()).outcome == "recovered"
        home = await found.home()
    listed = await found.accounted(taken_over, home)
    print(f"{found.old} {kind}: no order was taken for {refused:.2f} s; {len(listed)} were lost, and are listed")


async def test_lost_site_is_taken_over_from_and_gone_home_to(field: Field, chance: random.Random) -> None:
    async with field.round() as found:
        await lost_and_home(found, chance.choice(KINDS), chance)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(KILLS))
async def test_ten_rounds_of_kill_activate_and_fail_back(field: Field, chance: random.Random, number: int) -> None:
    async with field.round() as found:
        await lost_and_home(found, "killed", chance)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(ROUNDS))
async def test_fifty_rounds_never_have_two_sites_written_to(field: Field, chance: random.Random, number: int) -> None:
    async with field.round() as found:
        await lost_and_home(found, chance.choice(KINDS[1:]), chance)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(RETURNS))
async def test_site_that_comes_back_at_any_moment_is_never_the_second(
    field: Field, chance: random.Random, number: int
) -> None:
    """It comes back while the other one takes over: that ends, and the lost one is fenced, or all is as it was."""
    async with field.round() as found:
        with found.pinned:
            outage = await asyncio.to_thread(found.lose, "killed")
            taking = asyncio.create_task(found.take_over(outage))
            await asyncio.sleep(chance.uniform(0, 5))
            async with two_sites.never_two(found.lab):
                await found.come_back()
                taken_over = await taking
                if taken_over.outcome == "recovered":
                    assert (await found.fenced()).outcome == "recovered"
        if taken_over.outcome == "recovered":
            await found.accounted(taken_over, await found.home())
        else:
            assert (taken_over.outcome, taken_over.residual) == ("compensated", ()), taken_over.failure
            await found.stands()
            acknowledged = {row.number for row in ledger.acknowledged(found.lab.place.load)}
            assert acknowledged - field.lost <= set(two_sites.rows(found.lab, found.old))
