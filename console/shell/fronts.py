"""How directors are looked at and pointed by hand: Caddy by its admin API, any other one by whoever sits there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterator
from typing import Protocol

from runbooks.schema import Caddy, Director, Dns, HAProxy, TrafficManager


class Front(Protocol):
    """The lines of shell of one director, for each step."""

    def look(self) -> Iterator[str]:
        """Yield how it is looked at; the answer goes to a file."""

    def sound(self, site: str) -> Iterator[str]:
        """Yield what has to be so if it points at ``site``."""

    def found(self) -> Iterator[str]:
        """Yield how what undoing needs is kept."""

    def shut(self) -> Iterator[str]:
        """Yield what points it at nobody."""

    def drain(self, site: str, seconds: int) -> Iterator[str]:
        """Yield what waits for those who are in at ``site``."""

    def open(self, site: str) -> Iterator[str]:
        """Yield what points it at ``site``."""

    def back(self) -> Iterator[str]:
        """Yield what points it where it pointed."""


class ByAdmin:
    """Caddy."""

    def __init__(self, name: str, one: Caddy) -> None:
        self.name, self.one = name, one
        self.api = shlex.quote(one.admin.rstrip("/"))
        self.kept = "POINTS_" + re.sub(r"\W", "_", name)

    def look(self) -> Iterator[str]:
        """Yield how it is looked at; the answer goes to a file."""
        yield f'director {self._at()} >"$WORK/{self.name}.seen"'

    def sound(self, site: str) -> Iterator[str]:
        """Yield what has to be so if it points at ``site``."""
        dial = f'"dial":"{self._dial(site)}"'
        advice = f"{self.name} does not point at {site}; see who moved it"
        found = f'"$(grep -o \'{dial}\' "$WORK/{self.name}.seen")"'
        yield f"must {found} {shlex.quote(dial)} {shlex.quote(advice)}"

    def found(self) -> Iterator[str]:
        """Yield how what undoing needs is kept."""
        kept = f"""$(sed 's/"upstreams"://' "$WORK/{self.name}.seen")"""
        yield f"""    printf "{self.kept}='%s'\\n" "{kept}\""""

    def shut(self) -> Iterator[str]:
        """Yield what points it at nobody."""
        yield f"point {self._at()} '[]'"

    def drain(self, site: str, seconds: int) -> Iterator[str]:
        """Yield what waits for those who are in at ``site``."""
        yield f"began=$(date +%s)\nuntil idle {self.api} {self._dial(site)} ||"
        yield f"    [ $(($(date +%s) - began)) -ge {seconds} ]; do sleep 0.2; done"

    def open(self, site: str) -> Iterator[str]:
        """Yield what points it at ``site``."""
        upstreams = json.dumps([{"dial": self._dial(site)}], separators=(",", ":"))
        yield f"point {self._at()} {shlex.quote(upstreams)}"

    def back(self) -> Iterator[str]:
        """Yield what points it where it pointed."""
        yield f'point {self._at()} "${self.kept}"'

    def _at(self) -> str:
        return f"{self.api} {shlex.quote(self.one.server)}"

    def _dial(self, site: str) -> str:
        at = self.one.sites[site]
        return f"{at.address}:{at.port}"


