"""HAProxy as a traffic director: its runtime API, asked on its host; a state file keeps what was changed.

The runtime API cannot compare and swap. Who writes is put in order by the lease, and by the host, which refuses a job
of an earlier hand; of one name only one runs at a time. The job looks at every server right before it sets them, all in
one line; what another person sets between those two is overwritten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Literal, Self

from activities import ssh
from activities.pointing import Pointing, Sighted, where
from activities.ssh import HostAt
from recovery.actions import Action, Probe, Spec
from recovery.errors import Invalid
from recovery.models import Wire
from runbooks.schema import HAProxy, Host

State = Literal["ready", "drain", "maint"]
MAINT, DRAIN = 0x63, 0x18
"""Bits of srv_admin_state: forced, inherited, by a name that is not resolved or told; not how it is configured."""
PAUSE = 0.2


class BackendSpec(Spec):
    """A backend of an HAProxy on ``host``, and the names of its servers at each site; ``run`` is the recovery."""

    host: HostAt
    socket: str
    backend: str
    sites: dict[str, tuple[str, ...]]
    state: str
    configuration: str
    run: str = ""

    @classmethod
    def of(cls, system: str, director: HAProxy, host: Host, **more: Any) -> Self:
        """Return the spec for a director of the estate."""
        known = HostAt.model_validate(host.model_dump() | {"name": director.host})
        given = director.model_dump(include={"socket", "backend", "sites", "state", "configuration"})
        return cls(system=system, host=known, **given, **more)

    def values(self) -> dict[str, object]:
        """Return the shell variables that every script about it takes."""
        return {"socket": self.socket, "backend": self.backend}


class PointBackend(BackendSpec):
    """Point at ``site``; "" at nobody: all servers are in maintenance, so that clients are told 503 at once."""

    site: str


class Served(Pointing):
    """Where a backend points, and the state of each server.

    ``kept`` tells whether the state file says the same: False where it says nothing of them, None where it says
    something else.
    """

    servers: dict[str, State] = {}
    kept: bool | None = None


class PointAt(Action[PointBackend, Served]):
    """Move the traffic of a backend to a site, and keep that for the next start; what is under way is answered."""

    name = "haproxy.point"

    def title(self, spec: PointBackend) -> str:
        """Say who points where."""
        return f"point {spec.system} at {spec.site or 'nobody'}"

    async def observe(self, spec: PointBackend) -> Served:
        """Look at every server, and into the state file."""
        return served(spec, await _look(spec, Probe.limit))

    def desired(self, spec: PointBackend, before: Served) -> Served:
        """Want the servers of the site ready, and all others in maintenance."""
        if spec.site and spec.site not in spec.sites:
            raise Invalid(f"sites: {spec.system} has no servers of {spec.site}; name them in the estate")
        if before.at == ("site" if spec.site else "nobody") and before.site == spec.site:
            return before.model_copy(update={"kept": True})
        ready = spec.sites.get(spec.site, ())
        servers: dict[str, State] = {name: "ready" if name in ready else "maint" for name in before.servers}
        return pointing(spec, servers, kept=True)

    def partial(self, spec: PointBackend, before: Served, now: Served) -> bool:
        """Know that each is what it was, or already what it is to be."""
        known = (before.servers, self.desired(spec, before).servers)
        return now.servers.keys() == before.servers.keys() and all(
            state in [one[name] for one in known] for name, state in now.servers.items()
        )

    def begun(self, spec: PointBackend, before: Served, now: Served) -> bool:
        """Know it by one that is not what it was."""
        return now.servers != before.servers and self.partial(spec, before, now)

    async def apply(self, spec: PointBackend, before: Served) -> None:
        """Set every server that is not so yet: first those that are to take no traffic."""
        await self._set(spec, before, self.desired(spec, before))

    async def undo(self, spec: PointBackend, before: Served) -> None:
        """Set every server to what it was; a state file that had none of them has none of them again."""
        async with self.ending(spec):
            await self._set(spec, self.desired(spec, before), before)

    async def halt(self, spec: PointBackend) -> None:
        """End the job, and remove its traces; what an earlier attempt sends later is refused by the host."""
        await ssh.end_job(spec.host, _job(spec))

    async def _set(self, spec: PointBackend, here: Served, there: Served) -> None:
        if missing := [name for names in spec.sites.values() for name in names if name not in there.servers]:
            raise Invalid(f"sites: backend {spec.backend} of {spec.system} has no server {', '.join(missing)}")
        values = spec.values() | {
            "state": spec.state,
            "wanted": _pairs(there.servers.items()),
            "known": _pairs([*here.servers.items(), *there.servers.items()]),
            "kept": "no" if there.kept is False else "yes",
        }
        await ssh.job(spec.host, _job(spec), "haproxy_point", values)


point_backend = PointAt()


class BackendSeen(Sighted):
    """Where a backend points, with its servers. Its host keeps whose hand was the last, not HAProxy: no epoch here."""

    pointed: Served


class LookAt(Probe[BackendSpec, BackendSeen]):
    """See where a backend points, and whether a restart would keep that, as its configuration says."""

    name = "haproxy.seen"
    skip: ClassVar[str] = "it is not known where the traffic goes"

    def title(self, spec: BackendSpec) -> str:
        """Say what is looked at."""
        return f"see where {spec.system} points"

    async def observe(self, spec: BackendSpec) -> BackendSeen:
        """Look at every server, into the state file and the configuration."""
        told = await _look(spec, self.limit)
        return BackendSeen(pointed=served(spec, told), keeps="keeps\tyes" in told.splitlines())


look_at_backend = LookAt()


class DrainBackend(BackendSpec):
    """Wait up to ``seconds`` until no session is left at the servers of ``site``."""

    site: str
    seconds: int = 30


class Left(Wire):
    """How many sessions there still are."""

    left: int = 0


class Drains(Probe[DrainBackend, Left]):
    """Wait for the end of sessions; some that last is no failure."""

    name = "haproxy.drained"
    limit = timedelta(minutes=6)
    patience = timedelta(minutes=12)
    skip: ClassVar[str] = "requests that are under way may be cut"

    def title(self, spec: DrainBackend) -> str:
        """Say what is waited for."""
        return f"see the last session of {spec.system} at {spec.site} ended"

    async def observe(self, spec: DrainBackend) -> Left:
        """Ask how many are left until there is none, or the time is over."""
        until = asyncio.get_running_loop().time() + spec.seconds
        while left := await _sessions(spec):
            if asyncio.get_running_loop().time() > until:
                break
            await asyncio.sleep(PAUSE)
        return Left(left=left)


backend_drained = Drains()


def served(spec: BackendSpec, told: str) -> Served:
    """Return where a backend points, from what the script tells of it."""
    rows = [line.split("\t") for line in told.splitlines()]
    found = {what: {row[1]: _state(int(row[2])) for row in rows if row[0] == what} for what in ("server", "kept")}
    kept = None if found["kept"] else False
    return pointing(spec, found["server"], kept=True if found["kept"] == found["server"] else kept)


def pointing(spec: BackendSpec, servers: Mapping[str, State], kept: bool | None) -> Served:
    """Return where a backend with these servers points: at who takes new traffic."""
    of = {name: site for site, names in spec.sites.items() for name in names}
    at, site = where({of.get(name) for name, state in servers.items() if state == "ready"})
    if at == "nobody" and "drain" in servers.values():  # it lets in who was there before
        at, site = where({of.get(name) for name, state in servers.items() if state == "drain"})
    return Served(at=at, site=site, servers=dict(servers), kept=kept)


def _state(admin: int) -> State:
    return "maint" if admin & MAINT else "drain" if admin & DRAIN else "ready"


def _pairs(servers: Iterable[tuple[str, str]]) -> str:
    return " ".join(dict.fromkeys(f"{name}={state}" for name, state in servers))


async def _look(spec: BackendSpec, limit: timedelta) -> str:
    values = spec.values() | {"state": spec.state, "configuration": spec.configuration}
    return await ssh.look(spec.host, "haproxy_state", values, ssh.within(limit))


async def _sessions(spec: DrainBackend) -> int:
    told = await ssh.look(spec.host, "haproxy_left", spec.values())
    rows = (line.partition("\t")[::2] for line in told.splitlines())
    return sum(int(count or 0) for name, count in rows if name in spec.sites.get(spec.site, ()))


def _job(spec: BackendSpec) -> str:
    return f"{spec.system}-{spec.run}.point"
