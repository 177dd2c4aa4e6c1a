"""Failback: home to a site that was lost; what only that has is kept, it is rebuilt, watched, and activated."""

from __future__ import annotations

from typing import TypeVar

from temporalio import workflow

from activities import capacity
from activities.comparing import Compared
from activities.databases import DatabaseSeen, look_at_database, missing
from activities.divergence import Divergence, export_divergence, look_for_divergence
from activities.homecoming import (
    Back,
    at_stake,
    blockers,
    follows,
    home,
    keeps,
    parted,
    readable,
    rejoins,
    reopens,
    rows,
    shut,
    strayed,
    unlike,
)
from activities.kill_switch import Halted, look_for_kill_switch
from activities.pointing import Pointing, Sighted
from activities.quota import look_at_quota
from activities.rooms import look_for_room
from activities.salvage import Salvaged
from activities.session_keeping import Snapshot, keep_sessions
from activities.sessions import compare_sessions
from activities.sites import Pair, Sites, Stores
from activities.store_roles import follow_store, unfence_store
from activities.stores import Replication, look_at_store
from activities.switching import follow, forget_role
from activities.takeovers import Recorded, TakenOver, read_record
from activities.workload_looks import WorkloadSeen, look_at_workload
from recovery.actions import Probe, Spec
from recovery.errors import Fatal
from recovery.models import Start, Wire, digest
from recovery.names import recovery_id
from recovery.report import Report
from runbooks.procedures.failback import END, REBUILD, Parameters
from workflows.assessing import NO_QUOTA, NO_ROOM
from workflows.data_center_activation import LOOKS, DataCenterActivation

REBUILT = "the site was lost: what is done to rebuild it leads to what it is to be, and going back to nothing better"
S = TypeVar("S", bound=Spec)
T = TypeVar("T", bound=Wire)


