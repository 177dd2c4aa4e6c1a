"""What has a configuration by commands: one tells which revision is there, others bring another one."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import ClassVar, Self

from activities import ssh
from activities.ssh import HostAt
from recovery.actions import Action, Spec
from recovery.errors import Drifted, Fatal
from recovery.models import Wire
from runbooks.schema import Command, Host

REVISION = re.compile(r"[A-Za-z0-9._/+@:-]{1,200}")
"""What a command may say: it becomes the value of a variable, and is shown to people."""


class CommandAt(Wire):
    """A target, its host, and its commands."""

    name: str
    host: HostAt
    check: str
    apply: str
    verify: str
    undo: str

    @classmethod
    def of(cls, name: str, command: Command, host: Host) -> Self:
        """Return a target of the estate."""
        at = HostAt.model_validate(host.model_dump() | {"name": command.host})
        undo = command.undo or command.apply
        return cls(name=name, host=at, check=command.check, apply=command.apply, verify=command.verify, undo=undo)


class Told(Spec):
    """Have a target at ``revision``; ``run`` is the recovery. ``seen`` is what it had when people decided, if known."""

    target: CommandAt
    revision: str
    seen: str = ""
    run: str


class At(Wire):
    """Which revision a target says it has; ``pending`` where a command began, and did not come to its end."""

    revision: str = ""
    pending: bool = False


class Tells(Action[Told, At]):
    """Bring a revision to a target with its own command, and believe what it says of itself afterwards."""

    name = "command.apply"
    limit = timedelta(minutes=30)
    look_limit: ClassVar[timedelta] = timedelta(seconds=30)
    look_patience: ClassVar[timedelta] = timedelta(seconds=20)
    expires: ClassVar[timedelta] = timedelta(minutes=2)
    skip: ClassVar[str] = "this target keeps what it has, whatever that is"

    def title(self, spec: Told) -> str:
        """Say what is brought where."""
        return f"bring {spec.revision[:12]} to {spec.target.name}"

    async def observe(self, spec: Told) -> At:
        """Ask it."""
        values = {"run": spec.target.check, "limit": 20, "mark": _mark(spec)}
        code, _, rest = (await ssh.look(spec.target.host, "revision", values)).partition("\n")
        begun, _, said = rest.partition("\n")
        found = said.strip()
        if begun == "begun":  # half changed, it may say anything
            return At(revision=found if REVISION.fullmatch(found) else "", pending=True)
        if code != "0" or not REVISION.fullmatch(found):
            raise Fatal(f"{spec.target.name}: its check ended with {code}, and told no revision; see commands.check")
        return At(revision=found)

    def desired(self, spec: Told, before: At) -> At:
        """Want the revision."""
        return At(revision=spec.revision)

    def partial(self, spec: Told, before: At, now: At) -> bool:
        """Know one that a command of this recovery was cut off in, whatever it says of itself."""
        return now.pending

    async def apply(self, spec: Told, before: At) -> None:
        """Run its command, unless it was brought another revision since people decided."""
        if spec.seen and before.revision not in (spec.seen, spec.revision):
            raise Drifted(f"{spec.target.name}: somebody else has brought {before.revision} since; nothing was changed")
        await self._run(spec, spec.target.apply, spec.revision)

    async def undo(self, spec: Told, before: At) -> None:
        """Run its command for the way back."""
        async with self.ending(spec):
            await self._run(spec, spec.target.undo, before.revision)

    async def halt(self, spec: Told) -> None:
        """End the job, and remove its traces."""
        await ssh.end_job(spec.target.host, self.job(spec))

    def job(self, spec: Told) -> str:
        """Return the name of its job on the host."""
        return f"{spec.target.name}-{spec.run}.apply"

    async def _run(self, spec: Told, command: str, revision: str) -> None:
        values = {"command": command, "service": spec.target.name, "mark": _mark(spec)}
        await ssh.job(spec.target.host, self.job(spec), "bring_revision", values | {"revision": revision})


tell = Tells()


def _mark(spec: Told) -> str:
    return f"{spec.target.host.jobs}/.begun/{spec.target.name}-{spec.run}"
