"""Real Caddy as a traffic director: moved by compare-and-swap, whoever else writes and whatever is cut."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from activities.admin_api import _failure
from activities.director import Drain, Point, Pointed, drained, look_at_director, point, pointed
from activities.serving import Request, serves
from recovery.actions import Order
from recovery.errors import Drifted, Invalid, RecoveryError, Refused, Stale, Transient
from recovery.fencing import Hand, acting, hand
from tests.caddies import Between, Caddy, between, caddy, sites, waited


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Caddy]:
    """A director that points at north."""
    with caddy(tmp_path) as found:
        yield found


@pytest_asyncio.fixture
async def relay(front: Caddy) -> AsyncIterator[Between]:
    """A relay before its admin API."""
    async with between(front) as found:
        yield found


@pytest_asyncio.fixture
async def served(front: Caddy) -> AsyncIterator[None]:
    """Both sites serve."""
    async with sites(front):
        yield


def order(spec: Point, before: Pointed) -> Order[Point, Pointed]:
    """Return what an activity would be told."""
    soon = datetime.now(UTC) + timedelta(minutes=5)
    return Order[Point, Pointed](spec=spec, before=before, mode="live", not_after=soon)


def lease(epoch: int, order: int = 1, attempt: int = 1) -> Hand:
    """Return the hand of who holds the director with this epoch."""
    return Hand("front", epoch, order, attempt)


async def moved(spec: Point, whose: Hand | None = None, before: Pointed | None = None) -> Pointed:
    """Carry out the order to move it."""
    with acting(whose or Hand()):
        return await point.carry_out(order(spec, before or await point.observe(spec)))


async def who_answers(front: Caddy, path: str = "/") -> dict[str, int]:
    """Return which site answers how many of five requests."""
    return (await serves.observe(Request(system="front", url=front.url, path=path, count=5, header="Site"))).by


CASES: list[tuple[list[dict[str, Any]], str, str]] = [
    ([{"dial": "n:1"}], "site", "north"),
    ([{"dial": "s:1", "max_requests": 5}], "site", "south"),
    ([{"dial": "n:1"}, {"dial": "n:1"}], "site", "north"),
    ([{"dial": "n:1"}, {"dial": "s:1"}], "several", ""),
    ([{"dial": "n:1"}, {"dial": "x:1"}], "elsewhere", ""),
    ([{"max_requests": 1}], "elsewhere", ""),
    ([], "nobody", ""),
]


@pytest.mark.parametrize(("upstreams", "at", "site"), CASES)
def test_upstreams_tell_the_site(upstreams: list[dict[str, Any]], at: str, site: str) -> None:
    spec = Point(system="front", admin="", server="", sites={"north": "n:1", "south": "s:1"}, site="south")
    found = pointed(spec, {"upstreams": upstreams})
    assert (found.at, found.site) == (at, site)


async def test_traffic_goes_where_it_points(front: Caddy, served: None) -> None:
    assert await who_answers(front) == {"north": 5}
    after = await moved(front.point())
    assert (after.at, after.site) == ("site", "south")
    assert await who_answers(front) == {"south": 5}


async def test_undo_restores_the_upstreams_with_their_options(front: Caddy) -> None:
    spec, untouched = front.point(), front.server()
    before = await point.observe(spec)
    await moved(spec)
    assert front.upstreams() == [{"dial": front.at("south")}]
    assert await point.carry_back(order(spec, before)) == before
    assert front.server() == untouched


async def test_undo_restores_two_sites_as_they_were(front: Caddy) -> None:
    both: list[dict[str, Any]] = [{"dial": front.at("south"), "max_requests": 3}, {"dial": front.at("north")}]
    front.repoint(*both)
    before = await point.observe(front.point())
    assert before.at == "several"
    await moved(front.point())
    await point.carry_back(order(front.point(), before))
    assert front.upstreams() == both


async def test_site_that_it_points_at_keeps_its_options(front: Caddy) -> None:
    before = await point.observe(front.point("north"))
    assert point.desired(front.point("north"), before) == before


async def test_pointing_at_nobody_answers_what_is_under_way(front: Caddy, served: None) -> None:
    async with aiohttp.ClientSession() as session:
        slow = asyncio.create_task(session.get(f"{front.url}/slow"))
        drain = Drain.model_validate(front.point().model_dump() | {"site": "north", "seconds": 0})
        while not (await drained.observe(drain)).left:
            await asyncio.sleep(0.01)
        await moved(front.point(""))
        refused = await serves.observe(Request(system="front", url=front.url, count=3))
        assert refused.statuses == {"503": 3}
        assert (await drained.observe(drain)).left == 1
        assert (await drained.observe(drain.model_copy(update={"seconds": 5}))).left == 0
        async with await slow as answer:
            assert (answer.status, await answer.text()) == (200, "north")


async def test_change_of_another_part_meanwhile_is_kept(front: Caddy, relay: Between) -> None:
    route = {"match": [{"path": ["/hello"]}], "handle": [{"handler": "static_response", "body": "hello"}]}

    async def meddle() -> None:
        front.tell("POST", "apps/http/servers/clients/routes", route)

    relay.before = meddle
    await moved(front.point(admin=relay.address))
    assert route in front.server()["routes"]
    assert front.upstreams() == [{"dial": front.at("south")}]


async def test_change_of_the_upstreams_meanwhile_is_not_overwritten(front: Caddy, relay: Between) -> None:
    async def meddle() -> None:
        front.repoint({"dial": "192.0.2.9:80"})

    relay.before = meddle
    with pytest.raises(Drifted, match="elsewhere"):
        await moved(front.point(admin=relay.address))
    assert front.upstreams() == [{"dial": "192.0.2.9:80"}]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_cut_write_has_one_effect(front: Caddy, relay: Between, moment: str) -> None:
    setattr(relay, moment, relay.cut)
    await moved(front.point(admin=relay.address), lease(1))
    assert front.upstreams() == [{"dial": front.at("south")}]
    assert relay.writes == 1


async def test_lower_epoch_is_refused(front: Caddy) -> None:
    before = await point.observe(front.point())
    await moved(front.point(), lease(8))
    assert front.mark() == {"epoch": 8, "order": 1, "attempt": 1}
    with acting(lease(7, order=9)), pytest.raises(Stale, match="epoch 8"):
        await point.carry_back(order(front.point(), before))
    with pytest.raises(Stale):
        await moved(front.point("north"))  # with no lease at all
    assert front.upstreams() == [{"dial": front.at("south")}]
    await moved(front.point("north"), lease(9))
    assert front.mark() == {"epoch": 9, "order": 1, "attempt": 1}


@pytest.mark.parametrize(("late", "later"), [((3, 1), (4, 1)), ((3, 1), (3, 2)), ((3, 9), (4, 1))])
async def test_earlier_order_or_attempt_is_refused(front: Caddy, late: tuple[int, int], later: tuple[int, int]) -> None:
    await moved(front.point(), lease(5, *later))
    with pytest.raises(Stale):
        await moved(front.point("north"), lease(5, *late))
    assert front.upstreams() == [{"dial": front.at("south")}]


async def test_write_held_up_until_another_recovery_wrote_is_refused(front: Caddy, relay: Between) -> None:
    let_go = await relay.held()
    late = asyncio.create_task(moved(front.point(admin=relay.address), lease(1)))
    await waited(relay)
    await moved(front.point(), lease(2))
    await moved(front.point("north"), lease(2, order=2))
    let_go.set()
    with pytest.raises(Stale, match="epoch 2"):
        await late
    assert front.upstreams() == [{"dial": front.at("north")}]


async def test_write_held_up_until_it_was_undone_is_refused(front: Caddy, relay: Between) -> None:
    before, let_go = await point.observe(front.point()), await relay.held()
    late = asyncio.create_task(moved(front.point(admin=relay.address), lease(1)))
    await waited(relay)
    with acting(lease(1, order=2)):
        assert await point.carry_back(order(front.point(), before)) == before  # there was nothing to undo yet
    let_go.set()
    with pytest.raises(Stale, match="order 2"):
        await late
    assert await point.observe(front.point()) == before
    assert relay.writes == 0


async def test_mark_survives_a_crash(front: Caddy) -> None:
    await moved(front.point(), lease(4))
    front.kill()
    front.start()
    assert front.upstreams() == [{"dial": front.at("south")}]
    with pytest.raises(Stale):
        await moved(front.point("north"), lease(3))


async def test_mark_is_run_by_no_request(front: Caddy, served: None) -> None:
    await moved(front.point(), lease(4))
    assert await who_answers(front) == {"south": 5}
    assert await who_answers(front, "/broken") == {"south": 5}
    assert [route.get("match") for route in front.server()["routes"]] == [None, [{"not": [{}]}]]


async def test_marks_of_other_directors_are_kept(front: Caddy) -> None:
    await moved(front.point(), lease(4))
    with acting(Hand("other", 2, 1, 1)):
        await point.apply(front.point("north", system="other"), await point.observe(front.point()))
    assert front.mark() == {"epoch": 4, "order": 1, "attempt": 1}
    assert len(front.server()["routes"]) == 2


async def test_look_tells_epoch_and_keeping(front: Caddy) -> None:
    found = await look_at_director.observe(front.point())
    assert (found.pointed.site, found.epoch, found.keeps) == ("north", 0, True)
    await moved(front.point(), lease(4))
    front.tell("POST", "admin", {"listen": front.at("admin"), "config": {"persist": False}})
    found = await look_at_director.observe(front.point())
    assert (found.pointed.site, found.epoch, found.keeps) == ("south", 4, False)


async def test_requests_tell_statuses_and_failures(front: Caddy, served: None) -> None:
    ask = Request(system="front", url=front.url, path="/broken", count=3)
    found = await serves.observe(ask)
    assert found.statuses == {"500": 3}
    assert 0 < found.slowest < 5
    slow = await serves.observe(ask.model_copy(update={"path": "/slow", "seconds": 0.05}))
    assert (slow.statuses, slow.unanswered) == ({}, {"not in time": 3})
    front.kill()
    assert (await serves.observe(ask)).unanswered == {"not connected": 3}


async def test_director_that_is_down_is_tried_again(front: Caddy) -> None:
    front.kill()
    with pytest.raises(Transient, match="does Caddy run"):
        await point.observe(front.point())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"server": "nobody"}, "^Invalid: server: .* no HTTP server"),
        ({"site": "east"}, "^Invalid: sites: "),
        ({"admin": "127.0.0.1:2019"}, "^Invalid: admin: "),
        ({"admin": "ftp://someone:hush@127.0.0.1:2019"}, "^Invalid: admin: "),
        ({"admin": "http://[::1:2019"}, "^Invalid: admin: "),
    ],
)
async def test_bad_estate_is_named(front: Caddy, changes: dict[str, str], told: str) -> None:
    with pytest.raises(Invalid, match=told) as failed:
        await moved(front.point(**changes))
    assert "hush" not in str(failed.value)


PROXY: dict[str, Any] = {"handler": "reverse_proxy", "upstreams": [{"dial": "192.0.2.9:80"}]}


@pytest.mark.parametrize(
    ("handlers", "told"),
    [
        ([PROXY, PROXY], "2 reverse proxies"),
        ([{"handler": "static_response"}], "0 reverse proxies"),
        ([PROXY | {"dynamic_upstreams": {"source": "a", "name": "sites"}}], "dynamic_upstreams"),
        ([PROXY, {"handler": "vars", "recovery.epochs": {"front": {"epoch": "many"}}}], "not as a recovery wrote"),
        ([PROXY, {"handler": "vars", "recovery.epochs": {"front": 7}}], "not as a recovery wrote"),
    ],
)
async def test_unknown_shape_is_refused(front: Caddy, handlers: list[dict[str, Any]], told: str) -> None:
    front.tell("PATCH", "apps/http/servers/clients/routes", [{"handle": [handler]} for handler in handlers])
    with pytest.raises(Invalid, match=told):
        await point.observe(front.point())


async def test_configuration_without_http_is_named(front: Caddy) -> None:
    front.tell("DELETE", "apps")
    with pytest.raises(Invalid, match=r"^Invalid: server: .*invalid traversal path"):
        await point.observe(front.point())


async def test_what_is_no_director_is_named(front: Caddy, served: None) -> None:
    with pytest.raises(Invalid, match=r"^Invalid: admin: "):
        await point.observe(front.point(admin=front.url))


async def test_director_for_other_hosts_refuses(front: Caddy) -> None:
    front.tell("POST", "admin", {"listen": front.at("admin"), "origins": ["director.example"]})
    with pytest.raises(Refused, match=r"403 \(host not allowed"):
        await point.observe(front.point())


@pytest.mark.parametrize(
    ("status", "text", "kind", "told"),
    [
        (500, '{"error":"loading new config: x"}', Refused, r"500 \(loading new config: x\)"),
        (500, '{"error":"dial http://me:hush@host/' + "x" * 900 + '"}', Refused, "dial http://host/x"),
        (500, "hush", Invalid, "does not answer as"),
        (400, "[]", Invalid, "does not answer as"),
        (200 + 304, "<html>hush", Transient, "answers 504"),
    ],
)
def test_refusal_is_told_short_and_without_secrets(
    status: int, text: str, kind: type[RecoveryError], told: str
) -> None:
    found = _failure("the admin API", status, text)
    assert isinstance(found, kind)
    assert re.search(told, str(found))
    assert len(str(found)) < 300
    assert "hush" not in str(found)


def test_hand_ends_with_its_activity() -> None:
    with acting(lease(1)):
        assert hand() == Hand("front", 1, 1, 1)
    assert hand() == Hand()
