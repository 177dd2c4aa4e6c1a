"""Azure's Traffic Manager: which endpoints of a profile are enabled and with which weight, and what its monitor sees.

Its API has no ETag: nothing is compared when an endpoint is written. Whose write was the last stands in a tag of the
profile and is looked at before; between that look and a write only the lease on the director keeps two recoveries
apart. Others who write at that moment are not noticed before the look that follows.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from activities.azure import AzureAt, Session, asked
from activities.machine_operations import MARK, later, marked, own
from activities.pointing import Pointing, Sighted
from recovery.actions import Action, Probe, Spec
from recovery.errors import Drifted, Invalid
from recovery.models import Wire
from runbooks.schema import TrafficManager

if TYPE_CHECKING:
    from azure.mgmt.trafficmanager.models import Endpoint, Profile

ON, OFF = "Enabled", "Disabled"
WELL = "Online"
PAUSE = 2.0
"""Seconds between two looks at what the monitor finds; it asks an endpoint every ten seconds at the most."""


class TrafficSpec(Spec):
    """A profile, and the endpoint of each site; ``system`` is its name in the estate."""

    at: AzureAt
    profile: str
    sites: dict[str, str]

    @classmethod
    def of(cls, system: str, manager: TrafficManager, **more: Any) -> Self:
        """Return the spec for a profile of the estate."""
        at = AzureAt.of(manager)
        return cls.model_validate(
            {"system": system, "at": at, "profile": manager.profile, "sites": manager.sites} | more
        )

    def check(self, *sites: str) -> None:
        """See that each of these sites has an endpoint. Raises ValueError."""
        for site in sites:
            if site not in self.sites:
                raise ValueError(f"sites: {self.system} has no endpoint of {site}; name it in the estate")

    @property
    def field(self) -> str:
        """What is to be looked at in the estate, where Azure does not know the profile."""
        return f"directors.{self.system}.profile"


class PointSpec(TrafficSpec):
    """Enable the endpoint of ``site`` alone, "" none; or with ``weights`` those of the sites named there (1–1000)."""

    site: str = ""
    weights: dict[str, int] = {}

    @model_validator(mode="after")
    def _shared(self) -> Self:
        self.check(*([self.site] if self.site else []), *self.weights)
        if self.site and self.weights:
            raise ValueError("weights: give either a site or weights")
        if any(not 1 <= weight <= 1000 for weight in self.weights.values()):
            raise ValueError("weights: have to be from 1 to 1000; leave out the site that is to get nothing")
        return self


class Lot(Wire):
    """What an endpoint gets: whether it is enabled, and its weight."""

    status: str
    weight: int | None = None


class Shares(Pointing):
    """Where a profile points, and what the endpoint of each site gets; endpoints of no site do not count."""

    sites: dict[str, Lot] = {}

    @classmethod
    def of(cls, sites: dict[str, Lot]) -> Self:
        """Return where it points if each site gets this."""
        on = [site for site, lot in sites.items() if lot.status == ON]
        if len(on) == 1:
            return cls(at="site", site=on[0], sites=sites)
        return cls(at="several" if on else "nobody", sites=sites)


class PointTraffic(Action[PointSpec, Shares]):
    """Enable the endpoints of the wanted sites, and disable the others first: in between nobody is sent to both.

    Clients hold on to what DNS told them until its time to live is over. Undone, each endpoint has the status and the
    weight that it had; the tag that keeps whose write was the last stays.
    """

    name = "traffic_manager.point"

    def title(self, spec: PointSpec) -> str:
        """Say who points where."""
        shares = ", ".join(f"{site} ({weight})" for site, weight in spec.weights.items())
        return f"point {spec.system} at {shares or spec.site or 'nobody'}"

    async def observe(self, spec: PointSpec) -> Shares:
        """Look at the endpoints."""
        return _shares(spec, _endpoints(spec, await _look(spec)))

    def desired(self, spec: PointSpec, before: Shares) -> Shares:
        """Want those of the wanted sites enabled, and no other; weights stay where none is said."""
        wanted = {site: Lot(status=OFF, weight=lot.weight) for site, lot in before.sites.items()}
        if spec.site:
            wanted[spec.site] = Lot(status=ON, weight=before.sites[spec.site].weight)
        return Shares.of(wanted | {site: Lot(status=ON, weight=weight) for site, weight in spec.weights.items()})

    def partial(self, spec: PointSpec, before: Shares, now: Shares) -> bool:
        """Know that each is what it was, or already what it is to be."""
        known = (before.sites, self.desired(spec, before).sites)
        return all(lot in [one.get(site) for one in known] for site, lot in now.sites.items())

    def begun(self, spec: PointSpec, before: Shares, now: Shares) -> bool:
        """Know it by one that is not what it was."""
        return now != before and self.partial(spec, before, now)

    async def apply(self, spec: PointSpec, before: Shares) -> None:
        """Write each endpoint that is not so yet."""
        await _write(spec, before, self.desired(spec, before))

    async def undo(self, spec: PointSpec, before: Shares) -> None:
        """Write each endpoint as it was."""
        await _write(spec, self.desired(spec, before), before)

    async def halt(self, spec: PointSpec) -> None:
        """Shut out what an earlier attempt may still write: from now on this order's mark is the last."""
        await _claim(spec)


point_traffic = PointTraffic()


class Health(Wire):
    """An endpoint as the profile's monitor sees it: Online, Degraded, CheckingEndpoint, Disabled, Stopped, …"""

    name: str
    status: str
    weight: int | None = None
    monitor: str = ""


class Seen(Sighted):
    """Where a profile sends clients, and what its monitor says; ``others`` are enabled endpoints of no site.

    ``ttl`` is for how many seconds clients may hold on to what they were told.
    """

    pointed: Shares
    enabled: bool = True
    monitor: str = ""
    method: str = ""
    ttl: int | None = None
    sites: dict[str, Health] = {}
    others: tuple[str, ...] = ()


