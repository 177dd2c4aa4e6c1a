"""A rollback in the Temporal UI: what people decide on, with the whole difference, and how it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Page

from lab.estate import Lab
from tests.running import Recovery, Running, running
from tests.shops import Machine, Remote, below, catalog
from tests.stores import lab_host
from tests.ui.pages import Run, picture, recovery_of, to_paste

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

BAD = {"app.conf": "# orders\nlimit = 0\npassword = hush\n"}
GOOD = {"app.conf": "# orders works\nlimit = 100\npassword = hush\n"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with running(lab, RECOVERY_CATALOGS=str(tmp_path_factory.mktemp("catalogs"))) as found:
        yield found


async def test_rollback_is_decided_on_in_the_ui(engine: Running, lab: Lab, page: Page, ui: str) -> None:
    folder = lab.place.north / "seen-shop"
    folder.mkdir()
    folder.chmod(0o755)
    remote, machines = Remote.new(folder / "shop.git"), {name: Machine.new(name, folder) for name in ("one", "two")}
    good, bad = (remote.commit(below("web", files), what) for files, what in ((GOOD, "raise"), (BAD, "limit orders")))
    remote.deployed(good, "d-41", "healthy")
    remote.deployed(bad, "d-42", "unhealthy")
    for machine in machines.values():
        machine.have(BAD)
    machines["two"].write("app.conf", BAD["app.conf"].replace("limit = 0", "limit = 1"))
    root = Path(engine.environment["RECOVERY_CATALOGS"])
    catalog(root, "lab", remote, machines, dict.fromkeys(machines, lab_host(lab)), {"watch": "PT0S"})
    given = {
        "runbook": "lab/back",
        "reason": "no orders",
        "requested_by": "alice",
        "parameters": {"deployment": "d-42"},
    }
    handle = await engine.client.start_workflow(
        "ConfigurationRollback", given, id="lab/shop", task_queue=engine.settings.task_queue
    )
    await Recovery(handle).until("gate")
    run = Run(page, f"{ui}/workflows/{quote(handle.id, safe='')}/{handle.first_execution_run_id}")
    await run.open("user-metadata")
    details = await run.details_say("Waiting for 1 × dba: “roll back”")
    text = await details.locator("main").inner_text()
    for said in (
        f"shop goes back from {bad[:12]} to {good[:12]}, on 2 targets.", "was recorded as healthy by deployment d-41",
        "limit orders", "-limit = 0", "+limit = 100", "on-two@two was changed by hand: app.conf", "+limit = 1",
        "not well now: on-one@one",
    ):  # fmt: skip
        assert said in text, said
    assert "hush" not in text
    await picture(page, "rollback-gate")
    assert await run.update("decide", await to_paste(details, 2, reason="back")) == ""
    report = await recovery_of(engine, run).ended(60)
    assert report.outcome == "recovered", report.failure
    await run.open("user-metadata", again=True)
    await run.has_status("Completed")
    await run.details_say("as a new commit on main")
    await picture(page, "rollback-done")
