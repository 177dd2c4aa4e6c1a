"""A worker as its own process beside a lab and its own embedded Temporal, and the words tests use for a recovery."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode

from lab.estate import Lab
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.leases import Lease
from recovery.models import Decision, Resolution
from recovery.report import Report
from recovery.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PROCEDURE = "DatabasePointInTimeRestore"
SLOWER = 2
"""How many times as long as usual anything may take: machines that do much else are not what is tested."""


async def eventually(look: Callable[[], Any], what: str, seconds: float = 30.0, pause: float | None = None) -> Any:
    """Return the first true answer of ``look`` (plain or awaitable); fail after ``seconds``, or so, naming ``what``.

    Between two looks it rests for ``pause``, else for a tenth of the time that it has waited: a look has its price.
    """
    began = time.monotonic()
    while True:
        answer = look()
        answer = await answer if asyncio.iscoroutine(answer) else answer
        if answer:
            return answer
        waited = time.monotonic() - began
        assert waited < seconds * SLOWER, f"not within {seconds * SLOWER} s: {what}"
        await asyncio.sleep(min(max(waited / 10, 0.02), 0.3) if pause is None else pause)


def reset_points(history: WorkflowHistory) -> list[int]:
    """Return the ends of the workflow tasks that a run can be reset to, whether they did anything or not.

    A second try (the first had timed out, say) is none: the server writes it in one piece, and cannot rebuild a run to
    within it.
    """
    attempts = {e.event_id: e.workflow_task_scheduled_event_attributes.attempt for e in history.events}

    def scheduled(event: HistoryEvent) -> int:
        return (
            event.workflow_task_completed_event_attributes.scheduled_event_id
            or event.workflow_task_timed_out_event_attributes.scheduled_event_id
            or event.workflow_task_failed_event_attributes.scheduled_event_id
        )

    return [event.event_id for event in history.events if attempts.get(scheduled(event)) == 1]


@dataclass
class Recovery:
    """A started recovery."""

    handle: WorkflowHandle[Any, Any]

    async def status(self) -> Report | None:
        """Return the report, or None while nobody can answer (a worker or server that was just killed)."""
        with contextlib.suppress(RPCError):
            return Report.model_validate(
                await self.handle.query("status", rpc_timeout=timedelta(seconds=5), result_type=Report)
            )
        return None

    async def until(self, phase: str, seconds: float = 90.0) -> Report:
        """Wait until the phase begins with ``phase``."""

        async def look() -> Report | None:
            found = await self.status()
            return found if found and (found.phase.startswith(phase) or found.outcome != "running") else None

        report: Report = await eventually(look, f"phase {phase}", seconds)
        assert report.phase.startswith(phase), f"{report.phase}: {report.failure}"
        return report

    async def approve(self, by: str = "bob", verdict: str = "approve") -> Any:
        """Decide at the open gate, on what it shows."""
        report = await self.until("gate")
        gate = next(g for g in report.gates if not g.closed)
        decision = Decision.model_validate(
            {"gate": gate.gate, "by": by, "plan": gate.plan, "evidence": gate.evidence, "verdict": verdict}
        )
        await self._settled()
        return await self.handle.execute_update("decide", decision)

    async def resolve(self, answer: str, by: str = "bob", reason: str = "a test") -> Any:
        """Answer at the open hold."""
        hold = (await self.until("hold")).hold
        assert hold is not None
        said = Resolution.model_validate({"hold": hold.token, "by": by, "answer": answer, "reason": reason})
        await self._settled()
        return await self.handle.execute_update("resolve_step", said)

    async def _settled(self) -> None:
        """Wait until no workflow task is under way: a query tells where one leads, and an update may come before it."""

        async def look() -> bool:
            with contextlib.suppress(RPCError):
                found = await self.handle.describe(rpc_timeout=timedelta(seconds=5))
                return not found.raw_description.HasField("pending_workflow_task")
            return False

        await eventually(look, "no workflow task is under way", 60)

    async def ended(self, seconds: float = 60.0) -> Report:
        """Wait for the end, and return the last report, whatever the outcome."""

        async def look() -> Report | None:
            with contextlib.suppress(RPCError):
                closed = (await self.handle.describe(rpc_timeout=timedelta(seconds=5))).close_time
                return await self.status() if closed else None
            return None

        report: Report = await eventually(look, "the end", seconds)
        return report


class Process(Protocol):
    """What tests do with a process that runs, as ``Popen`` has it."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: int, /) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


@dataclass
class Running:
    """A worker process; ``program`` may be a test's own that wraps worker.main with interceptors."""

    client: Client
    settings: Settings
    environment: Mapping[str, str]
    program: list[str] = field(default_factory=lambda: [str(ROOT / "worker.py")])
    process: Process | None = None

    def start_worker(self, **environment: str) -> None:
        """Start the worker; its output goes to the state folder."""
        with (self.settings.state / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program],
                env={**os.environ, **self.environment, **environment},
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def kill_worker(self) -> None:
        """Kill -9 the worker, if it runs."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def died(self) -> int | None:
        """Return how the worker ended (minus the signal's number), or None while it runs."""
        return self.process.poll() if self.process is not None else None

    async def start(self, mode: str = "live", id: str = "lab/orders", **fields: Any) -> Recovery:
        """Start the lab's restore; ``target_time`` goes to the parameters."""
        target = fields.pop("target_time", None) or datetime.now(UTC)
        start = {"runbook": "lab/restore-orders", "reason": "a test", "requested_by": "alice", "mode": mode}
        start |= {"parameters": {"target_time": target.isoformat()}} | fields
        handle = await self.client.start_workflow(PROCEDURE, start, id=id, task_queue=self.settings.task_queue)
        return Recovery(handle)

    async def freed(self, system: str) -> None:
        """Wait until ``system`` (with its catalog) is free; let it go, as a person would, where it is an orphan."""
        handle = self.client.get_workflow_handle(f"lease/{system}")

        async def look() -> bool:
            try:
                lease: Lease = await handle.query("lease", result_type=Lease)
            except RPCError as error:
                return error.status == RPCStatusCode.NOT_FOUND
            if lease.orphaned:
                await handle.execute_update("free", {"by": "bob", "reason": "a test"})
            return lease.holder is None

        await eventually(look, f"{system} is free", 20)

    def log(self) -> str:
        """Return what the worker said."""
        return (self.settings.state / "worker.log").read_text()


def settings_in(state: Path | str) -> Settings:
    """Return the settings of an installation with its own state; nothing else is set but which ports are ours."""
    own = {"RECOVERY_STATE": str(state), "RECOVERY_TEMPORAL_PORT": os.environ["RECOVERY_TEMPORAL_PORT"]}
    return Settings.from_environment(own)


@contextlib.asynccontextmanager
async def running(
    lab: Lab, program: list[str] | None = None, worker: bool = True, **more: str
) -> AsyncIterator[Running]:
    """Run a worker, with ``more`` environment, and an embedded Temporal for ``lab``; everything is gone afterwards."""
    environment = {"RECOVERY_STATE": str(lab.state), "RECOVERY_LAB": str(lab.place.root), **more}
    settings = Settings.from_environment({**os.environ, **environment})
    async with Keeper(settings) as endpoint:
        found = Running(await connect(settings, endpoint), settings, environment)
        if program is not None:
            found.program = program
        try:
            if worker:
                found.start_worker()
            yield found
        finally:
            if found.process is not None:
                found.process.terminate()
                try:
                    found.process.wait(10)
                except subprocess.TimeoutExpired:
                    found.kill_worker()
