"""ConfigurationRollback when something goes wrong around it: on full disks, beside another one, over SSH, cancelled."""

from __future__ import annotations

import shutil

import pytest

from lab.place import runner
from recovery.names import recovery_id
from tests.matrix.mounts import fill, mounted, mounts
from tests.matrix.relay import Relay
from tests.matrix.test_kills import kill_temporal
from tests.running import Recovery, eventually
from tests.shops import Machine, Program, below, catalog
from tests.workflows.test_configuration_rollback import (  # noqa: F401  (fixtures)
    BAD,
    GOOD,
    HOLD,
    Shop,
    away,
    engine,
    shop,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]


async def canary_changed(shop: Shop) -> None:  # noqa: F811
    await eventually(lambda: shop.machines["one"].loaded == GOOD["app.conf"], "the canary is changed", 60)


async def test_commands_go_back_as_files_do(shop: Shop) -> None:  # noqa: F811
    program = Program.new(shop.remote.folder.parent, shop.bad)
    shop.written(commands={"program": program.known("one")})
    report = await shop.approved()
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    shop.everywhere(GOOD, GOOD["app.conf"])
    assert (program.at, program.applied) == (shop.good, [shop.good])


async def test_command_that_makes_it_worse_returns_everything(shop: Shop) -> None:  # noqa: F811
    program = Program.new(shop.remote.folder.parent, shop.bad, shop.good)
    shop.written(commands={"program": program.known("one")})
    before = shop.world()
    report = await shop.approved()
    assert (report.outcome, report.residual) == ("compensated", ()), report.failure
    assert "program was well" in report.failure
    assert (shop.world(), program.at) == (before, shop.bad)


async def test_files_that_make_it_worse_return_commands_too(shop: Shop) -> None:  # noqa: F811
    well = {**BAD, "app.conf": "works badly\n"}
    good = {**GOOD, "app.conf": "works\nnot on three\n"}
    shop.good, shop.bad = (shop.remote.commit(below("web", files)) for files in (good, well))
    shop.have(well)
    program = Program.new(shop.remote.folder.parent, shop.bad)
    shop.written({"canary": ["on-one", "program"], "waves": [1]}, commands={"program": program.known("one")})
    before = shop.world()
    report = await shop.approved()
    assert (report.outcome, report.residual) == ("compensated", ()), report.failure
    assert "it is worse than before: on-three@three was well" in report.failure
    assert (shop.world(), program.at) == (before, shop.bad)
    assert program.applied == [shop.good, shop.bad]


async def test_repository_is_reached_over_ssh(shop: Shop) -> None:  # noqa: F811
    host = shop.hosts["one"]
    for path in (shop.remote.folder, *shop.remote.folder.rglob("*")):
        runner().own(path)
    url = f"ssh://{host.user}@{host.address}:{host.port}{shop.remote.folder}"
    shop.written(repository=url, known_hosts=host.known_hosts, key=host.key)
    report = await shop.approved()
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    shop.everywhere(GOOD, GOOD["app.conf"])
    assert shop.remote.tree() == shop.remote.tree(shop.good)
    assert shop.remote.git("rev-parse", "main^") == shop.bad


async def test_two_go_back_in_one_repository_at_once(shop: Shop) -> None:  # noqa: F811
    """Each in a folder of its own: the branch is moved by both, and neither takes back what the other one did."""
    other = Machine.new("four", shop.remote.folder.parent)
    other.have(BAD)
    trees = [{**below("a/web", files), **below("b/web", files)} for files in (GOOD, BAD)]
    shop.good, shop.bad = (shop.remote.commit(tree) for tree in trees)
    shop.written(path="a")
    second = f"{shop.name}-b"
    given = {"canary": ["on-four"], "waves": [1]}
    catalog(
        shop.root, second, shop.remote, {"four": other}, {"four": shop.hosts["one"]}, given, path="b", system="other"
    )
    first = await shop.start()
    handle = await shop.engine.client.start_workflow(
        "ConfigurationRollback",
        {"runbook": f"{second}/back", "reason": "it broke", "requested_by": "alice", "mode": "live"}
        | {"parameters": {"revision": shop.good}},
        id=recovery_id(second, "other", "live"), task_queue=shop.engine.settings.task_queue,
    )  # fmt: skip
    both = (first, Recovery(handle))
    for one in both:
        await one.until("gate")
    for one in both:
        await one.approve()
    for one in both:
        report = await one.ended(90)
        assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    shop.everywhere(GOOD, GOOD["app.conf"])
    assert (other.has(), other.loaded) == (GOOD, GOOD["app.conf"])
    assert shop.remote.tree() == shop.remote.tree(shop.good)
    assert len(shop.remote.git("rev-list", f"{shop.bad}..main").split()) == 2
    noted = shop.remote.git("notes", "--ref=deployments", "list").splitlines()
    assert len(noted) == 2


@pytest.mark.skipif(not mounts(), reason="a full disk has to be mounted")
async def test_full_disk_of_a_host_is_told_and_the_others_return(shop: Shop) -> None:  # noqa: F811
    shop.written({"watch": "PT3S"}, hold=HOLD)
    conf = shop.machines["three"].conf
    shutil.rmtree(conf)
    conf.mkdir()
    with mounted(conf, 4):
        shop.machines["three"].have(BAD)
        before = shop.world()
        recovery = await shop.start()
        await recovery.approve()
        await canary_changed(shop)
        fill(conf)
        report = await recovery.until("hold", 240)
        assert report.hold is not None
        assert "is the disk full? Free some room" in report.hold.why
        assert str(conf) in report.hold.why
        await recovery.resolve("compensate")
        report = await recovery.ended(90)
        assert (report.outcome, report.residual) == ("compensated", ()), report.failure
        assert shop.world() == before


async def test_cancelled_again_and_again_in_the_middle_returns_everything(shop: Shop) -> None:  # noqa: F811
    shop.written({"watch": "PT5S"})
    before = shop.world()
    recovery = await shop.start()
    await recovery.approve()
    await canary_changed(shop)
    for _ in range(3):
        await recovery.handle.cancel()
    report = await recovery.ended(90)
    assert (report.outcome, report.residual) == ("cancelled", ()), report.failure
    assert shop.world() == before


async def test_connection_that_falls_silent_is_noticed(shop: Shop, away: Relay) -> None:  # noqa: F811
    shop.written({"watch": "PT3S"})
    recovery = await shop.start()
    await recovery.approve()
    await canary_changed(shop)
    away.silence()
    report = await recovery.ended(120)
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    shop.everywhere(GOOD, GOOD["app.conf"])


async def test_killed_temporal_rolls_back_all_the_same(shop: Shop) -> None:  # noqa: F811
    shop.written({"watch": "PT3S"})
    recovery = await shop.start()
    await recovery.approve()
    await canary_changed(shop)
    await kill_temporal(shop.engine)
    report = await recovery.ended(120)
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    shop.everywhere(GOOD, GOOD["app.conf"])
    assert len(shop.remote.git("rev-list", f"{shop.bad}..main").split()) == 1
