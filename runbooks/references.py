"""What an estate's systems say of each other: whether it is there, and whether both sides agree."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from runbooks.schema import Cluster, Configuration, Database, Dns, Estate, HAProxy, Machine, Service, Store, Workload

SYSTEMS = ("databases", "stores", "services", "directors", "machines", "workloads", "alerting", "configurations")


def mismatches(estate: Estate) -> list[str]:
    """Return every reference of ``estate`` that leads nowhere or is contradicted, each with its field."""
    return [
        *_missing(estate),
        *_queues(estate),
        *_twice(estate),
        *_seen(estate),
        *_peers(estate, "databases", estate.databases),
        *_peers(estate, "stores", estate.stores),
        *_needs(estate),
        *_same(estate),
        *_apart(estate),
        *_pointed(estate),
        *_standing_in(estate),
        *_safe(estate),
        *_configured(estate),
    ]


def _missing(estate: Estate) -> Iterator[str]:
    named_by = {"databases": ("host", "tier"), "stores": ("host", "tier"), "services": ("host",)}
    for kind, fields in (named_by | {"machines": ("site", "tier"), "workloads": ("cluster",)}).items():
        for name, system in getattr(estate, kind).items():
            for field in fields:
                named = getattr(system, field)
                if named is not None and named not in getattr(estate, f"{field}s"):
                    yield f"{kind}.{name}.{field}: the estate has no such {field}"
    for name, host in estate.hosts.items():
        if host.site not in estate.sites:
            yield f"hosts.{name}.site: the estate has no such site"


def _queues(estate: Estate) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name, site in estate.sites.items():
        if site.queue and seen.setdefault(site.queue, name) != name:
            yield f"sites.{name}.queue: {seen[site.queue]} has the same; what is asked there must come from one site"


def _twice(estate: Estate) -> Iterator[str]:
    seen: dict[str, str] = {}
    for kind in SYSTEMS:
        for name in getattr(estate, kind):
            if seen.setdefault(name, kind) != kind:
                yield f"{kind}.{name}: the name is taken, see {seen[name]}.{name}"


def _seen(estate: Estate) -> Iterator[str]:
    for name, host in estate.hosts.items():
        for site in host.seen_from:
            if site not in estate.sites:
                yield f"hosts.{name}.seen_from.{site}: the estate has no such site"
            elif site == host.site:
                yield f"hosts.{name}.seen_from.{site}: is its own site; that one uses address and port"


def _peers(estate: Estate, kind: str, systems: Mapping[str, Database] | Mapping[str, Store]) -> Iterator[str]:
    for name, system in systems.items():
        if system.peer is None:
            continue
        where, other = f"{kind}.{name}.peer", systems.get(system.peer)
        if other is None:
            yield f"{where}: the estate has no such {kind[:-1]}"
        elif other.peer != name:
            yield f"{where}: {system.peer} does not name {name} as its peer"
        elif _site(estate, system) == _site(estate, other) is not None:
            yield f"{where}: {system.peer} is at the same site"
        if system.upstream is None:
            yield f"{kind}.{name}.upstream: is missing; say how {system.peer} replicates it"


def _site(estate: Estate, system: Any) -> str | None:
    if isinstance(system, Machine):
        return str(system.site)
    if isinstance(system, Workload):
        cluster = estate.clusters.get(system.cluster)
        return cluster.site if cluster else None
    host = estate.hosts.get(system.host)
    return host.site if host else None


def _needs(estate: Estate) -> Iterator[str]:
    waits: dict[str, Service | Workload] = {**estate.services, **estate.workloads}
    systems = {**estate.databases, **estate.stores, **waits, **estate.machines}
    for name, one in waits.items():
        where = f"{_kind(one)}.{name}.after"
        for needed in one.after:
            if needed not in systems:
                yield f"{where}: the estate has no {needed} that could run before"
            elif len({_site(estate, systems[needed]), _site(estate, one)} - {None}) > 1:
                yield f"{where}: {needed} is at another site"
    if circle := _circle(waits):
        yield f"{_kind(waits[circle[0]])}.{circle[0]}.after: goes round in a circle: {' after '.join(circle)}"


def _kind(one: Service | Workload) -> str:
    return "workloads" if isinstance(one, Workload) else "services"


def _same(estate: Estate) -> Iterator[str]:
    seen: dict[tuple[str, ...], str] = {}
    for name, one in estate.workloads.items():
        there = (one.cluster, one.namespace, one.kind, one.name)
        if seen.setdefault(there, name) != name:
            yield f"workloads.{name}.name: {seen[there]} is the same object; name it once"


def _apart(estate: Estate) -> Iterator[str]:
    """Yield clusters that would be emptied while they serve another site as well."""
    seen: dict[tuple[str, str | None], str] = {}
    for name, one in estate.clusters.items():
        other = seen.setdefault(_address(one), name)
        drains = [cluster.drain for cluster in (one, estate.clusters[other]) if cluster.drain]
        if estate.clusters[other].site != one.site and any(drain.nodes is None for drain in drains):
            yield f"clusters.{name}.drain: {other} is the same cluster, for another site; name the nodes of each"


def driven_out(systems: tuple[str, ...], estate: Estate, sites: Collection[str]) -> list[str]:
    """Return whose workloads a drain would evict although the runbook does not name them, at each of ``sites``."""
    used = {estate.workloads[name].cluster for name in systems if name in estate.workloads}
    found = []
    for name in sorted(used):
        one = estate.clusters[name]
        if one.site not in sites or one.drain is None or one.drain.nodes is not None:
            continue
        same = {other for other, its in estate.clusters.items() if _address(its) == _address(one)}
        left = [other for other, its in estate.workloads.items() if its.cluster in same and other not in systems]
        if left:
            found.append(
                f"systems: all nodes of {name} are drained, and {', '.join(sorted(left))} would be evicted; name that,"
                f" too, or say in the estate which nodes are drained (clusters.{name}.drain.nodes)"
            )
    return found


def _address(cluster: Cluster) -> tuple[str, str | None]:
    return cluster.kubeconfig, cluster.context


def _circle(services: Mapping[str, Service | Workload]) -> list[str]:
    """Return services that each wait for the next, the first one again at the end; empty when there are none."""
    left = {name: [needed for needed in service.after if needed in services] for name, service in services.items()}
    while free := [name for name, needs in left.items() if not any(needed in left for needed in needs)]:
        for name in free:
            del left[name]
    if not left:
        return []
    way = [min(left)]
    while way[-1] not in way[:-1]:
        way.append(next(needed for needed in left[way[-1]] if needed in left))
    return way[way.index(way[-1]) :]


def _pointed(estate: Estate) -> Iterator[str]:
    for name, director in estate.directors.items():
        for site in director.sites:
            if site not in estate.sites:
                yield f"directors.{name}.sites.{site}: the estate has no such site"
        if isinstance(director, HAProxy) and director.host not in estate.hosts:
            yield f"directors.{name}.host: the estate has no such host"
    seen: dict[tuple[str, str], str] = {}
    for name, director in estate.directors.items():
        if isinstance(director, Dns):
            record = director.record.rstrip(".").lower(), director.type
            if seen.setdefault(record, name) != name:
                yield f"directors.{name}.record: {seen[record]} moves the same; name it once"


def _standing_in(estate: Estate) -> Iterator[str]:
    for name, machine in estate.machines.items():
        named = [alternative.machine or alternative.size for alternative in machine.alternatives]
        for number, alternative in enumerate(machine.alternatives):
            where, other = f"machines.{name}.alternatives.{number}", alternative.machine
            if named.index(other or alternative.size) < number:
                yield f"{where}: {named[number]} is named twice"
            if other is None:
                continue
            if other == name:
                yield f"{where}.machine: is the machine itself"
            elif other not in estate.machines:
                yield f"{where}.machine: the estate has no such machine"
            elif estate.machines[other].site != machine.site:
                yield f"{where}.machine: {other} is at another site; what stands in for a machine is at its own"


def _safe(estate: Estate) -> Iterator[str]:
    most, sites = estate.safety.max_fenced, len(estate.sites)
    if "max_fenced" in estate.safety.model_fields_set and most >= sites:
        yield f"safety.max_fenced: the estate has {sites} sites; {sites - 1} at most, so that one is left"


def _configured(estate: Estate) -> Iterator[str]:
    for name, cluster in estate.clusters.items():
        if cluster.site not in estate.sites:
            yield f"clusters.{name}.site: the estate has no such site"
    for name, one in estate.configurations.items():
        if one.tier not in estate.tiers:
            yield f"configurations.{name}.tier: the estate has no such tier"
        yield from (f"configurations.{name}.{fault}" for fault in _targets(estate, one))


def _targets(estate: Estate, one: Configuration) -> Iterator[str]:
    """Yield what is wrong with what has a configuration."""
    hosts = [(f"files.{group}.hosts", host) for group, files in one.files.items() for host in files.hosts]
    hosts += [(f"commands.{group}.host", command.host) for group, command in one.commands.items()]
    yield from (f"{where}: {host} is no host of the estate" for where, host in hosts if host not in estate.hosts)
    yield from (
        f"{where}: {host} is named twice" for where, host in dict.fromkeys(hosts) if hosts.count((where, host)) > 1
    )
    for group, manifests in one.manifests.items():
        if manifests.cluster not in estate.clusters:
            yield f"manifests.{group}.cluster: the estate has no such cluster"
    groups = [*one.files, *one.manifests, *one.commands]
    if not groups:
        yield "files: there are none, nor manifests, nor commands; name what has this configuration"
    for group in dict.fromkeys(groups):
        if groups.count(group) > 1:
            yield f"files, manifests, commands: {group} is named twice"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", group):
            yield f"files, manifests, commands: {group}: name it with letters, digits, dots and dashes"
