"""What is looked at before a site is left: both of them, or all that is left of a lost one and the one to take over."""

from __future__ import annotations

from typing import Any

from temporalio import workflow

from activities.databases import DatabaseAt, DatabaseSeen, DatabaseSpec, look_at_database
from activities.kill_switch import Halted, look_for_kill_switch
from activities.losses import Lost
from activities.machines import Powered, run_machine
from activities.nodes import NodesSeen, look_at_nodes
from activities.pointing import Pointing, Sighted
from activities.quota import QuotaSeen, QuotaSpec, look_at_quota
from activities.rooms import RoomSeen, RoomSpec, look_for_room
from activities.services import Running, run_services
from activities.sightings import LOGIN, Lookout, Sighting, sight
from activities.silences import Alerts
from activities.sites import Found, Pair, Sites
from activities.stores import NOBODY, Replication, StoreAt, look_at_store
from activities.workload_looks import WorkloadSeen, look_at_workload
from recovery.actions import Spec
from recovery.procedure import Procedure
from workflows.silencing import see_what_fires

NO_DATABASE = DatabaseSeen()
NO_DIRECTOR, UNKNOWN, NO_MACHINE, NO_WORKLOAD = Sighted(pointed=Pointing()), Running(), Powered(), WorkloadSeen()
NO_NODES = NodesSeen()
NO_QUOTA, NO_ROOM = QuotaSeen(why="it could not be seen"), RoomSeen(why="it could not be seen")
"""What stands in a check for what could not be seen."""


# --- two living sites, one thing after the other ------------------------------------------------------------


async def assess(recovery: Procedure[Any], sites: Sites) -> Found:
    """Look at both sites, at the databases from each site of its own."""
    found = _Assessment(recovery, sites)
    for site in (sites.old, sites.new):
        await found.see_databases(site)
    await found.see_stores()
    await found.see_machines()
    await found.see_services()
    await found.see_clusters()
    await found.see_directors()
    return Found(
        views=found.views, stores=found.stores, running=found.running, workloads=found.workloads, nodes=found.nodes,
        directors=found.directors, alerts=await see_what_fires(recovery, sites), halted=found.halted,
        unseen=frozenset(found.unseen), quota=found.quota, rooms=found.rooms,
    )  # fmt: skip


class _Assessment:
    """What was seen so far; ``unseen`` is what a check could not see, ``asleep`` are machines that do not run yet."""

    def __init__(self, recovery: Procedure[Any], sites: Sites) -> None:
        self._recovery, self._sites = recovery, sites
        self.views: dict[str, dict[str, DatabaseSeen]] = {}
        self.stores: dict[str, Replication] = {}
        self.running: dict[str, bool] = {}
        self.workloads: dict[str, WorkloadSeen] = {}
        self.nodes: dict[str, NodesSeen] = {}
        self.rooms: dict[str, RoomSeen] = {}
        self.directors: dict[str, Sighted] = {}
        self.halted: dict[str, str] = {}
        self.quota: QuotaSeen | None = None
        self.unseen: set[str] = set()
        self.asleep: set[str] = set()

    async def see_databases(self, site: str) -> None:
        """See from ``site`` whether its workers are halted, and both databases of each pair."""
        sites, glance = self._sites, self._recovery.glance
        queue = sites.queues.get(site)
        halt = await glance(look_for_kill_switch, Spec(system=site), instead=Halted(), queue=queue)
        self.halted[site] = halt.why
        for pair in sites.databases:
            for one, peer in ((pair.old, pair.new), (pair.new, pair.old)):
                step, spec = f"look at {one.name} from {site}", sites.look(one, peer)
                seen = await glance(look_at_database, spec, step, instead=NO_DATABASE, queue=queue)
                if seen is not NO_DATABASE or site == sites.old:
                    self.views.setdefault(site, {})[one.name] = seen
                    self.unseen |= {one.name} if seen is NO_DATABASE else set()

    async def see_stores(self) -> None:
        """See the stores of both sites."""
        for store in (one for two in self._sites.stores for one in (two.old, two.new)):
            seen = await self._recovery.glance(look_at_store, self._sites.store(store), instead=NOBODY)
            self.stores[store.name] = seen
            self.unseen |= {store.name} if seen is NOBODY else set()

    async def see_machines(self) -> None:
        """See which machines of the new site run, and what is granted for those that do not."""
        sites, glance = self._sites, self._recovery.glance
        for machine in sites.machines(sites.new):
            step = f"see whether {machine.system} runs"
            power = await glance(run_machine, machine, step, instead=NO_MACHINE)
            self.unseen |= {machine.system} if power is NO_MACHINE else set()
            self.asleep |= set() if power.running else {machine.system}
        asked = sites.quota() if self.asleep else None
        self.quota = await glance(look_at_quota, asked, instead=NO_QUOTA) if asked else None

    async def see_services(self) -> None:
        """See which services run, but of those whose machine sleeps."""
        sites = self._sites
        for level in [*sites.levels(sites.old), *sites.levels(sites.new)]:
            self.running |= {one.name: False for one in level.services}
            if not (level := sites.awake(level, self.asleep)).services:
                continue
            names = run_services.names(level)
            run = await self._recovery.glance(run_services, level, f"see whether {names} run", instead=UNKNOWN)
            self.running |= run.running
            self.unseen |= {one.name for one in level.services} if run is UNKNOWN else set()

    async def see_clusters(self) -> None:
        """See the workloads of both sites, the nodes that are drained or opened, and the room for what is scaled up."""
        sites, glance = self._sites, self._recovery.glance
        for name in sorted(sites.workloads):
            seen = await glance(look_at_workload, sites.of(name), instead=NO_WORKLOAD)
            self.workloads[name] = seen
            self.unseen |= {name} if seen is NO_WORKLOAD else set()
        for site in (sites.old, sites.new):
            for name in sites.drained(site):
                self.nodes[name] = await glance(look_at_nodes, sites.nodes(name), instead=NO_NODES)
        for spec in sites.rooms():
            self.rooms[spec.cluster.name] = await glance(look_for_room, spec, instead=NO_ROOM)

    async def see_directors(self) -> None:
        """See where each director points."""
        for name in self._sites.directors:
            seen = await self._recovery.glance(*self._sites.seen_by(name), instead=NO_DIRECTOR)
            self.directors[name] = seen
            self.unseen |= {name} if seen is NO_DIRECTOR else set()


