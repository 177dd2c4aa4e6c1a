"""What an API server's refusals mean: by status, and by what it says of the fields; never with a value of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from temporalio.exceptions import ApplicationError

from recovery.errors import Invalid, RecoveryError, Refused, Transient

OWNER = re.compile(r'conflict with "([^"]*)"')
BUSY = (408, 429, 500, 502, 503, 504)
UNTYPED = re.compile(
    r"(?P<field>\.[^\s:]+): (?P<why>field not declared in schema|duplicate entries for key|expected \w+"
    r"|element \d+: associative list with keys has an element that omits key field \"?\w+)"
    r"|Go struct field (?P<where>\S+) of type (?P<type>[\w.\[\]]+)"
)
UNFIT = (
    "failed to create typed patch",
    "failed to convert new object",
    "unable to decode",
    "error decoding",
    "unmarsh",
)
"""In answers to manifests that do not fit their kind: servers of old say 500 where new ones say 400."""
VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
DENIED = re.compile(r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) (?:resource|path) "(?P<resource>[^"]*)"')
PLACE = re.compile(r"(?:/namespaces/(?P<namespace>[^/?]+))?/(?P<resource>[a-z.]+)(?:/(?P<name>[^/?]+))?(?:\?|$)")


class Missing(Invalid):
    """There is no such object, or no such namespace. Temporal carries it as Invalid."""

    def __init__(self, message: str) -> None:
        """Say which."""
        ApplicationError.__init__(self, message, type=Invalid.__name__, non_retryable=True)


class Denied(Refused):
    """This worker may not do that. Temporal carries it as Refused."""

    def __init__(self, message: str) -> None:
        """Say what, and where."""
        ApplicationError.__init__(self, message, type=Refused.__name__, non_retryable=True)


class Owned(NamedTuple):
    """A field that another manager owns."""

    field: str
    manager: str


class Guarded(Transient):
    """A PodDisruptionBudget does not let a pod go now. Temporal carries it as Transient."""

    def __init__(self, message: str) -> None:
        """Say which."""
        ApplicationError.__init__(self, message, type=Transient.__name__)


class Conflict(Transient):
    """The object has changed since it was read; or, with ``owned``, others own what was to be written.

    Temporal carries it as Transient.
    """

    def __init__(self, message: str, owned: tuple[Owned, ...] = ()) -> None:
        """Say what, and whose it is."""
        ApplicationError.__init__(self, message, type=Transient.__name__)
        self.owned = owned


def of(cluster: str, method: str, path: str, status: int, told: Mapping[str, Any]) -> RecoveryError:
    """Return what an answer with a ``status`` of 300 or above means; ``told`` is its body, if that is a Status."""
    said, where = str(told.get("message", "")), f"{cluster}: {_object(path)}"
    if status == 409:
        return _conflict(where, told)
    if status == 404:
        return Missing(f"{where}: {_shown(said)}" if "namespaces" in said else f"{where} is not there")
    if status in (401, 403):
        return _denied(cluster, method, path, status, told)
    if status in (400, 422) or any(word in said for word in UNFIT):
        return Invalid(f"{where}: {_faults(told, said)}")
    if status == 429 and "DisruptionBudget" in _reasons(told):
        return Guarded(f"{cluster}: a PodDisruptionBudget does not let a pod go now")
    if status in BUSY:
        return Transient(f"the API server of {cluster} answers {status} to {VERBS.get(method, method)} {_object(path)}")
    return Refused(f"{where}: the API server answers {status}")


def _conflict(where: str, told: Mapping[str, Any]) -> Conflict:
    causes = (told.get("details") or {}).get("causes") or ()
    owned = tuple(
        Owned(str(cause.get("field", "")), found[1])
        for cause in causes
        if (found := OWNER.search(str(cause.get("message", ""))))
    )
    if owned:
        return Conflict(f"{where}: {', '.join(f'{one.field} is owned by {one.manager}' for one in owned)}", owned)
    if told.get("reason") == "AlreadyExists":
        return Conflict(f"{where} is there already")
    return Conflict(f"{where} has changed since it was read")


def _reasons(told: Mapping[str, Any]) -> list[str]:
    return [str(cause.get("reason", "")) for cause in (told.get("details") or {}).get("causes") or ()]


def _denied(cluster: str, method: str, path: str, status: int, told: Mapping[str, Any]) -> Refused:
    said = str(told.get("message", ""))
    if status == 401:
        return Refused(f"{cluster} does not know who this worker is: see user in its kubeconfig, the token may be over")
    known, found = DENIED.search(said), PLACE.search(path)
    verb = known["verb"] if known else VERBS.get(method, method)
    resource = known["resource"] if known else found["resource"] if found else path
    namespace = found["namespace"] if found and found["namespace"] else ""
    place = f"in namespace {namespace}" if namespace else "in the cluster"
    if "NamespaceTerminating" in _reasons(told):
        return Refused(f"{cluster}: namespace {namespace} is being deleted; wait for its end, then have it made anew")
    if not known and said:  # a quota, or a webhook: what it says is for people, and may hold values
        return Refused(
            f"{cluster} forbids {verb} of {resource} {place} by a policy; see its admission rules and quotas"
        )
    user = f"user {known['user']}" if known else "this worker"
    return Denied(f"{cluster}: {user} may not {verb} {resource} {place}; see its roles (RBAC)")


def _faults(told: Mapping[str, Any], said: str) -> str:
    causes = (told.get("details") or {}).get("causes") or ()
    rows = [f"{cause.get('field', 'object')}: {_shown(str(cause.get('message', '')))}" for cause in causes]
    for found in UNTYPED.finditer(said):
        rows.append(
            f"{found['field']}: {found['why']}" if found["field"] else f"{found['where']}: is no {found['type']}"
        )
    return "; ".join(dict.fromkeys(rows)) or "it does not fit its kind; try it with kubectl apply --dry-run=server"


def _shown(said: str) -> str:
    """Return what is said of a field, without its value."""
    kind, _, rest = said.partition(": ")
    if kind == "Invalid value":
        told = rest.rpartition(": ")[2]
        return f"invalid: {told}" if ": " in rest and len(told) < 200 else "invalid"
    return kind[0].lower() + kind[1:] if kind else "invalid"


def _object(path: str) -> str:
    found = PLACE.search(path)
    if not found:
        return path.partition("?")[0]
    return f"{found['resource']}/{found['name']}" if found["name"] else found["resource"]
