"""What people author: the estate that can be recovered, and the runbooks that recover it."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from recovery.models import Authored, GatePolicy, HoldPolicy, Name, Text, Tier
from recovery.safety import Rules

Port = Annotated[int, Field(ge=1, le=65535)]
Path = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._@+:/ -]*$", max_length=400)]


def _fetches(command: str) -> str:
    words = re.findall(r"%(.?)", command)
    if set(words) - {"%"} != {"f", "p"}:
        raise ValueError("has to say which file (%f) is fetched to where (%p); another percent sign is written %%")
    return command


RestoreCommand = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=2000), AfterValidator(_fetches)]
"""A line of shell that fetches the file of the log %f to %p."""


def _rate(given: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(given)
    except ValidationError:
        raise ValueError("is no number of bytes a second; write it like 50MiB, from 64KiB to 1TiB") from None


Rate = Annotated[ByteSize, Field(ge=2**16, le=2**40), WrapValidator(_rate)]
"""Bytes a second, as a number or as people write it: 50MiB, 200MB."""

Keys = Annotated[str, Field(pattern=r'^[^\x00-\x1f\x7f"]+$', max_length=200)]
"""A pattern of keys in a store, as SCAN knows it: one word of a command, which nothing may end."""

_PART = r"\.?[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*"
Folder = Annotated[str, Field(pattern=rf"^({_PART}(/{_PART})*)?$", max_length=400)]
"""A folder in a repository, "" for all of it."""

Remote = Annotated[str, Field(pattern=r"^(/[^\s\x00-\x1f]*|(ssh|https)://([A-Za-z0-9._-]+@)?[^\s@]+)$", max_length=500)]
"""What Git takes for a remote; a password has no place in it."""
Branch = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=200)]

AzureName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_(][A-Za-z0-9_().-]{0,89}$")]
"""What Azure takes for the name of a resource: one part of a path."""

KubernetesName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
"""What Kubernetes takes for the name of an object: one part of a path."""

IDENTIFIER = r"(?:[A-Za-z_][A-Za-z0-9_$]*|\"(?:[^\"$\x00-\x1f]|\"\")+\")"
Column = Annotated[str, Field(pattern=rf"^{IDENTIFIER}$", max_length=130)]
"""As in SQL: a name in double quotes is taken as it is, any other one in lower case."""
Table = Annotated[str, Field(pattern=rf"^{IDENTIFIER}\.{IDENTIFIER}$", max_length=260)]
"""schema.table; as in SQL, a name in double quotes is taken as it is, any other one in lower case."""

Proxy = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]+$", max_length=200)]
"""The name of a backend or server of HAProxy."""
Servers = Annotated[
    tuple[Proxy, ...], Field(min_length=1), BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)
]
Domain = Annotated[str, Field(pattern=r"^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_-]{1,63}\.?$")]
"""A name in DNS, in full; the dot at its end may be left out."""
Value = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]+$", max_length=253)]
NameServer = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[0-9]{1,3}(\.[0-9]{1,3}){3}):[0-9]{1,5}$")]
"""address:port, as in 192.0.2.53:53 or [2001:db8::53]:53; no name, for names are what is out of order then."""


Connections = Annotated[int, Field(ge=1, le=1_000_000)]


class Site(Authored):
    """A place that can be lost as a whole. Which site is active is never written here: probes tell.

    ``queue`` is a task queue that only the workers of this site poll: what is asked there is seen from there.
    """

    title: Text
    queue: Name | None = None


class Address(Authored):
    """Where something listens."""

    address: Name
    port: Port


class Host(Authored):
    """A host reached over SSH.

    ``known_hosts`` and ``key`` are files beside the worker; ``jobs`` is a folder on the host, owned by ``user``,
    in which named jobs keep their lock, output and exit code. ``seen_from`` gives the address at which the workers
    of another site reach it, where that is another one.
    """

    site: Name
    address: Name
    port: Port = 22
    user: Name
    known_hosts: Path
    key: Path
    jobs: Path
    seen_from: dict[Name, Address] = {}


class Backups(Authored):
    """Where a database's backups are, on its host: a ``folder`` of base backups, or a tool's repository.

    The folder has what pg_basebackup made (plain, full or incremental). A tool, Barman or pgBackRest, is asked by its
    program ``cli``; it has the log, too. ``server`` is the name that it has for the database (a stanza of pgBackRest),
    ``configuration`` its file, if not the usual one, ``repository`` the number of one of pgBackRest's.
    """

    kind: Literal["native", "barman", "pgbackrest"] = "native"
    folder: Path | None = None
    cli: Path | None = None
    server: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    configuration: Path | None = None
    repository: int | None = Field(default=None, ge=1, le=256)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """Take the name of a folder alone, too."""
        return {"folder": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _whole(self) -> Self:
        tools = ("server", "cli", "configuration", "repository")
        needed, others = ("folder", tools) if self.kind == "native" else (tools[0], ("folder",))
        if getattr(self, needed) is None:
            raise ValueError(f"{needed} is needed for backups of the kind {self.kind}")
        for one in others:
            if getattr(self, one) is not None:
                raise ValueError(f"{one} is of no use for backups of the kind {self.kind}; leave it out")
        return self


class Database(Authored):
    """A PostgreSQL database with backups and a WAL archive on its host.

    ``backups`` says where the backups are, ``archive`` is the folder of the log, unless a tool keeps that.

    ``copies`` is the folder for restored copies and ``copy_ports`` the TCP ports that they may use; ``user`` logs
    in over the Unix socket in ``sockets``. ``drill`` marks the place where copies go as a drill target. ``io_rate`` is
    how many bytes a second a copy may write while it is laid down beside the running database.

    ``peer`` is the database, at another site, that replicates this one or is replicated by it, as it happens to be;
    each names the other. ``upstream`` is the connection string with which the peer replicates this one, without a
    password: that stands in a file on the peer's host (``passfile``).

    ``restore_command`` fetches one file of the log, as PostgreSQL's setting of that name does (%f, %p), where those in
    the archive are compressed or encrypted; their names begin as without (00000001000000000000002A.zst.age).

    ``connections`` is how many its clients need at their peak, while it takes the writes.
    """

    host: Name
    tier: Name
    bin: Path
    data: Path
    sockets: Path
    port: Port
    name: Name
    user: Name
    backups: Backups
    archive: Path | None = None
    restore_command: RestoreCommand | None = None
    copies: Path
    copy_ports: tuple[Port, ...] = Field(min_length=1)
    drill: bool = False
    io_rate: Rate | None = None
    peer: Name | None = None
    upstream: Text | None = None
    connections: Connections | None = None

    @model_validator(mode="after")
    def _logged(self) -> Self:
        if self.archive is None and (self.backups.kind == "native" or self.peer):
            raise ValueError("archive: the folder of the log is needed where no tool keeps it, or there is a peer")
        if self.restore_command and self.backups.kind != "native":
            raise ValueError(f"restore_command: {self.backups.kind} fetches the log itself; leave it out")
        return self


class Store(Authored):
    """A Valkey (or Redis) server on a host, replicated by its ``peer`` at another site, or the other way round.

    ``cli`` is the host's valkey-cli; ``secret`` a file on the host with the password, if it asks for one;
    ``upstream`` the address at which the peer replicates this one. ``copies`` is a folder on the host in which is kept
    what only this store has, before it is overwritten, and from which sessions are restored: with ``server``, the
    host's valkey-server, which reads snapshots. A runbook for sessions alone needs their ``tier``. ``connections`` is
    how many its clients need at their peak, while it takes the writes.
    """

    host: Name
    cli: Path
    address: Name = "127.0.0.1"
    port: Port
    secret: Path | None = None
    peer: Name
    upstream: Address
    tier: Name | None = None
    copies: Path | None = None
    server: Path | None = None
    connections: Connections | None = None


class Service(Authored):
    """A program on a host that ``start``, ``stop`` and ``status`` (exit code 0: it runs) are commands for, run by sh.

    ``after`` names the services, machines, workloads, databases and stores of its site that it needs to start; one
    that needs nothing may start while its database takes no writes yet. ``ready`` ends with 0 once it serves those that
    need it, for which they wait ``within`` at most; without it they wait for ``start`` alone. ``url`` answers 200 when
    it serves.
    """

    host: Name
    start: Text
    stop: Text
    status: Text
    after: tuple[Name, ...] = ()
    ready: Text | None = None
    within: timedelta = Field(default=timedelta(minutes=5), gt=timedelta(0), le=timedelta(hours=1))
    url: Text | None = None


class Caddy(Authored):
    """A traffic director: Caddy with its admin API.

    ``server`` is the HTTP server in its configuration that carries the traffic, ``sites`` the upstream address of each
    site, ``url`` where clients come in. Which site it points at is never written here.
    """

    kind: Literal["caddy"] = "caddy"
    admin: Text
    server: Name
    sites: dict[Name, Address] = Field(min_length=1)
    url: Text


class HAProxy(Authored):
    """A traffic director: HAProxy with its runtime API, the Unix ``socket`` on its ``host``, asked there by socat.

    ``backend`` is the one that carries the traffic, ``sites`` its servers at each site (one, or several), ``url`` where
    clients come in. ``state`` is the file of global's server-state-file, which is written after each change: with
    load-server-state-from-file in ``configuration`` (a file, or a folder of files) a restart keeps what was changed.
    The host's user may write to the socket (level admin) and into the folder of ``state``.
    """

    kind: Literal["haproxy"]
    host: Name
    socket: Path = "/run/haproxy/admin.sock"
    backend: Proxy
    sites: dict[Name, Servers] = Field(min_length=1)
    state: Path
    configuration: Path = "/etc/haproxy/haproxy.cfg"
    url: Text


class Key(Authored):
    """A TSIG key: its ``name``, and a file beside the worker with its ``secret`` (base64, or a key file as BIND's)."""

    name: Domain
    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224", "hmac-sha1"] = "hmac-sha256"
    secret: Path


class Dns(Authored):
    """A traffic director: a ``record`` in a ``zone`` of DNS, changed at its primary ``server`` (RFC 2136, TSIG).

    ``sites`` is what the record says for each site, ``nobody`` what it says while none serves: a host that tells
    clients to come again. ``ttl`` is what its TTL is lowered to, in seconds, for as long as a recovery lasts.
    ``resolvers`` are asked whether clients are told so; ``url`` is where clients come in.
    Whose write was the last is kept in a TXT record beside it, _recovery.<record>.
    """

    kind: Literal["dns"]
    server: NameServer
    zone: Domain
    record: Domain
    type: Literal["A", "AAAA", "CNAME"] = "A"
    sites: dict[Name, Value] = Field(min_length=1)
    nobody: Value
    key: Key
    ttl: int = Field(default=30, ge=1, le=300)
    resolvers: tuple[NameServer, ...] = Field(min_length=1, max_length=20)
    url: Text

    @model_validator(mode="after")
    def _tells_apart(self) -> Self:
        zone, record = (name.rstrip(".").lower() for name in (self.zone, self.record))
        if not f".{record}".endswith(f".{zone}"):
            raise ValueError("record: is not in the zone; write it in full, such as shop.example.org")
        if self.type == "CNAME" and record == zone:
            raise ValueError("type: the name of a zone itself cannot be a CNAME")
        kind = {"A": IPv4Address, "AAAA": IPv6Address}.get(self.type)
        for name, value in (*self.sites.items(), ("nobody", self.nobody)):
            try:
                _ = kind and kind(value)
            except ValueError:
                raise ValueError(f"{name}: is no address for a record of type {self.type}") from None
        values = [value.rstrip(".").lower() for value in (*self.sites.values(), self.nobody)]
        if len(set(values)) != len(values):
            raise ValueError("sites, nobody: each needs another value, or nobody can tell them apart")
        return self


class Azure(Authored):
    """What Azure Resource Manager is asked for something by: the subscription (its id) and the resource group.

    ``endpoint`` is that of the cloud; ``ca`` a file beside the worker with the certificate of who signed its own, where
    that is not one of the usual ones. Who logs in is the worker's (azure-identity), for that is secret.
    """

    subscription: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
    resource_group: AzureName
    endpoint: Annotated[str, Field(pattern=r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?$", max_length=300)] = (
        "https://management.azure.com"
    )
    ca: Path | None = None


class TrafficManager(Azure):
    """A profile of Azure's Traffic Manager, and which of its endpoints is that of each site.

    ``url`` is where clients come in. Which endpoint is enabled is never written here. ``weights`` is what the endpoint
    of a site weighs while that serves, where a profile has others beside it; without one it keeps what it has.
    """

    kind: Literal["traffic-manager"]
    profile: AzureName
    sites: dict[Name, AzureName] = Field(min_length=1)
    weights: dict[Name, Annotated[int, Field(ge=1, le=1000)]] = {}
    url: Text

    @model_validator(mode="after")
    def _weighed(self) -> Self:
        for site in self.weights:
            if site not in self.sites:
                raise ValueError(f"weights.{site}: has no endpoint; name it in sites")
        return self


def _kind(given: Any) -> str:
    kind = given.get("kind", "caddy") if isinstance(given, dict) else getattr(given, "kind", "caddy")
    return str(kind)


Director = Annotated[
    Annotated[Caddy, Tag("caddy")]
    | Annotated[HAProxy, Tag("haproxy")]
    | Annotated[Dns, Tag("dns")]
    | Annotated[TrafficManager, Tag("traffic-manager")],
    Discriminator(_kind),
]
"""What sends clients to a site; without a ``kind`` it is Caddy."""
DIRECTOR: TypeAdapter[Caddy | HAProxy | Dns | TrafficManager] = TypeAdapter(
    Director, config=ConfigDict(hide_input_in_errors=True)
)


SITE = "{site}"
"""Stands in a matcher for the sites of a move."""
STRANGE = ("7f3a9c1e-no-such-value", "no such value", "\u00d8 1/2")
"""Values that no label has: what matches one of them matches nearly everything."""


class Matcher(Authored):
    """Which alerts: those whose label ``name`` is ``value``, or is matched, all of it, by ``regex`` (RE2).

    ``{site}`` in it stands for the sites of a move, whichever. ``unless`` turns it round: all but those.
    """

    name: Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=200)]
    value: Text | None = None
    regex: Text | None = None
    unless: bool = False

    @model_validator(mode="after")
    def _narrow(self) -> Self:
        if (self.value is None) == (self.regex is None):
            raise ValueError("give either a value or a regex")
        if self.regex is None:
            return self
        if re.search(r"\(\?(?:[=!]|<[=!])|\\[1-9]", self.regex):
            raise ValueError("regex: looks ahead or back, which Alertmanager's expressions (RE2) do not know")
        try:
            pattern = re.compile(self.regex.replace(SITE, "(a|b)"))
        except re.error:
            raise ValueError("regex: is no regular expression") from None
        if any(pattern.fullmatch(value) for value in STRANGE):
            raise ValueError("regex: matches everything; say which alerts, for a silence must not mute the others")
        if pattern.fullmatch(""):
            raise ValueError("regex: matches alerts without this label as well; say which alerts")
        return self