# --- a lost site, all at once -------------------------------------------------------------------------------


async def assess_lost(recovery: Procedure[Any], sites: Sites) -> Lost:
    """Look at the new site from itself, and at the old one from there and from wherever a worker is; all at once.

    Clients are waiting, and what does not answer takes its time.
    """
    found = _Sightings(recovery, sites)
    at, asked = workflow.now(), sites.quota()
    await recovery.together(
        found.see_halt(),
        *(found.see_lost(vantage, pair) for vantage in found.vantages for pair in sites.databases),
        *(found.see_database(pair.new) for pair in sites.databases),
        *(found.see_store(two.new) for two in sites.stores),
        *(found.see_workload(name) for name in sites.serving(sites.new) if name in sites.workloads),
        *(found.see_nodes(name) for name in sites.drained(sites.new)),
        *(found.see_director(name) for name in sites.directors),
        *((found.see_alerts(),) if sites.alerting else ()),
        *((found.see_quota(asked),) if asked else ()),
        *map(found.see_room, sites.rooms()),
    )
    return Lost(
        sightings=found.sightings, databases=found.databases, stores=found.stores, workloads=found.workloads,
        nodes=found.nodes, directors=found.directors, alerts=found.alerts, halted=found.halted, at=at,
        quota=found.quota, rooms=found.rooms,
    )  # fmt: skip


class _Sightings:
    """What was seen so far; each is in its place from the beginning, so that their order is not that of answers."""

    def __init__(self, recovery: Procedure[Any], sites: Sites) -> None:
        self._recovery, self._sites = recovery, sites
        self._own = sites.queues.get(sites.new)
        self.vantages = {sites.new: self._own, "any worker": None} if self._own else {"any worker": None}
        self.sightings = {vantage: {pair.old.name: Sighting() for pair in sites.databases} for vantage in self.vantages}
        self.databases = {pair.new.name: DatabaseSeen() for pair in sites.databases}
        self.stores = {two.new.name: NOBODY for two in sites.stores}
        self.workloads: dict[str, WorkloadSeen] = {}
        self.nodes: dict[str, NodesSeen] = {}
        self.rooms: dict[str, RoomSeen] = {}
        self.directors = dict.fromkeys(sites.directors, NO_DIRECTOR)
        self.alerts: dict[str, Alerts] = {}
        self.halted = ""
        self.quota: QuotaSeen | None = None

    async def see_halt(self) -> None:
        halt = await self._recovery.look(look_for_kill_switch, Spec(system=self._sites.new), queue=self._own)
        self.halted = halt.why

    async def see_lost(self, vantage: str, pair: Pair) -> None:
        step = f"see what is left of {pair.old.name} from {vantage}"
        spec = Lookout.of(self._sites.look(pair.old, pair.new))
        seen = await self._recovery.look(sight, spec, step, queue=self.vantages[vantage])
        self.sightings[vantage][pair.old.name] = seen

    async def see_database(self, one: DatabaseAt) -> None:
        spec = DatabaseSpec(system=one.name, database=one, owner=self._sites.owner)
        self.databases[one.name] = await self._recovery.look(look_at_database, spec, queue=self._own)

    async def see_store(self, one: StoreAt) -> None:
        self.stores[one.name] = await self._recovery.look(look_at_store, self._sites.store(one), queue=self._own)

    async def see_workload(self, name: str) -> None:
        self.workloads[name] = await self._recovery.look(look_at_workload, self._sites.of(name), queue=self._own)

    async def see_nodes(self, name: str) -> None:
        self.nodes[name] = await self._recovery.look(look_at_nodes, self._sites.nodes(name), queue=self._own)

    async def see_director(self, name: str) -> None:
        self.directors[name] = await self._recovery.look(*self._sites.seen_by(name), queue=self._own)

    async def see_alerts(self) -> None:
        # No longer than for a host that is gone: nobody is to wait for an Alertmanager.
        self.alerts |= await see_what_fires(self._recovery, self._sites, self._own, within=LOGIN)

    async def see_quota(self, spec: QuotaSpec) -> None:
        self.quota = await self._recovery.look(look_at_quota, spec, queue=self._own)

    async def see_room(self, spec: RoomSpec) -> None:
        self.rooms[spec.cluster.name] = await self._recovery.look(look_for_room, spec, queue=self._own)
