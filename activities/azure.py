"""Azure Resource Manager: asked through Azure's own packages, and what its refusals mean for a recovery.

Who logs in is left to azure-identity on the worker: environment, workload identity, managed identity, the az command
line. No package of Azure's is imported before something is asked: they take a second, and most workers never need them.
What is asked is sent once. The packages would send a POST again after some errors that may come after its effect.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiohttp import ClientConnectorError, ClientSession, ConnectionTimeoutError, DummyCookieJar, TCPConnector
from temporalio import activity

from recovery.errors import Invalid, RecoveryError, Refused, Transient
from recovery.models import Wire
from runbooks.schema import Azure

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
    from azure.identity.aio import DefaultAzureCredential
    from azure.mgmt.compute.aio import ComputeManagementClient
    from azure.mgmt.trafficmanager.aio import TrafficManagerManagementClient

PACKAGES = ("azure.core", "azure.identity.aio", "azure.mgmt.compute.aio", "azure.mgmt.trafficmanager.aio")
CONNECT_SECONDS, ANSWER_SECONDS = 10, 20
"""Together what a look may take: a connection that is half open is given up, and told of, by who has found it."""
POLL_SECONDS = 5
"""Between two looks at a long operation, where Azure does not say itself how long."""
SPARE = 5.0
"""Seconds of an attempt in which it is told what it waited for."""
NO_ROOM = {
    "AllocationFailed", "ZonalAllocationFailed", "OverconstrainedAllocationRequest",
    "OverconstrainedZonalAllocationRequest", "SkuNotAvailable", "QuotaExceeded", "CapacityReservationFull",
}  # fmt: skip
"""Codes of which Azure says: try another size, or another zone, or later."""
WHERE = {
    "SubscriptionNotFound": "subscription", "InvalidSubscriptionId": "subscription",
    "ResourceGroupNotFound": "resource_group", "InvalidResourceGroup": "resource_group",
}  # fmt: skip
"""The field of the estate that is wrong, by the code of a 404; else it is the name of the resource."""

R = TypeVar("R")


class AzureAt(Wire):
    """Where something is in Azure, and how Resource Manager is asked for it."""

    subscription: str
    resource_group: str
    endpoint: str = "https://management.azure.com"
    ca: str | None = None

    @classmethod
    def of(cls, found: Azure, **more: Any) -> Self:
        """Return where something of the estate is."""
        return cls.model_validate(found.model_dump() | more)

    @property
    def login(self) -> tuple[str, str, str | None]:
        """What one kept client serves."""
        return self.subscription, self.endpoint, self.ca


class NoRoom(Exception):
    """Azure has no capacity for what was asked, or grants none; ``code`` is its own word for that."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class OperationFailed(Exception):
    """A long operation has come to its end, and failed: ``code`` and ``said`` are Azure's own words."""

    def __init__(self, code: str, said: str) -> None:
        super().__init__(f"{code}: {said}")
        self.code, self.said = code, said


class Login:
    """Who asks: what azure-identity finds on this worker, found anew once a token was refused."""

    def __init__(self) -> None:
        self._found: DefaultAzureCredential | None = None

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Return a token, one that is kept while it is valid."""
        return await self._credential().get_token_info(*scopes, options=options)

    async def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        """Return a token as older packages ask for it."""
        return await self._credential().get_token(*scopes, **more)

    def _credential(self) -> DefaultAzureCredential:
        from azure.identity.aio import DefaultAzureCredential

        if self._found is None:
            self._found = DefaultAzureCredential()
        return self._found

    async def renew(self) -> None:
        """Forget every token."""
        found, self._found = self._found, None
        if found is not None:
            await found.close()

    async def close(self) -> None:
        """Close it, as who asks expects of it."""
        await self.renew()

    async def __aenter__(self) -> Self:
        """Have it closed afterwards."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close it."""
        await self.renew()


@dataclass
class Session:
    """The clients of one subscription."""

    login: Login
    compute: ComputeManagementClient
    traffic: TrafficManagerManagementClient

    async def close(self) -> None:
        """Close every connection."""
        await self.compute.close()
        await self.traffic.close()
        await self.login.close()


_kept: dict[tuple[asyncio.AbstractEventLoop, tuple[str, str, str | None]], Session] = {}


async def close() -> None:
    """Close every kept client of this event loop."""
    loop = asyncio.get_running_loop()
    for key in [key for key in _kept if key[0] is loop]:
        await _kept.pop(key).close()


async def asked(at: AzureAt, what: str, call: Callable[[Session], Awaitable[R]]) -> R:
    """Ask for ``what`` ("machines.orders.name" is the field that names it) by ``call``, and return its answer.

    A token that has expired is renewed once. Being told to come back later is heeded: here while this attempt has the
    time, else by the next one. Raises NoRoom, OperationFailed, Transient, Refused, Invalid.
    """
    await asyncio.to_thread(_imported)
    from azure.core.exceptions import AzureError

    session, renewed = _session(at, what), False
    while True:
        try:
            return await call(session)
        except AzureError as error:
            status, code, said, wait = _said(error)
            if status == 401 and not renewed:
                await session.login.renew()
                renewed = True
            elif status == 429 and wait < left():
                await asyncio.sleep(wait)
            elif no_room(code, said):
                raise NoRoom(code) from None
            elif status == 200:
                raise OperationFailed(code, said) from None
            else:
                raise _failure(at, what, error, status, code, said, wait) from None


def left() -> float:
    """Return how many seconds this attempt may still wait; infinite where nobody limits it."""
    info = activity.info() if activity.in_activity() else None
    if info is None or info.start_to_close_timeout is None or info.heartbeat_timeout is None:
        return math.inf
    return (info.started_time + info.start_to_close_timeout - datetime.now(UTC)).total_seconds() - SPARE


