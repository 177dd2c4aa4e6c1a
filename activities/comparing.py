"""What two sides hold that replicate each other, compared by digests while clients write, and never of two moments."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol

from recovery.models import Wire

ROUNDS = 4
"""How often what clients just write is looked at again, before it is left undecided."""
NAMED = 20
"""Keys that are named; the others are counted."""
SOON = timedelta(seconds=2)
"""What expires within that is let go: each side sees it end at its own moment."""
MOST = 4000
"""Keys that are looked at again where everything was read."""

Difference = Literal["missing", "left over", "other contents", "other expiry"]


class Row(NamedTuple):
    """What a side holds under a key: type, when it expires (ms since 1970; -1: never), a digest of its contents."""

    kind: str
    expires: int
    digest: str


class Reading(NamedTuple):
    """What was read, by key in hex; then the offset in the log, and how many keys there are. ``reached`` was before."""

    rows: Mapping[str, Row]
    offset: int
    reached: int
    keys: int


class Reader(Protocol):
    """One side, as it is read."""

    async def read(self, keys: Sequence[str], upto: int = 0, seconds: float = 0) -> Reading:
        """Read these keys, once this side has come to ``upto`` in the log, for which ``seconds`` are waited."""
        ...


class Compared(Wire):
    """What a comparison found: how many were compared, how many of these differ and how, and some of them by name.

    ``undecided`` were being written all the time. ``at`` is when the replica had all of what was read at the primary.
    ``even`` tells that both had as many keys, ``failed`` why nothing could be compared.
    """

    failed: str = ""

    compared: int = 0
    undecided: int = 0
    differences: dict[Difference, int] = {}
    named: tuple[str, ...] = ()
    at: datetime | None = None
    even: bool = True


def difference(first: Row | None, second: Row | None) -> Difference | None:
    """Return how what a replica holds (``second``) is not what its primary does."""
    if first == second:
        return None
    if second is None:
        return "missing"
    if first is None:
        return "left over"
    return "other contents" if first[::2] != second[::2] else "other expiry"


def masked(key: bytes) -> str:
    """Return the name of a key as people may read it: of what is as long as a token the beginning, and a digest."""

    def short(found: re.Match[str]) -> str:
        word = found[0]
        return f"{word[:6]}…{hashlib.sha256(word.encode()).hexdigest()[:8]}"

    text = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode()
        for one in key.decode(errors="backslashreplace")
    )
    return re.sub(r"[A-Za-z0-9_+/=.~-]{16,}", short, text)[:120]


def soon() -> float:
    """Return until when what expires is let go, in ms since 1970."""
    return (datetime.now(UTC) + SOON).timestamp() * 1000


def goes(first: Row | None, second: Row | None, until: float) -> bool:
    """Tell whether it expires before ``until``, or has."""
    return any(row is not None and 0 <= row.expires <= until for row in (first, second))


def named(wrong: Iterable[tuple[str, Difference]]) -> tuple[str, ...]:
    """Return some keys that differ by name, and how."""
    return tuple(f"{masked(bytes.fromhex(key))}: {how}" for key, how in sorted(wrong)[:NAMED])


async def compared(primary: Reader, replica: Reader, keys: Sequence[str], seconds: float) -> Compared:
    """Compare what both hold under these keys; a difference counts when two rounds have seen the same.

    A round reads the primary, then the replica once it has come as far, and what differs at the primary again: what it
    changed in between is asked again. ``seconds`` are waited for the replica.
    """
    open_, seen = set(keys), dict[str, tuple[Row | None, Row | None]]()
    decided: dict[str, Difference | None] = {}
    at: datetime | None = None
    rounds, counts = 0, Counter[bool]()  # whether both had as many keys, where those of the primary stayed as many
    while rounds < ROUNDS and (open_ or not (counts[True] or counts[False] > 1)):
        rounds += 1
        asked = sorted(open_)
        before = await primary.read(asked)
        there = await replica.read(asked, before.offset, seconds)
        arrived, reached = datetime.now(UTC), there.reached >= before.offset
        unlike = [key for key in asked if before.rows.get(key) != there.rows.get(key)]
        after, until = await primary.read(unlike), soon()
        at = arrived if reached else at
        if reached and before.keys == after.keys:
            counts[before.keys == there.keys] += 1
        decided |= dict.fromkeys(open_.difference(unlike))
        for key in unlike:
            first, second = before.rows.get(key), there.rows.get(key)
            if first != after.rows.get(key) or goes(first, second, until):
                seen.pop(key, None)  # it is being written, or just going
                continue
            if not reached:
                continue  # it may still be on its way
            if seen.get(key) == (first, second):  # a difference has to be seen twice
                decided[key] = difference(first, second)
            seen[key] = (first, second)
        open_ -= decided.keys()
    wrong = {key: how for key, how in decided.items() if how is not None}
    return Compared(
        compared=len(decided),
        undecided=len(open_),
        differences=dict(Counter(wrong.values())),
        named=named(wrong.items()),
        at=at,
        even=counts[True] > 0 or counts[False] == 0,
    )
