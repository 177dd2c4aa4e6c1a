"""How a configuration goes back: in its repository, on a host with files, and with a command; and is written down."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from activities import git
from activities.git import Source
from activities.host_files import Placed, Put, PutFiles, put_files, sums
from activities.revision_commands import At, CommandAt, Told, tell
from activities.rolling_back import Branch, Record, RollBack, Written, record, roll_back
from activities.ssh import HostAt
from lab.place import runner
from tests.copies import end_jobs
from tests.matrix.scenes import JobScene, S, Scene, Stage, T
from tests.shops import Machine, Remote, run

GOOD = {"app.conf": "works\n", "new/deep.conf": "deep\n", "tool.sh": "#!/bin/sh\n"}
BAD = {"app.conf": "broken\n", "left.conf": "left over\n", "tool.sh": "#!/bin/sh\n"}


class Shop:
    """A repository and a machine, of one stage."""

    def __init__(self, stage: Stage) -> None:
        self.folder = stage.lab.place.north / f"shop-{run()}"
        self.folder.mkdir()
        self.folder.chmod(0o755)
        runner().own(self.folder)
        self.remote = Remote.new(self.folder / "shop.git")
        self.good, self.bad = self.remote.commit(GOOD, "good"), self.remote.commit(BAD, "bad")
        self.machine = Machine.new("one", self.folder)


_shops: dict[int, Shop] = {}


def shop_of(stage: Stage) -> Shop:
    """Return the shop of a stage."""
    if id(stage) not in _shops:
        _shops[id(stage)] = Shop(stage)
        stage.ends.callback(_shops.pop, id(stage))
    return _shops[id(stage)]


def host_of(stage: Stage) -> HostAt:
    """Return the host, through the relay."""
    return HostAt.model_validate(stage.copy.host.model_dump())


class GitScene(Scene[S, T]):
    """An action that pushes to the repository."""

    accidents = ("git killed",)

    @property
    def remote(self) -> Remote:
        """The repository."""
        return shop_of(self.stage).remote

    async def strike(self, accident: str, spec: S, chance: Random) -> None:
        """Kill every Git that works for this process, from some moment on, once one does."""
        await asyncio.sleep(chance.uniform(0, 0.1))
        for _ in range(200):
            found = [pid for pid in children(os.getpid()) if _is_git(pid)]
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if found:
                return
            await asyncio.sleep(0.002)

    def shows(self, spec: S) -> Mapping[str, object]:
        """Return what the branch has, whether anything was committed twice, and its notes."""
        trees = self.remote.git("log", "--format=%T", "main").split()
        return {
            "tree": trees[0],
            "twice": sum(one == two for one, two in itertools.pairwise(trees)),
            "lines": self.lines(),
            "jobs": [],
        }

    def lines(self) -> list[str]:
        """Return every line of every note."""
        listed = self.remote.git("notes", "--ref=deployments", "list").split()
        return [line for blob in listed[::2] for line in self.remote.git("cat-file", "blob", blob).splitlines()]

    async def clear(self) -> None:
        """Let the branch be as it was at first."""
        self.remote.git("update-ref", "refs/heads/main", shop_of(self.stage).bad)
        self.remote.git("update-ref", "-d", "refs/notes/deployments")


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


def _is_git(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == "git"
    return False


class RollBackScene(GitScene[RollBack, Branch]):
    """Roll the repository back."""

    action = roll_back

    async def set(self) -> RollBack:
        """Nothing has to be done."""
        shop = shop_of(self.stage)
        return RollBack(
            system="shop", drill=True, repository=self.remote.repository, seen=self.remote.tree(shop.bad),
            wanted=self.remote.tree(shop.good),
            good=shop.good, at=1_790_000_000, message="Roll back\n\nfor a test", run=run(),
        )  # fmt: skip

    async def meddle_before(self, spec: RollBack) -> None:
        """Somebody pushes another change."""
        self.remote.commit({**BAD, "more.conf": "more"}, "somebody else")

    meddle_after = meddle_before


class RecordScene(GitScene[Record, Written]):
    """Write down how it went."""

    action = record

    async def set(self) -> Record:
        """There is a note of a deployment."""
        self.remote.deployed(self.remote.head(), "d1", "unhealthy")
        return Record(
            system="shop", drill=True, repository=self.remote.repository, run=run(), healthy=True, told={"by": "alice"}
        )

    async def meddle_before(self, spec: Record) -> None:
        """Somebody writes another line in its name."""
        line = json.dumps({"id": f"recovery-{spec.run}", "health": "unhealthy"})
        self.remote.git("notes", "--ref=deployments", "append", "-m", line, self.remote.head())

    meddle_after = meddle_before


class PutFilesScene(JobScene[PutFiles, Placed]):
    """Replace the files of a machine."""

    action = put_files

    @property
    def machine(self) -> Machine:
        """The machine."""
        return shop_of(self.stage).machine

    async def set(self) -> PutFiles:
        """It has the bad ones."""
        shop = shop_of(self.stage)
        self.machine.have(BAD)
        source = Source(repository=shop.remote.repository, revision=shop.good)
        digests = sums(await git.contents(source))
        seen = sums({path: content.encode() for path, content in BAD.items()})
        paths = sorted({"app.conf", "left.conf", *digests})
        who = runner()
        return PutFiles(
            system="shop", drill=True, run=run(), source=source, owner=f"{who.uid}:{who.gid}",
            target=self.machine.target(host_of(self.stage)), files=tuple(
                Put(
                    path=path, digest=digests.get(path, ""), seen=seen.get(path, ""),
                    executable=path.endswith(".sh"),
                ) for path in paths
            ),
        )  # fmt: skip

    def job(self, spec: PutFiles) -> str:
        """Return the name of its job."""
        return put_files.job(spec)

    def begun(self, spec: PutFiles) -> bool:
        """Tell whether what was there is kept."""
        return Path(spec.target.keep(spec.run)).exists()

    def shows(self, spec: PutFiles) -> Mapping[str, object]:
        """Return every file with its rights and its time, what was read, and what is kept."""
        files = sorted(path for path in self.machine.folder.rglob("*"))
        keep = Path(spec.target.keep(spec.run))
        return {
            "files": {
                str(path): (path.stat().st_mode, path.stat().st_uid, path.stat().st_mtime_ns, path.read_text())
                if path.name != "loaded" and path.is_file() else path.is_file() and path.read_text()
                for path in files
            },
            "kept": sorted(path.name for path in keep.parent.glob(f"{keep.name}*") for path in [path, *path.iterdir()]),
            "jobs": sorted(path.name for path in self.lab.place.jobs.glob("[!.]*")),
        }  # fmt: skip

    async def meddle_before(self, spec: PutFiles) -> None:
        """Somebody changes a file by hand."""
        self.machine.write("app.conf", "by hand\n")

    meddle_after = meddle_before

    async def clear(self) -> None:
        """Take away jobs and files."""
        self.release()
        self.cut()
        end_jobs(self.lab)
        self.machine.have({})
        for path in sorted(self.machine.conf.rglob("*"), reverse=True):
            path.rmdir()


class TellScene(JobScene[Told, At]):
    """Bring a revision to what has a command for that."""

    action = tell

    @property
    def file(self) -> Path:
        """Where it keeps its revision."""
        return shop_of(self.stage).machine.folder / "revision"

    async def set(self) -> Told:
        """It has the old one."""
        self.write("old")
        words: dict[str, Any] = {
            "check": f"cat {self.file}",
            "apply": f"echo changing >{self.file}; sleep 0.05; echo $REVISION >{self.file}",
            "verify": "true",
        }
        words["undo"] = words["apply"]
        target = CommandAt(name="broker", host=host_of(self.stage), **words)
        return Told(system="shop", drill=True, target=target, revision="new", run=run())

    def write(self, text: str) -> None:
        """Have it say so."""
        self.file.write_text(f"{text}\n")
        runner().own(self.file)

    def job(self, spec: Told) -> str:
        """Return the name of its job."""
        return tell.job(spec)

    def begun(self, spec: Told) -> bool:
        """Tell whether it is being changed."""
        return self.file.read_text() != "old\n"

    def shows(self, spec: Told) -> Mapping[str, object]:
        """Return what it says, and what is left of the change."""
        return {
            "revision": self.file.read_text(),
            "begun": (self.lab.place.jobs / ".begun" / f"broker-{spec.run}").exists(),
            "jobs": sorted(path.name for path in self.lab.place.jobs.glob("[!.]*")),
        }

    async def meddle_before(self, spec: Told) -> None:
        """Somebody brings another one."""
        self.write("other")

    meddle_after = meddle_before

    async def clear(self) -> None:
        """Take away jobs."""
        self.release()
        self.cut()
        end_jobs(self.lab)
