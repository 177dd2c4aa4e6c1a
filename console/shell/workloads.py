"""The lines of a printed page about workloads of clusters, and about their nodes: what a person tells kubectl; pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from activities.nodes import MARK
from activities.sites import Sites


def scaled(sites: Sites, name: str, replicas: int) -> Iterator[str]:
    """Yield what scales a workload, and sees that it has come about."""
    one = sites.workloads[name]
    kubectl, what = f"{_kubectl(sites, one.cluster)} -n {one.namespace}", f"{one.kind.lower()}/{one.name}"
    words = [f"{kubectl} scale {what} --replicas={replicas}"]
    if replicas and one.restart:
        words.append(f"{kubectl} rollout restart {what}")
    words.append(f"{kubectl} rollout status {what} --timeout={int(one.within.total_seconds())}s")
    if replicas and one.endpoints:
        words.append(f"{kubectl} get endpoints {one.endpoints}")
    told = f"scale {name} to {replicas}, and see it: {' && '.join(words)}"
    if not replicas:
        told += f" && {kubectl} get pods, until none of it is left"
    yield f"asked {shlex.quote(told)}"


def drained(sites: Sites, site: str) -> Iterator[str]:
    """Yield what empties the nodes of the clusters of a site, where the estate says so; each is marked as cordoned."""
    for cluster in sites.drained(site):
        drain, kubectl = sites.clusters[cluster].drain, _kubectl(sites, cluster)
        nodes = f"-l {shlex.quote(drain.nodes)} " if drain and drain.nodes else ""
        told = (
            f"drain the nodes of {cluster}: N=$({kubectl} get nodes {nodes}--field-selector spec.unschedulable=false"
            f" -o name); {kubectl} annotate $N {MARK}=by-hand && {kubectl} drain $N --ignore-daemonsets"
            " --delete-emptydir-data"
        )
        yield f"asked {shlex.quote(told)}"


def opened(sites: Sites, site: str) -> Iterator[str]:
    """Yield what opens the nodes of the clusters of a site that a recovery had cordoned."""
    for cluster in sites.drained(site):
        kubectl = _kubectl(sites, cluster)
        told = (
            f"open the nodes of {cluster} that have the annotation {MARK}: {kubectl} get nodes -o yaml, then for each"
            f" {kubectl} uncordon NODE && {kubectl} annotate node NODE {MARK}-"
        )
        yield f"asked {shlex.quote(told)}"


def _kubectl(sites: Sites, cluster: str) -> str:
    one = sites.clusters[cluster]
    context = f" --context {shlex.quote(one.context)}" if one.context else ""
    return f"kubectl --kubeconfig {shlex.quote(one.kubeconfig)}{context}"
