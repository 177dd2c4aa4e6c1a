"""The printed pages of a lost site: the other one takes over; the lost one is fenced, read, rebuilt, gone home to."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator

import pytest

from lab.estate import Lab
from tests.conftest import FreshLab
from tests.console.conftest import Starter
from tests.console.test_switch_by_hand import Desk, acknowledged, switches
from tests.lab.pairs import ask

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="the page needs ssh where it is used")


@pytest.fixture(scope="module")
def two(fresh_labs: FreshLab) -> Lab:
    lab = fresh_labs()
    lab.up(south=True, rate=60)
    return lab


@pytest.fixture
def desk(two: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    found = Desk(two, tmp_path_factory.mktemp("d"))
    yield found
    found.leave()


def printed(starter: Starter, lab: Lab, runbook: str, *words: str) -> str:
    return starter("print", f"lab/{runbook}", *words, RECOVERY_STATE=str(lab.state)).out


def test_printed_shells_take_over_fence_rebuild_and_lead_home(two: Lab, desk: Desk, starter: Starter) -> None:
    north = two.databases["north"]
    acknowledged(two)
    two.break_("north")
    taken = desk.run(printed(starter, two, "take-over-south", "--shell"), DECIDED="bob")
    assert taken.returncode == 0, taken.stderr
    assert two.director.site() == "south"

    north.start()  # with its old configuration, asking nobody
    with north.connect("orders") as connection:
        connection.execute("insert into orders (number, customer, amount) values (-1, 'pinned', 1)")
    two.sites["north"].start_ssh()
    two.sites["north"].await_ssh()
    two.sites["north"].valkey.start()
    page = printed(starter, two, "fail-back-north", "--shell")
    unfenced = desk.run(page, DECIDED="bob")
    assert "STOP: orders would come up as a primary: fence it first" in unfenced.stderr
    assert north.running() is not None
    fence = re.findall(r"```sh( back)?\n(.*?)^```", printed(starter, two, "take-over-south"), re.MULTILINE | re.DOTALL)
    preparing, back = [shell for kind, shell in fence if not kind][:2], [shell for kind, shell in fence if kind]
    fenced = desk.run("set -e\n" + "".join((*preparing, *back)))
    assert fenced.returncode == 0, fenced.stderr
    assert (north.running(), north.standby()) == (None, True)

    rebuilt = desk.run(page, DECIDED="bob")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert desk.roles() == {"south": "primary", "north": "standby"}
    assert desk.stores() == {"south": "primary", "north": "replica"}
    (manifest,) = two.place.north.glob("copies/orders.divergent-*/manifest.tsv")
    with (manifest.parent / "public.orders.csv").open(newline="") as file:
        rows = {int(row["number"]): row["customer"] for row in csv.DictReader(file)}
    assert rows[-1] == "pinned"
    assert "-1" in manifest.read_text()
    again = desk.run(page, DECIDED="bob")
    assert again.returncode == 0, again.stderr  # there is nothing more to read, or to rebuild

    home = desk.run(printed(starter, two, "activate-north", "--shell"), DECIDED="bob")
    assert home.returncode == 0, home.stderr
    assert desk.roles() == {"north": "primary", "south": "standby"}
    assert (two.director.site(), switches(two)) == ("north", [])
    lost = acknowledged(two) - {int(number) for number in ask(north, "select number from orders").split()}
    assert lost <= set(rows)
