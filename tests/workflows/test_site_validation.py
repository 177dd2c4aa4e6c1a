"""What serves clients is started in its order, each once what it needs is ready; then the site is checked."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from lab.estate import Lab
from lab.place import write_private
from recovery.report import Report
from runbooks.procedures.data_center_activation import CHECKS
from tests.labs import lab_apart
from tests.running import ROOT, Running
from tests.switches import activate, at_both_sites

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

SCRIPT = """#!/bin/sh
# start NAME SECONDS | stop NAME | status NAME | ready NAME; it writes down what became of whom, in that order
cd "${0%/*}" || exit 1
case $1 in
    start) : >"$2.started" && date -d "+$3 seconds" +%s%N >"$2.until" && echo "start $2" >>log ;;
    stop) rm -f "$2.started" "$2.until" && echo "stop $2" >>log ;;
    status) [ -e "$2.started" ] ;;
    ready) [ "$(date +%s%N)" -ge "$(cat "$2.until")" ] && echo "ready $2" >>log ;;
esac
"""
NEEDS: dict[str, tuple[float, list[str]]] = {
    "queue": (1.5, ["orders-south"]), "cache": (0, []), "api": (0.5, ["queue", "cache"]), "pages": (0, ["api"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    with lab_apart() as lab:
        lab.up(south=True, rate=20)
        yield lab


@pytest.fixture(scope="module")
def folder(two: Lab) -> Path:
    """Where the services of the south write down what became of them."""
    found = two.place.at("south").folder / "boot"
    found.mkdir(mode=0o700)
    write_private(found / "system", SCRIPT, 0o700)
    for path in (found, found / "system"):
        two.sites["south"].who.own(path)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(two: Lab, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    catalogs = tmp_path_factory.mktemp("catalogs")
    shutil.copytree(ROOT / "runbooks" / "lab", catalogs / "lab")
    with_services(catalogs / "lab" / "estate.yaml", folder / "system")
    with_checks(catalogs / "lab" / "activate-south.yaml", folder, two.sites["south"].port("orders"))
    async with at_both_sites(two, RECOVERY_CATALOGS=str(catalogs)) as found:
        yield found


def with_services(file: Path, script: Path) -> None:
    estate: dict[str, Any] = yaml.safe_load(file.read_text())
    for name, (seconds, after) in NEEDS.items():
        words = {word: f"{script} {word} {name}" for word in ("start", "stop", "status", "ready")}
        words["start"] += f" {seconds}"
        estate["services"][name] = {"host": "south-db", "after": after, **words}
    file.write_text(yaml.safe_dump(estate))


def with_checks(file: Path, folder: Path, port: int) -> None:
    runbook: dict[str, Any] = yaml.safe_load(file.read_text())
    runbook["systems"] += list(NEEDS)
    runbook["parameters"]["checks"] = {
        "power and cooling": {"attest": "both feeds of the south hall are up, and it is below 27 °C"},
        "network": {"host": "south-db", "command": "echo 2 uplinks"},
        "security configuration": {"host": "south-db", "command": f"test -e '{folder}/patched' && echo patched"},
        "database": {"host": "south-db", "command": "echo no table is corrupt"},
        "performance baseline": {"url": f"http://127.0.0.1:{port}/health", "slowest": "PT2S"},
    }
    runbook["gates"]["attest the site"] = {"roles": ["dba"], "approvals": 1, "within": "PT5M", "valid": "PT5M"}
    file.write_text(yaml.safe_dump(runbook))


async def test_site_is_booted_in_order_and_checked_by_steps_commands_requests_and_people(
    engine: Running, folder: Path
) -> None:
    recovery = await activate(engine, "south")
    await recovery.approve()
    report = await recovery.until("hold")
    assert report.hold is not None
    assert "security configuration does not hold: its command on south-db ended with 1" in report.hold.why
    in_order((folder / "log").read_text().splitlines())

    (folder / "patched").touch()
    await recovery.resolve("retry")
    report = await recovery.until("gate: attest the site")
    stake = report.gates[-1].shown[0]["at_stake"]
    assert stake == "who approves attests for south: both feeds of the south hall are up, and it is below 27 °C"
    shown = "\n".join(report.gates[-1].shown[0]["in_words"])
    assert "power and cooling: both feeds of the south hall are up, and it is below 27 °C" in shown
    assert "network: proven: south-db: 2 uplinks" in shown
    assert "monitoring: nobody checks it" in shown
    await recovery.approve()
    checked(await recovery.ended(60))


def in_order(log: list[str]) -> None:
    for name, (_, after) in NEEDS.items():
        assert log.count(f"start {name}") == 1
        for needed in after:
            if needed in NEEDS:
                assert log.index(f"ready {needed}") < log.index(f"start {name}"), log


def checked(report: Report) -> None:
    assert report.outcome == "recovered"
    found = {one.name: one for one in report.checks}
    assert tuple(found) == CHECKS
    assert {name: one.how for name, one in found.items()} == {
        "power and cooling": "attested", "network": "proven", "security configuration": "proven", "database": "proven",
        "application services": "proven", "load balancer": "proven", "monitoring": "nobody's",
        "security monitoring": "nobody's", "performance baseline": "proven", "full validation": "proven",
    }  # fmt: skip
    assert found["power and cooling"].by == ("bob",)
    assert found["database"].evidence.startswith("promote orders-south (")
    assert found["database"].evidence.endswith("; south-db: no table is corrupt")
    assert "start pages" in found["application services"].evidence
    assert found["performance baseline"].evidence.startswith("http://127.0.0.1:")
