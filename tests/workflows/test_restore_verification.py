"""RestoreVerification on a real database under load: what works is proven and dropped, what does not is named."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import pytest
import pytest_asyncio
import yaml
from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleSpec,
    ScheduleState,
)

from lab import ledger
from lab.estate import Lab
from recovery.report import Report
from tests.conftest import FreshLab
from tests.copies import drop_all, in_copies, servers_of_copies, strangers
from tests.matrix.test_damage import flip, largest
from tests.running import ROOT, Recovery, Running, eventually, running
from tests.workflows.test_side_copy import fingerprint, logged, position

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

RUNBOOK: dict[str, Any] = yaml.safe_load((ROOT / "runbooks" / "lab" / "verify-orders.yaml").read_text())
LATE = 30
"""Seconds after which a copy has to be off-site; what is archived meanwhile need not be."""
STRICT = {"full_every": "PT1S", "incremental_every": None, "grace": "PT0S", "keep_for": None}


def write(catalogs: Path, name: str, **parameters: object) -> None:
    """Write the lab's runbook as ``name``, with other parameters."""
    text = RUNBOOK | {"parameters": RUNBOOK["parameters"] | parameters, "notify": ["ops"]}
    (catalogs / "lab" / f"{name}.yaml").write_text(yaml.safe_dump(text))


@pytest.fixture(scope="module")
def lab(fresh_labs: FreshLab) -> Lab:
    """A lab of these tests alone: what others do to its backups and its log would be a breach."""
    own = fresh_labs()
    own.up()
    return own


