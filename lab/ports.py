"""Free TCP ports that a lab keeps for as long as it exists."""

import random
import socket
import time
from collections.abc import Iterable

# Below the range from which Linux takes the ports of outgoing connections (32768 and up): a port that
# is ours while its server is down must not be taken by some client meanwhile.
FIRST, LAST = 15000, 30000
ADDRESS = "127.0.0.1"


def choose(names: Iterable[str], taken: Iterable[int] = ()) -> dict[str, int]:
    """Return a free port for each name, none of those that are taken. Raises OSError when none is found."""
    chosen: dict[str, int] = {}
    used = set(taken)
    for name in names:
        tries = (random.randrange(FIRST, LAST) for _ in range(200))
        port = next((port for port in tries if port not in used and _free(port)), None)
        if port is None:
            raise OSError(f"no free port between {FIRST} and {LAST}")
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
