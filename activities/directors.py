"""Which looks and actions a director takes, by its kind: the one place that tells these from each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from activities import director as caddy
from activities import dns_director as dns
from activities import haproxy
from activities import traffic_manager as azure
from activities.dns_zones import RecordSpec
from activities.pointing import Sighted
from recovery.actions import Action, Probe, Spec
from runbooks.schema import Caddy, Director, Dns, HAProxy, Host, TrafficManager

Look: TypeAlias = tuple[Probe[Any, Any], Spec]
"""A look, and what it looks at."""
Act: TypeAlias = tuple[Action[Any, Any], Spec]
"""An action, and what it acts on."""
SLACK = 10
"""Seconds in which resolvers are to answer anew once a TTL is over."""


@dataclass(frozen=True)
class Front:
    """A director of the estate, whatever its kind; ``hosts`` are those of the estate, ``run`` is the recovery."""

    name: str
    director: Director
    hosts: Mapping[str, Host]
    run: str

    def seen(self) -> Look:
        """Return how to look at it: what that shows is a ``Sighted``."""
        match self.director:
            case HAProxy() as one:
                return haproxy.look_at_backend, haproxy.BackendSpec.of(
                    self.name, one, self.hosts[one.host], run=self.run
                )
            case Dns() as one:
                return dns.look_at_record, RecordSpec.of(self.name, one)
            case TrafficManager() as one:
                return azure.see_traffic, azure.TrafficSpec.of(self.name, one)
            case Caddy() as one:
                return caddy.look_at_director, caddy.DirectorSpec.of(self.name, one)

    def point(self, site: str) -> Act:
        """Return how to point it at ``site``, "" at nobody: its states are each a ``Pointing``."""
        match self.director:
            case HAProxy() as one:
                spec = haproxy.PointBackend.of(self.name, one, self.hosts[one.host], site=site, run=self.run)
                return haproxy.point_backend, spec
            case Dns() as one:
                return dns.point_record, dns.PointRecord.of(self.name, one, site=site)
            case TrafficManager() as one:
                weighs = {site: one.weights[site]} if site in one.weights else {}
                return azure.point_traffic, azure.PointSpec.of(
                    self.name, one, site="" if weighs else site, weights=weighs
                )
            case Caddy() as one:
                return caddy.point, caddy.Point.of(self.name, one, site=site)

    def drained(self, site: str, seconds: int) -> Look | None:
        """Return what to wait for, up to ``seconds``, once it points at nobody and not at ``site`` any more.

        What resolvers were told of ``site`` cannot be called back: there the TTL of a recovery is waited out. Whom
        Traffic Manager sent there nobody can ask: those are refused by the site itself until they ask anew.
        """
        match self.director:
            case HAProxy() as one:
                more = {"site": site, "seconds": seconds, "run": self.run}
                return haproxy.backend_drained, haproxy.DrainBackend.of(self.name, one, self.hosts[one.host], **more)
            case Dns() as one:
                return dns.resolves, dns.Resolve.of(self.name, one, site="", least=one.ttl, most=SLACK)
            case TrafficManager():
                return None
            case Caddy() as one:
                return caddy.drained, caddy.Drain.of(self.name, one, site=site, seconds=seconds)

    def told(self, site: str) -> Look | None:
        """Return how to see that clients are told of ``site`` by now; None where that is so at once."""
        match self.director:
            case Dns() as one:
                return dns.resolves, dns.Resolve.of(self.name, one, site=site, most=one.ttl + SLACK)
            case TrafficManager() as one:
                return azure.healthy, azure.Await.of(self.name, one, site=site)
        return None

    def keep_for(self, seconds: int) -> Act | None:
        """Return how to have clients keep for so many seconds what they are told; None where they ask anew anyway."""
        if isinstance(self.director, Dns):
            return dns.set_ttl, dns.KeepFor.of(self.name, self.director, seconds=seconds)
        return None

    def lowered(self, seen: Sighted) -> int:
        """Return for how many seconds clients are to keep what they are told while a recovery lasts."""
        kept = self.kept(seen)
        return min(kept, self.director.ttl) if isinstance(self.director, Dns) else kept

    def kept(self, seen: Sighted) -> int:
        """Return for how many seconds clients may still keep what they were told before now."""
        return seen.pointed.ttl if isinstance(seen, dns.RecordSeen) else 0

    def usual(self, seen: Sighted) -> int:
        """Return for how many seconds they keep it outside of recoveries."""
        return seen.usual if isinstance(seen, dns.RecordSeen) else 0
