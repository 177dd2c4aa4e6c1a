"""What the lab's Azure has: machines, profiles with their endpoints, and operations, as its answers show them."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass, field
from typing import Any

LOCATION = "westeurope"
SIZE = "Standard_D2s_v5"
REGIONAL = "cores"
"""What Azure calls the vCPUs of all families in a region."""


@dataclass
class Sku:
    """A size of machines; ``barred`` are zones in which the subscription gets none, "" for the whole region."""

    family: str
    cores: int
    barred: tuple[str, ...] = ()

    def body(self, name: str) -> dict[str, Any]:
        """Return it as the list of sizes shows it."""
        zones = [one for one in self.barred if one]
        kinds = (["Location"] if "" in self.barred else []) + (["Zone"] if zones else [])
        restrictions = [
            {
                "type": kind, "values": [LOCATION], "reasonCode": "NotAvailableForSubscription",
                "restrictionInfo": {"locations": [LOCATION], "zones": zones if kind == "Zone" else []},
            }
            for kind in kinds
        ]  # fmt: skip
        return {
            "resourceType": "virtualMachines", "name": name, "family": self.family, "locations": [LOCATION],
            "capabilities": [{"name": "vCPUs", "value": str(self.cores)}], "restrictions": restrictions,
        }  # fmt: skip


SIZES = {
    SIZE: Sku("standardDSv5Family", 2),
    "Standard_D4s_v5": Sku("standardDSv5Family", 4),
    "Standard_E2s_v5": Sku("standardESv5Family", 2),
    "Standard_E4s_v5": Sku("standardESv5Family", 4),
    "Standard_B1s": Sku("standardBSFamily", 1),
}


@dataclass
class Operation:
    """A long operation: ``error`` is the code of its failure."""

    id: str
    status: str = "InProgress"
    error: str = ""

    def body(self) -> dict[str, Any]:
        """Return it as its URL shows it."""
        said = {"code": self.error, "message": f"The operation failed ({self.error})."}
        return {"name": self.id, "status": self.status, **({"error": said} if self.error else {})}


@dataclass
class Machine:
    """A virtual machine."""

    name: str
    power: str = "deallocated"
    size: str = SIZE
    zone: str = "1"
    tags: dict[str, str] = field(default_factory=dict)
    etag: int = 1
    provisioning: str = "Succeeded"
    failed: str = ""
    changed: float = field(default_factory=time.time)
    starts: int = 0

    def body(self, viewed: bool) -> dict[str, Any]:
        """Return it as a GET shows it."""
        properties: dict[str, Any] = {
            "hardwareProfile": {"vmSize": self.size}, "provisioningState": self.provisioning, "vmId": self.name,
        }  # fmt: skip
        if viewed:
            properties["instanceView"] = self.view()
        base = {"name": self.name, "location": LOCATION, "type": "Microsoft.Compute/virtualMachines"}
        return {**base, "tags": self.tags, "zones": [self.zone], "etag": f'"{self.etag}"', "properties": properties}

    def view(self) -> dict[str, Any]:
        """Return its instance view."""
        at = datetime.datetime.fromtimestamp(self.changed, datetime.UTC).isoformat()
        code = "/".join(["ProvisioningState", self.provisioning.lower(), *filter(None, [self.failed])])
        power = {"code": f"PowerState/{self.power}", "level": "Info", "displayStatus": f"VM {self.power}"}
        return {"statuses": [{"code": code, "level": "Error" if self.failed else "Info", "time": at}, power]}


@dataclass
class Endpoint:
    """An endpoint of a profile; ``health`` is what its monitor finds where the endpoint is enabled."""

    name: str
    status: str = "Enabled"
    weight: int = 1
    health: str = "Online"
    kind: str = "externalEndpoints"

    def body(self) -> dict[str, Any]:
        """Return it as a GET shows it."""
        monitor = self.health if self.status == "Enabled" else "Disabled"
        properties = {"endpointStatus": self.status, "weight": self.weight, "endpointMonitorStatus": monitor}
        return {
            "name": self.name, "type": f"Microsoft.Network/trafficManagerProfiles/{self.kind}",
            "properties": properties | {"target": f"{self.name}.example.com"},
        }  # fmt: skip


@dataclass
class Profile:
    """A Traffic Manager profile."""

    name: str
    endpoints: dict[str, Endpoint]
    status: str = "Enabled"
    method: str = "Weighted"
    tags: dict[str, str] = field(default_factory=dict)
    ttl: int = 60

    def body(self) -> dict[str, Any]:
        """Return it as a GET shows it."""
        found = [one.body() for one in self.endpoints.values()]
        states = {one["properties"]["endpointMonitorStatus"] for one in found} - {"Disabled"}
        monitor = "Disabled" if self.status == "Disabled" else "Inactive" if not states else "Online"
        monitor = "Degraded" if states - {"Online"} and monitor == "Online" else monitor
        properties = {
            "profileStatus": self.status, "trafficRoutingMethod": self.method, "endpoints": found,
            "dnsConfig": {"relativeName": self.name, "fqdn": f"{self.name}.trafficmanager.net", "ttl": self.ttl},
            "monitorConfig": {"profileMonitorStatus": monitor, "protocol": "HTTPS", "port": 443, "path": "/"},
        }  # fmt: skip
        return {"name": self.name, "location": "global", "tags": self.tags, "properties": properties}
