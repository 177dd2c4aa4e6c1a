"""What clients get: real requests, sent from wherever the worker is, so that each site is a vantage of its own."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta
from typing import ClassVar
from urllib.parse import urlsplit

import aiohttp
from pydantic import Field

from recovery.actions import Probe, Spec
from recovery.errors import Invalid
from recovery.models import Wire

AT_ONCE = 8
"""Requests that are under way at a time."""
KINDS = 5
"""How many different things a header may say before the rest is left out."""


class Request(Spec):
    """Send ``count`` requests for ``path`` at ``url``, each with ``seconds`` to be answered.

    ``header`` is one by which an answer tells who gave it, such as the site.
    """

    url: str
    path: str = "/"
    count: int = Field(default=10, ge=1, le=500)
    seconds: float = 5
    header: str = ""


class Served(Wire):
    """How many requests were answered with which status, how many were not and why, by whom, and the slowest.

    ``slowest`` is in seconds, of those that were answered.
    """

    statuses: dict[str, int] = {}
    unanswered: dict[str, int] = {}
    by: dict[str, int] = {}
    slowest: float = 0


class Serves(Probe[Request, Served]):
    """Send real requests; one that is not answered is what was found out, and no failure."""

    name = "director.serves"
    limit = timedelta(minutes=6)
    patience = timedelta(minutes=12)
    skip: ClassVar[str] = "it is not known what clients get"

    def title(self, spec: Request) -> str:
        """Say what is asked for."""
        return f"ask {spec.system} for {spec.path}"

    async def observe(self, spec: Request) -> Served:
        """Send them, a few at a time, over a new connection each, as new clients would."""
        at = urlsplit(spec.url)
        if at.scheme not in ("http", "https") or not at.netloc:
            raise Invalid(f"url: {spec.system} needs an address such as http://127.0.0.1:8080")
        turns = asyncio.Semaphore(AT_ONCE)
        limit = aiohttp.ClientTimeout(total=spec.seconds)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:
            return summed(await asyncio.gather(*(_sent(session, turns, spec) for _ in range(spec.count))))


serves = Serves()


class Answer(Wire):
    """One answer, or why there was none."""

    status: str = ""
    failed: str = ""
    by: str = ""
    seconds: float = 0


def summed(answers: list[Answer]) -> Served:
    """Return what many answers say together."""
    by = Counter(answer.by for answer in answers if answer.by)
    return Served(
        statuses=dict(Counter(answer.status for answer in answers if answer.status)),
        unanswered=dict(Counter(answer.failed for answer in answers if answer.failed)),
        by=dict(by.most_common(KINDS)),
        slowest=max((round(answer.seconds, 3) for answer in answers if answer.status), default=0),
    )


async def _sent(session: aiohttp.ClientSession, turns: asyncio.Semaphore, spec: Request) -> Answer:
    async with turns:
        began = time.monotonic()
        try:
            address = spec.url.rstrip("/") + spec.path
            async with session.get(address, allow_redirects=False) as answer:
                await answer.read()
        except aiohttp.InvalidURL:
            raise Invalid(f"url: {spec.system} needs an address such as http://127.0.0.1:8080") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Answer(failed=_why(error))
        by = answer.headers.get(spec.header, "")[:60] if spec.header else ""
        return Answer(status=str(answer.status), by=by, seconds=time.monotonic() - began)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "not in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "certificate not trusted"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "name not found"
    return "not connected" if isinstance(error, aiohttp.ClientConnectorError) else "cut off"
