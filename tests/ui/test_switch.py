"""A switch of sites decided on in the Temporal UI: what its gate shows, and what its end tells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Page

from lab.estate import Lab
from recovery.names import recovery_id
from tests.labs import lab_apart
from tests.running import Running
from tests.switches import activate, at_both_sites
from tests.ui.pages import Run, picture, recovery_of, to_paste

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

WORKFLOW = recovery_id("lab", "orders", "live")


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    with lab_apart() as lab:
        lab.up(south=True)
        yield lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(two: Lab) -> AsyncIterator[Running]:
    async with at_both_sites(two) as found:
        yield found


async def test_switch_is_decided_in_the_ui(two: Lab, engine: Running, page: Page, ui: str) -> None:
    handle = (await activate(engine, "south")).handle
    run = Run(page, f"{ui}/workflows/{quote(WORKFLOW, safe='')}/{handle.first_execution_run_id}")
    await recovery_of(engine, run).until("gate")
    await run.open("user-metadata")
    details = await run.details_say("Waiting for 1 × dba or incident-commander: “switch over”")
    text = await details.locator("main").inner_text()
    assert "south takes over from north" in text
    assert "orders-south lacks" in text
    assert "stopped: orders-app-north; started: orders-app-south" in text
    assert "approve: clients are shut out, and south takes over" in text
    await picture(run.page, "switch")
    assert await run.update("decide", await to_paste(details, 0, reason="the storm comes at six")) == ""
    report = await recovery_of(engine, run).ended(120)
    assert report.outcome == "recovered", report.failure
    await run.open("user-metadata", again=True)
    await run.has_status("Completed")
    details = await run.details_say("active site")
    assert "clients refused for" in await details.locator("main").inner_text()
    await picture(run.page, "switched")
