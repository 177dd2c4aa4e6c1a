"""Probes and actions: what a procedure is made of, and how each becomes activities.

An action is four functions over one frozen state model; everything else is derived here, once:

- ``<name>.observe`` looks, and puts ``before`` into the history before anything changes;
- ``<name>.apply`` looks again, converges, looks, and returns what it then saw;
- ``<name>.undo`` restores ``before`` and proves it.

State models hold no volatile fields. ``None`` in a desired state means "known after apply".
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar, get_args

from pydantic import AwareDatetime
from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.service import RPCError

from recovery import kill_switch, meter
from recovery.errors import Drifted, Fatal, RecoveryError, Refused, Stale, Transient
from recovery.fencing import Hand, acting
from recovery.models import Mode, Wire

Activity = Callable[..., Coroutine[Any, Any, Any]]


class Spec(Wire):
    """What to act on; ``drill`` tells whether the estate marks the system as a drill target."""

    system: str
    drill: bool = False


S = TypeVar("S", bound=Spec)
T = TypeVar("T", bound=Wire)


class Patience(Wire):
    """How long an undo may take in all; an order in a history may be from before orders said it."""

    undo_within: timedelta = timedelta(minutes=10)


class Order(Patience, Generic[S, T]):
    """Tell an activity to change a system that was seen in state ``before``; void after ``not_after``.

    What fails transiently is tried again until ``give_up``: while clients are shut out, people have to hear of it soon,
    and of what an action `insists` on no longer.
    The event that schedules it is the record of the undo: of which ``step``, whether it ``commits`` the recovery (to
    what) or shuts clients out (``dark``), why there is nothing to undo (``kept``), whether an undo that failed
    ``guards`` what is beneath it, and how long it may take in all (``undo_within``). By the ``epoch`` of the ``lease``
    and the ``number`` of the order in its recovery a target refuses what comes late. ``queue`` is where it was given,
    if only the workers of one site were to act: its undo is given there, too. ``passing`` is what it leaves where it
    cannot be undone, of what was to stand for as long as the recovery lasts.
    """

    spec: S
    before: T
    mode: Mode
    not_after: AwareDatetime
    give_up: AwareDatetime | None = None
    step: str = ""
    commits: str = ""
    dark: bool = False
    kept: str = ""
    guards: bool = True
    passing: str = ""
    epoch: int = 0
    number: int = 0
    queue: str = ""
    lease: str = ""


def agrees(wanted: Wire, seen: Wire) -> bool:
    """Tell whether ``seen`` is what was ``wanted``, fields known only after apply left aside."""
    found = seen.model_dump()
    return all(value is None or found.get(field) == value for field, value in wanted.model_dump().items())


class Probe(ABC, Generic[S, T]):
    """An activity that only looks. ``limit`` is one attempt's, ``patience`` covers all attempts.

    ``skip`` says what it means to go on without it, "" where it must not be skipped. ``beside`` tells that it is worth
    nobody's waiting: where it fails nobody is asked, and whoever wanted it goes on without.
    """

    name: ClassVar[str]
    limit: ClassVar[timedelta] = timedelta(seconds=30)
    patience: ClassVar[timedelta] = timedelta(minutes=2)
    beat: ClassVar[timedelta] = timedelta(seconds=1)
    skip: ClassVar[str] = ""
    beside: ClassVar[bool] = False
    spec_type: type[S]
    state_type: type[T]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for known in (kind for base in getattr(cls, "__orig_bases__", ()) for kind in get_args(base)):
            if isinstance(known, type):  # a base that is shared may leave one of the two open
                setattr(cls, "spec_type" if issubclass(known, Spec) else "state_type", known)

    def title(self, spec: S) -> str:
        """Say in a few words what a person would call this step."""
        return f"{self.name} {spec.system}"

    @abstractmethod
    async def observe(self, spec: S) -> T:
        """Look, and change nothing."""

    def activities(self) -> list[Activity]:
        """Return the activities to register: one that looks."""

        async def observe(spec: Any) -> Any:
            async with _beating(self.beat):
                return await self.observe(spec)

        return [_activity(observe, f"{self.name}.observe", self.spec_type, self.state_type)]


class Action(Probe[S, T]):
    """Something that changes a system: made of observe, desired, apply and undo.

    ``limit`` is that of acting; ``look_limit`` and ``look_patience`` are those of its look. ``expires`` is how long an
    apply stays valid once ordered; ``undo_patience`` covers all attempts at an undo, and one that is at work may take
    all of it. ``kept`` says why nothing is undone, if so. ``guards`` tells that nothing beneath it may be undone where
    its own undo failed; not where that leaves behind what stands in nobody's way.
    """

    look_limit: ClassVar[timedelta] = Probe.limit
    look_patience: ClassVar[timedelta] = Probe.patience
    expires: ClassVar[timedelta] = timedelta(minutes=30)
    undo_patience: ClassVar[timedelta] = timedelta(minutes=10)
    kept: ClassVar[str] = ""
    guards: ClassVar[bool] = True

    @abstractmethod
    def desired(self, spec: S, before: T) -> T:
        """Return the state that apply must reach; pure."""

    def partial(self, spec: S, before: T, now: T) -> bool:
        """Tell whether ``now`` is this action's own half-done work; pure. By default there is none."""
        return False

    def passing(self, spec: S) -> str:
        """Say what is left where the undo fails, of what stands only for as long as the recovery lasts; pure.

        Such a thing is undone at every end, also after the point of no return; where that fails nobody is asked, and
        the report says so. By default ("") it is none.
        """
        return ""

    def insists(self, spec: S) -> timedelta | None:
        """Return how long what fails transiently is tried again; pure. By default (None) while its order is good."""
        return None

    def begun(self, spec: S, before: T, now: T) -> bool:
        """Tell whether ``now`` shows that it had begun, so that it may be finished late; pure. By default: partial."""
        return self.partial(spec, before, now)

    @abstractmethod
    async def apply(self, spec: S, before: T) -> None:
        """Converge; killed anywhere and run again: same end, one effect."""

    @abstractmethod
    async def undo(self, spec: S, before: T) -> None:
        """Restore what was there."""

    async def halt(self, spec: S) -> None:
        """End what an earlier attempt still runs on the target, and remove its traces. By default there is none."""

    @contextlib.asynccontextmanager
    async def ending(self, spec: S) -> AsyncIterator[None]:
        """Halt once the body has ended; what it has left running where it may be tried again is found by the next."""
        try:
            yield
        except Transient:
            raise
        except RecoveryError:
            await self.halt(spec)
            raise
        await self.halt(spec)

    def activities(self) -> list[Activity]:
        """Return the activities to register: look, change, change back."""

        async def apply(order: Any) -> Any:
            async with _beating(self.beat), _counting(self.beat):
                with _giving_up(order.give_up), acting(_hand(order)):
                    return await self.carry_out(order)

        async def undo(order: Any) -> Any:
            async with _beating(self.beat), _counting(self.beat):
                with acting(_hand(order)):
                    return await self.carry_back(order)

        wire = Order[self.spec_type, self.state_type]  # type: ignore[name-defined]
        changes = [_activity(apply, f"{self.name}.apply", wire, self.state_type)]
        if not self.kept:
            changes.append(_activity(undo, f"{self.name}.undo", wire, self.state_type))
        return [*super().activities(), *changes]

    async def carry_out(self, order: Order[S, T]) -> T:
        """Apply ``order`` unless it is late, already done, or somebody else was there; return what is seen after.

        What was begun in time may be finished late: after a crash, half a copy is nobody's truth.
        """
        _refuse(order)
        kill_switch.heed()
        now = await self.observe(order.spec)
        wanted = self.desired(order.spec, order.before)
        if agrees(wanted, now):
            await self.halt(order.spec)
            return now
        try:  # an earlier attempt may have got further, and left its job
            self._expect(order, now, order.before)
            if datetime.now(UTC) > order.not_after and not self.begun(order.spec, order.before, now):
                raise Stale(f"the instruction was valid until {order.not_after:%Y-%m-%d %H:%M:%S}Z; nothing was done")
            await self.apply(order.spec, order.before)
        except Transient:
            raise  # what runs on the target is found again by the next attempt
        except RecoveryError:
            await self.halt(order.spec)
            raise
        after = await self.tidied(order.spec)
        if not agrees(wanted, after):
            raise Transient(f"{self.title(order.spec)}: applied, but the system shows {differences(wanted, after)}")
        return after

    async def carry_back(self, order: Order[S, T]) -> T:
        """Restore ``order.before`` unless somebody else was there; return what is seen after."""
        kill_switch.heed()
        with _giving_up(order.give_up):  # what has begun may take its time
            await self.halt(order.spec)  # an apply that outlived its worker must not act after the undo
            now = await self.observe(order.spec)
        if agrees(order.before, now):
            return now
        wanted = self.desired(order.spec, order.before)
        if order.commits and (agrees(wanted, now) or self.begun(order.spec, order.before, now)):
            # It was withdrawn as seen to have changed nothing: that look was not the last word, this is.
            raise Refused(
                f"{self.title(order.spec)}: it took effect after it was seen to have changed nothing, and clients may"
                " have written since; nothing was taken back. Look at what they wrote, then choose which to keep"
            )
        self._expect(order, now, wanted)
        await self.undo(order.spec, order.before)
        after = await self.observe(order.spec)
        if not agrees(order.before, after):
            raise Transient(
                f"{self.title(order.spec)}: undone, but the system shows {differences(order.before, after)}"
            )
        return after

    async def tidied(self, spec: S) -> T:
        """Look, and remove the traces of what has come to its end beside that: clients may be shut out meanwhile."""
        halting = asyncio.ensure_future(self.halt(spec))
        try:
            return await self.observe(spec)
        finally:
            await halting

    def _expect(self, order: Order[S, T], now: T, known: T) -> None:
        if not agrees(known, now) and not self.partial(order.spec, order.before, now):
            raise Drifted(
                f"{self.title(order.spec)}: somebody else changed it ({differences(known, now)}); nothing was"
                " overwritten. Look at the system, then start again"
            )


