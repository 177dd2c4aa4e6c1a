"""Caddy's admin API: asked over HTTP, and what its refusals mean for a recovery."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from recovery.actions import Spec
from recovery.errors import Invalid, RecoveryError, Refused, Transient

LIMIT = aiohttp.ClientTimeout(total=10, sock_connect=5)
LOST = (aiohttp.ClientError, TimeoutError, OSError)


class AdminSpec(Spec):
    """A system with an admin API, and the address of that."""

    admin: str


class Changed(Exception):
    """Somebody has changed the configuration since it was read."""


async def ask(spec: AdminSpec, method: str, *path: str, **more: Any) -> tuple[Any, str]:
    """Ask the admin API; return its answer and the ETag of that. Raises Changed if an If-Match does not hold."""
    address, where = _address(spec, *path)
    try:
        async with (
            aiohttp.ClientSession(timeout=LIMIT) as session,
            session.request(method, address, allow_redirects=False, **more) as answer,
        ):
            text = await answer.text(errors="replace")
    except aiohttp.InvalidURL:
        raise _unusable(spec) from None
    except LOST as error:
        how = type(error).__name__
        raise Transient(f"{where} cannot be reached ({how}); does Caddy run, and may this worker go there?") from None
    if answer.status != 200:
        raise _failure(where, answer.status, text)
    return _parsed(where, text), answer.headers.get("ETag", "")


def _address(spec: AdminSpec, *path: str) -> tuple[str, str]:
    """Return the address of a part of the admin API, and how it is called: without who logs in there."""
    try:
        at = urlsplit(spec.admin)
        where = f"the admin API of {spec.system} ({at.hostname}:{at.port or at.scheme})"
    except ValueError:
        raise _unusable(spec) from None
    if at.scheme not in ("http", "https") or not at.hostname:
        raise _unusable(spec)
    return "/".join([spec.admin.rstrip("/"), *(quote(part, safe="") for part in path)]), where


def _unusable(spec: AdminSpec) -> RecoveryError:
    return Invalid(f"admin: {spec.system} needs an address such as http://127.0.0.1:2019")


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        raise _strange(where) from None


def _failure(where: str, status: int, text: str) -> Exception:
    if status == 412:
        return Changed()
    said = _said(text)
    short = f"{status} ({said})" if said else str(status)
    if status in (401, 403):
        return Refused(f"{where} does not let this worker in: {short}; see admin.origins in its configuration")
    if status in (400, 404) and said:
        return Invalid(f"server: {where} has no such part: {short}")
    if said:
        return Refused(f"{where} did not take the change: {short}")
    return Transient(f"{where} answers {status}") if status in (429, 502, 503, 504) else _strange(where)


def _said(text: str) -> str:
    """Return what Caddy says of an error: shortened, and without passwords in addresses."""
    try:
        said = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return ""
    return re.sub(r"//[^/@\s]*@", "//", said)[:200] if isinstance(said, str) else ""


def _strange(where: str) -> RecoveryError:
    return Invalid(f"admin: {where} does not answer as Caddy's does")
