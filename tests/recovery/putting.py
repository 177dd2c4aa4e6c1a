"""An action on real files, which can be told to fail, so that the engine is tried without any database."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from temporalio import activity

from recovery.actions import Action, Probe, Spec
from recovery.errors import Fatal, Refused
from recovery.models import Frozen, GatePolicy, HoldPolicy, Load, Tier, Wire


class Put(Spec):
    """Write ``text`` into ``path``; the rest says what is to go wrong."""

    path: str
    text: str = "new"
    fail_apply: str = ""
    fail_undo: bool = False
    slow: float = 0.0
    trace: bool = False
    mend: str = ""


class Content(Wire):
    """What stands in the file; "" if there is none."""

    text: str = ""


class Putting(Action[Put, Content]):
    """Write a file."""

    name = "toy.put"
    limit = timedelta(seconds=20)
    look_limit = timedelta(seconds=40)
    look_patience = timedelta(seconds=150)
    beat = timedelta(milliseconds=200)
    undo_patience = timedelta(minutes=25)

    def title(self, spec: Put) -> str:
        """Name the file."""
        return f"put {Path(spec.path).name}"

    async def observe(self, spec: Put) -> Content:
        """Read it."""
        file = Path(spec.path)
        return Content(text=file.read_text() if file.exists() else "")

    def desired(self, spec: Put, before: Content) -> Content:
        """Want the text."""
        return Content(text=spec.text)

    async def apply(self, spec: Put, before: Content) -> None:
        """Write it, or fail as told, before, after or when cancelled, until the file ``mend`` stands."""
        mended = spec.mend and Path(spec.mend).exists()
        if spec.fail_apply == "before" and not mended:
            await asyncio.sleep(spec.slow)
            raise Refused("told to fail before")
        if spec.trace:
            Path(f"{spec.path}.trace").touch()
        Path(spec.path).write_text(spec.text)
        try:
            await asyncio.sleep(spec.slow)
        except asyncio.CancelledError:
            if spec.fail_apply == "cancelled":
                raise Fatal("told to fail when cancelled") from None
            raise
        if spec.fail_apply == "after" and not mended:
            raise Fatal("told to fail after")

    async def undo(self, spec: Put, before: Content) -> None:
        """Write what was there, or fail as told."""
        if spec.fail_undo and not (spec.mend and Path(spec.mend).exists()):
            raise Fatal("told to fail the undo")
        if before.text:
            Path(spec.path).write_text(before.text)
        else:
            Path(spec.path).unlink(missing_ok=True)

    async def halt(self, spec: Put) -> None:
        """Remove what an attempt left beside the file."""
        Path(f"{spec.path}.trace").unlink(missing_ok=True)


class Laying(Putting):
    """Write a file that may be left out, and that nobody takes away again."""

    name = "toy.lay"
    skip = "the file is missing; write it by hand"


class Keeping(Putting):
    """Write a file that nobody takes away again."""

    name = "toy.keep"
    kept = "it goes with the folder"


class Passing(Putting):
    """Write a file that is there only for as long as the recovery lasts, and that nobody waits for."""

    name = "toy.pass"
    guards = False
    beside = True
    undo_patience = timedelta(seconds=20)

    def passing(self, spec: Put) -> str:
        """Say how it is taken away."""
        return f"Take it away: rm {Path(spec.path).name}"


class Reading(Probe[Put, Content]):
    """Read a file that has to hold what is wanted, and may be left unread."""

    name = "toy.read"
    skip = "nobody knows what stands there"

    async def observe(self, spec: Put) -> Content:
        """Read it."""
        if (text := Path(spec.path).read_text()) != spec.text:
            raise Refused(f"it says {text}")
        return Content(text=text)


READ = Reading()
PUT, LAY, KEEP, PASS = Putting(), Laying(), Keeping(), Passing()


@activity.defn(name="catalog.load")
async def load(order: Load) -> Frozen:
    """Give every start the same runbook; ``parameters`` may hold the seconds of the gate and its approvals."""
    given = order.start.parameters
    gate = GatePolicy(
        roles=("dba",),
        within=timedelta(seconds=given.get("within", 60)),
        approvals=given.get("approvals", 1),
        in_drill=given.get("in_drill", "pass"),
        valid=timedelta(seconds=given.get("valid", 3600)),
    )
    hold = HoldPolicy.model_validate(given["hold"]) if given.get("hold") else None
    return Frozen(
        runbook=order.start.runbook, title="toy", version="1", procedure=order.procedure, catalog="toy",
        systems=(given.get("system", "files"),), tier="toy", objectives=Tier(rto=timedelta(hours=1), rpo=timedelta(0)),
        gates={"go on": gate, "blind": gate}, hold=hold,
        people={"alice": ("operator", "dba"), "bob": ("dba",), "carol": ("dba",), "dave": ("guest",)},
        parameters=given, estate={}, not_after=timedelta(seconds=given.get("not_after", 60)), digest="p" * 16,
        notify=tuple(given.get("notify", ())),
    )  # fmt: skip