class Alertmanager(Authored):
    """An Alertmanager, in which a recovery silences the alerts that it sets off itself, for as long as it lasts.

    ``silence`` says which alerts: all of its matchers have to fit; as a mapping of labels to values, or a list. A
    silence that nobody lifts ends ``at_most`` so long after it was made. ``secret`` is a file beside the worker with a
    token, or with name:password; ``ca`` one with the certificate of who signed its own, if not one of the usual ones.
    """

    kind: Literal["alertmanager"] = "alertmanager"
    url: Annotated[
        str, Field(pattern=r"^https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$")
    ] = Field(max_length=300)
    silence: tuple[Matcher, ...] = Field(min_length=1, max_length=20)
    at_most: timedelta = Field(default=timedelta(hours=4), ge=timedelta(minutes=1), le=timedelta(hours=24))
    secret: Path | None = None
    ca: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        """Take labels and their values, too."""
        if isinstance(given, dict) and isinstance(given.get("silence"), dict):
            labels = [{"name": name, "value": value} for name, value in given["silence"].items()]
            return {**given, "silence": labels}
        return given

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if all(one.unless for one in self.silence):
            raise ValueError("silence: says only which alerts are not; without one that says which are, all others are")
        return self


class Alternative(Authored):
    """What is started where Azure has no room for a machine: it in another ``size``, or another ``machine``.

    Azure moves no machine into another zone: for that, another one is prepared there, and named here.
    """

    size: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")] | None = None
    machine: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _zoned(cls, given: Any) -> Any:
        if isinstance(given, dict) and "zone" in given:
            raise ValueError("zone: Azure moves no machine into another zone; prepare one there, and name it (machine)")
        return given

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.size is None) == (self.machine is None):
            raise ValueError("give either a size or a machine")
        return self


