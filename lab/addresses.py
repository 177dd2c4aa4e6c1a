"""Every port of a lab by its name, and what a catalog's estate is filled with."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from lab import postgres
from lab.place import SITES, Place, Runner

COPIES = tuple(f"copy_{number}" for number in range(1, 5))
AT_A_SITE = ("ssh", "postgres", "valkey", "orders", *COPIES)
OVER_THE_LINK = ("ssh", "postgres", "valkey")
OF_THE_DIRECTOR = ("director", "director-admin")
OF_THE_CLUSTER = ("kubernetes", "etcd", "etcd-peer")


def of(site: str, name: str) -> str:
    """Return under which name a port or a program of a site is kept; north's, the first, have no prefix."""
    return name if site == SITES[0] else f"{site}-{name}"


def linked(site: str, name: str) -> str:
    """Return under which name the port is kept at which the other site finds something of this one."""
    return of(site, f"link-{name}")


def other(site: str) -> str:
    """Return the other one of the two sites."""
    return SITES[1 - SITES.index(site)]


PORTS = (
    *(of(site, name) for site in SITES for name in AT_A_SITE),
    *(linked(site, name) for site in SITES for name in OVER_THE_LINK),
    *OF_THE_DIRECTOR,
    *OF_THE_CLUSTER,
)


def routes(ports: Mapping[str, int]) -> list[str]:
    """Return what the link between the sites joins: port of the link, colon, port of the site."""
    return [f"{ports[linked(site, name)]}:{ports[of(site, name)]}" for site in SITES for name in OVER_THE_LINK]


def hosts(ports: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return each site with every port at which its SSH server is found."""
    return [(site, ports[name]) for site in SITES for name in (of(site, "ssh"), linked(site, "ssh"))]


def values(
    place: Place, who: Runner, ports: Mapping[str, int], binaries: Path, valkey_server: Path
) -> dict[str, object]:
    """Return the values of all placeholders of the lab's estate, those of a site that is not there, too."""
    found: dict[str, object] = {
        "LAB_SSH_USER": who.name,
        "LAB_KNOWN_HOSTS": place.ssh / "known_hosts",
        "LAB_SSH_KEY": place.ssh / "client_key",
        "LAB_PG_BIN": binaries,
        "LAB_VALKEY_CLI": place.programs / "valkey-cli",
        "LAB_VALKEY_SERVER": valkey_server,
        "LAB_REPOSITORY": place.repository,
        "LAB_STOREFRONT": place.storefront,
        "LAB_DIRECTOR_PORT": ports["director"],
        "LAB_DIRECTOR_ADMIN_PORT": ports["director-admin"],
        "LAB_KUBECONFIG": place.kubernetes / "recovery.kubeconfig",
    }
    for site in SITES:
        found |= {f"LAB_{site.upper()}_{name}": value for name, value in _of_site(place.at(site), ports)}
    return found


def _of_site(place: Place, ports: Mapping[str, int]) -> Iterator[tuple[str, object]]:
    site = place.site
    yield "SSH_PORT", ports[of(site, "ssh")]
    yield "SSH_LINK_PORT", ports[linked(site, "ssh")]
    yield "PG_DATA", place.data
    yield "PG_PORT", ports[of(site, "postgres")]
    yield "PG_SOCKETS", place.sockets
    yield "PG_UPSTREAM", postgres.upstream(ports[linked(site, "postgres")], place.at(other(site)))
    yield "BACKUPS", place.backups
    yield "ARCHIVE", place.archive
    yield "COPIES", place.copies
    yield from ((f"{name.upper()}_PORT", ports[of(site, name)]) for name in COPIES)
    yield "JOBS", place.jobs
    yield "VALKEY_PORT", ports[of(site, "valkey")]
    yield "VALKEY_LINK_PORT", ports[linked(site, "valkey")]
    yield "VALKEY_SECRET", place.valkey / "password"
    yield "ORDERS", place.orders / "orders"
    yield "ORDERS_CONFIG", place.orders / "config"
    yield "ORDERS_PORT", ports[of(site, "orders")]
