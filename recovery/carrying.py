"""What one attempt at an order leaves to the next: a short text that travels in the beats of its activity.

An operation that goes on by itself once it was begun must not be begun again by the attempt after a crash. So its
attempt carries what it is about to begin, then by what it is found again. Beats are no history; still no secret belongs
there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Carrier(Protocol):
    """Who has the text of this attempt."""

    carried: str

    async def carry(self, text: str) -> None:
        """Have the next attempt find ``text``. Raises Transient if Temporal does not confirm that."""


class Memory:
    """What is carried by who runs in no activity: for itself alone."""

    carried = ""

    async def carry(self, text: str) -> None:
        """Keep it."""
        self.carried = text


_CARRIER: ContextVar[Carrier] = ContextVar("carrier")


def carried() -> str:
    """Return what this attempt, or the one before it, carried last; "" if nothing."""
    found = _CARRIER.get(None)
    return found.carried if found else ""


async def carry(text: str) -> None:
    """Have the next attempt find ``text``, if this one dies; confirmed before it returns. Raises Transient."""
    found = _CARRIER.get(None)
    if found is None:
        _CARRIER.set(found := Memory())
    await found.carry(text)


@contextmanager
def carrying(carrier: Carrier) -> Iterator[None]:
    """Have ``carrier`` keep what is carried within the body."""
    token = _CARRIER.set(carrier)
    try:
        yield
    finally:
        _CARRIER.reset(token)
