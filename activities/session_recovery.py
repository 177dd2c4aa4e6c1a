"""Making a store a replica again, or the one that takes sessions: what is in the way, what people decide on; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from activities.comparing import Compared
from activities.session_keeping import KeepSpec, Snapshot
from activities.sessions import Comparison
from activities.sightings import StoreSighting
from activities.store_roles import CLOSED, LAG, Follow, PromoteSpec, Unfence
from activities.stores import CatchUp, StoreAt, StoreSpec
from recovery.models import Wire
from runbooks.procedures.session_recovery import Parameters
from runbooks.schema import Host, Store


class Decided(Wire):
    """What people decide on."""

    at_stake: str
    in_words: tuple[str, ...]


class Seen(Wire):
    """What was seen: the store, its peer, how they compare, and who has all workers stopped, if anybody has."""

    store: StoreSighting
    peer: StoreSighting
    compared: Compared | None = None
    halted: str = ""


class Stores:
    """A store that is to become something else, and its peer; ``owner`` is the recovery."""

    def __init__(self, estate: Mapping[str, Any], wanted: Parameters, owner: str) -> None:
        def known(name: str) -> StoreAt:
            store = Store.model_validate(estate["stores"][name])
            return StoreAt.of(name, store, Host.model_validate(estate["hosts"][store.host]))

        self.wanted, self.owner = wanted, owner
        self.store = known(wanted.store)
        self.peer = known(str(estate["stores"][wanted.store]["peer"]))

    def spec(self, one: StoreAt) -> StoreSpec:
        """Return how one of them is named in a step."""
        return StoreSpec(system=one.name, store=one, run=self.owner)

    def compared(self, *, whole: bool) -> Comparison:
        """Return how both are compared: every session as it is now, or a sample of a replica that keeps up.

        Before a store is reattached it is asked what its peer lacks, else the other way round.
        """
        outward = whole and self.wanted.how == "reattach"
        first, second = (self.store, self.peer) if outward else (self.peer, self.store)
        return Comparison(
            system=self.store.name, primary=first, replica=second, run=self.owner, match=self.wanted.match,
            sample=self.wanted.sample, whole=whole, keeps_up=not whole, seconds=self.wanted.lag.total_seconds(),
        )  # fmt: skip

    def keeps(self) -> KeepSpec:
        """Return how all that the store holds is kept."""
        out = f"{self.store.copies}/{self.store.name}.replaced-{self.owner}"
        return KeepSpec(system=self.store.name, store=self.store, run=self.owner, out=out)

    def follows(self) -> Follow:
        """Return whom the store follows; what only it has goes, as people were told."""
        return Follow(system=self.store.name, store=self.store, run=self.owner, peer=self.peer, discard=True)

    def followed(self) -> Follow:
        """Return that the peer follows the store, which has all of it."""
        return Follow(system=self.peer.name, store=self.peer, run=self.owner, peer=self.store, proven=True)

    def opens(self, one: StoreAt, found: StoreSighting, other: StoreSighting) -> Unfence:
        """Return what opens the gate of a store that is a replica now: as it was, or as the other one's is."""
        seen = found.seen if found.seen.least != CLOSED else other.seen
        least, lag = (seen.least, seen.lag) if seen.least != CLOSED else (0, LAG)
        return Unfence(system=one.name, store=one, run=self.owner, least=least, lag=lag)

    def promotes(self) -> PromoteSpec:
        """Return how the store is promoted, unless its peer takes writes."""
        return PromoteSpec(system=self.store.name, store=self.store, run=self.owner, peer=self.peer)

    def catches_up(self) -> CatchUp:
        """Return what to wait for before the store is promoted."""
        seconds = int(self.wanted.catch_up.total_seconds())
        return CatchUp(system=self.peer.name, store=self.peer, run=self.owner, replica=self.store, seconds=seconds)

    def copied(self) -> CatchUp:
        """Return what to wait for once sessions were put into the store."""
        seconds = int(self.wanted.catch_up.total_seconds())
        return CatchUp(system=self.store.name, store=self.store, run=self.owner, replica=self.peer, seconds=seconds)

    def replicated(self) -> Comparison:
        """Return how the peer is compared then, as a replica of the store."""
        return self.compared(whole=False).model_copy(update={"primary": self.store, "replica": self.peer})

    # --- what stands in the way ---------------------------------------------------------------------------

    def blockers(self, seen: Seen) -> list[str]:
        """Return everything that stands in the way, each with what to do about it."""
        halted = [f"the kill switch is on ({seen.halted}); nothing is changed until it is taken away"]
        if not seen.store.answered:
            away = [f"{self.store.name}: cannot be seen ({seen.store.why}); start it, or see to its host"]
        else:
            away = []
        ways = {"reattach": self._reattached, "promote": self._promoted, "restore": self._restored}
        return [*(halted if seen.halted else []), *away, *ways[self.wanted.how](seen)]

    def _reattached(self, seen: Seen) -> Iterator[str]:
        store, peer = self.store.name, self.peer.name
        if not seen.peer.answered:
            yield f"{peer}: cannot be seen ({seen.peer.why}); there is nobody to replicate"
        elif seen.peer.seen.role != "primary":
            yield f"{peer}: is a replica itself; making {store} one, too, would leave nobody who takes sessions"
        elif seen.peer.seen.least == CLOSED:
            yield f"{peer}: is fenced; making {store} a replica of it would leave nobody who takes sessions"
        if seen.store.answered and seen.store.seen.of == self.peer.upstream and seen.store.seen.linked:
            yield f"{store}: replicates {peer} already, and its link is up; there is nothing to do"

    def _promoted(self, seen: Seen) -> Iterator[str]:
        store = self.store.name
        if not seen.store.answered:
            return
        if seen.store.seen.role == "primary":
            yield f"{store}: is a primary already; there is nothing to promote"
        if seen.store.seen.filling:
            yield f"{store}: is being filled, and holds what is old; wait for the end of that"

    def _restored(self, seen: Seen) -> Iterator[str]:
        store, peer, found = self.store.name, self.peer.name, seen.store.seen
        if not seen.store.answered:
            return
        if found.role != "primary":
            yield f"{store}: is a replica; sessions are put where they are taken: name {peer}, or promote {store} first"
        elif found.least == CLOSED:
            yield f"{store}: is fenced; sessions are put where they are taken: name {peer}, or open {store} first"
        elif found.least > (near := sum(one.seconds <= found.lag for one in found.replicas)):
            yield f"{store}: takes no write: it asks for {found.least} replicas, and has {near}; see to these first"
        if found.filling:
            yield f"{store}: is being filled; wait for the end of that"
        if seen.peer.answered and seen.peer.seen.role == "primary" and seen.peer.seen.least != CLOSED:
            yield f"{peer}: takes sessions, too; reattach one of both first"

    # --- what people decide on ----------------------------------------------------------------------------

    def overwrites(self, seen: Seen, kept: Snapshot | None) -> Decided:
        """Return what is overwritten when the store is made a replica, and where that is kept."""
        return Decided(
            at_stake=f"{self.store.name} is made a replica of {self.peer.name}: what only it has is overwritten there.",
            in_words=(*self._only(seen, kept), f"{self.peer.name} takes sessions on all the time"),
        )

    def _only(self, seen: Seen, kept: Snapshot | None) -> Iterator[str]:
        name, peer, found = self.store.name, self.peer.name, seen.compared or Compared(failed="not compared")
        if found.failed:
            yield f"nobody knows how many sessions {name} has that {peer} lacks: {found.failed}"
        else:
            only = found.differences.get("missing", 0)
            named = f" ({'; '.join(found.named[:5])})" if found.named else ""
            yield f"{name} has {only} sessions that {peer} lacks, and {otherwise(found)} that it has otherwise{named}"
        if kept is not None and kept.stage == "kept":
            where = f"{self.keeps().out} on host {self.store.host.name}"
            yield f"all {kept.keys} keys that {name} holds are kept, as a snapshot, in {where}"
        else:
            yield f"what {name} holds is NOT kept: it is gone once it replicates {peer}"

    def promoted(self, seen: Seen) -> Decided:
        """Return what is known of the peer, and what is lost with it."""
        return Decided(
            at_stake=f"{self.store.name} takes sessions from then on, and {self.peer.name} none.",
            in_words=tuple(self._taking_over(seen)),
        )

    def _taking_over(self, seen: Seen) -> Iterator[str]:
        name, peer, one = self.store.name, self.peer.name, seen.store.seen
        if seen.peer.answered:
            yield f"{peer} is fenced first, and {name} promoted once it has all of that: nothing is lost"
            if seen.compared is not None and not seen.compared.failed:
                lacks = sum(n for how, n in seen.compared.differences.items() if how != "left over")
                yield f"at this moment {name} lacks {lacks} sessions of {peer}, or has them otherwise"
            return
        yield f"{peer} cannot be seen ({seen.peer.why}): nobody has seen that it takes no sessions"
        yield f"whoever approves answers, by name, for that no client reaches {peer} until it replicates {name}"
        away = one.down if one.down is not None else one.idle
        if away is None:
            yield f"{name} does not tell for how long it has heard nothing of {peer}: how much it lacks is not known"
        else:
            yield f"{name} has heard nothing of {peer} for {away} s: it lacks what was written there in that time"


def otherwise(found: Compared) -> int:
    """Return how many sessions both have, each in another form."""
    return sum(count for how, count in found.differences.items() if how not in ("missing", "left over"))
