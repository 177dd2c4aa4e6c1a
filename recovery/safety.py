"""The estate's safety rules: never no site, never two that take writes, not too many fenced, not now; pure.

What is not known counts against the change both times: a site of which nothing is known may take writes where another
one is to be opened, and cannot serve where another one is to be shut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple, Self

from pydantic import AwareDatetime, Field, model_validator

from recovery.models import Authored, Text

Fence = Literal["none", "unreachable", "isolated", "proven"]


class Freeze(Authored):
    """No recovery that could wait is started from ``from`` (inclusive) up to ``to``; one that has begun goes on."""

    begins: AwareDatetime = Field(alias="from")
    ends: AwareDatetime = Field(alias="to")
    why: Text

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.ends <= self.begins:
            raise ValueError("to is not after from; a window has to end after it began")
        return self


class Rules(Authored):
    """What an estate never lets happen to its sites.

    ``max_fenced`` is how many sites may be fenced, or out of reach, at a time. ``trust_isolation`` says that a site
    takes no writes once clients cannot reach it; without it only one that was proven fenced does not.
    """

    max_fenced: int = Field(default=1, ge=0)
    trust_isolation: bool = False
    freeze: tuple[Freeze, ...] = ()


class Known(NamedTuple):
    """What is known of a site, or of the database that makes it one; ``writable`` is None where that is not known.

    ``seen`` says in words what was found there ("is a standby").
    """

    name: str
    writable: bool | None
    fence: Fence = "none"
    seen: str = ""


class Change(NamedTuple):
    """What is to be done to the site of this name: no write is taken there any more, or it takes them."""

    what: Literal["shut", "open"]
    name: str


def refusals(sites: Sequence[Known], change: Change, rules: Rules, halted: str = "") -> list[str]:
    """Return every reason not to make ``change``, as a sentence that says what to do; none where it may be made.

    ``halted`` is who has everything stopped, and why.
    """
    one = next(site for site in sites if site.name == change.name)
    others = [site for site in sites if site.name != change.name]
    found = [f"the kill switch is on ({halted}); nothing is changed until it is taken away"] if halted else []
    return found + list((_shut if change.what == "shut" else _open)(one, others, rules))


def after(sites: Sequence[Known], change: Change) -> list[Known]:
    """Return what is known once ``change`` was made, and seen to have been."""
    made = Known(change.name, change.what == "open", "proven" if change.what == "shut" else "none")
    return [made if site.name == change.name else site for site in sites]


def frozen(rules: Rules, now: datetime) -> list[str]:
    """Return why nothing that could wait is started ``now``. What has begun goes on, and may always be undone."""
    return [
        f"nothing is started before {one.ends.astimezone(UTC):%Y-%m-%d %H:%M}Z: {one.why}; wait, or change"
        " safety.freeze in the estate"
        for one in rules.freeze
        if one.begins <= now < one.ends
    ]


def takes_writes(site: Known, rules: Rules) -> bool:
    """Tell whether a site takes writes from clients, or may."""
    if site.fence == "isolated" and rules.trust_isolation:
        return False
    return bool(site.writable) or (site.writable is None and site.fence != "proven")


def could_serve(site: Known) -> bool:
    """Tell whether a site is known to serve clients, or to be able to once it is opened."""
    return site.writable is not None and site.fence == "none"


def _shut(one: Known, others: Sequence[Known], rules: Rules) -> Iterator[str]:
    if not any(could_serve(site) for site in others):
        seen = ", ".join(f"{site.name} {_is(site)}" for site in others) or "there is no other"
        yield f"{one.name} would be shut, and nothing else could serve: {seen}. Bring one of them back first"
    away = [site.name for site in others if site.fence != "none"]
    if one.fence == "none" and len(away) >= rules.max_fenced:
        already = f"{', '.join(away)} {'is' if len(away) == 1 else 'are'} already" if away else "none may be"
        yield (
            f"{one.name} would be fenced, {already}, at most {rules.max_fenced} may be at a time: bring one back first,"
            " or change safety.max_fenced in the estate"
        )


def _open(one: Known, others: Sequence[Known], rules: Rules) -> Iterator[str]:
    for site in others:
        if not takes_writes(site, rules):
            continue
        if site.writable is None:
            yield (
                f"{site.name} takes writes, or may: it {_is(site)}. Two would. See what it is and fence it, then go on"
                f" with {one.name}"
            )
        else:
            yield f"{site.name} takes writes: two would. Fence it, then go on with {one.name}"


def _is(site: Known) -> str:
    """Say what keeps a site from being counted on."""
    if site.seen:
        return site.seen
    if site.fence != "none":
        return {"unreachable": "is out of reach", "isolated": "is cut off", "proven": "is fenced"}[site.fence]
    return "is not known to be up, or down for good"
