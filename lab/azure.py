"""A small Azure Resource Manager of the lab's own: virtual machines and Traffic Manager profiles over HTTPS.

No emulator of Azure serves these. This one speaks what `azure-mgmt-compute` and `azure-mgmt-trafficmanager` ask for:

- virtual machines: GET (with `$expand=instanceView`) and instanceView; PATCH of tags (all of them, as ARM has it) and
  of the size, with If-Match; POST start, deallocate, powerOff. Whatever is written or begun is a long operation: its
  answer has `Azure-AsyncOperation`, `Location` and `Retry-After`, its end is seen at either; a failed one has a code
  and leaves it in the instance view. A second operation on a machine meanwhile is 409;
- Traffic Manager: GET and PATCH of a profile (tags, status), GET and PATCH of an endpoint (status, weight), and what
  the profile's monitor says of each, as a test sets it. No ETag: the real API has none either;
- quotas: the list of what is used and granted in a region, by family and in all, and the list of sizes, in pages. Every
  machine counts, deallocated or not, as the documentation has it; a start or a size beyond what is granted is refused
  (409 OperationNotAllowed);
- 400 without api-version, 401 without a token that was given out here and has not expired, 404 with the codes of ARM,
  429 with Retry-After, paths in any case. Tokens are given out over HTTP as App Service does for a managed identity
  (`IDENTITY_ENDPOINT`, `IDENTITY_HEADER`).

Told so, it throttles, has no room for a size, fails an operation, revokes tokens, loses requests or answers, is slow,
and stops; what it has lives on in this process until it is started again, on the ports that it had, and operations
come to their end meanwhile. Every request is written down.

It does not cover: making and deleting, disks, networks, scale sets, roles (every token may do all), other
api-versions' differences, delays until a change is seen (it is seen at once), DNS answers of a profile, and Entra ID.
Names, codes and states are as the documentation has them; it was never compared with Azure itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import re
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab import ports
from lab.azure_resources import LOCATION, REGIONAL, SIZES, Machine, Operation, Profile, Sku

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
GROUP = "lab"
RESTS = {"start": "running", "deallocate": "deallocated", "powerOff": "stopped"}
MOVES = {"start": "starting", "deallocate": "deallocating", "powerOff": "stopping"}
RESOURCE = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<group>[^/]+)/providers/"
    r"(?P<type>microsoft\.compute/virtualmachines|microsoft\.network/trafficmanagerprofiles)/(?P<name>[^/]+)(?P<rest>/.*)?"
)
COMPUTE = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/providers/microsoft\.compute/(locations/(?P<location>[^/]+)/usages|skus)"
)
GRANTED = 100
"""vCPUs of each family, and in all, where a test says nothing else."""
SHOWN = 2
"""Sizes in each page of their list."""
OPERATION = re.compile(r"/subscriptions/[^/]+/providers/microsoft\.compute/locations/[^/]+/operations/(?P<id>[^/]+)")


@dataclass
class Asked:
    """A request as it came, and with what it was carried out, or refused; 0 as long as it was not."""

    method: str
    path: str
    client: int
    """The port that it came from, another one for each connection."""
    status: int = 0


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error": {"code": code, "message": message}}
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Strike:
    """What happens once to a request whose method and path end so, ``before`` it is carried out or ``after`` that.

    ``call`` returns whether the connection is cut then, without an answer; it may raise what is answered.
    """

    method: str
    end: str
    when: str
    call: Callable[[], Awaitable[bool]]
    skip: int = 0


class Arm:
    """The server. Its ``folder`` has the certificate that clients have to trust (``ca``); it is made once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, ports.choose(["arm", "identity"])
        self.ca, self._key = folder / "arm.pem", folder / "arm.key"
        self.secret = secrets.token_hex(16)
        self.machines: dict[str, Machine] = {}
        self.profiles: dict[str, Profile] = {}
        self.operations: dict[str, Operation] = {}
        self.tokens: dict[str, float] = {}
        self.requests: list[Asked] = []
        self.strikes: list[Strike] = []
        self.full: set[str] = set()
        """Sizes, each alone or with a zone ("1/Standard_D2s_v5"), for which there is no room."""
        self.sizes: dict[str, Sku] = dict(SIZES)
        self.granted: dict[str, int] = {}
        """vCPUs by family, or in all ("cores")."""
        self.others: dict[str, int] = {}
        """vCPUs by family that others in the subscription use."""
        self.fails: list[str] = []
        """Codes with which the next operations end."""
        self.seconds, self.token_seconds = 0.05, 3600.0
        self.retry_after: Mapping[str, str] = {"x-ms-retry-after-ms": "50"}
        """When to ask for an operation again; real ARM says Retry-After in whole seconds."""
        self._throttled: list[float] = []
        self._runners: list[web.AppRunner] = []
        self._ending: set[asyncio.Task[None]] = set()
        if not self.ca.exists():
            self._certify()

    @property
    def endpoint(self) -> str:
        """Where it is asked."""
        return f"https://{ports.ADDRESS}:{self.ports['arm']}"

    @property
    def environment(self) -> dict[str, str]:
        """What azure-identity needs to get a token here."""
        where = f"http://{ports.ADDRESS}:{self.ports['identity']}/token"
        named = {"AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential"}  # nothing else of this machine is tried
        return {"IDENTITY_ENDPOINT": where, "IDENTITY_HEADER": self.secret, **named}

    async def start(self) -> None:
        """Listen, on the same ports each time."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.ca, self._key)
        for name, handler, secure in (("arm", self._answer, context), ("identity", self._identify, None)):
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, ports.ADDRESS, self.ports[name], ssl_context=secure, reuse_address=True).start()
            self._runners.append(runner)

    async def stop(self) -> None:
        """Listen no more; operations go on."""
        while self._runners:
            await self._runners.pop().cleanup()

    async def close(self) -> None:
        """Stop, and end what is under way."""
        await self.stop()
        for task in self._ending:
            task.cancel()

    def throttle(self, times: int, seconds: float) -> None:
        """Answer the next requests with 429, and to come back after so many seconds."""
        self._throttled = [seconds] * times

    def revoke(self) -> None:
        """Let every token that was given out have expired."""
        self.tokens.clear()

    def count(self, method: str, end: str = "") -> int:
        """Return how many requests there were that were carried out: neither throttled nor refused."""
        end = end.lower()
        return sum(one.method == method and one.path.endswith(end) and 0 < one.status < 400 for one in self.requests)

    # --- requests ----------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        asked = Asked(request.method, request.path.lower(), request.transport.get_extra_info("peername")[1])
        self.requests.append(asked)
        try:
            if await self._struck(asked, "before"):
                return self._cut(request)
            self._admit(request)
            asked.status, body, headers = self._carried_out(asked.path, request, await _json(request))
            status = asked.status
            if await self._struck(asked, "after"):
                return self._cut(request)
        except Refusal as refusal:
            status, body, headers = refusal.status, refusal.body, refusal.headers
            asked.status = asked.status or status
        return web.json_response(body, status=status, headers=headers) if body else web.Response(
            status=status, headers=headers
        )  # fmt: skip

    async def _struck(self, asked: Asked, when: str) -> bool:
        for strike in self.strikes:
            if (strike.method, strike.when) == (asked.method, when) and asked.path.endswith(strike.end.lower()):
                if strike.skip:
                    strike.skip -= 1
                    return False
                self.strikes.remove(strike)
                return await strike.call()
        return False

    def _cut(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    def _admit(self, request: web.Request) -> None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, 0) < time.time():
            challenge = 'Bearer authorization_uri="https://login.example.com", error="invalid_token"'
            code = "ExpiredAuthenticationToken" if token else "AuthenticationFailed"
            raise Refusal(401, code, "The access token is missing, or expired.", WWW_Authenticate=challenge)
        if self._throttled:
            seconds = self._throttled.pop()
            raise Refusal(429, "TooManyRequests", "The request is throttled.", Retry_After=f"{seconds:g}")
        if "api-version" not in {name.lower() for name in request.query}:
            raise Refusal(400, "MissingApiVersionParameter", "The api-version query parameter is required.")

    def _carried_out(self, path: str, request: web.Request, body: Any) -> tuple[int, Any, Mapping[str, str]]:
        if found := OPERATION.fullmatch(path):
            return self._operation(found["id"], "monitor" in request.query)
        if found := COMPUTE.fullmatch(path):
            self._known(found["subscription"])
            return (200, self._usages(), {}) if found["location"] else (200, self._sizes(request), {})
        if not (found := RESOURCE.fullmatch(path)):
            raise Refusal(404, "InvalidResourceType", "The resource type could not be found.")
        self._known(found["subscription"])
        if found["group"] != GROUP:
            raise Refusal(404, "ResourceGroupNotFound", f"Resource group '{found['group']}' could not be found.")
        kind: Mapping[str, Any] = self.machines if "virtual" in found["type"] else self.profiles
        if found["name"] not in kind:
            raise Refusal(404, "ResourceNotFound", f"The Resource '{found['type']}/{found['name']}' was not found.")
        rest, one = (found["rest"] or "").strip("/"), kind[found["name"]]
        if isinstance(one, Profile):
            return self._profile(one, request.method, rest, body)
        return self._machine(one, request, rest, body)

    def _known(self, subscription: str) -> None:
        if subscription != SUBSCRIPTION:
            raise Refusal(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")

    # --- quotas ------------------------------------------------------------------------------------------

    def used(self, resized: Mapping[str, str] | None = None) -> dict[str, int]:
        """Return the vCPUs that are used by family and in all; ``resized`` are machines in other sizes."""
        found = {one.family: self.others.get(one.family, 0) for one in self.sizes.values()}
        for name, one in self.machines.items():
            sku = self.sizes[(resized or {}).get(name, one.size)]
            found[sku.family] += sku.cores
        return {**found, REGIONAL: sum(found.values())}

    def _beyond(self, resized: Mapping[str, str] | None = None) -> None:
        for name, used in self.used(resized).items():
            if used > (granted := self.granted.get(name, GRANTED)):
                said = f"Operation could not be completed as it results in exceeding approved {name} quota."
                raise Refusal(409, "OperationNotAllowed", f"{said} Current Limit: {granted}, used then: {used}.")

    def _usages(self) -> dict[str, Any]:
        return {
            "value": [
                {
                    "unit": "Count", "currentValue": used, "limit": self.granted.get(name, GRANTED),
                    "name": {"value": name, "localizedValue": name},
                }
                for name, used in self.used().items()
            ]
        }  # fmt: skip

    def _sizes(self, request: web.Request) -> dict[str, Any]:
        if request.query.get("$filter") != f"location eq '{LOCATION}'":
            raise Refusal(400, "InvalidFilter", "The lab's Azure knows the sizes of one region.")
        first = int(request.query.get("$skip", "0"))
        names = list(self.sizes)
        page = {"value": [self.sizes[name].body(name) for name in names[first : first + SHOWN]]}
        more = request.url.update_query({"$skip": str(first + SHOWN)})
        return page | ({"nextLink": f"{self.endpoint}{more.raw_path_qs}"} if first + SHOWN < len(names) else {})

    # --- machines ----------------------------------------------------------------------------------------

    def _machine(self, one: Machine, request: web.Request, rest: str, body: Any) -> tuple[int, Any, Mapping[str, str]]:
        if request.method == "GET":
            viewed = request.query.get("$expand", "").lower() == "instanceview"
            return 200, one.view() if rest == "instanceview" else one.body(viewed), {}
        if one.provisioning == "Updating":
            raise Refusal(409, "Conflict", "Another operation on this machine is in progress.")
        if request.method == "PATCH":
            return self._patched(one, request, body)
        kind = next((name for name in RESTS if name.lower() == rest), None)
        if request.method != "POST" or kind is None:
            raise Refusal(405, "MethodNotAllowed", "The lab's Azure does not know this.")
        if kind == "start" and one.power == "deallocated":
            self._beyond()
        one.starts += kind == "start"
        no_room = kind == "start" and one.power != "running" and {one.size, f"{one.zone}/{one.size}"} & self.full
        rests = one.power
        one.power = MOVES[kind] if one.power != RESTS[kind] else one.power

        def end(error: str) -> None:
            one.power = rests if error else RESTS[kind]

        return 202, None, self._begin(one, end, "AllocationFailed" if no_room else "")

    def _patched(self, one: Machine, request: web.Request, body: Any) -> tuple[int, Any, Mapping[str, str]]:
        if request.headers.get("If-Match", f'"{one.etag}"') != f'"{one.etag}"':
            raise Refusal(412, "PreconditionFailed", "The ETag of the request is not that of the machine.")
        size = body.get("properties", {}).get("hardwareProfile", {}).get("vmSize", one.size)
        if size != one.size:
            self._beyond({next(name for name, other in self.machines.items() if other is one): size})
        one.tags = body.get("tags", one.tags)
        one.etag += 1

        def end(error: str) -> None:
            one.size = one.size if error else size

        headers = self._begin(one, end, "")
        return 200, one.body(False), headers

    def _begin(self, one: Machine, end: Callable[[str], None], error: str) -> Mapping[str, str]:
        operation = Operation(secrets.token_hex(8))
        self.operations[operation.id] = operation
        error = error or (self.fails.pop(0) if self.fails else "")
        one.provisioning, one.failed, one.changed = "Updating", "", time.time()

        async def ending() -> None:
            await asyncio.sleep(self.seconds)
            end(error)
            one.provisioning, one.failed, one.changed = "Failed" if error else "Succeeded", error, time.time()
            operation.error, operation.status = error, "Failed" if error else "Succeeded"

        task = asyncio.get_running_loop().create_task(ending())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return self._where(operation.id)

    def _where(self, operation: str) -> dict[str, str]:
        url = f"{self.endpoint}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/{LOCATION}"
        url = f"{url}/operations/{operation}?api-version=2026-04-01"
        return {"Azure-AsyncOperation": url, "Location": f"{url}&monitor=true", **self.retry_after}

    def _operation(self, id: str, monitor: bool) -> tuple[int, Any, Mapping[str, str]]:
        if id not in self.operations:
            raise Refusal(404, "NotFound", "There is no such operation, or it ended long ago.")
        one = self.operations[id]
        if monitor:
            return (202, None, self._where(id)) if one.status == "InProgress" else (200, None, {})
        return 200, one.body(), self.retry_after if one.status == "InProgress" else {}

    # --- profiles ----------------------------------------------------------------------------------------

    def _profile(self, one: Profile, method: str, rest: str, body: Any) -> tuple[int, Any, Mapping[str, str]]:
        properties = (body or {}).get("properties", {})
        if not rest:
            if method == "PATCH":
                one.tags = body.get("tags", one.tags)
                one.status = properties.get("profileStatus", one.status)
            return 200, one.body(), {}
        kind, _, name = rest.partition("/")
        endpoint = next((e for e in one.endpoints.values() if (e.kind.lower(), e.name.lower()) == (kind, name)), None)
        if endpoint is None:
            raise Refusal(404, "ResourceNotFound", f"The endpoint '{name}' was not found in the profile.")
        if method == "PATCH":
            weight = properties.get("weight", endpoint.weight)
            if not 1 <= weight <= 1000:
                raise Refusal(400, "BadRequest", "The weight has to be from 1 to 1000.")
            endpoint.status, endpoint.weight = properties.get("endpointStatus", endpoint.status), weight
        return 200, endpoint.body(), {}

    # --- who asks ----------------------------------------------------------------------------------------

    async def _identify(self, request: web.Request) -> web.Response:
        """Give out a token, as App Service does."""
        if request.headers.get("X-IDENTITY-HEADER") != self.secret or "resource" not in request.query:
            return web.json_response({"statusCode": 400, "message": "no such identity"}, status=400)
        token, until = secrets.token_hex(16), time.time() + self.token_seconds
        self.tokens[token] = until
        answer = {"access_token": token, "expires_on": str(int(until)), "token_type": "Bearer"}
        return web.json_response(answer | {"resource": request.query["resource"]})

    def _certify(self) -> None:
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the lab's Azure")])
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(ports.ADDRESS))])
        certificate = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=30)).add_extension(alternative, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )  # fmt: skip
        self._key.touch(mode=0o600)
        plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self._key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


async def _json(request: web.Request) -> Any:
    with contextlib.suppress(ValueError):
        return await request.json() if request.can_read_body else {}
    raise Refusal(400, "InvalidRequestContent", "The request content was invalid JSON.")
