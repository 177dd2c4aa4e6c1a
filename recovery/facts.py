"""What happened in a recovery, one frozen record a fact; everything that is reported is a fold over these."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from recovery.clock import Cause
from recovery.gates import Gate
from recovery.holds import Hold
from recovery.models import Decision, Frozen, Note, Resolution, Start
from recovery.progress import Progress

StepState = Literal[
    "looking", "seen", "would look", "unchanged", "would change", "changing", "changed", "failed",
    "undoing", "undone", "undo failed", "undo blocked", "skipped", "left behind",
]  # fmt: skip
CheckState = Literal["proven", "attested", "left out", "nobody's"]
Outcome = Literal["running", "recovered", "checked", "drilled", "verified", "compensated", "failed", "cancelled"]


@dataclass(frozen=True)
class Fact:
    """Anything that happened, at the workflow's own time."""

    at: datetime


@dataclass(frozen=True)
class Started(Fact):
    """The recovery began; ``workflow`` and ``run`` are its ids."""

    start: Start
    procedure: str
    workflow: str
    run: str


@dataclass(frozen=True)
class Loaded(Fact):
    """The runbook was frozen."""

    frozen: Frozen


@dataclass(frozen=True)
class Queued(Fact):
    """The recovery waits for a system, which somebody else has in hand."""

    system: str
    behind: str


@dataclass(frozen=True)
class Leased(Fact):
    """The recovery has a system in hand, under this epoch; whatever comes later under a lower one is refused."""

    system: str
    epoch: int


@dataclass(frozen=True)
class Stepped(Fact):
    """A step came into ``state``; ``shows`` is what was seen, wanted, or went wrong; ``kept`` why it is not undone."""

    step: str
    title: str
    state: StepState
    cause: Cause
    shows: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    kept: str = ""


@dataclass(frozen=True)
class Progressed(Fact):
    """An activity of a step that is under way has told how far it is."""

    activity: str
    progress: Progress


@dataclass(frozen=True)
class Blocked(Fact):
    """What stands in the way, each with what to do about it."""

    blockers: tuple[str, ...]


@dataclass(frozen=True)
class Measured(Fact):
    """A figure was measured on the systems; ``told_at`` are gates whose own evidence tells it.

    ``again`` tells that it takes the place of what was measured by that name before.
    """

    name: str
    value: int | float | str
    unit: str
    met: bool | None = None
    told_at: tuple[str, ...] = ()
    again: bool = False


@dataclass(frozen=True)
class Delivered(Fact):
    """The recovery leaves something that people use: its name and where it is."""

    name: str
    where: str


@dataclass(frozen=True)
class Checked(Fact):
    """Something that had to be seen was, or was not: what shows it, or ``by`` whom it was attested."""

    name: str
    how: CheckState
    evidence: str
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class GateOpened(Fact):
    """A gate waits for people, until ``until``, showing ``evidence``; ``then`` is what approval leads to."""

    gate: Gate
    until: datetime
    evidence: tuple[dict[str, Any], ...]
    then: str = "it goes on"


@dataclass(frozen=True)
class Decided(Fact):
    """A decision counted."""

    decision: Decision


@dataclass(frozen=True)
class GateClosed(Fact):
    """A gate was decided, or passed without people; ``how`` says which, ``evidence`` what people would have seen."""

    gate: str
    how: str
    back_to: Cause = "execute"
    evidence: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class HoldOpened(Fact):
    """The recovery waits for an answer; ``again`` counts how often nobody had answered before."""

    hold: Hold
    again: int = 0


@dataclass(frozen=True)
class HoldClosed(Fact):
    """A hold was answered, or nobody did in time; ``how`` says which."""

    token: str
    how: str
    resolution: Resolution | None = None
    back_to: Cause = "execute"


@dataclass(frozen=True)
class Darkened(Fact):
    """From here on clients are shut out, until the recovery lets them in again."""

    step: str


@dataclass(frozen=True)
class Committed(Fact):
    """The point of no return: ``what`` it opens, by ``step``; what was on the stack leads home one day."""

    step: str
    what: str
    failback: tuple[str, ...] = ()


@dataclass(frozen=True)
class Withdrawn(Fact):
    """The step that commits was seen to have changed nothing, and the commit was withdrawn."""

    step: str
    by: str


@dataclass(frozen=True)
class WasReset(Fact):
    """This run continues another one that somebody reset; what that one did is undone here too."""

    entries: tuple[str, ...]
    commits: str = ""
    dark: bool = False


@dataclass(frozen=True)
class Noted(Fact):
    """A person wrote something into the record, or asked for a hold."""

    note: Note


@dataclass(frozen=True)
class Refusal(Fact):
    """A message from outside was not accepted; the sentence names the field and never the value."""

    message: str


@dataclass(frozen=True)
class CancelAsked(Fact):
    """Somebody asked to cancel."""


@dataclass(frozen=True)
class Unwinding(Fact):
    """Compensation began, for this reason."""

    reason: str


@dataclass(frozen=True)
class Ended(Fact):
    """The recovery has its outcome; ``failure`` and ``kind`` are empty on success."""

    outcome: Outcome
    failure: str = ""
    kind: str = ""
