"""Who of two stores takes writes: one is fenced, the other promoted, and the first made its replica."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal, TypeVar

from activities import ssh
from activities.stores import Replication, StoreAt, StoreSpec, look, shared
from recovery.actions import Action
from recovery.errors import Refused, Transient
from recovery.models import Wire

CLOSED = 2147483647
"""More replicas than there can be: who asks for so many takes no write, and says so at once (NOREPLICAS)."""
REACH, AT_MOST = 3.0, 8.0
"""Seconds until a host counts as out of reach, and in which a store there has to answer."""
LAG = 10
"""Valkey's own default, in seconds: with 0 it would take every write, however many replicas it asks for."""

S = TypeVar("S", bound=StoreSpec)
T = TypeVar("T", bound=Wire)


class StoreAction(Action[S, T]):
    """An action whose apply and undo are one named job each on the store's host.

    Each sets what is running, and then has the store write its file of settings. One that was killed between the two
    shows a state that is not ``lasting`` where it was before, and is finished. Where there is no such file, or nobody
    can read it, ``lasting`` is None before and after.
    """

    name = ""
    limit = timedelta(minutes=2)
    script: ClassVar[str]

    async def halt(self, spec: S) -> None:
        """End the job, and remove its traces."""
        await ssh.end_job(spec.store.host, self.job(spec))

    async def _run(self, spec: S, values: dict[str, object], script: str = "") -> None:
        await ssh.job(spec.store.host, self.job(spec), script or self.script, spec.store.values() | values)

    async def _back(self, spec: S, values: dict[str, object], script: str = "") -> None:
        async with self.ending(spec):
            await self._run(spec, values, script)

    def job(self, spec: S) -> str:
        """Return the name of its job on the host."""
        return f"{spec.system}-{spec.run}.{self.name.partition('.')[2]}"


class Gate(Wire):
    """How many replicas a store must have, at most ``lag`` seconds behind, to take a write.

    ``lasting`` is True if a restart finds it so, None if not, or if nobody can know.
    """

    least: int = 0
    lag: int = LAG
    lasting: bool | None = None


class GateAction(StoreAction[S, Gate]):
    """What closing and opening share."""

    script = "store_gate"

    async def observe(self, spec: S) -> Gate:
        """Look at the settings."""
        found = await look(spec.store, "gate")
        return Gate(least=found.least, lag=found.lag, lasting=found.lasting_gate or None)

    def partial(self, spec: S, before: Gate, now: Gate) -> bool:
        """Know one whose file of settings does not say yet what is set."""
        ends = [(gate.least, gate.lag) for gate in (before, self.desired(spec, before))]
        return now.lasting is None and (now.least, now.lag) in ends

    async def apply(self, spec: S, before: Gate) -> None:
        """Set them."""
        await self._run(spec, _gate(before, self.desired(spec, before)))

    async def undo(self, spec: S, before: Gate) -> None:
        """Set them to what they were."""
        await self._back(spec, _gate(self.desired(spec, before), before))


def _gate(expected: Gate, wanted: Gate) -> dict[str, object]:
    return {
        "expected": f"{expected.least} {expected.lag}", "least": wanted.least, "lag": wanted.lag,
        "closed": "yes" if wanted.least == CLOSED else "no",
    }  # fmt: skip


class FenceStore(GateAction[StoreSpec]):
    """Have a store refuse every write, also after a restart; what it has goes on to its replica.

    Keys that expire still go, and what tells the replica so adds to its log.
    """

    name = "valkey.fence"

    def title(self, spec: StoreSpec) -> str:
        """Say what is fenced."""
        return f"fence {spec.system}"

    def desired(self, spec: StoreSpec, before: Gate) -> Gate:
        """Want more replicas than there can be."""
        return Gate(least=CLOSED, lag=before.lag or LAG, lasting=before.lasting)


fence_store = FenceStore()


class Unfence(StoreSpec):
    """Which settings to set: those that its fence found."""

    least: int = 0
    lag: int = LAG


class UnfenceStore(GateAction[Unfence]):
    """Have a store take writes again once it is a primary; a replica takes none anyway."""

    name = "valkey.unfence"

    def title(self, spec: Unfence) -> str:
        """Say what takes writes again."""
        return f"unfence {spec.system}"

    def desired(self, spec: Unfence, before: Gate) -> Gate:
        """Want the settings that were asked for."""
        return Gate(least=spec.least, lag=spec.lag, lasting=before.lasting)


unfence_store = UnfenceStore()


class Role(Wire):
    """Whether a store is a primary, or whom it replicates; ``copied`` is True if it has all of whom it is to follow.

    ``lasting`` is True if a restart finds it so, None if not, or if nobody can know. ``writes`` was tried, if asked.
    """

    role: Literal["primary", "replica"]
    of: str = ""
    copied: bool | None = None
    lasting: bool | None = None
    writes: Literal["taken", "refused", ""] = ""


