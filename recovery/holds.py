"""Decide what a hold offers, whose answer counts, and where silence leads; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from recovery.models import Choice, HoldPolicy, Resolution

Cause = Literal["failure", "asked", "reset", "residual"]
"""Why it holds: a step failed for good, a person asked for it, the run was reset, an undo failed."""
Silence = Literal["compensate", "ask again", "accept"]

ANYBODY = HoldPolicy(roles=("anybody",))
"""Stands in where the runbook names nobody: then everybody of the estate may answer."""
LONGEST = timedelta(hours=4)
"""Whose silence has them asked again has twice as long each time, up to this: days of it must not fill the history."""
SLACK = timedelta(seconds=30)
"""A deadline that is noticed later than this was noticed by a worker that had been away."""
REASONED: tuple[Choice, ...] = ("skip", "accept", "withdraw", "take over")


@dataclass(frozen=True)
class Situation:
    """What is so when a recovery comes to hold.

    ``committed`` says that the point of no return was passed, ``unchanged`` that the step which passes it was seen
    to have changed nothing; ``skippable`` is what skipping the step means, "" where it must not be skipped. ``forward``
    says that going back helps nobody: what was there before does not serve either. ``offers`` are ways on that only
    this procedure knows.
    """

    cause: Cause
    committed: bool = False
    unchanged: bool = False
    skippable: str = ""
    forward: bool = False
    offers: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class Hold:
    """A hold as it is shown: why, what may be answered, by whom, until when, and where silence leads."""

    token: str
    cause: Cause
    step: str
    why: str
    answers: tuple[Choice, ...]
    roles: tuple[str, ...]
    until: datetime
    silence: Silence
    skippable: str = ""


def answers(now: Situation) -> tuple[Choice, ...]:
    """Return what may be answered, the plainest first.

    After the point of no return nothing is compensated: only who saw that nothing had changed may withdraw it.
    """
    if now.cause == "residual":
        return ("retry", "accept")
    back: tuple[Choice, ...] = ("compensate",) if not now.committed else ("withdraw",) if now.unchanged else ()
    if now.cause in ("asked", "reset"):
        return ("continue", "step", *back)
    skip: tuple[Choice, ...] = ("skip",) if now.skippable else ()
    return ("retry", *skip, *now.offers, *back)


def silence(now: Situation) -> Silence:
    """Return where silence leads: back while that helps, else people are asked again."""
    if now.cause == "residual":
        return "accept"
    return "ask again" if now.committed or now.forward else "compensate"


def deadline(policy: HoldPolicy, dark: bool, again: int = 0) -> timedelta:
    """Return how long people have who were asked ``again`` times before; while clients are shut out it stays short."""
    if dark:
        return min(policy.dark_within, policy.within)
    first = policy.within
    return first if first >= LONGEST else min(first * 2 ** min(again, 20), LONGEST)


def overslept(until: datetime, now: datetime) -> bool:
    """Tell whether a deadline passed while no worker was there: then nobody could have been heard."""
    return now - until > SLACK


def refusal(hold: Hold | None, people: Mapping[str, tuple[str, ...]], said: Resolution) -> str | None:
    """Return why ``said`` does not count, as a sentence that names the field, or None if it counts."""
    if hold is None:
        return "hold: nothing is held just now"
    if said.hold != hold.token:
        return "hold: this is not the token of the hold that is open; read it again"
    if no := who(people, hold.roles, said.by):
        return no
    if said.answer not in hold.answers:
        return f"answer: {said.answer} is not offered here; it has to be one of {', '.join(hold.answers)}"
    if said.answer in REASONED and not said.reason.strip():
        return f"reason: who answers {said.answer} says why"
    return None


def who(people: Mapping[str, tuple[str, ...]], roles: tuple[str, ...], by: str) -> str | None:
    """Return why ``by`` may not answer for ``roles``, or None; no roles, or "anybody", means all of the estate."""
    if by not in people:
        return "by: this name is not among the people of the estate"
    if roles and roles != ANYBODY.roles and not set(people[by]) & set(roles):
        return f"by: this person has not the role {' or '.join(roles)}"
    return None
