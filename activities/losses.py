"""Taking over from a site that is lost: what is known of it, what may be missing, and what stands in the way; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from activities.databases import DatabaseSeen
from activities.nodes import NodesSeen
from activities.pointing import Sighted
from activities.quota import QuotaSeen
from activities.rooms import RoomSeen
from activities.sightings import Sighting
from activities.silences import Alerts
from activities.sites import NEEDED, Sites
from activities.stores import Replication
from activities.workload_looks import WorkloadSeen
from recovery.models import Wire


class Lost(Wire):
    """All that was looked at, not before ``at``: the old site as each vantage sees it, and the one that takes over."""

    sightings: dict[str, dict[str, Sighting]] = {}
    databases: dict[str, DatabaseSeen] = {}
    stores: dict[str, Replication] = {}
    running: dict[str, bool] = {}
    workloads: dict[str, WorkloadSeen] = {}
    nodes: dict[str, NodesSeen] = {}
    directors: dict[str, Sighted] = {}
    alerts: dict[str, Alerts] = {}
    halted: str = ""
    at: datetime | None = None
    quota: QuotaSeen | None = None
    rooms: dict[str, RoomSeen] = {}


class Estimate(Wire):
    """What a database may lack that takes over: commits of ``seconds`` before the outage, None if nobody can know.

    ``committed`` is the last commit that has arrived, ``received`` and ``replayed`` are positions in the log.
    """

    database: str
    committed: datetime | None
    received: str
    replayed: str
    seconds: float | None


class SessionsAtStake(Wire):
    """What a store may lack that takes over: sessions of ``seconds`` before the outage, None if nobody can know.

    ``silent`` are the seconds for which it had heard nothing of its primary, at most; ``keys`` is what it holds.
    """

    store: str
    keys: int
    silent: int | None
    seconds: float | None


class LossAtStake(Wire):
    """What people decide on who may accept a loss."""

    at_stake: str
    in_words: tuple[str, ...]
    estimates: tuple[Estimate, ...]
    sessions: tuple[SessionsAtStake, ...] = ()


class FenceAtStake(Wire):
    """What people decide on who may answer for a site that nobody has seen fenced."""

    at_stake: str
    in_words: tuple[str, ...]


def estimates(sites: Sites, lost: Lost, outage: datetime) -> tuple[Estimate, ...]:
    """Return for each database what may be missing, at most: what was committed after the last that has arrived."""
    found = []
    for pair in sites.databases:
        seen = lost.databases[pair.new.name]
        seconds = None if seen.committed is None else max((outage - seen.committed).total_seconds(), 0.0)
        found.append(
            Estimate(
                database=pair.new.name,
                committed=seen.committed,
                received=seen.flushed,
                replayed=seen.replayed,
                seconds=0.0 if sites.wanted.replication == "synchronous" else seconds,
            )
        )
    return tuple(found)


def sessions(sites: Sites, lost: Lost, outage: datetime) -> tuple[SessionsAtStake, ...]:
    """Return for each store what may be missing, at most: what was written after it last heard from its primary.

    A link that is down was given up after a silence, or cut at once: nobody can tell, so the silence counts. Seconds
    are told in whole ones. A store that is a primary already lacks nothing: its switch was proven.
    """
    found = []
    for two in sites.stores:
        seen = lost.stores[two.new.name]
        if seen.role == "primary":
            continue
        silent = _silent(seen)
        heard = None if silent is None or lost.at is None else lost.at - timedelta(seconds=silent + 1)
        seconds = None if heard is None else max((outage - heard).total_seconds(), 0.0)
        found.append(SessionsAtStake(store=two.new.name, keys=seen.keys, silent=silent, seconds=seconds))
    return tuple(found)


def _silent(seen: Replication) -> int | None:
    if seen.linked:
        return seen.idle
    return None if seen.down is None or seen.timeout is None else seen.down + seen.timeout


def over(found: tuple[Estimate | SessionsAtStake, ...], rpo: timedelta) -> bool:
    """Tell whether more may be missing than the tier allows."""
    return any(one.seconds is None or one.seconds > rpo.total_seconds() for one in found)


def reached_from(sites: Sites, lost: Lost) -> str | None:
    """Return the site whose workers reach the host of every old database, so that it can be fenced, and seen to be.

    "" for workers that stand at none; None if nobody does. The new site's own are the first choice.
    """
    views = [[view[pair.old.name] for pair in sites.databases] for view in lost.sightings.values()]
    whole = [view for view in views if all(one.answered for one in view) and len({one.site for one in view}) == 1]
    return next(iter(sorted((view[0].site for view in whole), key=lambda site: site != sites.new)), None)


def loss_at_stake(
    sites: Sites, found: tuple[Estimate, ...], kept: tuple[SessionsAtStake, ...], rpo: timedelta
) -> LossAtStake:
    """Return what may be lost, in words."""
    return LossAtStake(
        at_stake=f"{sites.new} takes over without {sites.old}: what it lacks is lost, until {sites.old} can be read.",
        in_words=(
            *(_words(one) for one in found),
            *(_of_sessions(one) for one in kept),
            f"the tier allows {rpo.total_seconds():g} s",
        ),
        estimates=found,
        sessions=kept,
    )


def _of_sessions(one: SessionsAtStake) -> str:
    if one.seconds is None:
        return f"{one.store} does not tell when it last heard from its primary: how many sessions it lacks is not known"
    return (
        f"{one.store} holds {one.keys} keys, and has heard nothing of its primary for up to {one.silent} s: it lacks"
        f" sessions that were written in at most {one.seconds:.1f} s before the outage"
    )


def _words(one: Estimate) -> str:
    if one.committed is None or one.seconds is None:
        return f"{one.database} tells of no commit that has arrived: how much it lacks is not known"
    return (
        f"{one.database} has everything up to {one.received}; the last commit in it is of"
        f" {one.committed:%H:%M:%S.%f}Z: it lacks what was committed in at most {one.seconds:.1f} s after that"
    )


def fence_at_stake(sites: Sites, lost: Lost) -> FenceAtStake:
    """Return what is known of the old site, in words."""
    return FenceAtStake(
        at_stake=(
            f"Nobody has seen that {sites.old} takes no writes. Whoever approves answers, by name, for that no client"
            f" reaches it until it is fenced: what it took after this would be in nobody's database."
        ),
        in_words=(*_seen(lost), *sites.standing(lost.workloads)),
    )


def _seen(lost: Lost) -> Iterator[str]:
    for vantage, view in lost.sightings.items():
        for name, sighting in view.items():
            what = f"is {sighting.seen.role}" if sighting.answered else f"cannot be seen: {sighting.why}"
            yield f"from {vantage}: {name} {what}"


def unopened(lost: Lost) -> dict[str, str]:
    """Return of which nodes it is not known whether they are cordoned, or which cannot be opened, and why.

    By cluster. It stands in nobody's way: nodes may all be open, and people may open them.
    """
    return {
        name: "; ".join((", ".join(seen.cordoned) if seen.known else "not known, they stay as they are", *seen.faults))
        for name, seen in lost.nodes.items()
        if seen.faults and (seen.cordoned or not seen.known)
    }


def blockers(sites: Sites, lost: Lost, *, turned: bool = False) -> list[str]:
    """Return everything that stands in the way of taking over, each with what to do about it.

    A recovery that was ``turned`` to that may have promoted some of it already.
    """
    return [
        *([f"the kill switch is on ({lost.halted}); nothing is changed until it is taken away"] if lost.halted else []),
        *(line for pair in sites.databases for line in _database(pair.new.name, lost.databases[pair.new.name])),
        *(line for two in sites.stores for line in _store(two.new.name, lost.stores, turned)),
        *(line for name, seen in lost.workloads.items() for line in _workload(sites, name, seen, turned)),
        *(
            f"{name}: has no address of {sites.new} in the estate"
            for name, director in sites.directors.items()
            if sites.new not in director.sites
        ),
        *(
            f"{name}: points at {sites.new} already; there is nothing to take over"
            for name, seen in lost.directors.items()
            if seen.pointed.site == sites.new
        ),
    ]


def _database(name: str, seen: DatabaseSeen) -> Iterator[str]:
    yield from (f"{name}: {fault}" for fault in seen.faults)
    if seen.role != "standby" and not seen.promoted:
        is_ = "down" if seen.role == "down" else f"a {seen.role}"
        yield f"{name}: is {is_}, no standby; only a standby can take over"
    if seen.free is not None and seen.free < NEEDED:
        yield f"{name}: {seen.free // 1024} MiB are free for log, {NEEDED // 1024} are needed; free room"


def _workload(sites: Sites, name: str, seen: WorkloadSeen, turned: bool) -> Iterator[str]:
    yield from seen.faults
    if not turned:
        yield from sites.warm(name, seen)


def _store(name: str, stores: Mapping[str, Replication], turned: bool) -> Iterator[str]:
    seen = stores[name]
    if seen.role != "replica" and not turned:
        yield f"{name}: is no replica; only a replica can take over"
    if seen.filling:
        yield f"{name}: is being filled, and holds what is old; wait for the end of that"
