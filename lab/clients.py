"""Customers who order over HTTP, through the traffic director: what `python -m lab.load --through URL` runs.

An order counts as acknowledged only when the answer says that it was committed. Whatever leaves that open (no answer,
a lost connection, a director that lost its upstream) is `unknown`, and its number is never used again.
"""

import asyncio
import json
import random
from dataclasses import dataclass

import aiohttp

from lab.ledger import UNKNOWN, now
from lab.schedule import PAUSE, Load

SECONDS = 5.0  # after which a customer gives up
NEVER_LEFT = "dial tcp"  # what the director says when it could not connect to the site


@dataclass
class Clients(Load):
    """Writers that share one schedule and one counter, and order over HTTP."""

    async def run(self, writers: int) -> None:
        """Place orders with that many writers until `stopping`."""
        self.due = asyncio.get_running_loop().time()
        limits = aiohttp.ClientTimeout(total=SECONDS)
        async with aiohttp.ClientSession(timeout=limits) as session:
            await asyncio.gather(*(self._order(session) for _ in range(writers)))

    async def _order(self, session: aiohttp.ClientSession) -> None:
        while not self.stopping:
            number, sent, error = await self.slot(), now(), UNKNOWN
            try:
                error = await self._post(session, number)
            finally:  # also when it is ended in the middle
                if error:
                    self.refused.add(number=number, at=now(), error=error)
            if not error:
                self.acknowledged.add(number=number, sent_at=sent, acknowledged_at=now())
            elif error == "ClientConnectorError":
                await asyncio.sleep(PAUSE)

    async def _post(self, session: aiohttp.ClientSession, number: int) -> str:
        """Place one order; return why it was not acknowledged, or nothing."""
        amount = random.randrange(100, 100_000) / 100
        order = {"number": number, "customer": f"customer {random.randrange(1, 201)}", "amount": amount}
        try:
            async with session.post(f"{self.address}/orders", json=order) as answer:
                told = await answer.read()
        except aiohttp.ClientConnectorError as error:
            return type(error).__name__  # no connection, so nothing was sent
        except (aiohttp.ClientError, TimeoutError):
            return UNKNOWN
        return _verdict(answer.status, answer.headers.get("X-Director"), told)


def _verdict(status: int, director: str | None, told: bytes) -> str:
    """Return why an answer is no acknowledgement; nothing when it is one."""
    if status in (200, 201):
        return ""
    if director is not None:
        return str(status) if NEVER_LEFT in director else UNKNOWN
    try:
        return str(json.loads(told)["error"])
    except (ValueError, LookupError, TypeError):
        return str(status) if status == 503 else UNKNOWN
