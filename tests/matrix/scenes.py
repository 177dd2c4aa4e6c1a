"""How each action is tried on the lab: a scene sets the system up, meddles with it, and tells what it shows."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
import shutil
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Generic, Self, TypeVar

from activities.backups import backups
from activities.postgres import CopySpec, PlaceCopy, Placed, ReplayCopy, Replayed, place, ready, replay
from activities.restorable import Choice
from activities.side_copy import SideCopy, assess
from lab import processes
from lab.estate import Lab
from lab.kubernetes import Kubernetes
from recovery.actions import Action, Spec
from recovery.models import Start, Wire
from runbooks.library import library
from runbooks.procedures.database_point_in_time_restore import Parameters
from runbooks.schema import Database, Host
from tests.copies import ask_copy, postmasters, strangers, sweep
from tests.matrix import jobs
from tests.matrix.relay import Relay
from tests.matrix.twins import Twins
from tests.running import PROCEDURE, ROOT, eventually
from tests.stores import Pair

S = TypeVar("S", bound=Spec)
C = TypeVar("C", bound=CopySpec)
T = TypeVar("T", bound=Wire)
Accident = Callable[[Any], Awaitable[None]]


@dataclass
class Stage:
    """The lab, and a restore to ``target`` worked out on it the way the procedure does; SSH goes through ``relay``."""

    lab: Lab
    relay: Relay
    copy: SideCopy
    choice: Choice
    port: int
    ends: AsyncExitStack = field(default_factory=AsyncExitStack)
    own: dict[str, Stage] = field(default_factory=dict)
    """Stages of scenes that change the running database, each on a lab of its own; ``ends`` takes them down."""
    stores: Pair | None = None
    """Two stores that the scenes about stores share; ``ends`` takes them down."""
    twins: Twins | None = None
    """Two sites that the scenes about moving between them share; ``ends`` takes them down."""
    cluster: Callable[[], Kubernetes] | None = None
    """The control plane of the session, started for who asks first."""

    @classmethod
    async def built(cls, lab: Lab, relay: Relay, target: datetime, folder: Path) -> Self:
        """Assess a restore to ``target``; ``folder`` takes the known_hosts for the relay's port."""
        parameters = {"target_time": target.isoformat()}
        start = Start(runbook="lab/restore-orders", reason="a test", parameters=parameters)
        frozen = library(ROOT / "runbooks", lab.state / "estate.env").freeze(start, PROCEDURE)
        database = Database.model_validate(frozen.estate["databases"]["orders"])
        known = folder / "known_hosts"
        known.write_text((lab.place.ssh / "known_hosts").read_text().replace(str(lab.ports["ssh"]), str(relay.port)))
        host = Host.model_validate(frozen.estate["hosts"][database.host])
        host = host.model_copy(update={"port": relay.port, "known_hosts": str(known)})
        copy = SideCopy("orders", database, host, Parameters.model_validate(frozen.parameters), "harness", "run")
        assessed = assess(copy, await backups.observe(copy.find()), await ready.observe(copy.room()))
        assert assessed.choice is not None, assessed.blockers
        return cls(lab, relay, copy, assessed.choice, assessed.port)

    def fresh(self) -> SideCopy:
        """Return the restore as a recovery that nobody has seen yet."""
        return dataclasses.replace(self.copy, run=secrets.token_hex(8))


class Scene(Generic[S, T]):
    """One action on the lab. ``accidents`` strike while apply is at work; the action must survive each.

    ``moments`` is how often it is cancelled in one test; ``rarely`` are accidents that only a soak causes.
    """

    action: ClassVar[Action[Any, Any]]
    accidents: ClassVar[tuple[str, ...]] = ()
    rarely: ClassVar[tuple[str, ...]] = ()
    moments: ClassVar[int] = 3

    def __init__(self, stage: Stage) -> None:
        self.stage, self.lab = stage, stage.lab
        self.orphans: list[int] = []

    async def set(self) -> S:
        """Make everything ready that apply needs, and return a spec that was never applied."""
        raise NotImplementedError

    def shows(self, spec: S) -> Mapping[str, object]:
        """Return all that apply may change on the system, so exactly that a second effect would be seen."""
        raise NotImplementedError

    async def meddle_before(self, spec: S) -> None:
        """Change the system as somebody else would, between the look and apply."""
        raise NotImplementedError

    async def meddle_after(self, spec: S) -> None:
        """Change the system as somebody else would, between apply and undo."""
        raise NotImplementedError

    async def strike(self, accident: str, spec: S, chance: Random) -> None:
        """Cause one of ``accidents`` in the middle of apply."""
        raise NotImplementedError

    def release(self) -> None:
        """Let go on what an accident left hanging, if it still lives. By default nothing does."""

    async def reopen(self, spec: S) -> None:
        """Make ready again what an undo leaves to the undo of a step before it. By default it leaves nothing."""

    async def clear(self) -> None:
        """Take away whatever a trial left, so that the next one begins like the first."""
        raise NotImplementedError


