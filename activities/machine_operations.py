"""What is asked of Azure about one virtual machine: how it stands, and operations that go on by themselves.

An attempt carries (``recovery.carrying``) what it is about to ask for, then the continuation token of it. One that
comes after a crash goes on with the token; where there is none yet, it waits for a sign that the request had arrived,
and sends another only where there is none. What an attempt asked for that was cancelled goes on; an undo waits for its
end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import ValidationError

from activities.azure import AzureAt, NoRoom, OperationFailed, Session, asked, left, no_room
from recovery.carrying import carried, carry
from recovery.errors import Invalid, Stale, Transient
from recovery.fencing import hand
from recovery.models import Wire

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


class Stands(Wire):
    """How a machine stands: running, stopped (it keeps its place, and costs), deallocated, or what else Azure says."""

    power: str
    size: str
    zone: str = ""


class Under(Wire):
    """What an attempt carries: what it asked for, of which machine, and by which token that goes on.

    ``since`` is when Azure had last begun or ended something on the machine before. ``way`` is what is tried with it;
    ``full`` are ways for which there was no room.
    """

    kind: Kind | None = None
    machine: str = ""
    size: str = ""
    way: str = ""
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
    location: str


# --- looking ----------------------------------------------------------------------------------------------------


async def settled(at: MachineAt) -> Seen:
    """Return the machine once nothing is under way on it any more. Raises Transient when the attempt's time is over."""
    pause = PAUSE
    while (found := await look(at)).busy:
        if left() < pause:
            raise Transient(f"{at.field}: something is still under way on it at Azure ({found.stands.power})")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST)
    return found


async def look(at: MachineAt) -> Seen:
    """Return the machine as it is now."""

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
        location=found.location or "",
    )


# --- operations -------------------------------------------------------------------------------------------------


def under() -> Under:
    """Return what this attempt, or the one before it, has under way."""
    try:
        return Under.model_validate_json(carried() or "{}")
    except ValidationError:  # of another build: what it began is seen at Azure
        return Under()


async def _carry(now: Under) -> None:
    await carry("" if now == Under() else now.model_dump_json(exclude_defaults=True))


async def operate(at: MachineAt, kind: Kind, size: str = "", way: str = "") -> None:
    """Ask for an operation, once, and wait for its end. Raises NoRoom, having noted that of ``way``; and others."""
    seen = await settled(at)
    now = Under(kind=kind, machine=at.machine, size=size, way=way, since=seen.changed, full=under().full)
    await _carry(now)

    async def call(session: Session) -> str:
        return (await _poller(session, at, now)).continuation_token()

    try:
        token = await asked(at, at.field, call)
    except NoRoom:
        await _over(now, full=True)
        raise
    now = now.model_copy(update={"token": token})
    await _carry(now)
    await _follow(at, now)


async def resize(at: MachineAt, size: str, way: str = "") -> None:
    """Have the machine, which does not run, in this size; "" is any."""
    if size and (await settled(at)).stands.size != size:
        await operate(at, "resize", size, way)


async def ended(machines: Sequence[MachineAt]) -> None:
    """See the end of what an attempt before this one had asked for; for what there was no room is noted."""
    now = under()
    at = next((one for one in machines if one.machine == now.machine), None)
    if now.kind is None or at is None:
        return
    with contextlib.suppress(NoRoom):
        await (_follow(at, now) if now.token else _arrived(at, now))


async def _follow(at: MachineAt, now: Under) -> None:
    async def call(session: Session) -> None:
        await (await _poller(session, at, now)).result()

    try:
        await asked(at, at.field, call)
    except NoRoom:
        await _over(now, full=True)
        raise
    except OperationFailed as error:
        await _over(now)
        raise Transient(f"{at.field}: Azure failed to do that ({error}); see the activity log there") from None
    except Invalid:
        await _over(now)  # Azure forgets operations after some days: what came of it is seen at the machine
    else:
        await _over(now)


async def _arrived(at: MachineAt, now: Under) -> None:
    """Wait for a sign that a request had arrived whose answer nobody heard, and for its end. Raises NoRoom."""
    until = asyncio.get_running_loop().time() + ARRIVES
    while (seen := await settled(at)).changed == now.since and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(PAUSE)
    full = seen.changed != now.since and no_room(seen.failed)
    await _over(now, full)
    if full:
        raise NoRoom(seen.failed)


async def _over(now: Under, full: bool = False) -> None:
    """Note that nothing is under way any more; and, if ``full``, that there was no room for it."""
    await _carry(Under(full=(*now.full, now.way) if full and now.way else now.full))


async def _poller(session: Session, at: MachineAt, now: Under) -> AsyncLROPoller[Any]:
    """Begin the operation, or go on with one by its token."""
    machines: Any = session.compute.virtual_machines
    more = {"continuation_token": now.token} if now.token else {}
    body = ({"properties": {"hardwareProfile": {"vmSize": now.size}}},) if now.kind == "resize" else ()
    begin = getattr(machines, "begin_update" if now.kind == "resize" else f"begin_{now.kind}")
    poller: AsyncLROPoller[Any] = await begin(at.resource_group, at.name, *body, **more)
    return poller


# --- whose hand -------------------------------------------------------------------------------------------------


async def claim(system: str, at: MachineAt) -> None:
    """Write into a tag of the machine that this hand is the last, unless a later one was. Raises Stale.

    By compare-and-swap of the machine's ETag. Between that and what is asked for then, a later hand may come: Azure
    compares nothing there.
    """
    if (number := own(system)) is None:
        return
    for _ in range(TRIES):
        now = await settled(at)
        if not later(system, now.tags.get(MARK, ""), number, at.field):
            return
        if await _tagged(at, now, " ".join(map(str, number))):
            return
        await asyncio.sleep(PAUSE)
    raise Transient(f"{at.field}: others keep changing it")


def own(system: str) -> tuple[int, int, int] | None:
    """Return the numbers of the hand that acts on ``system``; None without a lease: then there is no order to keep."""
    mine = hand()
    return (mine.epoch, mine.order, mine.attempt) if mine.system == system and mine.epoch else None


def later(system: str, mark: str, number: tuple[int, int, int], field: str) -> bool:
    """Tell whether this hand is later than that of ``mark``. Raises Stale where that one is, Invalid."""
    was = marked(mark, field)
    if was > number:
        words = ["epoch {} (order {}, attempt {})".format(*one) for one in (was, number)]
        raise Stale(
            f"{system}: {words[0]} has written since, this is {words[1]}; nothing was written. See which recovery"
            " holds it now"
        )
    return was != number


def marked(mark: str, field: str) -> tuple[int, int, int]:
    """Return the numbers of a mark, zeros of none. Raises Invalid."""
    try:
        epoch, order, attempt = (int(word) for word in (mark or "0 0 0").split())
    except ValueError:
        raise Invalid(f"{field}: its tag {MARK} is not as a recovery wrote it; remove the tag") from None
    return epoch, order, attempt


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
