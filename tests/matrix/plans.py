"""What chance has in store for one recovery; drawn before it begins, so that the seed repeats it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

FAULTS: dict[str, int] = {
    "the worker is killed": 4,
    "the worker stands still": 3,
    "Temporal is killed": 2,
    "the SSH server is killed": 2,
    "the running database is killed": 2,
    "the copy's server is killed": 1,
    "the disk is full": 2,
    "the host hangs": 3,
    "connections are reset": 3,
    "connections are half-open": 3,
}
"""How often each strikes, in shares."""


@dataclass(frozen=True)
class Strike:
    """A fault: when it strikes, and how long it lasts, in seconds."""

    at: float
    fault: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:5.1f} s  {self.fault} ({self.seconds:.1f} s)"


@dataclass(frozen=True)
class Plan:
    """One recovery: what it is, what strikes while it runs, and what people do to it besides deciding."""

    name: str
    mode: str
    cutover: str
    accident: str
    strikes: tuple[Strike, ...]
    cancels: tuple[float, ...]
    terminate: float | None
    reset: float | None
    pause: float | None
    undo_in_peace: bool
    late: bool
    """Seconds count from the approval, not from the start: everything falls into the cut-over."""

    @property
    def seconds(self) -> float:
        """Return how long something may still begin."""
        moments = [one.at for one in self.strikes]
        return max([*moments, *self.cancels, self.terminate or 0, self.reset or 0, self.pause or 0]) + 0.1

    def __str__(self) -> str:
        asked = {"cancel": self.cancels, "terminate": self.terminate, "reset": self.reset, "hold": self.pause}
        besides = ", ".join(f"{what} at {when}" for what, when in asked.items() if when)
        head = f"{self.name}: {self.mode} {self.cutover} after {self.accident}; {besides or 'nobody interferes'}"
        head += "; from the approval on:" if self.late else ""
        return "\n".join([head, *map(str, self.strikes)])


def drawn(name: str, window: float, full: bool) -> Plan:
    """Draw what strikes in the first ``window`` seconds of the recovery ``name``; ``full`` lets the disk be full."""
    chance = Random(name)
    cutover = chance.choices(["replace", "extract", "none"], [5, 2, 3])[0]
    mode = chance.choices(["live", "drill", "check"], [10, 1, 1])[0]
    late = mode == "live" and cutover != "none" and chance.random() < 0.6
    window = window / 2 if late else window
    return Plan(
        name=name,
        mode=mode,
        cutover=cutover,
        accident=chance.choices(["rows deleted", "rows rewritten", "a table dropped"], [5, 2, 2])[0],
        strikes=_strikes(chance, window, 2 if late else 4, full),
        cancels=_moments(chance, window) if chance.random() < 0.2 else (),
        terminate=_moment(chance, window, 0.12),
        reset=_moment(chance, window, 0.1),
        pause=_moment(chance, window, 0.1),
        undo_in_peace=chance.random() < 0.5,
        late=late,
    )


def _strikes(chance: Random, window: float, pause: float, full: bool) -> tuple[Strike, ...]:
    faults = {name: share for name, share in FAULTS.items() if full or name != "the disk is full"}
    at, found = chance.uniform(0.05, 2), []
    while at < window:
        fault = chance.choices(list(faults), list(faults.values()))[0]
        found.append(Strike(round(at, 2), fault, round(chance.choice([2, 4, 13]) * chance.random(), 1)))
        at += chance.uniform(0.1, pause)
    return tuple(found)


def _moments(chance: Random, window: float) -> tuple[float, ...]:
    first = chance.uniform(0.5, window)
    return tuple(round(first + 0.7 * number, 2) for number in range(chance.randint(1, 3)))


def _moment(chance: Random, window: float, share: float) -> float | None:
    at = round(chance.uniform(0.5, window), 2)
    return at if chance.random() < share else None
