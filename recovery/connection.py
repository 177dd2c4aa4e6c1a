"""Connect to Temporal: the configured one, or the embedded default."""

from __future__ import annotations

import os

from temporalio.client import Client
from temporalio.service import RPCError

from recovery.embedded import Endpoint, ensure, status
from recovery.plugin import plugin
from recovery.settings import Settings
from recovery.telemetry import plugins


class NotReachable(Exception):
    """Temporal does not answer; the sentence says where it was looked for and what to do."""


async def connect(settings: Settings, endpoint: Endpoint | None = None) -> Client:
    """Return a client; the embedded server is started when none is configured and none runs.

    Raises ``NotReachable`` with what to do.
    """
    arguments = dict(settings.connection()) if not settings.is_embedded() else {}
    if settings.is_embedded():
        endpoint = endpoint or await ensure(settings)
        arguments = {"target_host": endpoint.address}
    try:
        return await Client.connect(**arguments, plugins=[plugin(), *plugins()])  # type: ignore[arg-type]
    except (RuntimeError, RPCError):
        where = arguments.get("target_host")
        raise NotReachable(f"Temporal does not answer at {where}; start it, or correct TEMPORAL_ADDRESS") from None


def ui(settings: Settings) -> str:
    """Return the address of the Temporal UI, without a slash at its end."""
    if not settings.is_embedded():
        return os.environ.get("RECOVERY_TEMPORAL_UI", "http://127.0.0.1:8080").rstrip("/")
    found = status(settings)
    return found.endpoint.ui if found.endpoint else "http://127.0.0.1:8233"