class JobScene(Scene[S, T]):
    """An action that runs a named job on a host."""

    accidents: ClassVar[tuple[str, ...]] = (
        "connection cut",
        "job's shell killed",
        "job's script killed",
        "job's programs killed",
    )

    async def strike(self, accident: str, spec: S, chance: Random) -> None:
        """Hold the job, as it starts or when it has begun to act, cause the accident, let it go on."""
        middle = chance.random() < 0.7
        _, group = await jobs.held(self.jobs, self.job(spec), lambda: not middle or self.begun(spec))
        match accident:
            case "connection cut":
                self.cut()
            case "job's shell killed":
                os.kill(group, signal.SIGKILL)
                self.orphans.append(group)  # slow ones: they would go on only when everything is over
                return
            case "job's script killed":
                processes.stop([body] if (body := jobs.body(group)) else [], signal.SIGKILL, 5)
            case "job's programs killed":
                os.killpg(group, signal.SIGKILL)
        jobs.go_on(group)

    @property
    def jobs(self) -> Path:
        """The folder of the jobs on the host that is acted on."""
        return self.lab.place.jobs

    def cut(self) -> None:
        """Cut every connection to it."""
        self.stage.relay.cut()

    def release(self) -> None:
        """Let orphans go on, if any was left alive."""
        while self.orphans:
            jobs.go_on(self.orphans.pop())

    def job(self, spec: S) -> str:
        """Return the name of the job."""
        raise NotImplementedError

    def begun(self, spec: S) -> bool:
        """Tell whether the job has begun to change the system."""
        raise NotImplementedError


class CopyScene(JobScene[C, T]):
    """An action that runs a named job on the host of the copies."""

    what: ClassVar[str]

    def job(self, spec: C) -> str:
        """Return the name of the copy's job."""
        return spec.job(self.what)

    async def clear(self) -> None:
        """Drop every copy and every job."""
        self.release()
        self.stage.relay.cut()
        sweep(self.lab)


class PlaceScene(CopyScene[PlaceCopy, Placed]):
    """Lay a backup down."""

    action = place
    what = "place"

    async def set(self) -> PlaceCopy:
        """Nothing has to stand."""
        return self.stage.fresh().place(self.stage.choice, self.stage.port)

    def shows(self, spec: PlaceCopy) -> Mapping[str, object]:
        """Return every file of every copy with its inode and content, and what else there is."""
        files = {
            str(file.relative_to(self.lab.place.copies)): (file.lstat().st_ino, digest(file))
            for file in sorted(self.lab.place.copies.rglob("*"))
        }
        return {"files": files, **around(self.lab)}

    def begun(self, spec: PlaceCopy) -> bool:
        """Tell whether files are being copied."""
        return Path(f"{spec.copy_dir}.partial/data").exists()

    async def meddle_before(self, spec: PlaceCopy) -> None:
        """Somebody puts something where the copy is to stand."""
        folder_of_another(self.lab, Path(spec.copy_dir))

    async def meddle_after(self, spec: PlaceCopy) -> None:
        """Somebody puts another copy in its place."""
        shutil.rmtree(spec.copy_dir)
        folder_of_another(self.lab, Path(spec.copy_dir))


class ReplayScene(CopyScene[ReplayCopy, Replayed]):
    """Replay the log into a copy that was laid down."""

    action = replay
    what = "replay"

    async def set(self) -> ReplayCopy:
        """Lay the copy down."""
        copy = self.stage.fresh()
        spec = copy.place(self.stage.choice, self.stage.port)
        await place.apply(spec, await place.observe(spec))
        await place.halt(spec)
        return copy.replay(self.stage.choice, self.stage.port)

    def shows(self, spec: ReplayCopy) -> Mapping[str, object]:
        """Return which server runs, and what it was told."""
        owner = Path(spec.copy_dir, "owner")
        servers = postmasters(self.lab)
        rows = ask_copy(self.lab, "select max(number) from orders") if servers else []
        return {"servers": servers, "rows": rows, "owner": owner.read_text(), **around(self.lab)}

    def begun(self, spec: ReplayCopy) -> bool:
        """Tell whether the server is being started."""
        return Path(spec.copy_dir, "log").exists()

    async def meddle_before(self, spec: ReplayCopy) -> None:
        """Somebody replays the copy and promotes it."""
        await self.action.apply(spec, Replayed())
        await self.action.halt(spec)
        await self.meddle_after(spec)

    async def meddle_after(self, spec: ReplayCopy) -> None:
        """Somebody promotes the copy to work in it."""
        ask_copy(self.lab, "select pg_promote(wait => true)")


def around(lab: Lab) -> dict[str, object]:
    """Return what lies in the folders of copies and of jobs, by name."""
    return {
        "folders": sorted(path.name for path in lab.place.copies.iterdir()),
        "jobs": sorted(path.name for path in lab.place.jobs.glob("[!.]*")),
    }


def digest(file: Path) -> str:
    """Return what stands for the content of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() and not file.is_symlink() else "no file"


def folder_of_another(lab: Lab, folder: Path) -> None:
    """Put a folder there that belongs to nobody's recovery."""
    folder.mkdir(mode=0o700)
    (folder / "owner").write_text("somebody else")
    for path in (folder, folder / "owner"):
        lab.postgres.who.own(path)


async def quiet(lab: Lab) -> None:
    """Wait until nothing runs in the lab but its own programs and the servers of copies."""
    await eventually(lambda: not strangers(lab), f"only the lab's own programs run, but {strangers(lab)}", 10)
