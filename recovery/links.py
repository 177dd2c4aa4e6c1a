"""Addresses in the Temporal UI."""

from __future__ import annotations

from urllib.parse import quote

from recovery import connection
from recovery.settings import Settings


def ui(settings: Settings) -> str:
    """Return the address of this namespace in the Temporal UI, without a slash at its end."""
    name = "default" if settings.is_embedded() else settings.connection().get("namespace", "default")
    return f"{connection.ui(settings)}/namespaces/{quote(name, safe='')}"


def run_link(settings: Settings, workflow: str, run: str) -> str:
    """Return the address of one run in the Temporal UI."""
    return f"{ui(settings)}/workflows/{quote(workflow, safe='')}/{run}/user-metadata"
