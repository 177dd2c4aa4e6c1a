"""How the actions that restore sessions are tried: north lacks most of a snapshot, and has some of it otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from activities.session_restoring import (
    Memory,
    Plan,
    Put,
    PutSpec,
    ReadSpec,
    SnapshotSpec,
    forget_before,
    put_sessions,
    read_snapshot,
    see_snapshot,
)
from activities.store_roles import StoreAction
from activities.stores import StoreSpec
from recovery.models import Wire
from tests.matrix.scenes_stores import StoreScene
from tests.stores import Valkey, snapshot

S = TypeVar("S", bound=StoreSpec)
T = TypeVar("T", bound=Wire)
MANY, OTHER = 1500, 5


class RestoreScene(StoreScene[S, T]):
    """What the three of them share: a snapshot of north, from before most of it was lost."""

    action: ClassVar[StoreAction[Any, Any]]
    often = "connection cut"

    @property
    def copies(self) -> Path:
        """Where snapshots lie on the host."""
        return self.lab.place.copies

    async def read(self) -> ReadSpec:
        """Write sessions, keep them as a snapshot, and lose most of them; some stay, and are older, or newer."""
        with self.north.client() as client:
            pipe = client.pipeline(transaction=False)
            for number in range(MANY):
                pipe.hset(f"session:{number}", mapping={"user": number, "version": 5})
                pipe.expire(f"session:{number}", 900)
            pipe.execute()
            file = snapshot(self.north, self.copies / "sessions-lost.rdb")
            client.flushall()
            for number in range(2 * OTHER):
                client.hset(f"session:{number}", mapping={"user": "other", "version": 9 * (number % 2)})
                client.expire(f"session:{number}", 900)
        given = self.given(self.north)
        store = self.pair.store(self.north, server=str(self.pair.server), copies=str(self.copies))
        given |= {"store": store, "snapshot": str(file)}
        seen = await see_snapshot.observe(SnapshotSpec.model_validate(given))
        assert seen.faults == ()
        out = str(self.copies / f"sessions-restored-{given['run']}")
        more = {"out": out, "digest": seen.digest, "keys": seen.keys, "version": "version"}
        return ReadSpec.model_validate(given | more)

    async def planned(self) -> PutSpec:
        """Read the snapshot, too."""
        spec = await self.read()
        await read_snapshot.apply(spec, Plan())
        await read_snapshot.halt(spec)
        plan = await read_snapshot.observe(spec)
        assert (plan.add, plan.replace, plan.keep) == (MANY - 2 * OTHER, OTHER, OTHER)
        return PutSpec.model_validate(spec.model_dump() | {"plan": plan.plan})

    def shows(self, spec: S) -> Mapping[str, object]:
        """Return what both are, every session with what it holds and when it expires, and every file that is left."""
        files = {str(file.relative_to(self.copies)) for file in self.copies.glob("sessions-*/**/*") if file.is_file()}
        return {**super().shows(spec), "holds": held(self.north), "files": sorted(files)}

    async def clear(self) -> None:
        """Throw everything away."""
        await super().clear()
        self.north.tell("FLUSHALL")
        for found in self.copies.glob("sessions-*"):
            shutil.rmtree(found) if found.is_dir() else found.unlink()


class ReadSnapshotScene(RestoreScene[ReadSpec, Plan]):
    """Read a snapshot, and compare it."""

    action = read_snapshot
    often = "job's script killed"

    async def set(self) -> ReadSpec:
        """Have one."""
        return await self.read()

    def begun(self, spec: ReadSpec) -> bool:
        """Tell whether it is being read."""
        return Path(f"{spec.out}.partial/owner").exists()

    async def meddle_before(self, spec: ReadSpec) -> None:
        """Somebody puts something where it is to stand."""
        Path(spec.out).mkdir()

    async def meddle_after(self, spec: ReadSpec) -> None:
        """Somebody changes the plan."""
        with (Path(spec.out) / "plan.tsv").open("a") as file:
            file.write("00\tadd\n")


class PutSessionsScene(RestoreScene[PutSpec, Put]):
    """Put sessions back into north."""

    action = put_sessions
    often = "job's programs killed"

    async def set(self) -> PutSpec:
        """Have a plan."""
        return await self.planned()

    def begun(self, spec: PutSpec) -> bool:
        """Tell whether some are there."""
        return bool(self.north.tell("HGET", f"{spec.mark}:counts", "added"))

    async def meddle_before(self, spec: PutSpec) -> None:
        """Somebody changes the plan."""
        with (Path(spec.out) / "plan.tsv").open("a") as file:
            file.write("00\tadd\n")

    async def meddle_after(self, spec: PutSpec) -> None:
        """Somebody removes what the store knows of it."""
        self.north.tell("DEL", f"{spec.mark}:counts")


class ForgetBeforeScene(RestoreScene[PutSpec, Memory]):
    """Have north forget how its sessions were before."""

    action = forget_before

    async def set(self) -> PutSpec:
        """Put others there."""
        spec = await self.planned()
        await put_sessions.apply(spec, await put_sessions.observe(spec))
        await put_sessions.halt(spec)
        return spec

    def begun(self, spec: PutSpec) -> bool:
        """Tell whether some of it is gone."""
        return int(str(self.north.tell("HGET", f"{spec.mark}:counts", "added"))) < MANY - 2 * OTHER

    async def meddle_before(self, spec: PutSpec) -> None:
        """Somebody changes the plan."""
        with (Path(spec.out) / "plan.tsv").open("a") as file:
            file.write("00\tadd\n")

    async def meddle_after(self, spec: PutSpec) -> None:
        """Nothing: it is never taken back."""
        raise AssertionError("what was forgotten is in what was kept")


def held(store: Valkey) -> dict[str, object]:
    """Return every session of a store with what it holds and when it expires."""
    with store.client() as client:
        keys = sorted(client.keys("session:*"))
        pipe = client.pipeline(transaction=False)
        for key in keys:
            pipe.hgetall(key)
            pipe.pexpiretime(key)
        told = pipe.execute()
    return {key: (told[2 * number], told[2 * number + 1]) for number, key in enumerate(keys)}
