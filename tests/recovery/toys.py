"""Procedures for trying the engine: they do what their parameters say."""

from __future__ import annotations

from functools import partial
from typing import Any

from temporalio import workflow

from recovery.models import Authored, Start
from recovery.procedure import Missed, Procedure
from recovery.report import Report

with workflow.unsafe.imports_passed_through():
    from tests.recovery.putting import KEEP, LAY, PASS, PUT, READ, Content, Put


class Wanted(Authored):
    """Files to put one after the other, rows of files ``beside`` each other, a gate ("" for none), files after it.

    ``hurries`` is a file that is looked at while systems are taken in hand.
    """

    puts: tuple[dict[str, Any], ...] = ()
    beside: tuple[tuple[dict[str, Any], ...], ...] = ()
    then: tuple[dict[str, Any], ...] = ()
    gate: str = ""
    evidence: bool = True
    proves: bool = False
    reads: dict[str, Any] | None = None
    hurries: dict[str, Any] | None = None
    within: float = 60
    approvals: int = 1
    in_drill: str = "pass"
    not_after: float = 60
    system: str = "files"
    valid: float = 3600
    hold: dict[str, Any] | None = None
    notify: tuple[str, ...] = ()


@workflow.defn
class Toy(Procedure[Wanted]):
    """Put files, prove them, ask."""

    parameters = Wanted

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Do as told."""
        async with self.conducting(start) as wanted:
            if wanted.hurries:
                file = Put(system="files", **wanted.hurries)
                found = await self.taking(lambda: self.look(PUT, file, "see what is there"))
                self.measured("seen first", found.text)
            for put in wanted.puts:
                await self._put(**put)
            await self.together(*(self._row(row) for row in wanted.beside))
            if wanted.proves:
                await self.prove(PUT, Put(system="files", path=wanted.puts[0]["path"]), step="prove")
            if wanted.reads:
                read = await self.prove(READ, Put(system="files", **wanted.reads), step="read")
                self.measured("read", read.text if read else "nothing")
            if wanted.gate:
                await self.gate(wanted.gate, Content(text="seen") if wanted.evidence else None)
            for put in wanted.then:
                await self._put(**put)
            self.delivered("files", "here")
        return self.report()

    def _hurries(self, wanted: Wanted) -> bool:
        return wanted.hurries is not None

    async def _row(self, puts: tuple[dict[str, Any], ...]) -> None:
        for put in puts:
            if rows := put.get("beside"):
                await self.together(*(self._row(row) for row in rows))
            else:
                await self._put(**put)

    async def _put(
        self, how: str = "put", commits: str = "", dark: bool = False, noted: bool = False, **put: Any
    ) -> None:
        action = {"put": PUT, "lay": LAY, "keep": KEEP, "pass": PASS}[how]
        once = partial(workflow.wait_condition, lambda: bool(self.report().notes)) if noted else None
        spec = Put(**{"system": "files", "drill": True} | put)
        try:
            await self.do(action, spec, commits=commits, dark=dark, once=once)
        except Missed as missed:
            self.delivered("left out", missed.message)


@workflow.defn
class Passing(Toy):
    """The same, and nothing of it is to stay."""

    puts_back = True

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Do as told."""
        return await super().run(start)
