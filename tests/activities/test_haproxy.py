"""Real HAProxy as a traffic director, asked over SSH: moved, drained, restarted, and changed by others meanwhile."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from pydantic import ValidationError

from activities import ssh
from activities.haproxy import (
    DrainBackend,
    PointBackend,
    Served,
    State,
    backend_drained,
    look_at_backend,
    point_backend,
    pointing,
    served,
)
from activities.serving import Request, serves
from activities.ssh import HostAt
from recovery.actions import Order
from recovery.errors import Drifted, Fatal, Invalid, RecoveryError, Refused, Stale, Transient
from recovery.fencing import Hand, acting
from runbooks.schema import DIRECTOR
from tests.caddies import sites
from tests.haproxies import HAProxy, haproxy
from tests.hosts import openssh
from tests.running import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
READY, MAINT = 0, 1
CONFIGURED = 4
"""How a server was configured (disabled): a bit that stays, whatever becomes of it."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostAt]:
    with openssh(tmp_path_factory.mktemp("ssh")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _connections() -> AsyncIterator[None]:
    yield
    await ssh.close()


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[HAProxy]:
    """A director that points at north."""
    with haproxy(tmp_path) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def served_at(edge: HAProxy) -> AsyncIterator[None]:
    """Both sites serve."""
    async with sites(edge):
        await eventually(lambda: who_answers(edge), "its checks find north", 10)
        yield


def order(spec: PointBackend, before: Served) -> Order[PointBackend, Served]:
    """Return what an activity would be told."""
    soon = datetime.now(UTC) + timedelta(minutes=5)
    return Order[PointBackend, Served](spec=spec, before=before, mode="live", not_after=soon)


async def moved(spec: PointBackend, whose: Hand | None = None, before: Served | None = None) -> Served:
    """Carry out the order to move it."""
    with acting(whose or Hand()):
        return await point_backend.carry_out(order(spec, before or await point_backend.observe(spec)))


async def who_answers(edge: HAProxy) -> dict[str, int]:
    """Return which site answers how many of five requests."""
    return (await serves.observe(Request(system="edge", url=edge.url, count=5, header="Site"))).by


CASES: list[tuple[dict[str, State], str, str]] = [
    ({"n1": "ready", "n2": "ready", "s1": "maint"}, "site", "north"),
    ({"n1": "maint", "n2": "ready", "s1": "maint"}, "site", "north"),
    ({"n1": "maint", "n2": "maint", "s1": "ready"}, "site", "south"),
    ({"n1": "ready", "n2": "ready", "s1": "ready"}, "several", ""),
    ({"n1": "ready", "n2": "ready", "s1": "maint", "x": "ready"}, "elsewhere", ""),
    ({"n1": "maint", "n2": "maint", "s1": "maint", "x": "maint"}, "nobody", ""),
    ({"n1": "drain", "n2": "maint", "s1": "maint"}, "site", "north"),
]


@pytest.mark.parametrize(("servers", "at", "site"), CASES)
async def test_servers_tell_the_site(
    edge: HAProxy, host: HostAt, servers: dict[str, State], at: str, site: str
) -> None:
    spec = edge.point(host, sites={"north": ("n1", "n2"), "south": ("s1",)})
    found = pointing(spec, servers, kept=True)
    assert (found.at, found.site) == (at, site)


@pytest.mark.parametrize(
    ("admin", "state"),
    [
        (0, "ready"),
        (4, "ready"),
        (1, "maint"),
        (5, "maint"),
        (0x20, "maint"),
        (8, "drain"),
        (9, "maint"),
        (0x10, "drain"),
    ],
)
async def test_bits_tell_the_state(edge: HAProxy, host: HostAt, admin: int, state: str) -> None:
    assert served(edge.point(host), f"server\tnorth\t{admin}\n").servers == {"north": state}


async def test_traffic_goes_where_it_points(edge: HAProxy, host: HostAt, served_at: None) -> None:
    assert await who_answers(edge) == {"north": 5}
    after = await moved(edge.point(host))
    assert (after.at, after.site, after.kept) == ("site", "south", True)
    assert edge.servers() == edge.kept() == {"north": MAINT, "south": CONFIGURED}
    assert await who_answers(edge) == {"south": 5}
    assert list(Path(host.jobs).glob("[!.]*")) == []


async def test_restart_after_the_move_points_there_still(edge: HAProxy, host: HostAt, served_at: None) -> None:
    await moved(edge.point(host))
    edge.kill()
    edge.start()
    assert edge.servers() == {"north": MAINT, "south": CONFIGURED}
    await eventually(lambda: who_answers(edge), "south answers", 10)
    assert await who_answers(edge) == {"south": 5}
    await moved(edge.point(host, ""))
    edge.kill()
    edge.start()
    refused = await serves.observe(Request(system="edge", url=edge.url, count=3))
    assert refused.statuses == {"503": 3}


async def test_undo_restores_servers_and_state_file(edge: HAProxy, host: HostAt) -> None:
    others = "1\n# as HAProxy writes it\n9 elsewhere 1 web 127.0.0.1 2 0 1 1 0 1 0 2 0 0 0 0 - 80 - 0 0 - - 0\n"
    for there in (None, others):
        if there:
            edge.state.write_text(there)
        spec, before = edge.point(host), await point_backend.observe(edge.point(host))
        assert before.kept is False
        await moved(spec)
        assert edge.kept() == edge.servers()
        assert await point_backend.carry_back(order(spec, before)) == before
        assert edge.servers() == {"north": READY, "south": CONFIGURED | MAINT}
        assert (edge.state.read_text().split("\n")[2:] if edge.state.exists() else None) == (
            there and there.split("\n")[2:]
        )


async def test_state_file_that_says_otherwise_is_written_anew(edge: HAProxy, host: HostAt) -> None:
    await moved(edge.point(host))
    edge.tell("set server orders/north state ready; set server orders/south state maint")
    spec, before = edge.point(host), await point_backend.observe(edge.point(host))
    assert (before.site, before.kept) == ("north", None)
    await moved(spec)
    await point_backend.carry_back(order(spec, before))
    assert edge.kept() == edge.servers() == {"north": READY, "south": CONFIGURED | MAINT}


async def test_pointing_at_nobody_answers_what_is_under_way(edge: HAProxy, host: HostAt, served_at: None) -> None:
    async with aiohttp.ClientSession() as session:
        slow = asyncio.create_task(session.get(f"{edge.url}/slower"))
        drain = DrainBackend.model_validate(edge.point(host).model_dump() | {"site": "north", "seconds": 0})
        await eventually(lambda: "north" in edge.tell("show sess"), "it is under way", pause=0.005)
        edge.tell("set server orders/north state maint")
        assert (await point_backend.observe(edge.point(host))).at == "nobody"
        refused = await serves.observe(Request(system="edge", url=edge.url, count=3))
        assert refused.statuses == {"503": 3}
        assert (await backend_drained.observe(drain)).left == 1
        assert (await backend_drained.observe(drain.model_copy(update={"seconds": 5}))).left == 0
        async with await slow as answer:
            assert (answer.status, await answer.text()) == (200, "north")


async def test_several_servers_of_a_site_move_together(edge: HAProxy, host: HostAt) -> None:
    spec = edge.point(host, "", sites={"north": ("north", "south")})
    await moved(spec)
    assert edge.servers() == {"north": MAINT, "south": CONFIGURED | MAINT}
    await moved(spec.model_copy(update={"site": "north"}))
    assert edge.servers() == {"north": READY, "south": CONFIGURED}


async def test_change_between_look_and_job_is_not_overwritten(edge: HAProxy, host: HostAt) -> None:
    spec, before = edge.point(host), await point_backend.observe(edge.point(host))
    edge.tell("set server orders/south state drain")
    meddled = edge.servers()
    with pytest.raises(Drifted, match="somebody else"):
        await moved(spec, before=before)
    with pytest.raises(Drifted, match="orders/south to drain"):  # where it comes after the second look, too
        await point_backend.apply(spec, before)
    await point_backend.halt(spec)
    assert edge.servers() == meddled
    assert edge.kept() is None


async def test_later_writer_wins(edge: HAProxy, host: HostAt) -> None:
    before = await point_backend.observe(edge.point(host))
    await moved(edge.point(host), Hand("edge", 8, 1, 1))
    for late in (Hand("edge", 7, 9, 1), Hand("edge", 8, 0, 5)):
        with acting(late), pytest.raises(Stale):
            await point_backend.undo(edge.point(host), before)
    assert edge.servers()["south"] == CONFIGURED
    await moved(edge.point(host, "north"), Hand("edge", 9, 1, 1))
    assert edge.servers() == {"north": READY, "south": CONFIGURED | MAINT}


async def test_look_tells_whether_a_restart_keeps_it(edge: HAProxy, host: HostAt) -> None:
    found = await look_at_backend.observe(edge.point(host))
    assert (found.pointed.site, found.keeps) == ("north", True)
    file = edge.folder / "haproxy.cfg"
    text = file.read_text()
    folder = edge.folder / "conf.d"
    folder.mkdir()
    (folder / "10-all.cfg").write_text(text)
    assert (await look_at_backend.observe(edge.point(host, configuration=str(folder)))).keeps
    for without in ("server-state-file", "load-server-state-from-file"):
        file.write_text(text.replace(f"    {without}", f"    # {without}"))
        assert not (await look_at_backend.observe(edge.point(host))).keeps
    file.write_text(text.replace("file global", "file none"))
    assert not (await look_at_backend.observe(edge.point(host))).keeps


async def test_director_that_is_down_is_tried_again(edge: HAProxy, host: HostAt) -> None:
    edge.kill()
    with pytest.raises(Transient, match="does it run"):
        await point_backend.observe(edge.point(host))


async def test_director_that_hangs_is_tried_again(edge: HAProxy, host: HostAt) -> None:
    assert edge.process is not None
    edge.process.send_signal(signal.SIGSTOP)
    with pytest.raises(Transient, match="says nothing"):
        await point_backend.observe(edge.point(host))


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"backend": "nobody"}, Refused, "has no backend nobody"),
        ({"site": "east"}, Invalid, "^Invalid: sites: edge has no servers of east"),
        ({"sites": {"north": ("north", "gone"), "south": ("south",)}}, Invalid, "has no server gone"),
        ({"socket": "/nowhere/admin.sock"}, Transient, "does not answer at /nowhere/admin.sock"),
    ],
)
async def test_bad_estate_is_named(
    edge: HAProxy, host: HostAt, changes: dict[str, Any], error: type[RecoveryError], told: str
) -> None:
    with pytest.raises(error, match=told):
        await moved(edge.point(host, **changes))
    assert edge.servers() == {"north": READY, "south": CONFIGURED | MAINT}