@workflow.defn
class Failback(DataCenterActivation):
    """Go back to ``site``, which another one took over from: a planned activation, once it is rebuilt.

    It begins with the record of the recovery that took over, and reads the lost site before it overwrites it.
    """

    parameters = Parameters

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Read the record and both sites, export what only the lost one has, ask, rebuild, watch, switch, declare."""
        async with self.conducting(start) as given:
            wanted = Parameters.model_validate(given)
            sites = Sites(self.frozen.systems, self.frozen.estate, wanted, digest(self.run_name)[:8])
            found, taken = await self._assess_both(sites, wanted)
            short = capacity.blockers(capacity.of_home(sites, found))
            self.require([*blockers(sites, found, taken, wanted.settled, workflow.now()), *short])
            exported = await self._export(sites, found)
            kept = await self._keep(sites, found)
            evidence = at_stake(sites, found, exported, kept, wanted.criteria)
            await self.gate(REBUILD, evidence, then=f"{sites.new} is overwritten")
            await self._rebuild(sites, found, taken)
            self.spent(REBUILD)
            await self._steady(sites, wanted)
            if start.mode == "live":  # else there is nothing to switch to yet
                await self._switch(sites)
                await self.gate(END, home(sites, exported, kept), then="the recovery is over")
        return self.report()

    async def _assess_both(self, sites: Sites, wanted: Parameters) -> tuple[Back, TakenOver]:
        """Look at both sites, and read the record; what a check cannot see it lists with the rest."""
        unseen: set[str] = set()

        async def first(probe: Probe[S, T], spec: S, instead: T, name: str, queue: str | None = None) -> T:
            step = f"before the rebuild: {probe.title(spec)}"  # the switch looks at much of it again
            seen = await self.glance(probe, spec, step, instead=instead, queue=queue)
            unseen.update({name} if seen is instead else ())
            return seen

        ours = recovery_id(self.frozen.catalog, self.frozen.systems[0], "live")
        record = Recorded(system=sites.new, workflow=wanted.recovery or ours, run=wanted.run)
        taken = await first(read_record, record, TakenOver(run="", owner=""), "parameters.recovery")
        halted: dict[str, str] = {}
        for site in (sites.old, sites.new):
            halt = await first(look_for_kill_switch, Spec(system=site), Halted(), site, sites.queues.get(site))
            halted[site] = halt.why
        databases: dict[str, DatabaseSeen] = {}
        divergences: dict[str, Divergence] = {}
        for pair in sites.databases:
            for one, peer in ((pair.old, pair.new), (pair.new, pair.old)):
                databases[one.name] = await first(look_at_database, sites.look(one, peer), DatabaseSeen(), one.name)
            if readable(Back(databases=databases), pair):
                spec = parted(sites, pair)
                divergences[pair.new.name] = await first(look_for_divergence, spec, Divergence(), pair.new.name)
        stores: dict[str, Replication] = {}
        for store in (one for two in sites.stores for one in (two.old, two.new)):
            stores[store.name] = await first(look_at_store, sites.store(store), Replication(role="primary"), store.name)
        sessions: dict[str, Compared] = {}
        for two in sites.stores:
            if not ({two.old.name, two.new.name} & unseen or follows(Back(stores=stores), two)):
                spec_of = strayed(sites, two)
                sessions[two.new.name] = await first(compare_sessions, spec_of, Compared(), two.new.name)
        workloads = {
            name: await first(look_at_workload, sites.of(name), WorkloadSeen(), name) for name in sites.workloads
        }
        directors: dict[str, Sighted] = {}
        for name in sites.directors:
            directors[name] = await first(*sites.seen_by(name), Sighted(pointed=Pointing()), name)
        asked = sites.quota()
        quota = await first(look_at_quota, asked, NO_QUOTA, "quota") if asked else None
        rooms = {spec.cluster.name: await first(look_for_room, spec, NO_ROOM, "rooms") for spec in sites.rooms()}
        found = Back(
            databases=databases, divergences=divergences, stores=stores, sessions=sessions, workloads=workloads,
            directors=directors, halted=halted, unseen=frozenset(unseen), quota=quota, rooms=rooms,
        )  # fmt: skip
        return found, taken

    async def _export(self, sites: Sites, found: Back) -> dict[str, Salvaged]:
        """Keep what only the lost site has, while nothing of it is overwritten yet, and nothing works on it."""
        await self._stand_still(sites, sites.new, REBUILT)  # what came up with it may not have been there to be stopped
        exported: dict[str, Salvaged] = {}
        for pair in sites.databases:
            name = pair.new.name
            commits = found.divergences.get(name, Divergence()).commits
            self.measured(f"transactions that only {name} has", commits)
            if commits:
                exported[name] = kept = await self.do(export_divergence, parted(sites, pair))
                for line in rows(name, kept):
                    self.measured("kept, and at no site from then on", line)
                self.delivered(f"what only {name} had", f"{parted(sites, pair).out} on host {pair.new.host.name}")
        return exported

    async def _keep(self, sites: Sites, found: Back) -> dict[str, Snapshot]:
        """Keep what the lost stores hold, where the estate says in which folder; count what only they have."""
        kept: dict[str, Snapshot] = {}
        for two in sites.stores:
            name = two.new.name
            if follows(found, two):
                continue
            seen = found.sessions.get(name, Compared())
            if not seen.failed:
                self.measured(f"sessions that only {name} has", seen.differences.get("missing", 0))
                self.measured(f"sessions that {name} and {two.old.name} have otherwise", unlike(seen))
            if two.new.copies and found.stores[name].keys:
                kept[name] = await self.do(keep_sessions, keeps(sites, two))
                self.delivered(f"what {name} held", f"{keeps(sites, two).out} on host {two.new.host.name}")
        return kept

    async def _rebuild(self, sites: Sites, found: Back, taken: TakenOver) -> None:
        """Make the lost site a replica of the one that took over, and forget how it was lost."""
        await self.together(
            *(self._rebuild_database(sites, pair, found, taken) for pair in sites.databases),
            *(self._rebuild_store(sites, two, found, taken) for two in sites.stores),
        )

    async def _rebuild_database(self, sites: Sites, pair: Pair, found: Back, taken: TakenOver) -> None:
        await self.do(follow, sites.of_new(pair))
        for one, spec in ((pair.new, sites.of_new(pair)), (pair.old, sites.of_old(pair))):
            left = [owner for owner in found.databases[one.name].left if one is pair.new or owner == taken.owner]
            for number, owner in enumerate(left, 1):
                step = f"forget what {one.name} was before" + (f", {number}" if number > 1 else "")
                await self.do(forget_role, spec.model_copy(update={"owner": owner}), step)

    async def _rebuild_store(self, sites: Sites, two: Stores, found: Back, taken: TakenOver) -> None:
        await self.do(follow_store, rejoins(sites, two), kept=REBUILT)
        if shut(found, two):
            await self.do(unfence_store, reopens(sites, two, found, taken), kept=REBUILT)

    async def _steady(self, sites: Sites, wanted: Parameters) -> None:
        """See for a while that the rebuilt site keeps up."""
        if self.start.mode != "live":
            return
        for turn in range(1, LOOKS + 1):
            await workflow.sleep(wanted.steady / LOOKS, summary=f"watch {sites.new}: look {turn} of {LOOKS}")
            for pair in sites.databases:
                how = f"watch {pair.new.name} replicate {pair.old.name}, {turn} of {LOOKS}"
                serves = await self.prove(look_at_database, sites.look(pair.old, pair.new), f"{how}: what serves")
                follows = await self.prove(look_at_database, sites.look(pair.new, pair.old), f"{how}: its replica")
                if serves is None or follows is None:
                    continue
                left = missing(serves, follows).left
                if not follows.streaming or left is None or left > wanted.max_lag:
                    raise Fatal(
                        f"{pair.new.name} does not keep up: it lacks {left} bytes of log, {wanted.max_lag} are allowed;"
                        f" {sites.old} serves on, see its log"
                    )
                self.measured(f"log that {pair.new.name} lacked, look {turn}", left, "bytes", True)
