"""A node of the lab's cluster that runs nothing: `python -m lab.node ROOT NAME`.

It says of each pod bound to it what a kubelet would: that it runs and is ready, unless the pod itself says what is
wrong with it. So rollouts come to their end, or stall, at the real API:

- an image with the tag `broken`, a variable `BREAK`, or the annotation `lab/ready: "false"`: it is never ready;
- the annotation `lab/crash`: its container ends again and again.
"""

import asyncio
import contextlib
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from lab.place import Place

Object = dict[str, Any]

BEAT = 10
"""Seconds between two heartbeats; the controllers wait for 40."""
PAUSE = 0.3
LIMIT = aiohttp.ClientTimeout(total=10)
WATCH = aiohttp.ClientTimeout(total=None, sock_connect=5)
MERGE = {"Content-Type": "application/merge-patch+json"}
CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "1Ti"}
LOST = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def verdict(pod: Object) -> str:
    """Return what a pod has wrong with it, as it says itself: "" for nothing, else a reason as a kubelet gives it."""
    marks = pod["metadata"].get("annotations") or {}
    if "lab/crash" in marks:
        return "CrashLoopBackOff"
    containers = pod["spec"]["containers"]
    broken = any(one.get("image", "").endswith(":broken") for one in containers)
    told = any(variable["name"] == "BREAK" for one in containers for variable in one.get("env") or ())
    return "Unhealthy" if broken or told or marks.get("lab/ready") == "false" else ""


def status(pod: Object, address: str, now: str) -> Object:
    """Return the status of a pod that was given an address."""
    wrong = verdict(pod)
    crashes, ready = wrong == "CrashLoopBackOff", not wrong
    waits = {"waiting": {"reason": wrong, "message": "back-off 10s restarting failed container"}}
    states = [
        {
            "name": one["name"],
            "image": one.get("image", ""),
            "imageID": "",
            "ready": ready,
            "started": not crashes,
            "restartCount": 3 if crashes else 0,
            "state": waits if crashes else {"running": {"startedAt": now}},
        }
        for one in pod["spec"]["containers"]
    ]
    why = {} if ready else {"reason": "ContainersNotReady", "message": f"containers with unready status: {wrong}"}
    holds: dict[str, tuple[bool, Mapping[str, str]]] = {
        "Initialized": (True, {}),
        "Ready": (ready, why),
        "ContainersReady": (ready, why),
        "PodScheduled": (True, {}),
    }
    conditions = [
        {"type": name, "status": str(good), "lastTransitionTime": now, **more} for name, (good, more) in holds.items()
    ]
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": "127.0.0.1",
        "startTime": now,
        "conditions": conditions,
        "containerStatuses": states,
    }


class Node:
    """One node: it registers, beats, and answers for its pods until it is killed."""

    def __init__(self, name: str, session: aiohttp.ClientSession) -> None:
        """Say how it is called; `session` knows where the API server is, and who asks."""
        self._name, self._session = name, session
        self._addresses: Iterator[str] = (f"10.77.{n // 250}.{n % 250 + 2}" for n in range(62500))
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Do so, whatever becomes of the API server meanwhile."""
        await asyncio.gather(self._again(self._beat), self._again(self._follow))

    async def _again(self, work: Any) -> None:
        while True:
            with contextlib.suppress(*LOST):
                await work()
            await asyncio.sleep(PAUSE)

    async def _beat(self) -> None:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self._name}}
        await self._ask("POST", "/api/v1/nodes", json=node)
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}}
        await self._ask("POST", LEASES, json=lease)
        while True:
            await self._live()
            await asyncio.sleep(BEAT)

    async def _live(self) -> None:
        now = datetime.now(UTC)
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "lastHeartbeatTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "lastTransitionTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        }
        told = {"capacity": CAPACITY, "allocatable": CAPACITY, "conditions": [ready]}
        await self._good("PATCH", f"/api/v1/nodes/{self._name}/status", {"status": told})
        spec = {"holderIdentity": self._name, "leaseDurationSeconds": 40, "renewTime": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}"}
        await self._good("PATCH", f"{LEASES}/{self._name}", {"spec": spec})

    async def _follow(self) -> None:
        mine = f"/api/v1/pods?fieldSelector=spec.nodeName={self._name}"
        _, found = await self._ask("GET", mine)
        for pod in found["items"]:
            await self._answer(pod)
        async for pod in self._watch(f"{mine}&watch=1&resourceVersion={found['metadata']['resourceVersion']}"):
            await self._answer(pod)

    async def _watch(self, path: str) -> AsyncIterator[Object]:
        async with self._session.get(path, timeout=WATCH) as answer:
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                if event["type"] != "DELETED":
                    yield event["object"]

    async def _answer(self, pod: Object) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        if meta.get("deletionTimestamp"):
            now = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
            await self._ask("DELETE", path, json=now)
            return
        wrong = verdict(pod)
        if pod.get("status", {}).get("phase") == "Running" and self._said.get(meta["uid"]) == wrong:
            return
        address = pod.get("status", {}).get("podIP") or next(self._addresses)
        said = status(pod, address, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
        code, _ = await self._ask("PATCH", f"{path}/status", json={"status": said}, headers=MERGE)
        if code == 200:
            self._said[meta["uid"]] = wrong

    async def _good(self, method: str, path: str, body: Object) -> None:
        code, found = await self._ask(method, path, json=body, headers=MERGE)
        if code >= 400:
            raise ValueError(found.get("message"))

    async def _ask(self, method: str, path: str, **more: Any) -> tuple[int, Object]:
        async with self._session.request(method, path, **more) as answer:
            return answer.status, await answer.json(content_type=None)


async def main(folder: Path, name: str) -> None:
    """Run one node for the cluster whose admin's kubeconfig is in this folder."""
    found = json.loads((folder / "admin.kubeconfig").read_text())
    trusts = ssl.create_default_context(cafile=str(folder / "apiserver.crt"))
    headers = {"Authorization": f"Bearer {found['users'][0]['user']['token']}"}
    async with aiohttp.ClientSession(
        found["clusters"][0]["cluster"]["server"],
        headers=headers,
        timeout=LIMIT,
        connector=aiohttp.TCPConnector(ssl=trusts),
    ) as session:
        await Node(name, session).run()


if __name__ == "__main__":
    os.chdir("/")
    asyncio.run(main(Place(Path(sys.argv[1])).kubernetes, sys.argv[2]))
