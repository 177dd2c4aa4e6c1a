"""Traces from the command line through workflow to activity, and metrics. Off unless OTEL_* variables ask for them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from temporalio.plugin import SimplePlugin

from recovery.errors import Invalid

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

Signal = Literal["TRACES", "METRICS"]
_PATIENCE = 2.0
"""Seconds for one export. A collector that died in the same outage must not hold up the operator."""


def plugins(environ: Mapping[str, str] | None = None) -> list[SimplePlugin]:
    """Return the plugins for ``Client.connect``: none when tracing is off. Call it once in a process.

    On with OTEL_EXPORTER_OTLP_ENDPOINT (or its TRACES variant) or OTEL_TRACES_EXPORTER=otlp, never with
    OTEL_TRACES_EXPORTER=none or OTEL_SDK_DISABLED=true. Raises Invalid, which names the variable.
    """
    environ = os.environ if environ is None else environ
    return [_tracing(environ)] if _is_wanted(environ, "TRACES") else []


class Reading(NamedTuple):
    """One value of a gauge, and what it is of."""

    value: float
    attributes: Mapping[str, str]


class Gauge(NamedTuple):
    """A gauge: its name, unit and description, and how its values are read, which must not wait for anything."""

    name: str
    unit: str
    description: str
    read: Callable[[], list[Reading]]


@contextlib.contextmanager
def measuring(gauges: list[Gauge], environ: Mapping[str, str] | None = None) -> Iterator[bool]:
    """Export ``gauges`` in the body, as often as OTEL_METRIC_EXPORT_INTERVAL says; yields whether metrics are on.

    On with OTEL_EXPORTER_OTLP_ENDPOINT (or its METRICS variant) or OTEL_METRICS_EXPORTER=otlp, never with
    OTEL_METRICS_EXPORTER=none or OTEL_SDK_DISABLED=true. Raises Invalid, which names the variable.
    """
    environ = os.environ if environ is None else environ
    if not _is_wanted(environ, "METRICS"):
        yield False
        return
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    patience = None if _first(environ, _names("METRICS", "TIMEOUT")) else _PATIENCE
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(timeout=patience))
    provider = MeterProvider([reader], resource=_resource(environ))
    meter = provider.get_meter("recovery")
    for gauge in gauges:

        def observe(options: CallbackOptions, gauge: Gauge = gauge) -> list[Observation]:
            return [Observation(value, dict(attributes)) for value, attributes in gauge.read()]

        meter.create_observable_gauge(gauge.name, [observe], gauge.unit, gauge.description)
    try:
        yield True
    finally:
        provider.shutdown()


def _is_wanted(environ: Mapping[str, str], signal: Signal) -> bool:
    name = f"OTEL_{signal}_EXPORTER"
    exporter = environ.get(name, "")
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        raise Invalid(f"{name}: only otlp and none are known; set one of them, or unset it")
    if exporter != "otlp" and _first(environ, _names(signal, "ENDPOINT")) is None:
        return False
    protocols = _names(signal, "PROTOCOL")
    if (_first(environ, protocols) or "http/protobuf") != "http/protobuf":
        raise Invalid(f"{' or '.join(protocols)}: only http/protobuf is spoken; set that, or unset it")
    return True


def _names(signal: Signal, what: str) -> tuple[str, str]:
    """Return the variables that say ``what`` of the exporter, the signal's own first."""
    return f"OTEL_EXPORTER_OTLP_{signal}_{what}", f"OTEL_EXPORTER_OTLP_{what}"


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


def _tracing(environ: Mapping[str, str]) -> SimplePlugin:
    # Imported only when wanted: they cost the command line a third of a second.
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from temporalio.contrib.opentelemetry import OpenTelemetryPlugin, create_tracer_provider

    provider = create_tracer_provider(resource=_resource(environ))
    # The exporter reads endpoint, headers and certificates from OTEL_EXPORTER_OTLP_* by itself.
    patience = None if _first(environ, _names("TRACES", "TIMEOUT")) else _PATIENCE
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=patience)))
    trace.set_tracer_provider(provider)
    return OpenTelemetryPlugin(add_temporal_spans=True)


def _resource(environ: Mapping[str, str]) -> Resource:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    return Resource.create({SERVICE_NAME: environ.get("OTEL_SERVICE_NAME") or "recovery"})
