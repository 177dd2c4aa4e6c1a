"""The safety rules over every state of two and three sites, against what must never be, and freeze windows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recovery.safety import Change, Fence, Freeze, Known, Rules, after, frozen, refusals

NAMES = ("north", "south", "west")
STATES = tuple(itertools.product((True, False, None), get_args(Fence)))
RULES = [Rules(max_fenced=n, trust_isolation=trust) for n in (0, 1, 2) for trust in (False, True)]
WHAT: tuple[Literal["shut", "open"], ...] = ("shut", "open")


def estates() -> Iterator[list[Known]]:
    """Yield every state of two and of three sites."""
    for count in (2, 3):
        for states in itertools.product(STATES, repeat=count):
            yield [Known(name, *state) for name, state in zip(NAMES, states, strict=False)]


def truths(site: Known, trust: bool) -> Iterator[tuple[bool, bool]]:
    """Yield what may be true of a site of which no more than this is known: it takes writes, it could serve."""
    for writes, serves in itertools.product((True, False), repeat=2):
        if site.writable is not None and writes != (site.writable and not (trust and site.fence == "isolated")):
            continue
        if site.writable is None and writes and (site.fence == "proven" or (trust and site.fence == "isolated")):
            continue
        if serves and site.fence in ("isolated", "proven"):
            continue
        if not serves and site.writable is not None and site.fence == "none":
            continue
        yield writes, serves


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: f"{rules.max_fenced}-{rules.trust_isolation}")
def test_allowed_change_never_leads_where_nobody_wants_to_be(rules: Rules) -> None:
    """Whatever may be true of the others: nothing worse than the worst of it is let through, nor anything refused
    that is right in the worst of it."""
    for sites in estates():
        for what in WHAT:
            others, one = sites[1:], sites[0]
            worlds = list(itertools.product(*(tuple(truths(site, rules.trust_isolation)) for site in others)))
            two = any(writes for world in worlds for writes, _ in world)
            none = any(not any(serves for _, serves in world) for world in worlds)
            fenced = sum(site.fence != "none" for site in others) + 1
            more = one.fence == "none" and fenced > rules.max_fenced
            refused = two if what == "open" else none or more
            assert bool(refusals(sites, Change(what, one.name), rules)) == refused, (sites, what)


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: f"{rules.max_fenced}-{rules.trust_isolation}")
def test_never_two_take_writes_after_whatever_is_allowed(rules: Rules) -> None:
    """From every state in which one site at most is known to take writes, and every sequence of three changes."""
    for start in ([Known(name, *state) for name, state in zip(NAMES, pair, strict=False)]
                  for pair in itertools.product(STATES, repeat=2)):  # fmt: skip
        if sum(bool(site.writable) for site in start) > 1:
            continue
        for changes in itertools.product([Change(what, site.name) for what in WHAT for site in start], repeat=3):
            sites = start
            for change in changes:
                if refusals(sites, change, rules):
                    continue
                sites = after(sites, change)
                reached = [
                    site for site in sites if site.writable and not (rules.trust_isolation and site.fence != "none")
                ]
                assert len(reached) <= 1
                if change.what == "shut":
                    assert any(site.fence == "none" for site in sites)


def test_site_that_is_shut_may_be_opened_again() -> None:
    """Going back is never caught between the rules: what was just shut is opened, if nothing else was."""
    for sites in estates():
        change = Change("shut", "north")
        if not refusals(sites, change, RULES[2]) and not any(site.writable is not False for site in sites[1:]):
            assert refusals(after(sites, change), Change("open", "north"), RULES[2]) == []


def test_kill_switch_refuses_everything() -> None:
    for sites in estates():
        for what in WHAT:
            said = refusals(sites, Change(what, "north"), RULES[0], "bob: the wrong site")
            assert "bob: the wrong site" in said[0]
            assert said[1:] == refusals(sites, Change(what, "north"), RULES[0])


@pytest.mark.parametrize(
    ("other", "what", "said"),
    [
        (Known("south", True), "open", "south takes writes: two would. Fence it, then go on with north"),
        (Known("south", None), "open", "south takes writes, or may: it is not known to be up, or down for good. Two"),
        (Known("south", None, "unreachable"), "open", "it is out of reach"),
        (Known("south", None, "isolated"), "open", "it is cut off"),
        (Known("south", False, "proven"), "shut", "nothing else could serve: south is fenced. Bring one of them back"),
        (Known("south", False, "proven"), "shut", "south is already, at most 1 may be at a time: bring one back first"),
    ],
)
def test_refusal_says_what_to_do(other: Known, what: Literal["shut", "open"], said: str) -> None:
    assert said in "; ".join(refusals([Known("north", True), other], Change(what, "north"), Rules()))


# --- freeze windows ----------------------------------------------------------------------------------------------

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(2000, 1, 2), datetime(2100, 1, 1), timezones=ZONES)
SPANS = st.timedeltas(timedelta(microseconds=1), timedelta(days=400))


def window(begins: datetime, span: timedelta, zone: Any = UTC, why: str = "the end of the year") -> Freeze:
    return Freeze.model_validate({"from": begins, "to": (begins + span).astimezone(zone), "why": why})


@given(MOMENTS, SPANS, ZONES, MOMENTS, ZONES)
def test_window_is_the_same_in_every_zone(
    begins: datetime, span: timedelta, ends_in: timezone, now: datetime, seen_in: timezone
) -> None:
    one = window(begins, span, ends_in)
    inside = 0 <= now.timestamp() - begins.timestamp() < span.total_seconds()
    if abs(now.timestamp() - begins.timestamp()) > 1 and abs(now.timestamp() - (begins + span).timestamp()) > 1:
        assert bool(frozen(Rules(freeze=(one,)), now.astimezone(seen_in))) == inside


@given(MOMENTS, SPANS, ZONES)
def test_window_has_its_first_moment_and_not_its_last(begins: datetime, span: timedelta, zone: timezone) -> None:
    rules, tick = Rules(freeze=(window(begins, span, zone),)), timedelta(microseconds=1)
    moments = (begins - tick, begins, begins + span - tick, begins + span)
    assert [bool(frozen(rules, moment.astimezone(zone))) for moment in moments] == [False, True, True, False]


@given(st.lists(st.tuples(MOMENTS, SPANS), max_size=4), MOMENTS)
def test_each_window_that_holds_is_named(windows: list[tuple[datetime, timedelta]], now: datetime) -> None:
    made = tuple(window(*one, why=f"reason {number}") for number, one in enumerate(windows))
    said = frozen(Rules(freeze=made), now)
    assert len(said) == sum(bool(frozen(Rules(freeze=(one,)), now)) for one in made)
    assert all("wait, or change safety.freeze" in line and "reason" in line for line in said)


@given(MOMENTS, st.timedeltas(timedelta(days=-400), timedelta(0)))
def test_window_that_ends_before_it_begins_is_refused(begins: datetime, span: timedelta) -> None:
    with pytest.raises(ValidationError, match="to is not after from"):
        window(begins, span)


def test_rules_outlive_the_wire() -> None:
    rules = Rules(freeze=(window(datetime(2026, 12, 24, tzinfo=UTC), timedelta(days=3)),))
    assert Rules.model_validate(rules.model_dump(mode="json", by_alias=True)) == rules
