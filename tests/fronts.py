"""What a lab can have in front of its two sites and beneath them: four kinds of directors, and a machine at each."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.azure import GROUP, SUBSCRIPTION
from lab.estate import Lab
from lab.place import SITES, runner
from tests.azures import Cloud, cloud
from tests.haproxies import HAProxy, haproxy
from tests.knots import NOBODY, NORTH, SOUTH, Knot, Unbound, running
from tests.running import ROOT

LOWERED = 1
"""Seconds for which the record is kept while a recovery lasts."""
RECORDS = {"north": NORTH, "south": SOUTH}
WEIGHTS = {"north": 10, "south": 40}
"""What the endpoint of each site weighs while that serves."""
MACHINES = {"north": "spare", "south": "orders"}
"""What the machine of each site, vm-north and vm-south, is called at Azure."""


@dataclass
class Fronts:
    """A lab behind Caddy, HAProxy, DNS and Azure's Traffic Manager; what serves at each site needs a machine."""

    lab: Lab
    edge: HAProxy
    knot: Knot
    cache: Unbound
    azure: Cloud
    usual: int
    """Seconds for which the record is kept outside of recoveries."""

    def points(self) -> dict[str, object]:
        """Return where each director points, as it shows itself, with the record's TTL."""
        return {
            "front": self.lab.director.site(),
            "edge": [name for name, bits in self.edge.servers().items() if not bits & 1],
            "kept": [name for name, bits in (self.edge.kept() or {}).items() if not bits & 1],
            "www": self.knot.records()["shop A"],
            "azure": {name: weight for name, (status, weight) in self.azure.shares().items() if status == "Enabled"},
        }

    def at(self, site: str) -> dict[str, object]:
        """Return the same for all at one site, once the TTL is restored."""
        www = [f"{self.usual} {RECORDS[site]}"]
        return {"front": site, "edge": [site], "kept": [site], "www": www, "azure": {site: WEIGHTS[site]}}

    def rest(self, site: str) -> None:
        """Have the machine of a site not run."""
        self.azure.machines[MACHINES[site]].power = "deallocated"

    def author(self, folder: Path) -> None:
        """Write all of it into the lab's catalog in ``folder``, which is copied there unless it is there already."""
        if not folder.exists():
            shutil.copytree(ROOT / "runbooks" / "lab", folder)
        file = folder / "estate.yaml"
        estate = yaml.safe_load(file.read_text())
        estate["directors"] |= self._directors()
        estate["machines"] = {
            f"vm-{site}": {"site": site, "name": name, **self._arm()} for site, name in MACHINES.items()
        }
        for site in SITES:
            estate["services"][f"orders-app-{site}"]["after"] = [f"vm-{site}"]
        file.write_text(yaml.safe_dump(estate))
        for file in folder.glob("*.yaml"):
            runbook = yaml.safe_load(file.read_text())
            if "front" in runbook.get("systems", ()):
                runbook["systems"] += ["edge", "www", "azure", *estate["machines"]]
                file.write_text(yaml.safe_dump(runbook))

    def _directors(self) -> dict[str, dict[str, Any]]:
        edge, knot, url = self.edge, self.knot, self.lab.director.url
        return {
            "edge": {
                "kind": "haproxy", "host": "south-db", "socket": f"{edge.folder}/admin.sock", "backend": "orders",
                "sites": {site: site for site in SITES}, "state": str(edge.state),
                "configuration": f"{edge.folder}/haproxy.cfg", "url": edge.url,
            },
            "www": {
                "kind": "dns", "server": knot.address, "zone": "example.test", "record": "shop.example.test",
                "sites": dict(RECORDS), "nobody": NOBODY, "ttl": LOWERED, "url": url,
                "key": {"name": "recovery", "secret": f"{knot.folder}/recovery.key"},
                "resolvers": [knot.address, self.cache.address],
            },
            "azure": {
                "kind": "traffic-manager", "profile": "front", "sites": {site: f"{site}-ep" for site in SITES},
                "weights": dict(WEIGHTS),
                "url": url, **self._arm(),
            },
        }  # fmt: skip

    def _arm(self) -> dict[str, str]:
        return {
            "subscription": SUBSCRIPTION, "resource_group": GROUP, "endpoint": self.azure.endpoint,
            "ca": str(self.azure.ca),
        }  # fmt: skip


@contextlib.asynccontextmanager
async def fronts(lab: Lab, folder: Path, usual: int) -> AsyncIterator[Fronts]:
    """Run all of it before a lab that is up and whose north is active; ``folder`` is made for it."""
    parts = [folder / name for name in ("knot", "cache", "azure")]
    for one in parts:
        one.mkdir(parents=True)
    knot = Knot(parts[0], ttl=usual)
    cache = Unbound(parts[1], knot)
    at = {site: lab.sites[site].port("orders") for site in SITES}
    with (
        tempfile.TemporaryDirectory(prefix="edge-") as edges,
        haproxy(Path(edges), runner(), at) as edge,
        running(knot),
        running(cache),
    ):
        edge.state.write_text(edge.tell("show servers state"))  # as whoever configured it leaves it
        runner().own(edge.state)
        async with cloud(parts[2]) as azure:
            yield Fronts(lab, edge, knot, cache, azure, usual)
