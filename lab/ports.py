"""Free TCP ports that a lab keeps for as long as it exists."""

import os
import random
import socket
import time
from collections.abc import Iterable

# Below the range from which Linux takes the ports of outgoing connections (32768 and up): a port that
# is ours while its server is down must not be taken by some client meanwhile.
FIRST, LAST = 15000, 30000
ADDRESS = "127.0.0.1"
_given: set[int] = set()
"""Ports that this process has chosen before: who has them may not listen there yet, or just not now."""


def choose(names: Iterable[str], taken: Iterable[int] = ()) -> dict[str, int]:
    """Return a free port for each name, none of those that are taken. Raises OSError when none is found.

    RECOVERY_LAB_PORTS is from where to where they are looked for (15000-30000): processes that choose at the same time
    each need a range of their own.
    """
    first, last = map(int, os.environ.get("RECOVERY_LAB_PORTS", f"{FIRST}-{LAST}").split("-"))
    chosen: dict[str, int] = {}
    used = set(taken) | _given
    for name in names:
        tries = (random.randrange(first, last) for _ in range(500))
        port = next((port for port in tries if port not in used and _free(port)), None)
        if port is None:
            raise OSError(f"no free port between {first} and {last}")
        _given.add(port)
        chosen[name] = port
        used.add(port)
    return chosen


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
        return True


def greeting(port: int, seconds: float) -> bytes:
    """Return the first bytes that the server on a port sends; empty when none came in that time."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((ADDRESS, port), timeout=left) as client:
                return client.recv(64)
        except OSError:
            time.sleep(0.02)
    return b""
