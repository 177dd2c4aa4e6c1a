"""Waiting for what is out of reach: a host, or a store on it, or a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import ClassVar, TypeVar

from activities import clusters, ssh, stores
from activities.clusters import ClusterAt
from activities.ssh import HostAt
from activities.stores import StoreSpec
from recovery.actions import Probe, Spec
from recovery.errors import Refused, Transient
from recovery.models import Wire

PAUSE = 0.2
"""Seconds between two attempts: what comes back takes writes as soon as it is up."""
SETTLED = 60
"""Seconds after which an API server that refuses means it."""


S = TypeVar("S", bound=Spec)


class Return(Spec):
    """The host to wait for."""

    host: HostAt


class Returned(Wire):
    """That it answers."""

    answers: bool = True


class Waits(Probe[S, Returned]):
    """Look again and again; an attempt ends in good order before its limit, and is followed by the next."""

    name = ""
    limit = timedelta(hours=6)
    patience = timedelta(days=30)

    def title(self, spec: S) -> str:
        """Say who is waited for."""
        return f"wait for {spec.system} to come back"

    async def _until(self, look: Callable[[], Awaitable[object]]) -> Returned:
        until = asyncio.get_running_loop().time() + (self.limit - timedelta(minutes=1)).total_seconds()
        while True:
            try:
                await look()
                return Returned()
            except Transient:
                if asyncio.get_running_loop().time() > until:
                    raise
            await asyncio.sleep(PAUSE)


class Returns(Waits[Return]):
    """Wait until a host lets us in."""

    name = "host.returns"

    async def observe(self, spec: Return) -> Returned:
        """Try it again and again."""
        return await self._until(lambda: ssh.look(spec.host, "nothing", {}))


returns = Returns()


class StoreReturns(Waits[StoreSpec]):
    """Wait until a store tells of itself: one that does not run takes no write, and cannot be fenced."""

    name = "valkey.returns"

    async def observe(self, spec: StoreSpec) -> Returned:
        """Try it again and again."""
        return await self._until(lambda: stores.look(spec.store, "role"))


store_returns = StoreReturns()


class ClusterReturn(Spec):
    """The cluster to wait for."""

    cluster: ClusterAt


class ClusterReturns(Waits[ClusterReturn]):
    """Wait until an API server answers. One that refuses us is nothing to ask people about while a host may be back."""

    name = "cluster.returns"
    beside: ClassVar[bool] = True

    def title(self, spec: ClusterReturn) -> str:
        """Say for whom it is waited."""
        return f"wait for the cluster of {spec.system} to come back"

    async def observe(self, spec: ClusterReturn) -> Returned:
        """Try it again and again. An API server that has just begun knows nobody's roles, and refuses everybody."""
        clock, refused = asyncio.get_running_loop().time, list[float]()

        async def look() -> None:
            try:
                await clusters.ask(spec.cluster, "GET", "/version")
            except Refused as error:
                refused.append(clock())
                if refused[-1] - refused[0] > SETTLED:
                    raise
                raise Transient(error.message) from error
            except Transient:
                refused.clear()  # it is gone again, and begins once more
                raise

        return await self._until(look)


cluster_returns = ClusterReturns()
