"""What a site needs to serve all clients, against what it has: connections, Azure's quotas, room for pods; pure.

A figure that nobody has measured or said is None, and is told as not known: never as enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from activities.databases import DatabaseSeen
from activities.homecoming import Back
from activities.losses import Lost
from activities.machines import MachineSpec
from activities.placement import UNSEEN, amount
from activities.quota import REGIONAL, QuotaSeen, Region, Size, Stood
from activities.rooms import Granted, RoomSeen
from activities.sites import Found, Pair, Sites, Stores
from activities.stores import Replication
from activities.workload_looks import WorkloadSeen
from recovery.models import Wire
from runbooks.schema import Workload

UNKNOWN = "not known"
UP = ("running", "starting")


class Need(Wire):
    """How much of ``what`` a system needs, and how much is there for it, each with how that is known.

    ``remedy`` is what to do where it is not enough.
    """

    system: str
    what: str
    needed: int | None = None
    needed_as: str = ""
    there: int | None = None
    there_as: str = ""
    remedy: str = ""

    @property
    def enough(self) -> bool | None:
        """Tell whether there is enough; None where nobody knows."""
        return None if self.needed is None or self.there is None else self.needed <= self.there

    @property
    def words(self) -> str:
        """Say both figures; of a shortage, what to do about it as well."""
        needed, there = (UNKNOWN if one is None else str(one) for one in (self.needed, self.there))
        said = f"{self.system}: {self.what}: needed {needed} ({self.needed_as}), there {there} ({self.there_as})"
        return f"{said}; {self.remedy}" if self.enough is False else said


class Capacity(NamedTuple):
    """All needs, and what else is to be known of them."""

    needs: tuple[Need, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def short(self) -> tuple[Need, ...]:
        """What there is not enough of."""
        return tuple(one for one in self.needs if one.enough is False)

    @property
    def words(self) -> tuple[str, ...]:
        """Return everything in words, what is short first."""
        short = tuple(f"short: {one.words}" for one in self.short)
        return short + tuple(one.words for one in self.needs if one.enough is not False) + self.notes


class ShortageAtStake(Wire):
    """What people decide on who may have a site take over that has too little."""

    at_stake: str
    in_words: tuple[str, ...]


def shortage_at_stake(sites: Sites, found: Capacity) -> ShortageAtStake:
    """Return what is short, and what is not known, in words."""
    short = "; ".join(f"{one.there} of {one.needed} {one.what} for {one.system}" for one in found.short)
    return ShortageAtStake(
        at_stake=f"{sites.new} has less than its clients need, and some of them will not get it: {short}.",
        in_words=found.words,
    )


class NotKnown(Wire):
    """What people may want to know, and nobody does."""

    at_stake: str
    in_words: tuple[str, ...]


def not_known(sites: Sites, found: Capacity, more: Iterable[str] = ()) -> NotKnown | None:
    """Return of what nobody knows whether there is enough, and ``more``, in words; None where all is known."""
    left = (*(one.words for one in found.needs if one.enough is None), *more)
    return NotKnown(at_stake=f"Whether {sites.new} has enough of this is not known.", in_words=left) if left else None


def blockers(found: Capacity, unseen: Iterable[str] = ()) -> list[str]:
    """Return what is short, but of what a check could not see."""
    hidden = frozenset(unseen)
    return [one.words for one in found.short if one.system not in hidden]


# --- whose needs --------------------------------------------------------------------------------------------------


def of_living(sites: Sites, found: Found) -> Capacity:
    """Return what a planned move needs: what clients have at the site that is left, where nobody has said more."""
    own = found.views[sites.old]
    databases = [(pair, own[pair.old.name], own[pair.new.name]) for pair in sites.databases]
    stores = [(two, found.stores[two.old.name], found.stores[two.new.name]) for two in sites.stores]
    hidden, goes = found.unseen, _goes(sites, found.workloads)
    return _all(
        [_of_database(sites, *one, goes) for one in databases if not {one[0].old.name, one[0].new.name} & hidden],
        [_of_store(sites, *one, goes) for one in stores if not {one[0].old.name, one[0].new.name} & hidden],
        [quota(sites.machines(sites.new), found.quota), room(found.rooms)],
    )


def of_lost(sites: Sites, lost: Lost) -> Capacity:
    """Return what taking over needs: what the estate says alone, for who cannot reach a lost site is not counted."""
    goes = _goes(sites, lost.workloads)
    return _all(
        [_of_database(sites, pair, None, lost.databases[pair.new.name], goes) for pair in sites.databases],
        [_of_store(sites, two, None, lost.stores[two.new.name], goes) for two in sites.stores],
        [quota(sites.machines(sites.new), lost.quota), room(lost.rooms)],
    )


def recalled(found: Capacity, before: Capacity) -> Capacity:
    """Have what nobody can count any more be as it was ``before``, when a move began that has turned to this."""
    known = {(one.system, one.what): one for one in before.needs if one.needed is not None}

    def recall(one: Need) -> Need:
        was = known.get((one.system, one.what)) if one.needed is None else None
        if was is None:
            return one
        how = f"{was.needed_as.removesuffix(' now')} when the move began"
        return one.model_copy(update={"needed": was.needed, "needed_as": how})

    return found._replace(needs=tuple(map(recall, found.needs)))


def of_home(sites: Sites, found: Back) -> Capacity:
    """Return what going home needs, as far as that can be seen before a rebuild: a fenced database tells nothing."""
    seen = [
        (two, found.stores[two.old.name], found.stores[two.new.name])
        for two in sites.stores
        if not {two.old.name, two.new.name} & found.unseen
    ]
    return _all(
        [_of_store(sites, *one, _goes(sites, found.workloads)) for one in seen],
        [quota(sites.machines(sites.new), found.quota), room(found.rooms)],
    )


def _all(*parts: Iterable[Capacity]) -> Capacity:
    found = [one for part in parts for one in part]
    return Capacity(
        tuple(need for one in found for need in one.needs), tuple(note for one in found for note in one.notes)
    )


# --- connections --------------------------------------------------------------------------------------------------


def _goes(sites: Sites, workloads: Mapping[str, WorkloadSeen]) -> str:
    """Say what becomes of who is connected at the new site now, where pods that run there are replaced; else ""."""
    warm = [
        name
        for name, one in sites.serving(sites.new).items()
        if isinstance(one, Workload) and one.restart and workloads.get(name, WorkloadSeen()).replicas
    ]
    return f", counted as gone with the pods of {', '.join(warm)}, which are replaced" if warm else ""


def _of_database(sites: Sites, pair: Pair, old: DatabaseSeen | None, new: DatabaseSeen, goes: str = "") -> Capacity:
    if new.limit is None:  # it is down, which stands in the way by itself
        return Capacity()
    in_use = None if old is None or old.limit is None else old.clients
    reserved = new.reserved or 0
    return connections(
        pair.new.name, pair.old.name, sites.connected(pair), in_use,
        new.limit - reserved - (0 if goes else new.clients),
        f"max_connections {new.limit}, reserved {reserved}, in use {new.clients}{goes}",
        "raise max_connections there, or have clients need fewer",
    )  # fmt: skip


def _of_store(sites: Sites, two: Stores, old: Replication | None, new: Replication, goes: str = "") -> Capacity:
    if new.clients is None:  # it does not tell of its clients at all
        return Capacity()
    there, how = (
        (None, "it does not tell its maxclients")
        if new.limit is None
        else (new.limit - (0 if goes else new.clients), f"maxclients {new.limit}, in use {new.clients}{goes}")
    )
    in_use = None if old is None else old.clients
    remedy = "raise maxclients there, or have clients need fewer"
    return connections(two.new.name, two.old.name, sites.connected(two), in_use, there, how, remedy)


def connections(
    name: str, peer: str, authored: int | None, in_use: int | None, there: int | None, there_as: str, remedy: str
) -> Capacity:
    """Return what clients of ``peer`` need at ``name``; what people have said goes before what is seen now."""
    need = Need(
        system=name,
        what="connections",
        needed=in_use if authored is None else authored,
        needed_as="the estate says so"
        if authored is not None
        else f"clients of {peer} now"
        if in_use is not None
        else f"{peer} cannot be asked, and the estate says no connections",
        there=there,
        there_as=there_as,
        remedy=remedy,
    )
    more = authored is not None and in_use is not None and in_use > authored
    notes = (f"{peer} has {in_use} clients now, more than the connections in the estate, {authored}",) if more else ()
    return Capacity((need,), notes)


# --- what Azure grants --------------------------------------------------------------------------------------------


class Way(NamedTuple):
    """A machine that may be started, in a size."""

    machine: str
    size: str


class Claim(NamedTuple):
    """vCPUs that a start needs of a grant, and how many of these Azure counts as used already."""

    needed: int = 0
    held: int = 0


Key = tuple[str, str]
"""A region, and a family or all of them."""


def quota(specs: Sequence[MachineSpec], seen: QuotaSeen | None) -> Capacity:
    """Return what starting all of ``specs`` needs together; one that runs, or stands in and runs, needs nothing more.

    Each takes the first of its ways that is granted beside those before it, as a recovery tries them. Azure counts
    deallocated machines as used ("both allocated and deallocated": learn.microsoft.com/azure/virtual-machines/quotas),
    so one that starts as it is needs no more than is counted; what holds only because of that is noted.
    """
    if seen is None or not specs:
        return Capacity()
    if seen.why:
        return Capacity((_unknown(", ".join(one.system for one in specs), seen.why),))
    plan = _Plan(seen)
    for spec in specs:
        if not any(seen.machines[at.machine].power in UP for at in spec.all):
            plan.start(spec)
    return plan.capacity()


class _Plan:
    """What is started beside what, and what that takes of each grant."""

    def __init__(self, seen: QuotaSeen) -> None:
        self.seen = seen
        self.taken: dict[Key, Claim] = {}
        self.whose: dict[Key, list[str]] = {}
        self.needs: list[Need] = []
        self.notes: list[str] = []

    def start(self, spec: MachineSpec) -> None:
        """Start a machine in the first way that is granted beside the others; else in the first that is not barred."""
        region, ways = self.seen.regions[self.seen.machines[spec.at.machine].region], _ways(spec, self.seen)
        if region.why or ways[0].size not in region.sizes:
            return self.needs.append(_unknown(spec.system, region.why or f"it tells of no size {ways[0].size} there"))
        fit = next((one for one in ways if self.fits(one)), None)
        way = fit or next((one for one in ways if not _bar(self.seen, one)), ways[0])
        if fit != ways[0]:
            self.notes.append(_instead(spec, ways, fit))
        if bar := _bar(self.seen, way):
            return self.needs.append(_barred(spec.system, way, bar))
        for key, claim in _claims(self.seen, way).items():
            was = self.taken.get(key, Claim())
            self.taken[key] = Claim(was.needed + claim.needed, was.held + claim.held)
            self.whose.setdefault(key, []).append(spec.system)
        return None

    def fits(self, way: Way) -> bool:
        """Tell whether it is granted beside what is started already."""
        _, region, size = _of(self.seen, way)
        if size is None or _bar(self.seen, way):
            return False
        for key, claim in _claims(self.seen, way).items():
            was, grant = self.taken.get(key, Claim()), region.grants.get(key[1])
            room = None if grant is None else grant.limit - grant.used + was.held + claim.held
            if room is not None and was.needed + claim.needed > room:
                return False
        return True

    def capacity(self) -> Capacity:
        """Return all of it."""
        granted = [(_granted(", ".join(self.whose[key]), self.seen, key, one), one) for key, one in self.taken.items()]
        doubts = (line for need, claim in granted for line in _doubts(need, claim))
        return Capacity((*self.needs, *(need for need, _ in granted)), (*self.notes, *doubts))


def _unknown(system: str, why: str) -> Need:
    return Need(system=system, what="vCPUs at Azure", needed_as="see its size", there_as=why)


def _barred(system: str, way: Way, bar: str) -> Need:
    return Need(
        system=system, what=f"machines of size {way.size}", needed=1, needed_as="to be started", there=0,
        there_as=f"this subscription gets none {bar}", remedy="name another size in alternatives, or ask Azure for it",
    )  # fmt: skip


def _instead(spec: MachineSpec, ways: Sequence[Way], fit: Way | None) -> str:
    first = f"{ways[0].machine} in size {ways[0].size}"
    if fit is None:
        more = f", nor what its alternatives say ({len(ways) - 1})" if len(ways) > 1 else ""
        return f"{spec.system}: Azure does not grant {first}{more}"
    return f"{spec.system}: Azure does not grant {first}; {fit.machine} is started in size {fit.size} instead"


def _ways(spec: MachineSpec, seen: QuotaSeen) -> list[Way]:
    """Return what may be started, in the order in which it is tried."""
    own = seen.machines[spec.at.machine]
    ways = [Way(spec.at.machine, own.size)]
    for way in spec.alternatives:
        if way.instead is not None:
            ways.append(Way(way.instead.machine, seen.machines[way.instead.machine].size))
        elif own.power != "stopped":
            ways.append(Way(spec.at.machine, way.size))
    return ways


def _of(seen: QuotaSeen, way: Way) -> tuple[Stood, Region, Size | None]:
    stood = seen.machines[way.machine]
    region = seen.regions[stood.region]
    return stood, region, region.sizes.get(way.size)


def _bar(seen: QuotaSeen, way: Way) -> str:
    """Say where a way is barred, "" where it is not."""
    stood, _, size = _of(seen, way)
    if size is None or stood.power == "stopped":  # that one keeps its place
        return ""
    if "" in size.barred:
        return "in this region"
    return f"in zone {stood.zone}" if stood.zone and stood.zone in size.barred else ""


def _claims(seen: QuotaSeen, way: Way) -> dict[Key, Claim]:
    """Return what a way takes of the grant of its family, and of that of all families."""
    stood, region, size = _of(seen, way)
    if size is None:
        return {}
    now = region.sizes.get(stood.size)
    held = now.cores if now is not None and _counted(seen, stood.region, now.family) else 0
    same = now is not None and now.family == size.family
    return {
        (stood.region, size.family): Claim(size.cores, held if same else 0),
        (stood.region, REGIONAL): Claim(size.cores, held),
    }


def _counted(seen: QuotaSeen, region: str, family: str) -> bool:
    """Tell whether what is used can have all our deallocated machines of a family in it."""
    here = seen.regions[region]
    ours = sum(
        size.cores
        for one in seen.machines.values()
        if one.region == region and (size := here.sizes.get(one.size)) is not None and size.family == family
    )
    return family in here.grants and here.grants[family].used >= ours


def _granted(system: str, seen: QuotaSeen, key: Key, claim: Claim) -> Need:
    where, name = key
    grant = seen.regions[where].grants.get(name)
    what = f"vCPUs of {'all families' if name == REGIONAL else name} in {where.rpartition('/')[2]}"
    if grant is None:
        return Need(
            system=system, what=what, needed=claim.needed, needed_as="to be started",
            there_as="Azure tells of no such quota",
        )  # fmt: skip
    how = f"granted {grant.limit}, used {grant.used}, of which {claim.held} are theirs"
    return Need(
        system=system, what=what, needed=claim.needed, needed_as="to be started",
        there=grant.limit - grant.used + claim.held, there_as=how,
        remedy="have the quota raised, or name a size of another family in alternatives",
    )  # fmt: skip


def _doubts(need: Need, claim: Claim) -> Iterator[str]:
    if need.enough and need.needed is not None and need.there is not None and need.needed > need.there - claim.held:
        yield (
            f"{need.system}: {need.what}: enough only because Azure counts deallocated machines as used, as its"
            f" documentation says: {claim.held} of them are theirs already"
        )


# --- room for pods ------------------------------------------------------------------------------------------------


def room(seen: Mapping[str, RoomSeen]) -> Capacity:
    """Return what workloads need that are scaled up: room on the nodes of their cluster, and in quotas."""
    needs: list[Need] = []
    notes: list[str] = []
    for cluster, one in sorted(seen.items()):
        names = ", ".join(name for name, more in sorted(one.more.items()) if more)
        needs += _pods(cluster, one) if names else []
        needs += [_of_quota(names, line) for line in one.quotas]
        if one.why:
            needs.append(Need(system=cluster, what="room for pods", needed_as="see its workloads", there_as=one.why))
        notes += [f"{names}: {what}" for what in one.unseen if names]
    return Capacity(tuple(needs), tuple(notes))


def _pods(cluster: str, one: RoomSeen) -> Iterator[Need]:
    away = f" ({', '.join(one.away)})" if one.away else ""
    for name, more in sorted(one.more.items()):
        if more:
            yield Need(
                system=name, what=f"pods on nodes of {cluster}", needed=more, needed_as="to be more",
                there=one.fits[name], there_as=f"{one.nodes} nodes take pods{away}; {UNSEEN}",
                remedy="free room or add nodes, or have its pods ask for less",
            )  # fmt: skip


def _of_quota(names: str, line: Granted) -> Need:
    left = max(line.left, 0)
    return Need(
        system=names, what=f"{line.resource} of ResourceQuota {line.namespace}/{line.quota}", needed=line.needed,
        needed_as=amount(line.needed, line.resource), there=left, there_as=f"{amount(left, line.resource)} is left",
        remedy="have the quota raised, or have its pods ask for less",
    )  # fmt: skip
