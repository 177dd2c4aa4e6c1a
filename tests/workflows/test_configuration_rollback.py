"""ConfigurationRollback on a real repository and machines with real files: it goes back, or everything stays."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from activities.ssh import HostAt
from lab.estate import Lab
from recovery.report import Report
from tests.matrix.relay import Relay, relay
from tests.running import Recovery, Running, eventually, running
from tests.shops import Machine, Remote, below, catalog
from tests.stores import lab_host

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

GOOD = {"app.conf": "works well\n", "more/deep.conf": "deep\n"}
BAD = {"app.conf": "broken\n", "more/deep.conf": "deep\n", "new.conf": "new\n"}
NAMES = ("one", "two", "three")
HOLD = {"roles": ["dba"], "within": "PT40S"}


@dataclass
class Shop:
    """A repository with a good and a bad revision, and machines that have the bad one."""

    root: Path
    engine: Running
    name: str
    remote: Remote
    machines: dict[str, Machine]
    hosts: dict[str, HostAt]
    good: str
    bad: str

    def written(self, parameters: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Write its catalog."""
        given = {"canary": ["on-one"], "waves": [1], **(parameters or {})}
        catalog(self.root, self.name, self.remote, self.machines, self.hosts, given, **more)

    async def start(self, mode: str = "live", **parameters: Any) -> Recovery:
        """Start the rollback."""
        given = {"runbook": f"{self.name}/back", "reason": "it broke", "mode": mode, "requested_by": "alice"}
        handle = await self.engine.client.start_workflow(
            "ConfigurationRollback", given | {"parameters": parameters or {"revision": self.good}},
            id=f"{self.name}/shop", task_queue=self.engine.settings.task_queue,
        )  # fmt: skip
        return Recovery(handle)

    async def approved(self, **parameters: Any) -> Report:
        """Roll back, with the gate approved."""
        recovery = await self.start(**parameters)
        await recovery.approve()
        return await recovery.ended(90)

    async def checked(self, **parameters: Any) -> Report:
        """Check it."""
        return await (await self.start("check", **parameters)).ended(60)

    def have(self, files: Mapping[str, str]) -> None:
        """Have every machine have exactly these files."""
        for machine in self.machines.values():
            machine.have(files)

    def world(self) -> dict[str, object]:
        """Return what a rollback may change, with times that tell an untouched file from one that is as before."""
        return {
            "tree": self.remote.tree(),
            "notes": self.remote.git("for-each-ref", "refs/notes/deployments"),
            **{
                name: (one.has(), one.rights(), one.loaded, [path.stat().st_mtime_ns for path in one.files()])
                for name, one in self.machines.items()
            },
        }  # fmt: skip

    def everywhere(self, files: Mapping[str, str], loaded: str) -> None:
        """Assert that every machine has exactly these files, and has read them, and that nothing is half done."""
        for machine in self.machines.values():
            assert (machine.has(), machine.loaded) == (files, loaded)
        assert not list(Path(self.hosts["one"].jobs).glob(".configurations/*/pending"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    root = tmp_path_factory.mktemp("catalogs")
    async with running(lab, RECOVERY_CATALOGS=str(root)) as found:
        yield found


@pytest.fixture
def shop(lab: Lab, engine: Running) -> Iterator[Shop]:
    root, name = Path(engine.environment["RECOVERY_CATALOGS"]), f"shop-{secrets.token_hex(3)}"
    folder = lab.place.north / name
    folder.mkdir()
    folder.chmod(0o755)
    remote = Remote.new(folder / "shop.git")
    good, bad = (remote.commit(below("web", files), subject) for files, subject in ((GOOD, "good"), (BAD, "bad")))
    machines = {one: Machine.new(one, folder) for one in NAMES}
    found = Shop(root, engine, name, remote, machines, dict.fromkeys(NAMES, lab_host(lab)), good, bad)
    found.have(BAD)
    yield found
    shutil.rmtree(folder)


@pytest_asyncio.fixture(loop_scope="module")
async def away(lab: Lab, shop: Shop, tmp_path: Path) -> AsyncIterator[Relay]:
    """What stands between the engine and machine two."""
    async with relay(lab.ports["ssh"]) as between:
        known = tmp_path / "known_hosts"
        known.write_text((lab.place.ssh / "known_hosts").read_text().replace(str(lab.ports["ssh"]), str(between.port)))
        shop.hosts["two"] = shop.hosts["two"].model_copy(update={"port": between.port, "known_hosts": str(known)})
        yield between


def figures(report: Report) -> dict[str, object]:
    return {figure.name: figure.value for figure in report.figures}


async def test_bad_revision_goes_back_everywhere(shop: Shop) -> None:
    shop.written()
    before = {name: one.rights()["app.conf"] for name, one in shop.machines.items()}
    report = await shop.approved()
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    shop.everywhere(GOOD, GOOD["app.conf"])
    assert {name: one.rights()["app.conf"] for name, one in shop.machines.items()} == before
    assert shop.remote.tree() == shop.remote.tree(shop.good)
    assert shop.remote.git("rev-parse", "main^") == shop.bad, "the history was rewritten"
    said = shop.remote.git("log", "-1", "--format=%B", "main")
    assert "started by alice, approved by bob" in said
    assert "* why: it broke" in said
    note = shop.remote.git("notes", "--ref=deployments", "show", "main")
    assert '"health": "healthy"' in note
    assert '"well_before": 0, "watched_before": 3, "well_after": 3, "watched_after": 3' in note
    assert figures(report)["targets that are well"] == 3
    diff = report.gates[0].shown[0]["diff"]
    assert all(line in diff for line in ("-broken", "+works well", "deleted file mode 100644"))


async def test_deployment_alone_tells_what_to_do(shop: Shop) -> None:
    shop.remote.deployed(shop.good, "d-1", "healthy")
    shop.remote.deployed(shop.bad, "d-2", "unhealthy")
    shop.written()
    report = await shop.approved(deployment="d-2")
    assert report.outcome == "recovered", report.failure
    shop.everywhere(GOOD, GOOD["app.conf"])


async def test_check_changes_nothing_and_shows_everything(shop: Shop) -> None:
    shop.written()
    before, head = shop.world(), shop.remote.head()
    report = await shop.checked()
    assert (report.outcome, report.blockers) == ("checked", ())
    assert (shop.world(), shop.remote.head()) == (before, head)
    (gate,) = (one for one in report.gates if one.gate == "roll back")
    assert "+works well" in gate.shown[0]["diff"]
    assert not list(Path(shop.hosts["one"].jobs).glob(f".configurations/*{report.run[:8]}*"))


async def test_rejected_rollback_touches_nothing(shop: Shop) -> None:
    shop.written()
    before = shop.world()
    recovery = await shop.start()
    await recovery.approve(verdict="reject")
    assert (await recovery.ended()).residual == ()
    assert shop.world() == before


async def test_worse_in_the_second_wave_returns_everything(shop: Shop) -> None:
    well = {**BAD, "app.conf": "works badly\n"}
    good = {**GOOD, "app.conf": "works\nnot on two\n"}
    shop.good, shop.bad = (shop.remote.commit(below("web", files)) for files in (good, well))
    shop.have(well)
    shop.written()
    before = shop.world()
    report = await shop.approved()
    assert (report.outcome, report.residual) == ("compensated", ()), report.failure
    assert "after wave 2 it is worse than before: on-two@two was well" in report.failure
    assert shop.world() == before
    assert "Take back: Roll shop back" in shop.remote.git("log", "-1", "--format=%s", "main")
    told = {line.title: line.state for line in report.steps}
    assert {told[f"put {shop.good[:12]} on on-{name}@{name}"] for name in NAMES} == {"undone"}


async def test_revision_that_does_not_help_the_canary_returns(shop: Shop) -> None:
    good = {**GOOD, "app.conf": "works\nnot on one\n"}
    shop.good, shop.bad = (shop.remote.commit(below("web", files)) for files in (good, BAD))
    shop.written()
    before = shop.world()
    report = await shop.approved()
    assert (report.outcome, report.residual) == ("compensated", ())
    assert "does not help the canary" in report.failure
    assert shop.world() == before


@pytest.mark.parametrize("verdict", ["approve", "reject"])
async def test_people_decide_on_what_stays_unwell(shop: Shop, verdict: str) -> None:
    good = {**GOOD, "app.conf": "works\nnot on three\n"}
    shop.good, shop.bad = (shop.remote.commit(below("web", files)) for files in (good, BAD))
    shop.written()
    before = shop.world()
    recovery = await shop.start()
    await recovery.approve()
    await recovery.until("gate: keep what is not well", 60)
    await recovery.approve(verdict=verdict)
    report = await recovery.ended()
    if verdict == "approve":
        assert report.outcome == "recovered"
        assert figures(report)["targets that are well"] == 2
        shop.everywhere(good, good["app.conf"])
        assert '"health": "unhealthy"' in shop.remote.git("notes", "--ref=deployments", "show", "main")
    else:
        assert (report.outcome, report.residual) == ("compensated", ())
        assert shop.world() == before


async def test_files_that_do_not_reload_go_back(shop: Shop) -> None:
    good = {**GOOD, "app.conf": "works, and nonsense\n"}
    shop.good, shop.bad = (shop.remote.commit(below("web", files)) for files in (good, BAD))
    shop.written()
    before = shop.world()
    report = await shop.approved()
    assert (report.outcome, report.residual) == ("compensated", ()), report.failure
    assert "does not reload" in report.failure
    assert shop.world() == before


async def test_push_of_somebody_else_is_not_overwritten(shop: Shop) -> None:
    shop.written()
    recovery = await shop.start()
    await recovery.until("gate")
    other = shop.remote.commit(below("web", {**BAD, "other.conf": "somebody else's\n"}), "meanwhile")
    before = shop.world()
    await recovery.approve()
    report = await recovery.ended()
    assert (report.outcome, report.residual, report.kind) == ("compensated", (), "Drifted")
    assert (shop.world(), shop.remote.head()) == (before, other)


async def test_push_elsewhere_stays(shop: Shop) -> None:
    shop.remote.commit({**below("web", BAD), "docs/read.me": "old\n"}, "docs")
    inner = {**below("shop/web", GOOD), "docs/read.me": "old\n"}
    shop.good = shop.remote.commit(inner, "good")
    shop.bad = shop.remote.commit({**below("shop/web", BAD), "docs/read.me": "old\n"}, "bad")
    shop.written(path="shop")
    recovery = await shop.start()
    await recovery.until("gate")
    shop.remote.commit({**below("shop/web", BAD), "docs/read.me": "new\n"}, "meanwhile")
    await recovery.approve()
    report = await recovery.ended(90)
    assert report.outcome == "recovered", report.failure
    assert shop.remote.files() == {name: text.strip() for name, text in {**inner, "docs/read.me": "new\n"}.items()}


async def test_change_by_hand_is_seen_and_kept(shop: Shop) -> None:
    shop.written()
    shop.machines["two"].write("more/deep.conf", "mended at night\npassword = hush\n")
    recovery = await shop.start()
    report = await recovery.until("gate")
    shown = report.gates[0].shown[0]
    assert "on-two@two was changed by hand: more/deep.conf" in str(shown["in_words"])
    assert "+mended at night" in shown["changed_by_hand"]
    assert "hush" not in report.model_dump_json()
    await recovery.approve()
    assert (await recovery.ended(90)).outcome == "recovered"
    shop.everywhere(GOOD, GOOD["app.conf"])
    (kept,) = Path(shop.hosts["two"].jobs).glob(".configurations/on-two@two-*/old/more/deep.conf")
    assert kept.read_text() == "mended at night\npassword = hush\n"
    shutil.rmtree(kept.parent.parent.parent)


async def test_change_by_hand_after_the_gate_is_not_overwritten(shop: Shop) -> None:
    shop.written({"watch": "PT4S"})
    recovery = await shop.start()
    await recovery.approve()
    await eventually(lambda: shop.machines["one"].loaded == GOOD["app.conf"], "the canary is changed")
    shop.machines["three"].write("app.conf", "mended by hand\n")
    report = await recovery.ended(90)
    shown = {**BAD, "app.conf": "mended by hand\n"}
    assert (report.kind, shop.machines["three"].has()) == ("Drifted", shown)
    assert shop.machines["one"].has() == BAD
    assert shop.remote.tree() == shop.remote.tree(shop.bad)


async def test_host_that_goes_away_in_the_middle_is_waited_for(shop: Shop, away: Relay) -> None:
    shop.written({"watch": "PT3S"}, hold=HOLD)
    recovery = await shop.start()
    await recovery.approve()
    await eventually(lambda: shop.machines["one"].loaded == GOOD["app.conf"], "the canary is changed")
    away.refuse()
    report = await recovery.until("hold", 60)
    assert report.hold is not None
    assert "cannot be reached" in report.hold.why or "connection" in report.hold.why
    assert shop.machines["two"].has() == BAD
    away.refuse(False)
    await recovery.resolve("retry")
    report = await recovery.ended(90)
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    shop.everywhere(GOOD, GOOD["app.conf"])


async def test_host_that_stays_away_is_told(shop: Shop, away: Relay) -> None:
    shop.written({"watch": "PT3S"})
    recovery = await shop.start()
    await recovery.approve()
    await eventually(lambda: shop.machines["one"].loaded == GOOD["app.conf"], "the canary is changed")
    before = shop.machines["two"].has()
    away.refuse()
    report = await recovery.ended(90)
    assert (report.outcome, report.residual) == ("compensated", ()), report.failure  # it was never touched there
    assert (shop.machines["one"].has(), shop.machines["two"].has()) == (BAD, before)
    assert shop.remote.tree() == shop.remote.tree(shop.bad)


async def test_host_that_is_gone_can_be_left_out(shop: Shop, away: Relay) -> None:
    away.refuse()
    shop.written()
    blocked = await shop.checked()
    assert any("on-two@two" in one and "reached" in one for one in blocked.blockers), blocked.blockers
    report = await shop.approved(revision=shop.good, without=["on-two"])
    assert report.outcome == "recovered", report.failure
    assert {name for name, one in shop.machines.items() if one.has() == BAD} == {"two"}


BROKEN: Mapping[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"revision": "0123456789"}, "revision: the branch does not contain it"),
    "no revision": ({"revision": "HEAD~1"}, "revision: is no tag of this branch"),
    "newest": ({"revision": "main"}, "revision: is no tag of this branch"),
    "unknown deployment": ({"deployment": "d-9"}, "deployment: no note"),
    "nothing recorded": ({"healthy": True}, "healthy: no revision"),
    "no tag": ({"tag": "good-*"}, "tag: no revision"),
    "too early": ({"before": "2001-01-01T00:00:00Z"}, "before: no revision"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_bad_request_is_told_before_anything_is_touched(shop: Shop, what: str) -> None:
    parameters, said = BROKEN[what]
    shop.written()
    before = shop.world()
    report = await (await shop.start(**parameters)).ended()
    assert (report.outcome, report.kind) == ("failed", "Refused")
    assert any(said in one for one in report.blockers), report.blockers
    assert shop.world() == before


async def test_machines_that_refuse_are_told_all_at_once(shop: Shop) -> None:
    shop.written()
    shop.machines["one"].conf.joinpath("app.conf").chmod(0o440)
    link = shop.machines["two"].conf / "app.conf"
    link.unlink()
    link.symlink_to("/etc/hostname")
    shop.machines["three"].conf.rename(shop.machines["three"].folder / "away")
    report = await (await shop.start()).ended()
    assert (report.outcome, report.residual) == ("failed", ())
    for said in ("on-one@one", "is read-only"), ("on-two@two", "is a link"), ("on-three@three", "is no folder"):
        assert any(all(word in one for word in said) for one in report.blockers), (said, report.blockers)
    assert shop.remote.head() == shop.bad
    shop.machines["one"].conf.joinpath("app.conf").chmod(0o640)


async def test_working_copy_with_changes_is_refused(shop: Shop) -> None:
    copy = shop.remote.folder.with_name("copy")
    shop.remote.git("clone", "--quiet", str(shop.remote.folder), str(copy), GIT_DIR="")
    (copy / "web" / "app.conf").write_text("not committed\n")
    shop.written(repository=str(copy))
    report = await shop.checked()
    assert any("not committed: web/app.conf" in one for one in report.blockers), report.blockers


async def test_revision_of_another_branch_is_refused(shop: Shop) -> None:
    other = shop.remote.commit(below("web", {"app.conf": "elsewhere\n"}), "diverged", ref="refs/heads/other")
    shop.written()
    report = await shop.checked(revision=other)
    assert any("does not contain it" in one for one in report.blockers), report.blockers
