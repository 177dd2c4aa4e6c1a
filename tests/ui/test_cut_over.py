"""A cut-over decided on and carried through in the Temporal UI: its gate, a hold in the dark, its end."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Page

from lab.estate import Lab
from recovery.names import recovery_id
from tests.labs import RATE, lab_apart
from tests.running import PROCEDURE, Running, eventually, running
from tests.ui.pages import Run, picture, recovery_of, to_paste

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

WORKFLOW = recovery_id("lab", "orders", "live")


@pytest.fixture(scope="module")
def broken() -> Iterator[Lab]:
    """A lab of these tests alone: its database is replaced."""
    with lab_apart() as lab:
        lab.up()
        yield lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(broken: Lab) -> AsyncIterator[Running]:
    async with running(broken) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def run(broken: Lab, engine: Running, page: Page, ui: str) -> Run:
    """The pages of a recovery that replaces the database, once it is at its gate."""
    await eventually(lambda: broken.status().acknowledged > 2 * RATE, "orders are acknowledged")
    accident = broken.break_("delete-rows")
    final = accident.before + timedelta(seconds=1.2)
    await eventually(lambda: datetime.now(UTC) > final, "the target time is final")
    start = {
        "runbook": "lab/replace-orders",
        "reason": "half of the orders were deleted",
        "requested_by": "alice",
        "parameters": {"target_time": accident.before.isoformat()},
    }
    queue = engine.settings.task_queue
    handle = await engine.client.start_workflow(PROCEDURE, start, id=WORKFLOW, task_queue=queue)
    found = Run(page, f"{ui}/workflows/{quote(WORKFLOW, safe='')}/{handle.first_execution_run_id}")
    await recovery_of(engine, found).until("gate")
    return found


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Let nobody write into ``folder``, as if its disk were full, so that the cut-over holds in the middle."""
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(mode)


async def test_cut_over_is_decided_and_held_in_the_ui(broken: Lab, engine: Running, run: Run) -> None:
    details = await run.details_say("Waiting for 1 × dba or incident-commander: “cut over”")
    report = await recovery_of(engine, run).until("gate")
    text = await details.locator("main").inner_text()
    later = report.gates[0].shown[0]["tables"][0]
    lost = re.search(r"public\.orders: (\d+) rows written after the target \((\d+)\D", text)
    assert lost is not None
    assert int(lost[1]) == later["only_in_running"] > 0
    assert int(lost[2]) > later["only_in_copy"], "what was written later has higher numbers than what was deleted"
    assert "would go with it" in text
    assert "would come back" in text
    assert f"{lost[1]} rows of public.orders would go with the running database." in text
    assert "sessions were connected; all are ended" in text
    assert "a base backup is taken once clients are let in" in text
    assert "approve: clients are shut out and the copy replaces orders" in text
    await picture(run.page, "cut-over")

    with full(broken.place.copies):
        assert await run.update("decide", await to_paste(details, 0, reason="go back")) == ""
        first = (await recovery_of(engine, run).until("hold")).hold
        assert first is not None
        details = await run.details_say(f'"hold": "{first.token}"')
        text = await details.locator("main").inner_text()
        assert "Held: “export what the copy of orders lacks” failed" in text
        assert "Clients are shut out since" in text
        assert "is the disk full?" in text
        await picture(run.page, "hold")
        refusal = await run.update("resolve_step", await to_paste(details, 0, answer="withdraw"))
        assert refusal.startswith("answer: withdraw is not offered here")
        assert await run.update("resolve_step", await to_paste(details, 0, reason="perhaps there is room")) == ""

        async def again() -> str:
            hold = (await recovery_of(engine, run).until("hold")).hold
            return hold.token if hold is not None and hold.token != first.token else ""

        second = await eventually(again, "it is held again: there is still no room")
    details = await run.details_say(f'"hold": "{second}"')
    await run.signal("resolve", await to_paste(details, 0, reason="there is room"))
    report = await recovery_of(engine, run).ended(120)
    assert report.outcome == "recovered"
    assert [hold.answer for hold in report.holds] == ["retry", "retry"]
    await run.open("user-metadata", again=True)
    await run.has_status("Completed")
    details = await run.details_say("“cut over”: bob approves")
    assert "clients shut out until their first write" in await details.locator("main").inner_text()
