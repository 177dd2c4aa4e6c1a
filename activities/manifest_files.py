"""Manifests as they lie in a repository: read, and each fault named by its file and document; pure."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from recovery.models import Wire

Object = dict[str, Any]

ENDINGS = (".yaml", ".yml", ".json")
LARGEST = 3_000_000
"""Bytes of a file; the API server takes no object of more than 1.5 million."""
MANY = 200_000
"""Values in one document, aliases written out; a small text can stand for endlessly many."""
DEEP = 60
OF_ONE_CLUSTER = ("uid", "resourceVersion", "managedFields", "selfLink", "generation", "deletionTimestamp")
DATA = ("PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition")
"""Kinds that hold data, or in whose end others end: never deleted."""
FIRST = (
    "Namespace", "CustomResourceDefinition", "ServiceAccount", "Role", "RoleBinding", "Secret", "ConfigMap",
    "PersistentVolumeClaim", "Service",
)  # fmt: skip
LAST = ("HorizontalPodAutoscaler", "PodDisruptionBudget", "Ingress")


class Ref(Wire):
    """Which object: its version and kind, and where it is."""

    version: str
    kind: str
    namespace: str
    name: str

    @property
    def key(self) -> str:
        """What tells it from any other one: whatever version it is written in, it is the same."""
        group = self.version.rpartition("/")[0]
        return f"{self.namespace}/{self.kind.lower()}{'.' if group else ''}{group}/{self.name}"

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.kind.lower()}/{self.name}"

    @property
    def turn(self) -> int:
        """When it is applied: what others need comes first."""
        return FIRST.index(self.kind) if self.kind in FIRST else len(FIRST) + (self.kind in LAST)


class Manifest(NamedTuple):
    """An object as it is to be, and where that is written."""

    ref: Ref
    body: Object
    place: str


class _Fault(Exception):
    pass


def read(contents: Mapping[str, bytes], namespace: str) -> tuple[dict[str, Manifest], list[str]]:
    """Return the manifests of files by key, and what is wrong with them; ``namespace`` is that of what names none.

    Other files than YAML and JSON are no manifests.
    """
    found: dict[str, Manifest] = {}
    faults: list[str] = []
    for file, content in sorted(contents.items()):
        if not file.lower().endswith(ENDINGS):
            continue
        for one in _manifests(file, content, namespace):
            if isinstance(one, str):
                faults.append(one)
            elif one.ref.key in found:
                faults.append(f"{one.place}: {one.ref.label} is in {found[one.ref.key].place}, too")
            else:
                found[one.ref.key] = one
    return found, faults


def ordered(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return them in the order in which they are applied."""
    return sorted(manifests, key=lambda one: (one.ref.turn, one.ref.key))


def _manifests(file: str, content: bytes, namespace: str) -> Iterator[Manifest | str]:
    try:
        for number, document in enumerate(_documents(file, content), 1):
            yield from _objects(f"{file}, document {number}", document, namespace)
    except _Fault as fault:
        yield f"{file}: {fault}"


