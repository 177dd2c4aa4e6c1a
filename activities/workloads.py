"""Workloads of a cluster: scaled, rolled out anew, or brought to stand still; exactly as many as were there go back."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import ClassVar, Self
from urllib.parse import quote

from activities import cluster_hands, clusters
from activities.cluster_hands import Number
from activities.cluster_refusals import Conflict, Missing
from activities.clusters import MERGE, ClusterAt, Object
from activities.rollouts import unready
from recovery.actions import Action, Spec
from recovery.errors import Drifted, Invalid, Refused, Transient
from recovery.models import Wire
from runbooks.schema import Cluster, Workload

MARK = "recovery/restarted"
"""The annotation of pods that were rolled out anew, with the recovery; kubectl rollout restart has one of its own."""
HAND = "recovery/hand"
"""The annotation of a workload with whose hand wrote it last: epoch, order, attempt."""
MANAGER = "recovery"
VERSION = "apps/v1"
TRIES = 10
"""How often it is written while its status keeps changing."""
PAUSE = 0.2
GOES = 60.0
"""Seconds in which pods have to be gone; another attempt waits again."""
COMES = 60.0
"""Seconds for which an undo waits at most for what it has brought back: what was unwell before must not stop it."""


class WorkloadAt(Wire):
    """A workload of the estate, and how many replicas it has while its site is active."""

    name: str
    cluster: ClusterAt
    namespace: str
    kind: str
    object: str
    replicas: int
    endpoints: str = ""
    within: int = 0

    @classmethod
    def of(cls, name: str, workload: Workload, cluster: Cluster) -> Self:
        """Return how a workload of the estate is asked."""
        return cls(
            name=name, cluster=ClusterAt.of(workload.cluster, cluster), namespace=workload.namespace,
            kind=workload.kind, object=workload.name, replicas=workload.replicas, endpoints=workload.endpoints or "",
            within=math.ceil(workload.within.total_seconds()),
        )  # fmt: skip

    @property
    def plural(self) -> str:
        """How its kind is named in paths, and in rules of roles."""
        return f"{self.kind.lower()}s"

    @property
    def path(self) -> str:
        """Where it is."""
        return f"/apis/{VERSION}/namespaces/{self.namespace}/{self.plural}/{self.object}"

    @property
    def label(self) -> str:
        """What people find it by: its name in the estate, and the object."""
        return f"{self.name}: {self.kind.lower()}/{self.object} in {self.namespace} of {self.cluster.name}"


class ScaleSpec(Spec):
    """Scale a workload; what runs of it already is rolled out anew where ``restart`` is set: to the recovery."""

    workload: WorkloadAt
    replicas: int
    restart: str = ""


class Scaled(Wire):
    """How many replicas it is to have, and by which recovery its pods were rolled out anew, if by one.

    ``still`` tells that none is wanted and no pod is left; None while one still goes.
    """

    replicas: int = 0
    still: bool | None = True
    restarted: str = ""

    @property
    def written(self) -> tuple[int, str]:
        """What of it stands in the object."""
        return self.replicas, self.restarted


class ScaleWorkload(Action[ScaleSpec, Scaled]):
    """Scale a workload by compare-and-swap, and where it is to stand still wait until its pods are gone.

    Whether what was scaled up becomes ready is seen afterwards (``workloads.ready``). Undone it has the replicas and
    the pods' template that it had.
    """

    name = "workloads.scale"
    limit = timedelta(minutes=3)
    undo_patience = timedelta(minutes=15)

    def title(self, spec: ScaleSpec) -> str:
        """Say to how many."""
        return f"scale {spec.workload.name} to {spec.replicas}"

    async def observe(self, spec: ScaleSpec) -> Scaled:
        """Read it. Raises Invalid where it is not there."""
        return await _state(spec.workload, await read(spec.workload))

    def desired(self, spec: ScaleSpec, before: Scaled) -> Scaled:
        """Want that many; pods that run already are to be new ones if that was asked for."""
        anew = spec.restart and before.replicas and spec.replicas
        restarted = spec.restart if anew else before.restarted
        return Scaled(replicas=spec.replicas, still=spec.replicas == 0, restarted=restarted)

    def partial(self, spec: ScaleSpec, before: Scaled, now: Scaled) -> bool:
        """Know that it is written as it was, or as it is to be."""
        return now.written in (before.written, self.desired(spec, before).written)

    def begun(self, spec: ScaleSpec, before: Scaled, now: Scaled) -> bool:
        """Know it by what is written."""
        return now.written != before.written and self.partial(spec, before, now)

    async def apply(self, spec: ScaleSpec, before: Scaled) -> None:
        """Write how many, and wait for the end of those that are too many where none is to be left."""
        await self._bring(spec, before, self.desired(spec, before), forth=True)
        if spec.replicas == 0:
            await _gone(spec.workload)

    async def undo(self, spec: ScaleSpec, before: Scaled) -> None:
        """Write what was; wait for a while until that is there."""
        await self._bring(spec, before, before, forth=False)
        if before.replicas == 0:
            await _gone(spec.workload)
        else:
            await _back(spec.workload)

    async def halt(self, spec: ScaleSpec) -> None:
        """Shut out what an earlier attempt may still write: it has read the object before this hand changed it."""
        await _insist(spec, None, lambda live: Scaled.model_validate(_fields(live)))

    async def _bring(self, spec: ScaleSpec, before: Scaled, wanted: Scaled, *, forth: bool) -> None:
        known = (before.written, self.desired(spec, before).written)

        def goal(live: Object) -> Scaled:
            if (now := written(live)) not in known:
                raise Drifted(
                    f"{spec.workload.label}: somebody else changed it ({now[0]} replicas); nothing was overwritten."
                    " Look at it, then start again"
                )
            return wanted

        await _insist(spec, _fit if forth else None, goal)


scale_workload = ScaleWorkload()


class QuietWorkload(ScaleWorkload):
    """Scale what is left of a lost site, in a short time and by the same activities: nobody waits for it.

    Its nodes may be dead, so that pods never go; its cluster may not answer, or not to us.
    """

    limit = timedelta(seconds=90)
    look_patience: ClassVar[timedelta] = timedelta(seconds=30)
    expires: ClassVar[timedelta] = timedelta(seconds=30)
    beside: ClassVar[bool] = True


quiet_workload = QuietWorkload()


def written(live: Object) -> tuple[int, str]:
    """Return how many replicas stand in an object, and by which recovery its pods were rolled out anew; pure."""
    notes = (live["spec"]["template"].get("metadata") or {}).get("annotations") or {}
    return live["spec"].get("replicas", 1), notes.get(MARK, "")


async def read(at: WorkloadAt) -> Object:
    """Return a workload as it is. Raises Invalid where it is not there, or is about not to be."""
    try:
        live = await clusters.ask(at.cluster, "GET", at.path)
    except Missing:
        raise Invalid(f"{at.label} is not there; deploy it, or leave it out of the runbook's systems") from None
    if live["metadata"].get("deletionTimestamp"):
        raise Invalid(f"{at.label} is being deleted; deploy it anew, or leave it out of the runbook's systems")
    return live


async def pods(at: WorkloadAt, live: Object) -> list[Object]:
    """Return the pods of a workload that have not come to their end."""
    found = await clusters.ask(at.cluster, "GET", f"/api/v1/namespaces/{at.namespace}/pods?{_selecting(live)}")
    return [pod for pod in found["items"] if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")]


def _selecting(live: Object) -> str:
    selector = live["spec"].get("selector") or {}
    words = [f"{name}={value}" for name, value in (selector.get("matchLabels") or {}).items()]
    for one in selector.get("matchExpressions") or ():
        values = f"({','.join(one.get('values') or ())})"
        known = {"In": f"{one['key']} in {values}", "NotIn": f"{one['key']} notin {values}", "Exists": one["key"]}
        words.append(known.get(one["operator"], f"!{one['key']}"))
    return f"labelSelector={quote(','.join(words))}"


async def scalers(at: WorkloadAt) -> list[str]:
    """Return the HorizontalPodAutoscalers that own the replicas of a workload, by their names."""
    path = f"/apis/autoscaling/v1/namespaces/{at.namespace}/horizontalpodautoscalers"
    found = (await clusters.ask(at.cluster, "GET", path))["items"]
    targets = {one["metadata"]["name"]: one["spec"]["scaleTargetRef"] for one in found}
    return [name for name, to in targets.items() if (to["kind"], to["name"]) == (at.kind, at.object)]


def paused(at: WorkloadAt, live: Object) -> str:
    """Return what is said of a workload whose rollouts were paused, "" for any other; pure."""
    if not live["spec"].get("paused"):
        return ""
    return (
        f"{at.label} is paused: nothing is rolled out; kubectl -n {at.namespace} rollout resume deployment/{at.object}"
    )


def scaled_by(at: WorkloadAt, names: list[str]) -> str:
    """Return what is said of a workload whose replicas others own; pure."""
    return (
        f"{at.label}: horizontalpodautoscaler/{', '.join(names)} owns its replicas, and would take back what is"
        " scaled; delete it for as long as a recovery lasts, or leave the workload out of the runbook's systems"
    )


async def _insist(
    spec: ScaleSpec, fit: Callable[[ScaleSpec, Object], Awaitable[None]] | None, goal: Callable[[Object], Scaled]
) -> None:
    """Write what is wanted, and whose hand that was, while nothing but the status changes meanwhile.

    Where it is as wanted already the hand alone is written: so whoever is late, and has read it before, writes nothing.
    Raises Stale, Transient, and what ``fit`` and ``goal`` raise.
    """
    at = spec.workload
    for _ in range(TRIES):
        live = await read(at)
        wanted, mine = goal(live), cluster_hands.own(spec.system)
        _in_time(at, live, mine)
        await cluster_hands.claim(at.cluster, at.namespace, spec.system, at.object)
        if written(live) == wanted.written and (mine is None or _last(live) == mine):
            return
        if fit and written(live) != wanted.written:
            await fit(spec, live)
        body = _body(live, wanted, mine)
        with contextlib.suppress(Conflict):
            await clusters.ask(at.cluster, "PATCH", f"{at.path}?fieldManager={MANAGER}", body, kind=MERGE)
            return
    raise Transient(f"{at.label} keeps changing while it is written")


def _last(live: Object) -> Number:
    text = (live["metadata"].get("annotations") or {}).get(HAND, "")
    found = [int(word) for word in text.split() if word.isdecimal()]
    return (found[0], found[1], found[2]) if len(found) == 3 else (0, 0, 0)


def _in_time(at: WorkloadAt, live: Object, mine: Number | None) -> None:
    if mine is not None and (last := _last(live)) > mine:
        raise cluster_hands.late(at.label, last, mine)


async def _fit(spec: ScaleSpec, live: Object) -> None:
    """See that what is written has its effect. Raises Refused."""
    at = spec.workload
    if spec.restart and (why := paused(at, live)):
        raise Refused(why)
    if names := await scalers(at):
        raise Refused(scaled_by(at, names))


def _body(live: Object, wanted: Scaled, mine: Number | None) -> Object:
    """Return the change, which fails unless the object is the one that was read."""
    meta: Object = {name: live["metadata"][name] for name in ("uid", "resourceVersion")}
    if mine is not None:
        meta["annotations"] = {HAND: " ".join(map(str, mine))}
    if written(live) == wanted.written:
        return {"metadata": meta}
    spec: Object = {"replicas": wanted.replicas}
    if written(live)[1] != wanted.restarted:
        spec["template"] = {"metadata": {"annotations": {MARK: wanted.restarted or None}}}
    return {"metadata": meta, "spec": spec}


def _fields(live: Object) -> Object:
    return dict(zip(("replicas", "restarted"), written(live), strict=True))


async def _state(at: WorkloadAt, live: Object) -> Scaled:
    replicas, restarted = written(live)
    if replicas:
        return Scaled(replicas=replicas, still=False, restarted=restarted)
    return Scaled(replicas=0, still=None if await pods(at, live) else True, restarted=restarted)


async def _gone(at: WorkloadAt) -> None:
    """Wait until no pod is left. Raises Transient with those that do not go."""
    until = asyncio.get_running_loop().time() + GOES
    while True:
        live = await read(at)
        if not (left := await pods(at, live)) and _seen(live):
            return
        if asyncio.get_running_loop().time() > until:
            names = ", ".join(pod["metadata"]["name"] for pod in left[:5])
            raise Transient(
                f"{at.label}: still there: {names or 'what its controller made'}; see the node, and finalizers"
            )
        await asyncio.sleep(PAUSE)


def _seen(live: Object) -> bool:
    """Tell whether its controller has seen the present specification, and nothing is left of what it made."""
    status = live.get("status") or {}
    return status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0) and not status.get("replicas")


async def _back(at: WorkloadAt) -> None:
    until = asyncio.get_running_loop().time() + min(at.within, COMES)
    while unready(at.kind, await read(at)) and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(PAUSE)
