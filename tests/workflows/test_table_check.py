"""SessionReplicationCheck on a table of two real databases under load: what is wrong is named, what is well is not."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from lab import link
from lab.estate import Lab
from recovery.report import Report
from tests.conftest import FreshLab
from tests.running import ROOT, Recovery, Running, eventually, running
from tests.switches import at_both_sites
from tests.tables import replayed, tell, two_sites, written

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

MANY = 100_000
SOUTH = "orders-south (public.sessions)"
TABLES = [{"database": "orders", "table": "public.sessions", "key": "id", "expires": "ends"}]
CHECK = {
    "title": "Check", "version": "1", "why": "a test", "procedure": "SessionReplicationCheck",
    "systems": ["orders", "orders-south"], "parameters": {"tables": TABLES, "sample": 500, "lag": "PT1S"},
}  # fmt: skip
BOTH = {**CHECK, "systems": ["sessions", "sessions-south", "orders-south", "orders"]}
ODD = {**CHECK, "parameters": {"tables": [*TABLES, {**TABLES[0], "table": "public.orders", "key": "id"}]}}


@pytest.fixture(scope="module")
def sites(fresh_labs: FreshLab) -> Lab:
    lab = fresh_labs()
    two_sites(lab, MANY)
    return lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(sites: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder: Path = tmp_path_factory.mktemp("catalogs")
    async with running(sites, RECOVERY_CATALOGS=str(catalog(folder, queues=False))) as found:
        yield found


def catalog(folder: Path, *, queues: bool) -> Path:
    """Write the lab's estate, with or without queues of its sites, and runbooks; return where that lies."""
    estate = (ROOT / "runbooks/lab/estate.yaml").read_text()
    (folder / "lab").mkdir()
    (folder / "lab" / "estate.yaml").write_text(estate if queues else re.sub("    queue: .*\n", "", estate))
    for name, runbook in {"check": CHECK, "both": BOTH, "odd": ODD}.items():
        (folder / "lab" / f"{name}.yaml").write_text(yaml.safe_dump(runbook))
    return folder


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _whole(sites: Lab, engine: Running) -> AsyncIterator[None]:
    """Have south replay what north commits, whatever a test did."""
    link.ask(sites.place, "open")
    if tell(sites.databases["south"], "select pg_is_wal_replay_paused()"):
        tell(sites.databases["south"], "select pg_wal_replay_resume()")
    await replayed(sites, 60)
    yield


async def checked(engine: Running, runbook: str = "check", mode: str = "live", **more: object) -> tuple[str, Report]:
    """Check once; return the verdict, and all of it."""
    given = {"runbook": f"lab/{runbook}", "reason": "a test", "mode": mode, "parameters": more}
    handle = await engine.client.start_workflow(
        "SessionReplicationCheck", given, id=f"lab/{runbook}", task_queue=engine.settings.task_queue
    )
    report = await Recovery(handle).ended(90)
    assert (report.outcome, report.residual) == ("checked", ()), report.failure
    return str(figures(report)["verdict"]), report


def figures(report: Report) -> dict[str, Any]:
    return {figure.name: figure.value for figure in report.figures}


@pytest.mark.parametrize("number", [0, 1, *(pytest.param(n, marks=pytest.mark.soak) for n in range(2, 50))])
async def test_healthy_pair_under_load_is_replicated(engine: Running, sites: Lab, number: int) -> None:
    with written(sites.databases["north"], MANY, number) as count:
        verdict, report = await checked(engine, whole=number % 2 == 1)
        assert sum(count) > 20
    assert (verdict, report.blockers) == ("replicated", ())
    assert figures(report)[f"sessions that {SOUTH} would lose now"] == 0
    assert figures(report)[f"{SOUTH} is behind"] < 2
    assert figures(report)["sessions at orders (public.sessions)"] > MANY * 0.9
    assert figures(report)[f"sessions at {SOUTH}"] > MANY * 0.9
    assert figures(report)[f"sessions compared at {SOUTH}"] > 450


async def test_check_of_a_check_writes_nothing(engine: Running, sites: Lab) -> None:
    seen = "select txid_snapshot_xmax(txid_current_snapshot())"
    before = tell(sites.databases["north"], seen)
    verdict, report = await checked(engine, mode="check")
    assert verdict == "replicated"
    assert tell(sites.databases["north"], seen) == before
    assert figures(report)[f"{SOUTH} is behind"] == 0, "an idle standby is not behind"


