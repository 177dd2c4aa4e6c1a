"""What can be seen of a database from where a worker stands; that nothing can be seen is an answer, too."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from activities import ssh
from activities.databases import DatabaseSeen, DatabaseSpec, look
from recovery.actions import Probe
from recovery.errors import Transient
from recovery.models import Wire

SECONDS = 8.0
"""A host that does not answer for so long, once it let us in, is not waited for: clients are."""
LOGIN = 3.0
"""One that does not let us in for so long is out of reach."""


class Sighting(Wire):
    """What was seen of a database; ``why`` nothing could be seen where its host did not answer.

    ``site`` is where the worker stands that looked, "" for none in particular.
    """

    site: str = ""
    answered: bool = False
    why: str = ""
    seen: DatabaseSeen = DatabaseSeen()


class Sight(Probe[DatabaseSpec, Sighting]):
    """Look once at a database that may be lost. That its host refuses proves nothing about what runs there."""

    name = "postgres.sighting"
    limit = timedelta(seconds=13)
    patience = timedelta(0)

    def title(self, spec: DatabaseSpec) -> str:
        """Say what is looked for."""
        return f"see what is left of {spec.system}"

    async def observe(self, spec: DatabaseSpec) -> Sighting:
        """Look, once."""
        site = ssh.stands()
        try:
            await ssh.reach(spec.database.host, LOGIN)
            async with asyncio.timeout(SECONDS):
                return Sighting(site=site, answered=True, seen=await look(spec.database, spec.owner, seconds=SECONDS))
        except TimeoutError:
            return Sighting(site=site, why=f"no answer within {SECONDS:g} s")
        except Transient as error:
            return Sighting(site=site, why=error.message)


sight = Sight()
