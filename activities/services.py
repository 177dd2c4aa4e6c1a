"""Programs on hosts, started, stopped and looked at by the commands that the estate names: several at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Iterable
from datetime import timedelta
from typing import Any, ClassVar, Self

from activities import ssh
from activities.ssh import HostAt
from recovery.actions import Action, Probe, Spec
from recovery.models import Wire
from runbooks.schema import Host, Service

GRACE = 30
"""Seconds that a command which tells whether a service is ready has for its last answer."""


class ServiceAt(Wire):
    """A program, and the commands for it on its host; it is ``ready`` within so many seconds."""

    name: str
    host: HostAt
    start: str
    stop: str
    status: str
    ready: str = ""
    within: int = 0

    @classmethod
    def of(cls, name: str, service: Service, host: Host) -> Self:
        """Return how a service of the estate is asked."""
        known = HostAt.model_validate(host.model_dump() | {"name": service.host})
        within = math.ceil(service.within.total_seconds())
        return cls(
            name=name, host=known, start=service.start, stop=service.stop, status=service.status,
            ready=service.ready or "", within=within if service.ready else 0,
        )  # fmt: skip


class ServicesSpec(Spec):
    """Services that do not need each other, and whether they are to run; ``owner`` is the recovery."""

    services: tuple[ServiceAt, ...]
    wanted: bool
    owner: str = ""


class Running(Wire):
    """Which services run, by name, and of which a command of this recovery began and did not come to its end."""

    running: dict[str, bool] = {}
    begun: tuple[str, ...] = ()


class RunServices(Action[ServicesSpec, Running]):
    """Start services side by side, or stop them; undone, each is as it was."""

    name = "services.run"
    limit = timedelta(minutes=10)

    def title(self, spec: ServicesSpec) -> str:
        """Say what is started or stopped."""
        return f"{'start' if spec.wanted else 'stop'} {self.names(spec)}"

    def names(self, spec: ServicesSpec) -> str:
        """Return the services as people call them."""
        return ", ".join(one.name for one in spec.services)

    async def observe(self, spec: ServicesSpec) -> Running:
        """Ask each."""
        looks = (ssh.look(one.host, "service_state", _values(spec, one, one.status)) for one in spec.services)
        found = dict(zip((one.name for one in spec.services), await asyncio.gather(*looks), strict=True))
        return Running(
            running={name: text.split()[:1] == ["runs"] for name, text in found.items()},
            begun=tuple(name for name, text in found.items() if text.split()[1:] == ["begun"]),
        )

    def desired(self, spec: ServicesSpec, before: Running) -> Running:
        """Want all of them to run, or none."""
        return Running(running={one.name: spec.wanted for one in spec.services})

    def partial(self, spec: ServicesSpec, before: Running, now: Running) -> bool:
        """Know that each is what it was, or already what it is to be."""
        known = (before.running, self.desired(spec, before).running)
        return all(runs in [one.get(name) for one in known] for name, runs in now.running.items())

    def begun(self, spec: ServicesSpec, before: Running, now: Running) -> bool:
        """Know it by one that is not what it was."""
        return now != before and self.partial(spec, before, now)

    async def apply(self, spec: ServicesSpec, before: Running) -> None:
        """Start or stop each that is not so yet."""
        await self._all(spec, self.desired(spec, before))

    async def undo(self, spec: ServicesSpec, before: Running) -> None:
        """Start or stop each that was."""
        async with self.ending(spec):
            await self._all(spec, before)

    async def halt(self, spec: ServicesSpec) -> None:
        """End the jobs, and remove their traces; what they started stays."""
        await asyncio.gather(*(ssh.end_job(one.host, _job(spec, one)) for one in spec.services))

    async def _all(self, spec: ServicesSpec, wanted: Running) -> None:
        await gathered(
            ssh.job(one.host, _job(spec, one), "service", _values(spec, one, command))
            for one in spec.services
            for command in [one.start if wanted.running[one.name] else one.stop]
        )


run_services = RunServices()


class AwaitReady(Spec):
    """Wait for a service to be ready."""

    service: ServiceAt


class Ready(Wire):
    """For how many seconds it was waited for."""

    seconds: float = 0


class AwaitsReady(Probe[AwaitReady, Ready]):
    """Wait until what others need is ready, which it need not be when it runs."""

    name = "services.ready"
    limit = timedelta(minutes=62)
    patience = timedelta(minutes=65)
    skip: ClassVar[str] = "what needs it is started although it may not be ready"

    def title(self, spec: AwaitReady) -> str:
        """Say what is waited for."""
        return f"see {spec.service.name} ready"

    async def observe(self, spec: AwaitReady) -> Ready:
        """Have the host wait. Raises Fatal, with what the command said last."""
        one, began = spec.service, time.monotonic()
        values = {"command": one.ready, "service": one.name, "seconds_left": one.within}
        await ssh.look(one.host, "service_ready", values, one.within + GRACE)
        return Ready(seconds=round(time.monotonic() - began, 3))


await_ready = AwaitsReady()


async def gathered(calls: Iterable[Awaitable[Any]]) -> None:
    """Let all of them come to their end, then raise the first failure there was."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    for failure in found:
        if isinstance(failure, BaseException):
            raise failure


def _values(spec: ServicesSpec, one: ServiceAt, command: str) -> dict[str, object]:
    mark = f"{one.host.jobs}/.begun/{one.name}-{spec.owner}"
    return {"command": command, "service": one.name, "mark": mark}


def _job(spec: ServicesSpec, one: ServiceAt) -> str:
    return f"{one.name}-{spec.owner}.service"
