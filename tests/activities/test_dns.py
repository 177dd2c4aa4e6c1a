"""Real Knot and Unbound as a traffic director: a record moved by compare-and-swap, its TTL lowered and waited out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import dns.rcode
import pytest
import pytest_asyncio
from pydantic import ValidationError

from activities.dns_director import (
    KeepFor,
    PointRecord,
    Recorded,
    Resolve,
    Resolved,
    look_at_record,
    point_record,
    resolves,
    set_ttl,
)
from activities.dns_zones import _failure
from recovery.actions import Action, Order
from recovery.errors import Drifted, Fatal, Invalid, RecoveryError, Refused, Stale, Transient
from recovery.fencing import Hand, acting
from runbooks.schema import DIRECTOR
from tests.knots import ELSEWHERE, NOBODY, NORTH, SECRETS, SOUTH, Between, Knot, Unbound, between, running
from tests.running import eventually

T = TypeVar("T")
WWW: dict[str, Any] = {"record": "www.example.test.", "type": "CNAME", "nobody": "sorry.example.test."}
WWW |= {"sites": {"north": "north.example.test", "south": "SOUTH.example.test."}}


@pytest.fixture
def knot(tmp_path: Path) -> Iterator[Knot]:
    """A primary whose record points at north, for an hour."""
    (tmp_path / "knot").mkdir()
    found = Knot(tmp_path / "knot")
    with running(found):
        yield found


@pytest_asyncio.fixture
async def relay(knot: Knot) -> AsyncIterator[Between]:
    """A relay before it."""
    async with between(knot) as found:
        yield found


def order(spec: Any, before: Any, action: Action[Any, Any] = point_record) -> Order[Any, Any]:
    """Return what an activity would be told."""
    soon = datetime.now(UTC) + timedelta(minutes=5)
    wire = Order[action.spec_type, action.state_type]  # type: ignore[name-defined]
    return wire(spec=spec, before=before, mode="live", not_after=soon)


def lease(epoch: int, order: int = 1, attempt: int = 1) -> Hand:
    """Return the hand of who holds the director with this epoch."""
    return Hand("shop", epoch, order, attempt)


async def moved(spec: PointRecord, whose: Hand | None = None, before: Recorded | None = None) -> Recorded:
    """Carry out the order to move it."""
    with acting(whose or Hand()):
        return await point_record.carry_out(order(spec, before or await point_record.observe(spec)))


def kept(knot: Knot, seconds: int, **more: Any) -> KeepFor:
    """Return what has the record be kept for so long."""
    return KeepFor.model_validate(knot.spec(**more).model_dump() | {"seconds": seconds})


def resolve(knot: Knot, *resolvers: str, site: str = "south", **more: Any) -> Resolve:
    """Return how resolvers are asked."""
    return Resolve.model_validate(knot.spec(resolvers=resolvers, site=site).model_dump() | more)


async def test_record_says_where_it_points(knot: Knot) -> None:
    before = await point_record.observe(knot.point())
    assert before == Recorded(at="site", site="north", values=(NORTH,), ttl=3600)
    after = await moved(knot.point())
    assert after == Recorded(at="site", site="south", values=(SOUTH,), ttl=2)
    assert knot.ask() == [SOUTH]


@pytest.mark.parametrize(
    ("values", "at", "site"),
    [
        ([NORTH], "site", "north"),
        ([NOBODY], "nobody", ""),
        ([NORTH, SOUTH], "several", ""),
        ([NORTH, NOBODY], "several", ""),
        ([SOUTH, ELSEWHERE], "elsewhere", ""),
        ([], "elsewhere", ""),
    ],
)
async def test_values_tell_the_site(knot: Knot, values: list[str], at: str, site: str) -> None:
    knot.tell("A", *values)
    found = await point_record.observe(knot.point())
    assert (found.at, found.site) == (at, site)


async def test_undo_restores_record_and_ttl(knot: Knot) -> None:
    spec, before, untouched = knot.point(), await point_record.observe(knot.point()), knot.records()
    await moved(spec)
    assert await point_record.carry_back(order(spec, before)) == before
    assert knot.records() == untouched


async def test_undo_restores_two_sites_as_they_were(knot: Knot) -> None:
    knot.tell("A", NORTH, SOUTH, ttl=60)
    before, untouched = await point_record.observe(knot.point()), knot.records()
    await moved(knot.point())
    await point_record.carry_back(order(knot.point(), before))
    assert knot.records() == untouched


async def test_undo_removes_a_record_that_was_not_there(knot: Knot) -> None:
    knot.tell("A")
    before, untouched = await point_record.observe(knot.point()), knot.records()
    await moved(knot.point())
    assert knot.ask() == [SOUTH]
    await point_record.carry_back(order(knot.point(), before))
    assert knot.records() == untouched


async def test_alias_is_moved(knot: Knot) -> None:
    spec = knot.point(**WWW)
    before = await point_record.observe(spec)
    assert (before.site, before.values) == ("north", ("north.example.test.",))
    assert (await moved(spec)).site == "south"
    assert knot.ask("www.example.test.", "CNAME") == ["south.example.test."]
    assert (await moved(spec.model_copy(update={"site": ""}))).at == "nobody"


async def test_record_where_it_points_already_keeps_its_ttl(knot: Knot) -> None:
    before = await point_record.observe(knot.point("north"))
    assert point_record.desired(knot.point("north"), before) == before


async def test_change_meanwhile_is_not_overwritten(knot: Knot, relay: Between) -> None:
    async def meddle() -> None:
        knot.tell("A", ELSEWHERE)

    relay.before = meddle
    with pytest.raises(Drifted, match="elsewhere"):
        await moved(knot.point(server=relay.address))
    assert knot.ask() == [ELSEWHERE]


async def test_change_of_another_record_meanwhile_is_kept(knot: Knot, relay: Between) -> None:
    async def meddle() -> None:
        knot.tell("A", ELSEWHERE, name="other")

    relay.before = meddle
    await moved(knot.point(server=relay.address))
    assert (knot.ask(), knot.ask("other.example.test.")) == ([SOUTH], [ELSEWHERE])


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_cut_update_has_one_effect(knot: Knot, relay: Between, moment: str) -> None:
    setattr(relay, moment, relay.cut)
    await moved(knot.point(server=relay.address), lease(1))
    assert (knot.ask(), relay.updates) == ([SOUTH], 1)


async def test_lower_epoch_is_refused(knot: Knot) -> None:
    before = await point_record.observe(knot.point())
    await moved(knot.point(), lease(8))
    assert knot.mark() == ['0 "A epoch=8 order=1 attempt=1 ttl=3600"']
    with acting(lease(7, order=9)), pytest.raises(Stale, match="epoch 8"):
        await point_record.carry_back(order(knot.point(), before))
    with pytest.raises(Stale):
        await moved(knot.point("north"))  # with no lease at all
    assert knot.ask() == [SOUTH]
    await moved(knot.point("north"), lease(9))
    assert knot.mark() == ['0 "A epoch=9 order=1 attempt=1 ttl=3600"']


async def test_update_held_up_until_another_recovery_wrote_is_refused(knot: Knot, relay: Between) -> None:
    let_go = await relay.held()
    late = asyncio.create_task(moved(knot.point(server=relay.address), lease(1)))
    await eventually(relay.waiting.is_set, "an update is held", 5, pause=0.005)
    await moved(knot.point(), lease(2))
    await moved(knot.point("north"), lease(2, order=2))
    let_go.set()
    with pytest.raises(Stale, match="epoch 2"):
        await late
    assert knot.ask() == [NORTH]


async def test_update_held_up_until_it_was_undone_is_refused(knot: Knot, relay: Between) -> None:
    before, let_go = await point_record.observe(knot.point()), await relay.held()
    late = asyncio.create_task(moved(knot.point(server=relay.address), lease(1)))
    await eventually(relay.waiting.is_set, "an update is held", 5, pause=0.005)
    with acting(lease(1, order=2)):
        assert await point_record.carry_back(order(knot.point(), before)) == before
    let_go.set()
    with pytest.raises(Stale, match="order 2"):
        await late
    assert await point_record.observe(knot.point()) == before


async def test_many_writers_leave_the_last_one(knot: Knot) -> None:
    turns = [lease(epoch) for epoch in range(1, 9)]
    sites = ["south", "north"] * 4
    start = await point_record.observe(knot.point())
    found = await asyncio.gather(
        *(moved(knot.point(site), whose, start) for site, whose in zip(sites, turns, strict=True)),
        return_exceptions=True,
    )
    assert all(isinstance(one, Recorded | Stale | Drifted) for one in found), found
    last = max(turn.epoch for turn, one in zip(turns, found, strict=True) if isinstance(one, Recorded))
    mark = (knot.mark() or [""])[0]
    assert f"epoch={last} " in mark or last == 0


async def test_mark_survives_a_crash(knot: Knot) -> None:
    await moved(knot.point(), lease(4))
    knot.kill()
    knot.start()
    assert knot.ask() == [SOUTH]
    with pytest.raises(Stale):
        await moved(knot.point("north"), lease(3))


async def test_marks_of_both_types_are_kept(knot: Knot) -> None:
    knot.tell("AAAA", "::11", name="shop")
    of6: dict[str, Any] = {
        "type": "AAAA",
        "sites": {"north": "::11", "south": "0::12"},
        "nobody": "::99",
        "system": "shop-6",
    }
    await moved(knot.point(), lease(4))
    await moved(knot.point(**of6), Hand("shop-6", 2, 1, 1))
    await moved(knot.point("north"), lease(5))
    assert sorted(knot.mark() or []) == [
        '0 "A epoch=5 order=1 attempt=1 ttl=3600"', '0 "AAAA epoch=2 order=1 attempt=1 ttl=3600"',
    ]  # fmt: skip
    assert knot.ask(kind="AAAA") == ["::12"]


async def test_mark_that_nobody_can_read_is_refused(knot: Knot) -> None:
    knot.tell("TXT", '"A epoch=many"', name="_recovery.shop")
    with pytest.raises(Invalid, match="not as a recovery wrote it"):
        await point_record.observe(knot.point())


async def test_ttl_is_lowered_and_restored(knot: Knot) -> None:
    untouched = knot.records()
    lower = kept(knot, 2)
    before = await set_ttl.observe(lower)
    assert before.ttl == 3600
    with acting(lease(1)):
        assert (await set_ttl.carry_out(order(lower, before, set_ttl))).ttl == 2
    await moved(knot.point(), lease(1, order=2))
    seen = await look_at_record.observe(knot.spec())
    assert (seen.pointed.site, seen.pointed.ttl, seen.usual, seen.epoch, seen.keeps) == ("south", 2, 3600, 1, True)
    await moved(knot.point("north"), lease(2))  # another recovery, after one that has never come to its end
    again = kept(knot, (await look_at_record.observe(knot.spec())).usual)
    with acting(lease(2, order=2)):
        await set_ttl.carry_out(order(again, await set_ttl.observe(again), set_ttl))
    assert knot.mark() == ['0 "A epoch=2 order=2 attempt=1 ttl=0"']
    assert knot.records() == untouched | {"_recovery.shop TXT": knot.mark()}


async def test_undo_restores_the_ttl_wherever_it_points_by_now(knot: Knot) -> None:
    lower, before = kept(knot, 2), await set_ttl.observe(kept(knot, 2))
    await set_ttl.carry_out(order(lower, before, set_ttl))
    knot.tell("A", SOUTH, ttl=2)
    assert await set_ttl.carry_back(order(lower, before, set_ttl)) == before
    assert knot.records()["shop A"] == [f"3600 {SOUTH}"]


async def test_ttl_of_somebody_else_is_not_overwritten(knot: Knot) -> None:
    lower, before = kept(knot, 2), await set_ttl.observe(kept(knot, 2))
    knot.tell("A", NORTH, ttl=77)
    for act in (set_ttl.apply, set_ttl.undo):
        with pytest.raises(Drifted, match="TTL to 77 s"):
            await act(lower, before)
    assert knot.records()["shop A"] == [f"77 {NORTH}"]


async def test_ttl_of_no_record_is_named(knot: Knot) -> None:
    with pytest.raises(Invalid, match=r"^Invalid: record: example.test has no A of gone"):
        await set_ttl.observe(kept(knot, 2, record="gone.example.test"))


async def test_resolver_answers_old_until_the_ttl_is_over(knot: Knot, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    cache = Unbound(tmp_path / "cache", knot)
    with running(cache):
        lower = kept(knot, 2)
        await set_ttl.carry_out(order(lower, await set_ttl.observe(lower), set_ttl))
        assert cache.ask() == [NORTH]
        began = time.monotonic()
        await moved(knot.point())
        early = await resolves.observe(resolve(knot, cache.address, knot.address, most=0))
        assert early.answers == {cache.address: "north", knot.address: "south"}
        assert early.left == 1
        found = await resolves.observe(resolve(knot, cache.address, knot.address, most=10))
        assert found.left == 0
        assert set(found.answers.values()) == {"south"}
        assert 1 < time.monotonic() - began < 12
        assert 0 < found.seconds < 12
    silent = await resolves.observe(resolve(knot, cache.address, knot.address, most=0))
    assert (silent.answers[cache.address], silent.left) == ("no answer", 1)


async def test_ttl_is_waited_out_for_resolvers_that_nobody_named(knot: Knot) -> None:
    await moved(knot.point(""))
    began = time.monotonic()
    found = await resolves.observe(resolve(knot, knot.address, site="", least=1, most=5))
    assert found.model_copy(update={"seconds": 0}) == Resolved(answers={knot.address: "nobody"})
    assert time.monotonic() - began >= 1
    assert found.seconds < 1


async def test_primary_that_is_down_is_tried_again(knot: Knot) -> None:
    knot.kill()
    with pytest.raises(Transient, match="does it run"):
        await point_record.observe(knot.point())


def key(knot: Knot, name: str, text: str = "", file: str = "") -> dict[str, Any]:
    """Return a key of the estate, with its secret in a file of its own."""
    path = knot.folder / (file or "a.key")
    if not file:
        path.write_text(text or SECRETS[f"{name}."])
    return {"key": {"name": name, "algorithm": "hmac-sha256", "secret": str(path)}}


async def test_key_file_of_bind_is_read(knot: Knot) -> None:
    text = f'key "recovery" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRETS["recovery."]}";\n}};\n'
    assert (await moved(knot.point(**key(knot, "recovery", text)))).site == "south"


@pytest.mark.parametrize(
    ("name", "text", "file", "error", "told"),
    [
        ("recovery", SECRETS["people."], "", Refused, "has another secret for the key recovery"),
        ("nobody", SECRETS["people."], "", Refused, "does not know the key nobody"),
        ("reader", "", "", Refused, "reader"),
        ("recovery", "no base64 at all", "", Invalid, "no secret in base64"),
        ("recovery", "", "missing.key", Fatal, "cannot be read"),
    ],
)
async def test_wrong_key_is_refused(
    knot: Knot, name: str, text: str, file: str, error: type[RecoveryError], told: str
) -> None:
    untouched = knot.records()
    with pytest.raises(error, match=told) as failed:
        await moved(knot.point(**key(knot, name, text, file)))
    assert not any(secret in str(failed.value) for secret in (*SECRETS.values(), "no base64 at all"))
    assert knot.records() == untouched


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"zone": "other.test", "record": "shop.other.test"}, Refused, "does not serve other.test"),
        ({"site": "east"}, Invalid, "^Invalid: sites: shop has no value for east"),
        ({"type": "AAAA"}, Invalid, "^Invalid: sites: shop has a value that is no AAAA"),
    ],
)
async def test_bad_estate_is_named(knot: Knot, changes: dict[str, Any], error: type[RecoveryError], told: str) -> None:
    with pytest.raises(error, match=told):
        await moved(knot.point(**changes))
    assert knot.ask() == [NORTH]


async def test_server_that_is_no_primary_is_named(knot: Knot, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    cache = Unbound(tmp_path / "cache", knot)
    with running(cache), pytest.raises(RecoveryError, match=r"unsigned|authority"):
        await point_record.observe(knot.point(server=cache.address))


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        (dns.rcode.REFUSED, Refused, "does not let the key recovery change"),
        (dns.rcode.NOTAUTH, Invalid, "^Invalid: zone: "),
        (dns.rcode.NOTZONE, Invalid, "^Invalid: zone: "),
        (dns.rcode.SERVFAIL, Transient, "failed"),
        (dns.rcode.NOTIMP, Refused, "NOTIMP"),
    ],
)
def test_refusal_says_what_to_do(tmp_path: Path, code: dns.rcode.Rcode, kind: type[RecoveryError], told: str) -> None:
    found = _failure(Knot(tmp_path).spec(), code)
    assert isinstance(found, kind)
    with pytest.raises(kind, match=told):
        raise found


SHOP = {
    "kind": "dns", "server": "192.0.2.53:53", "zone": "example.org", "record": "shop.example.org",
    "sites": {"north": "192.0.2.1", "south": "192.0.2.2"}, "nobody": "192.0.2.3", "url": "http://shop.example.org",
    "key": {"name": "recovery", "secret": "/etc/recovery/key"}, "resolvers": ["[2001:db8::1]:53"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"record": "shop.example.com"}, "record: is not in the zone"),
        ({"record": "badexample.org"}, "record: is not in the zone"),
        ({"record": "example.org", "type": "CNAME"}, "cannot be a CNAME"),
        ({"nobody": "192.0.2.1"}, "each needs another value"),
        ({"sites": {"north": "192.0.2.1", "south": "south.example.org"}}, "south: is no address"),
        ({"type": "AAAA"}, "north: is no address"),
        ({"server": "192.0.2.53"}, "server"),
        ({"server": "ns.example.org:53"}, "server"),
        ({"resolvers": []}, "resolvers"),
        ({"ttl": 0}, "ttl"),
        ({"key": {"name": "recovery", "secret": "c2VjcmV0"}}, "key.secret"),
        ({"key": {"name": "recovery", "algorithm": "hmac-md5", "secret": "/k"}}, "key.algorithm"),
    ],
)
def test_bad_field_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as failed:
        DIRECTOR.validate_python(SHOP | changes)
    assert told in str(failed.value)
    assert "c2VjcmV0" not in str(failed.value)


def test_record_without_a_fault_is_taken() -> None:
    found = DIRECTOR.validate_python(SHOP)
    assert (found.kind, found.sites) == ("dns", SHOP["sites"])
