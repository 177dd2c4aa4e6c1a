"""What a recovery did, derived from its histories: the undo stack of any run, even of a terminated one; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent

from recovery.models import Frozen, Start, Wire
from recovery.saga import Entry

Decode = Callable[[Payload], Any]
"""Return the plain JSON of a payload."""

CLOSING = (
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
)
_ENDS = (
    "activity_task_completed_event_attributes",
    "activity_task_failed_event_attributes",
    "activity_task_timed_out_event_attributes",
    "activity_task_canceled_event_attributes",
)


class Which(Wire):
    """A run of a recovery; the newest of that workflow id if none is named."""

    workflow: str
    run: str | None = None


class Done(Wire):
    """One change that a recovery ordered, as its event has it; ``ended`` if Temporal knows that the attempt ended."""

    step: str
    action: str
    order: dict[str, Any]
    ended: bool = False


class Past(Wire):
    """What a recovery did and has not undone, oldest first.

    ``commits`` is what its point of no return opened, "" if that was not passed; ``committing`` is the change that
    passed it. ``open`` tells that the run is still going on, ``completed`` that it ended well, ``dark`` that it left
    clients shut out. ``unended`` are the steps whose order may have been cut off anywhere, also after its effect.
    ``runs`` are the runs that it was reset from, and itself.
    """

    workflow: str
    run: str
    runs: tuple[str, ...] = ()
    procedure: str = ""
    open: bool = False
    completed: bool = False
    dark: bool = False
    start: Start | None = None
    frozen: Frozen | None = None
    done: tuple[Done, ...] = ()
    unended: tuple[str, ...] = ()
    commits: str = ""
    committing: Done | None = None

    def stack(self) -> list[Entry]:
        """Return the undo stack, the uppermost last."""
        return [
            Entry(
                one.step,
                one.action,
                one.order,
                guards=one.order.get("guards", True),
                passing=one.order.get("passing", ""),
            )
            for one in self.done
        ]


@dataclass
class Fold:
    """The running state of the fold over the events of one chain of runs, oldest run first."""

    decode: Decode
    start: Start | None = None
    frozen: Frozen | None = None
    procedure: str = ""
    done: dict[str, Done] = field(default_factory=dict)
    committing: Done | None = None
    closed: bool = False
    completed: bool = False
    shut: str = ""  # by which step clients were shut out
    runs: list[str] = field(default_factory=list)
    in_flight: dict[int, float] = field(default_factory=dict)  # event to its heartbeat timeout, seconds
    unended: dict[str, None] = field(default_factory=dict)
    closed_at: datetime | None = None
    _scheduled: dict[int, tuple[str, str]] = field(default_factory=dict)

    def take(self, events: Iterable[HistoryEvent]) -> None:
        """Take in the events of one run; what an earlier run of the chain had in flight is over by then."""
        self.in_flight, self.closed = {}, False
        for event in events:
            self._take(event)

    def _take(self, event: HistoryEvent) -> None:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
            begun = event.workflow_execution_started_event_attributes
            self.procedure = begun.workflow_type.name
            if begun.input.payloads and self.start is None:
                self.start = _start(self.decode(begun.input.payloads[0]))
        elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            self._ordered(event)
        elif event.event_type in CLOSING:
            self.closed, self.closed_at = True, event.event_time.ToDatetime()
            self.completed = event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED
        else:
            self._over(event)

    def _ordered(self, event: HistoryEvent) -> None:
        asked = event.activity_task_scheduled_event_attributes
        action, _, part = asked.activity_type.name.rpartition(".")
        self._scheduled[event.event_id] = (asked.activity_type.name, "")
        if part not in ("apply", "undo") or not asked.input.payloads:
            return
        order = self.decode(asked.input.payloads[0])
        step = order.get("step") or asked.activity_id.partition(".")[0]
        self._scheduled[event.event_id] = (asked.activity_type.name, step)
        self.in_flight[event.event_id] = asked.heartbeat_timeout.ToTimedelta().total_seconds()
        one = Done(step=step, action=action, order=order)
        if part == "undo":
            if not order.get("passing"):  # that goes at every end
                # Compensation has begun, so whatever had been committed was withdrawn.
                self.committing = None
            return
        self.unended[step] = None
        if order.get("dark"):
            self.shut = step
        if not order.get("kept"):
            self.done.setdefault(step, one)
        if order.get("commits"):
            self.committing = one

    def _over(self, event: HistoryEvent) -> None:
        for name in _ENDS:
            if not event.HasField(name):  # type: ignore[arg-type]
                continue
            ended = getattr(event, name)
            self.in_flight.pop(ended.scheduled_event_id, None)
            activity, step = self._scheduled.get(ended.scheduled_event_id, ("", ""))
            if name.startswith("activity_task_completed"):
                self._completed(activity, step, ended)

    def _completed(self, activity: str, step: str, ended: Any) -> None:
        if activity == "catalog.load" and self.frozen is None:
            self.frozen = Frozen.model_validate(self.decode(ended.result.payloads[0]))
        elif activity.endswith(".undo"):
            self.done.pop(step, None)
            self.unended.pop(step, None)
            self.shut = "" if step == self.shut else self.shut
        elif activity.endswith(".apply"):
            self.unended.pop(step, None)
            if step in self.done:
                self.done[step] = self.done[step].model_copy(update={"ended": True})
            if self.committing is not None and self.committing.step == step:
                self.committing, self.shut = self.committing.model_copy(update={"ended": True}), ""

    def past(self, workflow: str, run: str) -> Past:
        """Return what the chain did."""
        return Past(
            workflow=workflow,
            run=run,
            runs=tuple(self.runs),
            procedure=self.procedure,
            open=not self.closed,
            completed=self.completed,
            dark=bool(self.shut),
            start=self.start,
            frozen=self.frozen,
            done=tuple(self.done.values()),
            unended=tuple(self.unended),
            commits=str(self.committing.order["commits"]) if self.committing else "",
            committing=self.committing,
        )


def _start(plain: Any) -> Start | None:
    """Return the object that started the recovery; None for what was no recovery, or was refused as none."""
    try:
        return Start.model_validate(plain)
    except ValidationError:
        return None


class ResetPoint(NamedTuple):
    """One reset: of which run, into which, and the last event that was copied."""

    base_run_id: str
    new_run_id: str
    copied: int


def resets(events: Sequence[HistoryEvent]) -> list[ResetPoint]:
    """Return the resets that led to the run of ``events``, the newest last: what lies before that was copied."""
    cause = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW
    failed = ((event.workflow_task_failed_event_attributes, event.event_id) for event in events)
    return [
        ResetPoint(one.base_run_id, one.new_run_id, number)
        for one, number in failed
        if one.cause == cause and one.base_run_id
    ]
