"""What is to be said of sessions at several sites, given what was seen of them; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from activities.comparing import Compared
from activities.sessions import Canary
from activities.sightings import StoreSighting
from activities.store_roles import CLOSED
from activities.stores import StoreAt
from recovery.models import Wire

State = Literal["replicated", "lagging", "broken", "split"]
STATES: tuple[State, ...] = ("replicated", "lagging", "broken", "split")
"""From what is well to what is worst: two that take writes each have what the other one lacks."""


class Finding(Wire):
    """One thing that was seen, and what it makes of the verdict."""

    state: State
    why: str


class Limits(Wire):
    """How far behind a replica may be: in bytes of the log, and in seconds for a session to arrive."""

    lag_bytes: int
    lag_seconds: float


class SeenSessions(Wire):
    """All that was seen, by store: each by itself, a session that was written, and the comparison with the primary."""

    stores: dict[str, StoreSighting] = {}
    canaries: dict[str, Canary] = {}
    compared: dict[str, Compared] = {}


class Loss(Wire):
    """What ``replica`` lacks of the primary at this moment: sessions, and seconds; None where nobody can know."""

    replica: str
    sessions: int | None
    seconds: float | None


class Verdict(Wire):
    """The worst of what was found, each finding, and what would be lost if the primary were lost now."""

    state: State
    findings: tuple[Finding, ...] = ()
    losses: tuple[Loss, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return what is not well, in words."""
        return tuple(one.why for one in self.findings if one.state != "replicated")


def takers(seen: Mapping[str, StoreSighting]) -> list[str]:
    """Return the stores that take writes, as far as is seen."""
    return [
        name
        for name, one in seen.items()
        if one.answered and one.seen.role == "primary" and one.seen.least != CLOSED and not one.seen.filling
    ]


def follows(primary: StoreAt, replica: StoreSighting) -> bool:
    """Tell whether a replica has a link to ``primary`` that is up."""
    return replica.answered and replica.seen.of == primary.upstream and replica.seen.linked


def worst(findings: tuple[Finding, ...]) -> State:
    """Return the state that the worst of them makes."""
    return max((one.state for one in findings), key=STATES.index, default="replicated")


def verdict(stores: Mapping[str, StoreAt], seen: SeenSessions, limits: Limits) -> Verdict:
    """Return what is to be said of the stores; each finding says of which, and what was seen."""
    found = (*_silent(seen), *_primaries(stores, seen, limits))
    return Verdict(state=worst(found), findings=found, losses=tuple(_losses(stores, seen)))


def with_others(first: Verdict, *others: Finding) -> Verdict:
    """Return a verdict with what was found elsewhere."""
    found = (*first.findings, *others)
    return first.model_copy(update={"state": worst(found), "findings": found})


def joined(*verdicts: Verdict) -> Verdict:
    """Return one verdict of several, as bad as the worst of them."""
    found = tuple(finding for one in verdicts for finding in one.findings)
    return Verdict(state=worst(found), findings=found, losses=tuple(loss for one in verdicts for loss in one.losses))


def _silent(seen: SeenSessions) -> Iterator[Finding]:
    for name, one in seen.stores.items():
        if not one.answered:
            yield Finding(state="broken", why=f"{name} cannot be seen: {one.why}")


def _primaries(stores: Mapping[str, StoreAt], seen: SeenSessions, limits: Limits) -> Iterator[Finding]:
    found = takers(seen.stores)
    if len(found) > 1:
        told = (
            f"{name} ({seen.stores[name].seen.keys} keys, offset {seen.stores[name].seen.offset})" for name in found
        )
        why = f"{' and '.join(told)} all take writes: each has sessions that the others lack. Fence all but one"
        yield Finding(state="split", why=why)
        return
    if not found:
        if all(one.answered for one in seen.stores.values()):
            yield Finding(state="broken", why="no store takes writes: each is a replica, or fenced. Promote one")
        return
    for name in stores:
        if name != found[0] and seen.stores[name].answered:
            yield from _replica(stores[found[0]], stores[name], seen, limits)


def _replica(primary: StoreAt, store: StoreAt, seen: SeenSessions, limits: Limits) -> Iterator[Finding]:
    one, name = seen.stores[store.name].seen, store.name
    if one.role == "primary":
        yield Finding(state="broken", why=f"{name} is fenced, and replicates nobody; have it replicate {primary.name}")
        return
    if one.of != primary.upstream:
        yield Finding(state="broken", why=f"{name} replicates {one.of}, which is not {primary.name}")
        return
    if one.filling:
        yield Finding(state="broken", why=f"{name} is being filled with a copy of {primary.name}; what it has is old")
        return
    if not one.linked:
        since = f" for {one.down} s" if one.down is not None else ""
        yield Finding(state="broken", why=f"{name} has had no link to {primary.name}{since}")
        return
    yield from _kept_up(primary, name, seen, limits)


def _kept_up(primary: StoreAt, name: str, seen: SeenSessions, limits: Limits) -> Iterator[Finding]:
    canary, compared = seen.canaries.get(name, Canary(arrived=True)), seen.compared.get(name, Compared())
    behind = max(seen.stores[primary.name].seen.offset - seen.stores[name].seen.offset, 0)
    if canary.failed or compared.failed:
        yield Finding(state="broken", why=f"{name} or {primary.name} went away: {canary.failed or compared.failed}")
        return
    if canary.refused:
        yield Finding(state="broken", why=f"{primary.name} takes no session: {canary.refused}")
    elif not canary.arrived:
        why = f"a session that was written at {primary.name} had not arrived at {name} after {limits.lag_seconds:g} s"
        yield Finding(state="lagging", why=why)
    if behind > limits.lag_bytes:
        yield Finding(state="lagging", why=f"{name} lacks {behind} bytes of log, {limits.lag_bytes} are allowed")
    if compared.differences:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(compared.differences.items()))
        some = f" ({'; '.join(compared.named)})" if compared.named else ""
        why = f"{name} does not hold what {primary.name} does: of {compared.compared} sessions {kinds}{some}"
        yield Finding(state="lagging" if not canary.arrived else "broken", why=why)


def _losses(stores: Mapping[str, StoreAt], seen: SeenSessions) -> Iterator[Loss]:
    found = takers(seen.stores)
    for name, sighting in seen.stores.items():
        one = sighting.seen
        if not sighting.answered or one.role != "replica" or len(found) > 1:
            continue
        canary, compared = seen.canaries.get(name), seen.compared.get(name)
        lacks = sum(count for how, count in compared.differences.items() if how != "left over") if compared else None
        whole = bool(found) and follows(stores[found[0]], sighting)
        if whole and canary is not None and canary.arrived:
            yield Loss(replica=name, sessions=lacks, seconds=canary.seconds)
        elif whole and canary is None and compared is not None and compared.at is not None:
            yield Loss(replica=name, sessions=lacks, seconds=0.0)
        else:
            away = one.down if one.down is not None else one.idle
            yield Loss(replica=name, sessions=lacks, seconds=None if away is None else float(away))
