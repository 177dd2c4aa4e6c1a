"""Exit codes, and the one sentence that each failure is told as."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from typer.exceptions import Abort, TyperException

DONE, UNSUCCESSFUL, BAD_INPUT, REFUSED, UNREACHABLE = range(5)
_CODES = {
    "Invalid": BAD_INPUT, "Refused": REFUSED, "Drifted": REFUSED, "Stale": REFUSED,
    "Transient": UNREACHABLE, "Fatal": UNREACHABLE,
}  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What people and programs are told of a failure."""

    kind: str
    message: str
    code: int


def explain(error: BaseException) -> Told | None:
    """Return how ``error`` is told, or None for one that nobody foresaw."""
    if isinstance(error, TyperException):
        return Told("Usage", error.format_message(), BAD_INPUT)
    if isinstance(error, Abort):
        return Told("Refused", "it was not confirmed; nothing was sent", REFUSED)
    return _of_recovery(error) or _of_temporal(error)


def _of_recovery(error: BaseException) -> Told | None:
    from recovery.errors import RecoveryError

    if not isinstance(error, RecoveryError):
        return None
    kind = type(error).__name__
    return Told(kind, error.message, _CODES[kind])


def _of_temporal(error: BaseException) -> Told | None:
    if "recovery.connection" not in sys.modules:  # then it cannot come from there, and to import it is slow
        return None
    from temporalio.service import RPCError

    from recovery.connection import NotReachable

    if isinstance(error, NotReachable):
        return Told("NotReachable", str(error), UNREACHABLE)
    if isinstance(error, RPCError):
        text = error.message.splitlines()[0] if error.message else ""
        return Told("NotReachable", f"Temporal did not answer as expected ({error.status.name}): {text}", UNREACHABLE)
    return None
