"""How far activities are, as they beat with it: some beat without telling that."""

from __future__ import annotations

from datetime import UTC, datetime

from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client

from console.runs import _underway
from recovery.plugin import plugin
from recovery.progress import Progress, Underway


async def test_beat_that_only_carries_something_tells_no_progress() -> None:
    client = await Client.connect("127.0.0.1:9", lazy=True, plugins=[plugin()])
    told = Underway(run="r", activity="a", progress=Progress(done=5, at=datetime(2026, 11, 21, tzinfo=UTC)))
    pending = []
    for details in ([None, "a token"], [told, "a token"], [told], []):
        pending.append(PendingActivityInfo())
        if details:
            pending[-1].heartbeat_details.payloads.extend(await client.data_converter.encode(details))
    assert await _underway(client, pending) == (told, told)
