"""The lab's cluster has a storefront; a version of it that does not come up is rolled back by the lab's runbook."""

from __future__ import annotations

from typing import Any

import pytest

from lab.estate import Lab
from lab.kubernetes import Kubernetes
from lab.place import LabError
from lab.storefront import PATHS
from tests.clusters import assets
from tests.conftest import FreshLab
from tests.running import Recovery, Running, eventually, running


def shown(cluster: Kubernetes) -> tuple[str, int]:
    """Return which image is wanted, and how many pods of the newest kind are there to serve."""
    found: dict[str, Any] = cluster.ask("GET", f"{PATHS['Deployment']}/storefront")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    status = found.get("status", {})
    return container["image"], min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))


async def started(engine: Running, mode: str) -> Recovery:
    given = {"runbook": "lab/roll-back-storefront", "reason": "it does not come up", "requested_by": "alice"}
    given |= {"mode": mode, "parameters": {"deployment": "opened-3"}}  # type: ignore[dict-item]
    handle = await engine.client.start_workflow(
        "ConfigurationRollback", given, id=f"lab/storefront{'/check' if mode == 'check' else ''}",
        task_queue=engine.settings.task_queue,
    )  # fmt: skip
    return Recovery(handle)


@pytest.mark.drawn
async def test_storefront_that_does_not_come_up_is_rolled_back(fresh_lab: FreshLab) -> None:
    assets()
    lab = fresh_lab()
    lab.up(load=False, cluster=True)
    cluster = lab.cluster
    assert cluster is not None
    await eventually(lambda: shown(cluster) == ("storefront:2", 2), "the storefront is open", 60)
    lab.break_("storefront")
    async with running(lab) as engine:
        report = await (await started(engine, "check")).ended(60)
        assert (report.outcome, report.blockers) == ("checked", ()), report.failure
        assert "not well now: cluster (deployment/storefront" in str(report.gates[0].shown)
        assert shown(cluster)[0] == "storefront:broken"
        recovery = await started(engine, "live")
        await recovery.approve()
        report = await recovery.ended(120)
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    assert shown(cluster) == ("storefront:2", 2)
    assert lab.storefront is not None
    (text,) = lab.storefront.repository.files().values()
    assert b"storefront:2" in text


def test_without_a_cluster_there_is_no_storefront(lab: Lab) -> None:
    with pytest.raises(LabError, match="needs a cluster"):
        lab.break_("storefront")
