"""Errors say what to do next, name the field, and never repeat a value."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    RetryState,
    TimeoutError,
    TimeoutType,
)

from recovery import errors
from recovery.errors import (
    Drifted,
    Fatal,
    Invalid,
    RecoveryError,
    Refused,
    Stale,
    Transient,
    fields,
    kind,
    sentence,
    worker_died,
)
from recovery.models import Authored, Decision, GatePolicy, Start
from runbooks.procedures.database_point_in_time_restore import Parameters
from runbooks.schema import Estate, Runbook

TREE: tuple[type[RecoveryError], ...] = (Transient, Refused, Invalid, Drifted, Stale, Fatal)
SECRET = "hunter2#"
GOOD: dict[type[Authored], dict[str, Any]] = {
    Start: {
        "runbook": "lab/x", "reason": "y", "parameters": {}, "mode": "live", "incident": "z",
        "detected_at": "2026-11-21T22:00:00Z", "outage_started_at": "2026-11-21T22:00:00Z", "requested_by": "alice",
    },
    Decision: {"gate": "keep", "by": "bob", "plan": "p", "evidence": "e", "reason": "r", "verdict": "approve"},
    Parameters: {
        "target_time": "2026-11-21T22:00:00Z", "queries": [{"name": "n", "sql": "select 1", "expect": "1"}],
        "tables": ["public.orders"], "amcheck": True,
    },
    GatePolicy: {"roles": ["dba"], "approvals": 1, "within": "PT1H", "starter_may_approve": False, "in_drill": "ask"},
    Runbook: {
        "title": "t", "version": "1", "procedure": "P", "systems": ["orders"], "why": "w", "parameters": {},
        "gates": {"keep": {"roles": ["dba"]}}, "not_after": "PT1H",
    },
    Estate: {
        "title": "t", "sites": {"north": {"title": "n"}}, "hosts": {}, "databases": {},
        "tiers": {"gold": {"rto": "PT1H", "rpo": "PT1H"}}, "people": {"bob": {"roles": ["dba"]}},
    },
}  # fmt: skip
PLACES = [(model, field) for model, good in GOOD.items() for field in good]
secrets = st.text("hunter0123456789-+:.TZ/ ", max_size=30).map(lambda text: SECRET + text)
wrong = st.one_of(
    secrets,
    secrets.map(lambda s: [s]),
    secrets.map(lambda s: {"name": s, "sql": s, "expect": s, "roles": s}),
    secrets.map(lambda s: [{"name": s * 200, "sql": s, "expect": s * 20, "more": s}]),
    secrets.map(lambda s: s * 300),
    secrets.map(lambda s: [[s], {"x": s}]),
)


def faults_of(model: type[Authored], content: object) -> ValidationError | None:
    try:
        model.model_validate(content)
    except ValidationError as error:
        return error
    return None


def test_tree_is_complete() -> None:
    assert set(RecoveryError.__subclasses__()) == set(TREE)
    drawn = re.findall(r"^[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE)
    assert drawn == [error.__name__ for error in TREE]


@pytest.mark.parametrize("error", TREE)
def test_type_is_the_name(error: type[RecoveryError]) -> None:
    raised = error("lift the receiver", 7)
    assert isinstance(raised, ApplicationError)
    assert (raised.type, raised.message, raised.details) == (error.__name__, "lift the receiver", (7,))


@pytest.mark.parametrize("error", TREE)
def test_only_transient_is_retried(error: type[RecoveryError]) -> None:
    assert error("x").non_retryable is (error is not Transient)


@pytest.mark.parametrize("model", GOOD)
def test_good_input_has_no_fault(model: type[Authored]) -> None:
    assert faults_of(model, GOOD[model]) is None


@pytest.mark.parametrize(("model", "field"), PLACES)
def test_wrong_type_names_its_field(model: type[Authored], field: str) -> None:
    found = faults_of(model, GOOD[model] | {field: 7.5j})
    assert found is not None
    assert fields(found).startswith(field)


@pytest.mark.parametrize("model", GOOD)
def test_unknown_field_is_named(model: type[Authored]) -> None:
    found = faults_of(model, GOOD[model] | {"pasword": SECRET})
    assert found is not None
    assert fields(found) == "pasword: Extra inputs are not permitted"


@pytest.mark.parametrize("model", [m for m in GOOD if any(field.is_required() for field in m.model_fields.values())])
def test_missing_fields_are_all_named(model: type[Authored]) -> None:
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    found = faults_of(model, {})
    assert found is not None
    assert fields(found) == "; ".join(f"{name}: Field required" for name in required)


@pytest.mark.parametrize("model", GOOD)
@pytest.mark.parametrize("content", [SECRET, [SECRET], None, 7], ids=["text", "list", "nothing", "number"])
def test_no_object_is_the_input_itself(model: type[Authored], content: object) -> None:
    found = faults_of(model, content)
    assert found is not None
    assert fields(found).startswith("input: ")
    assert SECRET not in fields(found)


@given(st.sampled_from(PLACES), wrong)
@settings(deadline=None, max_examples=300)
def test_no_value_leaks(place: tuple[type[Authored], str], value: object) -> None:
    model, field = place
    found = faults_of(model, GOOD[model] | {field: value, "unknown": value})
    assert found is not None
    assert field in fields(found) or "unknown" in fields(found)
    for text in (fields(found), str(found)):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", f"{SECRET}"),
        ("detected_at", f"2026-13-45 {SECRET}"),
        ("outage_started_at", f"{SECRET}Z"),
        ("detected_at", "2026-11-21T22:00:00"),
        ("reason", SECRET * 300),
        ("parameters", f"{SECRET}"),
        ("incident", [SECRET]),
        ("requested_by", {"name": SECRET}),
    ],
)
def test_bad_start_names_the_field_only(field: str, value: object) -> None:
    found = faults_of(Start, GOOD[Start] | {field: value})
    assert found is not None
    assert re.fullmatch(rf"{field}: [A-Z][^;]+", fields(found))
    assert SECRET not in fields(found)


def test_nested_field_is_a_path() -> None:
    query = {"name": "n", "sql": "", "expect": 7, "more": SECRET}
    found = faults_of(Parameters, GOOD[Parameters] | {"queries": [GOOD[Parameters]["queries"][0], query]})
    assert found is not None
    assert [fault.split(": ")[0] for fault in fields(found).split("; ")] == [
        "queries.1.sql", "queries.1.expect", "queries.1.more",
    ]  # fmt: skip


def activity(cause: BaseException | None) -> ActivityError:
    error = ActivityError(
        "Activity task failed", scheduled_event_id=1, started_event_id=2, identity="w", activity_type="a",
        activity_id="1", retry_state=RetryState.TIMEOUT,
    )  # fmt: skip
    error.__cause__ = cause
    return error


def child(cause: BaseException | None) -> ChildWorkflowError:
    error = ChildWorkflowError(
        "Child Workflow execution failed", namespace="n", workflow_id="w", run_id="r", workflow_type="t",
        initiated_event_id=1, started_event_id=2, retry_state=RetryState.TIMEOUT,
    )  # fmt: skip
    error.__cause__ = cause
    return error


WRAPPERS: tuple[Callable[[BaseException], BaseException], ...] = (
    lambda error: error,
    activity,
    child,
    lambda error: child(activity(error)),
    lambda error: activity(child(child(error))),
)


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("error", TREE)
def test_kind_is_read_through_wrappers(error: type[RecoveryError], wrap: Callable[[BaseException], Any]) -> None:
    assert kind(wrap(error("mend the host"))) == error.__name__
    assert sentence(wrap(error("mend the host"))) == "mend the host"


def test_kind_survives_the_wire() -> None:
    """Temporal brings back an ApplicationError of the type's name, not the class that was raised."""
    assert kind(activity(ApplicationError("look again", type="Drifted", non_retryable=True))) == "Drifted"
    assert kind(activity(ApplicationError("somebody else's"))) == "Fatal"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (TimeoutError("activity timed out", type=TimeoutType.HEARTBEAT, last_heartbeat_details=[]), "TimeoutError"),
        (CancelledError("cancelled"), "CancelledError"),
        (FailureError("odd"), "FailureError"),
    ],
)
def test_other_failures_keep_their_name(error: BaseException, name: str) -> None:
    assert kind(activity(error)) == name
    assert sentence(activity(error)) == str(error)


