"""Who may do what in the lab's cluster, and how each of them reaches it."""

import base64
import http.client
import json
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.place import write_private

Answer = dict[str, Any]

NAMESPACE = "orders"
"""The one namespace of the lab's estate in which a recovery may act."""
USERS = {"admin": "system:masters", "recovery": "", "viewer": ""}
"""Each user, and the group by which they may do everything."""

CHANGED = {
    "": ["configmaps", "secrets", "services", "serviceaccounts", "persistentvolumeclaims"],
    "apps": ["deployments", "statefulsets", "daemonsets"],
    "autoscaling": ["horizontalpodautoscalers"],
    "coordination.k8s.io": ["leases"],
    "batch": ["jobs", "cronjobs"],
    "networking.k8s.io": ["ingresses", "networkpolicies"],
    "policy": ["poddisruptionbudgets"],
}
SEEN = {"": ["namespaces", "pods", "endpoints", "events", "resourcequotas"], "apps": ["replicasets"]}
LOOK = ["get", "list", "watch"]
OF_NODES = (
    ("", ["nodes"], ["get", "list", "patch"]),
    ("", ["pods"], ["get", "list"]),
    ("", ["pods/eviction"], ["create"]),
    ("policy", ["poddisruptionbudgets"], ["get", "list"]),
)
"""What draining needs, of the whole cluster."""


@dataclass(frozen=True)
class Access:
    """The files of users in a folder, and the address of the API server."""

    folder: Path
    server: str

    @property
    def certificate(self) -> Path:
        """The certificate of the API server, which it makes itself, with that of who signed it."""
        return self.folder / "apiserver.crt"

    @property
    def tokens(self) -> Path:
        """The tokens of all users, 0600, as the API server reads them."""
        return self.folder / "tokens.csv"

    def kubeconfig(self, user: str) -> Path:
        """Return the kubeconfig of a user."""
        return self.folder / f"{user}.kubeconfig"

    def make_tokens(self) -> None:
        """Write a token for each user, unless they have one."""
        if not self.tokens.exists():
            rows = (f'{secrets.token_urlsafe(24)},{user},{user},"{group}"\n' for user, group in USERS.items())
            write_private(self.tokens, "".join(rows))

    def token(self, user: str) -> str:
        """Return the token of a user; never print it."""
        rows = (line.split(",") for line in self.tokens.read_text().splitlines())
        return next(row[0] for row in rows if row[1] == user)

    def write_kubeconfigs(self) -> None:
        """Write a kubeconfig for each user, for its owner only."""
        for user in USERS:
            write_private(self.kubeconfig(user), json.dumps(self._kubeconfig(user), indent=1))

    def _kubeconfig(self, user: str) -> Answer:
        authority = base64.b64encode(self.certificate.read_bytes()).decode()
        cluster = {"server": self.server, "certificate-authority-data": authority}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self.token(user)}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user, "namespace": NAMESPACE}}],
            "current-context": "lab",
        }

    def ask(self, method: str, path: str, body: object = None, *, user: str = "admin") -> Answer:
        """Ask the API server, and return what it answers. Raises OSError, HTTPException, urllib's HTTPError."""
        kind = {"PATCH": "application/merge-patch+json", "APPLY": "application/apply-patch+yaml"}
        headers = {"Authorization": f"Bearer {self.token(user)}", "Content-Type": kind.get(method, "application/json")}
        verb = "PATCH" if method == "APPLY" else method
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, data, headers, method=verb)
        with urllib.request.urlopen(request, timeout=10, context=self._trusting()) as answer:
            text = answer.read()
        found: Answer = json.loads(text) if text[:1] == b"{" else {"said": text.decode()}
        return found

    def _trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    def answers(self, path: str) -> bool:
        """Tell whether there is a good answer."""
        with suppress(OSError, http.client.HTTPException, ValueError):
            return bool(self.ask("GET", path))
        return False

    def seed(self) -> None:
        """Make the namespace, and let a recovery and a viewer do in it what they may."""
        for path, body in _seeds():
            self.ask("APPLY", f"{path}/{body['metadata']['name']}?fieldManager=lab&force=true", body)


def node_ready(access: Access, node: str) -> bool:
    """Tell whether a node is ready and untainted, but for that it is cordoned: that is a recovery's."""
    with suppress(OSError, http.client.HTTPException, ValueError):
        found = access.ask("GET", f"/api/v1/nodes/{node}")
        states = {one["type"]: one["status"] for one in found["status"].get("conditions", ())}
        taints = {one["key"] for one in found["spec"].get("taints") or ()} - {"node.kubernetes.io/unschedulable"}
        return states.get("Ready") == "True" and not taints
    return False


def _seeds() -> Iterator[tuple[str, Answer]]:
    yield "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles"
    change = [*LOOK, "create", "patch", "update", "delete"]
    yield roles, _rbac("Role", "recovery", rules=[*_rules(CHANGED, change), *_rules(SEEN, LOOK)])
    yield roles, _rbac("Role", "viewer", rules=[*_rules(CHANGED, LOOK), *_rules(SEEN, LOOK)])
    for user in ("recovery", "viewer"):
        yield roles.replace("/roles", "/rolebindings"), _bound("Role", user, user)
    everywhere = "/apis/rbac.authorization.k8s.io/v1"
    rules = [{"apiGroups": [group], "resources": names, "verbs": verbs} for group, names, verbs in OF_NODES]
    yield f"{everywhere}/clusterroles", _rbac("ClusterRole", "recovery-nodes", rules=rules)
    yield f"{everywhere}/clusterrolebindings", _bound("ClusterRole", "recovery-nodes", "recovery")


def _bound(kind: str, role: str, user: str) -> Answer:
    group = "rbac.authorization.k8s.io"
    return _rbac(
        f"{kind}Binding",
        role,
        roleRef={"apiGroup": group, "kind": kind, "name": role},
        subjects=[{"apiGroup": group, "kind": "User", "name": user}],
    )


def _rbac(kind: str, name: str, **more: object) -> Answer:
    metadata = {"name": name} | ({} if kind.startswith("Cluster") else {"namespace": NAMESPACE})
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, **more}


def _rules(resources: dict[str, list[str]], verbs: list[str]) -> Iterator[Answer]:
    for group, names in resources.items():
        yield {"apiGroups": [group], "resources": names, "verbs": verbs}
