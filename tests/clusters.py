"""One real Kubernetes control plane for all tests of a session, each with a namespace and a repository of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import tempfile
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.clusters import ClusterAt
from activities.git import Repository, Source
from activities.manifest_compare import Compared, CompareSpec
from activities.manifests import ManifestsAt, ManifestsSpec
from lab import kubernetes, ports
from lab.addresses import OF_THE_CLUSTER
from lab.cluster_access import NAMESPACE
from lab.kubernetes import Kubernetes
from lab.place import LabError, Place

Object = dict[str, Any]
MANAGER = "deployer"
REQUIRED = os.environ.get("RECOVERY_TEST_KUBERNETES") == "required"
CORE, APPS = f"/api/v1/namespaces/{NAMESPACE}", f"/apis/apps/v1/namespaces/{NAMESPACE}"
PLURALS = {
    "ConfigMap": f"{CORE}/configmaps", "Secret": f"{CORE}/secrets", "Service": f"{CORE}/services",
    "PersistentVolumeClaim": f"{CORE}/persistentvolumeclaims", "Deployment": f"{APPS}/deployments",
    "StatefulSet": f"{APPS}/statefulsets", "DaemonSet": f"{APPS}/daemonsets",
    "ReplicaSet": f"{APPS}/replicasets", "Pod": f"{CORE}/pods",
    "Lease": f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases",
}  # fmt: skip
CLEARED = ("Deployment", "StatefulSet", "DaemonSet", "Service", "ConfigMap", "Secret", "PersistentVolumeClaim", "Lease")
MADE = ("ReplicaSet", "Pod")
"""What controllers make: their garbage collector is slow on a machine that does much else."""


@contextlib.contextmanager
def control_plane() -> Iterator[Kubernetes]:
    """Start one in a folder of its own, and take it down at the end; without its programs CI fails."""
    with tempfile.TemporaryDirectory(prefix="lab-kube-") as folder:
        found = Kubernetes(Place(Path(folder, "lab")), ports.choose(OF_THE_CLUSTER))
        try:
            found.start()
            yield found
        except LabError as error:
            _without(f"Kubernetes tests need a control plane: {error}; .ci/envtest prints where CI has it")
        finally:
            found.stop()


def assets() -> None:
    """Go on where the programs of a control plane are."""
    try:
        kubernetes.program("kube-apiserver")
    except LabError as error:
        _without(f"Kubernetes tests need a control plane: {error}; .ci/envtest prints where CI has it")


def _without(why: str) -> None:
    """Leave the test out where nobody has the programs; in CI they have to be there."""
    if REQUIRED or "KUBEBUILDER_ASSETS" in os.environ:
        pytest.fail(why)
    pytest.skip(why)


class Deployed:
    """What a team deploys to the cluster from a repository: revisions of files, applied as ``manager``."""

    def __init__(self, cluster: Kubernetes, folder: Path, manager: str = MANAGER) -> None:
        self.cluster, self.folder, self.manager = cluster, folder, manager
        self._git("init", "--quiet", "--initial-branch=main")
        self.at = ClusterAt(name="lab", kubeconfig=str(cluster.kubeconfig()), context="lab")

    def _git(self, *words: str) -> str:
        who = {f"GIT_{role}_{part}": "x@y" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        words = ("git", "-C", str(self.folder), *words)
        return subprocess.run(words, env=os.environ | who, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, *objects: Object, files: Mapping[str, str] | None = None) -> Source:
        """Commit a revision that has these objects, and no other; return where it is."""
        for old in self.folder.glob("[!.]*"):
            old.unlink()
        texts = {"objects.yaml": yaml.safe_dump_all(objects)} if objects else {"empty.txt": ""}
        for name, text in (texts | dict(files or {})).items():
            (self.folder / name).write_text(text)
        self._git("add", "-A")
        self._git("commit", "--quiet", "--allow-empty", "-m", "a revision")
        repository = Repository(url=str(self.folder), branch="main")
        return Source(repository=repository, revision=self._git("rev-parse", "HEAD"))

    def apply(self, *objects: Object, manager: str = "", force: bool = True) -> None:
        """Apply them server-side, as a deployment does."""
        for one in objects:
            flags = f"fieldManager={manager or self.manager}&force={str(force).lower()}"
            self.ask("APPLY", f"{self.path(one)}?{flags}", one)

    def update(self, one: Object, manager: str = "") -> Object:
        """Create or replace an object, as tools do that do not apply server-side."""
        flags = f"?fieldManager={manager or self.manager}"
        old = self.get(one["kind"], one["metadata"]["name"])
        if old is None:
            return self.ask("POST", PLURALS[one["kind"]] + flags, one)
        meta = {**one["metadata"], "resourceVersion": old["metadata"]["resourceVersion"]}
        return self.ask("PUT", self.path(one) + flags, {**one, "metadata": meta})

    def edit(self, kind: str, name: str, change: Object, manager: str = "kubectl-edit") -> Object:
        """Change an object by hand."""
        return self.ask("PATCH", f"{PLURALS[kind]}/{name}?fieldManager={manager}", change)

    def ask(self, method: str, path: str, body: object = None) -> Object:
        """Ask as the admin."""
        return self.cluster.ask(method, path, body)

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, None where there is none."""
        try:
            return self.ask("GET", f"{PLURALS[kind]}/{name}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    def path(self, one: Object) -> str:
        """Return the path of an object."""
        return f"{PLURALS[one['kind']]}/{one['metadata']['name']}"

    def target(self, **more: Any) -> ManifestsAt:
        """Return what is rolled back."""
        known = {"name": "shop", "cluster": self.at, "namespace": NAMESPACE, "manager": self.manager}
        return ManifestsAt.model_validate(known | more)

    def compare(self, good: Source, head: Source, **more: Any) -> CompareSpec:
        """Return how two revisions are compared."""
        return CompareSpec(system="shop", target=self.target(), good=good, head=head, **more)

    def spec(self, good: Source, compared: Compared, **more: Any) -> ManifestsSpec:
        """Return how the good one is applied by a recovery that nobody has seen yet."""
        known = {"system": "shop", "target": self.target(), "source": good, "run": secrets.token_hex(4), "drill": True}
        return ManifestsSpec.model_validate(known | {"objects": compared.wanted} | more)

    def everything(self) -> Object:
        """Return what the namespace holds as people see it: no status, nothing that each write changes."""
        return {
            f"{kind}/{one['metadata']['name']}": plain(one)
            for kind in CLEARED
            for one in self.ask("GET", PLURALS[kind])["items"]
            if kind != "Lease" and not automatic(one)
        }

    def clear(self) -> None:
        """Take everything out of the namespace, and wait until it is gone: what still goes takes new ones with it."""
        until(lambda: sum(map(self._cleared, CLEARED)) == 0, "the namespace is empty", 60)
        for kind in MADE:
            self._cleared(kind)

    def _cleared(self, kind: str) -> int:
        """Delete what there is of a kind, and return how many there were."""
        names = [one["metadata"] for one in self.ask("GET", PLURALS[kind])["items"] if not automatic(one)]
        for meta in names:
            path = f"{PLURALS[kind]}/{meta['name']}"
            with contextlib.suppress(urllib.error.HTTPError):  # gone meanwhile
                if meta.get("finalizers"):
                    self.ask("PATCH", path, {"metadata": {"finalizers": None}})
                self.ask("DELETE", f"{path}?gracePeriodSeconds=0")
        return len(names)


def through(cluster: Kubernetes, port: int, file: Path, user: str = "recovery") -> ClusterAt:
    """Return a cluster that is reached at another port: its kubeconfig is written to a file."""
    text = cluster.kubeconfig(user).read_text()
    file.write_text(text.replace(f":{cluster.ports['kubernetes']}", f":{port}"))
    return ClusterAt(name="lab", kubeconfig=str(file), context="lab")


def bare_nodes(cluster: Kubernetes, *names: str) -> None:
    """Register nodes on which nothing ever runs: nobody answers for them."""
    for name in names:
        cluster.ask("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})


def automatic(one: Object) -> bool:
    """Tell whether the cluster itself makes an object, again and again."""
    return one["metadata"]["name"] == "kube-root-ca.crt" or one.get("type") == "kubernetes.io/service-account-token"


VOLATILE = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "selfLink")


def plain(one: Object) -> Object:
    """Return an object without what each write changes, and without what its controllers write."""
    meta = {name: value for name, value in one["metadata"].items() if name not in VOLATILE}
    notes = {k: v for k, v in meta.get("annotations", {}).items() if k != "deployment.kubernetes.io/revision"}
    meta = {**meta, "annotations": notes}
    found = {name: value for name, value in one.items() if name not in ("status", "apiVersion")}
    if one.get("spec", {}).get("clusterIP"):
        found["spec"] = {k: v for k, v in one["spec"].items() if k not in ("clusterIP", "clusterIPs")}
    copied: Object = json.loads(json.dumps({**found, "metadata": meta}))
    return copied


def until(holds: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.05)


def config_map(name: str, data: Mapping[str, str], **meta: object) -> Object:
    """Return a ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **meta}, "data": dict(data)}


def secret(name: str, data: Mapping[str, str]) -> Object:
    """Return a Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict(data)}


def service(name: str) -> Object:
    """Return a Service before the pods of the workload of its name."""
    ports_ = [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]
    spec = {"selector": {"app": name}, "ports": ports_}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def claim(name: str) -> Object:
    """Return a PersistentVolumeClaim."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def workload(
    name: str, image: str = "shop:1", *, kind: str = "Deployment", replicas: int | None = 1,
    env: Mapping[str, str] | None = None, notes: Mapping[str, str] | None = None, **spec: object,
) -> Object:  # fmt: skip
    """Return a workload; without ``replicas`` it says nothing of them."""
    variables = [{"name": key, "value": value} for key, value in (env or {}).items()]
    container = {"name": "app", "image": image, "ports": [{"containerPort": 8080}], "env": variables}
    meta: Object = {"labels": {"app": name}, **({"annotations": dict(notes)} if notes else {})}
    told: Object = {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": meta, "spec": {"containers": [container]}},
        **({} if replicas is None or kind == "DaemonSet" else {"replicas": replicas}),
        **({"serviceName": name} if kind == "StatefulSet" else {}),
        **spec,
    }
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": told}
