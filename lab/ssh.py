"""Keys of the SSH servers: one for each site's host, one for their only client."""

from collections.abc import Iterable
from pathlib import Path

import asyncssh

from lab.place import SITES, Place, write_private

TYPE = "ssh-ed25519"


def make_keys(place: Place, addresses: Iterable[tuple[str, int]]) -> None:
    """Make the keys that are missing, and write authorized_keys and known_hosts for them.

    `addresses` are all pairs of a site and a port of this machine at which that site's SSH server is found.
    """
    host_keys = {site: _public(place.at(site).host_key) for site in SITES}
    write_private(place.ssh / "authorized_keys", _public(place.ssh / "client_key") + "\n")
    known = [f"[127.0.0.1]:{port} {' '.join(host_keys[site].split()[:2])}\n" for site, port in addresses]
    write_private(place.ssh / "known_hosts", "".join(known))


def _public(path: Path) -> str:
    if not path.exists():
        key = asyncssh.generate_private_key(TYPE, comment=f"recovery lab {path.name}")
        write_private(path, key.export_private_key().decode())
    return asyncssh.read_private_key(path).export_public_key().decode().strip()
