"""Runs that were reset at awkward moments, on real files: nothing sticks, and nothing is undone beside others."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowUpdateFailedError

from tests.recovery.box import Toys
from tests.recovery.putting import PUT
from tests.recovery.test_holding import HOLD
from tests.recovery.test_undoing import reset, reset_at
from tests.running import Recovery, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def stuck(recovery: Recovery) -> list[str]:
    """Return what tasks of this run failed with, its reset left aside."""
    history = await recovery.handle.fetch_history()
    faults = [event.workflow_task_failed_event_attributes for event in history.events]
    return [fault.failure.message for fault in faults if fault.failure.message and not fault.base_run_id]


async def read_begins(recovery: Recovery) -> bool:
    """Tell whether the run reads what the one before it did."""
    history = await recovery.handle.fetch_history()
    return any(e.activity_task_scheduled_event_attributes.activity_id == "read-the-history" for e in history.events)


async def test_what_was_decided_after_a_reset_is_replayed_by_the_next(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on", then=[toys.put("c"), toys.put("d")], hold=HOLD)
    await recovery.approve("bob")
    await recovery.ended()
    first = await reset(toys.client, recovery, "put-a.apply")
    await first.resolve("continue")
    await first.approve("carol")
    assert (await first.ended()).outcome == "recovered"
    second = await reset(toys.client, first, "put-c.observe")
    await second.until("hold: go on after the reset")
    assert await stuck(second) == []
    await second.resolve("compensate")
    assert (await second.ended()).outcome == "compensated"
    assert toys.has() == {}


async def test_cancel_while_the_history_is_read_undoes(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b", slow=15)], hold=HOLD)
    await eventually(lambda: "b" in toys.has(), "the second file is being put")
    again = await reset(toys.client, recovery, "put-a.apply")
    await eventually(lambda: read_begins(again), "it waits out what is in flight")
    await again.handle.cancel()
    report = await again.ended()
    assert (report.outcome, report.residual) == ("cancelled", ())
    assert await stuck(again) == []
    assert toys.has() == {}


@pytest.mark.parametrize("how", ["put", "keep"])
async def test_step_that_was_cut_off_is_brought_to_its_end_after_a_reset(toys: Toys, how: str) -> None:
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b", how=how, slow=15, trace=True)], hold=HOLD)
    await eventually(lambda: "b" in toys.has(), "the second file is being put")
    again = await reset(toys.client, recovery, "put-a.apply")
    await again.resolve("continue")
    assert (await again.ended()).outcome == "recovered"
    assert toys.has() == {"a": "new", "b": "new"}


async def test_run_between_two_resets_of_the_same_one_is_undone_as_well(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on", then=[toys.put("b"), toys.put("c")], hold=HOLD)
    await recovery.until("gate")
    first = await reset(toys.client, recovery, "put-a.apply")
    await first.resolve("continue")
    await first.approve()
    assert (await first.ended()).outcome == "recovered"
    assert toys.has() == {"a": "new", "b": "new", "c": "new"}
    second = await reset(toys.client, recovery, "put-a.observe")  # from the page of the first run in the UI
    await second.resolve("compensate")
    report = await second.ended()
    assert (report.outcome, report.residual) == ("compensated", ())
    assert toys.has() == {}


async def test_nothing_is_undone_while_another_holds_the_system(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b")], system=toys.folder.name, hold=HOLD)
    await recovery.ended()
    other = await toys.start(puts=[toys.put("z")], gate="go on", system=toys.folder.name)
    await other.until("gate")
    again = await reset(toys.client, recovery, "put-a.apply")
    report = await again.ended()
    assert (report.outcome, report.kind) == ("failed", "Refused")
    assert sorted(line.partition(":")[0] for line in report.residual) == ["put a", "put b"]
    assert toys.has() == {"a": "new", "b": "new", "z": "new"}
    await other.handle.cancel()
    await other.ended()


async def test_reset_while_an_undo_is_held_goes_on_undoing(toys: Toys) -> None:
    mend = str(toys.folder / "mended")
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b", fail_undo=True, mend=mend)], gate="go on", hold=HOLD)
    await recovery.approve("carol", "reject")
    await recovery.until("hold: put b")

    async def task_after_the_undo() -> int | None:
        """Return the task that opened the hold; a query may have shown it before that task was completed."""
        found = (await recovery.handle.fetch_history()).events
        (failed,) = [e.event_id for e in found if e.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED]
        done = [e.event_id for e in found if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED]
        return done[-1] if done[-1] > failed else None

    again = await reset_at(toys.client, recovery, await eventually(task_after_the_undo, "the hold is in the history"))
    (toys.folder / "mended").touch()
    with pytest.raises(WorkflowUpdateFailedError):  # that hold was the other run's
        await again.resolve("retry")
    await eventually(lambda: read_begins(again), "it knows that it was reset")
    await again.until("hold: put b")
    await again.resolve("retry")
    report = await again.ended()
    assert (report.outcome, report.residual, report.was_reset) == ("compensated", (), True)
    assert await stuck(again) == []
    assert toys.has() == {"mended": ""}


async def notices(recovery: Recovery) -> set[str]:
    """Return the ids of the notices that this run began, those of the run before it included."""
    history = await recovery.handle.fetch_history()
    begun = {e.start_child_workflow_execution_initiated_event_attributes.workflow_id for e in history.events}
    return {one for one in begun if one.startswith("notice/")}


async def test_notices_after_a_reset_are_told_from_those_before(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on", hold=HOLD, notify=["page"])
    await recovery.approve("bob")
    await recovery.ended()
    before = await notices(recovery)
    again = await reset(toys.client, recovery, "put-a.apply")
    await again.resolve("compensate")
    await again.ended()
    after = await notices(again)
    assert (len(before), len(after)) == (2, 2)
    assert not before & after  # neither hold nor end is taken for what is on its way already
    assert await stuck(again) == []


async def test_one_undo_may_take_all_its_time(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on")
    await recovery.approve("carol", "reject")
    await recovery.ended()
    assert await undo_times(recovery) == {PUT.undo_patience}


async def test_undo_from_a_history_may_take_all_its_time(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on")
    await recovery.until("gate")
    await recovery.handle.terminate()
    ask = {"workflow": recovery.handle.id, "reason": "a test"}
    undo = Recovery(await toys.client.start_workflow("Undo", ask, id=f"undo/{recovery.handle.id}", task_queue="toy"))
    await undo.ended()
    assert await undo_times(undo) == {PUT.undo_patience}


async def undo_times(recovery: Recovery) -> set[timedelta]:
    """Return how long the undo of the file may take: one attempt, and all."""
    asked = [e.activity_task_scheduled_event_attributes for e in (await recovery.handle.fetch_history()).events]
    (undo,) = [one for one in asked if one.activity_id == "put-a.undo"]
    return {one.ToTimedelta() for one in (undo.start_to_close_timeout, undo.schedule_to_close_timeout)}
