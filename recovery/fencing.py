"""Whose hand writes: what a target compares, so that a late one is refused there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from recovery.names import of_lease


@dataclass(frozen=True)
class Hand:
    """On which ``system`` an action writes, and how late it is: a later write has a higher epoch of the ``lease``;
    under one epoch a higher number of the order; of one order a higher attempt.

    Epochs of two leases do not compare. ``lease`` is "" in an order from before orders said it.
    """

    system: str = ""
    epoch: int = 0
    order: int = 0
    attempt: int = 0
    lease: str = ""


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


def hand_file(lease: str) -> str:
    """Return the name of the file in which a host keeps whose hand of ``lease`` was the last: ``SYSTEM@CATALOG``.

    No two leases have one name, also where case does not count. What no file may be called, as systems may, is known by
    a digest: behind a dot, which no catalog has.
    """
    catalog, system = of_lease(lease)
    if re.fullmatch(r"[a-z0-9_][a-z0-9_.-]{0,99}@[a-z0-9_-]{1,99}", told := f"{system}@{catalog}"):
        return told
    safe = [re.sub(r"[^a-z0-9_-]+", "_", word.lower())[:99] for word in (system, catalog)]
    return f"{safe[0]}@{safe[1]}.{hashlib.sha256(told.encode()).hexdigest()[:16]}"
