"""Record histories of every outcome on labs of their own: ``python -m tests.histories.record [NAME …]``.

Until version 0.1 they may be recorded anew, in a commit that says why; afterwards never.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lab import ledger
from lab.estate import Lab
from lab.repository import Repository, Version
from tests.clusters import control_plane
from tests.copies import drop_all
from tests.furnishing import furnished as furnished_with
from tests.matrix.two_sites import session_store
from tests.recovery.test_undoing import reset
from tests.running import ROOT, Recovery, Running, eventually, running

HERE = Path(__file__).parent


async def recovered(engine: Running) -> Recovery:
    """A second person approves."""
    recovery = await engine.start("live", target_time=datetime.now(UTC) - timedelta(seconds=2))
    await recovery.approve()
    return recovery


async def compensated(engine: Running) -> Recovery:
    """A second person rejects; before that a stranger tries, by signal."""
    recovery = await engine.start("live", target_time=datetime.now(UTC) - timedelta(seconds=2))
    await recovery.until("gate")
    await recovery.handle.signal("approve", {"gate": "keep the copy", "by": "mallory", "plan": "x"})
    await recovery.approve("carol", "reject")
    return recovery


async def cancelled(engine: Running) -> Recovery:
    """Somebody cancels at the gate."""
    recovery = await engine.start("live", target_time=datetime.now(UTC) - timedelta(seconds=2))
    await recovery.until("gate")
    await recovery.handle.cancel()
    return recovery


async def drilled(engine: Running) -> Recovery:
    """Everything is done and put back."""
    return await engine.start("drill", target_time=datetime.now(UTC) - timedelta(seconds=2))


async def checked(engine: Running) -> Recovery:
    """Nothing is changed."""
    return await engine.start("check", id="lab/orders/check", target_time=datetime.now(UTC) - timedelta(seconds=2))


async def failed(engine: Running) -> Recovery:
    """The target lies outside what can be restored."""
    return await engine.start("live", target_time=datetime.now(UTC) - timedelta(days=1))


async def recovered_replaced(engine: Running) -> Recovery:
    """The running database is replaced, step by step at first, with a note."""
    recovery = await engine.start("live", runbook="lab/replace-orders", target_time=_just_now())
    await recovery.until("gate")
    await recovery.handle.signal("hold", {"by": "carol", "reason": "look at each step"})
    await recovery.handle.signal("note", {"by": "carol", "text": "the vendor was told"})
    await recovery.approve()
    await recovery.resolve("step")
    await recovery.resolve("continue")
    return recovery


async def compensated_shut(engine: Running) -> Recovery:
    """Somebody holds the recovery when clients are shut out already, and has it go back."""
    recovery = await engine.start("live", runbook="lab/replace-orders", target_time=_just_now())
    await recovery.until("gate")
    await recovery.handle.signal("hold", {"by": "carol", "reason": "look at each step"})
    await recovery.approve()
    await recovery.resolve("step")
    await recovery.resolve("compensate")
    return recovery


async def compensated_reset(engine: Running) -> Recovery:
    """A run is reset at its gate, holds, and goes back."""
    recovery = await engine.start("live", target_time=_just_now())
    await recovery.until("gate")
    again = await reset(engine.client, recovery, "verify-the-copy-of-orders.observe")
    await again.resolve("compensate")
    return again


async def compensated_undone(engine: Running) -> Recovery:
    """A run is terminated at its gate, and undone from its history."""
    recovery = await engine.start("live", target_time=_just_now())
    await recovery.until("gate")
    await recovery.handle.terminate()
    ask = {"workflow": recovery.handle.id, "reason": "it was terminated", "requested_by": "bob"}
    queue = engine.settings.task_queue
    return Recovery(await engine.client.start_workflow("Undo", ask, id="undo/lab/orders", task_queue=queue))


async def recovered_extracted(engine: Running) -> Recovery:
    """Rows that were deleted go back."""
    target = _just_now()
    with engine_lab(engine).postgres.connect("orders") as connection:
        connection.execute("delete from orders where number < 50")
    recovery = await engine.start("live", runbook="lab/extract-orders", target_time=target)
    await recovery.approve()
    return recovery


async def cancelled_committed(engine: Running) -> Recovery:
    """Somebody cancels after the point of no return: nothing is undone, and the report says so."""
    backups = engine_lab(engine).place.backups
    newest = max(folder.stat().st_ctime for folder in backups.iterdir())
    await eventually(lambda: datetime.now(UTC).timestamp() > newest + 4, "the last cut-over's backup is behind us")
    recovery = await engine.start("live", runbook="lab/replace-orders", target_time=_just_now())
    await recovery.until("gate")
    await recovery.approve()

    async def committed() -> bool:
        found = await recovery.status()
        return bool(found and found.committed and not found.dark)

    await eventually(committed, "clients are let in", pause=0.01)
    await recovery.handle.cancel()
    return recovery


async def recovered_switched(engine: Running) -> Recovery:
    """Everything moves to south."""
    recovery = await _activate(engine, "south")
    await recovery.approve()
    return recovery


async def compensated_switched(engine: Running) -> Recovery:
    """Somebody steps up to where north is fenced and south not promoted yet, and has it go back."""
    recovery = await _activate(engine, "north")
    await recovery.until("gate")
    await recovery.handle.signal("hold", {"by": "carol", "reason": "look at each step"})
    await recovery.approve()
    while (hold := (await recovery.until("hold")).hold) and not hold.step.startswith("promote"):
        await recovery.resolve("step")
    await recovery.resolve("compensate")
    return recovery


async def recovered_taken_over(engine: Running) -> Recovery:
    """Everything at north is killed, cut off from south, and south takes over."""
    lab = engine_lab(engine)
    await asyncio.to_thread(lab.break_, "partition")
    count = len(ledger.acknowledged(lab.place.load))
    await eventually(lambda: len(ledger.acknowledged(lab.place.load)) > count + 20, "orders that south lacks")
    engine.kill_worker()
    await asyncio.to_thread(lab.break_, "north")
    recovery = await _start(engine, "DataCenterActivation", "take-over-south", watch="PT1S")
    await recovery.until("gate")
    await recovery.approve("carol")
    return recovery


async def recovered_fenced(engine: Running) -> Recovery:
    """North is back, and fenced."""
    await asyncio.to_thread(engine_lab(engine).heal)
    engine.start_worker()
    return Recovery(engine.client.get_workflow_handle("lab/fence-north"))


async def recovered_home(engine: Running) -> Recovery:
    """North is gone home to; what only it has is exported."""
    recovery = await _start(engine, "Failback", "fail-back-north", watch="PT1S", steady="PT3S")
    for gate in ("rebuild", "switch over", "declare"):
        await recovery.until(f"gate: {gate}")
        await recovery.approve("carol")
    return recovery


async def checked_sessions(engine: Running) -> Recovery:
    """Both sites have the sessions."""
    return await _sessions(engine, "SessionReplicationCheck", "check-sessions")


async def recovered_reattached(engine: Running) -> Recovery:
    """Both stores took sessions; that of south is kept, and becomes the replica again."""
    with session_store(engine_lab(engine).sites["south"]) as south:
        south.replicaof("NO", "ONE")
        south.mset({f"session:only-south-{number}": number for number in range(20)})
    recovery = await _sessions(engine, "SessionRecovery", "reattach-sessions-south")
    await recovery.approve()
    return recovery


async def recovered_restored(engine: Running) -> Recovery:
    """Sessions were lost at north, and go back from a snapshot."""
    north = engine_lab(engine).sites["north"]
    lost = [f"session:lost-{number}" for number in range(20)]
    with session_store(north) as client:
        client.mset(dict.fromkeys(lost, "here"))
        client.save()
        client.delete(*lost)
    (folder := north.place.copies / "lost").mkdir()
    for path in (folder, snapshot := Path(shutil.copy(north.place.valkey / "dump.rdb", folder))):
        north.who.own(path)
    recovery = await _sessions(engine, "SessionRecovery", "restore-sessions", snapshot=str(snapshot))
    await recovery.approve()
    return recovery


async def recovered_promoted(engine: Running) -> Recovery:
    """South's store takes sessions instead of north's, which has everything and can be fenced."""
    recovery = await _sessions(engine, "SessionRecovery", "promote-sessions-south")
    await recovery.approve()
    return recovery


async def recovered_rolled_back(engine: Running) -> Recovery:
    """A deployment after which no order is taken is rolled back, in the repository and on both hosts."""
    engine_lab(engine).break_("configuration")
    recovery = await _start(
        engine, "ConfigurationRollback", "roll-back-shop", "shop", deployment="deployed-3", settle="PT2S"
    )
    await recovery.approve()
    return recovery


async def compensated_rolled_back(engine: Running) -> Recovery:
    """One to a revision that does not help is taken back by itself."""
    lab = engine_lab(engine)
    never = Repository(lab.place.repository).add([Version("Take none", "max_amount=00\n", "deployed-4", "unhealthy")])
    lab.break_("configuration")
    recovery = await _start(engine, "ConfigurationRollback", "roll-back-shop", "shop", revision=never, settle="PT2S")
    await recovery.approve()
    return recovery


async def verified(engine: Running) -> Recovery:
    """The newest backup is restored, proven and dropped."""
    await _archived(engine_lab(engine))
    return await _verify(engine)


async def failed_unproven(engine: Running) -> Recovery:
    """What a verification asks has another answer than it should; people are told, and the copy is dropped."""
    lab = engine_lab(engine)
    with lab.postgres.connect("orders") as connection:
        connection.execute("insert into customers values (201, 'one too many')")
    await _archived(lab)
    return await _verify(engine)


async def _verify(engine: Running) -> Recovery:
    asked = {"runbook": "lab/verify-orders", "reason": "a test", "requested_by": "alice"}
    queue = engine.settings.task_queue
    name = "lab/verify-orders"
    return Recovery(await engine.client.start_workflow("RestoreVerification", asked, id=name, task_queue=queue))


async def _archived(lab: Lab) -> None:
    """Have what was committed so far in the archive, and orders after it."""
    count = len(ledger.acknowledged(lab.place.load))
    await eventually(lambda: len(ledger.acknowledged(lab.place.load)) > count + 5, "some orders")
    with lab.postgres.connect("orders") as connection:
        row = connection.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
    assert row is not None
    await eventually(lambda: row[0] in lab.postgres.archived(), "the log is archived")


async def _activate(engine: Running, site: str) -> Recovery:
    return await _start(engine, "DataCenterActivation", f"activate-{site}", watch="PT1S")


async def _sessions(engine: Running, procedure: str, runbook: str, **parameters: str) -> Recovery:
    return await _start(engine, procedure, runbook, "sessions", **parameters)


async def _start(engine: Running, procedure: str, runbook: str, system: str = "orders", **parameters: str) -> Recovery:
    asked = {"runbook": f"lab/{runbook}", "reason": "a test", "requested_by": "alice", "parameters": parameters}
    queue = engine.settings.task_queue
    return Recovery(await engine.client.start_workflow(procedure, asked, id=f"lab/{system}", task_queue=queue))


def _just_now() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=2)


def engine_lab(engine: Running) -> Lab:
    """Return the lab of ``engine``."""
    return Lab(Path(engine.environment["RECOVERY_LAB"]), engine.settings.state)


Scene = Callable[[Running], Awaitable[Recovery]]


def furnished(scene: Scene) -> Scene:
    """Return a scene of the same outcome for a lab that has all that a lab can have."""

    async def played(engine: Running) -> Recovery:
        return await scene(engine)

    outcome, _, story = scene.__name__.partition("_")
    played.__name__ = f"{outcome}_furnished_{story}"
    return played


SWITCHES: tuple[Scene, ...] = (recovered_switched, compensated_switched)
LOSSES: tuple[Scene, ...] = (recovered_taken_over, recovered_fenced, recovered_home)
FURNISHED: tuple[tuple[Scene, ...], ...] = tuple(tuple(map(furnished, scenes)) for scenes in (SWITCHES, LOSSES))
SESSIONS: tuple[Scene, ...] = (checked_sessions, recovered_reattached, recovered_restored, recovered_promoted)
ROLLBACKS: tuple[Scene, ...] = (recovered_rolled_back, compensated_rolled_back)
VERIFICATIONS: tuple[Scene, ...] = (verified, failed_unproven)
SCENES: tuple[Scene, ...] = (
    recovered, compensated, cancelled, drilled, checked, failed, compensated_reset, compensated_undone,
    recovered_extracted, compensated_shut, recovered_replaced, cancelled_committed,
)  # fmt: skip


def portable(value: Any) -> Any:
    """Return a history without the paths of the machine that recorded it: in payloads, and in stack traces."""
    if isinstance(value, list):
        return [portable(item) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("data"), str) and "metadata" in value:
        plain = base64.b64decode(value["data"]).replace(str(ROOT).encode(), b"/opt/recovery")
        value = value | {"data": base64.b64encode(plain).decode()}
    return {key: "" if key == "stackTrace" else portable(item) for key, item in value.items()}


def _named(scene: Scene) -> str:
    return scene.__name__.replace("_", "-")


async def record(scenes: Sequence[Scene], south: bool) -> None:
    """Play ``scenes``, one after the other, in a lab of one site or of both, each with a worker of its own."""
    more = any(scene in known for known in FURNISHED for scene in scenes)
    folder = Path(tempfile.mkdtemp(prefix="histories-"))
    folder.chmod(0o755)  # the lab's servers run as another user under root
    lab = Lab(folder / "lab", folder / "state")
    try:
        lab.up(south=south)
        await eventually(lambda: len(ledger.acknowledged(lab.place.load)) > 400, "four seconds of orders")
        at = {"RECOVERY_SITE": "north" if south else ""}
        async with _catalogs(lab, folder, more) as own, running(lab, None, True, **at, **own) as engine:
            second = replace(engine, process=None, environment={**engine.environment, "RECOVERY_SITE": "south"})
            if south:
                second.start_worker()
            try:
                for scene in scenes:
                    await _play(scene, engine)
                    drop_all(lab)
            finally:
                second.kill_worker()
    finally:
        lab.down()
        shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def _catalogs(lab: Lab, folder: Path, more: bool) -> AsyncIterator[dict[str, str]]:
    """Run what a lab can have besides, if ``more`` is wanted; yield where the catalog is that has it."""
    if not more:
        yield {}
        return
    with control_plane() as cluster:
        async with furnished_with(lab, cluster, folder / "more", usual=2) as found:
            found.author(folder / "catalogs" / "lab")
            yield {"RECOVERY_CATALOGS": str(folder / "catalogs")}


async def _play(scene: Scene, engine: Running) -> None:
    recovery = await scene(engine)
    report = await recovery.ended(180)
    assert report.outcome == scene.__name__.partition("_")[0], report
    history = await recovery.handle.fetch_history()
    text = json.dumps(portable(json.loads(history.to_json())), indent=1)
    (HERE / f"{_named(scene)}.json").write_text(text + "\n")


async def main(names: Sequence[str]) -> None:
    """Write ``<outcome>[-<story>].json`` beside this file for every scene, or for those of these names."""
    alone, both = (SCENES, VERIFICATIONS), (SWITCHES, LOSSES, SESSIONS, ROLLBACKS, *FURNISHED)
    for scenes, south in (*((some, False) for some in alone), *((some, True) for some in both)):
        if wanted := [scene for scene in scenes if not names or _named(scene) in names]:
            await record(wanted, south)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
    os._exit(0)  # the SDK's threads may abort an interpreter that shuts down in the ordinary way
