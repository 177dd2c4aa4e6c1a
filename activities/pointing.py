"""What every director has in common: where it points, and what a look at it tells; whatever carries the traffic."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from recovery.errors import Drifted, Stale
from recovery.fencing import hand
from recovery.models import Wire

Where = Literal["site", "nobody", "several", "elsewhere"]


class Pointing(Wire):
    """Where a director points: "several" is more than one site, "elsewhere" anything that belongs to none."""

    at: Where = "elsewhere"
    site: str = ""


class Sighted(Wire):
    """What a look tells: where it points, which epoch was the last to change that (0: none, or it is not kept there),

    and whether it keeps its changes over a restart.
    """

    pointed: Pointing
    epoch: int = 0
    keeps: bool = True


def where(sites: Collection[str | None]) -> tuple[Where, str]:
    """Return where something points of which each part leads to a site, or (None) to none that is known."""
    known = set(sites)
    if len(known) == 1 and (site := next(iter(known))):
        return "site", site
    return "nobody" if not known else "elsewhere" if None in known else "several", ""


def drifted(system: str, now: Pointing) -> Drifted:
    """Return the error that says where somebody else has pointed it meanwhile."""
    words = {"site": f"at {now.site}", "nobody": "at nobody", "several": "at several sites"}.get(now.at, now.at)
    return Drifted(f"{system}: somebody else has just pointed it {words}; nothing was overwritten")


class Mark(Wire):
    """Whose write was the last: the epoch of its lease, its order, and the attempt at that."""

    epoch: int = 0
    order: int = 0
    attempt: int = 0

    @property
    def number(self) -> tuple[int, int, int]:
        """What rises with each write."""
        return self.epoch, self.order, self.attempt


def mine(system: str) -> Mark:
    """Return the mark of who acts here on ``system``; without a lease there is no order, and none to write down."""
    now = hand()
    epoch = now.epoch if now.system == system else 0
    return Mark(epoch=epoch, order=now.order, attempt=now.attempt) if epoch else Mark()


def heed(system: str, mark: Mark, last: Mark) -> None:
    """Raise Stale if the ``last`` write was one of a later hand than the one with ``mark``."""
    if mark.number < last.number:
        raise Stale(
            f"{system}: epoch {last.epoch} (order {last.order}, attempt {last.attempt}) has written since, this is"
            f" epoch {mark.epoch} (order {mark.order}, attempt {mark.attempt}); nothing was written. See which recovery"
            " holds it now"
        )
