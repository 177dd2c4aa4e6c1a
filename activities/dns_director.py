"""DNS as a traffic director: a record points at a site, its TTL is lowered beforehand, and resolvers are asked.

It cannot shut anybody out at once: what was told to a resolver is told to clients until its TTL has passed.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import ClassVar

from pydantic import Field

from activities.dns_zones import RecordSpec, Written, Zone, read, resolved, swap
from activities.pointing import Pointing, Sighted, Where, drifted, mine, where
from recovery.actions import Action, Probe
from recovery.errors import Drifted, Invalid
from recovery.models import Wire

PAUSE = 0.5


class PointRecord(RecordSpec):
    """Point at ``site``; "" at nobody: the record says what the estate has for that."""

    site: str


class Recorded(Pointing):
    """Where a record points, its values as they stand in the zone, and its TTL in seconds."""

    values: tuple[str, ...] = ()
    ttl: int = 0


class PointAt(Action[PointRecord, Recorded]):
    """Move a record to a site, with the TTL of a recovery if it has a longer one.

    The record as it was seen and the mark beside it are prerequisites of the same update: whoever was first wins.
    After an undo the record is what it was; whose write was the last stays written.
    """

    name = "dns.point"

    def title(self, spec: PointRecord) -> str:
        """Say who points where."""
        return f"point {spec.system} at {spec.site or 'nobody'}"

    async def observe(self, spec: PointRecord) -> Recorded:
        """Read the record at the primary."""
        return recorded(spec, (await read(spec)).written)

    def desired(self, spec: PointRecord, before: Recorded) -> Recorded:
        """Want the one value of the site; where that is so already its TTL stays as it is, too."""
        wanted = recorded(spec, Written((spec.value(spec.site),), min(before.ttl or spec.ttl, spec.ttl)))
        return before if before.values == wanted.values else wanted

    async def apply(self, spec: PointRecord, before: Recorded) -> None:
        """Write the value of the site."""
        await _move(spec, before, self.desired(spec, before))

    async def undo(self, spec: PointRecord, before: Recorded) -> None:
        """Write what was there."""
        await _move(spec, self.desired(spec, before), before)

    async def halt(self, spec: PointRecord) -> None:
        """Shut out what an earlier attempt may still write: from now on this order's mark is the last."""
        await _claim(spec)


point_record = PointAt()


class KeepFor(RecordSpec):
    """Have the record's TTL be ``seconds``."""

    seconds: int = Field(ge=0, le=2**31 - 1)


class Lasting(Wire):
    """How long resolvers keep a record, in seconds."""

    ttl: int


class SetTtl(Action[KeepFor, Lasting]):
    """Change how long resolvers keep a record, whatever it says; the TTL that it had is kept beside the mark."""

    name = "dns.ttl"

    def title(self, spec: KeepFor) -> str:
        """Say how long it is kept from now on."""
        return f"have resolvers keep {spec.system} for {spec.seconds} s"

    async def observe(self, spec: KeepFor) -> Lasting:
        """Read the record at the primary."""
        return Lasting(ttl=_there(spec, await read(spec)).ttl)

    def desired(self, spec: KeepFor, before: Lasting) -> Lasting:
        """Want that TTL."""
        return Lasting(ttl=spec.seconds)

    async def apply(self, spec: KeepFor, before: Lasting) -> None:
        """Write the same record with the new TTL."""
        await self._write(spec, before.ttl, spec.seconds)

    async def undo(self, spec: KeepFor, before: Lasting) -> None:
        """Write the same record with the TTL that it had."""
        await self._write(spec, spec.seconds, before.ttl)

    async def halt(self, spec: KeepFor) -> None:
        """Shut out what an earlier attempt may still write."""
        await _claim(spec)

    async def _write(self, spec: KeepFor, here: int, there: int) -> None:
        def changed(found: Zone) -> Written:
            now = _there(spec, found)
            if now.ttl not in (here, there):
                raise Drifted(f"{spec.system}: somebody else has just set its TTL to {now.ttl} s; nothing was written")
            return now._replace(ttl=there)

        await swap(spec, changed)


