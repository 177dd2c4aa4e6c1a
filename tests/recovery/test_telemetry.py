"""Traces reach an OTLP collector, from the start in the client to the activity."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.contrib.opentelemetry import ReplaySafeTracerProvider
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from recovery import telemetry
    from recovery.embedded import Keeper
    from recovery.errors import Invalid
    from recovery.settings import Settings
    from tests.running import settings_in


@activity.defn(name="telemetry.touch")
async def touch() -> None:
    """Do nothing, visibly."""


@workflow.defn
class Touch:
    """Run one activity."""

    @workflow.run
    async def run(self) -> None:
        """Touch once."""
        await workflow.execute_activity(touch, start_to_close_timeout=timedelta(seconds=5))


@contextmanager
def collector() -> Iterator[tuple[str, list[Span]]]:
    """Receive OTLP over HTTP on loopback; yield the address and the spans as they come in."""
    spans: list[Span] = []

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            spans.extend(s for r in request.resource_spans for c in r.scope_spans for s in c.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Sink) as sink:
        thread = threading.Thread(target=sink.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{sink.server_port}", spans
        finally:
            sink.shutdown()
            thread.join()


async def run_traced(settings: Settings) -> None:
    async with Keeper(settings) as endpoint:
        client = await Client.connect(endpoint.address, plugins=telemetry.plugins())
        async with Worker(client, task_queue="traced", workflows=[Touch], activities=[touch]):
            await client.execute_workflow(Touch.run, id="traced", task_queue="traced")


async def test_trace_reaches_the_activity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with collector() as (address, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        async with asyncio.timeout(30):
            await run_traced(settings)
        provider = trace.get_tracer_provider()
        assert isinstance(provider, ReplaySafeTracerProvider)
        provider.shutdown()
    found = {span.name: span for span in spans}
    assert {"StartWorkflow:Touch", "RunWorkflow:Touch", "RunActivity:telemetry.touch"} <= set(found)
    assert len({span.trace_id for span in spans}) == 1
    by_id = {span.span_id: span for span in spans}
    span, path = found["RunActivity:telemetry.touch"], []
    while span.parent_span_id:
        span = by_id[span.parent_span_id]
        path.append(span.name)
    assert path[-1] == "StartWorkflow:Touch"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
    ],
)
def test_tracing_is_off(environ: dict[str, str]) -> None:
    assert telemetry.plugins(environ) == []


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
)
def test_unknown_value_is_named(name: str, value: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", name: value}
    with pytest.raises(Invalid, match=name):
        telemetry.plugins(environ)
