"""What an operator sees and does in the Temporal UI, in a real browser, on a lab whose orders were deleted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, expect
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError

from console.start_form import start_form
from lab.estate import Lab
from recovery.attributes import INCIDENT, RTO_MET
from recovery.names import recovery_id
from tests.copies import drop_all, in_copies
from tests.labs import RATE, lab_apart
from tests.running import PROCEDURE, Recovery, Running, eventually, running
from tests.ui.pages import Run, StartForm, picture, recovery_of, to_paste

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

WORKFLOW = recovery_id("lab", "orders", "live")
SECRET = "hunter2-and-more"
WRONG = "0" * 16


@pytest.fixture(scope="module")
def broken() -> Iterator[Lab]:
    """A lab of these tests alone, from which half of the orders were deleted."""
    with lab_apart() as lab:
        lab.up()
        yield lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(broken: Lab) -> AsyncIterator[Running]:
    async with running(broken) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def start(broken: Lab) -> dict[str, Any]:
    """The object that goes into the start form: back to the moment before the accident."""
    await eventually(lambda: broken.status().acknowledged > 2 * RATE, "orders are acknowledged")
    accident = broken.break_("delete-rows")
    final = accident.before + timedelta(seconds=1.2)  # a second later nothing can be committed before it any more
    await eventually(lambda: datetime.now(UTC) > final, "the target time is final")
    return {
        "runbook": "lab/restore-orders",
        "mode": "live",
        "reason": "half of the orders were deleted",
        "requested_by": "alice",
        "parameters": {"target_time": accident.before.isoformat()},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def form(context: BrowserContext, engine: Running, ui: str, start: dict[str, Any]) -> str:
    """Start the recovery from the form; return the address of its run. Several tests look at it, one approves it."""
    page = await context.new_page()
    blank = StartForm(page)
    await blank.open(start_form(ui, PROCEDURE, engine.settings.task_queue, WORKFLOW))
    queue = engine.settings.task_queue
    assert await blank.shows() == {"Workflow ID": WORKFLOW, "Task Queue": queue, "Workflow Type": PROCEDURE}
    await blank.fill(start)
    await picture(page, "start-form")
    run = await blank.send()
    await page.close()
    return run.address


@pytest.fixture
def run(page: Page, form: str) -> Run:
    """The pages of the recovery that was started from the form."""
    return Run(page, form)


@pytest_asyncio.fixture(loop_scope="module")
async def another(broken: Lab, engine: Running, page: Page, ui: str, start: dict[str, Any]) -> AsyncIterator[Run]:
    """The pages of a recovery of the test's own, once it is at its gate."""
    await cancel(engine)
    drop_all(broken)
    queue = engine.settings.task_queue
    # As the form does it: with the search attributes that the last run of this id ended with.
    old = TypedSearchAttributes([SearchAttributePair(INCIDENT, "INC-OLD"), SearchAttributePair(RTO_MET, False)])
    handle = await engine.client.start_workflow(PROCEDURE, start, id=WORKFLOW, task_queue=queue, search_attributes=old)
    await Recovery(handle).until("gate")
    yield Run(page, f"{ui}/workflows/{quote(WORKFLOW, safe='')}/{handle.first_execution_run_id}")
    await cancel(engine)
    drop_all(broken)


async def cancel(engine: Running) -> None:
    """Cancel the recovery that is open, if there is one, and wait for its end."""
    recovery = Recovery(engine.client.get_workflow_handle(WORKFLOW))
    with contextlib.suppress(RPCError):  # there was none
        if (await recovery.handle.describe()).close_time is None:
            await recovery.handle.cancel()
            await recovery.ended()


async def test_details_show_what_to_decide_on(engine: Running, run: Run) -> None:
    details = await run.details_say("Waiting for 1 × dba: “keep the copy”")
    gate = (await recovery_of(engine, run).until("gate")).gates[0]
    assert gate.until is not None
    text = await details.locator("main").inner_text()
    assert f"Decide until {gate.until:%Y-%m-%d %H:%M:%S} UTC" in text
    assert "Who may: bob, carol." in text
    assert "half of the orders were deleted" in text
    assert "rows gone from the running database" in text
    assert "approve: the copy stays, and its address is reported" in text
    assert "heaps and indexes: pg_amcheck found no fault" in text
    header = [name.strip() for name in await details.locator("th").all_inner_texts()]
    assert header[:6] == ["table", "in copy", "in running", "only in copy", "only in running", "changed"]
    assert gate.shown[0]["tables"][0]["only_in_copy"] > 0, "the deleted orders are in the copy"
    digests = {"gate": gate.gate, "by": "YOUR NAME", "plan": gate.plan, "evidence": gate.evidence, "reason": ""}
    blocks = [json.loads(block) for block in await details.locator("pre code").all_inner_texts()]
    assert blocks == [digests | {"verdict": "approve"}, digests]
    await picture(run.page, "gate-waiting")


