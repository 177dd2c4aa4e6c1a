"""The storefront: a workload of the lab's cluster, deployed from the manifests in a Git repository."""

from dataclasses import dataclass
from typing import Any

import yaml

from lab.cluster_access import NAMESPACE, Access
from lab.repository import Contents, Repository, Version

MANAGER = "deployer"
"""The field manager with which deployments apply what they deploy."""
PATHS = {
    "ConfigMap": f"/api/v1/namespaces/{NAMESPACE}/configmaps",
    "Service": f"/api/v1/namespaces/{NAMESPACE}/services",
    "Deployment": f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
}
Object = dict[str, Any]


def manifests(image: str, greeting: str) -> str:
    """Return the manifests of a version, as the repository has them."""
    labels = {"app": "storefront"}
    container = {
        "name": "storefront", "image": image, "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "envFrom": [{"configMapRef": {"name": "storefront"}}],
    }  # fmt: skip
    objects: list[Object] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"GREETING": greeting}},
        {
            "apiVersion": "v1", "kind": "Service",
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]},
        },
        {
            "apiVersion": "apps/v1", "kind": "Deployment",
            "spec": {
                "replicas": 2, "selector": {"matchLabels": labels}, "progressDeadlineSeconds": 10,
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        },
    ]  # fmt: skip
    text: str = yaml.safe_dump_all([one | {"metadata": {"name": "storefront"}} for one in objects], sort_keys=False)
    return text


STOREFRONT = Contents(
    "storefront/all.yaml",
    (
        Version("Open the storefront", manifests("storefront:1", "Welcome"), "opened-1", "healthy"),
        Version("Greet by name", manifests("storefront:2", "Welcome back"), "opened-2", "healthy"),
    ),
    Version("Show offers", manifests("storefront:broken", "Offers"), "opened-3", "unhealthy"),
)
"""What the cluster has; with the bad one no new pod becomes ready."""


@dataclass(frozen=True)
class Storefront:
    """What is deployed, from where, to which cluster."""

    repository: Repository
    access: Access

    def open(self) -> None:
        """Deploy the first versions, unless there is one. Raises LabError, OSError, HTTPError."""
        self.repository.create()
        if not self.access.answers(f"{PATHS['Deployment']}/storefront"):
            self.deploy()

    def spoil(self) -> None:
        """Deploy the version that makes it worse. Raises LabError, OSError, HTTPError."""
        self.repository.create()
        self.repository.add([self.repository.contents.bad])
        self.deploy()

    def deploy(self) -> None:
        """Apply the newest version server-side, as a pipeline does."""
        (text,) = self.repository.files().values()
        for one in yaml.safe_load_all(text):
            path = f"{PATHS[one['kind']]}/{one['metadata']['name']}?fieldManager={MANAGER}&force=true"
            self.access.ask("APPLY", path, one)
