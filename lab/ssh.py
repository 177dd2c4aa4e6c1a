"""Keys of the SSH server: one for the host, one for its only client."""

import asyncssh

from lab.place import Place, write_private

TYPE = "ssh-ed25519"


def make_keys(place: Place, port: int) -> None:
    """Make the keys that are missing, and write authorized_keys and known_hosts for them."""
    public = {}
    for name in ("host_key", "client_key"):
        path = place.ssh / name
        if not path.exists():
            key = asyncssh.generate_private_key(TYPE, comment=f"recovery lab {name}")
            write_private(path, key.export_private_key().decode())
        public[name] = asyncssh.read_private_key(path).export_public_key().decode().strip()
    write_private(place.ssh / "authorized_keys", public["client_key"] + "\n")
    kind, key_data = public["host_key"].split()[:2]
    write_private(place.ssh / "known_hosts", f"[127.0.0.1]:{port} {kind} {key_data}\n")
