"""Azure's virtual machines: started, deallocated, and where there is no room for one, started as its alternatives say.

What Azure begins goes on by itself, for minutes. So an attempt carries (``recovery.carrying``) what it is about to ask
for, then the continuation token of it. One that comes after a crash goes on with the token; where there is none yet,
it waits for a sign that the request had arrived, and sends another only where there is none. What an attempt asked for
that was cancelled goes on; the undo waits for its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from pydantic import ValidationError

from activities.azure import AzureAt, NoRoom, OperationFailed, Session, asked, left, no_room
from recovery.actions import Action, Spec
from recovery.carrying import carried, carry
from recovery.errors import Drifted, Fatal, Invalid, RecoveryError, Stale, Transient
from recovery.fencing import hand
from recovery.models import Wire
from runbooks.schema import Machine

if TYPE_CHECKING:
    from azure.core.polling import AsyncLROPoller
    from azure.mgmt.compute.models import VirtualMachine

MARK = "recovery-hand"
"""The tag of a machine in which it is kept whose write was the last: epoch, order, attempt."""
TRIES = 20
ARRIVES = 5.0
"""Seconds within which a request of an attempt that died is seen, if it arrived at all."""
PAUSE, LONGEST = 0.2, 10.0
"""Seconds between two looks at a machine that something is under way on: more with each."""
AGAIN = timedelta(minutes=1)
"""After which room is asked for again, where there is no alternative."""
MOVING = ("starting", "stopping", "deallocating", "creating")
BUSY = ("Creating", "Updating", "Deleting", "Migrating")
Kind = Literal["start", "deallocate", "power_off", "resize"]


class MachineAt(AzureAt):
    """A virtual machine; ``machine`` is its name in the estate, ``name`` that in Azure."""

    machine: str
    name: str

    @property
    def field(self) -> str:
        """What is to be looked at in the estate, where Azure does not know it."""
        return f"machines.{self.machine}.name"


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


class Stands(Wire):
    """How a machine stands: running, stopped (it keeps its place, and costs), deallocated, or what else Azure says."""

    power: str
    size: str
    zone: str = ""


class Powered(Wire):
    """Whether one runs, the machine or one that stands in for it; and how each of them stands."""

    running: bool = False
    machines: dict[str, Stands] | None = {}


class Under(Wire):
    """What an attempt carries: what it asked for, of which machine, and by which token that goes on.

    ``since`` is when Azure had last begun or ended something on the machine before. ``full`` are ways for which there
    was no room.
    """

    kind: Kind | None = None
    machine: str = ""
    size: str = ""
    since: str = ""
    token: str = ""
    full: tuple[str, ...] = ()


class Seen(NamedTuple):
    """A machine as Azure shows it."""

    stands: Stands
    busy: bool
    failed: str
    changed: str
    tags: dict[str, str]
    etag: str


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
        await _ended(spec)
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
        await claim(spec)
        if spec.wanted == "running":
            return await self._start(spec, before)
        for at in spec.all:
            if (await settled(at)).stands.power == "running":
                await _operate(at, "deallocate")
        return None

    async def _start(self, spec: MachineSpec, before: Powered) -> None:
        was = (before.machines or {})[spec.at.machine]
        for at, size in _ways(spec, was, (await settled(spec.at)).stands.size):
            if (label := f"{at.machine} {size}".strip()) in _under().full:
                continue
            try:
                if at != spec.at:  # what was tried on the machine is not left on it
                    await _resized(spec.at, was.size)
                await _resized(at, size)
                return await _operate(at, "start")
            except NoRoom:
                await _full(label)
        raise Fatal(
            f"machines.{spec.system}.alternatives: Azure has no room for {', '.join(_under().full)}, and none of them"
            " runs. Name another size or another machine there, or let the step be tried again later"
        )

    async def undo(self, spec: MachineSpec, before: Powered) -> None:
        """Give each the power and the size back that it had."""
        await claim(spec)
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
            await _operate(at, "power_off" if was.power == "stopped" else "deallocate")
        await _resized(at, was.size)
        if was.power == "running" and (await settled(at)).stands.power != "running":
            await _operate(at, "start")

    async def halt(self, spec: MachineSpec) -> None:
        """Shut out what an earlier attempt may still ask for, and wait for the end of what it has begun."""
        await claim(spec)
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


# --- looking ----------------------------------------------------------------------------------------------------


async def settled(at: MachineAt) -> Seen:
    """Return the machine once nothing is under way on it any more. Raises Transient when the attempt's time is over."""
    pause = PAUSE
    while (found := await _look(at)).busy:
        if left() < pause:
            raise Transient(f"{at.field}: something is still under way on it at Azure ({found.stands.power})")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST)
    return found


