"""When a restore last worked, from what Temporal lists: carried on by runs that fail, and told as a metric."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from temporalio import workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from activities.last_proven import AskLast, Last, Standing, last_proven, published, standings
    from recovery import telemetry
    from recovery.attributes import BREACHES, PROVEN_AT, RUNBOOK, SYSTEMS, VERDICT
    from recovery.connection import connect
    from recovery.embedded import Keeper
    from recovery.errors import Invalid
    from tests.running import eventually, settings_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

MONDAY, TUESDAY = (datetime(2026, 11, day, 3, tzinfo=UTC) for day in (23, 24))
COLLECTOR = "OTEL_EXPORTER_OTLP_ENDPOINT"


@workflow.defn(name="RestoreVerification")
class Verification:
    """Come to a verdict as told: with or without a restore that worked, well or not."""

    @workflow.run
    async def run(self, runbook: str, proven: datetime | None, verdict: str) -> Last:
        """Look back, say what is so, and fail unless it is well."""
        workflow.upsert_search_attributes([RUNBOOK.value_set(runbook), SYSTEMS.value_set(["orders"])])
        limit = timedelta(seconds=10)
        asked = AskLast(system="orders", runbook=runbook)
        last: Last = await workflow.execute_activity(
            "verification.last.observe", asked, result_type=Last, start_to_close_timeout=limit
        )
        if at := proven or last.proven_at:
            workflow.upsert_search_attributes([PROVEN_AT.value_set(at)])
        if verdict:
            breaches = 0 if verdict == "proven" else 2
            workflow.upsert_search_attributes([VERDICT.value_set(verdict), BREACHES.value_set(breaches)])
        if verdict != "proven":
            raise ApplicationError("not well", last.model_dump(mode="json"), non_retryable=True)
        return last


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    settings = settings_in(tmp_path_factory.mktemp("state"))
    async with Keeper(settings) as endpoint:
        found = await connect(settings, endpoint)
        looks = last_proven.activities()
        async with Worker(found, task_queue="verifying", workflows=[Verification], activities=looks):
            yield found


async def ran(client: Client, runbook: str, proven: datetime | None, verdict: str) -> Last:
    """Run one verification; return what it knew of those before."""
    handle = await client.start_workflow(
        "RestoreVerification",
        args=[runbook, proven, verdict],
        id=runbook,
        task_queue="verifying",
        result_type=Last,
    )
    try:
        return Last.model_validate(await handle.result())
    except WorkflowFailureError as error:
        failure: Any = error.cause
        return Last.model_validate(failure.details[0])
    finally:
        run = f"RunId = '{handle.first_execution_run_id}' AND ExecutionStatus != 'Running'"

        async def listed() -> bool:
            return bool([one async for one in client.list_workflows(run)])

        await eventually(listed, "its end is listed")


async def test_what_worked_is_known_however_often_it_failed_since(client: Client) -> None:
    assert await ran(client, "lab/a", None, "not proven") == Last()
    assert await ran(client, "lab/a", MONDAY, "proven") == Last(verdict="not proven")
    assert await ran(client, "lab/a", None, "not proven") == Last(proven_at=MONDAY, verdict="proven")
    assert await ran(client, "lab/a", None, "") == Last(proven_at=MONDAY, verdict="not proven")
    assert await ran(client, "lab/a", None, "not proven") == Last(proven_at=MONDAY, verdict="not proven")
    assert await ran(client, "lab/b", None, "proven") == Last()
    assert await ran(client, "lab/a", TUESDAY, "proven, but policy.offsite") == Last(
        proven_at=MONDAY, verdict="not proven"
    )
    assert await ran(client, "lab/a", None, "not proven") == Last(
        proven_at=TUESDAY, verdict="proven, but policy.offsite"
    )


@contextmanager
def collector() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Receive OTLP over HTTP on loopback; yield the address, and the values of gauges as they come in."""
    seen: list[dict[str, Any]] = []

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/metrics"
            request = ExportMetricsServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            metrics = [m for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics]
            for metric in metrics:
                for point in metric.gauge.data_points:
                    said = {pair.key: pair.value.string_value for pair in point.attributes}
                    value = point.as_double if point.HasField("as_double") else point.as_int
                    seen.append({"name": metric.name, "value": value, **said})
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Sink) as sink:
        thread = threading.Thread(target=sink.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{sink.server_port}", seen
        finally:
            sink.shutdown()
            thread.join()


async def test_metric_tells_what_any_worker_found_out(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await ran(client, "lab/c", TUESDAY, "proven, but policy.keep_for")
    await ran(client, "lab/d", None, "not proven")
    found = {one.runbook: one for one in await standings(client)}
    assert found["lab/c"] == Standing(runbook="lab/c", system="orders", proven_at=TUESDAY, breaches=2)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    with collector() as (address, seen):
        monkeypatch.setenv(COLLECTOR, address)
        async with published(client):
            await eventually(lambda: any(one["value"] for one in seen), "the gauges are exported", 10)
    of_c = {one["name"]: one["value"] for one in seen if one["recovery.runbook"] == "lab/c"}
    assert of_c == {"recovery.restore.last_proven": TUESDAY.timestamp(), "recovery.restore.breaches": 2}
    assert {one["recovery.system"] for one in seen} == {"orders"}
    assert "recovery.restore.last_proven" not in {one["name"] for one in seen if one["recovery.runbook"] == "lab/d"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_METRICS_EXPORTER": "none", COLLECTOR: "http://127.0.0.1:4318"},
        {"OTEL_SDK_DISABLED": "true", COLLECTOR: "http://127.0.0.1:4318"},
    ],
)
async def test_metrics_are_off(environ: dict[str, str]) -> None:
    with telemetry.measuring([], environ) as on:
        assert not on


async def test_unknown_exporter_is_named() -> None:
    with (
        pytest.raises(Invalid, match="OTEL_METRICS_EXPORTER"),
        telemetry.measuring([], {"OTEL_METRICS_EXPORTER": "prometheus"}),
    ):
        pass


async def test_collector_that_is_gone_holds_nobody_up(client: Client, tmp_path: Path) -> None:
    began = datetime.now(UTC)
    async with published(client, {COLLECTOR: "http://127.0.0.1:9"}):
        pass
    assert datetime.now(UTC) - began < timedelta(seconds=10)
