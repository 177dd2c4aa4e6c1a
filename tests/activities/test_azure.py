"""Azure through its own packages, on the lab's Resource Manager: throttled, failed, slow, expired, wrongly named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities import azure
from activities.azure import AzureAt, no_room
from activities.machine_operations import MARK, Under
from activities.machines import MachineSpec, Powered, Way, run_machine
from activities.traffic_manager import Await, PointSpec, Shares, TrafficSpec, healthy, point_traffic, see_traffic
from lab.azure import Arm, Refusal
from lab.azure_resources import SIZE
from recovery.actions import Order
from recovery.carrying import Memory, carrying
from recovery.errors import Drifted, Fatal, Invalid, RecoveryError, Refused, Stale, Transient
from recovery.fencing import Hand, acting
from runbooks.schema import Machine, TrafficManager
from tests.azures import OTHER_SIZE, Cloud, cloud, cut
from tests.matrix.relay import relay
from tests.running import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cloud]:
    async with cloud(tmp_path_factory.mktemp("azure")) as found:
        yield found


@pytest.fixture
def arm(running: Cloud) -> Cloud:
    running.anew()
    running.token_seconds = 3600
    return running


def order(spec: Any, before: Any, **more: Any) -> Any:
    """Return what an activity would be told."""
    soon = datetime.now(UTC) + timedelta(minutes=5)
    wire: Any = Order[MachineSpec, Powered] if isinstance(spec, MachineSpec) else Order[PointSpec, Shares]
    return wire(spec=spec, before=before, mode="live", not_after=soon, **more)


async def ran(spec: MachineSpec, before: Powered | None = None) -> Powered:
    with carrying(Memory()):
        return await run_machine.carry_out(order(spec, before or await run_machine.observe(spec)))


async def back(spec: MachineSpec, before: Powered) -> Powered:
    with carrying(Memory()):
        return await run_machine.carry_back(order(spec, before))


async def pointed(spec: PointSpec) -> Shares:
    return await point_traffic.carry_out(order(spec, await point_traffic.observe(spec)))


# --- machines ---------------------------------------------------------------------------------------------------


async def test_machine_is_started_with_one_request(arm: Cloud) -> None:
    after = await ran(arm.run())
    assert after.running
    assert (arm.orders.power, arm.orders.starts, arm.count("POST")) == ("running", 1, 1)


async def test_connections_serve_one_request_after_another(arm: Cloud) -> None:
    await azure.close()
    before = await run_machine.observe(arm.run())
    with carrying(Memory()):  # carried out, it looks at its end beside settling (Action.tidied): two may ask at once
        await run_machine.apply(arm.run(), before)
    await pointed(arm.point())
    assert len(arm.requests) > 5
    assert len({one.client for one in arm.requests}) == 1


async def test_connection_that_was_closed_meanwhile_is_opened_anew(arm: Cloud) -> None:
    await azure.close()
    await run_machine.observe(arm.run())
    await arm.stop()
    await arm.start()
    assert (await ran(arm.run())).running
    assert arm.orders.starts == 1
    assert arm.requests[0].client not in {one.client for one in arm.requests[1:]}


async def test_connection_that_is_half_open_is_given_up(arm: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    await azure.close()
    monkeypatch.setattr(azure, "ANSWER_SECONDS", 0.5)
    async with relay(arm.ports["arm"]) as between:
        spec = arm.run(at=arm.at(endpoint=f"https://127.0.0.1:{between.port}"))
        await run_machine.observe(spec)
        between.silence()
        with pytest.raises(Transient, match=r"machines\.orders\.endpoint: .* its answer was lost \(SocketTimeout"):
            async with asyncio.timeout(10):
                await run_machine.observe(spec)
        assert (await ran(spec)).running
        assert (arm.orders.starts, between.accepted > 1) == (1, True)
    await azure.close()


async def test_endpoint_that_takes_connections_and_says_nothing_is_out_of_reach(
    arm: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    await azure.close()
    monkeypatch.setattr(azure, "CONNECT_SECONDS", 0.5)
    async with relay(arm.ports["arm"]) as between:
        spec = arm.run(at=arm.at(endpoint=f"https://127.0.0.1:{between.port}"))
        between.hush()
        with pytest.raises(Transient, match=r"machines\.orders\.endpoint: .* cannot be reached \(ConnectionTimeout"):
            async with asyncio.timeout(10):
                await run_machine.observe(spec)
        between.speak()
        assert (await run_machine.observe(spec)).machines
    await azure.close()


async def test_running_machine_is_left_alone(arm: Cloud) -> None:
    arm.orders.power = "running"
    before = await run_machine.observe(arm.run())
    assert run_machine.desired(arm.run(), before) == before
    await ran(arm.run())
    assert arm.count("POST") == 0


@pytest.mark.parametrize("power", ["running", "stopped", "deallocated"])
@pytest.mark.parametrize("wanted", ["running", "deallocated"])
async def test_undo_gives_the_power_back(arm: Cloud, power: str, wanted: str) -> None:
    arm.orders.power = power
    spec = arm.run(wanted)
    before = await run_machine.observe(spec)
    await ran(spec, before)
    assert (arm.orders.power == "running") == (wanted == "running")
    assert await back(spec, before) == before
    assert arm.orders.power == power


async def test_slow_operation_is_waited_for(arm: Cloud) -> None:
    arm.seconds = 1.5
    assert (await ran(arm.run())).running
    assert arm.orders.starts == 1


async def test_what_others_begin_is_waited_for(arm: Cloud) -> None:
    arm.seconds = 1.0
    first = asyncio.create_task(ran(arm.run()))
    await eventually(lambda: arm.orders.power == "starting", "it starts", 10, pause=0.01)
    assert (await run_machine.observe(arm.run())).running
    await first
    assert arm.orders.starts == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_lost_answer_is_no_second_request(arm: Cloud, when: str) -> None:
    arm.seconds = 0.5
    arm.strike("POST", "/start", when, cut)
    with pytest.raises(Transient, match=r"machines\.orders\.endpoint: .* its answer was lost"):
        await ran(arm.run())
    assert (await ran(arm.run())).running
    assert arm.orders.starts == 1


@pytest.mark.parametrize("status", [500, 503, 504])
async def test_gateway_that_fails_after_the_start_is_no_second_request(arm: Cloud, status: int) -> None:
    async def failed() -> bool:
        raise Refusal(status, "GatewayTimeout", "The gateway did not receive a response.", Retry_After="1")

    arm.seconds = 0.5
    arm.strike("POST", "/start", "after", failed)
    with pytest.raises(Transient, match=f"Azure cannot do that now .{status} GatewayTimeout"):
        await ran(arm.run())
    assert (await ran(arm.run())).running
    assert (arm.orders.starts, arm.count("POST")) == (1, 1)


async def test_failed_operation_is_asked_for_again(arm: Cloud) -> None:
    arm.fails = ["InternalExecutionError"]
    spec = arm.run()
    before = await run_machine.observe(spec)
    with pytest.raises(Transient, match=r"machines\.orders\.name: Azure failed to do that \(InternalExecutionError"):
        await ran(spec, before)
    assert arm.orders.power == "deallocated"
    assert (await ran(spec, before)).running
    assert arm.orders.starts == 2


# --- no room ----------------------------------------------------------------------------------------------------


async def test_no_room_is_answered_with_another_size(arm: Cloud) -> None:
    arm.full = {SIZE}
    spec = arm.run("running", Way(size=OTHER_SIZE))
    before = await run_machine.observe(spec)
    assert (await ran(spec, before)).running
    assert (arm.orders.power, arm.orders.size, arm.orders.starts) == ("running", OTHER_SIZE, 2)
    await back(spec, before)
    assert (arm.orders.power, arm.orders.size) == ("deallocated", SIZE)


async def test_no_room_in_a_zone_is_answered_with_the_machine_of_another(arm: Cloud) -> None:
    arm.full = {f"1/{SIZE}", f"1/{OTHER_SIZE}"}
    spec = arm.run("running", Way(size=OTHER_SIZE), Way(instead=arm.at("spare")))
    before = await run_machine.observe(spec)
    after = await ran(spec, before)
    assert after.machines is not None
    assert (after.running, after.machines["spare"].power, after.machines["spare"].zone) == (True, "running", "2")
    assert (arm.orders.power, arm.orders.size) == ("deallocated", SIZE)
    assert await back(spec, before) == before


async def test_no_room_anywhere_says_what_was_tried(arm: Cloud) -> None:
    arm.full = {SIZE, OTHER_SIZE}
    spec = arm.run("running", Way(size=OTHER_SIZE))
    before = await run_machine.observe(spec)
    tried = rf"machines\.orders\.alternatives: Azure has no room for orders {SIZE}, orders {OTHER_SIZE}, and none"
    with pytest.raises(Fatal, match=tried):
        await ran(spec, before)
    assert await back(spec, before) == before
    assert arm.orders.size == SIZE


async def test_retry_by_people_tries_every_size_again(arm: Cloud) -> None:
    arm.full = {SIZE, OTHER_SIZE}
    spec = arm.run("running", Way(size=OTHER_SIZE))
    before = await run_machine.observe(spec)
    with pytest.raises(Fatal):
        await ActivityEnvironment().run(run_machine.activities()[1], order(spec, before))
    arm.full = {OTHER_SIZE}
    assert (await ActivityEnvironment().run(run_machine.activities()[1], order(spec, before))).running
    assert arm.orders.size == SIZE


async def test_stopped_machine_keeps_its_size(arm: Cloud) -> None:
    arm.full, arm.orders.power = {SIZE}, "stopped"
    with pytest.raises(Fatal, match=f"no room for orders {SIZE}, and"):
        await ran(arm.run("running", Way(size=OTHER_SIZE)))
    assert arm.orders.size == SIZE


async def test_no_room_on_the_way_back_is_asked_for_again(arm: Cloud) -> None:
    arm.orders.power = "running"
    spec = arm.run("deallocated")
    before = await run_machine.observe(spec)
    await ran(spec, before)
    arm.full = {SIZE}
    with pytest.raises(Transient, match=r"machines\.orders\.name: Azure has no room for what it was"):
        await back(spec, before)
    arm.full = set()
    assert await back(spec, before) == before


@pytest.mark.parametrize(
    ("code", "said", "found"),
    [
        ("AllocationFailed", "", True),
        ("ZonalAllocationFailed", "", True),
        ("SkuNotAvailable", "", True),
        ("OperationNotAllowed", "exceeding approved Total Regional Cores quota", True),
        ("OperationNotAllowed", "the machine is being deleted", False),
        ("VMStartTimedOut", "", False),
        ("", "", False),
    ],
)
async def test_no_room_is_known_by_its_code(code: str, said: str, found: bool) -> None:
    assert no_room(code, said) is found


# --- an attempt after a crash -----------------------------------------------------------------------------------


async def after_crash(spec: MachineSpec, before: Powered, *carried: Any) -> Powered:
    """Run apply as an attempt that finds what the one before it carried."""
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_details=list(carried))
    found: Powered = await environment.run(run_machine.activities()[1], order(spec, before))
    return found


async def beats_of_a_start(arm: Cloud, spec: MachineSpec, before: Powered, number: int) -> tuple[Any, ...]:
    """Return what an attempt has carried as its ``number``-th text, which was cancelled just then."""
    environment, beats = ActivityEnvironment(), list[tuple[Any, ...]]()
    environment.on_heartbeat = lambda *details: beats.append(details)
    running = asyncio.create_task(environment.run(run_machine.activities()[1], order(spec, before)))
    await eventually(lambda: len(beats) > number, "it has carried that", 10, pause=0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return beats[number]


async def test_token_is_carried_before_the_wait(arm: Cloud) -> None:
    arm.seconds, spec = 1.0, arm.run()
    before = await run_machine.observe(spec)
    told, text = await beats_of_a_start(arm, spec, before, 1)
    under = Under.model_validate_json(text)
    assert (told, under.kind, under.machine, bool(under.token)) == (None, "start", "orders", True)
    assert not any(token in text for token in arm.tokens)
    assert (await after_crash(spec, before, told, text)).running
    assert arm.orders.starts == 1
    assert any("/operations/" in one.path for one in arm.requests)


async def test_request_that_arrived_is_not_sent_again(arm: Cloud) -> None:
    arm.seconds, spec = 0.5, arm.run()
    before = await run_machine.observe(spec)
    sent = arm.count("POST")
    carried = await beats_of_a_start(arm, spec, before, 0)
    # The request is sent by hand, as if it had left just before the crash.
    await ran(spec, before)
    assert (await after_crash(spec, before, *carried)).running
    assert arm.orders.starts == sent + 1


@pytest.mark.drawn
async def test_request_that_did_not_arrive_is_sent(arm: Cloud) -> None:
    spec = arm.run()
    before = await run_machine.observe(spec)
    seen = Under(kind="start", machine="orders", since=datetime.fromtimestamp(arm.orders.changed, UTC).isoformat())
    assert (await after_crash(spec, before, None, seen.model_dump_json())).running
    assert arm.orders.starts == 1


@pytest.mark.parametrize("token", [True, False])
async def test_operation_that_failed_meanwhile_is_not_tried_again(arm: Cloud, token: bool) -> None:
    arm.full, arm.seconds = {SIZE}, 0.5
    spec = arm.run("running", Way(size=OTHER_SIZE))
    before = await run_machine.observe(spec)
    carried = await beats_of_a_start(arm, spec, before, 1)
    await eventually(lambda: arm.orders.failed, "it has failed", 10)
    if not token:
        under = Under.model_validate_json(carried[1]).model_copy(update={"token": ""})
        carried = (None, under.model_dump_json())
    assert (await after_crash(spec, before, *carried)).running
    assert (arm.orders.size, arm.orders.starts) == (OTHER_SIZE, 2)


async def test_operation_that_azure_forgot_is_looked_for_at_the_machine(arm: Cloud) -> None:
    arm.seconds, spec = 0.3, arm.run()
    before = await run_machine.observe(spec)
    carried = await beats_of_a_start(arm, spec, before, 1)
    arm.operations.clear()
    assert (await after_crash(spec, before, *carried)).running
    assert arm.orders.starts == 1


@pytest.mark.parametrize("text", ["no JSON", '{"kind": "unknown"}', '{"kind": "start", "machine": "another"}'])
async def test_what_another_build_carried_is_left(arm: Cloud, text: str) -> None:
    before = await run_machine.observe(arm.run())
    assert (await after_crash(arm.run(), before, None, text)).running


# --- throttled --------------------------------------------------------------------------------------------------


async def test_throttled_request_waits_as_it_was_told(arm: Cloud) -> None:
    began = time.monotonic()
    arm.throttle(2, 0.3)
    assert (await ran(arm.run())).running
    assert time.monotonic() - began > 0.6
    assert arm.orders.starts == 1


async def test_throttled_start_is_sent_once_it_may(arm: Cloud) -> None:
    async def throttled() -> bool:
        arm.throttle(1, 0.2)
        return False

    arm.strike("POST", "/start", "before", throttled)
    assert (await ran(arm.run())).running
    assert (arm.orders.starts, sum(one.method == "POST" for one in arm.requests)) == (1, 2)


async def test_long_wait_is_left_to_the_next_attempt(arm: Cloud) -> None:
    arm.throttle(1, 77)
    environment = ActivityEnvironment()
    environment.info = replace(
        environment.info,
        heartbeat_timeout=timedelta(seconds=9),
        start_to_close_timeout=timedelta(seconds=30),
        started_time=datetime.now(UTC),
    )
    with pytest.raises(Transient, match="Azure throttles, and asks to wait 77 s") as caught:
        await environment.run(run_machine.activities()[0], arm.run())
    assert caught.value.next_retry_delay == timedelta(seconds=77)


# --- who asks ---------------------------------------------------------------------------------------------------


async def test_expired_token_is_renewed(arm: Cloud) -> None:
    await run_machine.observe(arm.run())
    arm.revoke()
    assert (await ran(arm.run())).running
    assert [one.status for one in arm.requests].count(401) == 1


async def test_token_that_expires_while_it_waits_is_renewed(arm: Cloud) -> None:
    arm.seconds = 1.0

    async def revoked() -> bool:
        arm.revoke()
        return False

    arm.strike("POST", "/start", "after", revoked)
    assert (await ran(arm.run())).running
    assert arm.orders.starts == 1
    assert 401 in [one.status for one in arm.requests]


async def test_token_of_a_stranger_is_refused(arm: Cloud) -> None:
    arm.token_seconds = -1
    arm.revoke()
    with pytest.raises(
        Refused, match=r"machines\.orders\.subscription: Azure does not take the token .* nor a new one"
    ):
        await run_machine.observe(arm.run())


async def test_worker_without_an_identity_says_what_it_needs(arm: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    await azure.close()
    for name in arm.environment:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    with pytest.raises(Refused, match=r"azure-identity finds nobody on this worker .* AZURE_CLIENT_ID"):
        await run_machine.observe(arm.run())
    await azure.close()


async def test_identity_that_does_not_answer_is_asked_again(arm: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    await azure.close()
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:9/token")
    with pytest.raises(Transient, match=r"machines\.orders: who gives out tokens .* does not do so now"):
        await run_machine.observe(arm.run())
    monkeypatch.undo()
    await azure.close()
    assert (await run_machine.observe(arm.run())).machines


UUID = "99999999-9999-9999-9999-999999999999"
WRONG: dict[str, tuple[dict[str, Any], type[RecoveryError], str]] = {
    "subscription": ({"subscription": UUID}, Invalid, r"machines\.orders\.subscription: Azure has none of this name"),
    "group": ({"resource_group": "other"}, Invalid, r"machines\.orders\.resource_group: Azure has none of this name"),
    "name": ({"name": "other"}, Invalid, r"machines\.orders\.name: Azure has none of this name"),
    "certificate": ({"ca": None}, Refused, r"machines\.orders\.ca: the certificate of .* nothing was sent"),
    "file": ({"ca": "/nowhere/arm.pem"}, Invalid, r"machines\.orders\.ca: the file /nowhere/arm.pem .* cannot be read"),
    "endpoint": ({"endpoint": "https://127.0.0.1:9"}, Transient, r"machines\.orders\.endpoint: .* cannot be reached"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_wrong_field_is_named(arm: Cloud, what: str) -> None:
    changes, kind, said = WRONG[what]
    spec = arm.run(at=arm.at().model_copy(update=changes))
    with pytest.raises(kind, match=said):
        await run_machine.observe(spec)
    assert arm.count("POST") == 0


async def test_wrong_profile_is_named(arm: Cloud) -> None:
    with pytest.raises(Invalid, match=r"directors\.front\.profile: Azure has none of this name"):
        await point_traffic.observe(arm.point(profile="back"))
    with pytest.raises(
        Invalid, match=r"directors\.front\.sites\.south: the profile has no endpoint nobody; it has: no"
    ):
        await point_traffic.observe(arm.point(sites={"north": "north-ep", "south": "nobody"}))


# --- whose hand -------------------------------------------------------------------------------------------------


async def test_mark_leaves_other_tags(arm: Cloud) -> None:
    arm.orders.tags = {"owner": "shop"}
    with acting(Hand("orders", 3, 1, 1)):
        await ran(arm.run())
    assert arm.orders.tags == {"owner": "shop", MARK: "3 1 1"}


async def test_later_hand_is_not_overtaken(arm: Cloud) -> None:
    arm.orders.tags = {MARK: "9 1 1"}
    with (
        acting(Hand("orders", 8, 5, 1)),
        pytest.raises(Stale, match=r"epoch 9 \(order 1, attempt 1\) has written since"),
    ):
        await ran(arm.run())
    assert arm.orders.power == "deallocated"


async def test_mark_that_nobody_wrote_so_is_named(arm: Cloud) -> None:
    arm.orders.tags = {MARK: "mine"}
    with acting(Hand("orders", 8, 5, 1)), pytest.raises(Invalid, match=f"its tag {MARK} is not as a recovery wrote it"):
        await ran(arm.run())


async def test_mark_is_written_on_what_was_read(arm: Cloud) -> None:
    async def changed() -> bool:
        arm.orders.tags, arm.orders.etag = {"owner": "another"}, arm.orders.etag + 1
        return False

    arm.strike("PATCH", "/orders", "before", changed)
    with acting(Hand("orders", 3, 1, 1)):
        await ran(arm.run())
    assert arm.orders.tags == {"owner": "another", MARK: "3 1 1"}


# --- traffic ----------------------------------------------------------------------------------------------------


async def test_traffic_is_moved_and_put_back(arm: Cloud) -> None:
    spec, was = arm.point("south"), arm.shares()
    before = await point_traffic.observe(spec)
    await pointed(spec)
    assert arm.shares() == {"north": ("Disabled", 10), "south": ("Enabled", 20)}
    assert await point_traffic.carry_back(order(spec, before)) == before
    assert arm.shares() == was


async def test_traffic_is_taken_from_one_before_the_other_gets_it(arm: Cloud) -> None:
    await pointed(arm.point("south"))
    assert [one.path.rpartition("/")[2] for one in arm.requests if one.method == "PATCH"] == ["north-ep", "south-ep"]


async def test_nobody_gets_traffic(arm: Cloud) -> None:
    await pointed(arm.point(""))
    assert {status for status, _ in arm.shares().values()} == {"Disabled"}


async def test_traffic_is_shared_by_weight(arm: Cloud) -> None:
    spec = arm.point("", weights={"north": 900, "south": 100})
    before = await point_traffic.observe(spec)
    await pointed(spec)
    assert arm.shares() == {"north": ("Enabled", 900), "south": ("Enabled", 100)}
    await point_traffic.carry_back(order(spec, before))
    assert arm.shares() == {"north": ("Enabled", 10), "south": ("Disabled", 20)}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"site": "west"}, "sites: front has no endpoint of west"),
        ({"site": "", "weights": {"west": 1}}, "sites: front has no endpoint of west"),
        ({"weights": {"north": 1}}, "weights: give either"),
        ({"site": "", "weights": {"north": 0}}, "weights: have to be from 1 to 1000"),
    ],
)
async def test_wrong_share_is_refused(arm: Cloud, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        arm.point(**wrong)
    with pytest.raises(ValueError, match="sites: front has no endpoint of west"):
        Await.model_validate(arm.point().model_dump() | {"site": "west"})


async def test_endpoint_that_somebody_changed_is_left(arm: Cloud) -> None:
    spec = arm.point("south")
    before = await point_traffic.observe(spec)

    async def changed() -> bool:
        arm.profiles["front"].endpoints["north"].weight = 33
        return False

    arm.strike("GET", "/front", "before", changed, skip=1)
    with pytest.raises(Drifted, match="somebody else has just changed an endpoint"):
        await point_traffic.carry_out(order(spec, before))
    assert arm.count("PATCH") == 0


async def test_monitor_of_the_profile_is_seen(arm: Cloud) -> None:
    arm.profiles["front"].endpoints["north"].health, arm.profiles["front"].tags = "Degraded", {MARK: "4 1 1"}
    found = await see_traffic.observe(TrafficSpec.model_validate(arm.point().model_dump()))
    assert (found.pointed.at, found.pointed.site, found.epoch) == ("site", "north", 4)
    assert (found.enabled, found.monitor, found.method, found.ttl) == (True, "Degraded", "Weighted", 60)
    seen = {site: (one.name, one.status, one.weight, one.monitor) for site, one in found.sites.items()}
    assert seen == {
        "north": ("north-ep", "Enabled", 10, "Degraded"),
        "south": ("south-ep", "Disabled", 20, "Disabled"),
    }
    only = TrafficSpec.model_validate(arm.point().model_dump() | {"sites": {"south": "south-ep"}})
    assert (await see_traffic.observe(only)).others == ("north-ep",)


async def test_monitor_is_waited_for(arm: Cloud) -> None:
    south, spec = arm.profiles["front"].endpoints["south"], arm.point("south")
    south.health = "CheckingEndpoint"
    await pointed(spec)

    async def well() -> bool:
        south.health = "Online"
        return False

    arm.strike("GET", "/front", "after", well)
    found = await healthy.observe(Await.model_validate(spec.model_dump() | {"seconds": 20}))
    assert (found.status, found.monitor) == ("Enabled", "Online")
    south.health = "Degraded"
    found = await healthy.observe(Await.model_validate(spec.model_dump() | {"seconds": 0}))
    assert found.monitor == "Degraded"


async def test_later_hand_keeps_the_traffic(arm: Cloud) -> None:
    arm.profiles["front"].tags = {MARK: "9 1 1", "owner": "shop"}
    with acting(Hand("front", 8, 5, 1)), pytest.raises(Stale):
        await pointed(arm.point("south"))
    with acting(Hand("front", 9, 2, 1)):
        await pointed(arm.point("south"))
    assert arm.profiles["front"].tags == {MARK: "9 2 1", "owner": "shop"}


# --- the lab's own server ---------------------------------------------------------------------------------------


async def test_server_keeps_its_ports_and_what_it_has(arm: Cloud) -> None:
    arm.seconds = 0.3
    running = asyncio.create_task(ran(arm.run()))
    await eventually(lambda: arm.orders.power == "starting", "it starts", 10, pause=0.01)
    await arm.stop()
    found = (await asyncio.gather(running, return_exceptions=True))[0]
    assert isinstance(found, Transient), repr(found)
    await eventually(lambda: arm.orders.power == "running", "it goes on", 10)
    await arm.start()
    assert (await ran(arm.run())).running
    assert arm.orders.starts == 1


async def test_server_keeps_its_certificate(tmp_path: Path) -> None:
    first = Arm(tmp_path)
    text = first.ca.read_bytes()
    assert Arm(tmp_path).ca.read_bytes() == text
    assert (tmp_path / "arm.key").stat().st_mode & 0o777 == 0o600


async def test_where_it_is_comes_from_the_estate(arm: Cloud) -> None:
    where = {"site": "north", **arm.at().model_dump(include={"subscription", "resource_group", "endpoint", "ca"})}
    orders = Machine.model_validate(
        where | {"name": "orders", "alternatives": [{"size": OTHER_SIZE}, {"machine": "spare"}]}
    )
    machines = {"orders": orders, "spare": Machine.model_validate(where | {"name": "spare"})}
    spec = MachineSpec.of("orders", machines, "running")
    assert spec.alternatives == (Way(size=OTHER_SIZE), Way(instead=arm.at("spare")))
    assert AzureAt.of(orders).login == arm.at().login
    assert (await ran(spec)).running
    front = {"kind": "traffic-manager", "profile": "front", "sites": arm.point().sites, "url": "https://shop.example"}
    where = arm.at().model_dump(include={"subscription", "resource_group", "endpoint", "ca"})
    manager = TrafficManager.model_validate(where | front)
    assert PointSpec.of("front", manager, site="south", drill=True) == arm.point("south")
