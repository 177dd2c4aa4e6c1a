"""Who holds a system, who waits for it, and under which epoch; pure.

A lease is given to the runs of one recovery. Its epoch rises with every grant, so that a target can tell a late hand
from the one that holds it now. It is free only after a release: a holder that ended in any other way leaves it
``orphaned``, and somebody has to take it over: the undo of that recovery, or a person with a reason.
"""

from __future__ import annotations

from typing import NamedTuple

from recovery.models import Wire


class Holder(Wire):
    """A run that holds a system or waits for it; ``chain`` is the same in all runs that resets made of one."""

    workflow: str
    chain: str
    run: str

    def akin(self, other: Holder | None) -> bool:
        """Tell whether both are runs of one recovery."""
        return other is not None and (self.workflow, self.chain) == (other.workflow, other.chain)


class Asked(Wire):
    """A request for a system. ``instead_of`` are chains, or workflow ids, of which every run has ended: their place
    is taken.
    """

    holder: Holder
    instead_of: tuple[str, ...] = ()
    waits: bool = True


class Standing(Wire):
    """Where one stands who asked: the ``epoch`` that was granted; or 0, and ``behind`` whom.

    ``orphaned`` says how the holder ended without a release: then there is nothing to wait for.
    """

    epoch: int = 0
    behind: Holder | None = None
    orphaned: str = ""


class Asking(Wire):
    """A request to the workflow that keeps the ``lease``."""

    lease: str
    asked: Asked


class Leaving(Wire):
    """A release, to the workflow that keeps the ``lease``."""

    lease: str
    holder: Holder


class Granted(Wire):
    """What a run that waited for the ``lease`` is told; a reset hands it on to another ``run``, which it is not for."""

    lease: str
    run: str
    standing: Standing


class Lease(Wire):
    """The lease of one system; ``queue`` waits in order."""

    epoch: int = 0
    holder: Holder | None = None
    orphaned: str = ""
    queue: tuple[Holder, ...] = ()


class Said(NamedTuple):
    """What a waiting run has to hear."""

    to: Holder
    standing: Standing


class Step(NamedTuple):
    """The lease after something happened, and what has to be told."""

    lease: Lease
    told: tuple[Said, ...] = ()


def standing(lease: Lease, holder: Holder) -> Standing:
    """Return where ``holder`` stands."""
    if lease.holder == holder and not lease.orphaned:
        return Standing(epoch=lease.epoch)
    return Standing(behind=lease.holder, orphaned=lease.orphaned)


def ask(lease: Lease, asked: Asked) -> Lease:
    """Give the system, or a place in the queue where one may wait for it; asked again, nothing more happens."""
    holder, now = asked.holder, lease.holder
    if holder == now and not lease.orphaned:
        return lease
    if now is None or holder.akin(now) or {now.chain, now.workflow} & set(asked.instead_of):
        return _given(lease, holder)
    if lease.orphaned or not asked.waits:
        return lease
    others = [one for one in lease.queue if not one.akin(holder)]
    place = next((place for place, one in enumerate(lease.queue) if one.akin(holder)), len(others))
    return lease.model_copy(update={"queue": (*others[:place], holder, *others[place:])})


def leave(lease: Lease, holder: Holder) -> Step:
    """Release the system, or the place in its queue; what is neither's any more changes nothing."""
    if holder != lease.holder:
        return Step(lease.model_copy(update={"queue": tuple(one for one in lease.queue if one != holder)}))
    if not lease.queue:
        return Step(lease.model_copy(update={"holder": None, "orphaned": ""}))
    following = _given(lease, lease.queue[0])
    return Step(following, (Said(lease.queue[0], standing(following, lease.queue[0])),))


def orphan(lease: Lease, chain: str, how: str) -> Step:
    """Know that every run of the holder has ended without a release: nobody waits for one any more."""
    if lease.holder is None or lease.holder.chain != chain or lease.orphaned:
        return Step(lease)
    left = lease.model_copy(update={"orphaned": how, "queue": ()})
    return Step(left, tuple(Said(one, standing(left, one)) for one in lease.queue))


def free(lease: Lease) -> Lease:
    """Let go of an orphaned system, as a person took upon them."""
    return lease.model_copy(update={"holder": None, "orphaned": ""}) if lease.orphaned else lease


def _given(lease: Lease, holder: Holder) -> Lease:
    queue = tuple(one for one in lease.queue if not one.akin(holder))
    return Lease(epoch=lease.epoch + 1, holder=holder, queue=queue)
