"""Azure's virtual machines: started, deallocated; where there is no room for one, what its alternatives say runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, Self

from activities.azure import NoRoom
from activities.machine_operations import MachineAt, Stands, claim, ended, operate, resize, settled, under
from recovery.actions import Action, Spec
from recovery.errors import Drifted, Fatal, Transient
from recovery.models import Wire
from runbooks.schema import Machine

AGAIN = timedelta(minutes=1)
"""After which room is asked for again, where there is no alternative."""


class Way(Wire):
    """What is started where there is no room: the machine in another ``size``, or another machine."""

    size: str = ""
    instead: MachineAt | None = None


class MachineSpec(Spec):
    """A machine, whether it is to run, and what instead of it where there is no room."""

    at: MachineAt
    wanted: Literal["running", "deallocated"]
    alternatives: tuple[Way, ...] = ()

    @classmethod
    def of(cls, system: str, machines: Mapping[str, Machine], wanted: str, **more: Any) -> Self:
        """Return the spec for the machine ``system`` of an estate."""
        known = {name: MachineAt.of(machine, machine=name) for name, machine in machines.items()}
        ways = [
            Way(size=one.size) if one.size else Way(instead=known[str(one.machine)])
            for one in machines[system].alternatives
        ]
        return cls.model_validate(
            {"system": system, "at": known[system], "wanted": wanted, "alternatives": tuple(ways)} | more
        )

    @property
    def all(self) -> tuple[MachineAt, ...]:
        """The machine, and those that may stand in for it."""
        return self.at, *(way.instead for way in self.alternatives if way.instead)

    @property
    def sizes(self) -> tuple[str, ...]:
        """The other sizes that the machine may have."""
        return tuple(way.size for way in self.alternatives if way.size)


class Powered(Wire):
    """Whether one runs, the machine or one that stands in for it; and how each of them stands."""

    running: bool = False
    machines: dict[str, Stands] | None = {}


class RunMachine(Action[MachineSpec, Powered]):
    """Have a machine run, or have it deallocated; where it has no room, an alternative runs.

    A machine that is off already, though it keeps its place, counts as deallocated. Sizes are tried on one that was
    deallocated: a stopped one has its place. One that stands in keeps its own size, and its own address. Undone, each
    has the power and the size that it had; the tag that keeps whose write was the last stays.
    """

    name = "azure.machine"
    limit = timedelta(minutes=15)
    patience = timedelta(minutes=45)
    undo_patience = timedelta(minutes=45)

    def title(self, spec: MachineSpec) -> str:
        """Say what is started or let go."""
        return f"{'start' if spec.wanted == 'running' else 'deallocate'} {spec.system}"

    async def observe(self, spec: MachineSpec) -> Powered:
        """Look at each, once nothing is under way on it any more."""
        await ended(spec.all)
        found = await asyncio.gather(*(settled(one) for one in spec.all))
        stands = {at.machine: one.stands for at, one in zip(spec.all, found, strict=True)}
        return Powered(running=any(one.power == "running" for one in stands.values()), machines=stands)

    def desired(self, spec: MachineSpec, before: Powered) -> Powered:
        """Want one to run, whichever it will be; or none."""
        if spec.wanted == "running":
            return before if before.running else Powered(running=True, machines=None)
        off = {
            name: one.model_copy(update={"power": "deallocated"}) if one.power == "running" else one
            for name, one in (before.machines or {}).items()
        }
        return Powered(running=False, machines=off)

    def partial(self, spec: MachineSpec, before: Powered, now: Powered) -> bool:
        """Know that each is what it was, or on the way: off in another size that may be tried, or as wanted."""
        was, seen = before.machines or {}, now.machines or {}
        return was.keys() == seen.keys() and all(self._known(spec, name, was[name], seen[name]) for name in was)

    def _known(self, spec: MachineSpec, name: str, was: Stands, now: Stands) -> bool:
        sizes = {was.size} | set(spec.sizes if name == spec.at.machine else ())
        return now.power in (was.power, spec.wanted) and now.size in sizes and now.zone == was.zone

    def begun(self, spec: MachineSpec, before: Powered, now: Powered) -> bool:
        """Know it by one that is not what it was."""
        return now != before and self.partial(spec, before, now)

    async def apply(self, spec: MachineSpec, before: Powered) -> None:
        """Start the first of the ways for which there is room; or deallocate what runs."""
        await claim(spec.system, spec.at)
        if spec.wanted == "running":
            return await self._start(spec, before)
        for at in spec.all:
            if (await settled(at)).stands.power == "running":
                await operate(at, "deallocate")
        return None

    async def _start(self, spec: MachineSpec, before: Powered) -> None:
        was = (before.machines or {})[spec.at.machine]
        for at, size in _ways(spec, was, (await settled(spec.at)).stands.size):
            if (way := f"{at.machine} {size}".strip()) in under().full:
                continue
            try:
                if at != spec.at:  # what was tried on the machine is not left on it
                    await resize(spec.at, was.size)
                await resize(at, size, way)
                return await operate(at, "start", way=way)
            except NoRoom:
                continue
        raise Fatal(
            f"machines.{spec.system}.alternatives: Azure has no room for {', '.join(under().full)}, and none of them"
            " runs. Name another size or another machine there, or let the step be tried again later"
        )

    async def undo(self, spec: MachineSpec, before: Powered) -> None:
        """Give each the power and the size back that it had."""
        await claim(spec.system, spec.at)
        for at in spec.all:
            if not self._known(spec, at.machine, (before.machines or {})[at.machine], (await settled(at)).stands):
                raise Drifted(f"{at.field}: somebody else has changed the machine; it was not put back. Look at it")
        for at in spec.all:
            try:
                await self._back(at, (before.machines or {})[at.machine])
            except NoRoom as error:
                raise Transient(f"{at.field}: Azure has no room for what it was ({error.code})", after=AGAIN) from None

    async def _back(self, at: MachineAt, was: Stands) -> None:
        now = (await settled(at)).stands
        if now.power == "running" and (was.power != "running" or was.size != now.size):
            await operate(at, "power_off" if was.power == "stopped" else "deallocate")
        await resize(at, was.size)
        if was.power == "running" and (await settled(at)).stands.power != "running":
            await operate(at, "start")

    async def halt(self, spec: MachineSpec) -> None:
        """Shut out what an earlier attempt may still ask for, and wait for the end of what it has begun."""
        await claim(spec.system, spec.at)
        await asyncio.gather(*(settled(one) for one in spec.all))


run_machine = RunMachine()


def _ways(spec: MachineSpec, was: Stands, size: str) -> list[tuple[MachineAt, str]]:
    """Return what may be started, in the order in which it is tried: a machine, in which size ("" in its own).

    First comes the ``size`` that the machine has by now: an earlier attempt found no room for those before it.
    """
    ways = [(spec.at, was.size)]
    for way in spec.alternatives:
        if way.instead is not None:
            ways.append((way.instead, ""))
        elif was.power != "stopped":
            ways.append((spec.at, way.size))
    return sorted(ways, key=lambda one: one != (spec.at, size))