def role(found: Replication, awaited: str = "") -> Role:
    """Return what a store is; ``awaited`` is the address of which it is to have a copy."""
    copied = found.linked and found.of == awaited
    lasting = found.lasting_role or None
    return Role(role=found.role, of=found.of, copied=copied or None, lasting=lasting, writes=found.writes)


class RoleAction(StoreAction[S, Role]):
    """What promoting and following share."""

    script = "store_role"

    def partial(self, spec: S, before: Role, now: Role) -> bool:
        """Know one whose file of settings does not say yet what it is, and one that is still being filled."""
        wanted = self.desired(spec, before)
        filling = now.of == wanted.of and wanted.copied and not now.copied
        return filling or (now.lasting is None and now.of in (before.of, wanted.of))


def _become(wanted: str, expected: str, **more: object) -> dict[str, object]:
    usual: dict[str, object] = {"history": "", "upto": 0, "discard": "yes", "copied": "no"}
    usual |= {"unfinished": "no", "tried": "no"}
    return usual | {"wanted": wanted, "expected": expected} | more


class PromoteSpec(StoreSpec):
    """What is promoted, and who must not take writes beside it; that may be out of reach."""

    peer: StoreAt | None = None


class PromoteStore(RoleAction[PromoteSpec]):
    """Make a replica a primary. Whether it has all of the other one is another step's to see, before."""

    name = "valkey.promote"

    def title(self, spec: PromoteSpec) -> str:
        """Say what is promoted."""
        return f"promote {spec.system}"

    async def observe(self, spec: PromoteSpec) -> Role:
        """Look whom it replicates, and try whether it takes writes."""
        return role(await look(spec.store))

    def desired(self, spec: PromoteSpec, before: Role) -> Role:
        """Want a primary that takes writes."""
        return Role(role="primary", lasting=before.lasting, writes="taken")

    async def apply(self, spec: PromoteSpec, before: Role) -> None:
        """End the replication, and try a write; refused in the middle of a first copy: what is there then is old.

        Refused, too, beside a peer that is seen to take writes.
        """
        if spec.peer is not None and await _takes(spec.peer):
            raise Refused(f"{spec.peer.name} takes writes; with {spec.system} two would. Fence it first")
        await self._run(spec, _become("", before.of, tried="yes"))

    async def undo(self, spec: PromoteSpec, before: Role) -> None:
        """Have it replicate what it did; what was written into it since goes."""
        await self._back(spec, _become(before.of, ""))


promote_store = PromoteStore()


async def _takes(store: StoreAt) -> bool:
    """Tell whether a store is seen to take writes; of one that is out of reach nobody can know."""
    try:
        await ssh.reach(store.host, REACH)
        found = await look(store, "gate", AT_MOST)
    except Transient:
        return False
    return found.role == "primary" and found.least != CLOSED


class Follow(StoreSpec):
    """Whom to replicate. ``discard`` says that what only this store has may go.

    ``proven`` says that the peer was seen to have all of it while it was fenced: as long as it still is, nothing can
    have come to it since but the end of keys that have expired.
    """

    peer: StoreAt
    discard: bool = False
    proven: bool = False


class FollowStore(RoleAction[Follow]):
    """Make a store a replica of its peer, and wait until it has all of that.

    What only it had is discarded, and its undo does not bring that back: it makes a primary of what is there then.
    """

    name = "valkey.follow"
    limit = timedelta(hours=1)

    def title(self, spec: Follow) -> str:
        """Say who follows whom."""
        return f"let {spec.system} replicate {spec.peer.name}"

    async def observe(self, spec: Follow) -> Role:
        """Look whom it replicates, and whether it has all of that."""
        return role(await look(spec.store, "role"), spec.peer.upstream)

    def desired(self, spec: Follow, before: Role) -> Role:
        """Want a replica that has everything."""
        return Role(role="replica", of=spec.peer.upstream, copied=True, lasting=before.lasting)

    async def apply(self, spec: Follow, before: Role) -> None:
        """Follow, if the peer is a primary, and has all that is here or that may go."""
        peer, own = await look(spec.peer, "role"), await look(spec.store, "gate")
        if peer.role != "primary":
            raise Refused(f"{spec.peer.name} is no primary: following it would leave nobody who takes writes")
        common, discard = shared(own, peer), spec.discard or (spec.proven and own.least == CLOSED)
        history = "" if common is None else own.history
        await self._run(spec, _become(
            spec.peer.upstream, before.of, discard="yes" if discard else "no", copied="yes", history=history,
            upto=common or 0,
        ))  # fmt: skip

    async def undo(self, spec: Follow, before: Role) -> None:
        """Have it be what it was, with what it has now; a copy that is under way is given up."""
        await self._back(spec, _become(before.of, spec.peer.upstream, unfinished="yes"))


follow_store = FollowStore()
