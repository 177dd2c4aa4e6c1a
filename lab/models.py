"""What the lab says about itself."""

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

from lab.kinds import Kind


class Frozen(BaseModel):
    """A value that is never changed once made."""

    model_config = ConfigDict(frozen=True)


class Program(Frozen):
    """One long-running program of the lab; `state` is a role or whatever else it can be besides running.

    One that is not `wanted` was stopped on purpose: the order application of a site that takes no orders.
    """

    name: str
    site: str | None = None
    state: str | None = None
    pid: int | None
    running: bool
    address: str | None
    wanted: bool = True

    @classmethod
    def of(cls, name: str, pid: int | None, port: int | None = None, **more: Any) -> "Program":
        """Return what is known of a program; it runs if it has a pid."""
        address = f"127.0.0.1:{port}" if port else None
        return cls(name=name, pid=pid, running=pid is not None, address=address, **more)


class Accident(Frozen):
    """One accident, as it was caused; times are UTC, of the database where it has them."""

    kind: Kind
    site: str | None  # None for the link between the sites
    before: AwareDatetime  # read in a transaction of its own just before
    happened_at: AwareDatetime  # commit time, or when the last process was gone
    rows: int | None = None
    pids: tuple[int, ...] = ()


class Status(Frozen):
    """The whole lab at a glance; backups and archive are those of the site whose database takes writes."""

    root: str
    programs: tuple[Program, ...]
    backups: tuple[str, ...]
    archived_segments: int
    last_archived_segment: str | None
    acknowledged: int
    refused: int
    last_acknowledged_at: AwareDatetime | None
    accidents: int
    timings: dict[str, float] = {}  # seconds of each part of `up`; empty otherwise

    @property
    def healthy(self) -> bool:
        """Say whether every program that is wanted runs."""
        return all(program.running or not program.wanted for program in self.programs)
