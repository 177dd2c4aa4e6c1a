"""The traffic director, Caddy's admin API: where it points, moved by compare-and-swap, and what clients get there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple, Self

from activities.admin_api import AdminSpec, Changed, ask
from activities.pointing import Mark, Pointing, Sighted, drifted, heed, mine, where
from recovery.actions import Action, Probe
from recovery.errors import Invalid, Transient
from recovery.models import Wire
from runbooks.schema import Caddy

TRIES = 20
"""How often a write is tried while others change the configuration, or while the admin API starts anew."""
PAUSE = 0.05
MARK = "recovery.epochs"
"""The variable in which a server keeps whose write was the last, by director."""
NEVER: list[dict[str, object]] = [{"not": [{}]}]
"""Matches no request: Caddy keeps what stands behind it, over restarts too (--resume), and never runs it."""


class DirectorSpec(AdminSpec):
    """A director: the HTTP server in its configuration that carries the traffic, and the dial of each site.

    ``system`` is its name in the estate; the epochs that it keeps are those of the lease on that.
    """

    server: str
    sites: dict[str, str]

    @classmethod
    def of(cls, system: str, director: Caddy, **more: Any) -> Self:
        """Return the spec for a director of the estate."""
        sites = {site: f"{at.address}:{at.port}" for site, at in director.sites.items()}
        return cls(system=system, admin=director.admin, server=director.server, sites=sites, **more)


class Point(DirectorSpec):
    """Point at ``site``; "" at nobody: clients are told 503 at once, and what is under way is answered."""

    site: str


class Pointed(Pointing):
    """Where a director points, and its upstreams, word for word as they stand in its configuration."""

    upstreams: str = "[]"


class _Config(NamedTuple):
    """The server's configuration, the proxy in it, whose write was the last, and what proves that nobody wrote since.

    ``proxy`` is a part of ``server``: what is changed in one is changed in the other.
    """

    server: dict[str, Any]
    proxy: dict[str, Any]
    mark: Mark
    etag: str


class PointAt(Action[Point, Pointed]):
    """Move the traffic of a director to a site.

    Other parts of the configuration may be changed by others meanwhile: they are read again, and kept. After an undo
    the upstreams are those that were there; whose write was the last stays written.
    """

    name = "director.point"

    def title(self, spec: Point) -> str:
        """Say who points where."""
        return f"point {spec.system} at {spec.site or 'nobody'}"

    async def observe(self, spec: Point) -> Pointed:
        """Look where it points."""
        return pointed(spec, (await _look(spec)).proxy)

    def desired(self, spec: Point, before: Pointed) -> Pointed:
        """Want the one upstream of the site; one that is there already stays as it is, with its options."""
        upstreams = [{"dial": _dial(spec)}] if spec.site else []
        wanted = pointed(spec, {"upstreams": upstreams})
        return before if (before.at, before.site) == (wanted.at, wanted.site) else wanted

    async def apply(self, spec: Point, before: Pointed) -> None:
        """Put the upstream of the site there."""
        await _move(spec, before, self.desired(spec, before))

    async def undo(self, spec: Point, before: Pointed) -> None:
        """Put the upstreams there that were there."""
        await _move(spec, self.desired(spec, before), before)

    async def halt(self, spec: Point) -> None:
        """Shut out what an earlier attempt may still write: from now on this order's mark is the last."""

        def claimed(found: _Config) -> bool:
            return _marked(spec, found)

        if mine(spec.system).epoch:
            await _swap(spec, claimed)


point = PointAt()


class Seen(Sighted):
    """Where a director points, with its upstreams."""

    pointed: Pointed


class LookAt(Probe[DirectorSpec, Seen]):
    """See where a director points. Whether it was started with --resume, without which it forgets, it does not tell."""

    name = "director.seen"
    skip: ClassVar[str] = "it is not known where the traffic goes"

    def title(self, spec: DirectorSpec) -> str:
        """Say what is looked at."""
        return f"see where {spec.system} points"

    async def observe(self, spec: DirectorSpec) -> Seen:
        """Look at the server, and at how changes are kept."""
        found = await _look(spec)
        admin = (await ask(spec, "GET", "config", "admin"))[0] or {}
        config = admin.get("config") or {}
        keeps = config.get("persist", True) is not False and not config.get("load")
        return Seen(pointed=pointed(spec, found.proxy), epoch=found.mark.epoch, keeps=keeps)


look_at_director = LookAt()


class Drain(DirectorSpec):
    """Wait up to ``seconds`` until nothing is under way to ``site``."""

    site: str
    seconds: int = 30


class Drained(Wire):
    """How many requests are still under way."""

    left: int = 0


