"""One object of a cluster, written as a manager by server-side apply, and only as it was when it was read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import reduce

from activities import clusters
from activities.applied import body, entries, mark, tree, union
from activities.cluster_refusals import Conflict, Missing
from activities.clusters import APPLY, MERGE, STRATEGIC, ClusterAt, Object
from activities.manifest_files import DATA, Ref
from activities.manifest_keeping import Kept, Part, lacks, lost
from recovery.errors import Refused, Transient

TRIES = 10
"""How often an object is written while its status keeps changing."""
HOLDER = "recovery"
"""The manager that owns a field while it passes from one to another."""
PAUSE = 0.1
GOES = 15.0
"""Seconds in which an object that was deleted has to be gone; another attempt waits again."""


@dataclass
class Write:
    """How ``ref`` is written as ``manager``; ``live`` is as it was read last, None if it was not there.

    Fields are taken from the managers in ``overrule``. Nothing is written any more once ``goal`` is reached, a digest
    of what the manager owns. ``claimed`` raises Stale where another hand has taken over.
    """

    at: ClusterAt
    ref: Ref
    live: Object | None
    manager: str
    overrule: tuple[str, ...]
    goal: str
    claimed: Callable[[], Awaitable[None]]

    def __post_init__(self) -> None:
        """Remember what was read first."""
        self._read = self.mark

    @property
    def mark(self) -> str:
        """The digest of what the manager owns, as it was read last."""
        return mark(self.live, manager=self.manager)

    async def apply(self, wanted: Object) -> None:
        """Have the manager own what is wanted, and nothing else of it. Raises Refused, Transient."""

        async def once(force: bool) -> None:
            await self._as_applier()
            await self._applied(wanted, self.manager, force=force)

        await self._insist(once)

    async def hold(self, parts: Iterable[Part]) -> None:
        """Own, as nobody else does, what other managers lost, with its present value: so that it is not let go of
        between the manager and them."""
        lost = [missing for part in parts if self.live and (missing := lacks(self.live, part))]

        async def once(force: bool) -> None:
            if lost and self.live:
                await self._applied(body(self.live, reduce(union, lost)), HOLDER, force=force)

        await self._insist(once)

    async def give_back(self, part: Part) -> None:
        """Have another manager own again what it owned, by the operation by which it did."""

        async def once(force: bool) -> None:
            wanted = part.body if self.live is None else lost(self.live, part)
            group = self.ref.version.rpartition("/")[0]
            if wanted is None:
                return
            if part.operation == "Apply" or ("." in group and not group.endswith(".k8s.io")):
                await self._applied(wanted, part.manager, force=True)
                return
            change = {**wanted, "metadata": wanted["metadata"] | self._precondition}
            await self._send("PATCH", change, STRATEGIC, **clusters.query(fieldManager=part.manager))

        await self._insist(once)

    async def release(self) -> None:
        """Hold nothing any more."""

        async def once(force: bool) -> None:
            if self.live is not None and entries(self.live, HOLDER):
                await self._applied(body(self.live, {}), HOLDER)

        await self._insist(once)

    async def delete(self) -> None:
        """Delete it, if it is still the one that was read, and wait until it is gone. Raises Refused, Transient."""
        if self.ref.kind in DATA:
            raise Refused(f"{self.ref.label} of {self.at.name} holds data: it is not deleted")

        async def once(force: bool) -> None:
            if self.live is not None:
                await self._deleted()

        await self._insist(once)

    async def _insist(self, once: Callable[[bool], Awaitable[None]]) -> None:
        """Write again while nothing but the status changes; with force where those who own it may be overruled."""
        force = False
        for _ in range(TRIES):
            if self.goal and self.mark == self.goal:
                return
            try:
                await once(force)
                return
            except Conflict as conflict:
                force = force or self._overrules(conflict)
                await self._again(conflict)
        raise Transient(f"{self.ref.label} of {self.at.name} keeps changing while it is written")

    async def _applied(self, wanted: Object, manager: str, *, force: bool = False) -> None:
        flags = clusters.query(fieldManager=manager, force=force)
        await self._send("PATCH", {**wanted, "metadata": wanted["metadata"] | self._precondition}, APPLY, **flags)

    async def _deleted(self) -> None:
        await self.claimed()
        options = {"preconditions": self._precondition, "propagationPolicy": "Background"}
        path = await self._path()
        with contextlib.suppress(Missing):
            await clusters.ask(self.at, "DELETE", path, options)
        until = asyncio.get_running_loop().time() + GOES
        while await clusters.get(self.at, path) is not None:
            if asyncio.get_running_loop().time() > until:
                raise Transient(f"{self.ref.label} of {self.at.name} does not go: see its finalizers")
            await asyncio.sleep(PAUSE)

    @property
    def _precondition(self) -> Object:
        """What makes a write fail unless the object is the one that was read; a new one has none."""
        return {} if self.live is None else {name: self.live["metadata"][name] for name in ("uid", "resourceVersion")}

    async def _send(self, method: str, change: Object, kind: str, **flags: str) -> None:
        await self.claimed()
        self.live = await clusters.ask(self.at, method, await self._path(), change, kind=kind, **flags)
        self._read = self.mark

    async def _path(self) -> str:
        where = await clusters.resource(self.at, self.ref.version, self.ref.kind)
        return where.path(self.ref.namespace, self.ref.name)

    async def _again(self, conflict: Conflict) -> None:
        """Read it again. Raises the conflict unless it is what it was, or what it is to be."""
        self.live = await clusters.get(self.at, await self._path())
        if self.mark not in (self._read, self.goal):
            raise conflict

    def _overrules(self, conflict: Conflict) -> bool:
        refused = [one for one in conflict.owned if one.manager not in (*self.overrule, self.manager)]
        if refused:
            told = ", ".join(f"{one.field} is owned by {one.manager}" for one in refused)
            raise Refused(f"{self.ref.label} of {self.at.name}: {told}; nothing was taken from it")
        return bool(conflict.owned)

    async def _as_applier(self) -> None:
        """Make what the manager owns by updates its own by server-side apply, and text of a Secret its data.

        Only so does it let go of a field that it does not apply any more.
        """
        if self.live is None or not (mine := entries(self.live, self.manager)):
            return
        if len(mine) == 1 and mine[0]["operation"] == "Apply" and not _has_text(self.live, mine[0]):
            return
        rest = [one for one in self.live["metadata"]["managedFields"] if one not in mine]
        newest = {**mine[-1], "operation": "Apply", "fieldsV1": tree(self.live, self.manager)}
        change = {"metadata": {**self._precondition, "managedFields": [*rest, newest]}}
        await self._send("PATCH", change, MERGE, **clusters.query(fieldManager=self.manager))


def _has_text(live: Object, entry: Object) -> bool:
    return live["kind"] == "Secret" and "f:stringData" in entry.get("fieldsV1", {})


async def restore(write: Write, kept: Kept) -> None:
    """Bring an object to what was kept of it; fields that were taken from others are theirs again.

    Cut off anywhere, the manager owns either what the apply left or what was kept, and it can be done again.
    """
    if kept.body is None:
        await write.delete()
        return
    if write.mark != kept.digest:
        await write.hold(kept.others)
        await write.apply(kept.body)
    for part in kept.others:
        await write.give_back(part)
    await write.release()
