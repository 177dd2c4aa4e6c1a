"""What guards the switch of two real databases: the safety rules are asked where it would be done, both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
import pytest_asyncio

from activities import ssh
from activities.sites import Pair, Sites
from activities.switching import PairSpec, SwitchAction, promote_standby, retire
from lab.estate import Lab
from recovery import fencing
from recovery.actions import Order
from recovery.errors import Refused
from recovery.models import Start, Wire
from recovery.safety import Rules
from runbooks.library import library
from runbooks.procedures.data_center_activation import Parameters
from tests.conftest import FreshLab
from tests.lab.pairs import ask
from tests.runbooks.samples import ROOT

T = TypeVar("T", bound=Wire)
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def two(fresh_labs: FreshLab) -> Lab:
    lab = fresh_labs()
    lab.up(load=False, south=True)
    return lab


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await ssh.close()


@dataclasses.dataclass
class Moving:
    """A move to south, of which a test does single steps."""

    lab: Lab
    sites: Sites

    @property
    def pair(self) -> Pair:
        return self.sites.databases[0]

    @property
    def old(self) -> PairSpec:
        return self.sites.of_old(self.pair)

    @property
    def new(self) -> PairSpec:
        return self.sites.of_new(self.pair)

    def roles(self) -> list[str]:
        return [ask(one, "select pg_is_in_recovery()") for one in self.lab.databases.values() if one.running()]


@pytest.fixture
def moving(two: Lab) -> Moving:
    frozen = library(ROOT, two.state / "estate.env").freeze(
        Start(runbook="lab/activate-south", reason="a test", mode="live"), "DataCenterActivation"
    )
    wanted = Parameters.model_validate(frozen.parameters)
    return Moving(two, Sites(frozen.systems, frozen.estate, wanted, "guards"))


async def order(action: SwitchAction[T], spec: PairSpec, back: T | None = None) -> T:
    """Carry an order out on what is there, or back to what was there; return what was before."""
    before = back or await action.observe(spec)
    given: Order[PairSpec, T] = Order(
        spec=spec, before=before, mode="live", not_after=datetime.now(UTC) + timedelta(minutes=5)
    )
    with fencing.acting(fencing.Hand()):
        await (action.carry_out(given) if back is None else action.carry_back(given))
    return before


async def test_no_second_primary_is_opened(moving: Moving) -> None:
    with pytest.raises(Refused, match=r"orders takes writes: two would. Fence it, then go on with orders-south"):
        await order(promote_standby, moving.new)
    assert moving.roles() == ["f", "t"]


async def test_nothing_is_fenced_where_the_rules_forbid_it(moving: Moving) -> None:
    none = moving.old.model_copy(update={"rules": Rules(max_fenced=0)})
    with pytest.raises(Refused, match=r"at most 0 may be at a time"):
        await order(retire, none)
    assert moving.roles() == ["f", "t"]


async def test_last_site_is_not_shut(moving: Moving) -> None:
    south = moving.lab.databases["south"]
    south.stop(quick=False)
    try:
        with pytest.raises(
            Refused, match=r"orders would be shut, and nothing else could serve: orders-south is fenced"
        ):
            await order(retire, moving.old)
    finally:
        south.start()
    assert moving.roles() == ["f", "t"]


async def test_fenced_primary_is_not_opened_beside_its_successor(moving: Moving) -> None:
    was = await order(retire, moving.old)
    standby = await order(promote_standby, moving.new)
    with pytest.raises(Refused, match=r"orders-south takes writes: two would. Fence it, then go on with orders"):
        await order(retire, moving.old, back=was)
    moving.lab.databases["south"].stop(quick=True)  # as if it had died: it would come up as a primary
    with pytest.raises(Refused, match=r"orders-south takes writes, or may: it is stopped, but would come up as a pri"):
        await order(retire, moving.old, back=was)
    assert moving.roles() == []
    await order(promote_standby, moving.new, back=standby)
    await order(retire, moving.old, back=was)
    assert moving.roles() == ["f"]
