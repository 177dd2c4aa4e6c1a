"""What is to be said of sessions in tables of two databases, given what was seen of them; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from activities.comparing import Compared
from activities.databases import DatabaseAt
from activities.session_tables import DatabaseSighting, Replayed
from activities.session_verdict import Finding, Limits, Loss, Verdict, worst
from recovery.models import Wire


class SeenTables(Wire):
    """All that was seen of two databases: each by itself, a commit that was waited for, and the comparison, by table.

    ``compared`` has nothing of a table that cannot be.
    """

    databases: dict[str, DatabaseSighting] = {}
    replayed: Replayed | None = None
    compared: dict[str, Compared] = {}


def roles(pair: Sequence[DatabaseAt], seen: SeenTables) -> tuple[DatabaseAt, DatabaseAt] | None:
    """Return the primary and its standby; None where it is not so that there is one of each."""
    known = [(one, seen.databases[one.name]) for one in pair]
    primaries = [one for one, sighting in known if sighting.answered and sighting.seen.role == "primary"]
    standbys = [one for one, sighting in known if sighting.answered and sighting.seen.role == "standby"]
    return (primaries[0], standbys[0]) if primaries and standbys else None


def linked(primary: DatabaseAt, standby: DatabaseSighting) -> bool:
    """Tell whether a standby receives the log of ``primary``, as far as the login may see."""
    seen = standby.seen
    return seen.link == "hidden" or (seen.link == "streaming" and seen.of == primary.reached)


def faults(pair: Sequence[DatabaseAt], seen: SeenTables) -> Mapping[str, str]:
    """Return why a table cannot be compared, by table; what is wrong at one of both is wrong."""
    found: dict[str, str] = {}
    for one in pair:
        for name, table in seen.databases[one.name].seen.tables.items():
            if table.fault:
                found.setdefault(name, f"{one.name}: {table.fault}")
    return found


def of_tables(pair: Sequence[DatabaseAt], seen: SeenTables, limits: Limits) -> Verdict:
    """Return what is to be said of the tables of two databases that replicate each other."""
    found = (*_silent(seen), *_roles(pair, seen, limits), *_faulty(pair, seen))
    return Verdict(state=worst(found), findings=found, losses=tuple(_losses(pair, seen)))


def label(name: str, table: str) -> str:
    """Return how a table of a database is called in figures."""
    return f"{name} ({table})"


def figures(seen: SeenTables) -> dict[str, int]:
    """Return how many sessions there are at each, and how many were compared."""
    held = {
        f"sessions at {label(one, table)}": found.sessions
        for one, sighting in seen.databases.items()
        for table, found in sighting.seen.tables.items()
        if found.sessions is not None
    }
    standby = next((name for name, one in seen.databases.items() if one.seen.role == "standby"), "")
    compared = {label(standby, table): one.compared for table, one in seen.compared.items()}
    return held | {f"sessions compared at {name}": many for name, many in compared.items()}


def _silent(seen: SeenTables) -> Iterator[Finding]:
    for name, one in seen.databases.items():
        if not one.answered:
            yield Finding(state="broken", why=f"{name} cannot be seen: {one.why}")


def _faulty(pair: Sequence[DatabaseAt], seen: SeenTables) -> Iterator[Finding]:
    for why in faults(pair, seen).values():
        yield Finding(state="broken", why=why)


def _roles(pair: Sequence[DatabaseAt], seen: SeenTables, limits: Limits) -> Iterator[Finding]:
    found = [seen.databases[one.name] for one in pair]
    if not all(one.answered for one in found):
        return
    if (both := roles(pair, seen)) is not None:
        yield from _standby(*both, seen, limits)
    elif found[0].seen.role == "primary":
        told = " and ".join(f"{one.name} (byte {seen.databases[one.name].seen.has} of its log)" for one in pair)
        why = f"{told} both take writes: each has sessions that the other one lacks. Fence one"
        yield Finding(state="split", why=why)
    else:
        names = " and ".join(one.name for one in pair)
        yield Finding(state="broken", why=f"{names} are both standbys: nobody takes sessions. Promote one")


def _standby(primary: DatabaseAt, standby: DatabaseAt, seen: SeenTables, limits: Limits) -> Iterator[Finding]:
    first, second, name = seen.databases[primary.name].seen, seen.databases[standby.name].seen, standby.name
    if first.system != second.system:
        yield Finding(state="broken", why=f"{name} is a copy of another database than {primary.name}")
        return
    if not second.link:
        yield Finding(state="broken", why=f"{name} has no link to {primary.name}; it receives nothing")
    elif not linked(primary, seen.databases[name]):
        what = f"replicates {second.of}, which is not {primary.name}"
        if second.of == primary.reached:
            what = f"has a link to {primary.name} that is {second.link}, not streaming"
        yield Finding(state="broken", why=f"{name} {what}")
    if second.paused:
        left = max(second.received - second.has, 0)
        why = f"{name} does not replay: that is paused, with {left} bytes of log received (pg_wal_replay_resume)"
        yield Finding(state="lagging", why=why)
    yield from _kept_up(primary.name, name, seen, limits)


def _kept_up(primary: str, name: str, seen: SeenTables, limits: Limits) -> Iterator[Finding]:
    replayed = seen.replayed or Replayed(arrived=True)
    if replayed.failed:
        yield Finding(state="broken", why=f"{name} or {primary} went away: {replayed.failed}")
        return
    if not replayed.arrived:
        why = f"what {primary} had committed was not replayed at {name} after {limits.lag_seconds:g} s"
        yield Finding(state="lagging", why=f"{why}: it lacks {replayed.lacks} bytes of log")
    behind = seen.databases[primary].seen.has - seen.databases[name].seen.has
    if behind > limits.lag_bytes:
        yield Finding(state="lagging", why=f"{name} lacks {behind} bytes of log, {limits.lag_bytes} are allowed")
    for table, compared in seen.compared.items():
        where = label(name, table)
        if compared.failed:
            yield Finding(state="broken", why=f"{where} could not be compared: {compared.failed}")
        if compared.differences:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(compared.differences.items()))
            some = f" ({'; '.join(compared.named)})" if compared.named else ""
            why = f"{where} does not hold what {primary} does: of {compared.compared} sessions {kinds}{some}"
            yield Finding(state="broken" if replayed.arrived else "lagging", why=why)


def _losses(pair: Sequence[DatabaseAt], seen: SeenTables) -> Iterator[Loss]:
    for one in pair:
        sighting = seen.databases[one.name]
        if not sighting.answered or sighting.seen.role != "standby":
            continue
        for table in sighting.seen.tables:
            found = seen.compared.get(table)
            lacks = None
            if found is not None and not found.failed:
                lacks = sum(count for how, count in found.differences.items() if how != "left over")
            yield Loss(replica=label(one.name, table), sessions=lacks, seconds=_behind(pair, one.name, seen))


def _behind(pair: Sequence[DatabaseAt], standby: str, seen: SeenTables) -> float | None:
    """Return how many seconds of commits a standby lacks at the most; None where nobody can know.

    Where it does not keep up that is since the last commit that it has, by the clock of its primary, if that is there.
    """
    both, replayed, last = roles(pair, seen), seen.replayed, seen.databases[standby].seen.committed
    if replayed is not None and replayed.arrived:
        return replayed.seconds
    now = seen.databases[both[0].name if both else standby].seen.now
    if last is None or now is None:
        return None
    return round(max((now - last).total_seconds(), 0) + (replayed.seconds if replayed else 0), 3)
