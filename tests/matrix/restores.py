"""How each procedure is run on the lab, and what the lab's systems show afterwards: not what the procedure says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from temporalio.client import WorkflowExecution
from temporalio.service import RPCError

from lab.estate import Lab
from lab.processes import Process
from recovery.leases import Lease
from recovery.models import Verdict
from recovery.names import LEASE
from recovery.report import Report
from tests.copies import ask_copy, contents, postmasters, strangers, sweep
from tests.running import Recovery, Running, eventually


class Run:
    """One procedure on the lab, started again and again with the same words: every run must end alike."""

    name: ClassVar[str]
    apart: ClassVar[bool] = False
    """Whether it needs a lab of its own."""
    proper: ClassVar[Mapping[Verdict, Mapping[str, object]]] = {}
    """What an undisturbed run has to show, by verdict, if that is the same in any lab."""

    def __init__(self, lab: Lab, target: datetime) -> None:
        self.lab, self.target = lab, target

    async def start(self, engine: Running) -> Recovery:
        """Start it, live."""
        raise NotImplementedError

    async def check(self, engine: Running) -> Recovery:
        """Start it as a check."""
        raise NotImplementedError

    def shows(self, report: Report) -> Mapping[str, object]:
        """Return what the systems show, without what differs between two runs that did the same."""
        raise NotImplementedError

    def seen(self) -> object:
        """Return more of what was seen last, for whoever has to find out why it is wrong."""
        return ""

    def proves(self, shown: Mapping[Verdict, Mapping[str, object]]) -> None:
        """Compare what undisturbed runs showed with what has to be so in any lab."""
        for verdict, wanted in self.proper.items():
            assert shown[verdict] == wanted, f"{verdict}: {shown[verdict]}"

    def stays(self, approved: Mapping[str, object], told: Report, last: Report) -> None:
        """Compare the systems, past the point of no return, with an approved run: nothing must have been undone."""
        raise NotImplementedError

    def clear(self) -> None:
        """Take away what a run left."""
        raise NotImplementedError


class Restore(Run):
    """The restore of the lab's orders to a side copy."""

    name = "restore"

    def __init__(self, lab: Lab, target: datetime) -> None:
        super().__init__(lab, target)
        with lab.postgres.connect("orders") as connection:
            rows = connection.execute("select max(number) from orders where placed_at < %s", (target,)).fetchone()
        assert rows is not None
        self._last = rows[0]
        self._archived = lab.postgres.archived()

    async def start(self, engine: Running) -> Recovery:
        """Start it for the one target."""
        return await engine.start("live", target_time=self.target)

    async def check(self, engine: Running) -> Recovery:
        """Start it as a check, which has an id of its own."""
        return await engine.start("check", id="lab/orders/check", target_time=self.target)

    def shows(self, report: Report) -> Mapping[str, object]:
        """Return the copies with their rows, what is beside them, and the running database."""
        place = self.lab.place
        return {
            "copies": [self._copy(folder, report) for folder in sorted(place.copies.iterdir())],
            "servers": len(postmasters(self.lab)),
            "jobs": sorted(path.name for path in place.jobs.glob("[!.]*")),
            "database": self._database(),
            "backups": _digest(place.backups, sorted(place.backups.rglob("*"))),
            "archive": _digest(place.archive, [place.archive / name for name in self._archived]),
        }

    def proves(self, shown: Mapping[Verdict, Mapping[str, object]]) -> None:
        """Compare the two verdicts: only the copy makes the difference."""
        assert shown["approve"]["copies"]
        assert shown["reject"] == {**shown["approve"], "copies": [], "servers": 0, "jobs": []}

    def clear(self) -> None:
        """Drop every copy and every job."""
        sweep(self.lab)

    def _copy(self, folder: Path, report: Report) -> dict[str, object]:
        told = "select pg_is_in_recovery(), pg_get_wal_replay_pause_state(), pg_last_wal_replay_lsn()"
        owner = (folder / "owner").read_text() if (folder / "owner").exists() else "nobody"
        whole = folder.suffix != ".partial"
        return {
            "name": folder.name.rpartition("-")[0] + folder.suffix,
            "owner": owner.replace(f"{report.workflow}@{report.run}", "THIS RUN"),
            "files": sorted(path.name for path in folder.iterdir()),
            "stands": ask_copy(self.lab, told, folder) if whole else [],
            "rows": contents(self.lab, folder) if whole else {},
        }

    def _database(self) -> tuple[Process | None, object]:
        with self.lab.postgres.connect("orders") as connection:
            rows = connection.execute(
                "select pg_is_in_recovery(), (select md5(string_agg(o::text, ',' order by number)) from orders o"
                " where number <= %s), (select md5(string_agg(c::text, ',' order by id)) from customers c),"
                " (select md5(string_agg(name || setting, ',' order by name)) from pg_settings)",
                (self._last,),
            ).fetchone()
        return self.lab.postgres.running(), rows


async def quiet(lab: Lab, engine: Running) -> None:
    """Wait until the lab runs nothing but its programs and copies' servers, and Temporal has no open workflow.

    Leases stay for ever, but nobody holds one or waits for it.
    """

    async def still() -> list[str]:
        try:
            found = engine.client.list_workflows("ExecutionStatus = 'Running'")
            return [*strangers(lab), *[f"{run.id} is open" async for run in found if not await free(run)]]
        except RPCError as error:
            return [error.message]

    async def free(run: WorkflowExecution) -> bool:
        if run.workflow_type != LEASE:
            return False
        lease: Lease = await engine.client.get_workflow_handle(run.id).query("lease", result_type=Lease)
        return lease.holder is None and not lease.queue

    async def nothing() -> bool:
        return not await still()

    try:
        await eventually(nothing, "nothing is left", 10)
    except AssertionError:
        left = await still()  # once more: a database that archives has children all the time
        assert not left, left


def _digest(root: Path, files: list[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        if file.is_file():
            found.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()