async def _look(at: MachineAt) -> Seen:
    async def call(session: Session) -> VirtualMachine:
        return await session.compute.virtual_machines.get(at.resource_group, at.name, expand="instanceView")

    return _seen(at, await asked(at, at.field, call))


def _seen(at: MachineAt, found: VirtualMachine) -> Seen:
    shown = found.properties
    if shown is None or shown.instance_view is None or shown.hardware_profile is None:
        raise Invalid(f"{at.field}: Azure shows no virtual machine there; see the endpoint, or the name")
    codes = {str(one.code).partition("/")[0]: one for one in shown.instance_view.statuses or ()}
    power, state = (str(codes[kind].code) if kind in codes else "" for kind in ("PowerState", "ProvisioningState"))
    since = codes["ProvisioningState"].time if "ProvisioningState" in codes else None
    power = power.partition("/")[2] or "unknown"
    return Seen(
        Stands(power=power, size=str(shown.hardware_profile.vm_size), zone=",".join(found.zones or ())),
        busy=power in MOVING or shown.provisioning_state in BUSY,
        failed=state.split("/")[2] if state.count("/") > 1 else "",
        changed=since.isoformat() if since else "",
        tags=dict(found.tags or {}),
        etag=found.etag or "",
    )


# --- operations -------------------------------------------------------------------------------------------------


def _under() -> Under:
    try:
        return Under.model_validate_json(carried() or "{}")
    except ValidationError:  # of another build: what it began is seen at Azure
        return Under()


async def _carry(under: Under) -> None:
    await carry("" if under == Under() else under.model_dump_json(exclude_defaults=True))


async def _full(label: str) -> None:
    await _carry(Under(full=(*_under().full, label)))


async def _resized(at: MachineAt, size: str) -> None:
    """Have the machine, which does not run, in this size; "" is any."""
    if size and (await settled(at)).stands.size != size:
        await _operate(at, "resize", size)


async def _operate(at: MachineAt, kind: Kind, size: str = "") -> None:
    """Ask for an operation, once, and wait for its end. Raises NoRoom, and others."""
    now = await settled(at)
    under = Under(kind=kind, machine=at.machine, size=size, since=now.changed, full=_under().full)
    await _carry(under)
    under = under.model_copy(update={"token": await asked(at, at.field, lambda session: _begun(session, at, under))})
    await _carry(under)
    await _follow(at, under)


async def _begun(session: Session, at: MachineAt, under: Under) -> str:
    poller = await _poller(session, at, under)
    return poller.continuation_token()


async def _follow(at: MachineAt, under: Under) -> None:
    async def call(session: Session) -> None:
        poller = await _poller(session, at, under)
        await poller.result()

    try:
        await asked(at, at.field, call)
    except Invalid:
        await _over(under)  # Azure forgets operations after some days: what came of it is seen at the machine
    except NoRoom:
        await _over(under)
        raise
    except OperationFailed as error:
        await _over(under)
        raise Transient(f"{at.field}: Azure failed to do that ({error}); see the activity log there") from None
    else:
        await _over(under)


async def _over(under: Under) -> None:
    await _carry(Under(full=under.full))


