"""Every action that the worker registers: run twice, interrupted, undone and drifted against its real system."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

import worker
from recovery.actions import agrees
from recovery.errors import Drifted, Refused, Stale
from recovery.fencing import Hand
from tests.matrix.scenes import quiet
from tests.matrix.theatre import SCENES, Theatre
from tests.matrix.trial import Trial, retried, undoable

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = [action.name for action in worker.ACTIONS]
STAGED = [name for name in NAMES if name in SCENES]
UNDONE = [action.name for action in worker.ACTIONS if action.name in SCENES and undoable(action)]
MANY = 10
many_moments = pytest.mark.parametrize("moments", [0, pytest.param(MANY, marks=pytest.mark.soak)])
"""How often an apply is cancelled in one test: as often as its scene says, or many times."""


def struck(names: list[str]) -> pytest.MarkDecorator:
    """Try the actions ``names`` with each accident of theirs, the rare ones in a soak only."""
    cells = [
        pytest.param(name, accident, marks=[pytest.mark.soak] if accident in SCENES[name].rarely else [])
        for name in names
        for accident in SCENES[name].accidents
    ]
    return pytest.mark.parametrize(("trial", "accident"), cells, indirect=["trial"])


undone = pytest.mark.parametrize("trial", UNDONE, indirect=True)


@pytest_asyncio.fixture(loop_scope="module", params=STAGED)
async def trial(request: pytest.FixtureRequest, theatre: Theatre) -> AsyncIterator[Trial]:
    found = await Trial.of(request.param, await theatre.stage(SCENES[request.param]))
    yield found
    await found.end()


async def test_apply_reaches_the_desired_state(trial: Trial) -> None:
    after = await trial.apply()
    assert agrees(trial.desired, after)
    assert await trial.look() == after
    assert trial.shows() != trial.untouched
    assert trial.shows()["jobs"] == []


async def test_second_apply_has_no_effect(trial: Trial) -> None:
    after = await trial.apply()
    shown = trial.shows()
    assert await trial.apply() == after
    assert trial.shows() == shown


async def test_two_applies_at_once_have_one_effect(trial: Trial) -> None:
    both = await asyncio.gather(*(retried(trial.apply) for _ in range(2)))
    assert both[0] == both[1] == await trial.look()
    await quiet(trial.scene.lab)
    assert trial.shows()["jobs"] == []


async def test_late_hand_is_refused_at_the_target(trial: Trial) -> None:
    """A worker that stood still behind its look writes what was the truth then: after its successor, or another."""
    await trial.apply(epoch=7, number=3)
    shown = trial.shows()
    for late in (Hand(epoch=7, order=2, attempt=9), Hand(epoch=6, order=9, attempt=9)):
        with pytest.raises(Stale):
            await trial.write("apply", late)
        if undoable(trial.action):
            with pytest.raises(Stale):
                await trial.write("undo", late)
    assert trial.shows() == shown


@undone
async def test_late_attempt_is_refused_after_the_undo(trial: Trial) -> None:
    await trial.apply(epoch=7, number=3)
    await trial.undo(epoch=7, number=4)
    with pytest.raises(Stale):
        await trial.write("apply", Hand(epoch=7, order=3, attempt=1))
    await quiet(trial.scene.lab)
    assert trial.shows() == trial.untouched


@many_moments
async def test_cancelled_apply_can_be_applied_again(trial: Trial, moments: int, chance: random.Random) -> None:
    took = await timed(trial)
    for _ in range(moments or trial.scene.moments):
        await trial.again()
        await trial.cancelled_after(moment := chance.uniform(0, took))
        assert agrees(trial.desired, await retried(trial.apply)), moment


@many_moments
@undone
async def test_cancelled_apply_can_be_undone(trial: Trial, moments: int, chance: random.Random) -> None:
    took = await timed(trial)
    await trial.undo()
    for _ in range(moments or trial.scene.moments):
        await trial.scene.reopen(trial.spec)
        await trial.cancelled_after(moment := chance.uniform(0, took))
        assert await retried(trial.undo) == trial.before, moment
        await quiet(trial.scene.lab)
        assert trial.shows() == trial.untouched, moment


@struck(STAGED)
async def test_struck_apply_can_be_applied_again(trial: Trial, accident: str, chance: random.Random) -> None:
    await trial.struck_by(accident, chance)
    after = await retried(trial.apply)
    trial.scene.release()
    await quiet(trial.scene.lab)
    assert agrees(trial.desired, after)
    assert await trial.look() == after
    assert trial.shows()["jobs"] == []


@struck(UNDONE)
async def test_struck_apply_can_be_undone(trial: Trial, accident: str, chance: random.Random) -> None:
    await trial.struck_by(accident, chance)
    assert await retried(trial.undo) == trial.before
    trial.scene.release()
    await quiet(trial.scene.lab)
    assert trial.shows() == trial.untouched


@undone
async def test_undo_restores_what_was_there(trial: Trial) -> None:
    await trial.apply()
    for _ in range(2):
        assert await trial.undo() == trial.before
        assert await trial.look() == trial.before
        assert trial.shows() == trial.untouched


@undone
async def test_undo_without_apply_changes_nothing(trial: Trial) -> None:
    assert await trial.undo() == trial.before
    assert trial.shows() == trial.untouched


async def test_drift_before_apply_is_not_overwritten(trial: Trial) -> None:
    await trial.scene.meddle_before(trial.spec)
    meddled = trial.shows()
    with pytest.raises(Drifted, match="somebody else"):
        await trial.apply()
    assert trial.shows() == meddled


@undone
async def test_drift_after_apply_is_not_undone(trial: Trial) -> None:
    await trial.apply()
    await trial.scene.meddle_after(trial.spec)
    meddled = trial.shows()
    with pytest.raises(Drifted, match="somebody else"):
        await trial.undo()
    assert trial.shows() == meddled


async def test_late_order_changes_nothing(trial: Trial) -> None:
    with pytest.raises(Stale):
        await trial.apply(not_after=datetime.now(UTC) - timedelta(milliseconds=1))
    assert trial.shows() == trial.untouched


@undone
async def test_late_order_can_be_undone(trial: Trial) -> None:
    await trial.apply()
    assert await trial.undo(not_after=datetime.now(UTC) - timedelta(hours=1)) == trial.before
    assert trial.shows() == trial.untouched


async def test_check_changes_nothing(trial: Trial) -> None:
    with pytest.raises(Refused):
        await trial.apply(mode="check")
    assert trial.shows() == trial.untouched


async def test_drill_spares_what_is_no_target(trial: Trial) -> None:
    with pytest.raises(Refused, match="no drill target"):
        await trial.apply(mode="drill", spec=trial.spec.model_copy(update={"drill": False}))
    assert trial.shows() == trial.untouched


async def test_drill_changes_its_target(trial: Trial) -> None:
    spec = trial.spec.model_copy(update={"drill": True})
    assert agrees(trial.desired, await trial.apply(mode="drill", spec=spec))


async def timed(trial: Trial) -> float:
    """Apply, and return the seconds that it took."""
    began = time.monotonic()
    await trial.apply()
    return time.monotonic() - began