class Machine(Azure):
    """A virtual machine of Azure's, by its ``name`` there.

    ``alternatives`` are tried in their order where Azure has no room for it as it is. Which one runs is never written
    here.
    """

    site: Name
    kind: Literal["azure"] = "azure"
    name: AzureName
    alternatives: tuple[Alternative, ...] = ()
    tier: Name | None = None


class Drain(Authored):
    """Which nodes of a cluster are emptied, by a selector of labels (all without one), and how long that may take."""

    nodes: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/=!,() -]*$", max_length=300)] | None = None
    within: timedelta = Field(default=timedelta(minutes=10), gt=timedelta(0), le=timedelta(hours=1))


def _drained(given: Any) -> Any:
    return {} if given is True else None if given is False else given


class Cluster(Authored):
    """A Kubernetes cluster, reached as ``kubeconfig`` says, a file beside the worker; ``context`` is one of it.

    With ``drain`` its nodes are cordoned and emptied once another site serves, and opened again before this one does.
    """

    site: Name
    kubeconfig: Path
    context: Name | None = None
    drain: Annotated[Drain | None, BeforeValidator(_drained)] = None


class Workload(Authored):
    """A workload of a cluster, by its ``name`` there, with as many ``replicas`` while its site is active, else none.

    ``after`` names the services, machines, workloads, databases and stores of its site that it needs to start.
    ``endpoints`` is a Service of its namespace: each ready pod has to be an address of it, ``within`` that time. With
    ``restart`` it may run already while its site is not active, and its pods are rolled out anew then, since they hold
    connections to what was a standby.
    """

    cluster: Name
    namespace: KubernetesName
    kind: Literal["Deployment", "StatefulSet"] = "Deployment"
    name: KubernetesName
    replicas: int = Field(ge=1, le=10000)
    after: tuple[Name, ...] = ()
    endpoints: KubernetesName | None = None
    within: timedelta = Field(default=timedelta(minutes=5), gt=timedelta(0), le=timedelta(hours=1))
    restart: bool = False


