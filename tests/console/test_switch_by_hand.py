"""The printed page of a switch: its shell is run on a lab of two sites, over SSH, there, back, and undone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import ledger
from lab.estate import Lab
from tests.conftest import FreshLab
from tests.console.conftest import Starter
from tests.console.test_by_hand import blocks_of
from tests.lab.pairs import ask

pytestmark = [
    pytest.mark.skipif(shutil.which("ssh") is None, reason="the page needs ssh where it is used"),
    pytest.mark.drawn,
]
ROLE = "select case when pg_is_in_recovery() then 'standby' else 'primary' end"


class Desk:
    """A machine that reaches both sites: a shell, ssh with the lab's key, and a home of its own."""

    def __init__(self, lab: Lab, home: Path) -> None:
        self.lab, self.home = lab, home
        keys = f"-i {lab.place.ssh / 'client_key'} -o UserKnownHostsFile={lab.place.ssh / 'known_hosts'}"
        kept = f"-o ControlMaster=auto -o ControlPath={home}/%p -o ControlPersist=60"
        self.ssh = f"ssh -F none -o BatchMode=yes {keys} {kept}"

    def run(self, text: str, shell: str = "sh", **more: str) -> subprocess.CompletedProcess[str]:
        """Run ``text`` as a person here would."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "SSH": self.ssh, **more}
        return subprocess.run(
            [shell, "-s"], input=text, env=environment, capture_output=True, text=True, timeout=180, check=False
        )

    def leave(self) -> None:
        """End the connections that were kept."""
        for path in self.home.glob("[0-9]*"):
            subprocess.run([*self.ssh.split(), "-O", "exit", "x"], capture_output=True, check=False)
            path.unlink(missing_ok=True)

    def roles(self) -> dict[str, str]:
        return {site: ask(database, ROLE) for site, database in self.lab.databases.items()}

    def stores(self) -> dict[str, str | None]:
        return {site: one.valkey.role() for site, one in self.lab.sites.items()}


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


def acknowledged(lab: Lab, more: int = 20) -> set[int]:
    """Return the orders that were acknowledged so far, once some more have been since now."""
    count, deadline = len(ledger.acknowledged(lab.place.load)), time.monotonic() + 20
    while len(ledger.acknowledged(lab.place.load)) <= count + more:
        assert time.monotonic() < deadline, "orders are taken within 20 s"
        time.sleep(0.05)
    return {row.number for row in ledger.acknowledged(lab.place.load)}


def assert_nothing_lost(lab: Lab) -> None:
    known = acknowledged(lab)
    numbers = [int(number) for number in ask(lab.primary, "select number from orders").split()]
    assert len(numbers) == len(set(numbers))
    assert known - set(numbers) == set()


def printed(starter: Starter, lab: Lab, site: str, *words: str) -> str:
    return starter("print", f"lab/activate-{site}", *words, RECOVERY_STATE=str(lab.state)).out


def switches(lab: Lab) -> list[Path]:
    """Return what is left on the hosts."""
    return [*lab.place.root.rglob("*.switch-*"), *lab.place.root.rglob("kill-switch")]


def test_printed_shell_switches_there_and_back(two: Lab, desk: Desk, starter: Starter) -> None:
    unasked = desk.run(printed(starter, two, "south", "--shell"))
    assert "STOP: nobody decided; nothing was changed" in unasked.stderr
    assert switches(two) == []
    for site, other in (("south", "north"), ("north", "south")):
        acknowledged(two)
        done = desk.run(printed(starter, two, site, "--shell"), DECIDED="bob")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert re.search(r"^ *20 200$", done.stdout, re.MULTILINE)
        assert desk.roles() == {site: "primary", other: "standby"}
        assert desk.stores() == {site: "primary", other: "replica"}
        assert (two.director.site(), two.sites[other].service.running()) == (site, None)
        assert switches(two) == []
        assert_nothing_lost(two)
    refused = desk.run(printed(starter, two, "north", "--shell"), DECIDED="bob")
    assert "STOP: orders-south is no primary: there is nothing to move from" in refused.stderr


@pytest.mark.parametrize("last", ["Keep what the standbys are", "Start what serves"])
def test_undo_block_brings_the_old_site_back(two: Lab, desk: Desk, starter: Starter, last: str) -> None:
    page = printed(starter, two, "south")
    steps = re.split(r"^## ", page, flags=re.MULTILINE)
    until = next(number for number, step in enumerate(steps) if last in step)
    plain, _ = blocks_of("## ".join(steps[: until + 1]))
    _, (undo,) = blocks_of(page)
    work = desk.home / "by-hand-lab-activate-south"
    work.mkdir()
    (work / "decided").write_text("past the point of no return, at the switch before\n")
    begun = desk.run("set -e\n" + "".join(plain), DECIDED="bob")
    assert begun.returncode == 0, begun.stderr
    assert two.director.site() == ("north" if last.startswith("Keep") else "nowhere")
    assert len([path for path in switches(two) if path.name == "kill-switch"]) == 2
    undone = desk.run("set -e\n" + "".join((*plain[:2], undo)), "bash")
    assert undone.returncode == 0, undone.stderr
    assert desk.roles() == {"north": "primary", "south": "standby"}
    assert desk.stores() == {"north": "primary", "south": "replica"}
    assert two.director.site() == "north"
    assert switches(two) == []
    assert_nothing_lost(two)


def test_undo_block_refuses_after_clients_were_let_in(two: Lab, desk: Desk, starter: Starter) -> None:
    plain, (undo,) = blocks_of(printed(starter, two, "south"))
    work = desk.home / "by-hand-lab-activate-south"
    work.mkdir()
    (work / "found").touch()
    (work / "decided").write_text("past the point of no return since today\n")
    done = desk.run("set -e\n" + "".join((*plain[:2], undo)))
    assert done.returncode != 0
    assert "STOP: clients were let in; nothing is undone" in done.stderr
    pasted = desk.run("".join((*plain[:2], undo)))
    assert pasted.stderr.count("STOP: it was stopped before") > 5
    assert desk.roles() == {"north": "primary", "south": "standby"}


def test_kill_switch_of_others_is_left_alone(two: Lab, desk: Desk, starter: Starter) -> None:
    switch = two.place.at("south").jobs / "kill-switch"
    switch.parent.mkdir(exist_ok=True)
    switch.write_text("carol: look first\n")
    try:
        done = desk.run(printed(starter, two, "south", "--shell"), DECIDED="bob")
        assert "STOP: mend these faults (found: the kill switch" in done.stderr
        assert switch.read_text() == "carol: look first\n"
    finally:
        switch.unlink()
    assert two.director.site() == "north"


def test_page_counts_its_steps_and_fills_every_place(two: Lab, starter: Starter) -> None:
    page = printed(starter, two, "south")
    steps = [int(number) for number in re.findall(r"^## (\d+)\. ", page, re.MULTILINE)]
    assert steps == list(range(1, 13))
    assert "{{" not in page
    for part in ("point of no return", "1 × dba or incident-commander (bob, carol) within 1 h", "pg_ctl", "REPLICAOF"):
        assert part in page