def differences(wanted: Wire, seen: Wire) -> str:
    """Return ``field is X, not Y`` for each field in which ``seen`` is not what was ``wanted``."""
    found, shown = seen.model_dump(), seen.model_dump(mode="json")
    asked = wanted.model_dump(mode="json")
    rows = [
        f"{field} is {shown.get(field)!r}, not {asked[field]!r}"
        for field, value in wanted.model_dump().items()
        if value is not None and found.get(field) != value
    ]
    return ", ".join(rows)


@contextlib.contextmanager
def _giving_up(at: datetime | None) -> Iterator[None]:
    """Let a transient failure be final after ``at``; what is at work is not disturbed."""
    try:
        yield
    except Transient as error:
        if at is None or datetime.now(UTC) < at:
            raise
        raise Fatal(f"{error.message} (tried again until {at:%H:%M:%S} UTC)") from None


def _hand(order: Order[Any, Any]) -> Hand:
    return Hand(order.spec.system, order.epoch, order.number, activity.info().attempt, order.lease)


def _refuse(order: Order[Any, Any]) -> None:
    if order.mode == "check":
        raise Refused("a check changes nothing")
    if order.mode == "drill" and not order.spec.drill:
        raise Refused(f"{order.spec.system} is no drill target in the estate; nothing was done")


