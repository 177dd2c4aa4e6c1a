"""The printed pages of SessionRecovery: their shell is run on the stores of two sites, over SSH."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.estate import Lab
from tests.conftest import FreshLab
from tests.console.conftest import Starter
from tests.console.test_switch_by_hand import Desk
from tests.matrix.two_sites import session_store

pytestmark = [
    pytest.mark.skipif(shutil.which("ssh") is None, reason="the page needs ssh where it is used"),
    pytest.mark.drawn,
]
LOST = {f"session:lost-{number}": str(number) for number in range(20)}


@pytest.fixture(scope="module")
def two(fresh_labs: FreshLab) -> Lab:
    lab = fresh_labs()
    lab.up(south=True, rate=20)
    return lab


@pytest.fixture
def desk(two: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    found = Desk(two, tmp_path_factory.mktemp("d"))
    yield found
    found.leave()


def printed(starter: Starter, lab: Lab, runbook: str, *words: str) -> str:
    return starter("print", f"lab/{runbook}", *words, RECOVERY_STATE=str(lab.state)).out


def done(desk: Desk, page: str, **more: str) -> str:
    """Use a page as one who decided; return what it said."""
    found = desk.run(page, DECIDED="bob", **more)
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout


def held(lab: Lab, site: str) -> dict[str, str]:
    """Return which of the sessions that were lost a store has."""
    with session_store(lab.sites[site]) as store:
        return {key: found for key in LOST if (found := store.get(key)) is not None}


def switches(lab: Lab) -> list[Path]:
    return list(lab.place.root.rglob("kill-switch"))


def fenced(lab: Lab, site: str) -> bool:
    with session_store(lab.sites[site]) as store:
        found: dict[str, str] = store.config_get("min-replicas-to-write")
    return found != {"min-replicas-to-write": "0"}


def test_split_store_is_reattached_by_hand(two: Lab, desk: Desk, starter: Starter) -> None:
    with session_store(two.sites["south"]) as south:
        south.replicaof("NO", "ONE")
        south.mset(LOST)
    page = printed(starter, two, "reattach-sessions-south", "--shell")
    unasked = desk.run(page)
    assert "STOP: nobody decided" in unasked.stderr
    assert (held(two, "south"), fenced(two, "south"), desk.stores()["south"]) == (LOST, True, "primary")
    back = re.findall(
        r"```sh( back)?\n(.*?)^```", printed(starter, two, "reattach-sessions-south"), re.MULTILINE | re.DOTALL
    )
    preparing = [shell for kind, shell in back if not kind][:2]
    undo = [shell for kind, shell in back if kind]
    gone_back = desk.run("set -e\n" + "".join((*preparing, '. "$WORK/found"\n', *undo)))
    assert (gone_back.returncode, gone_back.stderr) == (0, "")
    assert not fenced(two, "south")

    said = done(desk, page)
    assert f"only sessions-south has: {len(LOST)}\n" in said
    assert desk.stores() == {"north": "primary", "south": "replica"}
    assert (held(two, "south"), fenced(two, "south"), switches(two)) == ({}, False, [])
    kept = list(two.place.at("south").copies.glob("sessions-south.replaced-by-hand-*/sessions.rdb"))
    assert len(kept) == 2
    assert all(b"session:lost-19" in file.read_bytes() for file in kept)
    again = desk.run(page, DECIDED="bob")
    assert "STOP: sessions-south replicates sessions already" in again.stderr


def test_replica_is_promoted_by_hand_there_and_back(two: Lab, desk: Desk, starter: Starter) -> None:
    for site, other, runbook in (("south", "north", "promote-sessions-south"), ("north", "south", "promote-sessions")):
        done(desk, printed(starter, two, runbook, "--shell"))
        assert desk.stores() == {site: "primary", other: "replica"}
        assert (fenced(two, site), fenced(two, other), switches(two)) == (False, False, [])


def test_replica_of_a_lost_store_is_promoted_by_hand(two: Lab, desk: Desk, starter: Starter) -> None:
    two.sites["north"].valkey.stop()
    try:
        page = printed(starter, two, "promote-sessions-south", "--shell")
        assert "Transient: " in desk.run(page, DECIDED="bob").stderr
        assert desk.stores()["south"] == "replica"
        done(desk, page, LOST="yes")
        assert desk.stores()["south"] == "primary"
    finally:
        two.sites["north"].valkey.start()
    done(desk, printed(starter, two, "reattach-sessions-south", "--shell"))
    assert desk.stores() == {"north": "primary", "south": "replica"}


def test_lost_sessions_are_restored_by_hand(two: Lab, desk: Desk, starter: Starter) -> None:
    north = two.sites["north"]
    file = north.place.copies / "lost.rdb"
    with session_store(north) as store:
        store.mset(LOST)
        store.save()
        shutil.copy(north.place.valkey / "dump.rdb", file)
        north.who.own(file)
        store.delete(*LOST)
        store.set("session:lost-0", "as a client wrote it since")
    page = printed(starter, two, "restore-sessions", "-p", f"snapshot={file}", "--shell")
    said = done(desk, page)
    assert f"add\t{len(LOST) - 1}\n" in said
    for site in ("north", "south"):
        assert held(two, site) == LOST | {"session:lost-0": "as a client wrote it since"}
    with session_store(north) as store:
        assert store.keys("recovery:by-hand*") == []
