"""What moving from one site to another needs, decided from what was found; pure: specs, and what stands in the way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from activities.clustered import STAY_OPEN, Clustered, nodes_of
from activities.databases import CatchUp, DatabaseAt, DatabaseSeen, DatabaseSpec, known, missing
from activities.directors import Act, Front, Look
from activities.machines import MachineSpec, run_machine
from activities.nodes import NodesSeen
from activities.pointing import Sighted
from activities.quota import QuotaSeen, QuotaSpec
from activities.rooms import RoomSeen
from activities.services import AwaitReady, ServiceAt, ServicesSpec, await_ready, run_services
from activities.serving import Request
from activities.sessions import Comparison
from activities.silences import Alerts, AlertsSpec, Muted, in_words
from activities.site_checks import CheckAsked
from activities.ssh import HostAt
from activities.store_roles import Follow as StoreFollow
from activities.store_roles import PromoteSpec, Unfence
from activities.stores import CatchUp as StoreCatchUp
from activities.stores import Replication, StoreAt, StoreSpec, alone
from activities.switching import PairSpec
from activities.workload_looks import WorkloadSeen, await_workload
from recovery.models import Wire
from recovery.safety import Change, Known, Rules, after, frozen, refusals
from runbooks.procedures.data_center_activation import Check, Parameters
from runbooks.schema import DIRECTOR, Alertmanager, Database, Director, Host, Machine, Service, Store, Workload

NEEDED = 256 * 1024
"""KiB that a site has free before it becomes the primary: log piles up while the other one is away."""
AT_LEAST = (
    "max_connections", "max_prepared_transactions", "max_locks_per_transaction", "max_wal_senders",
    "max_worker_processes",
)  # fmt: skip
ALIKE = ("wal_level", "archive_mode", "track_commit_timestamp", "shared_preload_libraries", "full_page_writes")


@dataclass(frozen=True)
class Pair:
    """A database at the site that is to be left, and the one at the site to activate."""

    old: DatabaseAt
    new: DatabaseAt


@dataclass(frozen=True)
class Stores:
    """A store at the site that is to be left, and the one at the site to activate."""

    old: StoreAt
    new: StoreAt


class Found(Wire):
    """All that an assessment looked at, by name; ``views`` by the site that it was seen from.

    ``halted`` is who has all workers of a site stopped, and why, by that site. ``unseen`` are systems of which a check
    could not see anything: what stands here for them means nothing. ``quota`` is what Azure grants, where it was asked.
    """

    views: dict[str, dict[str, DatabaseSeen]] = {}
    stores: dict[str, Replication] = {}
    running: dict[str, bool] = {}
    workloads: dict[str, WorkloadSeen] = {}
    nodes: dict[str, NodesSeen] = {}
    directors: dict[str, Sighted] = {}
    alerts: dict[str, Alerts] = {}
    halted: dict[str, str] = {}
    unseen: frozenset[str] = frozenset()
    quota: QuotaSeen | None = None
    rooms: dict[str, RoomSeen] = {}


class Outlook(Wire):
    """What people decide on: from where to where, how far the replicas are, and what it means."""

    at_stake: str
    in_words: tuple[str, ...]


class Attestation(Wire):
    """What people attest by their approval, and how the other checks of the site came out."""

    at_stake: str
    in_words: tuple[str, ...]


class Boot(NamedTuple):
    """A service, workload or machine to be started, those it waits ``after``, and how it is seen to be ready.

    ``kept`` says why its start is not undone, if so.
    """

    name: str
    start: Act
    after: tuple[str, ...]
    ready: Look | None
    kept: str = ""


class Sites(Clustered):
    """A move to ``wanted.site``, of the systems that a runbook names."""

    def __init__(self, systems: tuple[str, ...], estate: Mapping[str, Any], wanted: Parameters, owner: str) -> None:
        def named(kind: str, model: Any) -> dict[str, Any]:
            return {name: model.model_validate(one) for name, one in estate[kind].items() if name in systems}

        super().__init__(systems, estate, owner)
        self.wanted = wanted
        self.rules = Rules.model_validate(estate.get("safety", {}))
        self.hosts = {name: Host.model_validate(one) for name, one in estate["hosts"].items()}
        self.queues = {name: one["queue"] for name, one in estate["sites"].items() if one.get("queue")}
        databases: dict[str, Database] = named("databases", Database)
        stores: dict[str, Store] = named("stores", Store)
        self.services: dict[str, Service] = named("services", Service)
        self.connections = {name: one.connections for name, one in databases.items()}
        self.connections |= {name: one.connections for name, one in stores.items()}
        self._machines = {name: Machine.model_validate(one) for name, one in estate.get("machines", {}).items()}
        self._systems = systems
        self.directors: dict[str, Director] = {
            name: DIRECTOR.validate_python(one) for name, one in estate["directors"].items() if name in systems
        }
        new = wanted.site
        at = {name: DatabaseAt.of(name, one, self.hosts[one.host]) for name, one in databases.items()}
        kept = {name: StoreAt.of(name, one, self.hosts[one.host]) for name, one in stores.items()}
        self.alerting: dict[str, Alertmanager] = {
            name: Alertmanager.model_validate(one)
            for name, one in estate.get("alerting", {}).items()
            if name in systems
        }
        self.databases = [
            Pair(at[str(one.peer)], at[name]) for name, one in sorted(databases.items()) if self._site(one.host) == new
        ]
        self.stores = [
            Stores(kept[one.peer], kept[name]) for name, one in sorted(stores.items()) if self._site(one.host) == new
        ]
        peer = databases[self.databases[0].old.name]
        self.old, self.new = self._site(peer.host), new

    @property
    def fence_by(self) -> str:
        """The runbook that fences the old site when it comes back."""
        return self.wanted.fence_by or ""

    def _site(self, host: str) -> str:
        return self.hosts[host].site

    # --- what to look at ---------------------------------------------------------------------------------

    def look(self, one: DatabaseAt, peer: DatabaseAt) -> DatabaseSpec:
        """Return how to look at a database, and whether its host could replicate the other one."""
        return DatabaseSpec(system=one.name, database=one, owner=self.owner, reach=peer.upstream)

    def store(self, one: StoreAt) -> StoreSpec:
        """Return how a store is named in a step."""
        return StoreSpec(system=one.name, store=one, run=self.owner)

    def connected(self, pair: Pair | Stores) -> int | None:
        """Return how many connections clients of a pair need at their peak, None where the estate does not say."""
        return self.connections[pair.new.name] or self.connections[pair.old.name]

    def front(self, name: str) -> Front:
        """Return what a director is asked by, whatever its kind."""
        return Front(name, self.directors[name], self.hosts, self.owner)

    def seen_by(self, name: str) -> Look:
        """Return how to look at a director."""
        return self.front(name).seen()

    def silences(self, name: str) -> AlertsSpec:
        """Return which alerts the move sets off at an Alertmanager, whose silences are the recovery's own."""
        system, why = self.databases[0].new.name, f"a move from {self.old} to {self.new}"
        both = tuple(sorted((self.old, self.new)))
        return AlertsSpec.of(system, name, self.alerting[name], both, run=self.owner, why=why)

    # --- what to do --------------------------------------------------------------------------------------

    def point(self, name: str, site: str) -> Act:
        """Return how to point a director at a site, "" at nobody."""
        return self.front(name).point(site)

    def drain(self, name: str) -> Look | None:
        """Return what to wait for after that, if there is anything."""
        return self.front(name).drained(self.old, int(self.wanted.drain.total_seconds()))

    def levels(self, site: str) -> list[ServicesSpec]:
        """Return the services of ``site``, those first that others need; those of one level do not need each other."""
        services = ([name for name in rank if name in self.services] for rank in self.ranks(site))
        return [self._services(level, wanted=True) for level in services if level]

    def ranks(self, site: str) -> list[list[str]]:
        """Return the services and workloads of ``site`` by name, those first that others need."""
        own = self.serving(site)
        ranks: list[list[str]] = []
        while left := [name for name in sorted(own) if not any(name in rank for rank in ranks)]:
            ready = [name for name in left if not set(own[name].after) & set(left)]
            ranks.append(ready or left)  # a circle starts at once
        return ranks

    def serving(self, site: str) -> dict[str, Service | Workload]:
        """Return the services and workloads of ``site``."""
        services = {name: one for name, one in self.services.items() if self._site(one.host) == site}
        return services | {name: one for name, one in self.workloads.items() if self.clusters[one.cluster].site == site}

    def free(self) -> list[Boot]:
        """Return what of the new site needs nothing, machines among it: that may start before a database is open.

        What is rolled out anew waits: it would connect to a standby once more.
        """
        needs = {name: one.after for name, one in self.serving(self.new).items()}
        anew = {name for name, one in self.workloads.items() if one.restart}
        return [one for one in self.boots(self.new) if not needs.get(one.name) and one.name not in anew]

    def machines(self, site: str) -> list[MachineSpec]:
        """Return how the machines of ``site`` are started."""
        own = [name for name, one in sorted(self._machines.items()) if name in self._systems and one.site == site]
        return [MachineSpec.of(name, self._machines, "running") for name in own]

    def quota(self) -> QuotaSpec | None:
        """Return how it is seen what Azure grants the machines of the new site, None where there are none."""
        machines = tuple(self.machines(self.new))
        return QuotaSpec(system=self.new, machines=machines) if machines else None

    def awake(self, level: ServicesSpec, asleep: Collection[str]) -> ServicesSpec:
        """Return what of a level can be looked at: not what needs a machine that is ``asleep``, for it runs on that."""
        seen = tuple(one for one in level.services if not set(self.services[one.name].after) & set(asleep))
        return level.model_copy(update={"services": seen})

    def boots(self, site: str) -> list[Boot]:
        """Return how all that serves at ``site`` is started, machines first, and what each waits for; no circle."""
        order = {one.system: Boot(one.system, (run_machine, one), (), None) for one in self.machines(site)}
        order |= {nodes_of(one): Boot(nodes_of(one), self.open(one), (), None, STAY_OPEN) for one in self.drained(site)}
        for rank in self.ranks(site):
            order |= {name: self._boot(name, order) for name in rank}
        return list(order.values())

    def _boot(self, name: str, before: Collection[str]) -> Boot:
        if name in self.workloads:
            needs = {*self.workloads[name].after, nodes_of(self.workloads[name].cluster)}
            after = tuple(sorted(set(before) & needs))
            return Boot(name, self.scale(name, self.workloads[name].replicas), after, (await_workload, self.of(name)))
        level = self._services([name], wanted=True)
        (one,) = level.services
        after = tuple(sorted(set(before) & set(self.services[name].after)))
        ready = (await_ready, AwaitReady(system=name, service=one)) if one.ready else None
        return Boot(name, (run_services, level), after, ready)

    def _services(self, names: list[str], wanted: bool) -> ServicesSpec:
        services = tuple(
            ServiceAt.of(name, self.services[name], self.hosts[self.services[name].host]) for name in names
        )
        return ServicesSpec(system=names[0], services=services, wanted=wanted, owner=self.owner)

    def stops(self, site: str = "") -> list[ServicesSpec]:
        """Return the services of ``site`` (the old one) to stop, those first that need others."""
        return [level.model_copy(update={"wanted": False}) for level in reversed(self.levels(site or self.old))]

    def standstill(self, site: str = "") -> list[list[Act]]:
        """Return how all that serves at ``site`` (the old one) is stopped, those first that need others.

        What stands beside each other does not need each other.
        """
        turns: list[list[Act]] = []
        for rank in reversed(self.ranks(site or self.old)):
            services = [name for name in rank if name in self.services]
            stops: list[Act] = [(run_services, self._services(services, wanted=False))] if services else []
            turns.append([*stops, *(self.scale(name, 0) for name in rank if name in self.workloads)])
        return turns

    def of_new(self, pair: Pair) -> PairSpec:
        """Return how the database at the new site is named in a step."""
        return self._pair_spec(pair.new, pair.old)

    def of_old(self, pair: Pair) -> PairSpec:
        """Return how the database at the old site is named in a step."""
        return self._pair_spec(pair.old, pair.new)

    def _pair_spec(self, one: DatabaseAt, other: DatabaseAt) -> PairSpec:
        rules = self.rules.model_copy(update={"freeze": ()})  # what has begun goes on
        lost = self.wanted.how == "unplanned"
        return PairSpec(system=one.name, database=one, owner=self.owner, other=other, rules=rules, lost=lost)

    def catch_up(self, pair: Pair) -> CatchUp:
        """Return what to wait for before a primary is stopped, and to prove after."""
        seconds = int(self.wanted.catch_up.total_seconds())
        return CatchUp(system=pair.old.name, database=pair.old, behind=pair.new, owner=self.owner, seconds=seconds)

    def promotes(self, pair: Stores) -> PromoteSpec:
        """Return how a store is promoted, unless the old one is seen to take writes."""
        return PromoteSpec(system=pair.new.name, store=pair.new, run=self.owner, peer=pair.old)

    def copies(self, pair: Stores) -> StoreCatchUp:
        """Return what to wait for before a store is promoted."""
        seconds = int(self.wanted.catch_up.total_seconds())
        return StoreCatchUp(system=pair.old.name, store=pair.old, run=self.owner, replica=pair.new, seconds=seconds)

    def follows(self, pair: Stores) -> StoreFollow:
        """Return whom the old store follows; what only it has is nothing: that was proven."""
        return StoreFollow(system=pair.old.name, store=pair.old, run=self.owner, peer=pair.new, proven=True)

    def unfence(self, pair: Stores, found: Replication) -> Unfence:
        """Return what opens the gate of the old store again, once it is a replica."""
        return Unfence(system=pair.old.name, store=pair.old, run=self.owner, least=found.least, lag=found.lag)

    def alike(self, pair: Stores) -> Comparison:
        """Return how it is proven that the old store has what the new one does, once it replicates that."""
        return Comparison(system=pair.old.name, primary=pair.new, replica=pair.old, run=self.owner)

    def health(self) -> list[Request]:
        """Return the requests that each service of the new site answers before clients come."""
        urls = {name: one.url for name, one in self.services.items() if one.url and self._site(one.host) == self.new}
        return [Request(system=name, url=url, path="", count=3) for name, url in sorted(urls.items())]

    def requests(self, name: str) -> Request:
        """Return what clients send through a director."""
        url = self.directors[name].url
        return Request(system=name, url=url, path=self.wanted.path, count=self.wanted.requests)

    def checks(self) -> list[CheckAsked]:
        """Return the checks that are made by a command or by requests."""
        return [
            CheckAsked(
                system=self.new, check=name, host=self._host(one.host) if one.host else None, command=one.command or "",
                url=one.url or "", slowest=one.slowest.total_seconds(),
            )
            for name, one in self.wanted.checks.items()
            if not one.attest
        ]  # fmt: skip

    def attested(self) -> dict[Check, str]:
        """Return what people attest: the check, and what they are shown of it."""
        return {name: one.attest for name, one in self.wanted.checks.items() if one.attest}

    def _host(self, host: str) -> HostAt:
        return HostAt.model_validate(self.hosts[host].model_dump() | {"name": host})

    # --- what stands in the way --------------------------------------------------------------------------

    def outlook(self, found: Found, capacity: Sequence[str] = ()) -> Outlook:
        """Return what people decide on; ``capacity`` is what the new site needs and has, in words."""
        own, kept = found.views[self.old], found.stores
        lacks = {pair.new.name: missing(own[pair.old.name], own[pair.new.name]).left for pair in self.databases}
        lacks |= {pair.new.name: alone(kept[pair.old.name], kept[pair.new.name]) for pair in self.stores}
        clients = {pair.old.name: own[pair.old.name].clients for pair in self.databases}
        stops = [name for rank in reversed(self.ranks(self.old)) for name in rank]
        starts = [name for rank in self.ranks(self.new) for name in rank]
        return Outlook(
            at_stake=f"{self.new} takes over from {self.old}: nothing is opened there before it has all of {self.old}.",
            in_words=(
                *(f"{name} lacks {left} bytes of log at this moment" for name, left in sorted(lacks.items())),
                *(f"{count} sessions are connected to {name}; they are ended" for name, count in clients.items()),
                f"stopped: {', '.join(stops) or 'nothing'}; started: {', '.join(starts) or 'nothing'}",
                *self.standing(found.workloads),
                *self.emptied(found.nodes),
                f"clients are refused from then on until {self.new} answers; for how long nobody knows before",
                f"once they are let in at {self.new} nothing is undone: the way home is the same for {self.old}",
                f"until {self.old} is its replica, {self.new} runs without one",
                *(line for pair in self.databases for line in _unlike(pair, own)),
                *self._muted(found.alerts),
                *capacity,
                *(
                    f"clients keep what {name} told them for {seconds} s: that is waited for first, and they are served"
                    for name, seen in found.directors.items()
                    if (seconds := self.front(name).kept(seen))
                ),
            ),
        )

    def muted(self, alerts: Mapping[str, Alerts]) -> Muted | None:
        """Return which alerts nobody hears while the move lasts, and which fire already; None where all are heard."""
        return Muted(in_words=tuple(self._muted(alerts))) if alerts else None

    def _muted(self, alerts: Mapping[str, Alerts]) -> list[str]:
        return [
            f"{name} cannot be asked, and nothing is silenced there: {seen.trouble}"
            if seen.trouble
            else f"alerts with {self.silences(name).which} are silenced at {name} until it is over; those that fire"
            f" now: {in_words(seen)}"
            for name, seen in alerts.items()
        ]

    def blockers(self, found: Found, now: datetime) -> list[str]:
        """Return everything that stands in the way, each with what to do about it."""
        lines = (
            *self._views(found),
            *(line for pair in self.databases for line in self._pair(pair, found.views[self.old])),
            *(line for pair in self.stores for line in self._stores(pair, found)),
            *self._services_found(found),
            *self.hindered(found.workloads, found.nodes),
            *(line for name in self.directors for line in self._director(name, found.directors[name])),
        )
        unsafe = [] if found.unseen & set(found.views[self.old]) else self._unsafe(found)
        told = [line for line in lines if line.partition(": ")[0] not in found.unseen]
        return [*self.frozen(now), *unsafe, *told]

    def frozen(self, now: datetime) -> list[str]:
        """Return why nothing is started ``now``."""
        return frozen(self.rules, now)

    def _unsafe(self, found: Found) -> list[str]:
        """Return what the safety rules say of the whole move: one site is shut, then the other one opened."""
        halted = "; ".join(f"at {site}: {why}" for site, why in found.halted.items() if why)
        sites = [_known(site, found.views[self.old], self._named(site)) for site in (self.old, self.new)]
        shut, opened = Change("shut", self.old), Change("open", self.new)
        first = refusals(sites, shut, self.rules, halted)
        return [*first, *refusals(after(sites, shut), opened, self.rules)]

    def _named(self, site: str) -> list[str]:
        return [(pair.old if site == self.old else pair.new).name for pair in self.databases]

    def _views(self, found: Found) -> Iterator[str]:
        first = found.views[self.old]
        for site, view in found.views.items():
            for name, seen in view.items():
                if (seen.role, seen.system) != (first[name].role, first[name].system):
                    yield (
                        f"{name}: from {self.old} it is seen as {first[name].role}, from {site} as {seen.role};"
                        " the sites do not see the same, mend the network between them first"
                    )

    def _pair(self, pair: Pair, view: Mapping[str, DatabaseSeen]) -> Iterator[str]:
        old, new = view[pair.old.name], view[pair.new.name]
        for at, seen in ((pair.old, old), (pair.new, new)):
            yield from (f"{at.name}: {fault}" for fault in seen.faults)
        if old.role != "primary":
            yield f"{pair.old.name}: is {_is(old)}, no primary; where it is not active there is nothing to move from"
        if new.role != "standby":
            yield f"{pair.new.name}: is {_is(new)}, no standby; make it one of {pair.old.name} first"
        if old.role != "primary" or new.role != "standby":
            return
        if old.signal:
            yield f"{pair.old.name}: standby.signal lies in its data, so that it would be no primary again; remove it"
        if old.system != new.system:
            yield f"{pair.new.name}: is another database (system identifier {new.system}, not {old.system})"
            return
        yield from self._replicates(pair, old, new)
        yield from self._ready(pair, old, new)

    def _replicates(self, pair: Pair, old: DatabaseSeen, new: DatabaseSeen) -> Iterator[str]:
        if not new.streaming or new.of != pair.old.reached:
            whom = f"replicates {new.of}" if new.streaming else "replicates nothing at this moment"
            yield f"{pair.new.name}: {whom}, not {pair.old.name} at {pair.old.reached}; see its log"
        lacks = missing(old, new).left
        if lacks is not None and lacks > self.wanted.max_lag:
            yield f"{pair.new.name}: lacks {lacks} bytes of log, {self.wanted.max_lag} are allowed; wait, or allow more"
        if new.timeline and new.timeline != old.timeline:
            yield f"{pair.new.name}: is on timeline {new.timeline}, {pair.old.name} on {old.timeline}; build it anew"

    def _ready(self, pair: Pair, old: DatabaseSeen, new: DatabaseSeen) -> Iterator[str]:
        if self.wanted.replication == "synchronous" and not old.synchronous:
            yield (
                f"{pair.old.name}: no standby is synchronous, which the runbook promises; set"
                " synchronous_standby_names, or promise less"
            )
        if old.version != new.version:
            yield f"{pair.new.name}: is PostgreSQL {new.version}, {pair.old.name} is {old.version}; bring both to one"
        for name in (*AT_LEAST, *ALIKE):
            here, there = old.settings.get(name, ""), new.settings.get(name, "")
            if name in ALIKE and here != there:
                yield f"{pair.new.name}: {name} is {there!r}, at {pair.old.name} {here!r}; set both alike"
            elif name in AT_LEAST and int(there or 0) < int(here or 0):
                yield f"{pair.new.name}: {name} is {there}, at {pair.old.name} {here}; raise it"
        if new.free is not None and new.free < NEEDED:
            yield f"{pair.new.name}: {new.free // 1024} MiB are free for log, {NEEDED // 1024} are needed; free room"
        if old.unreached or old.reached != old.system:
            why = old.unreached or f"another database answers there ({old.reached})"
            yield f"{pair.old.name}: its host cannot replicate {pair.new.name}, which it will have to: {why}"
        if not old.rewinds:
            yield f"{pair.old.name}: has neither checksums nor wal_log_hints, so that it can never be rewound; set them"

    def _stores(self, pair: Stores, found: Found) -> Iterator[str]:
        old, new = found.stores[pair.old.name], found.stores[pair.new.name]
        if old.role != "primary":
            yield f"{pair.old.name}: is a replica, no primary; where it is not active there is nothing to move from"
        if new.role != "replica" or new.of != pair.old.upstream:
            yield f"{pair.new.name}: is no replica of {pair.old.name}; make it one first"
        elif not new.linked or new.filling:
            yield f"{pair.new.name}: has no link to {pair.old.name}, or is still being filled; see its log"
        if old.role == "primary" and old.writes != "taken":
            yield f"{pair.old.name}: refuses writes already; see who has fenced it"
        if old.version != new.version:
            yield f"{pair.new.name}: is version {new.version}, {pair.old.name} is {old.version}; bring both to one"
        if new.room and old.used > new.room:
            yield f"{pair.new.name}: may use {new.room} bytes, {pair.old.name} uses {old.used}; raise maxmemory"
        lost = alone(old, new)
        if lost is None or lost > self.wanted.max_lag:
            how = "has another history" if lost is None else f"lacks {lost} bytes"
            yield f"{pair.new.name}: {how}, {self.wanted.max_lag} bytes are allowed; wait, or allow more"

    def _services_found(self, found: Found) -> Iterator[str]:
        for name, one in self.services.items():
            site = self._site(one.host)
            if site == self.old and not found.running.get(name):
                yield f"{name}: does not run at {site}, which is said to be active; start it, or leave it out"
            if site == self.new and found.running.get(name):
                yield f"{name}: runs at {site} already; stop it, it would write as soon as its database is opened"

    def _director(self, name: str, seen: Sighted) -> Iterator[str]:
        if seen.pointed.at != "site" or seen.pointed.site != self.old:
            where = seen.pointed.site or seen.pointed.at
            yield f"{name}: points at {where}, not at {self.old}; see who moved it"
        if not seen.keeps:
            yield f"{name}: does not keep its configuration over a restart; it would point back. Start it with --resume"
        for site in (self.old, self.new):
            if site not in self.directors[name].sites:
                yield f"{name}: has no address of {site} in the estate"


def _known(site: str, view: Mapping[str, DatabaseSeen], names: list[str]) -> Known:
    """Return what is known of a site: it takes writes if one of its databases does, or may if one may."""
    found = [known(name, view[name]) for name in names]
    writable = (
        True if any(one.writable for one in found) else None if any(one.writable is None for one in found) else False
    )
    fence = found[0].fence if len({one.fence for one in found}) == 1 else "none"
    return Known(site, writable, fence, "; ".join(f"{one.name} {one.seen}" for one in found))


def _is(seen: DatabaseSeen) -> str:
    return "down" if seen.role == "down" else f"a {seen.role}"


def _unlike(pair: Pair, view: Mapping[str, DatabaseSeen]) -> Iterator[str]:
    old, new = view[pair.old.name].settings, view[pair.new.name].settings
    for name in sorted(old):
        if old[name] != new.get(name):
            yield f"{name}: {old[name]} at {pair.old.name}, {new.get(name)} at {pair.new.name}"