async def _poller(session: Session, at: MachineAt, under: Under) -> AsyncLROPoller[Any]:
    """Begin the operation, or go on with one by its token."""
    machines: Any = session.compute.virtual_machines
    where = (at.resource_group, at.name)
    more = {"continuation_token": under.token} if under.token else {}
    body = ({"properties": {"hardwareProfile": {"vmSize": under.size}}},) if under.kind == "resize" else ()
    begin = getattr(machines, "begin_update" if under.kind == "resize" else f"begin_{under.kind}")
    poller: AsyncLROPoller[Any] = await begin(*where, *body, **more)
    return poller


async def _ended(spec: MachineSpec) -> None:
    """See the end of what an attempt before this one had asked for; for what there was no room is noted."""
    under = _under()
    at = next((one for one in spec.all if one.machine == under.machine), None)
    if under.kind is None or at is None:
        return
    label = f"{at.machine} {(await _look(at)).stands.size if at == spec.at else ''}".strip()
    try:
        if under.token:
            await _follow(at, under)
        else:
            await _arrived(at, under)
    except NoRoom:
        await _full(label if under.kind == "start" else f"{at.machine} {under.size}")


async def _arrived(at: MachineAt, under: Under) -> None:
    """Wait for a sign that a request had arrived whose answer nobody heard; then for its end. Raises NoRoom."""
    until = asyncio.get_running_loop().time() + ARRIVES
    while (now := await settled(at)).changed == under.since and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(PAUSE)
    await _over(under)
    if now.changed != under.since and no_room(now.failed):
        raise NoRoom(now.failed)


# --- whose hand -------------------------------------------------------------------------------------------------


async def claim(spec: MachineSpec) -> None:
    """Write into a tag of the machine that this hand is the last, unless a later one was. Raises Stale.

    By compare-and-swap of the machine's ETag. Between that and what is asked for then, a later hand may come: Azure
    compares nothing there.
    """
    mine = hand()
    number = (mine.epoch, mine.order, mine.attempt)
    if mine.system != spec.system or not mine.epoch:
        return  # without a lease there is no order among recoveries, and none to write down
    for _ in range(TRIES):
        now = await settled(spec.at)
        was = numbers(now.tags.get(MARK, ""), spec.at.field)
        if was > number:
            raise late(spec.system, was, number)
        if was == number or await _tagged(spec.at, now, " ".join(map(str, number))):
            return
        await asyncio.sleep(PAUSE)
    raise Transient(f"{spec.at.field}: others keep changing it")


def numbers(mark: str, field: str) -> tuple[int, ...]:
    """Return the numbers of a mark, (0, 0, 0) of none. Raises Invalid."""
    try:
        return tuple(int(word) for word in mark.split()) or (0, 0, 0)
    except ValueError:
        raise Invalid(f"{field}: its tag {MARK} is not as a recovery wrote it; remove the tag") from None


def late(system: str, was: tuple[int, ...], mine: tuple[int, ...]) -> RecoveryError:
    """Return what a hand is told that comes after a later one."""
    words = ["epoch {} (order {}, attempt {})".format(*one) for one in (was, mine)]
    return Stale(
        f"{system}: {words[0]} has written since, this is {words[1]}; nothing was written. See which recovery holds it"
        " now"
    )


async def _tagged(at: MachineAt, now: Seen, mark: str) -> bool:
    """Write the tag if nobody has changed the machine since it was looked at."""
    from azure.core import MatchConditions
    from azure.core.exceptions import HttpResponseError

    async def call(session: Session) -> bool:
        body: Any = {"tags": now.tags | {MARK: mark}}
        guard: dict[str, Any] = {"etag": now.etag, "match_condition": MatchConditions.IfNotModified} if now.etag else {}
        try:
            poller = await session.compute.virtual_machines.begin_update(at.resource_group, at.name, body, **guard)
            await poller.result()
        except HttpResponseError as error:
            if error.status_code in (409, 412):
                return False
            raise
        return True

    return await asked(at, at.field, call)