async def test_socket_that_changes_nothing_is_refused(tmp_path: Path, host: HostAt) -> None:
    edge = HAProxy(tmp_path)
    file = tmp_path / "haproxy.cfg"
    file.write_text(file.read_text().replace("level admin", "level operator"))
    try:
        edge.start()
        with pytest.raises(Refused, match="not of level admin"):
            await moved(edge.point(host))
    finally:
        edge.kill()


async def test_state_file_that_cannot_be_written_is_tried_again(edge: HAProxy, host: HostAt) -> None:
    spec = edge.point(host, state="/nowhere/state")
    with pytest.raises(Transient, match="cannot be written"):
        await moved(spec)
    before = await point_backend.observe(spec)
    assert (before.site, before.kept) == ("south", False)
    await moved(edge.point(host), before=before)  # what is done again is the file alone
    assert edge.kept() == edge.servers()


async def test_host_without_socat_says_so(edge: HAProxy, host: HostAt, tmp_path: Path) -> None:
    found = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", "PATH=/nowhere; . ./haproxy.sh; ask 'show info'",
        cwd=Path(__file__).parents[2] / "activities" / "scripts", env={"SOCKET": "/s", "BACKEND": "b"},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert b"Fatal: socat is needed" in (await found.communicate())[1]
    assert issubclass(Fatal, RecoveryError)


EDGE = {
    "kind": "haproxy",
    "host": "lb",
    "backend": "orders",
    "sites": {"north": "n1"},
    "state": "/s",
    "url": "http://x",
}


async def test_one_server_needs_no_list() -> None:
    assert DIRECTOR.validate_python(EDGE).sites == {"north": ("n1",)}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "nginx"}, "'caddy', 'haproxy'"),
        ({"backend": "a; shutdown sessions"}, "backend"),
        ({"sites": {"north": ["a b"]}}, "sites"),
        ({"sites": {}}, "sites"),
        ({"state": "relative"}, "state"),
    ],
)
async def test_bad_field_is_named(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DIRECTOR.validate_python(EDGE | changes)
