"""Whether a service is ready, as its host says it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from activities import ssh
from activities.services import AwaitReady, ServiceAt, await_ready
from lab.estate import Lab
from recovery.errors import Fatal, Transient
from tests.branches import host
from tests.running import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await ssh.close()


def waiting(lab: Lab, ready: str, within: int) -> AwaitReady:
    at = ssh.HostAt.model_validate(host(lab).model_dump() | {"name": "north-db"})
    one = ServiceAt(name="api", host=at, start="true", stop="true", status="true", ready=ready, within=within)
    return AwaitReady(system="api", service=one)


async def test_it_is_waited_for_until_it_is_ready(lab: Lab) -> None:
    asked, ready = lab.place.jobs / "asked", lab.place.jobs / "ready"
    looking = asyncio.create_task(await_ready.observe(waiting(lab, f"touch '{asked}'; test -e '{ready}'", 30)))
    await eventually(asked.exists, "it was asked")
    assert not looking.done()
    ready.touch()
    found = await asyncio.wait_for(looking, 10)
    asked.unlink()
    ready.unlink()
    assert found.seconds > 0


async def test_what_is_not_ready_in_time_says_why(lab: Lab) -> None:
    with pytest.raises(Fatal, match=r"api is not ready after 1 s: connection refused by the broker"):
        await await_ready.observe(waiting(lab, "echo hm; echo connection refused by the broker; exit 7", 1))


async def test_command_that_hangs_is_ended(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.services.GRACE", 1)
    with pytest.raises(Transient, match="took longer than 2 s"):
        await await_ready.observe(waiting(lab, "sleep 4321", 1))

    def left() -> bool:
        return subprocess.run(["pgrep", "-f", "sleep 4321"], capture_output=True).returncode == 0

    await eventually(lambda: not left(), "nothing of it runs on the host", 10)
