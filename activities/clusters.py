"""Kubernetes: requests to the API server of a cluster, and what its refusals mean for a recovery."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote, urlencode
from weakref import WeakKeyDictionary

from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.config import ConfigException, load_kube_config
from urllib3.exceptions import HTTPError

from activities import cluster_refusals
from activities.cluster_refusals import Denied, Missing
from recovery.errors import Fatal, Invalid, Refused, Transient
from recovery.models import Wire
from recovery.settings import Settings
from runbooks.schema import Cluster

Object = dict[str, Any]
T = TypeVar("T")

LIMIT = (5.0, 10.0)
"""Seconds to reach the API server, and to wait for its answer."""
STARTING, PAUSE = 10, 0.5
"""How often, and after how many seconds each time, is asked again where a server that is not ready forbids."""
JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
"""Merges lists by the keys of their items; for the kinds that are built in."""
UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "doesn't match", "UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_REQUIRED")
"""In an error of TLS: that one of the two does not know who the other is. Any other is a connection that broke."""


class ClusterAt(Wire):
    """A cluster of the estate, and the file beside the worker that says how it is reached."""

    name: str
    kubeconfig: str
    context: str = ""

    @classmethod
    def of(cls, name: str, cluster: Cluster) -> Self:
        """Return how a cluster of the estate is asked."""
        return cls(name=name, kubeconfig=cluster.kubeconfig, context=cluster.context or "")


class Resource(NamedTuple):
    """Where objects of a kind are: the collection is at ``<base>[/namespaces/<namespace>]/<plural>``."""

    base: str
    plural: str
    namespaced: bool

    def path(self, namespace: str, name: str = "") -> str:
        """Return the path of one object, or without a name that of all of them."""
        parts = ["namespaces", namespace] if self.namespaced and namespace else []
        return "/".join([self.base, *(quote(part, safe="") for part in (*parts, self.plural, name) if part)])


class _Client(NamedTuple):
    api: ApiClient
    kinds: dict[str, dict[str, Resource]]
    """By API version and kind, as the server told: kept here and in no file."""
    stamp: tuple[int, int]
    """Of the kubeconfig that it was made from."""


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ClusterAt, _Client]] = WeakKeyDictionary()


async def ask(
    at: ClusterAt, method: str, path: str, body: Object | None = None, *, kind: str = JSON, **query: str
) -> Object:
    """Ask the API server; return what it answers.

    Raises Transient when it cannot be reached, or says so; Conflict, Missing, Refused, Invalid as it says. A request
    that is under way when it is cancelled comes to its end first, so that nothing is written after that.
    """
    client = await _client(at)
    where = f"{path}?{urlencode(query)}" if query else path
    for _ in range(STARTING):
        try:
            return await _threaded(lambda: _request(at, client.api, method, where, body, kind))
        except Denied:
            if await _threaded(lambda: _ready(client.api)):
                break
            await asyncio.sleep(PAUSE)
    return await _threaded(lambda: _request(at, client.api, method, where, body, kind))


async def get(at: ClusterAt, path: str) -> Object | None:
    """Return an object, None where there is none."""
    try:
        return await ask(at, "GET", path)
    except Missing:
        return None


async def resource(at: ClusterAt, version: str, kind: str) -> Resource:
    """Return where objects of a kind are. Raises Invalid when the cluster knows no such kind."""
    kinds = (await _client(at)).kinds
    if kind not in kinds.get(version, {}):  # it may be new: of a definition that was made since
        kinds[version] = await _discover(at, version)
    found = kinds[version].get(kind)
    if found is None:
        raise Invalid(f"kind: {at.name} knows no {kind} of {version}; see kubectl api-resources")
    return found


async def allowed(at: ClusterAt, verb: str, version: str, where: Resource, namespace: str) -> bool:
    """Tell whether this worker may do something with a kind of object; nothing is changed by asking."""
    group = version.rpartition("/")[0]
    plural, _, part = where.plural.partition("/")
    asked = {"verb": verb, "group": group, "resource": plural, **({"subresource": part} if part else {})}
    if where.namespaced:
        asked["namespace"] = namespace
    review = {"kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": asked}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    said = await ask(at, "POST", path, {"apiVersion": "authorization.k8s.io/v1", **review})
    return bool(said.get("status", {}).get("allowed"))


async def forbidden(at: ClusterAt, verbs: Iterable[str], version: str, plural: str, namespace: str = "") -> list[str]:
    """Return which of the verbs this worker may not use on objects of a kind; in all namespaces without one."""
    group, asked = version.rpartition("/")[0], tuple(verbs)
    where = Resource(f"/apis/{version}" if group else f"/api/{version}", plural, bool(namespace))
    may = await asyncio.gather(*(allowed(at, verb, version, where, namespace) for verb in asked))
    return [verb for verb, can in zip(asked, may, strict=True) if not can]


async def namespace_faults(at: ClusterAt, namespace: str) -> list[str]:
    """Return what is wrong with a namespace, as far as this worker may look at it."""
    try:
        found = await ask(at, "GET", f"/api/v1/namespaces/{namespace}")
    except Missing:
        return [f"{at.name} has no namespace {namespace}"]
    except Refused:  # it may not look at namespaces; what is asked of them tells
        return []
    if found.get("status", {}).get("phase") == "Terminating":
        return [f"{at.name}: namespace {namespace} is being deleted; wait for its end, then have it made anew"]
    return []


async def _discover(at: ClusterAt, version: str) -> dict[str, Resource]:
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    try:
        told = await ask(at, "GET", base)
    except Missing:
        return {}
    found = (one for one in told.get("resources", ()) if "/" not in one["name"])
    return {one["kind"]: Resource(base, one["name"], one["namespaced"]) for one in found}


async def _client(at: ClusterAt) -> _Client:
    """Return the client of this event loop; where the kubeconfig has changed since, another one in its place."""
    kept, stamp = _clients.setdefault(asyncio.get_running_loop(), {}), _stamp(at)
    found = kept.get(at)
    if found is None or found.stamp != stamp:
        # Who still asks through the former one comes to an end; then it is closed.
        found = kept[at] = _Client(await _threaded(lambda: _connect(at)), {}, stamp)
    return found


def _stamp(at: ClusterAt) -> tuple[int, int]:
    try:
        found = Path(at.kubeconfig).stat()
    except OSError as error:
        raise Invalid(f"kubeconfig: {at.kubeconfig} of {at.name} cannot be read ({error.strerror})") from None
    return found.st_mtime_ns, found.st_size


def _connect(at: ClusterAt) -> ApiClient:
    configuration = Configuration()
    try:
        load_kube_config(
            at.kubeconfig,
            at.context or None,
            configuration,
            persist_config=False,
            temp_file_path=str(Settings.from_environment().folder("kube")),  # keys that it holds: not into /tmp
        )
    except ConfigException as error:
        raise Invalid(f"kubeconfig: {at.kubeconfig} of {at.name} does not do: {_harmless(error, at)}") from None
    except Exception as error:  # whatever else its content makes the driver raise: it must not be shown
        raise Invalid(f"kubeconfig: {at.kubeconfig} of {at.name} is none ({type(error).__name__})") from None
    configuration.retries = False  # urllib3 takes it; what is tried again, the engine says
    return ApiClient(configuration)


def _harmless(error: ConfigException, at: ClusterAt) -> str:
    """Say what is wrong, as far as that cannot be content of the file."""
    said = str(error)
    if at.context and at.context in said:
        return f"it has no context {at.context}"
    return "it names no cluster, user or context that it holds"


def _ready(api: ApiClient) -> bool:
    """Tell whether an API server is through with its start: before, it knows no roles, and forbids everything."""
    try:
        answer = api.call_api(
            *api.param_serialize("GET", "/readyz", auth_settings=["BearerToken"]), _request_timeout=LIMIT
        )
        answer.read()
    except (ApiException, HTTPError, OSError):
        return False
    return bool(answer.status == 200)


def _request(at: ClusterAt, api: ApiClient, method: str, path: str, body: Object | None, kind: str) -> Object:
    headers = {"Accept": JSON, "Content-Type": kind}
    serialized = api.param_serialize(method, path, header_params=headers, body=body, auth_settings=["BearerToken"])
    try:
        answer = api.call_api(*serialized, _request_timeout=LIMIT)
        text = answer.read()
    except ApiException as error:  # it has no status: those below are not raised
        raise _broken(at, str(error.reason)) from None
    except (HTTPError, OSError) as error:
        raise _broken(at, f"{type(error).__name__} {error}") from None
    return _answer(at, method, path, answer.status, text)


def _broken(at: ClusterAt, said: str) -> Transient | Refused:
    if any(word.lower() in said.lower() for word in UNTRUSTED):
        return Refused(
            f"{at.name} shows a certificate that its kubeconfig does not trust, or does not trust that of this worker;"
            " see certificate-authority and user there"
        )
    how = said.split()[0] if said else "no answer"
    return Transient(
        f"the API server of {at.name} cannot be reached ({how}); does it run, and may this worker go there?"
    )


def _answer(at: ClusterAt, method: str, path: str, status: int, text: bytes) -> Object:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    told = found if isinstance(found, dict) else {}
    if status < 300 and told:
        return told
    if status < 300:
        raise Fatal(f"{at.name} does not answer as an API server of Kubernetes does; see server in its kubeconfig")
    raise cluster_refusals.of(at.name, method, path, status, told)


async def _threaded(call: Callable[[], T]) -> T:
    working = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        if not working.cancelled():
            working.exception()  # seen: nobody else asks for it
        raise


def query(**flags: str | bool) -> Mapping[str, str]:
    """Return flags as a request has them; those that are False are left out."""
    told = {name: "true" if value is True else value for name, value in flags.items()}
    return {name: value for name, value in told.items() if value}