@pytest.mark.parametrize("error", [ApplicationError(""), activity(None), activity(ValueError()), KeyError()])
def test_sentence_is_never_empty(error: BaseException) -> None:
    assert sentence(error)
    assert kind(error)


def timed_out(kind_of: TimeoutType, cause: BaseException | None = None) -> TimeoutError:
    found = TimeoutError("late", type=kind_of, last_heartbeat_details=[])
    found.__cause__ = cause
    return found


@pytest.mark.parametrize("over", [TimeoutType.SCHEDULE_TO_CLOSE, TimeoutType.START_TO_CLOSE])
def test_last_failure_is_told_rather_than_that_time_was_over(over: TimeoutType) -> None:
    said = Transient("the API server of south cannot be reached")
    assert sentence(activity(timed_out(over, said))) == said.message
    late = timed_out(TimeoutType.SCHEDULE_TO_CLOSE, timed_out(over, said))
    assert (sentence(activity(late)), kind(activity(late))) == (said.message, "TimeoutError")
    assert sentence(activity(timed_out(over))) == "late"
    idle = timed_out(TimeoutType.SCHEDULE_TO_START, said)
    assert "no worker took it" in sentence(activity(idle))
    assert "no worker took it" in sentence(activity(timed_out(TimeoutType.SCHEDULE_TO_CLOSE, idle)))


@pytest.mark.parametrize(
    ("failure", "died"),
    [
        (timed_out(TimeoutType.HEARTBEAT), True),
        (timed_out(TimeoutType.SCHEDULE_TO_CLOSE, timed_out(TimeoutType.HEARTBEAT)), True),
        (timed_out(TimeoutType.SCHEDULE_TO_CLOSE, timed_out(TimeoutType.START_TO_CLOSE)), False),
        (timed_out(TimeoutType.SCHEDULE_TO_START), False),
        (Transient("no answer"), False),
    ],
)
def test_worker_that_died_is_told_from_a_system_that_does_not_answer(failure: BaseException, died: bool) -> None:
    assert worker_died(activity(failure)) is died