@contextlib.asynccontextmanager
async def _beating(beat: timedelta) -> AsyncIterator[None]:
    """Heartbeat while the body runs, saying how far it is, so that a dead worker is noticed and a cancel arrives."""

    async def pulse() -> None:
        while True:  # the first beat comes late: most activities are over by then, and each beat is a write
            await asyncio.sleep(beat.total_seconds())
            activity.heartbeat(*meter.details())

    async with meter.metered():
        pulsing = asyncio.create_task(pulse())
        try:
            yield
        finally:
            pulsing.cancel()


@contextlib.asynccontextmanager
async def _counting(beat: timedelta) -> AsyncIterator[None]:
    """Let the body act only while Temporal confirms that this attempt is the one that counts.

    A worker that stood still, or was cut off, for longer than the heartbeat timeout has a successor, or its recovery
    has ended: what it was about to do must not be done. It is stopped when nothing was confirmed for half that time.
    """
    timeout, loop = activity.info().heartbeat_timeout, asyncio.get_running_loop()
    if timeout is None:  # nobody expects a beat, so nobody takes over
        yield
        return
    attempt = activity.client().get_async_activity_handle(task_token=activity.info().task_token)

    async def confirm() -> None:
        with contextlib.suppress(AsyncActivityCancelledError):  # the cancel itself arrives in answer to a beat
            await attempt.heartbeat(*meter.details(), rpc_timeout=timeout / 2)
        if not limit.expired():
            limit.reschedule(loop.time() + timeout.total_seconds() / 2)

    async def ask() -> None:
        while True:
            await asyncio.sleep(beat.total_seconds())
            with contextlib.suppress(RPCError):
                await confirm()

    # Temporal's word that this attempt counts is as old as its start; while that is fresh another one tells nothing.
    age = (datetime.now(UTC) - activity.info().started_time).total_seconds()
    fresh = 0 <= age < timeout.total_seconds() / 4
    try:
        async with asyncio.timeout(timeout.total_seconds() / 2 - (age if fresh else 0)) as limit:
            if not fresh:
                await confirm()
            asking = asyncio.create_task(ask())
            try:
                yield
            finally:
                asking.cancel()
    except (RPCError, TimeoutError) as error:
        if isinstance(error, TimeoutError) and not limit.expired():
            raise
        raise Transient("Temporal does not confirm that this attempt still counts; nothing more was done") from None


def _activity(call: Activity, name: str, takes: Any, gives: Any) -> Activity:
    parameter = next(iter(call.__annotations__))
    call.__annotations__ = {parameter: takes, "return": gives}
    return activity.defn(name=name)(call)
