"""The fields of an object that a manager owns, as ``managedFields`` tells them: taken out, compared, digested; pure.

A tree is ``fieldsV1``: ``f:`` a member, ``k:`` and ``v:`` an item of a list by its keys or its value, ``i:`` by its
place, ``.`` that a map or list is there, and an empty one that all of it is owned.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from recovery.models import digest

Object = dict[str, Any]
Tree = dict[str, Any]

SHOWN = 8000
"""Characters of the differences of one object that are shown."""
_NOTHING = object()


def entries(live: Object, manager: str, *operations: str) -> list[Object]:
    """Return what is written down of a manager, but for what it wrote through a subresource such as status."""
    found = live.get("metadata", {}).get("managedFields") or ()
    return [
        one
        for one in found
        if one.get("manager") == manager
        and not one.get("subresource")
        and (not operations or one.get("operation") in operations)
    ]


def managers(live: Object) -> list[str]:
    """Return everybody who owns a field of an object, in the order in which they are written down."""
    return list(dict.fromkeys(one.get("manager", "") for one in live.get("metadata", {}).get("managedFields") or ()))


def tree(live: Object, manager: str, *operations: str) -> Tree:
    """Return what a manager owns, by whatever it did: server-side apply, or (client-side apply, edit) update."""
    found: Tree = {}
    for one in entries(live, manager, *operations):
        found = union(found, one.get("fieldsV1") or {})
    if live.get("kind") == "Secret" and "f:stringData" in found:  # written down as it was sent; it is kept as data
        found = union({"f:data": found["f:stringData"]}, found)
    return {step: below for step, below in found.items() if step not in ("f:status", "f:stringData")}


def union(one: Tree, other: Tree) -> Tree:
    """Return what is in either; what one of them owns as a whole stays whole."""
    joined = dict(one)
    for step, below in other.items():
        known = joined.get(step)
        joined[step] = union(known, below) if known and below else {} if step in joined else below
    return joined


def beyond(one: Tree, other: Tree) -> Tree:
    """Return what is in one and not in the other."""
    found = {}
    for step, below in one.items():
        if step not in other or (other[step] and not below):
            found[step] = below
        elif below and other[step] and (rest := beyond(below, other[step])):
            found[step] = rest
    return {} if found.keys() == {"."} else found


def taken(live: Object, owned: Tree) -> Object:
    """Return the part of an object that is in a tree: with its keys, so that it can be applied again."""
    found = _part(live, owned, listed=True) if owned else {}
    return found if isinstance(found, dict) else {}


def body(live: Object, owned: Tree) -> Object:
    """Return what a manager would apply to own a tree, with the values that an object has now."""
    meta = live["metadata"]
    named = {"name": meta["name"], **({"namespace": meta["namespace"]} if "namespace" in meta else {})}
    part = taken(live, owned)
    metadata = {**part.pop("metadata", {}), **named}
    return {**part, "apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": metadata}


def mark(live: Object | None, owned: Tree | None = None, *, manager: str = "") -> str:
    """Return a digest of what a manager owns, "" where there is no object.

    In which order the items of a list that are known by keys stand does not count: the server keeps none.
    """
    if live is None:
        return ""
    owned = tree(live, manager) if owned is None else owned
    part = _part(live, owned, listed=False) if owned else {}
    return digest({} if part is _NOTHING else part)


def _part(value: Any, owned: Tree, *, listed: bool) -> Any:
    steps = {step: below for step, below in owned.items() if step != "."}
    if not steps:  # all of it, or only that it is there
        return value if not owned or not value else _NOTHING
    if isinstance(value, dict):
        return dict(_members(value, steps, listed))
    if not isinstance(value, list):
        return value
    items = _items(value, steps, listed)
    return [part for _, part in items] if listed else dict(items)


def _members(value: Object, steps: Tree, listed: bool) -> Iterator[tuple[str, Any]]:
    for step, below in steps.items():
        name = step[2:]
        if step.startswith("f:") and name in value:
            part = _part(value[name], below, listed=listed)
            if part is not _NOTHING:
                yield name, part


def _items(value: list[Any], steps: Tree, listed: bool) -> Iterator[tuple[str, Any]]:
    for place, item in enumerate(value):
        for step, below in steps.items():
            if _is(step, place, item):
                yield step, _item(step, item, below, listed)
                break


def _is(step: str, place: int, item: Any) -> bool:
    kind, told = step[:2], step[2:]
    if kind == "k:":
        keys = json.loads(told)
        return isinstance(item, dict) and all(item.get(key) == known for key, known in keys.items())
    return (kind == "v:" and json.loads(told) == item) or (kind == "i:" and told == str(place))


def _item(step: str, item: Any, below: Tree, listed: bool) -> Any:
    part = _part(item, below, listed=listed)
    if step.startswith("k:") and (part is _NOTHING or isinstance(part, dict)):
        return json.loads(step[2:]) | ({} if part is _NOTHING else part)
    return item if part is _NOTHING else part


def changes(before: Object, after: Object, name: str, *, hidden: str = "") -> str:
    """Return the differences as a unified diff of YAML; with ``hidden`` only that, and no value."""
    if before == after:
        return ""
    if hidden:
        return f"# {hidden}\n"
    old, new = (yaml.safe_dump(one, sort_keys=True).splitlines() if one else [] for one in (before, after))
    text = "\n".join(difflib.unified_diff(old, new, f"{name} (now)", f"{name} (after)", lineterm="", n=2)) + "\n"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}\n# … and more: {len(text) - SHOWN} characters\n"


def fields(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each field that differs, as ``.spec.replicas``; a list is one field."""
    one, other = ({} if side is _NOTHING else side for side in (before, after))
    if before != after and isinstance(one, Mapping) and isinstance(other, Mapping) and (one or other):
        for name in sorted(one.keys() | other.keys()):
            yield from fields(one.get(name, _NOTHING), other.get(name, _NOTHING), f"{path}.{name}")
    elif before != after:
        yield path