class Drains(Probe[Drain, Drained]):
    """Wait for the end of requests that are under way; some that last is no failure."""

    name = "director.drained"
    limit = timedelta(minutes=6)
    patience = timedelta(minutes=12)
    skip: ClassVar[str] = "requests that are under way may be cut"

    def title(self, spec: Drain) -> str:
        """Say what is waited for."""
        return f"see the last request to {spec.site} answered"

    async def observe(self, spec: Drain) -> Drained:
        """Ask how many are left until there is none, or the time is over."""
        until = asyncio.get_running_loop().time() + spec.seconds
        while left := await _under_way(spec):
            if asyncio.get_running_loop().time() > until:
                break
            await asyncio.sleep(PAUSE)
        return Drained(left=left)


drained = Drains()


def pointed(spec: DirectorSpec, proxy: dict[str, Any]) -> Pointed:
    """Return where a reverse proxy points, from its configuration."""
    upstreams = proxy.get("upstreams") or []
    text = json.dumps(upstreams, sort_keys=True)
    known = {dial: site for site, dial in spec.sites.items()}
    at, site = where({known.get(upstream.get("dial", "")) for upstream in upstreams})
    return Pointed(at=at, site=site, upstreams=text)


def _dial(spec: Point | Drain) -> str:
    if spec.site not in spec.sites:
        raise Invalid(f"sites: {spec.system} has no address of {spec.site}; name it in the estate")
    return spec.sites[spec.site]


async def _move(spec: Point, here: Pointed, there: Pointed) -> None:
    def moved(found: _Config) -> bool:
        marked = _marked(spec, found)
        now = pointed(spec, found.proxy)
        if now not in (here, there):
            raise drifted(spec.system, now)
        found.proxy["upstreams"] = json.loads(there.upstreams)
        return marked or now != there

    await _swap(spec, moved)


def _marked(spec: Point, found: _Config) -> bool:
    """Write into ``found`` that this write is the last; tell whether that is new. Raises Stale if a later one was."""
    own = mine(spec.system)
    heed(spec.system, own, found.mark)
    if own == found.mark:
        return False
    marks = next(_marks(found.server), None)
    if marks is None:
        marks = {}
        found.server["routes"].append({"match": NEVER, "handle": [{"handler": "vars", MARK: marks}]})
    marks[spec.system] = own.model_dump()
    return True


def _marks(server: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for found in _handlers(server.get("routes"), "vars"):
        if isinstance(found.get(MARK), dict):
            yield found[MARK]


async def _swap(spec: Point, change: Callable[[_Config], bool]) -> None:
    """Change the server's configuration, if nobody has since it was read; read it again if somebody has.

    ``change`` tells whether there is anything to write. A write whose answer was lost is looked for the same way.
    """
    for _ in range(TRIES):
        found = await _look(spec)
        if not change(found) or await _put(spec, found):
            return
        await asyncio.sleep(PAUSE)
    raise Transient(f"{spec.system}: others keep changing its configuration, or its admin API does not stay up")


async def _put(spec: Point, found: _Config) -> bool:
    try:
        await ask(spec, "PATCH", *_path(spec), json=found.server, headers={"If-Match": found.etag})
    except (Changed, Transient):
        return False
    return True


async def _look(spec: DirectorSpec) -> _Config:
    server, etag = await ask(spec, "GET", *_path(spec))
    if not isinstance(server, dict):
        raise Invalid(f"server: {spec.system} has no HTTP server {spec.server}; see its configuration, or the estate")
    proxies = list(_handlers(server.get("routes"), "reverse_proxy"))
    if len(proxies) != 1:
        raise Invalid(f"server: {spec.server} of {spec.system} has {len(proxies)} reverse proxies, not one")
    if "dynamic_upstreams" in proxies[0]:
        raise Invalid(f"server: {spec.server} of {spec.system} finds its upstreams by itself (dynamic_upstreams)")
    if not etag:
        raise Invalid(f"admin: {spec.system} tells no ETag; Caddy does since 2.5")
    try:
        marks = [Mark.model_validate(found.get(spec.system, {})) for found in _marks(server)]
    except ValueError:
        raise Invalid(f"server: {MARK} in {spec.server} of {spec.system} is not as a recovery wrote it") from None
    return _Config(server, proxies[0], max(marks, key=lambda mark: mark.number, default=Mark()), etag)


def _handlers(part: object, name: str) -> Iterator[dict[str, Any]]:
    """Yield each handler of this name in a part of a configuration, however deep."""
    if isinstance(part, dict) and part.get("handler") == name:
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _handlers(inner, name)


async def _under_way(spec: Drain) -> int:
    rows, _ = await ask(spec, "GET", "reverse_proxy", "upstreams")
    dial = _dial(spec)
    try:
        return sum(row["num_requests"] for row in rows or () if row["address"] == dial)
    except (KeyError, TypeError):
        raise Invalid(f"admin: {spec.system} does not tell what is under way as Caddy does") from None


def _path(spec: DirectorSpec) -> tuple[str, ...]:
    return "config", "apps", "http", "servers", spec.server