def _imported() -> None:
    for name in PACKAGES:
        importlib.import_module(name)


def _session(at: AzureAt, what: str) -> Session:
    key = (asyncio.get_running_loop(), at.login)
    if key not in _kept:
        try:
            _kept[key] = _opened(at)
        except OSError:
            field = f"{what.rpartition('.')[0]}.ca"
            raise Invalid(f"{field}: the file {at.ca} beside the worker cannot be read as a certificate") from None
    return _kept[key]


def _opened(at: AzureAt) -> Session:
    from azure.core.pipeline.policies import AsyncRetryPolicy
    from azure.core.pipeline.transport import AioHttpTransport
    from azure.mgmt.compute.aio import ComputeManagementClient
    from azure.mgmt.trafficmanager.aio import TrafficManagerManagementClient

    # Given the file, the packages would trust it anew with each request, and open another connection for it.
    connector = TCPConnector(ssl=ssl.create_default_context(cafile=at.ca))  # raises OSError
    session = ClientSession(connector=connector, trust_env=True, cookie_jar=DummyCookieJar(), auto_decompress=False)
    # Given to the clients, these would not reach a transport of one's own: it would wait for five minutes.
    transport = AioHttpTransport(session=session, connection_timeout=CONNECT_SECONDS, read_timeout=ANSWER_SECONDS)
    login, endpoint = Login(), at.endpoint.rstrip("/")
    options: dict[str, Any] = {
        "base_url": endpoint, "credential_scopes": [f"{endpoint}/.default"], "polling_interval": POLL_SECONDS,
        "retry_policy": AsyncRetryPolicy.no_retries(), "transport": transport,
    }  # fmt: skip
    compute = ComputeManagementClient(login, at.subscription, **options)
    return Session(login, compute, TrafficManagerManagementClient(login, at.subscription, **options))


def _said(error: Exception) -> tuple[int, str, str, float]:
    """Return status, code and message of an answer, and when to come back; 0 and "" where there was none."""
    response = getattr(error, "response", None)
    if response is None:
        return 0, "", "", 0.0
    try:
        found = json.loads(response.text())["error"]
        code, said = _inmost(found), str(found["message"])
    except (ValueError, KeyError, TypeError):
        code, said = "", ""
    return response.status_code, code, " ".join(said.split())[:300], _wait(response.headers.get("Retry-After", ""))


def _inmost(found: dict[str, Any]) -> str:
    """Return the code of an error, or of one of its details where that is what there is no room for."""
    codes = [_inmost(one) for one in found.get("details") or ()]
    return next((code for code in codes if code in NO_ROOM), str(found["code"]))


def _wait(header: str) -> float:
    try:
        return max(float(header), 0.1)
    except ValueError:
        return 10.0  # a date, or nothing: ARM's own limits are counted in shorter times than that


def no_room(code: str, said: str = "") -> bool:
    """Tell whether Azure says that there is no room, or grants none."""
    return code in NO_ROOM or (code == "OperationNotAllowed" and "quota" in said.lower())


def _failure(at: AzureAt, what: str, error: Exception, status: int, code: str, said: str, wait: float) -> RecoveryError:
    from azure.core.exceptions import ClientAuthenticationError

    parent = what.rpartition(".")[0]
    short = f"{status} {code}: {said}" if said else f"{status} {code}".strip()
    if isinstance(error, ClientAuthenticationError) or status == 401:
        return _not_let_in(at, parent, short if status else "")
    if status == 0:
        return _not_heard(at, parent, error)
    if status == 403:
        return Refused(
            f"{what}: Azure does not let the identity of this worker do that ({short}); give it a role there, such as"
            " Virtual Machine Contributor or Traffic Manager Contributor"
        )
    if status == 404:
        field = f"{parent}.{WHERE[code]}" if code in WHERE else what
        return Invalid(f"{field}: Azure has none of this name ({short}); see the portal, or the estate")
    if status == 429:
        again = timedelta(seconds=wait)
        return Transient(f"{what}: Azure throttles, and asks to wait {wait:g} s ({short})", after=again)
    if status in (409, 412) or status >= 500 or status == 408:
        return Transient(f"{what}: Azure cannot do that now ({short})")
    return Invalid(f"{what}: Azure does not take this ({short})")


def _not_let_in(at: AzureAt, parent: str, short: str) -> RecoveryError:
    if short:
        return Refused(
            f"{parent}.subscription: Azure does not take the token of this worker ({short}), nor a new one; see that"
            " its identity belongs to the subscription's tenant, and its clock is right"
        )
    if os.environ.get("IDENTITY_ENDPOINT") or os.environ.get("MSI_ENDPOINT"):
        return Transient(
            f"{parent}: who gives out tokens for this worker's identity (IDENTITY_ENDPOINT) does not do so now"
        )
    return Refused(
        f"{parent}: azure-identity finds nobody on this worker to log in as; give it a managed or workload identity, or"
        " set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET in its environment"
    )


def _not_heard(at: AzureAt, parent: str, error: Exception) -> RecoveryError:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Refused(
            f"{parent}.ca: the certificate of {at.endpoint} is not signed by whom this worker trusts; nothing was sent."
            " Find out why, or name the file that has its signer"
        )
    cause = getattr(error, "inner_exception", None) or error
    # Azure's packages say of a connection that was cut after the request, too, that it was not sent.
    how = (
        "cannot be reached"
        if isinstance(cause, ClientConnectorError | ConnectionTimeoutError)
        else "was asked, and its answer was lost"
    )
    return Transient(f"{parent}.endpoint: {at.endpoint} {how} ({type(cause).__name__})")