set_ttl = SetTtl()


class RecordSeen(Sighted):
    """Where a record points, and the TTL that it has outside of recoveries (``usual``)."""

    pointed: Recorded
    usual: int = 0


class LookAt(Probe[RecordSpec, RecordSeen]):
    """See where a record points, at the primary."""

    name = "dns.seen"
    skip: ClassVar[str] = "it is not known where the traffic goes"

    def title(self, spec: RecordSpec) -> str:
        """Say what is looked at."""
        return f"see where {spec.system} points"

    async def observe(self, spec: RecordSpec) -> RecordSeen:
        """Read the record and its mark."""
        found = await read(spec)
        return RecordSeen(pointed=recorded(spec, found.written), epoch=found.mark.epoch, usual=found.usual)


look_at_record = LookAt()


class Resolve(RecordSpec):
    """Wait ``least`` seconds, as long as a TTL lasts, then up to ``most`` until every resolver points at ``site``."""

    site: str
    least: int = 0
    most: int = 30


class Resolved(Wire):
    """Where each resolver sends clients ("nobody", "no answer"), how many do not do as wanted, after how many seconds.

    ``seconds`` is measured: when the last of them was first seen to do so, or when nobody waited any longer.
    """

    answers: dict[str, str] = {}
    left: int = 0
    seconds: float = 0


class Resolves(Probe[Resolve, Resolved]):
    """Ask the resolvers where they send clients; one that does not follow is no failure."""

    name = "dns.resolved"
    limit = timedelta(minutes=12)
    patience = timedelta(minutes=24)
    skip: ClassVar[str] = "it is not known where resolvers send clients"

    def title(self, spec: Resolve) -> str:
        """Say what is waited for."""
        return f"see resolvers send clients of {spec.system} to {spec.site or 'nobody'}"

    async def observe(self, spec: Resolve) -> Resolved:
        """Ask them until all do, and the time is over that an answer may be kept which nobody here has asked for."""
        began, seconds = asyncio.get_running_loop().time(), 0.0
        while True:
            answers = await _answers(spec)
            left = sum(one != (spec.site or "nobody") for one in answers.values())
            now = asyncio.get_running_loop().time() - began
            seconds = now if left else seconds or now
            if now >= spec.least and (not left or now >= spec.least + spec.most):
                return Resolved(answers=answers, left=left, seconds=round(seconds, 3))
            await asyncio.sleep(PAUSE)


resolves = Resolves()


def recorded(spec: RecordSpec, written: Written) -> Recorded:
    """Return where a record points that says this; one that is missing points nowhere that anybody meant."""
    known = {_sites(spec).get(value) for value in written.values} or {None}
    at: Where
    at, site = ("nobody", "") if known == {""} else where(known)
    return Recorded(at=at, site=site, values=written.values, ttl=written.ttl)


def _sites(spec: RecordSpec) -> dict[str, str]:
    return {spec.text(value): site for site, value in (*spec.sites.items(), ("", spec.nobody))}


async def _answers(spec: RecordSpec) -> dict[str, str]:
    told = await asyncio.gather(*(resolved(spec, one) for one in spec.resolvers))
    found = {}
    for resolver, values in zip(spec.resolvers, told, strict=True):
        seen = recorded(spec, Written(values or ()))
        found[resolver] = "no answer" if values is None else seen.site or seen.at
    return found


def _there(spec: RecordSpec, found: Zone) -> Written:
    if not found.written.values:
        raise Invalid(f"record: {spec.zone} has no {spec.type} of {spec.record}; make it first")
    return found.written


async def _move(spec: PointRecord, here: Recorded, there: Recorded) -> None:
    def moved(found: Zone) -> Written:
        now = recorded(spec, found.written)
        if now not in (here, there):
            raise drifted(spec.system, now)
        return Written(there.values, there.ttl)

    await swap(spec, moved)


async def _claim(spec: RecordSpec) -> None:
    if mine(spec.system).epoch:
        await swap(spec, lambda found: found.written)
