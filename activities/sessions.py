"""Sessions in stores that replicate each other: how long one takes to arrive, and whether both sides hold the same.

What a session holds never leaves its store: digests do, which the store itself computes. Names of keys are known to
the worker while it compares, and are told only as ``masked`` has them, for a session's name may let its bearer in.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from math import ceil
from typing import NamedTuple

from activities import scripts, ssh
from activities.comparing import (
    MOST,
    NAMED,
    Compared,
    Difference,
    Reading,
    Row,
    compared,
    difference,
    goes,
    named,
    soon,
)  # fmt: skip
from activities.sightings import StoreSighting, sight_store
from activities.stores import StoreAt, StoreSpec
from recovery.actions import Probe, Spec
from recovery.errors import Invalid, Refused, Transient
from recovery.models import Wire

HEAD = 3
"""Lines that the script says for itself before what the store said."""
LIMIT = 5
"""Seconds in which a store answers; for one that stands still nobody waits longer."""
MANY = 1000
"""Keys of one command where everything is read."""
ALL = 120
"""Seconds in which everything is read."""


class Pace(NamedTuple):
    """How a store is asked many things: so many at a time, and seconds of rest after them; 0 is all at once."""

    some: int
    rest: float

    def takes(self, commands: int) -> float:
        """Return how many seconds are rested at most, with what each rest takes by itself."""
        return commands // self.some * (self.rest + 0.02) if self.some else 0


AT_ONCE = Pace(0, 0)
PACE = Pace(1, 0.12)
"""What clients write to is read so slowly that they do not notice: it works for us for some thousandths of it."""
TOGETHER = 50
"""Keys that one command draws, or reads in some 300 µs; it ends before that once it has read ``ENOUGH`` bytes."""
ENOUGH = 64 * 1024


class SeeStore(Probe[StoreSpec, StoreSighting]):
    """Look at a store by itself; one that does not let us in is what was found out, too."""

    name = "sessions.store"
    limit = timedelta(seconds=13)
    patience = timedelta(0)

    def title(self, spec: StoreSpec) -> str:
        """Say what is looked at."""
        return f"see {spec.system}"

    async def observe(self, spec: StoreSpec) -> StoreSighting:
        """Look, once."""
        try:
            return await sight_store.observe(spec)
        except Refused as error:
            return StoreSighting(why=error.message)


see_store = SeeStore()


class PairOfStores(Spec):
    """A primary and one that replicates it; ``seconds`` are allowed for what is written to arrive."""

    primary: StoreAt
    replica: StoreAt
    run: str = ""
    seconds: float = 5


class Canary(Wire):
    """A session that was written: how many replicas have confirmed it, after how long, and whether one was seen to.

    ``refused`` is why it could not be written, ``failed`` why that could not be tried. ``seconds`` is what the primary
    waited for, by its own clock.
    """

    confirmed: int = 0
    seconds: float = 0
    arrived: bool = False
    refused: str = ""
    failed: str = ""


class WriteCanary(Probe[PairOfStores, Canary]):
    """Write a session of its own, which goes by itself; wait for it at the primary, and read it at the replica."""

    name = "sessions.canary"
    limit = timedelta(seconds=90)
    patience = timedelta(0)

    def title(self, spec: PairOfStores) -> str:
        """Say what is tried."""
        return f"see a session of {spec.primary.name} arrive at {spec.replica.name}"

    async def observe(self, spec: PairOfStores) -> Canary:
        """Write, wait, read; a store that is gone meanwhile is what was found out."""
        try:
            return await self._tried(spec)
        except (Transient, Refused) as error:
            return Canary(failed=error.message)

    async def _tried(self, spec: PairOfStores) -> Canary:
        key, token, wait = f"recovery:canary:{spec.run or 'check'}", secrets.token_hex(8), int(spec.seconds * 1000)
        commands = ["TIME", f"SET {key} {token} PX {wait + 60_000}", f"WAIT 1 {wait}", "TIME"]
        told = await _asked(spec.primary, commands, seconds=spec.seconds)
        lines = told.splitlines()[HEAD:]
        if len(lines) != 6 or lines[2] != "OK":  # what a store that is shut answers
            return Canary(refused=next((line for line in lines[2:3]), "no answer")[:200])
        began, ended = (int(first) + int(then) / 1e6 for first, then in (lines[:2], lines[4:]))
        confirmed = int(lines[3])
        seen = await _asked(spec.replica, [f"GET {key}"])
        return Canary(
            confirmed=confirmed, seconds=round(max(ended - began, 0), 4), arrived=token in seen.splitlines()[HEAD:]
        )


write_canary = WriteCanary()


class Comparison(PairOfStores):
    """Compare so many sessions, at random; of those whose key fits ``match``. ``whole`` compares every one.

    Of a replica that does not ``keep up`` nothing is waited for: what it lacks now is counted.
    """

    match: str = "*"
    sample: int = 1000
    whole: bool = False
    keeps_up: bool = True


class CompareSessions(Probe[Comparison, Compared]):
    """Compare what two stores hold; what clients write meanwhile is looked at again, and no difference."""

    name = "sessions.compared"
    limit = timedelta(minutes=8)
    patience = timedelta(0)

    def title(self, spec: Comparison) -> str:
        """Say what is compared."""
        what = "every session" if spec.whole else f"{spec.sample} sessions"
        return f"compare {what} of {spec.primary.name} with those of {spec.replica.name}"

    async def observe(self, spec: Comparison) -> Compared:
        """Compare; a store that is gone meanwhile is what was found out."""
        try:
            return await (_whole(spec) if spec.whole or not spec.keeps_up else _sampled(spec))
        except (Transient, Refused) as error:
            return Compared(failed=error.message)


compare_sessions = CompareSessions()


async def _sampled(spec: Comparison) -> Compared:
    """Draw keys at both, for each may have what the other one lacks; where these have not as many, compare all."""
    drawn = await asyncio.gather(_drawn(spec.primary, spec, PACE), _drawn(spec.replica, spec, AT_ONCE))
    found = await _again(spec, sorted(set().union(*drawn)), PACE)
    return found if found.even else await _whole(spec)


async def _whole(spec: Comparison) -> Compared:
    first, second = await asyncio.gather(_all(spec.primary, spec), _all(spec.replica, spec))
    total, until = len(first.keys() | second.keys()), soon()
    unlike = sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))
    if not spec.keeps_up:  # it stands where it stood
        unlike = [key for key in unlike if not goes(first.get(key), second.get(key), until)]
        wrong = {key: how for key in unlike if (how := difference(first.get(key), second.get(key)))}
        return Compared(compared=total, differences=dict(Counter(wrong.values())), named=named(wrong.items()))
    found = await _again(spec, unlike[:MOST])
    rest = {key: (first.get(key), second.get(key)) for key in unlike[MOST:]}
    told = await _twice(spec, rest, arrived=found.at is not None) if rest else {}
    undecided = found.undecided + len(rest) - len(told)  # clients may just have written so many: nobody is accused
    wrong = {key: how for key, how in told.items() if how is not None}
    counts = Counter(found.differences) + Counter(wrong.values())
    return found.model_copy(
        update={
            "compared": total - undecided, "undecided": undecided, "differences": dict(counts),
            "named": (*found.named, *named(wrong.items()))[:NAMED],
        }
    )  # fmt: skip


async def _twice(
    spec: Comparison, rest: Mapping[str, tuple[Row | None, Row | None]], *, arrived: bool
) -> dict[str, Difference | None]:
    """Read everything once more, and return how the ``rest`` differs: what both show as before was not just written.

    Only where the replica had ``arrived`` at all that the primary had: else it may still be on its way.
    """
    if not arrived:
        return {}
    first, second = await asyncio.gather(_all(spec.primary, spec), _all(spec.replica, spec))
    until = soon()
    now = {key: (first.get(key), second.get(key)) for key in rest}
    return {
        key: difference(*rows)
        for key, rows in now.items()
        if rows[0] == rows[1] or (rows == rest[key] and not goes(*rows, until))
    }


async def _again(spec: Comparison, keys: Sequence[str], pace: Pace = AT_ONCE) -> Compared:
    return await compared(_Side(spec.primary, pace), _Side(spec.replica, AT_ONCE), keys, spec.seconds)


async def _drawn(store: StoreAt, spec: Comparison, pace: Pace) -> set[str]:
    """Return keys from places in the store's table that chance chose."""
    times = max(spec.sample // 2 // TOGETHER, 1)
    chance = [random.SystemRandom().getrandbits(48) for _ in range(times)]
    match = _quoted(spec.match)
    told = await _asked(store, _reading(f"draw {cursor} {TOGETHER} {match}" for cursor in chance), pace)
    return set(list(rows(told))[: spec.sample])


class _Side(NamedTuple):
    store: StoreAt
    pace: Pace

    async def read(self, keys: Sequence[str], upto: int = 0, seconds: float = 0) -> Reading:
        found: dict[str, Row] = {}
        left: list[str] = [*keys]
        reached: int | None = None
        while True:
            asked = [left[at : at + TOGETHER] for at in range(0, len(left), TOGETHER)]
            words = (f"read {ENOUGH} {' '.join(map(_escaped, some))}" for some in asked)
            told = (await _asked(self.store, _reading(words), self.pace, upto, seconds)).splitlines()
            facts = {name: int(value) for name, value in (line.split("\t") for line in told[:HEAD])}
            reached = facts["reached"] if reached is None else reached
            left = taken(told[HEAD:], asked, found)
            if not left:
                return Reading(found, facts["offset"], reached, facts["keys"])


async def _all(store: StoreAt, spec: Comparison) -> Mapping[str, Row]:
    values = store.values() | {"read": scripts.lua("sessions"), "match": spec.match, "count": MANY}
    return rows(await ssh.look(store.host, "store_all", values, ALL))


async def _asked(
    store: StoreAt, commands: Iterable[str], pace: Pace = AT_ONCE, upto: int = 0, seconds: float = 0
) -> str:
    asked = [*commands]
    values = store.values() | {"commands": "\n".join(asked), "upto": upto, "patience": ceil(seconds)}
    seconds += pace.takes(len(asked))
    values |= {"limit": LIMIT + ceil(seconds), "some": pace.some, "rest": pace.rest}
    return await ssh.look(store.host, "store_ask", values, 2 * LIMIT + 2 * seconds)


def _reading(words: Iterable[str]) -> Iterator[str]:
    """Yield the commands that have the script read, which the store is told once and then knows by its digest.

    Each takes the store as long as some ten writes of clients, for which these wait.
    """
    text = scripts.lua("sessions")
    known = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    yield f'EVAL_RO "{text}" 0 read 0'
    yield from (f"EVALSHA_RO {known} 0 {one}" for one in words)


def _escaped(key: str) -> str:
    """Return a key in hex as a word of valkey-cli's, which makes bytes of it: the store has nothing to do for that."""
    return '"' + re.sub("..", r"\\x\g<0>", key) + '"'


def taken(told: Sequence[str], asked: Iterable[Sequence[str]], found: dict[str, Row]) -> list[str]:
    """Keep what was read of each of the keys that were ``asked`` for together; return those that nothing was read of.

    Raises Transient when the store broke off, Invalid when it says something else.
    """
    lines, left = iter(told), list[str]()
    next(lines, "")  # of the command that told it the script
    for some in asked:
        count = re.fullmatch(r"read (\d+)", line := next(lines, ""))
        if count is None:
            raise _strange(line)
        for key in some[: int(count[1])]:
            words = (line := next(lines, "")).split(" ")
            if len(words) == 3:
                found[key] = Row(words[0], int(words[1]), words[2])
            elif line != "none":  # of what broke off nothing is known to be missing
                raise _strange(line)
        left += some[int(count[1]) :]
    return left


def rows(told: str) -> dict[str, Row]:
    """Return what a store told of its keys. Raises Transient when it broke off, Invalid when it says something else."""
    found: dict[str, Row] = {}
    for line in told.splitlines():
        words = line.split(" ")
        if len(words) == 4 and re.fullmatch(r"(?:[0-9a-f]{2})*", words[0]):
            if words[0]:  # a key without a name is nobody's session, and could not be asked for
                found[words[0]] = Row(words[1], int(words[2]), words[3])
        elif line and not re.match(r"(?:cursor |read 0$|reached\t|offset\t|keys\t)", line):
            raise _strange(line)
    return found


def _strange(line: str) -> Transient | Invalid:
    if not line or line.startswith(("LOADING", "BUSY", "NOSCRIPT", "Could not connect", "Error:")):
        return Transient(f"a store broke off: {line[:150]}")
    return Invalid(f"cli: what answers does not read sessions as Valkey (or Redis 7) does: {line[:150]}")


def _quoted(match: str) -> str:
    return '"' + re.sub(r'["\\]', r"\\\g<0>", match) + '"'
