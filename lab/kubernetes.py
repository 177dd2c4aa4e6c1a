"""A Kubernetes control plane: the real API server on its own etcd, its controllers, and a node that is simulated."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from lab import cluster_access, daemons, processes
from lab.addresses import OF_THE_CLUSTER as PORTS
from lab.cluster_access import NAMESPACE, Access, Answer
from lab.place import LabError, Place, write_private
from lab.processes import Process

ADDRESS = "127.0.0.1"
ASSETS = "KUBEBUILDER_ASSETS"
NEEDED = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = "lab-node"
CLUSTER = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", NODE, "etcd")
RANGE = "10.96.0.0/16"
SECONDS = 180
"""How long it may take on a machine that does much else, too; alone it takes eight."""


def program(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return where a program of the control plane is: in $KUBEBUILDER_ASSETS, else on PATH. Raises LabError."""
    assets = environ.get(ASSETS, "")
    found = shutil.which(name, path=assets) if assets else None
    found = found or shutil.which(name, path=environ.get("PATH", ""))
    if found is None:
        raise LabError(
            f"{name} is neither in {ASSETS} ({assets or 'not set'}) nor on PATH: unpack an archive of envtest"
            f" (kube-apiserver, etcd, kube-controller-manager, kube-scheduler) and set {ASSETS} to its folder"
        )
    return found


@dataclass(frozen=True)
class Kubernetes:
    """A control plane in `place`, which need not hold the rest of a lab; `ports` are by their names."""

    place: Place
    ports: Mapping[str, int]

    @property
    def folder(self) -> Path:
        """What it keeps: data of etcd, certificate, tokens, and a kubeconfig for each user."""
        return self.place.kubernetes

    @property
    def access(self) -> Access:
        """How its users reach it."""
        return Access(self.folder, f"https://{ADDRESS}:{self.ports['kubernetes']}")

    def kubeconfig(self, user: str = "recovery") -> Path:
        """Return the file, 0600, with which a user reaches it: `admin`, `recovery` or `viewer`."""
        return self.access.kubeconfig(user)

    def ask(self, method: str, path: str, body: object = None, *, user: str = "admin") -> Answer:
        """Ask the API server as a user; a body is applied server-side, or created. Raises OSError, HTTPError."""
        return self.access.ask(method, path, body, user=user)

    def start(self, seconds: float = SECONDS) -> None:
        """Start what does not run, and wait until the API answers and its node is ready. Raises LabError.

        What etcd holds stays, whatever was killed.
        """
        programs = {name: program(name) for name in NEEDED}
        self._make()
        deadline = time.monotonic() + seconds
        self._begin("etcd", [programs["etcd"], *self._etcd()])
        self._begin("kube-apiserver", [programs["kube-apiserver"], *self._api()])
        self._await(self._serves, deadline, "kube-apiserver", "etcd")
        self.access.write_kubeconfigs()
        self.access.seed()
        self._begin("kube-controller-manager", [programs["kube-controller-manager"], *self._controllers()])
        self._begin("kube-scheduler", [programs["kube-scheduler"], *self._scheduler()])
        daemons.start(self.place, NODE, "node", NODE)
        self._await(self._works, deadline, "kube-apiserver", "kube-controller-manager", NODE)

    def running(self) -> dict[str, Process | None]:
        """Return which of its programs run."""
        return {name: daemons.running(self.place, name) for name in CLUSTER}

    def kill_api(self) -> None:
        """Kill the API server with SIGKILL, and wait until it is gone; etcd and the others go on."""
        found = daemons.running(self.place, "kube-apiserver")
        processes.stop([found] if found else [], signal.SIGKILL, 5)

    def stop(self) -> None:
        """Kill all of it: nothing in it is worth a good end."""
        found = [process for process in self.running().values() if process]
        processes.stop(found, signal.SIGKILL, 5)

    def ready(self) -> bool:
        """Tell whether the API server says that it is."""
        return self.access.kubeconfig("admin").exists() and self._serves()

    def _make(self) -> None:
        for folder in (self.place.root, self.place.run, self.place.logs, self.folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.access.make_tokens()
        if not self._key.exists():
            key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
            write_private(self._key, key.export_private_key("pkcs1-pem").decode())

    @property
    def _key(self) -> Path:
        return self.folder / "service-accounts.pem"

    def _begin(self, name: str, argv: list[str]) -> None:
        if daemons.running(self.place, name) is None:
            daemons.begin(self.place, name, argv, daemons.of_no_site(self.place, {"HOME": str(self.folder)}))

    def _await(self, holds: Callable[[], bool], deadline: float, *names: str) -> None:
        while not holds():
            ended = [name for name in names if daemons.running(self.place, name) is None]
            if ended or time.monotonic() > deadline:
                which = ended[0] if ended else names[0]
                how = "ended" if ended else "is not ready in time"
                log = daemons.log(self.place, which)
                said = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
                raise LabError(f"{which} {how}, see {log}: {''.join(said)[:500]}")
            time.sleep(0.05)

    def _serves(self) -> bool:
        return self.access.certificate.exists() and self.access.answers("/readyz")

    def _works(self) -> bool:
        account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"  # the controllers make it
        return self.access.answers(account) and cluster_access.node_ready(self.access, NODE)

    def _etcd(self) -> Iterator[str]:
        client, peer = (f"http://{ADDRESS}:{self.ports[name]}" for name in PORTS[1:])
        yield from ("--data-dir", str(self.folder / "etcd"), "--listen-client-urls", client)
        yield from ("--advertise-client-urls", client, "--listen-peer-urls", peer)
        yield from ("--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}")
        # What a process wrote survives its death: only a machine that fails would need the disk to have it.
        yield from ("--unsafe-no-fsync", "--logger", "zap", "--log-level", "warn")

    def _api(self) -> Iterator[str]:
        yield from (f"--etcd-servers=http://{ADDRESS}:{self.ports['etcd']}", f"--bind-address={ADDRESS}")
        yield from (f"--advertise-address={ADDRESS}", f"--secure-port={self.ports['kubernetes']}")
        yield from (f"--cert-dir={self.folder}", f"--token-auth-file={self.access.tokens}")
        yield from ("--authorization-mode=RBAC", "--anonymous-auth=false", f"--service-cluster-ip-range={RANGE}")
        yield from (f"--service-account-key-file={self._key}", f"--service-account-signing-key-file={self._key}")
        yield "--service-account-issuer=https://kubernetes.default.svc"
        # A node is ready at once, and a pod needs no token of an account: neither is what a recovery is about.
        yield "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition"
        yield "--endpoint-reconciler-type=none"  # no cluster has its API server at a loopback address

    def _controllers(self) -> Iterator[str]:
        yield from (f"--kubeconfig={self.kubeconfig('admin')}", "--leader-elect=false", "--port=0", "--secure-port=0")
        yield "--controllers=*,-nodeipam,-attachdetach,-ttl,-cloud-node-lifecycle"
        yield from (f"--service-account-private-key-file={self._key}", "--kube-api-qps=200", "--kube-api-burst=400")

    def _scheduler(self) -> Iterator[str]:
        yield from (f"--kubeconfig={self.kubeconfig('admin')}", "--leader-elect=false", "--port=0", "--secure-port=0")
        yield from ("--kube-api-qps=200", "--kube-api-burst=400")
