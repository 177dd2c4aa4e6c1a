"""Alertmanager's API (v2): asked over HTTP, and what its refusals mean for a recovery."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlsplit

import aiohttp

from recovery.errors import Fatal, Invalid, RecoveryError, Refused, Transient
from recovery.models import Wire
from runbooks.schema import SITE, Alertmanager, Matcher

LIMIT = aiohttp.ClientTimeout(total=4, sock_connect=2)
LOST = (aiohttp.ClientError, TimeoutError, OSError)
MEANING = re.compile(r"([\\.+*?()|\[\]{}^$])")
"""What RE2 does not take for itself."""
Matched = dict[str, str | bool]
"""A matcher as Alertmanager has it: name, value, isRegex, isEqual."""


class AlertmanagerAt(Wire):
    """An Alertmanager: its name in the estate, where it is asked, and the files beside the worker for that."""

    name: str
    url: str
    secret: str = ""
    ca: str = ""

    @classmethod
    def of(cls, name: str, one: Alertmanager) -> Self:
        """Return where an Alertmanager of the estate is asked."""
        return cls(name=name, url=one.url, secret=one.secret or "", ca=one.ca or "")

    @property
    def where(self) -> str:
        """How it is called in a sentence."""
        return f"the Alertmanager {self.name} ({urlsplit(self.url).netloc})"


class Answered(NamedTuple):
    """What was answered, and when that was by the clock of who answered."""

    said: Any
    at: datetime


def matchers(given: Sequence[Matcher], sites: Sequence[str]) -> tuple[Matched, ...]:
    """Return the matchers of an estate as Alertmanager takes them, for a move between ``sites``."""
    return tuple(_matcher(one, "|".join(map(_plain, sites))) for one in given)


def _matcher(one: Matcher, sites: str) -> Matched:
    regex, text = one.regex is not None, one.regex or one.value or ""
    if SITE in text:
        parts = text.split(SITE)
        regex, text = True, f"({sites})".join(parts if regex else map(_plain, parts))
    return {"name": one.name, "value": text, "isRegex": regex, "isEqual": not one.unless}


def _plain(text: str) -> str:
    return MEANING.sub(r"\\\1", text)


def written(one: Matched) -> str:
    """Return a matcher as people write it, and as filters take it."""
    sign = {(False, True): "=", (False, False): "!=", (True, True): "=~", (True, False): "!~"}
    return f"{one['name']}{sign[bool(one['isRegex']), bool(one['isEqual'])]}{json.dumps(one['value'])}"


async def ask(at: AlertmanagerAt, method: str, *path: str, **more: Any) -> Answered:
    """Ask the API. Raises Transient where nobody answers, Refused, Invalid, Fatal."""
    address = "/".join([at.url.rstrip("/"), "api/v2", *(quote(part, safe="") for part in path)])
    headers = _login(at)
    try:
        async with (
            aiohttp.ClientSession(timeout=LIMIT, headers=headers) as session,
            session.request(method, address, allow_redirects=False, ssl=await _trust(at), **more) as answer,
        ):
            text = await answer.text(errors="replace")
    except aiohttp.ClientConnectorCertificateError:
        raise Fatal(
            f"alerting.{at.name}.ca: {at.where} shows a certificate that is not trusted; name who signed it"
        ) from None
    except LOST as error:
        raise Transient(f"{at.where} cannot be reached ({type(error).__name__})") from None
    if answer.status != 200:
        raise _failure(at, answer.status, text)
    return Answered(_parsed(at, text), _time(answer.headers.get("Date", "")))


def _login(at: AlertmanagerAt) -> dict[str, str]:
    """Return the header that logs in, if the estate names a secret: a token, or name:password."""
    if not at.secret:
        return {}
    field = f"alerting.{at.name}.secret"
    try:
        text = Path(at.secret).read_text().strip()
    except (OSError, UnicodeError):
        raise Fatal(f"{field}: {at.secret} cannot be read by this worker; put the secret there") from None
    if not text or not text.isprintable():
        raise Invalid(f"{field}: {at.secret} has to hold one line: a token, or name:password")
    basic = base64.b64encode(text.encode()).decode()
    return {"Authorization": f"Basic {basic}" if ":" in text else f"Bearer {text}"}


async def _trust(at: AlertmanagerAt) -> ssl.SSLContext | bool:
    if not at.ca:
        return True
    try:
        return await asyncio.to_thread(ssl.create_default_context, cafile=at.ca)
    except OSError:
        raise Fatal(f"alerting.{at.name}.ca: {at.ca} holds no certificate that can be read; put it there") from None


def _failure(at: AlertmanagerAt, status: int, text: str) -> RecoveryError:
    said = re.sub(r"\s+", " ", text).strip(' "')[:200]
    if status in (401, 403):
        return Refused(f"{at.where} does not let this worker in ({status}); see alerting.{at.name}.secret")
    if status == 400:
        return Invalid(f"alerting.{at.name}.silence: {at.where} does not take it: {said}")
    if status == 429 or status >= 500:
        return Transient(f"{at.where} answers {status}: {said}")
    return Invalid(f"alerting.{at.name}.url: what is asked there does not answer as an Alertmanager does ({status})")


def _parsed(at: AlertmanagerAt, text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        raise Invalid(f"alerting.{at.name}.url: what is asked there does not answer as an Alertmanager does") from None


def _time(date: str) -> datetime:
    try:
        return parsedate_to_datetime(date).astimezone(UTC)
    except ValueError:
        return datetime.now(UTC)