class SeeTraffic(Probe[TrafficSpec, Seen]):
    """See where a profile sends clients, and whether its own monitor finds the endpoints well."""

    name = "traffic_manager.seen"
    skip: ClassVar[str] = "it is not known where the traffic goes"

    def title(self, spec: TrafficSpec) -> str:
        """Say what is looked at."""
        return f"see where {spec.system} points"

    async def observe(self, spec: TrafficSpec) -> Seen:
        """Look at the profile."""
        found = await _look(spec)
        sites, shown = _endpoints(spec, found), found.properties
        others = [one for one in (shown.endpoints if shown else None) or () if one not in sites.values()]
        return Seen(
            pointed=_shares(spec, sites),
            epoch=marked(dict(found.tags or {}).get(MARK, ""), spec.field)[0],
            enabled=bool(shown and _plain(shown.profile_status) == ON),
            monitor=_plain(shown.monitor_config.profile_monitor_status) if shown and shown.monitor_config else "",
            method=_plain(shown.traffic_routing_method) if shown else "",
            ttl=shown.dns_config.ttl if shown and shown.dns_config else None,
            sites={site: _health(one) for site, one in sites.items()},
            others=tuple(str(one.name) for one in others if _health(one).status == ON),
        )


see_traffic = SeeTraffic()


class Await(TrafficSpec):
    """Wait up to ``seconds`` until the profile's monitor finds the endpoint of ``site`` well."""

    site: str
    seconds: int = 120

    @model_validator(mode="after")
    def _known(self) -> Self:
        self.check(self.site)
        return self


class Waits(Probe[Await, Health]):
    """Wait for the monitor; one that finds an endpoint not well by then is no failure of the look."""

    name = "traffic_manager.healthy"
    limit = timedelta(minutes=6)
    patience = timedelta(minutes=12)
    skip: ClassVar[str] = "the monitor may leave the site out of its answers, and nobody gets there"

    def title(self, spec: Await) -> str:
        """Say what is waited for."""
        return f"see {spec.site} well at {spec.system}"

    async def observe(self, spec: Await) -> Health:
        """Look until it is online, or the time is over."""
        until = asyncio.get_running_loop().time() + spec.seconds
        while True:
            found = _health(_endpoints(spec, await _look(spec))[spec.site])
            if found.monitor == WELL or asyncio.get_running_loop().time() > until:
                return found
            await asyncio.sleep(PAUSE)


healthy = Waits()


def _health(one: Endpoint) -> Health:
    shown = one.properties
    if shown is None:
        return Health(name=str(one.name), status="")
    return Health(
        name=str(one.name),
        status=_plain(shown.endpoint_status),
        weight=shown.weight,
        monitor=_plain(shown.endpoint_monitor_status),
    )


def _plain(value: object) -> str:
    return str(getattr(value, "value", value) or "")


async def _look(spec: TrafficSpec) -> Profile:
    async def call(session: Session) -> Profile:
        return await session.traffic.profiles.get(spec.at.resource_group, spec.profile)

    return await asked(spec.at, spec.field, call)


def _endpoints(spec: TrafficSpec, found: Profile) -> dict[str, Endpoint]:
    """Return the endpoint of each site. Raises Invalid naming the site whose endpoint the profile does not have."""
    shown = found.properties
    there = {str(one.name).lower(): one for one in (shown.endpoints if shown else None) or ()}
    for site, name in spec.sites.items():
        if name.lower() not in there:
            known = ", ".join(sorted(there)) or "none"
            raise Invalid(f"directors.{spec.system}.sites.{site}: the profile has no endpoint {name}; it has: {known}")
    return {site: there[name.lower()] for site, name in spec.sites.items()}


def _shares(spec: TrafficSpec, endpoints: dict[str, Endpoint]) -> Shares:
    seen = {site: _health(one) for site, one in endpoints.items()}
    return Shares.of({site: Lot(status=one.status, weight=one.weight) for site, one in seen.items()})


async def _write(spec: PointSpec, here: Shares, there: Shares) -> None:
    await _claim(spec)
    endpoints = _endpoints(spec, await _look(spec))
    now = _shares(spec, endpoints).sites
    if any(lot not in (here.sites[site], there.sites[site]) for site, lot in now.items()):
        raise Drifted(f"{spec.system}: somebody else has just changed an endpoint; nothing was overwritten")
    for site in sorted(there.sites, key=lambda site: there.sites[site].status == ON):
        if now[site] != there.sites[site]:
            await _set(spec, endpoints[site], there.sites[site])


async def _set(spec: PointSpec, endpoint: Endpoint, lot: Lot) -> None:
    kind, name = str(endpoint.type).rpartition("/")[2], str(endpoint.name)
    changed: dict[str, Any] = {"endpointStatus": lot.status} | ({"weight": lot.weight} if lot.weight else {})
    body: Any = {"properties": changed}

    async def call(session: Session) -> None:
        await session.traffic.endpoints.update(spec.at.resource_group, spec.profile, kind, name, body)

    await asked(spec.at, spec.field, call)


async def _claim(spec: PointSpec) -> None:
    """Write into a tag of the profile that this hand is the last, unless a later one was. Raises Stale."""
    if (number := own(spec.system)) is None:
        return
    tags = dict((await _look(spec)).tags or {})
    if not later(spec.system, tags.get(MARK, ""), number, spec.field):
        return
    body: Any = {"tags": tags | {MARK: " ".join(map(str, number))}}

    async def call(session: Session) -> None:
        await session.traffic.profiles.update(spec.at.resource_group, spec.profile, body)

    await asked(spec.at, spec.field, call)
