"""One hand on a system, with real recoveries: who waits is heard, who is gone leaves an orphan, epochs only rise."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any

import pytest
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from recovery.leases import Asked, Holder, Lease, Standing
from recovery.leasing import LONG
from recovery.names import LEASE, lease_id
from recovery.report import Report
from tests.recovery.box import Toys
from tests.recovery.test_holding import HOLD
from tests.recovery.test_undoing import reset, undone
from tests.running import Recovery, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def lease(toys: Toys, system: str) -> Lease:
    found: Lease = await toys.client.get_workflow_handle(lease_id("toy", system)).query("lease", result_type=Lease)
    return found


async def orphaned(toys: Toys, system: str) -> str:
    """Wait until the end of the holder was noticed, and return how that was."""

    async def look() -> str:
        return (await lease(toys, system)).orphaned

    how: str = await eventually(look, "an orphan", 10)
    return how


async def waiting(recovery: Recovery) -> Report | None:
    report = await recovery.status()
    return report if report and report.phase.startswith("waits for") else None


async def test_second_recovery_waits_for_its_turn(toys: Toys) -> None:
    system = toys.folder.name
    first = await toys.start(puts=[toys.put("a")], gate="go on", system=system)
    await first.until("gate")
    second = await toys.start(puts=[toys.put("b")], system=system)
    report = await eventually(lambda: waiting(second), "it waits")
    assert report.phase == f"waits for {system}, which {first.handle.id} has in hand"
    assert toys.has() == {"a": "new"}
    await first.approve()
    begun = (await first.ended()).epochs[system]
    report = await second.ended()
    assert (report.outcome, report.epochs) == ("recovered", {system: begun + 1})
    assert toys.has() == {"a": "new", "b": "new"}
    assert await lease(toys, system) == Lease(epoch=begun + 1)


async def looks(recovery: Recovery) -> list[str]:
    return [step.title for step in (await recovery.ended()).steps if "see what is there" in step.title]


async def test_who_is_in_a_hurry_looks_while_systems_are_taken_in_hand(toys: Toys) -> None:
    (toys.folder / "a").write_text("old")
    recovery = await toys.start(hurries=toys.put("a"), then=[toys.put("b")], system=toys.folder.name)
    report = await recovery.ended()
    assert report.outcome == "recovered", report.failure
    assert report.epochs[toys.folder.name]
    assert [figure.value for figure in report.figures] == ["old"]
    assert await looks(recovery) == ["see what is there"]


async def test_who_was_in_a_hurry_and_had_to_wait_looks_again(toys: Toys) -> None:
    system = toys.folder.name
    first = await toys.start(gate="go on", then=[toys.put("a")], system=system)
    await first.until("gate")
    second = await toys.start(hurries=toys.put("a"), then=[toys.put("b")], system=system)
    await eventually(lambda: waiting(second), "it waits")
    await first.approve()
    report = await second.ended()
    assert report.outcome == "recovered", report.failure
    assert [figure.value for figure in report.figures] == ["new"], "what the first one wrote"
    assert await looks(second) == ["see what is there", "see what is there, once all were in hand"]
    assert toys.has() == {"a": "new", "b": "new"}


async def test_who_is_in_a_hurry_and_gives_up_waiting_leaves_the_queue(toys: Toys) -> None:
    system = toys.folder.name
    first = await toys.start(gate="go on", system=system)
    await first.until("gate")
    second = await toys.start(hurries=toys.put("a"), then=[toys.put("b")], system=system)
    await eventually(lambda: waiting(second), "it waits")
    await second.handle.cancel()
    assert (await second.ended()).outcome == "cancelled"
    assert (await lease(toys, system)).queue == ()
    assert toys.has() == {}
    await first.approve()
    assert (await first.ended()).outcome == "recovered"


async def test_who_gives_up_waiting_leaves_the_queue(toys: Toys) -> None:
    system = toys.folder.name
    first = await toys.start(puts=[toys.put("a")], gate="go on", system=system)
    await first.until("gate")
    second = await toys.start(puts=[toys.put("b")], system=system)
    await eventually(lambda: waiting(second), "it waits")
    await second.handle.cancel()
    assert (await second.ended()).outcome == "cancelled"
    assert (await lease(toys, system)).queue == ()
    await first.approve()
    assert (await first.ended()).outcome == "recovered"
    assert toys.has() == {"a": "new"}


async def test_terminated_holder_leaves_an_orphan_that_its_undo_takes_over(toys: Toys) -> None:
    system = toys.folder.name
    first = await toys.start(puts=[toys.put("a")], gate="go on", system=system)
    await first.until("gate")
    second = await toys.start(puts=[toys.put("b")], system=system)
    await eventually(lambda: waiting(second), "it waits")
    begun = (await lease(toys, system)).epoch
    await first.handle.terminate()
    report = await second.ended()
    assert (report.outcome, report.kind) == ("failed", "Refused")
    assert f"`starter.py undo {first.handle.id}`" in report.failure
    assert (await lease(toys, system)).orphaned == "terminated"
    assert (await undone(toys, first)).outcome == "compensated"
    assert toys.has() == {}
    third = await toys.run(puts=[toys.put("c")], system=system)
    assert (third.outcome, third.epochs) == ("recovered", {system: begun + 2})


async def ordered(recovery: Recovery) -> dict[str, Any]:
    """Return which lease each order says that a recovery gave, by the activity."""
    history = await recovery.handle.fetch_history()
    told = [event.activity_task_scheduled_event_attributes for event in history.events]
    inputs = {one.activity_type.name: one.input.payloads for one in told if one.activity_type.name.startswith("toy.")}
    return {name: given.get("lease") for name, (one,) in inputs.items() if "before" in (given := json.loads(one.data))}


async def test_every_order_says_its_lease(toys: Toys) -> None:
    """Also one that is read from a history, to be undone."""
    recovery = await toys.start(puts=[toys.put("a")], gate="go on")
    await recovery.until("gate")
    await recovery.handle.terminate()
    assert (await undone(toys, recovery)).outcome == "compensated"
    undo = Recovery(toys.client.get_workflow_handle(f"undo/{recovery.handle.id}"))
    assert await ordered(recovery) == {"toy.put.apply": lease_id("toy", "files")}
    assert await ordered(undo) == {"toy.put.undo": lease_id("toy", "files")}


async def test_what_is_not_undone_stays_in_hand(toys: Toys) -> None:
    system, mend = toys.folder.name, str(toys.folder / "mended")
    recovery = await toys.start(puts=[toys.put("a", fail_undo=True, mend=mend)], gate="go on", system=system)
    await recovery.approve("carol", "reject")
    assert (await recovery.ended()).residual
    other = await toys.start(puts=[toys.put("b")], system=system)
    report = await other.ended()
    assert report.kind == "Refused"
    assert report.failure.endswith("`starter.py free` it")
    (toys.folder / "mended").touch()
    assert (await undone(toys, recovery)).outcome == "compensated"
    assert (await toys.run(puts=[toys.put("b")], system=system)).outcome == "recovered"


async def test_undo_that_leaves_something_is_taken_over_by_the_next(toys: Toys) -> None:
    system, mend = toys.folder.name, str(toys.folder / "mended")
    recovery = await toys.start(puts=[toys.put("a", fail_undo=True, mend=mend)], gate="go on", system=system)
    await recovery.until("gate")
    begun = (await lease(toys, system)).epoch
    await recovery.handle.terminate()
    assert (await undone(toys, recovery)).residual
    (toys.folder / "mended").touch()
    report = await undone(toys, recovery)
    assert (report.outcome, report.epochs) == ("compensated", {system: begun + 2})
    assert await lease(toys, system) == Lease(epoch=begun + 2)


async def test_reset_run_has_an_epoch_of_its_own(toys: Toys) -> None:
    system = toys.folder.name
    recovery = await toys.start(puts=[toys.put("a")], gate="go on", system=system, hold=HOLD)
    await recovery.until("gate")
    begun = (await lease(toys, system)).epoch
    again = await reset(toys.client, recovery, "put-a.observe")
    await again.resolve("continue")
    await again.until("gate")
    found = await lease(toys, system)
    assert found.holder is not None
    assert (found.epoch, found.holder.run) == (begun + 1, again.handle.run_id)
    await again.approve()
    assert (await again.ended()).epochs == {system: begun + 1}
    assert (await lease(toys, system)).holder is None


async def test_orphan_is_freed_on_the_word_of_a_person_only(toys: Toys) -> None:
    system = toys.folder.name
    handle = toys.client.get_workflow_handle(lease_id("toy", system))
    said = {"by": "bob", "reason": "looked at the files"}
    recovery = await toys.start(puts=[toys.put("a")], gate="go on", system=system)
    await recovery.until("gate")
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update("free", said)
    assert f"held by {recovery.handle.id}: cancel that" in str(refused.value.cause)
    begun = (await lease(toys, system)).epoch
    await recovery.handle.terminate()
    await orphaned(toys, system)
    assert (await toys.run(puts=[toys.put("b")], system=system)).kind == "Refused"
    await handle.execute_update("free", said)
    assert (await toys.run(puts=[toys.put("b")], system=system)).epochs == {system: begun + 1}


async def test_lease_that_was_lost_with_temporals_data_goes_on_above_what_targets_have_seen(toys: Toys) -> None:
    system = toys.folder.name
    before = (await toys.run(puts=[toys.put("a")], system=system)).epochs[system]
    await toys.client.get_workflow_handle(lease_id("toy", system)).terminate()
    assert (await toys.run(puts=[toys.put("b")], system=system)).epochs[system] > before


async def test_thirty_recoveries_have_it_one_after_the_other(toys: Toys) -> None:
    system, count = toys.folder.name, 30
    first = await toys.start(puts=[toys.put("first")], gate="go on", system=system)
    await first.until("gate")
    begun = [await toys.start(puts=[toys.put(f"f{number}")], system=system) for number in range(count)]
    for one in begun:
        await eventually(functools.partial(waiting, one), "it waits")
    gone = [begun.pop(19), begun.pop(7)]
    for one in gone:
        await one.handle.terminate()
    await first.approve()
    reports = await asyncio.gather(*(one.ended(300) for one in begun))
    assert {report.outcome for report in reports} == {"recovered"}
    epochs = [report.epochs[system] for report in reports]
    assert len(set(epochs)) == len(epochs), "an epoch is given once; those of who had gone are lost with them"
    found = await lease(toys, system)
    assert (found.holder, found.queue) == (None, ())
    assert len(toys.has()) == 1 + len(begun)


async def grant(client: Client, name: str, number: int) -> Standing:
    holder = Holder(workflow=f"w{number}", chain=f"c{number}", run=f"r{number}")
    stands: Standing = await told(client, name, "ask", Asked(holder=holder), Standing)
    await told(client, name, "leave", holder, type(None))
    return stands


async def told(client: Client, name: str, update: str, argument: Any, gives: type[Any]) -> Any:
    """Send an update, and again where it met the end of a run: the activities of recoveries do that, too."""
    while True:
        try:
            return await client.get_workflow_handle(name).execute_update(update, argument, result_type=gives)
        except RPCError as error:
            if error.status != RPCStatusCode.FAILED_PRECONDITION:
                raise


@pytest.mark.parametrize("grants", [450, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("client", [500], indirect=True, ids=["cached"], scope="module")  # else each replays all before
async def test_history_stays_small(toys: Toys, grants: int) -> None:
    name = lease_id("toy", f"{toys.folder.name}-{grants}")
    first: Any = await toys.client.start_workflow(
        LEASE, Lease(), id=name, task_queue="toy", id_conflict_policy=WorkflowIDConflictPolicy.FAIL
    )
    for number in range(1, grants + 1):
        assert (await grant(toys.client, name, number)).epoch == number
    now = await toys.client.get_workflow_handle(name).describe()
    assert now.run_id != first.result_run_id
    assert now.history_length <= LONG + 20