async def test_details_fit_their_pane(run: Run) -> None:
    details = await run.details_say("Waiting for")
    assert await details.locator("html").evaluate("element => element.scrollWidth - element.clientWidth") == 0


async def test_list_finds_who_is_waited_for(run: Run, ui: str) -> None:
    await run.details_say("Waiting for")
    await run.page.goto(f'{ui}/workflows?query=RecoveryNeeds="dba"')
    await expect(run.page.get_by_role("link", name=WORKFLOW, exact=True)).to_be_visible()


async def test_wrong_digest_by_signal_is_shown(engine: Running, run: Run) -> None:
    details = await run.details_say("Waiting for")
    await run.signal("approve", await to_paste(details, 1, evidence=WRONG))
    details = await run.details_say("Not accepted")
    text = await details.locator("main").inner_text()
    assert "signal approve: evidence: this is not the digest of the evidence that the gate shows" in text
    assert "Nobody has decided yet" in text
    await picture(run.page, "refused", 1000)
    await run.has_status("Running")
    assert (await recovery_of(engine, run).until("gate")).gates[0].decisions == ()


async def test_wrong_digest_by_update_is_answered(engine: Running, run: Run) -> None:
    details = await run.details_say("Waiting for")
    refusal = await run.update("decide", await to_paste(details, 0, plan=WRONG))
    assert refusal.startswith("plan: this is not the digest of the plan that the gate shows")
    assert (await recovery_of(engine, run).until("gate")).gates[0].decisions == ()


async def test_update_approves(engine: Running, run: Run) -> None:
    details = await run.details_say("Waiting for")
    assert await run.update("decide", await to_paste(details, 0, reason="the rows are right")) == ""
    report = await recovery_of(engine, run).ended()
    assert report.outcome == "recovered"
    assert report.gates[0].decisions[0].reason == "the rows are right"
    await run.open("user-metadata", again=True)
    await run.has_status("Completed")
    details = await run.details_say("“keep the copy”: bob approves")
    await expect(details.locator("h2")).to_have_text("recovered")
    assert report.delivered["copy"] in await details.locator("main").inner_text()
    await picture(run.page, "recovered")


async def test_signal_approves(engine: Running, another: Run) -> None:
    details = await another.details_say("Waiting for")
    found = (await recovery_of(engine, another).handle.describe()).typed_search_attributes
    assert (found.get(INCIDENT), found.get(RTO_MET)) == (None, None), "of the last run, filled in by the form"
    await another.signal("approve", await to_paste(details, 1))
    assert (await recovery_of(engine, another).ended()).outcome == "recovered"
    await another.open("timeline", again=True)
    await another.has_status("Completed")
    await expect(another.page.get_by_text("• replay the log into the copy of orders")).to_be_visible()
    await picture(another.page, "timeline")


async def test_signal_rejects(broken: Lab, engine: Running, another: Run) -> None:
    details = await another.details_say("Waiting for")
    await another.signal("reject", await to_paste(details, 1, reason="not the moment"))
    assert (await recovery_of(engine, another).ended()).outcome == "compensated"
    await another.open("user-metadata", again=True)
    await another.has_status("Failed")
    await another.details_say("gate keep the copy: rejected by bob")
    assert in_copies(broken) == []


BAD: dict[str, tuple[str, Any, str]] = {
    "extra field": (PROCEDURE, {"runbook": "lab/restore-orders", "reason": "x", "pasword": SECRET}, "pasword"),
    "unknown runbook": (PROCEDURE, {"runbook": SECRET, "reason": "x"}, "runbook"),
    "unknown workflow type": (f"{PROCEDURE}d", {"runbook": "lab/restore-orders", "reason": SECRET}, "workflow type"),
    "empty input": (PROCEDURE, None, "input"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_start_fails_at_once(engine: Running, page: Page, ui: str, case: str) -> None:
    procedure, body, field = BAD[case]
    form = StartForm(page)
    await form.open(start_form(ui, procedure, engine.settings.task_queue, f"bad/{case}"))
    if body is not None:
        await form.fill(body)
    run = await form.send()
    await run.has_status("Failed")
    result = page.get_by_role("textbox", name="Result")
    await expect(result).to_contain_text(f"{field}: ")
    handle = recovery_of(engine, run).handle
    found = await handle.describe()
    assert found.close_time is not None
    assert found.close_time - found.start_time < timedelta(seconds=3)
    # The input itself is kept by Temporal and shown as such; nothing repeats it.
    assert SECRET not in await result.inner_text()
    history = (await handle.fetch_history()).to_json_dict()
    for event in history["events"]:
        for attributes in (value for value in event.values() if isinstance(value, dict)):
            attributes.pop("input", None)
    assert SECRET not in json.dumps(history)
    await run.open("user-metadata")
    await expect(page.get_by_text("Current Details")).to_be_visible()
    assert SECRET not in await page.locator("main").inner_text()
