"""Values for everything that a catalog leaves open, made from what it asks for."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbooks.library import PLACEHOLDER, specification
from runbooks.schema import Runbook

ROOT = Path(__file__).resolve().parents[2] / "runbooks"


def values(root: Path = ROOT) -> dict[str, str]:
    """Return a value for every placeholder of the estates under ``root``."""
    names = {n for estate in root.glob("*/estate.yaml") for n in PLACEHOLDER.findall(estate.read_text())}
    return {name: value(name) for name in names}


def value(name: str) -> str:
    """Return what a variable of this name would hold: a port, or else a path, which may be any name, too."""
    return "5432" if re.search(r"PORT(_|$)", name) else f"/srv/{name.lower()}"


def parameters(runbook: Runbook) -> dict[str, Any]:
    """Return what its procedure requires and ``runbook`` does not say."""
    spec = specification(runbook.procedure)
    schema = spec.Parameters.model_json_schema()
    more: dict[str, Any] = {}
    if runbook.parameters.get("how") == "restore":
        more["snapshot"] = f"{value('LAB_NORTH_COPIES')}/lost.rdb"
    if ways := set(getattr(spec, "BY", ())) - set(runbook.parameters):
        more[max(ways)] = _sample(schema["properties"][max(ways)])  # one of several ways has to be named
    return more | {
        name: _sample(schema["properties"][name])
        for name in schema.get("required", ())
        if name not in runbook.parameters
    }


def _sample(schema: dict[str, Any]) -> object:
    if schema.get("format") == "date-time":
        return datetime(2026, 11, 21, 22, tzinfo=UTC).isoformat()
    schema = schema.get("anyOf", [schema])[0]
    return {"string": "x", "integer": 3, "number": 1.0, "boolean": True, "array": [], "object": {}}[schema["type"]]
