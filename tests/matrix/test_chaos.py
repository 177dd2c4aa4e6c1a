"""Anything at any time: every recovery ends in a named outcome that is true of the world."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest
import yaml

from lab.estate import Lab
from lab.place import runner
from recovery.report import Report
from tests.conftest import SEED, FreshLab
from tests.matrix.chaos import Faults
from tests.matrix.mounts import mounted, mounts
from tests.matrix.people import PATIENCE, Meddling, People, closed
from tests.matrix.plans import Plan, drawn
from tests.matrix.relay import Relay, relay
from tests.matrix.verdicts import Case
from tests.matrix.world import Watch, World
from tests.running import PROCEDURE, ROOT, Recovery, Running, eventually, running

DISK = 800  # megabytes; so small that it can be filled at once, so large that nothing but that fills it
RUNBOOKS = {"none": "restore-orders", "replace": "replace-orders", "extract": "extract-orders"}
HOLD = {"roles": ["dba"], "within": "PT15S", "dark_within": "PT8S"}
SOAK = float(os.environ.get("RECOVERY_SOAK_SECONDS", "600"))
ONLY = os.environ.get("RECOVERY_CHAOS_ONLY", "")  # numbers of recoveries, to repeat those alone: 3,17


def catalog(folder: Path, lab: Lab, between: Relay) -> Path:
    """Write the lab's runbooks with short deadlines, for a host that is reached through ``between``."""
    known = folder / "known_hosts"
    known.write_text((lab.place.ssh / "known_hosts").read_text().replace(str(lab.ports["ssh"]), str(between.port)))
    (own := folder / "catalogs" / "chaos").mkdir(parents=True)
    estate = yaml.safe_load((ROOT / "runbooks/lab/estate.yaml").read_text())
    estate["hosts"]["north-db"] |= {"port": between.port, "known_hosts": str(known)}
    (own / "estate.yaml").write_text(yaml.safe_dump(estate))
    for name in RUNBOOKS.values():
        runbook = yaml.safe_load((ROOT / f"runbooks/lab/{name}.yaml").read_text()) | {"hold": HOLD, "not_after": "PT2M"}
        for gate in runbook["gates"].values():
            gate |= {"within": "PT15S", "valid": "PT45S"}
        if name == "extract-orders":
            runbook["parameters"]["extract"].append({"table": "public.customers"})
        if name == "replace-orders":
            runbook["parameters"]["await_write"] = "PT10S"
        (own / f"{name}.yaml").write_text(yaml.safe_dump(runbook))
    return own.parent


