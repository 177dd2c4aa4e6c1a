"""Traces from the command line through workflow to activity. Off unless the OTEL_* variables ask for them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from temporalio.plugin import SimplePlugin

from recovery.errors import Invalid

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
_PATIENCE = 2.0
"""Seconds for one export. A collector that died in the same outage must not hold up the operator."""


def plugins(environ: Mapping[str, str] | None = None) -> list[SimplePlugin]:
    """Return the plugins for ``Client.connect``: none when tracing is off. Call it once in a process.

    On with OTEL_EXPORTER_OTLP_ENDPOINT (or its TRACES variant) or OTEL_TRACES_EXPORTER=otlp, never with
    OTEL_TRACES_EXPORTER=none or OTEL_SDK_DISABLED=true. Raises Invalid, which names the variable.
    """
    environ = os.environ if environ is None else environ
    if not _is_wanted(environ):
        return []
    protocol = _first(environ, _PROTOCOLS) or "http/protobuf"
    if protocol != "http/protobuf":
        raise Invalid(f"{' or '.join(_PROTOCOLS)}: only http/protobuf is spoken; set that, or unset it")
    return [_tracing(environ)]


def _is_wanted(environ: Mapping[str, str]) -> bool:
    exporter = environ.get("OTEL_TRACES_EXPORTER", "")
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        raise Invalid("OTEL_TRACES_EXPORTER: only otlp and none are known; set one of them, or unset it")
    return exporter == "otlp" or _first(environ, _ENDPOINTS) is not None


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


def _tracing(environ: Mapping[str, str]) -> SimplePlugin:
    # Imported only when wanted: they cost the command line a third of a second.
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from temporalio.contrib.opentelemetry import OpenTelemetryPlugin, create_tracer_provider

    resource = Resource.create({SERVICE_NAME: environ.get("OTEL_SERVICE_NAME") or "recovery"})
    provider = create_tracer_provider(resource=resource)
    # The exporter reads endpoint, headers and certificates from OTEL_EXPORTER_OTLP_* by itself.
    patience = None if _first(environ, _TIMEOUTS) else _PATIENCE
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=patience)))
    trace.set_tracer_provider(provider)
    return OpenTelemetryPlugin(add_temporal_spans=True)
