"""What can be seen of a lost site from where a worker stands; that nothing can be seen is an answer, too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Self

from activities import ssh, stores
from activities.databases import DatabaseSeen, DatabaseSpec, look
from activities.ssh import HostAt
from activities.stores import NOBODY, Replication, StoreSpec
from recovery.actions import Probe
from recovery.errors import Transient
from recovery.models import Wire

SECONDS = 8.0
"""A host that does not answer for so long, once it let us in, is not waited for: clients are."""
LOGIN = 3.0
"""One that does not let us in for so long is out of reach."""
AT_ONCE = 0.5
"""One that has just come back lets us in within that; for another one clients do not wait once more."""
PATIENCE = timedelta(minutes=2)
"""That nothing answers is told at once; what is tried again is the look of a worker that died, and has to come back."""


class Sighting(Wire):
    """What was seen of a database; ``why`` nothing could be seen where its host did not answer.

    ``site`` is where the worker stands that looked, "" for none in particular.
    """

    site: str = ""
    answered: bool = False
    why: str = ""
    seen: DatabaseSeen = DatabaseSeen()


class Lookout(DatabaseSpec):
    """A database that may be lost, and how long its host may take to let us in, in seconds."""

    login: float = LOGIN

    @classmethod
    def of(cls, spec: DatabaseSpec, login: float = LOGIN) -> Self:
        """Return how to look at a database of which nobody knows whether it is there."""
        return cls.model_validate(spec.model_dump() | {"login": login})


class Sight(Probe[Lookout, Sighting]):
    """Look once at a database that may be lost. That its host refuses proves nothing about what runs there."""

    name = "postgres.sighting"
    limit = timedelta(seconds=13)
    patience = PATIENCE

    def title(self, spec: Lookout) -> str:
        """Say what is looked for."""
        return f"see what is left of {spec.system}"

    async def observe(self, spec: Lookout) -> Sighting:
        """Look, once."""
        site = ssh.stands()
        try:
            async with answering(spec.database.host, spec.login):
                return Sighting(site=site, answered=True, seen=await look(spec.database, spec.owner, seconds=SECONDS))
        except Transient as error:
            return Sighting(site=site, why=error.message)


sight = Sight()


class StoreSighting(Wire):
    """What was seen of a store; ``why`` nothing could be seen where it did not answer."""

    answered: bool = False
    why: str = ""
    seen: Replication = NOBODY


class SightStore(Probe[StoreSpec, StoreSighting]):
    """Look once at a store that may be lost."""

    name = "valkey.sighting"
    limit = timedelta(seconds=13)
    patience = PATIENCE

    def title(self, spec: StoreSpec) -> str:
        """Say what is looked for."""
        return f"see what is left of {spec.system}"

    async def observe(self, spec: StoreSpec) -> StoreSighting:
        """Look, once."""
        try:
            async with answering(spec.store.host, LOGIN):
                return StoreSighting(answered=True, seen=await stores.look(spec.store, "gate", SECONDS))
        except Transient as error:
            return StoreSighting(why=error.message)


sight_store = SightStore()


@contextlib.asynccontextmanager
async def answering(host: HostAt, login: float) -> AsyncIterator[None]:
    """Look at something on a host that may be lost. Raises Transient when it is."""
    await ssh.reach(host, login)
    try:
        async with asyncio.timeout(SECONDS):
            yield
    except TimeoutError:
        raise Transient(f"no answer within {SECONDS:g} s") from None
