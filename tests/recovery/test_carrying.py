"""What one attempt carries, the next one finds, however many die in between."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.testing import ActivityEnvironment

from recovery.carrying import Memory, carried, carry, carrying
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.errors import Transient
from recovery.meter import details, metered
from recovery.progress import Progress, Underway, tell
from tests.running import settings_in

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
BEFORE = Underway(run="r", activity="a", progress=Progress(done=5, at=NOON)).model_dump(mode="json")


def run(call: Any, *before: Any) -> list[tuple[Any, ...]]:
    """Run ``call`` as an attempt that finds what the one before it beat with; return what it beats with."""
    environment, beats = ActivityEnvironment(), list[tuple[Any, ...]]()
    environment.info = replace(environment.info, heartbeat_details=list(before))
    environment.on_heartbeat = lambda *found: beats.append(found)

    async def attempt() -> None:
        async with metered():
            await call()

    asyncio.run(environment.run(attempt))
    return beats


@pytest.mark.parametrize("told", [None, BEFORE])
def test_next_attempt_finds_what_was_carried(told: object) -> None:
    async def attempt() -> None:
        assert carried() == "a token"
        activity.heartbeat(*details())

    (beat,) = run(attempt, told, "a token")
    assert beat[1] == "a token"
    assert (beat[0] is None) == (told is None)


def test_what_is_carried_goes_out_at_once() -> None:
    async def attempt() -> None:
        assert carried() == ""
        await carry("asked")
        assert carried() == "asked"
        await carry("")
        assert carried() == ""

    assert run(attempt) == [(None, "asked"), ()]


@pytest.mark.parametrize("before", [(), (BEFORE,)])
def test_attempt_that_carries_nothing_beats_as_ever(before: tuple[Any, ...]) -> None:
    async def attempt() -> None:
        assert carried() == ""
        activity.heartbeat(*details())

    assert [len(beat) for beat in run(attempt, *before)] == [len(before)]


def test_progress_and_what_is_carried_go_together() -> None:
    async def attempt() -> None:
        tell(7, 10)
        await carry("asked")

    ((underway, text),) = run(attempt)
    assert (underway.progress.done, text) == (7, "asked")


def test_outside_of_an_activity_it_is_kept_for_itself() -> None:
    async def alone() -> None:
        with carrying(Memory()):
            await carry("asked")
            assert carried() == "asked"

    asyncio.run(alone())
    assert carried() == ""


async def test_attempt_that_temporal_does_not_know_goes_no_further(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)

    async def attempt() -> None:
        async with metered():
            with pytest.raises(Transient, match="Temporal does not confirm"):
                await carry("asked")

    async with Keeper(settings) as endpoint:
        environment = ActivityEnvironment(client=await connect(settings, endpoint))
        environment.info = replace(environment.info, heartbeat_timeout=timedelta(seconds=4))
        await environment.run(attempt)
