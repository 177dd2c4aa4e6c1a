"""What a rollback of manifests would change, and all that is in its way: by dry runs at the API server itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import ClassVar, Literal

from activities import cluster_hands, clusters, git
from activities.applied import body, changes, entries, fields, mark, tree
from activities.cluster_refusals import Conflict, Owned
from activities.clusters import APPLY, Object
from activities.git import Source
from activities.manifest_files import DATA, Manifest, Ref, read
from activities.manifests import ManifestsAt, Wanted
from recovery.actions import Probe, Spec
from recovery.errors import Invalid, Refused
from recovery.models import Wire

How = Literal["same", "changed", "new", "extra", "left"]
NEEDED = (
    (cluster_hands.VERSION, cluster_hands.PLURAL, cluster_hands.VERBS, "whose hand was the last"),
    ("v1", "secrets", ("get", "create", "delete"), "what is kept for an undo"),
)
"""What a recovery writes itself."""
SECRET = "its content differs; that of a Secret is never shown"


class CompareSpec(Spec):
    """Compare the ``good`` revision with the cluster, and with what ``head``, the one that is deployed, says.

    Files that match ``hidden`` are not shown; ``overrule`` names managers from whom fields may be taken.
    """

    target: ManifestsAt
    good: Source
    head: Source
    overrule: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


class Difference(Wanted):
    """What would become of an object: ``extra`` goes, since the head has it and the good revision has not; ``left``
    would go and holds data, or belongs to no namespace. ``diff`` is what changes of what the manager owns."""

    how: How
    diff: str = ""


class Compared(Wire):
    """Every object, and what is in the way: hand-made changes (``drift``), fields of other managers that nobody may
    take (``conflicts``), and what the cluster would refuse (``faults``). ``overruled`` is what may be taken."""

    objects: tuple[Difference, ...] = ()
    drift: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    overruled: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """The objects as the apply takes them: without those that stay as they are though the revision lacks them."""
        kept = (one for one in self.objects if not (one.how == "left" and not one.digest))
        return tuple(Wanted.model_validate(one.model_dump()) for one in kept)


class CompareManifests(Probe[CompareSpec, Compared]):
    """Ask the API server what each manifest would do; it validates, admits and merges, and changes nothing."""

    name = "manifests.compare"
    limit = timedelta(minutes=2)
    patience = timedelta(minutes=5)
    skip: ClassVar[str] = ""

    def title(self, spec: CompareSpec) -> str:
        """Say what is compared."""
        return f"compare {spec.good.revision[:8]} with {spec.target.name}"

    async def observe(self, spec: CompareSpec) -> Compared:
        """Look at every object of both revisions, and at what this worker may do."""
        good, faults = read(await git.contents(spec.good), spec.target.namespace)
        head, _ = read(await git.contents(spec.head), spec.target.namespace)  # what does not parse was never applied
        extra = [one for key, one in head.items() if key not in good]
        looks = [_Look(spec, one, "good", spec.good.folder) for one in good.values()]
        looks += [_Look(spec, one, "extra", spec.head.folder) for one in extra]
        taking = asyncio.gather(*(look.take(head.get(look.manifest.ref.key)) for look in looks))
        denied, _ = await asyncio.gather(_denied(spec), taking)
        return _gathered([*(f"manifests: {fault}" for fault in faults), *denied], looks)


compare_manifests = CompareManifests()


def _gathered(faults: Sequence[str], looks: Sequence[_Look]) -> Compared:
    every: dict[str, list[str]] = {name: [] for name in ("drift", "conflicts", "overruled", "faults")}
    for look in looks:
        for name, found in every.items():
            found.extend(getattr(look, name))
    told = {name: tuple(dict.fromkeys(found)) for name, found in every.items()}
    told["faults"] = tuple(dict.fromkeys([*faults, *told["faults"]]))
    return Compared(objects=tuple(one for look in looks if (one := look.difference)), **told)


class _Look:
    """One object of the good revision, or one that only the head has."""

    def __init__(self, spec: CompareSpec, manifest: Manifest, of: Literal["good", "extra"], folder: str) -> None:
        self.manifest, self._spec, self._of = manifest, spec, of
        self._at, self._manager, self._ref = spec.target.cluster, spec.target.manager, manifest.ref
        file = manifest.place.partition(", document ")[0]
        self._hidden = SECRET if self._ref.kind == "Secret" else ""
        if git.matches(file, folder, spec.hidden):
            self._hidden = "its content differs; it is one of those that are not shown"
        self.difference: Difference | None = None
        self.drift: list[str] = []
        self.conflicts: list[str] = []
        self.overruled: list[str] = []
        self.faults: list[str] = []

    async def take(self, head: Manifest | None) -> None:
        """Look, and write down what is found."""
        try:
            where = await clusters.resource(self._at, self._ref.version, self._ref.kind)
            self._path, self._namespaced = where.path(self._ref.namespace, self._ref.name), where.namespaced
            live = await clusters.get(self._at, self._path)
            if head is not None or self._of == "extra":
                await self._drifted(live, head or self.manifest)
            await (self._good(live) if self._of == "good" else self._extra(live, where))
        except (Invalid, Refused) as fault:
            self.faults.append(
                fault.message if self._ref.label in fault.message else f"{self._ref.label}: {fault.message}"
            )

    async def _good(self, live: Object | None) -> None:
        after = await self._dry(self.manifest.body, mine=False)
        owned = tree(after, self._manager, "Apply")
        was = body(live, tree(live, self._manager)) if live else {}
        diff = changes(was, body(after, owned), self._ref.label, hidden=self._hidden)
        digest = mark(after, owned)
        left = live is None and self._ref.kind in DATA
        how: How = "new" if live is None else "same" if mark(live, manager=self._manager) == digest else "changed"
        self._tell(how, digest, diff if how != "same" else "", seen=mark(live, manager=self._manager), left=left)

    async def _extra(self, live: Object | None, where: clusters.Resource) -> None:
        if live is None:
            return
        if self._ref.kind in DATA or not self._namespaced:
            self._tell("left", "", "", seen="", left=True)
            return
        if not await clusters.allowed(self._at, "delete", self._ref.version, where, self._ref.namespace):
            self.faults.append(f"{self._ref.label}: this worker may not delete {where.plural} in {self._ref.namespace}")
        was = body(live, tree(live, self._manager))
        gone = changes(was, {}, self._ref.label, hidden=self._hidden)
        self._tell("extra", "", gone, seen=mark(live, manager=self._manager), left=False)

    def _tell(self, how: How, digest: str, diff: str, *, seen: str, left: bool) -> None:
        ref = self._ref.model_dump()
        self.difference = Difference(**ref, digest=digest, seen=seen, left=left, how=how, diff=diff)

    async def _drifted(self, live: Object | None, head: Manifest) -> None:
        """Tell whether what is deployed is what the head says; a head that was never valid is not deployed."""
        if live is None:
            self.drift.append(f"{self._ref.label} is not there, and the newest revision has it")
            return
        try:
            after = await self._dry(head.body, mine=True)
        except (Invalid, Refused):
            self.drift.append(f"{self._ref.label}: what the newest revision says of it was never taken by the cluster")
            return
        owned = tree(after, self._manager, "Apply")
        # Who updates owns what the server filled in, too: of them only what the revision says can be compared.
        updates = entries(live, self._manager, "Update")
        mine = owned if updates else tree(live, self._manager)
        if mark(live, mine) == mark(after, owned):
            return
        now, said = body(live, mine), body(after, owned)
        which = [] if self._hidden else list(fields(said, now))
        told = ", ".join(which[:5]) + (f" and {len(which) - 5} more" if len(which) > 5 else "")
        self.drift.append(f"{self._ref.label}: {told or 'what the manager owns'} is not what the newest revision says")

    async def _dry(self, wanted: Object, *, mine: bool) -> Object:
        """Apply without effect. Others' fields are told as conflicts, unless ``mine`` is all that counts."""
        flags = clusters.query(fieldManager=self._manager, dryRun="All")
        try:
            return await clusters.ask(self._at, "PATCH", self._path, wanted, kind=APPLY, **flags)
        except Conflict as conflict:
            if not conflict.owned:
                raise
            if not mine:
                self._told(conflict.owned)
        return await clusters.ask(self._at, "PATCH", self._path, wanted, kind=APPLY, force="true", **flags)

    def _told(self, owned: Iterable[Owned]) -> None:
        for one in owned:
            if one.manager == self._manager:  # by updates of before: they become its own
                continue
            told = self.overruled if one.manager in self._spec.overrule else self.conflicts
            told.append(f"{self._ref.label}: {one.field} is owned by {one.manager}")


async def _denied(spec: CompareSpec) -> list[str]:
    """Return what this worker may not do that every rollback does, and whether the namespace is there at all."""
    at, namespace = spec.target.cluster, spec.target.namespace
    faults = await clusters.namespace_faults(at, namespace)
    for version, plural, verbs, what in NEEDED:
        if missing := await clusters.forbidden(at, verbs, version, plural, namespace):
            faults.append(f"{at.name}: this worker may not {', '.join(missing)} {plural} in {namespace} ({what})")
    return faults


def refs(compared: Compared) -> tuple[Ref, ...]:
    """Return the objects that are there once it is applied."""
    return tuple(Ref.model_validate(one.model_dump()) for one in compared.objects if one.digest)
