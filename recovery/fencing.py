"""Whose hand writes: what a target compares, so that a late one is refused there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Hand:
    """On which ``system`` an action writes, and how late it is: a later write has a higher epoch of the lease; under
    one epoch a higher number of the order; of one order a higher attempt.
    """

    system: str = ""
    epoch: int = 0
    order: int = 0
    attempt: int = 0


_HAND: ContextVar[Hand] = ContextVar("hand")


def hand() -> Hand:
    """Return the hand of the action that runs here; outside of one it has no system."""
    return _HAND.get(Hand())


@contextmanager
def acting(now: Hand) -> Iterator[None]:
    """Act as ``now`` within the body."""
    token = _HAND.set(now)
    try:
        yield
    finally:
        _HAND.reset(token)
