"""How each action on stores is tried: on two that replicate each other, with jobs on the lab's host."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from activities.session_keeping import KeepSpec, Snapshot, keep_sessions
from activities.ssh import HostAt
from activities.store_roles import (
    CLOSED,
    Follow,
    Gate,
    PromoteSpec,
    Role,
    StoreAction,
    Unfence,
    fence_store,
    follow_store,
    promote_store,
    unfence_store,
)
from activities.stores import StoreSpec
from recovery.models import Wire
from tests.copies import end_jobs
from tests.matrix.scenes import JobScene, Stage
from tests.stores import Pair, Valkey, info, pair

S = TypeVar("S", bound=StoreSpec)
T = TypeVar("T", bound=Wire)
DIRECTIVES = ("replicaof", "min-replicas-to-write", "min-replicas-max-lag")


class StoreScene(JobScene[S, T]):
    """An action on one store of a pair that all of them share; each begins with north as the primary."""

    action: ClassVar[StoreAction[Any, Any]]
    moments = 1
    often: ClassVar[str]
    """The one accident of each action that is not left to a soak; together they are all of them."""

    def __init_subclass__(cls) -> None:
        cls.rarely = tuple(accident for accident in cls.accidents if accident != cls.often)

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        host = HostAt.model_validate(stage.copy.host.model_dump())
        self.pair: Pair = stage.stores or stage.ends.enter_context(pair(host))
        stage.stores = self.pair
        self.north, self.south = self.pair.north, self.pair.south

    def job(self, spec: S) -> str:
        """Return the name of the job."""
        return self.action.job(spec)

    def given(self, which: Valkey) -> dict[str, object]:
        """Return what every spec says of a store."""
        name, run = f"sessions-{which.name}", secrets.token_hex(4)
        return {"system": name, "store": self.pair.store(which), "run": run, "drill": True}

    def shows(self, spec: S) -> Mapping[str, object]:
        """Return what both stores are, what a restart would make of them, and what they hold."""
        return {
            "north": standing(self.north),
            "south": standing(self.south),
            "jobs": sorted(path.name for path in self.lab.place.jobs.glob("[!.]*")),
        }

    async def meddle_before(self, spec: S) -> None:
        """Somebody sets what the action is about."""
        self.meddle()

    async def meddle_after(self, spec: S) -> None:
        """Somebody sets what the action is about."""
        self.meddle()

    def meddle(self) -> None:
        """Set what the action is about as somebody else would."""
        raise NotImplementedError

    async def clear(self) -> None:
        """Have north be the primary, and south its replica, both open and with what north holds."""
        self.release()
        self.stage.relay.cut()
        end_jobs(self.lab)
        for store in (self.north, self.south):
            store.tell("CONFIG", "SET", "min-replicas-to-write", 0, "min-replicas-max-lag", 10)
        self.north.tell("REPLICAOF", "NO", "ONE")
        self.south.tell("REPLICAOF", "127.0.0.1", self.north.port)
        self.pair.linked(self.south)
        for store in (self.north, self.south):
            store.tell("CONFIG", "REWRITE")


def standing(store: Valkey) -> dict[str, object]:
    """Return what a store is, what its file says, and its keys."""
    told = info(store)
    with store.client() as client:
        gate = client.config_get("min-replicas-*")
        keys = sorted(client.keys())
    lines = (line.split() for line in store.file.read_text().splitlines())
    saved = {line[0]: line[1:] for line in lines if line and line[0] in DIRECTIVES}
    saved = {"min-replicas-to-write": ["0"], "min-replicas-max-lag": ["10"]} | saved
    return {"of": told.get("master_port"), "gate": gate, "saved": saved, "keys": keys}


class FenceStoreScene(StoreScene[StoreSpec, Gate]):
    """Have north refuse every write."""

    action = fence_store
    often = "connection cut"

    async def set(self) -> StoreSpec:
        """Nothing has to be done."""
        return StoreSpec.model_validate(self.given(self.north))

    def begun(self, spec: StoreSpec) -> bool:
        """Tell whether it refuses them."""
        return least(self.north) == CLOSED

    def meddle(self) -> None:
        """Somebody asks for one replica."""
        self.north.tell("CONFIG", "SET", "min-replicas-to-write", 1)


class UnfenceStoreScene(StoreScene[Unfence, Gate]):
    """Have north, which is fenced, take writes again."""

    action = unfence_store
    often = "job's shell killed"

    async def set(self) -> Unfence:
        """Fence it."""
        self.north.tell("CONFIG", "SET", "min-replicas-to-write", CLOSED)
        self.north.tell("CONFIG", "REWRITE")
        return Unfence.model_validate(self.given(self.north))

    def begun(self, spec: Unfence) -> bool:
        """Tell whether it takes them."""
        return least(self.north) == 0

    def meddle(self) -> None:
        """Somebody asks for one replica."""
        self.north.tell("CONFIG", "SET", "min-replicas-to-write", 1)


def least(store: Valkey) -> int:
    """Return how many replicas a store asks for."""
    with store.client() as client:
        return int(client.config_get("min-replicas-to-write")["min-replicas-to-write"])


class PromoteStoreScene(StoreScene[PromoteSpec, Role]):
    """Make south a primary."""

    action = promote_store
    often = "job's script killed"

    async def set(self) -> PromoteSpec:
        """Fence the other one."""
        self.north.tell("CONFIG", "SET", "min-replicas-to-write", CLOSED)
        return PromoteSpec.model_validate(self.given(self.south) | {"peer": self.pair.store(self.north)})

    async def reopen(self, spec: PromoteSpec) -> None:
        """Wait until it has all of north again: its undo does not, and one that is being filled is not promoted."""
        await asyncio.to_thread(self.pair.linked, self.south)

    def begun(self, spec: PromoteSpec) -> bool:
        """Tell whether it is one."""
        return info(self.south)["role"] == "master"

    def meddle(self) -> None:
        """Somebody has it replicate another one."""
        self.south.tell("REPLICAOF", "192.0.2.1", 6379)


class KeepSessionsScene(StoreScene[KeepSpec, Snapshot]):
    """Keep what north holds, which is so much that it takes its time."""

    action = keep_sessions
    often = "job's shell killed"

    async def set(self) -> KeepSpec:
        """Have a folder that it goes into."""
        given = self.given(self.north)
        self.folder = self.lab.place.copies
        return KeepSpec.model_validate(given | {"out": str(self.folder / f"sessions-{given['run']}")})

    def shows(self, spec: KeepSpec) -> Mapping[str, object]:
        """Return every file that is kept, and both stores."""
        files = {str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file()}
        return {**super().shows(spec), "files": sorted(files)}

    def begun(self, spec: KeepSpec) -> bool:
        """Tell whether it is being written."""
        return Path(f"{spec.out}.partial/owner").exists()

    async def meddle_before(self, spec: KeepSpec) -> None:
        """Somebody puts something where it is to stand."""
        Path(spec.out).mkdir()

    async def meddle_after(self, spec: KeepSpec) -> None:
        """Nothing: it is never taken back."""
        raise AssertionError("what only one store had is kept")

    async def clear(self) -> None:
        """Throw it away."""
        await super().clear()
        for folder in self.folder.glob("sessions-*"):
            shutil.rmtree(folder)


class FollowStoreScene(StoreScene[Follow, Role]):
    """Make north the replica of south, which was promoted."""

    action = follow_store
    often = "job's programs killed"

    async def set(self) -> Follow:
        """Promote south."""
        self.south.tell("REPLICAOF", "NO", "ONE")
        return Follow.model_validate(self.given(self.north) | {"peer": self.pair.store(self.south)})

    def begun(self, spec: Follow) -> bool:
        """Tell whether it follows."""
        return info(self.north)["role"] == "slave"

    def meddle(self) -> None:
        """Somebody has it replicate another one."""
        self.north.tell("REPLICAOF", "192.0.2.1", 6379)
