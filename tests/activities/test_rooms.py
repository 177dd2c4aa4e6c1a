"""Room in a cluster that does not tell: that is an answer, and comes in time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from activities.clusters import ClusterAt
from activities.rooms import RoomSpec, look_for_room
from activities.workloads import WorkloadAt


async def test_cluster_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request itself has ten seconds."""
    monkeypatch.setenv("RECOVERY_STATE", str(tmp_path))
    asked, ended = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "x"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    at = ClusterAt(name="kube", kubeconfig=str(tmp_path / "kubeconfig"))
    web = WorkloadAt(name="web", cluster=at, namespace="shop", kind="Deployment", object="web", replicas=1, within=10)
    async with server, asyncio.timeout(6):
        found = await look_for_room.observe(RoomSpec(system="web", cluster=at, workloads=(web,), seconds=0.5))
        assert asked.is_set()
        ended.set()  # else the request that is left alone is waited for at the end
    assert found.why == "kube has not told within 0.5 s"
