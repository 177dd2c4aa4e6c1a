"""A check names what stands in the way, whatever it is, and changes nothing."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncssh
import pytest
import pytest_asyncio

from lab.estate import Lab
from tests.copies import in_copies
from tests.running import ROOT, Running, running
from tests.workflows.test_side_copy import restorable

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLANTED: dict[str, tuple[Callable[[str], str], str]] = {
    "user": (lambda text: text.replace("    user: postgres", "    user: ghost"), "credentials: "),
    "copies": (lambda text: text.replace("${LAB_NORTH_COPIES}", "/nonexistent"), "copies: "),
    "bin": (lambda text: text.replace("${LAB_PG_BIN}", "/nonexistent"), "bin: "),
    "archive": (lambda text: text.replace("${LAB_NORTH_ARCHIVE}", "/nonexistent"), "archive: "),
    "backups": (lambda text: text.replace("${LAB_NORTH_BACKUPS}", "/nonexistent"), "backups: "),
    "jobs": (lambda text: text.replace("${LAB_NORTH_JOBS}", "/nonexistent/jobs"), "jobs: "),
    "ports": (lambda text: text.replace("_COPY_", "_PG_").replace("_PG_1_", "_PG_"), "copy_ports: "),
    "ssh": (lambda text: text.replace("${LAB_NORTH_SSH_PORT}", "1"), "cannot be reached"),
    "host_key": (lambda text: text.replace("${LAB_KNOWN_HOSTS}", "@KNOWN@"), "is not the one in known_hosts"),
    "key": (lambda text: text.replace("${LAB_SSH_KEY}", "@KEY@"), "was refused; check the key"),
    "no_key": (lambda text: text.replace("${LAB_SSH_KEY}", "/nonexistent"), "cannot be read"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("catalogs")
    (folder / "other_known").write_text(f"[127.0.0.1]:{lab.ports['ssh']} {other_key(folder).decode()}")
    for name, (plant, _) in PLANTED.items():
        shutil.copytree(ROOT / "runbooks" / "lab", folder / name)
        estate = folder / name / "estate.yaml"
        text = plant(estate.read_text())
        assert text != estate.read_text()
        text = (
            re.sub(r" +- \$\{LAB_[A-Z]+_PG_[2-4]_PORT\}\n", "", text)
            .replace("@KNOWN@", str(folder / "other_known"))
            .replace("@KEY@", str(folder / "other_key"))
        )
        estate.write_text(text)
    async with running(lab, RECOVERY_CATALOGS=str(folder)) as found:
        yield found


def other_key(folder: Path) -> bytes:
    """Write a key that nobody knows, and return its public half."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    (folder / "other_key").write_bytes(key.export_private_key())
    (folder / "other_key").chmod(0o600)
    return key.export_public_key()


@pytest.mark.parametrize("name", PLANTED)
async def test_planted_blocker_is_named(lab: Lab, engine: Running, name: str) -> None:
    target = await restorable(lab)
    recovery = await engine.start("check", id=f"check {name}", runbook=f"{name}/restore-orders", target_time=target)
    report = await recovery.ended(45)
    assert report.outcome == "checked"
    assert any(PLANTED[name][1] in blocker for blocker in report.blockers), report.blockers
    assert in_copies(lab) == []


async def test_live_recovery_is_refused_by_a_blocker(lab: Lab, engine: Running) -> None:
    recovery = await engine.start("live", runbook="copies/restore-orders", target_time=await restorable(lab))
    report = await recovery.ended()
    assert (report.outcome, report.kind) == ("failed", "Refused")
    assert in_copies(lab) == []
