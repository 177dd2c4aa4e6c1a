"""The catalogs of runbooks, as files beside the worker."""

from __future__ import annotations

import asyncio

from temporalio import activity

from recovery.models import Frozen, Load
from recovery.settings import Settings
from runbooks.library import library


@activity.defn(name="catalog.load")
async def load(order: Load) -> Frozen:
    """Return the runbook that ``order`` asks for, frozen; raises ``Invalid`` naming the field."""
    settings = Settings.from_environment()
    found = library(settings.catalogs, settings.state / "estate.env")
    return await asyncio.to_thread(found.freeze, order.start, order.procedure)
