"""The lease of a system, over every sequence of a few events among three recoveries, one of which is reset."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from recovery.leases import Asked, Holder, Lease, Said, Standing, ask, free, leave, orphan, standing

A, B, C = (Holder(workflow=name, chain=f"{name}1", run=f"{name}1") for name in "abc")
AGAIN = A.model_copy(update={"run": "a2"})  # A after a reset
UNDO = Holder(workflow="undo/a", chain="u1", run="u1")
FREE = Lease()
EVENTS = (
    *(("ask", who) for who in (A, AGAIN, B, C)),
    *(("leave", who) for who in (A, AGAIN, B, C)),
    *(("end", who) for who in (A, B)),
    ("undo", UNDO),
    ("free", A),
)


@dataclass(frozen=True)
class World:
    """A lease, what was told of it, and who has ended."""

    lease: Lease = FREE
    granted: tuple[tuple[Holder, int], ...] = ()
    told: tuple[Said, ...] = ()
    ended: frozenset[str] = frozenset()
    broken: tuple[str, ...] = field(default=(), compare=False)


def after(world: World, event: str, who: Holder) -> World:
    """Return the world after one event; the dead ask for nothing."""
    before = world.lease
    told: tuple[Said, ...] = ()
    if event in ("ask", "leave") and who.chain in world.ended:
        return world
    match event:
        case "ask":
            now = ask(before, Asked(holder=who))
        case "undo":
            now = ask(before, Asked(holder=who, instead_of=(A.chain,) if A.chain in world.ended else (), waits=False))
        case "leave":
            now, told = leave(before, who)
        case "end":
            world = replace(world, ended=world.ended | {who.chain})
            now, told = orphan(before, who.chain, "terminated")
        case _:
            now = free(before)
    granted = world.granted
    if now.epoch != before.epoch:
        assert now.holder is not None
        granted = (*granted, (now.holder, now.epoch))
    return replace(world, lease=now, granted=granted, told=(*world.told, *told))


def worlds(length: int) -> Iterator[tuple[World, World, tuple[str, Holder]]]:
    """Return every step that leads on from any world which ``length`` events can make."""
    reached = {World()}
    for _ in range(length):
        following = set()
        for world, event in itertools.product(reached, EVENTS):
            now = after(world, *event)
            yield world, now, event
            following.add(replace(now, granted=(), told=()))  # what matters is where it stands
        reached = following


STEPS = list(worlds(6))


def test_epoch_rises_by_one_with_every_grant_and_never_else() -> None:
    assert len(STEPS) > 1000
    for before, now, event in STEPS:
        changed = before.lease.holder != now.lease.holder and now.lease.holder is not None
        assert now.lease.epoch - before.lease.epoch in (0, 1)
        assert (now.lease.epoch > before.lease.epoch) >= changed, event


def test_lease_is_free_only_after_a_release() -> None:
    for before, now, (event, who) in STEPS:
        if before.lease.holder is not None and now.lease.holder is None:
            assert event == "free" or (event, who) == ("leave", before.lease.holder)
            assert event == "leave" or before.lease.orphaned


def test_holder_changes_only_by_its_own_leave_its_undo_or_its_reset() -> None:
    for before, now, (event, who) in STEPS:
        was, found = before.lease.holder, now.lease.holder
        if was is None or found is None or was == found:
            continue
        assert (event, who) == ("leave", was) or found.akin(was) or (event == "undo" and was.chain in before.ended)


def test_nobody_waits_for_what_is_free_or_orphaned() -> None:
    for _, now, _ in STEPS:
        assert not now.lease.queue or (now.lease.holder is not None and not now.lease.orphaned)
        chains = [one.chain for one in now.lease.queue]
        assert len(chains) == len(set(chains))
        assert now.lease.holder is None or now.lease.holder.chain not in chains


def test_whoever_leaves_the_queue_without_asking_to_was_told_so() -> None:
    for before, now, (event, who) in STEPS:
        told = {said.to: said.standing for said in now.told[len(before.told) :]}
        for one in before.lease.queue:
            if one in now.lease.queue or one.akin(who):
                assert one not in told
                continue
            assert told[one] == standing(now.lease, one), event
            assert told[one].epoch > 0 or told[one].orphaned


def test_asking_twice_is_asking_once() -> None:
    for _, now, (event, who) in STEPS:
        if event == "ask" and who.chain not in now.ended:
            assert ask(now.lease, Asked(holder=who)) == now.lease


def test_queue_keeps_its_order() -> None:
    lease = Lease()
    for who in (A, B, C, B):
        lease = ask(lease, Asked(holder=who))
    assert lease.queue == (B, C)
    lease, told = leave(lease, A)
    assert (lease.holder, lease.epoch) == (B, 2)
    assert told == (Said(B, Standing(epoch=2)),)


@pytest.mark.parametrize("waits", [True, False])
def test_nobody_queues_behind_an_orphan(waits: bool) -> None:
    lease = orphan(ask(Lease(), Asked(holder=A)), A.chain, "terminated").lease
    assert ask(lease, Asked(holder=B, waits=waits)) == lease
    assert standing(lease, B) == Standing(behind=A, orphaned="terminated")


def test_late_release_of_a_run_that_was_reset_is_nobodys() -> None:
    lease = ask(ask(Lease(), Asked(holder=A)), Asked(holder=AGAIN))
    assert (lease.holder, lease.epoch) == (AGAIN, 2)
    assert leave(lease, A).lease == lease
