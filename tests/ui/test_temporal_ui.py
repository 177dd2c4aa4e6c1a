"""What an operator sees and does in the Temporal UI, in a real browser, on a lab whose orders were deleted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, FrameLocator, Page, async_playwright, expect

from console.start_form import start_form
from lab.estate import Lab
from recovery.names import recovery_id
from tests.conftest import _lab
from tests.copies import drop_all, in_copies
from tests.running import PROCEDURE, Recovery, Running, eventually, running
from tests.ui.pages import Run, StartForm, photograph

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICTURES = os.environ.get("RECOVERY_SCREENSHOTS")
SECRET = "hunter2-and-more"
WRONG = "0" * 16


@pytest.fixture(scope="module")
def broken() -> Iterator[Lab]:
    """A lab of these tests alone, from which half of the orders were deleted."""
    with _lab() as lab:
        lab.up()
        yield lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(broken: Lab) -> AsyncIterator[Running]:
    async with running(broken) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def start(broken: Lab) -> dict[str, Any]:
    """The object that goes into the start form: back to the moment before the accident."""
    await eventually(lambda: broken.status().acknowledged > 200, "orders are acknowledged")
    accident = broken.break_("delete-rows")
    return {
        "runbook": "lab/restore-orders",
        "mode": "live",
        "reason": "half of the orders were deleted",
        "requested_by": "alice",
        "parameters": {"target_time": accident.before.isoformat()},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    assert program, "chromium is missing: scripts/debian-packages installs it"
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        found = await playwright.chromium.launch(executable_path=program, args=arguments)
        yield found
        await found.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport={"width": 1400, "height": 1000}, timezone_id="UTC")
    context.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    yield await context.new_page()
    await context.close()


@pytest.fixture
def ui(engine: Running) -> str:
    """Return the address of the namespace."""
    record = json.loads((engine.settings.state / "temporal" / "server.json").read_text())
    return f"http://127.0.0.1:{record['ui_port']}/namespaces/default"


Begin = Callable[[], Awaitable[Run]]


@pytest_asyncio.fixture(loop_scope="module")
async def begin(broken: Lab, engine: Running, page: Page, ui: str, start: dict[str, Any]) -> AsyncIterator[Begin]:
    """Start the recovery from the form; whatever is still open afterwards is cancelled."""
    workflow = recovery_id("lab", "orders", "live")

    async def started() -> Run:
        form = StartForm(page)
        await form.open(start_form(ui, PROCEDURE, engine.settings.task_queue, workflow))
        return await form.send(start)

    yield started
    recovery = Recovery(engine.client.get_workflow_handle(workflow))
    if (await recovery.handle.describe()).close_time is None:
        await recovery.handle.cancel()
        await recovery.ended()
    drop_all(broken)


def recovery_of(engine: Running, run: Run) -> Recovery:
    """Return the recovery that a page shows."""
    workflow, number = run.ids
    return Recovery(engine.client.get_workflow_handle(workflow, run_id=number))


async def to_paste(details: FrameLocator, block: int, **changes: str) -> str:
    """Return the JSON that the details offer (0 for the update, 1 for a signal), decided by bob, with ``changes``."""
    body = json.loads(await details.locator("pre code").nth(block).inner_text())
    assert body["by"] == "YOUR NAME"
    return json.dumps(body | {"by": "bob"} | changes, indent=2)


async def picture(page: Page, name: str) -> None:
    """Keep a picture for the documentation, when asked for."""
    if PICTURES:
        await photograph(page, Path(PICTURES) / f"{name}.png")


async def test_form_is_prefilled(page: Page, ui: str, engine: Running, start: dict[str, Any]) -> None:
    form = StartForm(page)
    await form.open(start_form(ui, PROCEDURE, engine.settings.task_queue, "lab/orders"))
    shown = {"Workflow ID": "lab/orders", "Task Queue": engine.settings.task_queue, "Workflow Type": PROCEDURE}
    assert await form.shows() == shown
    if PICTURES:
        await form.fill(start)
        await picture(page, "start-form")


async def test_details_show_what_to_decide_on(engine: Running, begin: Begin) -> None:
    run = await begin()
    details = await run.details_say("Waiting for 1 × dba: “keep the copy”")
    gate = (await recovery_of(engine, run).until("gate")).gates[0]
    assert gate.until is not None
    text = await details.locator("main").inner_text()
    assert f"Decide until {gate.until:%Y-%m-%d %H:%M:%S} UTC" in text
    assert "half of the orders were deleted" in text
    assert "heaps and indexes: pg_amcheck found no fault" in text
    header = await details.locator("th").all_inner_texts()
    assert [name.strip() for name in header[:6]] == [
        "table", "in copy", "in running", "only in copy", "only in running", "changed",
    ]  # fmt: skip
    assert gate.shown[-1]["tables"][0]["only_in_copy"] > 0, "the deleted orders are in the copy"
    digests = {"gate": gate.gate, "by": "YOUR NAME", "plan": gate.plan, "evidence": gate.evidence, "reason": ""}
    blocks = [json.loads(block) for block in await details.locator("pre code").all_inner_texts()]
    assert blocks == [digests | {"verdict": "approve"}, digests]
    await picture(run.page, "gate-waiting")


async def test_details_fit_their_pane(begin: Begin) -> None:
    run = await begin()
    details = await run.details_say("Waiting for")
    width = "element => element.scrollWidth - element.clientWidth"
    assert await details.locator("html").evaluate(width) == 0


async def test_wrong_digest_by_signal_is_shown(engine: Running, begin: Begin) -> None:
    run = await begin()
    details = await run.details_say("Waiting for")
    await run.signal("approve", await to_paste(details, 1, evidence=WRONG))
    details = await run.details_say("Not accepted")
    text = await details.locator("main").inner_text()
    assert "signal approve: evidence: this is not the digest of the evidence that the gate shows" in text
    assert "Nobody has decided yet" in text
    await run.has_status("Running")
    assert (await recovery_of(engine, run).until("gate")).gates[0].decisions == ()
    await picture(run.page, "refused")


async def test_wrong_digest_by_update_is_answered(engine: Running, begin: Begin) -> None:
    run = await begin()
    details = await run.details_say("Waiting for")
    refusal = await run.update("decide", await to_paste(details, 0, plan=WRONG))
    assert refusal.startswith("plan: this is not the digest of the plan that the gate shows")
    await run.dismiss()
    assert (await recovery_of(engine, run).until("gate")).gates[0].decisions == ()


async def test_update_approves(engine: Running, begin: Begin) -> None:
    run = await begin()
    details = await run.details_say("Waiting for")
    assert await run.update("decide", await to_paste(details, 0, reason="the rows are right")) == ""
    await run.has_status("Completed")
    report = await recovery_of(engine, run).ended()
    assert report.outcome == "recovered"
    assert report.gates[0].decisions[0].reason == "the rows are right"
    details = await run.details_say("“keep the copy”: bob approves")
    await expect(details.locator("h2")).to_have_text("recovered")
    assert report.delivered["copy"] in await details.locator("main").inner_text()
    await picture(run.page, "recovered")
    await run.open("Timeline")
    await expect(run.page.get_by_text("replay the log into the copy of orders").first).to_be_visible()
    await picture(run.page, "timeline")


async def test_signal_approves(engine: Running, begin: Begin) -> None:
    run = await begin()
    details = await run.details_say("Waiting for")
    await run.signal("approve", await to_paste(details, 1))
    await run.has_status("Completed")
    assert (await recovery_of(engine, run).ended()).outcome == "recovered"


async def test_signal_rejects(broken: Lab, engine: Running, begin: Begin) -> None:
    run = await begin()
    details = await run.details_say("Waiting for")
    await run.signal("reject", await to_paste(details, 1, reason="not the moment"))
    await run.has_status("Failed")
    assert (await recovery_of(engine, run).ended()).outcome == "compensated"
    await run.details_say("gate keep the copy: rejected by bob")
    assert in_copies(broken) == []


async def test_list_finds_who_is_waited_for(begin: Begin, ui: str) -> None:
    run = await begin()
    await run.details_say("Waiting for")
    await run.page.goto(f'{ui}/workflows?query=RecoveryNeeds="dba"')
    await expect(run.page.get_by_role("link", name="lab/orders", exact=True)).to_be_visible()


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
    await form.open(start_form(ui, procedure, engine.settings.task_queue, case))
    run = await form.send(body)
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
    await run.open("User Metadata")
    await expect(page.get_by_text("Current Details")).to_be_visible()
    assert SECRET not in await page.locator("main").inner_text()