class Files(Authored):
    """Files that hosts have from a ``folder`` of the repository, in the folder ``to`` on each of them.

    ``reload`` is a command for sh on the host that has what reads them read them again; ``health`` is one that ends
    with 0 while that is well.
    """

    hosts: tuple[Name, ...] = Field(min_length=1)
    folder: Folder = ""
    to: Path
    reload: Text | None = None
    health: Text | None = None


class Manifests(Authored):
    """Objects that a cluster has from the manifests in a ``folder`` of the repository (YAML, JSON).

    ``namespace`` is that of what names none. ``manager`` is the field manager with which deployments apply them: what
    another one owns is not taken from it unasked.
    """

    cluster: Name
    folder: Folder = ""
    namespace: Name
    manager: Name


class Command(Authored):
    """Anything else that knows revisions, by commands for sh on a host, with the revision in ``$REVISION``.

    ``check`` prints the revision that is there, ``apply`` brings ``$REVISION`` there, ``verify`` ends with 0 while it
    is well with that, ``undo`` brings ``$REVISION`` back that was there; without it that is done by ``apply``.
    """

    host: Name
    check: Text
    apply: Text
    verify: Text
    undo: Text | None = None


class Configuration(Authored):
    """A configuration whose source of truth is a ``branch`` of a Git repository, and what has it from there.

    ``repository`` is what Git takes for a remote: a folder beside the worker, ssh:// or https://; ``key`` and
    ``known_hosts`` are files beside the worker for ssh. ``path`` is the folder in it that is this configuration: what
    lies elsewhere is never touched. ``deployments`` are the notes in which deployments write how they went.
    Files that match ``secret`` are never shown.
    """

    repository: Remote
    branch: Branch = "main"
    path: Folder = ""
    key: Path | None = None
    known_hosts: Path | None = None
    deployments: Annotated[str, Field(pattern=r"^refs/notes/[A-Za-z0-9._/-]+$")] = "refs/notes/deployments"
    secret: tuple[Text, ...] = ()
    tier: Name
    files: dict[Name, Files] = {}
    manifests: dict[Name, Manifests] = {}
    commands: dict[Name, Command] = {}


