"""One plugin that makes client, worker and replayer agree: how data travels, what the sandbox lets through."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.common import RawValue
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
    PayloadConverter,
)
from temporalio.exceptions import ApplicationError
from temporalio.plugin import SimplePlugin
from temporalio.worker import (
    ExecuteWorkflowInput,
    HandleSignalInput,
    HandleUpdateInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowRunner,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from recovery.errors import Invalid, fields
from recovery.models import Authored, Decision, Resolution

PASSED_THROUGH = (
    "activities", "runbooks", "recovery.actions", "recovery.attributes", "recovery.clock", "recovery.details",
    "recovery.errors", "recovery.facts", "recovery.gates", "recovery.holds", "recovery.leases", "recovery.models",
    "recovery.names",
    "recovery.notices", "recovery.past", "recovery.progress", "recovery.report", "recovery.safety", "recovery.saga",
    "pydantic", "pydantic_core", "annotated_types", "typing_inspection", "asyncssh", "yaml",
    "cryptography", "_cffi_backend", "opentelemetry",
)  # fmt: skip
"""Models and pure functions; never the engine itself, in which clock and chance must stay forbidden."""

SIGNALS = ("approve", "reject", "resolve", "hold", "note", "granted", "progress")
UPDATES: dict[str, tuple[type[Authored], str]] = {
    "decide": (Decision, "gate, by, plan and evidence"),
    "resolve_step": (Resolution, "hold, by and answer"),
}


class AuthoredJSON(PydanticJSONPlainPayloadConverter):
    """Fail a workflow at once, naming the field, when what a person wrote cannot be read.

    Only Authored models: raised for an activity's result it would skip every undo, so that stays a task failure.
    """

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        """Decode ``payload``; raises ``Invalid`` without any value that was sent."""
        try:
            return super().from_payload(payload, type_hint)
        except ValidationError as error:
            if isinstance(type_hint, type) and issubclass(type_hint, Authored):
                raise Invalid(fields(error)) from None
            raise


class RecoveryPayloadConverter(CompositePayloadConverter):
    """The standard converters, with JSON read by ``AuthoredJSON``."""

    def __init__(self) -> None:
        json = AuthoredJSON()
        super().__init__(
            *(
                json if isinstance(converter, JSONPlainPayloadConverter) else converter
                for converter in DefaultPayloadConverter.default_encoding_payload_converters
            )
        )


class PlainFailures(DefaultFailureConverter):
    """Leave the stack trace out of what was said on purpose: the UI shows it, with the paths of the worker, to all."""

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Encode ``exception``; whatever is no ApplicationError is a bug and keeps its stack trace."""
        super().to_failure(exception, payload_converter, failure)
        if isinstance(exception, ApplicationError):
            failure.stack_trace = ""


DATA_CONVERTER = DataConverter(payload_converter_class=RecoveryPayloadConverter, failure_converter_class=PlainFailures)


class _OneObject(WorkflowInboundInterceptor):
    """Refuse what does not carry exactly one object: Python would raise TypeError, which hangs a workflow for ever."""

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        takes: type[Authored] | None = getattr(input.type, "takes", None)
        if takes is not None and (len(input.args) != 1 or not isinstance(input.args[0], takes)):
            needed = " and ".join(name for name, field in takes.model_fields.items() if field.is_required())
            raise Invalid(f"input: send exactly one JSON object with at least {needed}")
        return await super().execute_workflow(input)

    async def handle_signal(self, input: HandleSignalInput) -> None:
        """Hand a signal without exactly one object on as one that is not readable: its handler says so."""
        if input.signal in SIGNALS and len(input.args) != 1:
            input.args = [RawValue(Payload())]
        await super().handle_signal(input)

    def handle_update_validator(self, input: HandleUpdateInput) -> None:
        """Answer an update without exactly one object."""
        takes, needed = UPDATES.get(input.update, (None, ""))
        if takes is not None and (len(input.args) != 1 or not isinstance(input.args[0], takes)):
            raise Invalid(f"input: send exactly one JSON object with {needed}")
        super().handle_update_validator(input)


class InputGuard(Interceptor):
    """Install ``_OneObject`` in every workflow."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        """Return the interceptor class."""
        return _OneObject


def _sandbox(existing: WorkflowRunner | None) -> WorkflowRunner:
    runner = existing if isinstance(existing, SandboxedWorkflowRunner) else SandboxedWorkflowRunner()
    restrictions: SandboxRestrictions = runner.restrictions.with_passthrough_modules(*PASSED_THROUGH)
    return dataclasses.replace(runner, restrictions=restrictions)


def plugin() -> SimplePlugin:
    """Return the plugin for client, worker and replayer."""
    return SimplePlugin(
        "recovery", data_converter=DATA_CONVERTER, interceptors=[InputGuard()], workflow_runner=_sandbox
    )
