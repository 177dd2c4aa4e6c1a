"""What people author: the estate that can be recovered, and the runbooks that recover it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from recovery.models import Authored, GatePolicy, HoldPolicy, Name, Text, Tier

Port = Annotated[int, Field(ge=1, le=65535)]
Path = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._@+:/ -]*$", max_length=400)]


class Site(Authored):
    """A place that can be lost as a whole. Which site is active is never written here: probes tell."""

    title: Text


class Host(Authored):
    """A host reached over SSH.

    ``known_hosts`` and ``key`` are files beside the worker; ``jobs`` is a folder on the host, owned by ``user``,
    in which named jobs keep their lock, output and exit code.
    """

    site: Name
    address: Name
    port: Port = 22
    user: Name
    known_hosts: Path
    key: Path
    jobs: Path


class Database(Authored):
    """A PostgreSQL database with base backups (pg_basebackup, plain) and a WAL archive on its host.

    ``copies`` is the folder for restored copies and ``copy_ports`` the TCP ports that they may use; ``user`` logs
    in over the Unix socket in ``sockets``. ``drill`` marks the place where copies go as a drill target.
    """

    host: Name
    tier: Name
    bin: Path
    data: Path
    sockets: Path
    port: Port
    name: Name
    user: Name
    backups: Path
    archive: Path
    copies: Path
    copy_ports: tuple[Port, ...] = Field(min_length=1)
    drill: bool = False


class Person(Authored):
    """Somebody who may decide, with their roles."""

    roles: tuple[Name, ...] = Field(min_length=1)


class Estate(Authored):
    """What can be recovered: one ``estate.yaml`` a catalog."""

    title: Text
    sites: dict[Name, Site]
    hosts: dict[Name, Host]
    databases: dict[Name, Database] = {}
    tiers: dict[Name, Tier]
    people: dict[Name, Person]


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
