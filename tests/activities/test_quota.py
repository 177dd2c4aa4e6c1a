"""What Azure grants, asked through its own packages on the lab's Resource Manager."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from activities import azure
from activities.capacity import quota
from activities.machines import Way
from activities.quota import REGIONAL, Grant, QuotaSeen, QuotaSpec, Size, look_at_quota
from lab.azure import SUBSCRIPTION, Refusal
from lab.azure_resources import LOCATION, SIZE, Sku
from tests.azures import OTHER_SIZE, Cloud, cloud

pytestmark = pytest.mark.asyncio(loop_scope="module")

REGION = f"{SUBSCRIPTION}/{LOCATION}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cloud]:
    async with cloud(tmp_path_factory.mktemp("azure")) as found:
        yield found


@pytest.fixture
def arm(running: Cloud) -> Cloud:
    running.anew()
    return running


def asking(arm: Cloud) -> QuotaSpec:
    """Return how it is asked for the machine, which may be started in another size, or another one instead."""
    return QuotaSpec(system="south", machines=(arm.run("running", Way(size=OTHER_SIZE), Way(instead=arm.at("spare"))),))


async def seen(arm: Cloud) -> QuotaSeen:
    return await look_at_quota.observe(asking(arm))


async def test_what_is_used_and_granted_is_told_with_the_sizes_that_may_be_started(arm: Cloud) -> None:
    arm.granted, arm.others = {"standardDSv5Family": 10, REGIONAL: 12}, {"standardESv5Family": 5}
    found = await seen(arm)
    assert found.why == ""
    assert {name: (one.power, one.size, one.zone) for name, one in found.machines.items()} == {
        "orders": ("deallocated", SIZE, "1"), "spare": ("deallocated", SIZE, "2"),
    }  # fmt: skip
    region = found.regions[REGION]
    assert region.grants["standardDSv5Family"] == Grant(used=4, limit=10)  # both, though they are deallocated
    assert region.grants[REGIONAL] == Grant(used=9, limit=12)
    assert region.sizes == {
        SIZE: Size(cores=2, family="standardDSv5Family"),
        OTHER_SIZE: Size(cores=2, family="standardESv5Family"),  # it stands on another page of their list
    }
    assert quota(asking(arm).machines, found).short == ()


async def test_nothing_is_changed_by_looking(arm: Cloud) -> None:
    await seen(arm)
    assert {one.method for one in arm.requests} == {"GET"}


async def test_what_is_short_by_the_look_is_refused_by_azure(arm: Cloud) -> None:
    """Both ways, for the same reason: what is told before is what would come."""
    arm.granted = {"standardDSv5Family": 3}
    (short,) = quota((arm.run(),), await seen(arm)).short
    assert (short.needed, short.there, short.system) == (2, 1, "orders")
    with pytest.raises(azure.NoRoom, match="OperationNotAllowed"):
        await azure.asked(arm.at(), arm.at().field, lambda session: session.compute.virtual_machines.begin_start(
            arm.at().resource_group, "orders"
        ))  # fmt: skip
    assert arm.orders.starts == 0
    arm.granted = {"standardDSv5Family": 4}
    assert quota((arm.run(),), await seen(arm)).short == ()


@pytest.mark.parametrize(("barred", "where"), [(("",), "in this region"), (("1",), "in zone 1")])
async def test_size_that_the_subscription_does_not_get_is_told(arm: Cloud, barred: tuple[str, ...], where: str) -> None:
    arm.sizes[SIZE] = Sku("standardDSv5Family", 2, barred)
    assert [one.there_as for one in quota((arm.run(),), await seen(arm)).short] == [
        f"this subscription gets none {where}"
    ]


async def test_who_may_not_see_quotas_is_told_why_and_nothing_is_said_to_be_enough(arm: Cloud) -> None:
    async def refuse() -> bool:
        raise Refusal(403, "AuthorizationFailed", "The client does not have authorization to read usages.")

    arm.strike("GET", "/usages", "before", refuse)
    found = await seen(arm)
    assert "AuthorizationFailed" in found.regions[REGION].why
    assert "machines.orders.subscription" in found.regions[REGION].why
    assert [one.enough for one in quota((arm.run(),), found).needs] == [None]


async def test_machine_that_is_not_there_is_no_failure(arm: Cloud) -> None:
    del arm.machines["spare"]
    assert "machines.spare.name: Azure has none of this name" in (await seen(arm)).why


async def test_azure_that_does_not_answer_is_not_waited_for(arm: Cloud) -> None:
    async def silent() -> bool:
        await asyncio.sleep(2)
        return True

    arm.strike("GET", "/usages", "before", silent)
    asked = asking(arm).model_copy(update={"seconds": 0.5})
    assert (await look_at_quota.observe(asked)).why == "Azure has not told within 0.5 s"


async def test_azure_that_is_away_is_no_failure(arm: Cloud) -> None:
    await arm.stop()
    try:
        found = await seen(arm)
    finally:
        await arm.start()
    assert "cannot be reached" in found.why