class Chaos:
    """One recovery after the other on one lab."""

    def __init__(self, lab: Lab, engine: Running, between: Relay, full: bool) -> None:
        self.lab, self.engine, self.full = lab, engine, full
        self.world, self.faults = World(lab), Faults(lab, engine, between)
        self.watch = Watch(self.world)
        self.outcomes: list[str] = []

    async def one(self, number: int, window: float) -> None:
        """Have one recovery, with whatever chance has in store for it, and compare its end with the world."""
        plan = drawn(f"{SEED}/{number}", window, self.full)
        self.faults.start()
        report: Report | None = None
        try:
            report = await asyncio.wait_for(self._one(number, plan), 600)
        except BaseException:
            self._tell_logs()
            raise
        finally:
            self.outcomes.append(f"{number} {plan.mode} {plan.cutover}: {report.outcome if report else 'BROKEN'}")
            print("\n".join([f"RECOVERY_TEST_SEED={SEED}: {plan}", "--- what happened", *self.faults.log]))
            print(f"--- {self.outcomes[-1]}: {report.failure if report else ''}\n")

    async def _one(self, number: int, plan: Plan) -> Report:
        await eventually(lambda: len(self.world.acknowledged()) > 100, "some orders")
        damage = await self.world.damaged(plan.accident, (number * 37 % 100) / 100)
        before = await asyncio.to_thread(self.world.before)
        recovery = await self._started(number, plan, damage.target.isoformat())
        report = await self._through(recovery, plan)
        case = await self._case(plan, before, damage, report)
        broken = case.faults()
        assert not broken, "\n".join([f"{report.outcome}: {report.failure}", *broken])
        if report.residual and not report.committed:
            await self._undone(case, recovery)
        assert not self.watch.broken, self.watch.broken
        self.world.mend()
        await self.world.clear()
        await self.engine.freed("chaos/orders")
        return report

    async def _case(self, plan: Plan, before: object, damage: object, report: Report) -> Case:
        await self.world.quiet()
        self.world.told = self.world.acknowledged()
        return Case(self.world, plan, before, damage, report)  # type: ignore[arg-type]

    async def _started(self, number: int, plan: Plan, target: str) -> Recovery:
        start = {
            "runbook": f"chaos/{RUNBOOKS[plan.cutover]}", "reason": "chaos", "requested_by": "alice",
            "mode": plan.mode, "parameters": {"target_time": target},
        }  # fmt: skip
        queue = self.engine.settings.task_queue
        return Recovery(
            await self.engine.client.start_workflow(PROCEDURE, start, id=f"chaos/{number}", task_queue=queue)
        )

    async def _through(self, recovery: Recovery, plan: Plan) -> Report:
        """Let everything strike until it is over, heal, and see it end."""
        people, note = People(plan, self.faults.note), self.faults.note
        meddling = Meddling(self.engine.client, recovery, plan, note)
        async with people.around(recovery):
            await self._until_it_begins(recovery, plan, people)
            async with self.faults.striking(plan), meddling.interfering():
                await self._struck(recovery, plan)
            if meddling.terminated and not plan.undo_in_peace:
                recovery.handle = (await self._undo(recovery)).handle
            await self.faults.healed()
            people.calm = True
            note("nothing strikes any more")
            assert await closed(recovery, PATIENCE), f"no end within {PATIENCE} s: {await recovery.status()}"
        if meddling.terminated and plan.undo_in_peace:
            return await self._undone_in_peace(recovery, plan)
        return await self._last(recovery)

    async def _until_it_begins(self, recovery: Recovery, plan: Plan, people: People) -> None:
        """Wait for the approval, where everything is to fall into the cut-over."""
        while plan.late and not people.approved.is_set() and not await closed(recovery, 0):
            await asyncio.sleep(0.05)
        self.faults.note("it begins")

    async def _struck(self, recovery: Recovery, plan: Plan) -> None:
        until = time.monotonic() + plan.seconds
        while time.monotonic() < until and not await closed(recovery, 0):
            await asyncio.sleep(0.2)

    async def _undo(self, recovery: Recovery) -> Recovery:
        """Ask for the undo of what was terminated."""
        self.faults.note("somebody asks for its undo")
        ask = {"workflow": recovery.handle.id, "reason": "chaos", "requested_by": "bob"}
        name, queue = f"undo/{recovery.handle.id}", self.engine.settings.task_queue
        return Recovery(await self.engine.client.start_workflow("Undo", ask, id=name, task_queue=queue))

    async def _undone_in_peace(self, recovery: Recovery, plan: Plan) -> Report:
        undoing = await self._undo(recovery)
        people = People(plan, self.faults.note)
        people.calm = True
        async with people.around(undoing):
            assert await closed(undoing, PATIENCE), f"no end of the undo within {PATIENCE} s: {await undoing.status()}"
        return await self._last(undoing)

    async def _undone(self, case: Case, recovery: Recovery) -> None:
        """Undo what was left once nothing strikes any more: then all must be as before."""
        name = recovery.handle.id.removeprefix("undo/")
        handle = self.engine.client.get_workflow_handle(name)
        report = await self._undone_in_peace(Recovery(handle), case.plan)
        again = await self._case(case.plan, case.before, case.damage, report)
        broken = again.as_before()
        assert (report.outcome, broken) == ("compensated", []), (report.failure, report.residual, broken)

    async def _last(self, recovery: Recovery) -> Report:
        report: Report = await eventually(recovery.status, "its report", 30)
        return report

    def _tell_logs(self) -> None:
        """Print what helps to understand it."""
        for name, file in self._logs().items():
            print(f"--- {name}\n{file.read_text(errors='replace')[-3000:]}" if file.exists() else f"--- no {name}")

    def _logs(self) -> dict[str, Path]:
        place = self.lab.place
        copies = {f"log of {path.parent.name}": path for path in place.copies.glob("*/log")}
        return {"worker": self.engine.settings.state / "worker.log", "postgres": place.north / "postgres.log", **copies}


@contextlib.contextmanager
def standing(lab: Lab) -> Iterator[bool]:
    """Have the lab under load, its host on a small disk where this user may mount; tell whether it is."""
    with contextlib.ExitStack() as stack:
        if mounts():
            with lab.place.locked():
                lab._prepare(runner())
            stack.enter_context(mounted(lab.place.north, DISK))
        try:
            lab.up(rate=40)
            yield mounts()
        finally:
            lab.down(purge=False)


@contextlib.asynccontextmanager
async def chaos(lab: Lab, folder: Path) -> AsyncIterator[Chaos]:
    """Have a lab, a worker, a relay before its host, and a watch."""
    with standing(lab) as full:
        async with relay(lab.ports["ssh"]) as between:
            catalogs = str(catalog(folder, lab, between))
            async with running(lab, RECOVERY_CATALOGS=catalogs) as engine:
                found = Chaos(lab, engine, between, full)
                async with found.watch.always():
                    yield found
                assert found.watch.looks > 10


async def test_chaos_ends_in_outcomes_that_are_true(fresh_lab: FreshLab, tmp_path: Path) -> None:
    async with chaos(fresh_lab(), tmp_path) as found:
        await found.one(0, window=8)


@pytest.mark.soak
async def test_ten_minutes_of_chaos_end_in_outcomes_that_are_true(fresh_lab: FreshLab, tmp_path: Path) -> None:
    async with chaos(fresh_lab(), tmp_path) as found:
        numbers = iter(map(int, ONLY.split(","))) if ONLY else count(1)
        until = time.monotonic() + SOAK
        try:
            for number in numbers:
                await found.one(number, window=25)
                if time.monotonic() > until:
                    break
        finally:
            print("\n".join(found.outcomes))
