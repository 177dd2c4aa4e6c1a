"""Objects of a cluster brought to what the manifests of a revision say, by server-side apply, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Self

from activities import cluster_hands, clusters, git
from activities.applied import mark
from activities.clusters import ClusterAt, Object
from activities.git import Source
from activities.manifest_files import Manifest, Ref, ordered, read
from activities.manifest_keeping import Keeping, keep
from activities.manifest_writing import Write, restore
from recovery.actions import Action, Spec
from recovery.errors import Drifted, Fatal, Invalid
from recovery.models import Wire
from runbooks.schema import Cluster, Manifests

Live = dict[str, Object | None]


class ManifestsAt(Wire):
    """A target: objects of a namespace that a manager applies from manifests."""

    name: str
    cluster: ClusterAt
    namespace: str
    manager: str

    @classmethod
    def of(cls, name: str, manifests: Manifests, cluster: Cluster) -> Self:
        """Return the target of a configuration in the estate."""
        at = ClusterAt.of(manifests.cluster, cluster)
        return cls(name=name, cluster=at, namespace=manifests.namespace, manager=manifests.manager)


class Wanted(Ref):
    """An object, and the digest of what the manager owns of it after the apply; "" for one that is to go.

    ``seen`` is that digest as it was when people decided. One that is ``left`` holds data: it is made if it is not
    there, and never deleted, by an undo neither.
    """

    digest: str
    seen: str = ""
    left: bool = False


class ManifestsSpec(Spec):
    """Bring the objects to what ``source`` says; fields are taken from the managers in ``overrule``, and no other.

    ``run`` are eight hex digits of the recovery, by which what it keeps is found again.
    """

    target: ManifestsAt
    source: Source
    run: str
    objects: tuple[Wanted, ...]
    overrule: tuple[str, ...] = ()

    @property
    def changed(self) -> dict[str, Wanted]:
        """The objects that count, by their keys."""
        return {one.key: one for one in self.objects if not one.left}

    @property
    def keeping(self) -> Keeping:
        """Where it is kept what they were."""
        at = self.target
        return Keeping(cluster=at.cluster, namespace=at.namespace, run=self.run, name=at.name)


class Applied(Wire):
    """A digest of what the manager owns of each object, "" where there is none; and whether this recovery keeps
    what they were."""

    objects: dict[str, str] = {}
    kept: bool = False


class ApplyManifests(Action[ManifestsSpec, Applied]):
    """Apply the manifests of a revision as the manager that deploys, and delete what it no longer has.

    What the manager had applied is read from ``managedFields`` and kept in a Secret before anything changes; an undo
    applies exactly that again, deletes what was made, and makes anew what was deleted (a new uid; a Service gets
    another address). Where deployments did not apply server-side but updated (kubectl apply without --server-side,
    edit, Helm), what counts is what their last updates set, defaults of the server among it; their entry is made one
    of server-side apply first, or fields that a revision no longer has would stay. An undo leaves it so.

    Each write carries the uid and resourceVersion that were read, and comes after a look at whose hand is the last.
    What remains: a request that was under way when another hand took over, of an object that this one did not touch;
    and an object that is made has nothing that could have changed: somebody who makes it at the same moment keeps
    what they own, and a conflict is refused.
    """

    name = "manifests.apply"
    limit = timedelta(minutes=5)

    def title(self, spec: ManifestsSpec) -> str:
        """Say what is brought where."""
        return f"apply {spec.source.revision[:8]} to {spec.target.name}"

    async def observe(self, spec: ManifestsSpec) -> Applied:
        """Read each object."""
        live, kept = await asyncio.gather(look(spec.target, spec.changed.values()), spec.keeping.there())
        return Applied(objects=marks(spec, live), kept=kept)

    def desired(self, spec: ManifestsSpec, before: Applied) -> Applied:
        """Want each as the revision has it; where all are, nothing is kept."""
        wanted = {key: one.digest for key, one in spec.changed.items()}
        new = any(one.left and one.digest for one in spec.objects)
        return before if wanted == before.objects and not new else Applied(objects=wanted, kept=True)

    def partial(self, spec: ManifestsSpec, before: Applied, now: Applied) -> bool:
        """Know that each is what it was, or what it is to be."""
        return not strangers(spec, before, now.objects)

    def begun(self, spec: ManifestsSpec, before: Applied, now: Applied) -> bool:
        """Know it by what is kept."""
        return now.kept and self.partial(spec, before, now)

    async def apply(self, spec: ManifestsSpec, before: Applied) -> None:
        """Keep what is there, apply what the revision has, delete what it has no more."""
        since = [
            one.label for one in spec.changed.values() if before.objects.get(one.key) not in (one.seen, one.digest)
        ]
        if since:
            raise Drifted(f"{', '.join(since[:5])}: somebody else has changed it since; nothing was overwritten")
        manifests = await wanted_manifests(spec)
        live = await _known(spec, before)
        await self.halt(spec)
        await _keep(spec, before, live)
        left = [one for one in spec.objects if one.left and one.digest]
        live |= await look(spec.target, left)
        for manifest in ordered(manifests[one.key] for one in spec.objects if one.digest):
            await _write(spec, manifest.ref, live).apply(manifest.body)
        for one in spec.changed.values():
            if not one.digest and live[one.key] is not None:
                await _write(spec, one, live).delete()

    async def undo(self, spec: ManifestsSpec, before: Applied) -> None:
        """Apply what was kept, in the opposite order, and let go of it."""
        live = await _known(spec, before)
        await self.halt(spec)
        kept = await spec.keeping.load()
        if kept is None:
            if changed := [key for key, now in marks(spec, live).items() if now != before.objects.get(key)]:
                raise Fatal(f"secret/{spec.keeping.secret} is gone, and with it what {', '.join(changed[:5])} were")
            return
        spec.keeping.check(kept, before.objects)
        for one in sorted(spec.changed.values(), key=lambda one: (one.turn, one.key), reverse=True):
            write = _write(spec, one, live, forth=False)
            if write.mark != before.objects[one.key] or kept[one.key].others:
                await restore(write, kept[one.key])
        await self.halt(spec)
        await spec.keeping.drop()

    async def halt(self, spec: ManifestsSpec) -> None:
        """Shut out what an earlier attempt may still write: from now on this order's hand is the last."""
        await cluster_hands.claim(spec.target.cluster, spec.target.namespace, spec.system, spec.target.name)


