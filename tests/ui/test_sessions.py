"""Sessions in the Temporal UI: what a check says, and what people decide on before a store is overwritten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Page

from lab.estate import Lab
from tests.activities.test_sessions import fill
from tests.running import Recovery, Running, running
from tests.stores import Pair, catalog, lab_host, pair
from tests.ui.pages import Run, picture, recovery_of, to_paste
from tests.workflows import test_session_check, test_session_recovery

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]


@pytest.fixture(scope="module")
def stores(lab: Lab) -> Iterator[Pair]:
    with pair(lab_host(lab)) as found:
        (found.folder / "copies").mkdir()
        (found.folder / "copies").chmod(0o777)
        with found.north.client() as client:
            fill(client, 500)
            assert client.wait(1, 5000) == 1
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(lab: Lab, stores: Pair, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    runbooks: dict[str, Mapping[str, object]] = {
        "check": test_session_check.CHECK,
        "reattach-south": test_session_recovery.runbook("reattach", "south"),
    }
    folder = catalog(tmp_path_factory.mktemp("catalogs"), stores, runbooks, copies=str(stores.folder / "copies"))
    async with running(lab, RECOVERY_CATALOGS=str(folder)) as found:
        yield found


def shown(page: Page, ui: str, recovery: Recovery) -> Run:
    handle = recovery.handle
    return Run(page, f"{ui}/workflows/{quote(handle.id, safe='')}/{handle.first_execution_run_id}")


async def test_split_is_seen_and_decided_on_in_the_ui(engine: Running, stores: Pair, page: Page, ui: str) -> None:
    stores.south.tell("REPLICAOF", "NO", "ONE")
    stores.south.tell("SET", "session:9f8e7d6c5b4a39281706", "only here", "EX", 3600)
    check = await test_session_check.start(engine)
    assert (await check.ended()).outcome == "checked"
    run = shown(page, ui, check)
    await run.open("user-metadata")
    details = await run.details_say("all take writes")
    text = await details.locator("main").inner_text()
    assert "all take writes: each has sessions that the others lack" in text
    await picture(page, "sessions-split")

    recovery = await test_session_recovery.start(engine, "reattach-south")
    await recovery.until("gate")
    run = shown(page, ui, recovery)
    await run.open("user-metadata")
    details = await run.details_say("Waiting for 1 × dba: “overwrite the store”")
    text = await details.locator("main").inner_text()
    assert "what only it has is overwritten there" in text
    assert "sessions-south has 1 sessions that sessions-north lacks" in text
    assert "as a snapshot" in text
    assert "reject: it stops; “keep what sessions-south holds” stays" in text
    assert "“fence sessions-south” stays (two stores took sessions" in text
    assert "9f8e7d6c5b4a39281706" not in text
    await picture(page, "sessions-overwrite")
    assert await run.update("decide", await to_paste(details, 0, reason="it is kept")) == ""
    report = await recovery_of(engine, run).ended(120)
    assert report.outcome == "recovered", report.failure
    await run.open("user-metadata", again=True)
    await run.has_status("Completed")
    await run.details_say("replica of sessions-north")
    await picture(page, "sessions-reattached")
