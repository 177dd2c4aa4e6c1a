"""Models on which everything else agrees: what people author, what travels, what a recovery starts from."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Mode = Literal["check", "drill", "live"]
Verdict = Literal["approve", "reject"]
Choice = Literal["retry", "skip", "compensate", "withdraw", "continue", "step", "accept", "take over"]
NAME = r"^[a-z0-9][a-z0-9_.-]*$"


class Authored(BaseModel):
    """What people write (YAML, JSON pasted into the UI): unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Wire(BaseModel):
    """What travels between workflow and activities: unknown fields are ignored, models only grow."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


Text = Annotated[str, Field(min_length=1, max_length=2000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Start(Authored):
    """Start a recovery: the one object that the Temporal UI, the command line and detectors send."""

    runbook: Name
    reason: Text
    parameters: dict[str, Any] = {}
    mode: Mode = "live"
    incident: Name | None = None
    detected_at: AwareDatetime | None = None
    outage_started_at: AwareDatetime | None = None
    requested_by: Name | None = None


class Begin(Wire):
    """Which procedure one recovery has begin, under which workflow id, with what."""

    procedure: str
    id: str
    start: Start


class Decision(Authored):
    """Decide at a gate, on exactly the plan and the evidence that were shown (their digests)."""

    gate: Name
    by: Name
    plan: Name
    evidence: str = ""
    reason: str = Field(default="", max_length=2000)
    verdict: Verdict = "approve"


class Answer(Wire):
    """What the sender of a decision is told; ``needed`` counts the approvals still missing."""

    gate: str
    verdict: Verdict
    by: str
    needed: int
    identity: Literal["claimed"] = "claimed"


class Resolution(Authored):
    """Answer at a hold, named by the token that it shows: another one, or an earlier one, is refused."""

    hold: Name
    by: Name
    answer: Choice
    reason: str = Field(default="", max_length=2000)


class Pause(Authored):
    """Have a recovery hold before its next action."""

    by: Name
    reason: Text


class Note(Authored):
    """Write something into the record of a recovery."""

    by: Name
    text: Text


class Resolved(Wire):
    """What the sender of a resolution is told."""

    hold: str
    answer: Choice
    by: str
    identity: Literal["claimed"] = "claimed"


class GatePolicy(Authored):
    """Who decides at a gate, how many distinct people, by when, and what silence means (always: reject).

    ``valid`` is how long an approval may be acted on; after that people are asked again.
    """

    roles: tuple[Name, ...] = Field(min_length=1)
    approvals: int = Field(default=1, ge=1, le=10)
    within: timedelta = Field(default=timedelta(hours=1), gt=timedelta(0))
    valid: timedelta = Field(default=timedelta(hours=1), gt=timedelta(0))
    starter_may_approve: bool = False
    in_drill: Literal["pass", "ask"] = "pass"


class HoldPolicy(Authored):
    """Who is asked when a live step has failed for good, by when, and how soon while clients are shut out.

    Silence compensates before the point of no return; after it people are asked again, and again, each time with
    twice as long to answer, up to four hours; not while clients are shut out.
    """

    roles: tuple[Name, ...] = Field(min_length=1)
    within: timedelta = Field(default=timedelta(minutes=30), gt=timedelta(0))
    dark_within: timedelta = Field(default=timedelta(minutes=5), gt=timedelta(0))


class Tier(Authored):
    """Objectives of a class of systems: RTO from the outage, RPO in lost time."""

    rto: timedelta = Field(gt=timedelta(0))
    rpo: timedelta = Field(ge=timedelta(0))


class Undo(Authored):
    """Undo what a recovery left that was terminated, or that ended with something not undone.

    ``completed`` is said of one that ended well, so that nobody takes away by mistake what it was started for.
    """

    workflow: str = Field(min_length=1, max_length=1000)
    run: Name | None = None
    reason: Text
    requested_by: Name | None = None
    completed: bool = False


class Freed(Authored):
    """Let go of a system whose recovery ended without a release, having looked at what it left."""

    by: Name
    reason: Text


class Load(Wire):
    """Ask for a runbook, frozen for one recovery of workflow type ``procedure``."""

    start: Start
    procedure: str


class Frozen(Wire):
    """A runbook as it was when the recovery began; ``digest`` covers runbook, estate and parameters.

    ``hands`` is what it takes in hand where that is not its systems.
    """

    runbook: str
    title: str
    version: str
    procedure: str
    catalog: str
    systems: tuple[str, ...]
    tier: str
    objectives: Tier
    gates: dict[str, GatePolicy]
    hold: HoldPolicy | None = None
    people: dict[str, tuple[str, ...]]
    parameters: dict[str, Any]
    estate: dict[str, Any]
    not_after: timedelta
    keep_for: timedelta = timedelta(days=14)
    digest: str
    notify: tuple[str, ...] = ()
    hands: tuple[str, ...] = ()


def canonical(value: Any) -> bytes:
    """Return the one JSON text of ``value`` (sorted keys, models dumped) that digests are taken of."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), default=_plain).encode()


def digest(value: Any) -> str:
    """Return 16 hex digits (64 bits) of SHA-256 over the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value)).hexdigest()[:16]


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
