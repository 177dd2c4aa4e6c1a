"""What is told of a workload that does not come to stand still in the short time that it has."""

from __future__ import annotations

from temporalio.exceptions import ActivityError, RetryState, TimeoutError, TimeoutType

from recovery.errors import Transient
from recovery.procedure import Missed
from workflows.draining import last_said

STUCK = Transient("web: deployment/web: still there: web-1; see the node, and finalizers")


def missed(cause: BaseException) -> Missed:
    failure = ActivityError(
        "it failed", scheduled_event_id=1, started_event_id=2, identity="", activity_type="workloads.scale.apply",
        activity_id="scale", retry_state=RetryState.TIMEOUT,
    )  # fmt: skip
    failure.__cause__ = cause
    found = Missed(failure)
    found.__cause__ = failure
    return found


def test_last_failure_is_told_rather_than_the_timeout() -> None:
    over = TimeoutError(
        "activity ScheduleToClose timeout", type=TimeoutType.SCHEDULE_TO_CLOSE, last_heartbeat_details=[]
    )
    assert last_said(missed(over)) == "activity ScheduleToClose timeout"
    assert last_said(missed(STUCK)) == STUCK.message
    over.__cause__ = STUCK
    assert last_said(missed(over)) == STUCK.message
