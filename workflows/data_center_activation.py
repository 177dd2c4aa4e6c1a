"""DataCenterActivation: everything that serves clients moves to the other site, from a living one or a lost one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from temporalio import workflow

from activities import capacity, losses
from activities.capacity import Capacity
from activities.clustered import cordoned_of, nodes_of
from activities.databases import caught_up, look_at_database
from activities.losses import Lost
from activities.serving import Served, serves
from activities.sightings import AT_ONCE, Lookout, Sighting, sight, sight_store
from activities.sites import Boot, Found, Pair, Sites, Stores
from activities.store_roles import fence_store, follow_store, promote_store, unfence_store
from activities.stores import Replication
from activities.stores import caught_up as store_caught_up
from activities.switching import follow, forget_role, keep_role, promote_standby, retire
from activities.workload_looks import Serving, sight_workload
from recovery.errors import Fatal
from recovery.models import Start, digest
from recovery.procedure import Missed, Procedure, Turned
from recovery.report import Report
from runbooks.procedures.data_center_activation import FENCE, LOSS, PLANNED, SHORTAGE, Parameters
from workflows.assessing import assess, assess_lost
from workflows.directing import lengthen, outlast, see_told, shorten, tell_drained
from workflows.draining import drain
from workflows.sessions import prove_sessions
from workflows.silencing import hear_alerts, silence_alerts, silently
from workflows.site_validation import validate

LOOKS = 3
"""How often everything is looked at while it is watched."""


@workflow.defn
class DataCenterActivation(Procedure[Parameters]):
    """Move from the active site to ``site``: nothing is lost, never two take writes, and the old one is its replica."""

    parameters = Parameters

    def __init__(self) -> None:
        super().__init__()
        self._counted = Capacity()

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Assess both sites, ask, drain, fence, promote, prove, repoint; then make the old site a replica and watch."""
        async with self.conducting(start) as wanted:
            owner = digest(self.run_name)[:8]
            sites = Sites(self.frozen.systems, self.frozen.estate, wanted, owner)
            try:
                await (self._switch(sites) if wanted.how == "planned" else self._take_over(sites))
            except Turned:  # the old site died on the way
                self._turn_to("taking over")
                gone = wanted.model_copy(update={"how": "unplanned"})
                await self._take_over(Sites(self.frozen.systems, self.frozen.estate, gone, owner))
        return self.report()

    def _hurries(self, wanted: Parameters) -> bool:
        return wanted.how == "unplanned"

    async def _switch(self, sites: Sites) -> None:
        found = await assess(self, sites)
        needs = self._counted = capacity.of_living(sites, found)
        self._tell_capacity(needs)
        self.require([*sites.blockers(found, workflow.now()), *capacity.blockers(needs, found.unseen)])
        await self.gate(
            PLANNED, sites.outlook(found, needs.words), then=f"clients are shut out, and {sites.new} takes over"
        )
        await shorten(self, sites, found.directors)
        self.require(sites.frozen(workflow.now()))  # people, and resolvers, may have taken their time
        await silence_alerts(self, sites)

        self._offered = ("take over",) if sites.fence_by else ()
        for pair in sites.databases:
            await self.do(keep_role, sites.of_new(pair))
        shut = await self._shut(sites)
        await self._move(sites)
        await self._serve(sites)
        await self._let_in(sites, shut)
        await self._replicate(sites, found)
        await drain(self, sites)
        await self._watch(sites)
        await lengthen(self, sites, found.directors)
        await hear_alerts(self, sites)
        await validate(self, sites)

    async def _take_over(self, sites: Sites) -> None:
        """Have the new site serve without the old one: what leads back would lead to a site that is not there."""
        lost = await self.taking(lambda: assess_lost(self, sites))
        muted = sites.muted(lost.alerts)
        self.require(losses.blockers(sites, lost, turned=bool(self._turned)))
        rpo, outage = self.frozen.objectives.rpo, self.start.outage_started_at or workflow.now()
        missing = losses.estimates(sites, lost, outage)
        for one in missing:
            least = one.seconds if one.seconds is not None else "not known"
            self.measured(f"commits that {one.database} may lack, at most", least, "s", not losses.over((one,), rpo))
        fewer = losses.sessions(sites, lost, outage)
        for few in fewer:
            least = few.seconds if few.seconds is not None else "not known"
            self.measured(
                f"sessions that {few.store} may lack, written in at most", least, "s", not losses.over((few,), rpo)
            )
            self.measured(f"keys at {few.store}", few.keys)
        needs = capacity.recalled(capacity.of_lost(sites, lost), self._counted)
        self._tell_capacity(needs)
        for name, why in (closed := losses.unopened(lost)).items():
            self.measured(cordoned_of(name), why, met=False)
        unknown = capacity.not_known(sites, needs, (f"{cordoned_of(name)}: {why}" for name, why in closed.items()))
        if losses.over((*missing, *fewer), rpo):
            then = f"{sites.new} takes over without what it lacks"
            await self.gate(LOSS, losses.loss_at_stake(sites, missing, fewer, rpo), muted, unknown, then=then)
        if needs.short:
            then = f"{sites.new} takes over with less than its clients need"
            await self.gate(SHORTAGE, capacity.shortage_at_stake(sites, needs), then=then)
        reached = losses.reached_from(sites, lost)
        if reached is None and not sites.rules.trust_isolation:
            then = f"{sites.new} is opened, and {sites.old} is fenced when it comes back"
            await self.gate(FENCE, losses.fence_at_stake(sites, lost), muted, unknown, then=then)
        self._forward = True
        self.work_from(sites.queues.get(sites.new))

        await silently(self, sites, self._serve_without(sites, lost, reached))
        await lengthen(self, sites, lost.directors)
        await hear_alerts(self, sites)
        await validate(self, sites)

    async def _serve_without(self, sites: Sites, lost: Lost, reached: str | None) -> None:
        """Let clients in, see that nothing of the old site is in their way, and watch; alerts are silenced beside."""
        reached = await self._open_without(sites, lost, reached)
        proven = reached is not None
        self.delivered(f"fence of {sites.old}", "proven" if proven else "isolated: no director points there")
        self.delivered(f"who fences {sites.old} when it is back", await self.begin("FenceWatch", sites.fence_by))
        for pair in sites.databases:
            self.delivered(f"standby of {pair.new.name}", f"none, until {sites.old} is back")
        await self._quiet(sites)
        await self._watch(sites)

    async def _open_without(self, sites: Sites, lost: Lost, reached: str | None) -> str | None:
        """Promote what there is, start what serves, and let clients in; return from where the old site was fenced."""
        shut = workflow.now()
        reached = await self._promote_without(sites, lost, reached)
        await self._serve(sites, [one.name for one in sites.free()])
        await self._let_in(sites, shut)
        return reached

    async def _promote_without(self, sites: Sites, lost: Lost, reached: str | None) -> str | None:
        """Send clients nowhere, fence what answers of the old site, and promote; return from where that was fenced.

        What does not need the one before it does not wait for it: clients do.
        """
        apart, fenced = asyncio.Event(), [reached]
        closed = {nodes_of(name) for name in losses.unopened(lost)}  # people were told: nobody is asked about them now
        kept = {pair.new.name: asyncio.Event() for pair in sites.databases}

        async def part() -> None:
            back: dict[str, Sighting] = {}
            try:
                await self.together(
                    *(self.do(*sites.point(name, ""), dark=True) for name in sites.directors),
                    *(self._glimpse(sites, pair, back) for pair in sites.databases if reached is None),
                )
                if reached is None:  # it may have come back by itself while people were asked
                    fenced[0] = losses.reached_from(sites, Lost(sightings={sites.new: back}))
                if fenced[0] is not None:
                    await self._fence(sites, sites.queues.get(fenced[0]) or workflow.info().task_queue)
                elif sites.rules.trust_isolation:  # it is apart when nobody is told of it any more
                    await outlast(self, sites, lost.directors, "until nobody is sent to a site that is not fenced")
            finally:
                apart.set()  # where it has failed they begin nothing

        async def keep(pair: Pair) -> None:
            try:
                await self.do(keep_role, sites.of_new(pair))
            finally:
                kept[pair.new.name].set()

        async def ready(pair: Pair) -> None:
            await apart.wait()
            await kept[pair.new.name].wait()

        await self.together(
            part(),
            *map(keep, sites.databases),
            *(self.do(promote_standby, sites.of_new(pair), once=partial(ready, pair)) for pair in sites.databases),
            *(self.do(promote_store, sites.promotes(two), once=apart.wait) for two in sites.stores),
            *(self.do(*one.start, kept=one.kept) for one in sites.free() if one.name not in closed),
        )
        return fenced[0]

    async def _quiet(self, sites: Sites) -> None:
        """Bring what answers of the old site's clusters to stand still; what does not is told, and holds nobody up.

        Who fences that site waits for this recovery's end: it brings to stand still what is left then, and drains.
        """

        async def quiet(name: str) -> None:
            if why := await self._unquiet(sites, name):
                told = f"not brought to stand still: {why}; {sites.fence_by} does it once it can"
                self.delivered(f"{name} at {sites.old}", told)

        await self.together(*map(quiet, (name for name in sorted(sites.serving(sites.old)) if name in sites.workloads)))

    async def _unquiet(self, sites: Sites, name: str) -> str:
        """Bring a workload to stand still, in a short time; return why it does not, "" where it does."""
        try:
            seen = await self.look(sight_workload, sites.of(name))
            if not seen.answered:
                return "; ".join(seen.faults)
            await self.do(*sites.quiet(name))
        except Missed as missed:
            return missed.message
        return ""

    async def _glimpse(self, sites: Sites, pair: Pair, back: dict[str, Sighting]) -> None:
        """See whether a database has come back since it was assessed."""
        spec = Lookout.of(sites.look(pair.old, pair.new), AT_ONCE)
        back[pair.old.name] = await self.look(sight, spec, f"see whether {pair.old.name} has come back")

    async def _fence(self, sites: Sites, queue: str) -> None:
        """Fence what answers of the old site, from where it does; what does not run there takes no write."""
        await self.together(
            *(self.do(retire, sites.of_old(pair), queue=queue) for pair in sites.databases),
            *(self._fence_store(sites, two, queue) for two in sites.stores),
        )

    async def _fence_store(self, sites: Sites, two: Stores, queue: str) -> None:
        if (await self.look(sight_store, sites.store(two.old), queue=queue)).answered:
            await self.do(fence_store, sites.store(two.old), queue=queue)

    def _tell_capacity(self, found: Capacity) -> None:
        """Report what the new site needs, and what it has; once, also where a move turns to taking over."""
        at = (PLANNED, SHORTAGE)
        for one in found.needs:
            needed, there = (capacity.UNKNOWN if it is None else it for it in (one.needed, one.there))
            self.measured(f"{one.what} that {one.system} needs", needed, told_at=at, again=True)
            has = f"{one.what} that are there for {one.system}"
            self.measured(has, there, met=one.enough, told_at=at, again=True)

    async def _shut(self, sites: Sites) -> datetime:
        """Let no client in any more, let those who are in come to an end, and stop what writes."""
        shut = workflow.now()
        for name in sites.directors:
            await self.do(*sites.point(name, ""), dark=True)
        for name in sites.directors:
            if drained := sites.drain(name):
                tell_drained(self, name, await self.prove(*drained))
        await self._stand_still(sites)
        return shut

    async def _stand_still(self, sites: Sites, site: str = "", kept: str = "") -> None:
        """Stop all that serves at a site (the old one), those first that need others."""
        for turn in sites.standstill(site):
            if len(turn) == 1:
                await self.do(*turn[0], kept=kept)
            else:
                await self.together(*(self.do(*act, kept=kept) for act in turn))

    async def _move(self, sites: Sites) -> None:
        """Fence what takes writes once its replica has all of it, prove that nothing was left, and promote that."""
        await self.together(
            *(self._close_store(sites, two) for two in sites.stores),
            *(self._close_database(sites, pair) for pair in sites.databases),
        )
        await self._promote(sites)
        self._offered = ()  # from here on nothing asks for the old site

    async def _promote(self, sites: Sites) -> None:
        await self.together(
            *(self.do(promote_standby, sites.of_new(pair)) for pair in sites.databases),
            *(self.do(promote_store, sites.promotes(two)) for two in sites.stores),
        )

    async def _close_store(self, sites: Sites, two: Stores) -> None:
        await self.do(fence_store, sites.store(two.old))
        kept = await self.prove(store_caught_up, sites.copies(two))
        if kept is not None and kept.left != 0:
            raise Fatal(f"{two.new.name} lacks {kept.left} bytes of what {two.old.name} has; it goes back")

    async def _close_database(self, sites: Sites, pair: Pair) -> None:
        await self.prove(caught_up, sites.catch_up(pair))
        await self.do(retire, sites.of_old(pair))
        step = f"prove that nothing of {pair.old.name} is left to replicate"
        last = await self.prove(caught_up, sites.catch_up(pair), step)
        if last is not None and not (last.stopped and last.left == 0):
            raise Fatal(f"{pair.new.name} lacks {last.left} bytes of what {pair.old.name} had; it goes back")
        if last is not None:
            self.measured(f"log of {pair.old.name} that {pair.new.name} lacks", last.left or 0, "bytes", True)

    async def _serve(self, sites: Sites, running: Sequence[str] = ()) -> None:
        """Start what serves clients, each once what it needs is ready, and see that it does before any client comes."""
        boots = {one.name: one for one in sites.boots(sites.new)}
        ready = {name: asyncio.Event() for name in boots}

        async def boot(one: Boot) -> None:
            try:
                for needed in one.after:
                    await ready[needed].wait()
                if one.name not in running:
                    await self.do(*one.start, kept=one.kept)
                if one.ready is not None:
                    found = await self.prove(*one.ready)
                    if isinstance(found, Serving):
                        self.measured(f"pods of {one.name} that serve", found.ready)
            finally:
                ready[one.name].set()  # where it has failed others begin nothing

        await self.together(*map(boot, boots.values()))
        for request in sites.health():
            answers = await self.prove(serves, request, f"see {request.system} ready to serve")
            if answers is not None and _bad(answers):
                raise Fatal(f"{request.system} is not ready to serve: {_bad(answers)}; it goes back")

    async def _let_in(self, sites: Sites, shut: datetime) -> None:
        """Let clients in at the new site: the point of no return; then see what they get."""
        self._offered = ()
        for name in sites.directors:
            await self.do(
                *sites.point(name, sites.new),
                f"point {name} at {sites.new}",
                commits=f"clients write at {sites.new}",
            )
        refused = (workflow.now() - shut).total_seconds()
        self.measured(
            "clients refused for", round(refused, 3), "s", refused <= self.frozen.objectives.rto.total_seconds()
        )
        await see_told(self, sites)
        for name in sites.directors:
            answers = await self.prove(serves, sites.requests(name), f"validate {name} with real requests")
            if answers is not None:
                self.measured(f"requests through {name} that were answered well", _well(answers))
                self.measured(f"requests through {name} that were not", sites.wanted.requests - _well(answers))

    async def _replicate(self, sites: Sites, found: Found) -> None:
        """Make the old site what the new one was: its replica, ready for the way home."""
        await self.together(
            *(self._follow_database(sites, pair) for pair in sites.databases),
            *(self._follow_store(sites, two, found.stores[two.old.name]) for two in sites.stores),
        )

    async def _follow_database(self, sites: Sites, pair: Pair) -> None:
        await self.do(follow, sites.of_old(pair))
        await self.do(forget_role, sites.of_new(pair))
        self.delivered(f"standby of {pair.new.name}", f"{pair.old.name} at {sites.old}")

    async def _follow_store(self, sites: Sites, two: Stores, found: Replication) -> None:
        await self.do(follow_store, sites.follows(two))
        await self.do(unfence_store, sites.unfence(two, found))
        await prove_sessions(self, sites.alike(two))
        self.delivered(f"replica of {two.new.name}", f"{two.old.name} at {sites.old}")

    async def _watch(self, sites: Sites) -> None:
        """See for a while that it stays so."""
        if self.start.mode != "live":
            return
        for turn in range(1, LOOKS + 1):
            await workflow.sleep(sites.wanted.watch / LOOKS, summary=f"watch: look {turn} of {LOOKS}")
            for pair in sites.databases:
                step = f"watch {pair.new.name}, {turn} of {LOOKS}"
                alone = sites.wanted.how == "unplanned"
                spec = sites.look(pair.new, pair.old).model_copy(update={"reach": ""} if alone else {})
                seen = await self.prove(look_at_database, spec, step)
                if seen is not None and (seen.role != "primary" or not (seen.followers or alone)):
                    raise Fatal(f"{pair.new.name} is a {seen.role} with {seen.followers} standbys; look at both sites")
        self.delivered("active site", sites.new)


def _well(answers: Served) -> int:
    return sum(count for status, count in answers.statuses.items() if status.startswith("2"))


def _bad(answers: Served) -> str:
    wrong = {status: count for status, count in answers.statuses.items() if not status.startswith("2")}
    return ", ".join(f"{count} × {what}" for what, count in (wrong | answers.unanswered).items())