apply_manifests = ApplyManifests()


def strangers(spec: ManifestsSpec, before: Applied, now: Mapping[str, str]) -> list[str]:
    """Return the keys of the objects that are neither what they were nor what they are to be."""
    wanted = {key: one.digest for key, one in spec.changed.items()}
    return [key for key, seen in now.items() if seen not in (before.objects.get(key), wanted.get(key))]


def marks(spec: ManifestsSpec, live: Live) -> dict[str, str]:
    """Return the digest of each object."""
    return {key: mark(live[key], manager=spec.target.manager) for key in spec.changed}


async def look(target: ManifestsAt, refs: Iterable[Ref]) -> Live:
    """Return each object as it is, by its key; None where there is none."""

    async def one(ref: Ref) -> tuple[str, Object | None]:
        where = await clusters.resource(target.cluster, ref.version, ref.kind)
        return ref.key, await clusters.get(target.cluster, where.path(ref.namespace, ref.name))

    return dict(await asyncio.gather(*map(one, refs)))


async def wanted_manifests(spec: ManifestsSpec) -> dict[str, Manifest]:
    """Return the manifests of the revision by key. Raises Invalid."""
    found, faults = read(await git.contents(spec.source), spec.target.namespace)
    lacks = [one.label for one in spec.objects if one.digest and one.key not in found]
    if faults or lacks:
        raise Invalid(f"manifests: {'; '.join(faults[:10]) or 'there is no ' + ', '.join(lacks[:10])}")
    return found


async def _known(spec: ManifestsSpec, before: Applied) -> Live:
    """Read each object. Raises Drifted where one is neither what it was nor what it is to be."""
    live = await look(spec.target, spec.changed.values())
    if odd := strangers(spec, before, marks(spec, live)):
        raise Drifted(f"{spec.target.name}: somebody else changed {', '.join(odd[:5])}; nothing was overwritten")
    return live


async def _keep(spec: ManifestsSpec, before: Applied, live: Live) -> None:
    kept = await spec.keeping.load()
    if kept is not None:
        spec.keeping.check(kept, before.objects)
        return
    if changed := [key for key, now in marks(spec, live).items() if now != before.objects[key]]:
        raise Drifted(f"{spec.target.name}: somebody else has just applied {', '.join(changed[:5])}; look again")
    goes = {one.key for one in spec.changed.values() if not one.digest}
    parts = {key: keep(one, spec.target.manager, spec.overrule, goes=key in goes) for key, one in live.items()}
    await spec.keeping.save(parts)


def _write(spec: ManifestsSpec, ref: Ref, live: Live, *, forth: bool = True) -> Write:
    """Return how an object is written; ``forth`` until it is as it is to be, so that two attempts do it once."""
    at, known = spec.target, spec.changed.get(ref.key)
    goal = known.digest if known and forth else ""

    async def claimed() -> None:
        await cluster_hands.claim(at.cluster, at.namespace, spec.system, at.name)

    return Write(at.cluster, ref, live[ref.key], at.manager, spec.overrule, goal, claimed)
