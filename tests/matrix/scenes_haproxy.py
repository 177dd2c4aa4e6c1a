"""How a backend of HAProxy is moved: on one of its own, asked on the lab's host through a relay that cuts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from random import Random

from activities.haproxy import PointBackend, Served, point_backend
from activities.ssh import HostAt
from lab.place import runner
from tests.copies import end_jobs
from tests.haproxies import HAProxy, haproxy
from tests.matrix import jobs
from tests.matrix.scenes import JobScene, Stage


class PointBackendScene(JobScene[PointBackend, Served]):
    """Move the traffic to the other site."""

    action = point_backend
    accidents = (*JobScene.accidents, "director killed")
    rarely = ("job's shell killed", "job's programs killed")
    moments = 2

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.ends = ExitStack()
        self.director: HAProxy

    async def set(self) -> PointBackend:
        """Start a director that points at north."""
        folder = self.ends.enter_context(tempfile.TemporaryDirectory(prefix="haproxy-"))
        self.director = self.ends.enter_context(haproxy(Path(folder), runner()))
        return self.director.point(HostAt.model_validate(self.stage.copy.host.model_dump()))

    def shows(self, spec: PointBackend) -> Mapping[str, object]:
        """Return the state of each server, what the state file has of them, and the jobs."""
        listed = sorted(path.name for path in self.jobs.glob("[!.]*"))
        return {"servers": self.director.servers(), "kept": self.director.kept(), "jobs": listed}

    def job(self, spec: PointBackend) -> str:
        """Return the name of the job."""
        return f"{spec.system}-{spec.run}.point"

    def begun(self, spec: PointBackend) -> bool:
        """Take any moment: it is over in some hundredths of a second."""
        return True

    async def meddle_before(self, spec: PointBackend) -> None:
        """Somebody drains the server that is not in use."""
        self.director.tell("set server orders/south state drain")

    async def meddle_after(self, spec: PointBackend) -> None:
        """Somebody drains the server that is in use."""
        self.director.tell("set server orders/south state drain")

    async def strike(self, accident: str, spec: PointBackend, chance: Random) -> None:
        """Have it killed and started anew while the job is at work; else as with any job."""
        if accident != "director killed":
            await super().strike(accident, spec, chance)
            return
        _, group = await jobs.held(self.jobs, self.job(spec))
        self.director.kill()
        self.director.start()
        jobs.go_on(group)

    async def clear(self) -> None:
        """Stop the director, and remove every job."""
        self.release()
        self.cut()
        end_jobs(self.lab)
        self.ends.close()