@pytest.fixture(scope="module")
def catalogs(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalogs")
    shutil.copytree(ROOT / "runbooks" / "lab", folder / "lab")
    write(folder, "verify-orders")
    write(folder, "nightly")
    write(folder, "wrong", queries=[{"name": "nobody buys", "sql": "select count(*) from customers", "expect": "0"}])
    write(folder, "slow", queries=[{"name": "it takes long", "sql": "select pg_sleep(600)", "expect": ""}])
    write(folder, "strict", policy=STRICT)
    write(folder, "now", policy={"log_within": "PT0.001S"})
    estate = yaml.safe_load((folder / "lab" / "estate.yaml").read_text())
    vault = {key: value for key, value in estate["hosts"]["north-db"].items() if key != "seen_from"} | {"site": "south"}
    estate["hosts"] |= {"vault": vault, "gone": vault | {"port": 1}}
    (folder / "lab" / "estate.yaml").write_text(yaml.safe_dump(estate))
    lies = lab.place.copies.parent / "vault"
    for name in ("vault", "gone"):
        away = {"host": name, "backups": f"{lies}/backups", "archive": f"{lies}/archive", "within": f"PT{LATE}S"}
        write(folder, f"at-{name}", policy={"log_within": "P1D", "offsite": away})
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(lab: Lab, catalogs: Path) -> AsyncIterator[Running]:
    await asyncio.to_thread(lab.base_backup)
    await archived(lab)
    async with running(lab, RECOVERY_CATALOGS=str(catalogs)) as found:
        yield found


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _nothing_stays(lab: Lab, engine: Running) -> AsyncIterator[None]:
    yield
    drop_all(lab)


async def archived(lab: Lab) -> None:
    """Have something restorable: orders committed after the last base backup, in a segment that is archived."""
    taken = max(folder.stat().st_ctime for folder in lab.place.backups.iterdir())
    await eventually(lambda: time.time() > taken + 3, "the end of the backup, known to the second, is behind us")
    log = lab.place.load / "acknowledged.jsonl"
    count = ledger.count(log)
    await eventually(lambda: ledger.count(log) > count + 5, "some orders")
    with lab.postgres.connect("orders") as connection:
        row = connection.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
    assert row is not None
    await eventually(lambda: row[0] in lab.primary.archived(), "the log is archived")


async def start(engine: Running, runbook: str = "verify-orders", mode: str = "live", id: str = "") -> Recovery:
    given = {"runbook": f"lab/{runbook}", "reason": "a test", "requested_by": "alice", "mode": mode}
    name = id or f"lab/{runbook}"
    queue = engine.settings.task_queue
    return Recovery(await engine.client.start_workflow("RestoreVerification", given, id=name, task_queue=queue))


async def verified(engine: Running, runbook: str = "verify-orders", mode: str = "live") -> Report:
    return await (await start(engine, runbook, mode)).ended(120)


def figures(report: Report) -> dict[str, Any]:
    return {figure.name: figure.value for figure in report.figures}


def nothing_left(lab: Lab) -> None:
    """Assert that no file of a copy, no job, no server and no command is left."""
    assert in_copies(lab) == []
    assert servers_of_copies(lab) == []
    assert strangers(lab) == []


async def found(engine: Running, query: str) -> list[Mapping[str, Any]]:
    """Return the search attributes of the runs that ``query`` lists, the newest first."""
    runs = [one async for one in engine.client.list_workflows(query)]
    return [{pair.key.name: pair.value for pair in one.typed_search_attributes} for one in runs]


async def test_newest_backup_is_restored_proven_and_dropped(lab: Lab, engine: Running) -> None:
    began = datetime.now(UTC)
    report = await verified(engine)
    assert report.outcome == "verified", report.failure
    nothing_left(lab)
    states = {line.step.split()[0]: line.state for line in report.steps if line.step.startswith(("lay", "replay"))}
    assert states == {"lay": "undone", "replay": "undone"}
    newest = max(folder.name for folder in lab.place.backups.iterdir())
    assert any(line.step == f"lay down backup {newest} apart" for line in report.steps)
    said = figures(report)
    parts = [said[part] for part in ("lay down", "replay", "prove")]
    assert said["restore"] == pytest.approx(sum(parts), abs=0.01)
    assert all(part > 0 for part in parts)
    assert said["data laid down"] > 10
    assert said["log replayed"] > 0
    assert {f.name: f.met for f in report.figures if f.met is not None} == {
        "would be lost with the running database": True, "restore": True
    }  # fmt: skip
    assert report.delivered == {}
    (listed,) = await found(engine, "RecoveryRunbook = 'lab/verify-orders' AND RecoveryVerdict = 'proven'")
    assert listed["RecoveryProvenAt"] > began
    assert listed["RecoveryBreaches"] == 0


async def test_wrong_answer_is_named_and_the_copy_dropped(lab: Lab, engine: Running) -> None:
    report = await verified(engine, "wrong")
    assert (report.outcome, report.kind, report.residual) == ("failed", "Fatal", ())
    assert "nobody buys: 200 (expected 0)" in report.failure
    nothing_left(lab)
    (listed,) = await found(engine, "RecoveryRunbook = 'lab/wrong'")
    assert listed["RecoveryVerdict"] == "not proven"
    assert "RecoveryProvenAt" not in listed


async def test_check_changes_nothing(lab: Lab, engine: Running) -> None:
    report = await (await start(engine, mode="check", id="lab/verify-orders/check")).ended()
    assert (report.outcome, report.blockers) == ("checked", ())
    assert [line.state for line in report.steps][-3:] == ["would change", "would change", "would look"]
    nothing_left(lab)


async def test_breach_fails_a_restore_that_works_and_is_named(lab: Lab, engine: Running) -> None:
    report = await verified(engine, "strict")
    assert (report.outcome, report.kind) == ("failed", "Refused")
    assert report.blockers[0].startswith("policy.full_every: the newest full backup that can be used is of ")
    assert "and 1.0 s is wanted" in report.failure
    nothing_left(lab)
    (listed,) = await found(engine, "RecoveryRunbook = 'lab/strict'")
    assert listed["RecoveryVerdict"] == "proven, but policy.full_every"
    assert listed["RecoveryBreaches"] == len(report.blockers) == 1
    assert listed["RecoveryProvenAt"] > report.started_at


async def test_flipped_bit_in_the_newest_backup_is_named(lab: Lab, engine: Running) -> None:
    backup = await asyncio.to_thread(lab.base_backup)
    try:
        await archived(lab)
        flip(largest(backup))
        report = await verified(engine)
        assert (report.outcome, report.kind, report.residual) == ("failed", "Fatal", ())
        assert f"the backup {backup.name} does not match its manifest" in report.failure
        nothing_left(lab)
    finally:
        shutil.rmtree(backup)


async def test_missing_segment_ends_what_can_be_restored_and_is_named(lab: Lab, engine: Running) -> None:
    await archived(lab)
    missing = lab.place.archive / lab.primary.archived()[-1]
    await archived(lab)
    await archived(lab)
    aside = missing.rename(lab.place.archive.parent / missing.name)
    try:
        report = await verified(engine, "now")
        assert report.outcome == "failed"
        (breach,) = report.blockers
        assert breach.startswith("policy.log_within: what was committed since ")
        assert f"the log {missing.name} is missing in the archive" in breach
        nothing_left(lab)
        said = figures(report)
        assert said["would be lost with the running database"] > 0
        assert "proven at" in said, "up to the hole it works"
    finally:
        aside.rename(missing)
    assert (await verified(engine)).outcome == "verified"


async def test_missing_segment_in_a_backup_leaves_nothing_to_restore(lab: Lab, engine: Running) -> None:
    kept = lab.place.archive.parent / "kept"
    segments = [lab.place.archive / name for name in lab.primary.archived()]
    kept.mkdir()
    for segment in segments:
        segment.rename(kept / segment.name)
    try:
        report = await verified(engine)
        assert (report.outcome, report.kind) == ("failed", "Refused")
        assert any(line.startswith("backups: none can be used: ") for line in report.blockers)
        assert "the log that belongs to it is not complete" in report.failure
        assert any(line.startswith("policy.full_every: there is no full backup") for line in report.blockers)
        nothing_left(lab)
    finally:
        for segment in segments:
            (kept / segment.name).rename(segment)
        kept.rmdir()


@pytest.mark.soak
async def test_damaged_segment_is_told_after_two_minutes_without_progress(lab: Lab, engine: Running) -> None:
    await archived(lab)
    damaged = lab.place.archive / lab.primary.archived()[-1]
    await archived(lab)
    flip(damaged, 9000)
    try:
        report = await (await start(engine)).ended(200)
        assert (report.outcome, report.kind, report.residual) == ("failed", "Fatal", ())
        assert "a segment of the log is missing or damaged" in report.failure
        nothing_left(lab)
    finally:
        flip(damaged, 9000)


async def test_cancel_drops_the_copy(lab: Lab, engine: Running) -> None:
    recovery = await start(engine, "slow")
    await recovery.until("verifying")
    await eventually(lambda: servers_of_copies(lab), "the copy runs")
    await recovery.handle.cancel()
    report = await recovery.ended(120)
    assert (report.outcome, report.residual) == ("cancelled", ())
    await eventually(lambda: strangers(lab) == [], "what it asked the copy has ended, too")
    nothing_left(lab)
    (listed,) = await found(engine, "RecoveryRunbook = 'lab/slow'")
    assert "RecoveryVerdict" not in listed


async def test_terminated_verification_is_dropped_by_its_undo(lab: Lab, engine: Running) -> None:
    recovery = await start(engine, "slow")
    await recovery.until("verifying")
    await eventually(lambda: servers_of_copies(lab), "the copy runs")
    await recovery.handle.terminate()
    ask = {"workflow": "lab/slow", "reason": "it was terminated", "requested_by": "bob"}
    queue = engine.settings.task_queue
    undoing = Recovery(await engine.client.start_workflow("Undo", ask, id="undo/lab/slow", task_queue=queue))
    report = await undoing.ended(120)
    assert (report.outcome, report.residual) == ("compensated", ()), report.failure
    nothing_left(lab)
    assert (await verified(engine)).outcome == "verified", "nobody else has it in hand"


async def test_running_database_is_only_read(lab: Lab, engine: Running) -> None:
    await archived(lab)
    lab.break_("load")
    try:
        with lab.postgres.connect("orders") as connection:
            connection.execute("analyze")  # else the server does so when it likes
            connection.execute("vacuum freeze")
            connection.execute("select pg_switch_wal()")
            connection.execute("checkpoint")
        await asyncio.sleep(1.2)  # the last commit is final a second later
        before, begun = await asyncio.to_thread(fingerprint, lab), position(lab)
        assert (await verified(engine)).outcome == "verified"
        assert await asyncio.to_thread(fingerprint, lab) == before
        assert logged(lab, begun) <= {"RUNNING_XACTS"}, "the server itself notes now and then who runs"
    finally:
        lab.up()


async def test_restore_of_the_same_database_does_not_wait(lab: Lab, engine: Running) -> None:
    slow = await start(engine, "slow")
    await slow.until("verifying")
    other = await start(engine, id="another verification of it")
    await other.until("waits for orders.verification, which lab/slow has in hand")
    target = datetime.now(UTC) - timedelta(seconds=2)
    restore = await engine.start("live", runbook="lab/restore-orders", target_time=target)
    await restore.approve()
    assert (await restore.ended()).outcome == "recovered"
    report = await slow.until("verifying")
    assert sum(line.state == "changed" for line in report.steps) == 2, "the verification goes on beside it"
    await slow.handle.cancel()
    assert (await slow.ended(120)).outcome == "cancelled"
    assert (await other.ended(120)).outcome == "verified"


def away(lab: Lab) -> Path:
    """Copy backups and archive off-site, as rsync would."""
    vault = lab.place.copies.parent / "vault"
    shutil.rmtree(vault, ignore_errors=True)
    vault.mkdir()
    for folder in (lab.place.backups, lab.place.archive):
        shutil.copytree(folder, vault / folder.name)
    for path in (vault, *vault.rglob("*")):
        lab.primary.who.own(path)
    return vault


async def test_copy_off_site_is_compared(lab: Lab, engine: Running) -> None:
    await archived(lab)
    home = [min(lab.place.backups.iterdir()) / "backup_manifest", lab.place.archive / lab.primary.archived()[1]]
    newest = max(path.stat().st_mtime for path in home)
    await eventually(lambda: datetime.now(UTC).timestamp() > newest + LATE + 1, "they have to be off-site", 60)
    vault = away(lab)
    try:
        report = await verified(engine, "at-vault")
        assert report.outcome == "verified", (report.failure, report.blockers)
        backup = min((vault / "backups").iterdir())
        flip(backup / "backup_manifest")
        (segment := vault / "archive" / home[1].name).unlink()
        report = await verified(engine, "at-vault")
        assert report.outcome == "failed"
        assert len(report.blockers) == 2
        assert f"backup {backup.name} in vault:{vault}/backups is another one" in report.blockers[0]
        assert f"the log {segment.name} is missing in vault:{vault}/archive" in report.blockers[1]
        shutil.rmtree(backup)
        report = await verified(engine, "at-vault")
        assert f"backup {backup.name} is not in vault" in report.blockers[0]
        nothing_left(lab)
    finally:
        shutil.rmtree(vault)


async def test_site_that_is_not_reached_is_a_breach_and_the_restore_is_proven(lab: Lab, engine: Running) -> None:
    report = await (await start(engine, "at-gone")).ended(300)
    assert report.outcome == "failed"
    (breach,) = report.blockers
    assert breach.startswith("policy.offsite: what is on gone cannot be seen: host 127.0.0.1:1: cannot be reached")
    assert "proven at" in figures(report)
    nothing_left(lab)


async def test_schedule_tells_once_and_remembers_when_it_last_worked(lab: Lab, engine: Running) -> None:
    schedule = await scheduled(engine, "nightly")
    runs: list[str] = []
    try:
        first = await once(engine, schedule, runs)
        assert first.outcome == "verified"
        proven = (await attributes(engine, runs[-1]))["RecoveryProvenAt"]
        assert proven > first.started_at
        customers(lab, "insert into customers values (201, 'too many')")
        for outcome in ("failed", "failed", "verified", "verified"):
            if outcome == "verified":
                customers(lab, "delete from customers where id = 201")
            await archived(lab)
            assert (report := await once(engine, schedule, runs)).outcome == outcome, report.failure
            said = await attributes(engine, runs[-1])
            assert said["RecoveryVerdict"] == ("proven" if outcome == "verified" else "not proven")
            assert (said["RecoveryProvenAt"] == proven) == (outcome == "failed"), "one that fails carries it on"
    finally:
        await schedule.delete()
        customers(lab, "delete from customers where id = 201")
    since = proven + timedelta(seconds=1)  # lists compare times less finely than they keep them
    query = f"RecoveryRunbook = 'lab/nightly' AND RecoveryProvenAt > '{since.isoformat()}'"
    later = {one.run_id async for one in engine.client.list_workflows(query)}
    assert later == set(runs[-2:])
    told = [one.id async for one in engine.client.list_workflows("WorkflowType = 'Notification'")]
    assert len([one for one in told if any(run in one for run in runs)]) == 2, told


async def scheduled(engine: Running, runbook: str) -> ScheduleHandle:
    given = {"runbook": f"lab/{runbook}", "reason": "a schedule", "requested_by": "the schedule"}
    queue = engine.settings.task_queue
    action = ScheduleActionStartWorkflow("RestoreVerification", given, id=f"lab/{runbook}", task_queue=queue)
    spec = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(days=1))])
    paused = ScheduleState(paused=True)
    return await engine.client.create_schedule(runbook, Schedule(action=action, spec=spec, state=paused))


async def once(engine: Running, schedule: ScheduleHandle, runs: list[str]) -> Report:
    """Have the schedule start it now; return its last report."""
    await schedule.trigger()

    async def ended() -> Report | None:
        found = (await schedule.describe()).info.recent_actions
        if len(found) <= len(runs):
            return None
        ran = found[-1].action
        runs.append(ran.first_execution_run_id)  # type: ignore[attr-defined]
        return await Recovery(engine.client.get_workflow_handle(ran.workflow_id, run_id=runs[-1])).ended(120)  # type: ignore[attr-defined]

    report: Report = await eventually(ended, "the verification ends", 120)
    return report


async def attributes(engine: Running, run: str) -> Mapping[str, Any]:
    (listed,) = await found(engine, f"RunId = '{run}'")
    return listed


def customers(lab: Lab, sql: LiteralString) -> None:
    with lab.postgres.connect("orders") as connection:
        connection.execute(sql)
