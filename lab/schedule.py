"""When orders are placed, and under which numbers, whoever places them."""

import asyncio
from dataclasses import dataclass

from lab.ledger import Log

PAUSE = 0.2  # seconds between attempts to connect
BEHIND = 1.0  # seconds; a schedule further behind starts anew instead of catching up in a burst


@dataclass
class Load:
    """Writers that share one schedule and one counter."""

    address: str
    rate: float  # orders per second, of all writers together
    mixed: bool
    acknowledged: Log
    refused: Log
    number: int  # the last one used; never used again, even when its order was refused
    due: float = 0.0  # when the next order is, in loop time
    stopping: bool = False

    async def slot(self) -> int:
        """Wait for the next time at which an order is due, and return its number."""
        present = asyncio.get_running_loop().time()
        self.due = max(self.due + 1 / self.rate, present - BEHIND)
        await asyncio.sleep(self.due - present)
        self.number += 1
        return self.number

    async def run(self, writers: int) -> None:
        """Place orders with that many writers until `stopping`."""
        raise NotImplementedError
