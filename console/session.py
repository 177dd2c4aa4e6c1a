"""What a command works with: settings, catalogs, Temporal, and the addresses of its UI."""

from __future__ import annotations

import os
import pwd
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from temporalio.client import Client

    from recovery.settings import Settings
    from runbooks.library import Library

T = TypeVar("T")
PATIENCE = 10.0
"""Seconds to wait for an address that neither answers nor refuses."""


def settings() -> Settings:
    """Return the settings of this installation."""
    from recovery.settings import Settings

    return Settings.from_environment()


def library(settings: Settings) -> Library:
    """Return the catalogs of this installation."""
    from runbooks.library import library

    return library(settings.catalogs, settings.state / "estate.env")


def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end; asyncio is loaded only by commands that need it."""
    import asyncio

    return asyncio.run(work)


async def connect(settings: Settings) -> Client:
    """Return a client; raises NotReachable when Temporal does not answer in time."""
    import asyncio

    from recovery.connection import NotReachable, connect

    limit = PATIENCE if not settings.is_embedded() else None  # the embedded server has a deadline of its own
    try:
        async with asyncio.timeout(limit):
            return await connect(settings)
    except TimeoutError:
        where = settings.connection().get("target_host")
        raise NotReachable(f"Temporal does not answer at {where} within {PATIENCE:.0f} s; check the address") from None


def user() -> str:
    """Return who runs this command: RECOVERY_USER, else the login of the process (claimed, not proven)."""
    if named := os.environ.get("RECOVERY_USER"):
        return named
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container without an entry for this user
        return str(os.getuid())


def ui(settings: Settings) -> str:
    """Return the address of this namespace in the Temporal UI, without a slash at its end."""
    from recovery.links import ui

    return ui(settings)


def run_link(settings: Settings, workflow: str, run: str) -> str:
    """Return the address of one run in the Temporal UI."""
    from recovery.links import run_link

    return run_link(settings, workflow, run)
