"""Read the settings of this installation from the environment, once, at the edge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from temporalio.envconfig import ClientConfig, ClientConnectConfig

from recovery.errors import Invalid

LAST_PORT = 60000
"""So that the ports above it, which are tried if it is taken, are ports, too."""
_REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    """Say where state and catalogs are, which task queue is used, who is told how (a file), and which Temporal.

    ``port`` is the first one that the embedded Temporal tries when it has none yet. ``site`` is where this worker
    stands: it polls the queue of that site as well, so that what is asked there is seen from there.
    """

    state: Path
    catalogs: Path
    task_queue: str
    notify: str = ""
    port: int = 7233
    site: str = ""
    temporal: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold an API key

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read RECOVERY_STATE, RECOVERY_CATALOGS, RECOVERY_TASK_QUEUE, RECOVERY_NOTIFY, RECOVERY_TEMPORAL_PORT,
        RECOVERY_SITE and TEMPORAL_*.

        Raises Invalid, which names the variable and what to do about it.
        """
        environ = os.environ if environ is None else environ
        state = _path(environ, "RECOVERY_STATE", _REPOSITORY / ".state")
        catalogs = _path(environ, "RECOVERY_CATALOGS", _REPOSITORY / "runbooks")
        if state.exists() and not (state.is_dir() and os.access(state, os.W_OK | os.X_OK)):
            raise Invalid("RECOVERY_STATE: is no folder that this user can write to; name one, or unset it")
        if not catalogs.is_dir():
            raise Invalid("RECOVERY_CATALOGS: is no folder; name the one that holds the catalogs, or unset it")
        queue = environ.get("RECOVERY_TASK_QUEUE", "recovery")
        if not queue.strip() or queue != queue.strip():
            raise Invalid("RECOVERY_TASK_QUEUE: is empty or has blanks around it; name a queue, or unset it")
        port = environ.get("RECOVERY_TEMPORAL_PORT", "7233")
        if not (port.isascii() and port.isdigit() and 1024 <= int(port) <= LAST_PORT):
            raise Invalid(f"RECOVERY_TEMPORAL_PORT: is no number from 1024 to {LAST_PORT}; name a port, or unset it")
        temporal = {name: value for name, value in environ.items() if name.startswith("TEMPORAL_")}
        # Not looked at here: a fault in who is told must not keep a recovery from running.
        site = environ.get("RECOVERY_SITE", "")
        if site != site.strip():
            raise Invalid("RECOVERY_SITE: has blanks around it; name a site of the estate, or unset it")
        return cls(state, catalogs, queue, environ.get("RECOVERY_NOTIFY", ""), int(port), site, temporal)

    @property
    def site_queue(self) -> str:
        """The task queue of this worker's site; estates name it so (``recovery-north``)."""
        return f"{self.task_queue}-{self.site}"

    def is_embedded(self) -> bool:
        """Return whether this installation runs a Temporal server of its own (no TEMPORAL_* is set)."""
        return not self.temporal

    def connection(self) -> ClientConnectConfig:
        """Return the arguments of ``Client.connect`` that TEMPORAL_* and temporal.toml name.

        Raises Invalid when they contradict each other or name a missing file or profile.
        """
        try:
            found = ClientConfig.load_client_connect_config(override_env_vars=dict(self.temporal))
        except (OSError, RuntimeError, ValueError) as error:
            names = ", ".join(sorted(self.temporal))
            raise Invalid(f"{names}: {error}; correct them, or unset every TEMPORAL_* variable") from error
        found.setdefault("target_host", "localhost:7233")
        found.setdefault("namespace", "default")
        return found

    def folder(self, name: str) -> Path:
        """Return the folder ``name`` of the state, created for this user only (0700)."""
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.state / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            text = f"RECOVERY_STATE: cannot be created ({error.strerror}); name a folder that can"
            raise Invalid(text) from error
        return self.state / name


def _path(environ: Mapping[str, str], name: str, default: Path) -> Path:
    text = environ.get(name)
    if text is None:
        return default
    if not text.strip() or "\0" in text:
        raise Invalid(f"{name}: is empty; name a folder, or unset it")
    return Path(text).expanduser().absolute()