def _documents(file: str, content: bytes) -> Iterator[object]:
    if len(content) > LARGEST:
        raise _Fault(f"is larger than {LARGEST} bytes")
    try:
        text = content.decode("utf-8-sig")
        yield from [json.loads(text)] if file.lower().endswith(".json") else yaml.load_all(text, _Loader)
    except UnicodeDecodeError:
        raise _Fault("is no UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise _Fault(f"{line}{error.problem or 'is no YAML'}") from None
    except yaml.YAMLError:
        raise _Fault("is no YAML: it has a character that may not stand there") from None
    except json.JSONDecodeError as error:
        raise _Fault(f"line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise _Fault("is nested too deep") from None
    except ValueError:
        raise _Fault("has a number that none can be read from") from None


class _Loader(yaml.SafeLoader):
    """YAML as the API server's tools read it: a date is text, and a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice: which one counts is left to chance."""
        seen = set()
        for key, _ in node.value:
            told = key.value if isinstance(key, yaml.ScalarNode) else None
            if told is not None and key.tag != "tag:yaml.org,2002:merge" and told in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {told} is there twice", key.start_mark)
            seen.add(told)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _objects(place: str, document: object, namespace: str) -> Iterator[Manifest | str]:
    if document is None:
        return
    try:
        plain = _Plain().of(document, 0)
    except _Fault as fault:
        yield f"{place}: {fault}"
        return
    yield from _each(place, plain, namespace)


def _each(place: str, plain: Any, namespace: str) -> Iterator[Manifest | str]:
    if isinstance(plain, dict) and str(plain.get("kind", "")).endswith("List") and isinstance(plain.get("items"), list):
        for number, item in enumerate(plain["items"], 1):
            yield from _each(f"{place}, item {number}", item, namespace)
        return
    try:
        yield _manifest(place, plain, namespace)
    except _Fault as fault:
        yield f"{place}: {fault}"


def _manifest(place: str, plain: Any, namespace: str) -> Manifest:
    if not isinstance(plain, dict):
        raise _Fault("is no object (a mapping with apiVersion, kind and metadata)")
    version, kind = (_word(plain, name) for name in ("apiVersion", "kind"))
    meta = plain.get("metadata")
    if not isinstance(meta, dict):
        raise _Fault("has no metadata")
    if "generateName" in meta and "name" not in meta:
        raise _Fault("has a generateName: what has another name each time cannot be brought back")
    name = _word(meta, "name", "metadata.")
    if known := [field for field in OF_ONE_CLUSTER if field in meta]:
        raise _Fault(f"has metadata.{known[0]}, which is of one cluster alone: take it out")
    where = _word(meta, "namespace", "metadata.") if meta.get("namespace") is not None else namespace
    body = {field: value for field, value in plain.items() if field != "status"}
    if (version, kind) == ("v1", "Secret"):
        body = _as_data(body)
    # An empty map of them would own whatever others put into it.
    body["metadata"] = {
        field: value for field, value in meta.items() if value or field not in ("labels", "annotations")
    }
    return Manifest(Ref(version=version, kind=kind, namespace=where, name=name), body, place)


def _as_data(secret: Object) -> Object:
    """Return a Secret with its text as data: as text it could not be compared, since a server keeps none."""
    text = secret.pop("stringData", None) or {}
    if not isinstance(text, dict) or not all(isinstance(value, str) for value in text.values()):
        raise _Fault("has a stringData that is no map of texts")
    more = {name: base64.b64encode(value.encode()).decode() for name, value in text.items()}
    return {**secret, "data": {**(secret.get("data") or {}), **more}} if more else secret


def _word(of: Object, name: str, below: str = "") -> str:
    found = of.get(name)
    if not isinstance(found, str) or not found:
        raise _Fault(f"has no {below}{name}")
    if not all(part and part not in (".", "..") for part in found.split("/")) or not found.isprintable():
        raise _Fault(f"{below}{name} is none")
    return found


class _Plain:
    """What a document says as JSON can: keys are text, and nothing is there that JSON has no word for."""

    def __init__(self) -> None:
        self._left = MANY

    def of(self, value: object, depth: int) -> Any:
        """Return a value so. Raises _Fault."""
        self._left -= 1
        if self._left < 0 or depth > DEEP:
            raise _Fault("is too large, or nested too deep")
        if isinstance(value, dict):
            found = {_key(key): self.of(inner, depth + 1) for key, inner in value.items()}
            if len(found) < len(value):
                raise _Fault("has a key that is there twice, as a number and as text")
            return found
        if isinstance(value, list):
            return [self.of(inner, depth + 1) for inner in value]
        if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        raise _Fault(f"has a value that JSON does not know ({type(value).__name__})")


def _key(key: object) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, str | int):
        return str(key)
    raise _Fault("has a key that is no text")
