"""FenceWatch: a site that was lost is fenced the moment it comes back; outlives the recovery that left it so."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow

from activities.returning import ClusterReturn, Return, cluster_returns, returns, store_returns
from activities.services import run_services
from activities.sites import Sites, Stores
from activities.ssh import HostAt
from activities.store_roles import fence_store
from activities.switching import retire
from recovery.models import Start, digest
from recovery.procedure import Missed, Procedure
from recovery.report import Report
from runbooks.procedures import data_center_activation
from runbooks.procedures.fence_watch import Parameters
from workflows.draining import drain

KEPT = "a site that was left stays fenced; the way back is a failback"


@workflow.defn
class FenceWatch(Procedure[Parameters]):
    """Wait for the hosts of a site; stop what writes there, and have its databases come up as standbys only."""

    parameters = Parameters

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Wait, then fence; nothing of it is undone by itself: the way back is a failback."""
        async with self.conducting(start) as wanted:
            self._forward = True
            sites = self._sites(wanted)
            self.work_from(sites.queues.get(sites.new))
            fenced = asyncio.Event()
            await self.together(
                self._fence_hosts(sites, wanted.patience, fenced),
                *(self._still(sites, name, wanted.patience, fenced) for name in sorted(sites.workloads)),
            )
            self.delivered(f"fence of {wanted.site}", "proven")
            await drain(self, sites, kept=self._kept)
        return self.report()

    async def _fence_hosts(self, sites: Sites, patience: timedelta, fenced: asyncio.Event) -> None:
        """Wait for all hosts, then fence what runs on them."""
        try:
            for name in sorted(_hosts(sites)):
                host = HostAt.model_validate(sites.hosts[name].model_dump() | {"name": name})
                await self.look(returns, Return(system=name, host=host), patience=patience)
            await self.together(
                self._stop(sites),
                *(self.do(retire, sites.of_old(pair), kept=self._kept) for pair in sites.databases),
                *(self._fence(sites, two, patience) for two in sites.stores),
            )
        finally:
            fenced.set()  # where it has failed the others begin nothing

    async def _fence(self, sites: Sites, two: Stores, patience: timedelta) -> None:
        """Fence a store once it runs: it may come up later than its host."""
        await self.look(store_returns, sites.store(two.old), patience=patience)
        await self.do(fence_store, sites.store(two.old), kept=self._kept)

    async def _stop(self, sites: Sites) -> None:
        for level in sites.stops():
            await self.do(run_services, level, kept=self._kept)

    async def _still(self, sites: Sites, name: str, patience: timedelta, fenced: asyncio.Event) -> None:
        """Bring a workload to stand still once its cluster answers, whatever its hosts do: it may be back before them.

        Where that fails people are asked, but after the hosts: while they are, no branch begins anything.
        """
        given = ClusterReturn(system=name, cluster=sites.of(name).workload.cluster)
        try:
            await self.look(cluster_returns, given, patience=patience)
            await self.do(*sites.quiet(name), kept=self._kept)
        except Missed:
            await fenced.wait()
            step = f"scale {name} to 0, now that what ran on hosts is fenced"
            await self.do(*sites.scale(name, 0), step, kept=self._kept)

    @property
    def _kept(self) -> str:
        """Why nothing is undone, however it ends: undone, the lost site would take writes beside the other one."""
        return KEPT if self.start.mode == "live" else ""

    def _sites(self, wanted: Parameters) -> Sites:
        """Return the move that this site was left by: from it to where its databases' peers are."""
        estate = self.frozen.estate
        replicated = estate["databases"] | estate["stores"]
        peers = [replicated[name]["peer"] for name in self.frozen.systems if name in replicated]
        new = estate["hosts"][replicated[peers[0]]["host"]]["site"]
        move = data_center_activation.Parameters(site=new, how="unplanned")
        return Sites((*self.frozen.systems, *peers), estate, move, digest(self.run_name)[:8])


def _hosts(sites: Sites) -> set[str]:
    services = {one.host.name for level in sites.stops() for one in level.services}
    stores = {two.old.host.name for two in sites.stores}
    return services | stores | {pair.old.host.name for pair in sites.databases}
