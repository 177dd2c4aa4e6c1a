"""Everything that a lab can have at once: four directors, machines, workloads of clusters, and an Alertmanager."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from activities.nodes import MARK
from lab.addresses import other
from lab.estate import Lab
from lab.kubernetes import Kubernetes
from tests.alertmanagers import ESTATE, Alertmanager, alertmanager
from tests.fronts import Fronts, fronts
from tests.workloads import DOWN, UP, At, author, deployed_at

CORDONED = {"spec": {"unschedulable": True}, "metadata": {"annotations": {MARK: "the recovery before this one"}}}


@dataclass
class Furnishing:
    """What surrounds a lab; both of its sites share one control plane, each with a workload and a node of its own."""

    fronts: Fronts
    webs: dict[str, At]
    alerts: Alertmanager

    def shown(self) -> dict[str, object]:
        """Return where directors point, how workloads and nodes stand, and how many silences do."""
        webs = {site: at.stands() for site, at in self.webs.items()}
        return {"fronts": self.fronts.points(), "webs": webs, "silences": len(self.alerts.silences())}

    def proper(self, site: str) -> dict[str, object]:
        """Return the same as it has to be where ``site`` is active, and no recovery lasts."""
        # Nodes that were opened for a move which went back stay open.
        down = {name: value for name, value in DOWN.items() if name != "cordoned"}
        return {"fronts": self.fronts.at(site), "webs": {site: UP, other(site): down}, "silences": 0}

    def author(self, folder: Path) -> None:
        """Write all of it into the lab's catalog in ``folder``, which is copied there unless it is there already."""
        self.fronts.author(folder)
        author(folder, self.webs)
        file = folder / "estate.yaml"
        estate = yaml.safe_load(file.read_text()) | {"alerting": {"alerts": {"url": self.alerts.url, **ESTATE}}}
        file.write_text(yaml.safe_dump(estate))
        for file in folder.glob("*.yaml"):
            runbook = yaml.safe_load(file.read_text())
            if "front" in runbook.get("systems", ()):
                runbook["systems"].append("alerts")
                file.write_text(yaml.safe_dump(runbook))


@contextlib.asynccontextmanager
async def furnished(lab: Lab, cluster: Kubernetes, folder: Path, usual: int) -> AsyncIterator[Furnishing]:
    """Run all of it for a lab that is up and whose north is active; ``folder`` is made for it."""
    (folder / "alerts").mkdir(parents=True)
    with alertmanager(folder / "alerts") as alerts, deployed_at({"north": cluster, "south": cluster}) as webs:
        cluster.ask("PATCH", f"/api/v1/nodes/{webs['south'].node}", CORDONED)
        async with fronts(lab, folder / "fronts", usual) as found:
            yield Furnishing(found, webs, alerts)