class ByPeople:
    """HAProxy and DNS: the page says what to do, and waits until that was done."""

    def __init__(self, name: str, one: HAProxy | Dns) -> None:
        self.name, self.one = name, one

    def look(self) -> Iterator[str]:
        """Yield how it is looked at; the answer goes to a file."""
        if isinstance(self.one, HAProxy):
            how = f"on {self.one.host}: echo 'show servers state {self.one.backend}' | {self._socat()}"
        else:
            how = f"ask {self.one.server} for {self.one.record} {self.one.type}"
        yield from self._asked(f"look where {self.name} points, and write it down: {how}")
        yield f'echo "written down by who looked" >"$WORK/{self.name}.seen"'

    def sound(self, site: str) -> Iterator[str]:
        """Yield what has to be so if it points at ``site``."""
        yield from self._asked(f"go on only if {self.name} points at {site}: {self._says(site)}")

    def found(self) -> Iterator[str]:
        """Yield nothing: people have written it down."""
        yield from ()

    def shut(self) -> Iterator[str]:
        """Yield what points it at nobody."""
        yield from self._asked(f"point {self.name} at nobody: {self._do('')}")

    def drain(self, site: str, seconds: int) -> Iterator[str]:
        """Yield what waits for those who are in at ``site``."""
        yield f"sleep {seconds if isinstance(self.one, HAProxy) else self.one.ttl}"

    def open(self, site: str) -> Iterator[str]:
        """Yield what points it at ``site``."""
        yield from self._asked(f"point {self.name} at {site}: {self._do(site)}")

    def back(self) -> Iterator[str]:
        """Yield what points it where it pointed."""
        yield from self._asked(f"point {self.name} where it pointed, as you wrote it down")

    def _asked(self, what: str) -> Iterator[str]:
        yield f"asked {shlex.quote(what)}"

    def _says(self, site: str) -> str:
        if isinstance(self.one, HAProxy):
            return (
                f"{', '.join(self.one.sites[site])} of {self.one.backend}, and no other server, is not in maintenance"
            )
        return f"{self.one.record} {self.one.type} is {self.one.sites[site]}"

    def _do(self, site: str) -> str:
        one = self.one
        if isinstance(one, Dns):
            value = one.sites[site] if site else one.nobody
            return (
                f"nsupdate -k {one.key.secret}, then: server {one.server.replace(':', ' ')}; zone {one.zone};"
                f" update delete {one.record} {one.type}; update add {one.record} {one.ttl} {one.type} {value}; send"
            )
        others = [name for at, names in one.sites.items() if at != site for name in names]
        sets = [f"set server {one.backend}/{name} state maint" for name in others]
        sets += [f"set server {one.backend}/{name} state ready" for name in one.sites.get(site, ())]
        keep = f"echo 'show servers state' | {self._socat()} >{one.state}"
        return f"on {one.host}: echo '{'; '.join(sets)}' | {self._socat()}; {keep}"

    def _socat(self) -> str:
        return f"socat - {self.one.socket}" if isinstance(self.one, HAProxy) else ""


class ByPortal:
    """Azure's Traffic Manager: the page says which endpoints to enable, by az or in the portal."""

    def __init__(self, name: str, one: TrafficManager) -> None:
        self.name, self.one = name, one
        self.profile = (
            f"--subscription {one.subscription} --resource-group {one.resource_group} --profile-name {one.profile}"
        )

    def look(self) -> Iterator[str]:
        """Yield how it is looked at; the answer goes to a file."""
        how = f"az network traffic-manager endpoint list {self.profile} --output table"
        yield f"asked {shlex.quote(f'look where {self.name} points, and write it down: {how}')}"
        yield f'echo "written down by who looked" >"$WORK/{self.name}.seen"'

    def sound(self, site: str) -> Iterator[str]:
        """Yield what has to be so if it points at ``site``."""
        what = f"go on only if of {self.name} the endpoint {self.one.sites[site]}, and no other, is enabled"
        yield f"asked {shlex.quote(what)}"

    def found(self) -> Iterator[str]:
        """Yield nothing: people have written it down."""
        yield from ()

    def shut(self) -> Iterator[str]:
        """Yield what points it at nobody."""
        yield f"asked {shlex.quote(f'point {self.name} at nobody: {self._do({})}')}"

    def drain(self, site: str, seconds: int) -> Iterator[str]:
        """Yield nothing: whom it has sent to ``site`` nobody can ask."""
        yield from ()

    def open(self, site: str) -> Iterator[str]:
        """Yield what points it at ``site``."""
        yield f"asked {shlex.quote(f'point {self.name} at {site}: {self._do({site})}')}"

    def back(self) -> Iterator[str]:
        """Yield what points it where it pointed."""
        yield f"asked {shlex.quote(f'point {self.name} where it pointed, as you wrote it down')}"

    def _do(self, sites: Collection[str]) -> str:
        """Return what enables the endpoints of ``sites``, and first disables the others."""
        weighs = {site: f" --weight {weight}" for site, weight in self.one.weights.items()}
        wanted = {
            one: f"Enabled{weighs.get(site, '')}" if site in sites else "Disabled"
            for site, one in self.one.sites.items()
        }
        return "; ".join(
            f"az network traffic-manager endpoint update {self.profile} -t TYPE -n {name} --endpoint-status {status}"
            for name, status in sorted(wanted.items(), key=lambda found: found[1])
        )


def front(name: str, director: Director) -> Front:
    """Return the lines for a director, by its kind."""
    match director:
        case Caddy():
            return ByAdmin(name, director)
        case TrafficManager():
            return ByPortal(name, director)
        case HAProxy() | Dns():
            return ByPeople(name, director)
