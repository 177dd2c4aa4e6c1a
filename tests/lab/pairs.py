"""Words with which tests of two sites ask them."""

import json
import subprocess
from collections.abc import Callable
from typing import Any
from urllib import error, request

from lab.estate import Lab
from lab.place import environment, runner
from lab.postgres import Postgres

DIRECT = request.build_opener(request.ProxyHandler({}))


def ask(database: Postgres, query: str) -> str:
    where = ["-h", str(database.place.sockets), "-p", str(database.port), "-U", "postgres"]
    return database.run("psql", *where, "-XAtc", query, "orders").strip()


def replayed(primary: Postgres, standby: Postgres) -> Callable[[], bool]:
    """Return whether a standby has everything that the primary has now."""
    present = ask(primary, "select pg_current_wal_lsn()")
    return lambda: ask(standby, f"select pg_last_wal_replay_lsn() >= '{present}'") == "t"


def on_host(lab: Lab, site: str, *words: str) -> tuple[int, str]:
    """Run a command as a host of the site runs it, and return its exit code and output."""
    place = lab.place.at(site)
    done = subprocess.run(
        words, cwd=place.home, env=environment(place), capture_output=True, text=True, timeout=20, **runner().drop()
    )
    return done.returncode, done.stdout


def http(method: str, url: str, given: object = None) -> tuple[int, Any]:
    """Return status and decoded body; None for a body that is no JSON."""
    data = None if given is None else json.dumps(given).encode()
    asked = request.Request(url, data=data, method=method, headers={"Content-Type": "application/json"})
    try:
        with DIRECT.open(asked, timeout=5) as answer:
            return answer.status, _decoded(answer.read())
    except error.HTTPError as refused:
        with refused:
            return refused.code, _decoded(refused.read())


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