async def test_stores_and_tables_are_checked_together(engine: Running, sites: Lab) -> None:
    verdict, report = await checked(engine, "both")
    assert (verdict, report.blockers) == ("replicated", ())
    assert {"keys at sessions", f"sessions at {SOUTH}", "sessions-south is behind"} <= figures(report).keys()


async def test_what_a_paused_replay_lacks_is_counted(engine: Running, sites: Lab) -> None:
    tell(sites.databases["south"], "select pg_wal_replay_pause()")
    tell(
        sites.databases["north"],
        "insert into sessions (number, ends) select -n, now() + interval '1 hour' from generate_series(1, 30) n",
        "update sessions set basket = 'x y' where id = (select id from sessions where number = 500 limit 1)",
    )
    verdict, report = await checked(engine)
    assert verdict == "lagging"
    assert report.blockers[0].startswith("orders-south does not replay: that is paused")
    assert figures(report)[f"sessions that {SOUTH} would lose now"] == 31
    assert figures(report)[f"{SOUTH} is behind"] >= 1
    assert "x y" not in report.model_dump_json()


@pytest.mark.parametrize(("how", "verdict", "why"), [
    ("refused", "broken", "orders-south has no link to orders; it receives nothing"),
    ("dropped", "lagging", "what orders had committed was not replayed at orders-south after 1 s"),
])  # fmt: skip
async def test_cut_link_is_told_and_what_would_be_lost_is_counted(
    engine: Running, sites: Lab, how: link.State, verdict: str, why: str
) -> None:
    link.ask(sites.place, how)
    linked = "select count(*) > 0 from pg_stat_wal_receiver"
    await eventually(lambda: tell(sites.databases["south"], linked) is (how == "dropped"), "the link is as it is cut")
    lost = "insert into sessions (number, ends) select -n, now() + interval '1 hour' from generate_series(1, 40) n"
    tell(sites.databases["north"], lost)
    found, report = await checked(engine)
    assert found == verdict
    assert any(why in line for line in report.blockers), report.blockers
    assert figures(report)[f"sessions that {SOUTH} would lose now"] == 40


async def test_each_is_seen_from_its_site_also_where_nobody_sees_both(
    engine: Running, sites: Lab, tmp_path: Path
) -> None:
    engine.kill_worker()
    try:
        async with at_both_sites(sites, RECOVERY_CATALOGS=str(catalog(tmp_path, queues=True))) as there:
            assert (await checked(there))[0] == "replicated"
            link.ask(sites.place, "refused")
            verdict, report = await checked(there)
    finally:
        engine.start_worker()
    assert verdict == "broken"
    assert {step.step for step in report.steps} >= {"see orders from north", "see orders-south from south"}
    assert not [line for line in report.blockers if "cannot be seen" in line]
    assert f"sessions that {SOUTH} would lose now" not in figures(report)


async def test_gone_primary_is_broken(engine: Running, sites: Lab) -> None:
    sites.databases["north"].stop(quick=True)
    try:
        verdict, report = await checked(engine)
    finally:
        sites.databases["north"].start()
    assert verdict == "broken"
    assert any("orders cannot be seen" in line for line in report.blockers), report.blockers
    assert f"sessions that {SOUTH} would lose now" not in figures(report)


async def test_table_that_cannot_be_compared_is_broken(engine: Running) -> None:
    verdict, report = await checked(engine, "odd")
    assert verdict == "broken"
    assert report.blockers == ("orders: public.orders: there is no such column (key)",)
    assert figures(report)[f"sessions compared at {SOUTH}"] > 450


async def test_who_starts_it_cannot_have_databases_read_what_they_like(engine: Running) -> None:
    given = {"runbook": "lab/check", "reason": "x", "parameters": {"tables": TABLES}}
    handle = await engine.client.start_workflow(
        "SessionReplicationCheck", given, id="lab/check", task_queue=engine.settings.task_queue
    )
    report = await Recovery(handle).ended()
    assert report.kind == "Invalid"
    assert "parameters.tables: only the runbook may say that" in report.failure


async def test_two_primaries_are_split(engine: Running, sites: Lab) -> None:
    """Comes last: nothing makes the south a standby again."""
    assert tell(sites.databases["south"], "select pg_promote()") is True
    verdict, report = await checked(engine)
    assert verdict == "split"
    assert "orders (byte " in report.blockers[0]
    assert "both take writes" in report.blockers[0]
