"""A switch whose cluster, worker or people fail it in the middle of scaling, opening or draining.

Both sites share one control plane, which each reaches by a front of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
import yaml

from lab.cluster_access import NAMESPACE
from lab.estate import Lab
from lab.kubernetes import Kubernetes
from recovery.report import Report
from tests.clusters import through
from tests.labs import lab_apart
from tests.matrix.relay import Relay, relay
from tests.running import Recovery, Running, eventually, running
from tests.switches import activate
from tests.workflows.test_cluster_activation import BUDGETS, GUARD, guarded
from tests.workloads import DOWN, UP, At, author, deployed_at

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]
NODES, SCALES = b"PATCH /api/v1/nodes/", b"PATCH /apis/apps/v1/"
MARK = "0a1b2c3d"


@dataclass(frozen=True)
class Ground:
    """Two sites, of which north is active at the beginning and the end of each test."""

    lab: Lab
    engine: Running
    webs: dict[str, At]
    fronts: dict[str, Relay]
    systems: tuple[str, ...]

    async def begun(self, site: str) -> Recovery:
        """Have a site be activated, as far as the gate and its approval."""
        recovery = await activate(self.engine, site)
        await recovery.approve()
        return recovery

    async def recovered(self, recovery: Recovery, site: str) -> None:
        """Assert that a site came to be active, and the other one to stand still."""
        report = await recovery.ended(180)
        assert (report.outcome, report.residual) == ("recovered", ()), (report.failure, self.engine.log()[-3000:])
        other = "north" if site == "south" else "south"
        assert {name: at.stands() for name, at in self.webs.items()} == {site: UP, other: DOWN}
        assert self.lab.director.site() == site

    async def home(self) -> None:
        """Have north be active again."""
        await self.recovered(await self.begun("north"), "north")

    async def at_north(self) -> None:
        """Assert that north serves, and nothing runs at south."""
        await eventually(lambda: self.webs["north"].stands() == UP, "it serves at north")
        await eventually(lambda: self.webs["south"].stands()["pods"] == 0, "nothing runs at south")
        assert self.webs["south"].live()["spec"]["replicas"] == 0
        assert self.lab.director.site() == "north"

    async def freed(self) -> None:
        """Have people let go what a recovery has left in hand that went past the point of no return."""
        for system in self.systems:
            await self.engine.freed(f"lab/{system}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(cluster: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    """Have one worker; while clients are shut out people are asked at once."""
    folder = tmp_path_factory.mktemp("catalogs")
    port, certificate = cluster.ports["kubernetes"], cluster.access.certificate
    with lab_apart() as lab, deployed_at({"north": cluster, "south": cluster}) as webs:
        lab.up(south=True, rate=20)
        async with relay(port, certificate=certificate) as north, relay(port, certificate=certificate) as south:
            fronts = {"north": north, "south": south}
            author(folder / "lab", webs, queued=False)
            file = folder / "lab" / "estate.yaml"
            estate = yaml.safe_load(file.read_text())
            for site, front in fronts.items():
                at = through(cluster, front.port, folder / f"{site}.kubeconfig")
                estate["clusters"][f"cluster-{site}"]["kubeconfig"] = at.kubeconfig
            file.write_text(yaml.safe_dump(estate))
            planned = folder / "lab" / "activate-south.yaml"
            runbook = yaml.safe_load(planned.read_text())
            runbook["hold"]["dark_within"] = "PT10S"
            planned.write_text(yaml.safe_dump(runbook))
            async with running(lab, RECOVERY_CATALOGS=str(folder)) as engine:
                yield Ground(lab, engine, webs, fronts, tuple(runbook["systems"]))


@pytest.fixture
def opened(ground: Ground) -> Relay:
    """Return the front of south, whose node a recovery has cordoned: nothing that opens it goes through."""
    ground.webs["south"].cordon(MARK)
    ground.fronts["south"].hold(NODES)
    return ground.fronts["south"]


def let_go(at: At) -> None:
    """Have the budget that guards a pod let it go."""
    at.cluster.ask("PATCH", f"{BUDGETS}/{GUARD}", {"spec": {"minAvailable": 0}})


def guards(at: At) -> list[str]:
    """Return the guarded pods on the node of a site."""
    found = at.cluster.ask("GET", f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app%3D{GUARD}")["items"]
    return [one["metadata"]["name"] for one in found if one["spec"].get("nodeName") == at.node]


async def drains(ground: Ground, site: str) -> None:
    """Wait until the node of a site is cordoned, and its pods are evicted as far as that is let."""
    await eventually(ground.webs[site].cordoned, f"the node of {site} is cordoned", 90)


def states(report: Report, title: str) -> list[str]:
    return [line.state for line in report.steps if line.title == title]


async def test_worker_killed_while_nodes_are_opened_and_while_they_are_drained(ground: Ground, opened: Relay) -> None:
    recovery = await ground.begun("south")
    await opened.met.wait()
    ground.engine.kill_worker()
    opened.release()
    with guarded(ground.webs["north"]):
        ground.engine.start_worker()
        await drains(ground, "north")
        ground.engine.kill_worker()
        assert guards(ground.webs["north"])
        let_go(ground.webs["north"])
        ground.engine.start_worker()
        await ground.recovered(recovery, "south")
        assert not guards(ground.webs["north"])
    await ground.home()


async def test_cancelled_again_while_nodes_are_opened_goes_back(ground: Ground, opened: Relay) -> None:
    recovery = await ground.begun("south")
    await opened.met.wait()
    for _ in range(2):
        await recovery.handle.cancel()
    opened.release()
    report = await recovery.ended()
    assert (report.outcome, report.residual, report.committed) == ("cancelled", (), None), report.failure
    await ground.at_north()
    assert not ground.webs["north"].cordoned()


async def test_cancelled_again_while_nodes_are_drained_evicts_nothing_more(ground: Ground) -> None:
    """Clients are in: nothing leads back. What was cordoned stays so, with its pods, until its site is active again."""
    north = ground.webs["north"]
    with guarded(north):
        recovery = await ground.begun("south")
        await drains(ground, "north")
        for _ in range(2):
            await recovery.handle.cancel()
        report = await recovery.ended()
        assert report.outcome == "cancelled"
        assert report.residual[0].startswith("past the point of no return (")
        assert states(report, "drain the nodes of cluster-north") == ["failed"]
        assert "undone" not in {line.state for line in report.steps}
        left = guards(north)
        let_go(north)
        assert (ground.webs["south"].stands(), north.stands()) == (UP, DOWN)
        await ground.freed()
        await ground.home()
        assert left == guards(north)


async def test_cluster_that_falls_silent_while_it_is_scaled_is_named_and_all_goes_back(ground: Ground) -> None:
    front = ground.fronts["north"]
    front.hold(SCALES)
    recovery = await ground.begun("south")
    await front.met.wait()
    front.hold()
    hold = (await recovery.until("hold", 60)).hold
    assert hold is not None
    assert (hold.step, hold.answers) == ("scale web-north to 0", ("retry", "take over", "compensate"))
    assert "the API server of cluster-north cannot be reached (" in hold.why
    front.release()  # what was under way has its effect now
    await recovery.resolve("compensate")
    report = await recovery.ended()
    assert (report.outcome, report.residual) == ("compensated", ()), report.failure
    await ground.at_north()


@pytest.mark.soak  # people are asked after a minute
async def test_cluster_that_falls_silent_while_it_is_drained_is_named_and_may_be_skipped(ground: Ground) -> None:
    front = ground.fronts["north"]
    front.hold(NODES)
    recovery = await ground.begun("south")
    await front.met.wait()
    front.hold()
    hold = (await recovery.until("hold", 120)).hold
    assert hold is not None
    assert (hold.step, hold.answers) == ("drain the nodes of cluster-north", ("retry", "skip"))
    assert "the API server of cluster-north cannot be reached (" in hold.why
    front.release()
    await recovery.resolve("retry")
    await ground.recovered(recovery, "south")
    await ground.home()