class Person(Authored):
    """Somebody who may decide, with their roles."""

    roles: tuple[Name, ...] = Field(min_length=1)


class Estate(Authored):
    """What can be recovered: one ``estate.yaml`` a catalog. ``safety`` is what no recovery may do to its sites."""

    title: Text
    sites: dict[Name, Site]
    hosts: dict[Name, Host]
    databases: dict[Name, Database] = {}
    stores: dict[Name, Store] = {}
    services: dict[Name, Service] = {}
    directors: dict[Name, Director] = {}
    machines: dict[Name, Machine] = {}
    alerting: dict[Name, Alertmanager] = {}
    clusters: dict[Name, Cluster] = {}
    workloads: dict[Name, Workload] = {}
    configurations: dict[Name, Configuration] = {}
    tiers: dict[Name, Tier]
    people: dict[Name, Person]
    safety: Rules = Rules()


class Runbook(Authored):
    """A named, versioned recovery: which procedure, on which systems, with which parameters, decided by whom.

    ``hold`` says who is asked when a step of a live recovery has failed for good; without it the recovery goes back at
    once. ``keep_for`` is how long people keep what a recovery put aside. ``not_after`` is how long an instruction to
    act stays valid once it was given. ``notify`` names the channels over which people are told; what
    stands behind a name is the worker's (RECOVERY_NOTIFY), for it holds secrets.
    """

    title: Text
    version: Name
    procedure: Name
    systems: tuple[Name, ...] = Field(min_length=1)
    why: Text
    parameters: dict[str, Any] = {}
    gates: dict[Name, GatePolicy] = {}
    hold: HoldPolicy | None = None
    notify: tuple[Name, ...] = ()
    not_after: timedelta = Field(default=timedelta(minutes=30), gt=timedelta(0))
    keep_for: timedelta = Field(default=timedelta(days=14), gt=timedelta(0))
