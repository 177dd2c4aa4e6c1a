"""Say what to do next, in one tree.

RecoveryError
├── Transient   try again: the world may answer differently in a moment
├── Refused     a person, a rule or the data said no: change the request, or accept
├── Invalid     bad input: the field is named, the value never is
├── Drifted     somebody else changed the system: look before anything is overwritten
├── Stale       the instruction came too late: assess again
└── Fatal       it cannot work: mend the cause first

Every class is an ``ApplicationError``, so activities and workflows raise the same objects and Temporal
carries them by type name. Only ``Transient`` is retried.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pydantic import ValidationError
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError, TimeoutError, TimeoutType


class RecoveryError(ApplicationError):
    """Carry a sentence for the operator; the class says what to do next."""

    retry: ClassVar[bool] = False

    def __init__(self, message: str, *details: object, after: timedelta | None = None) -> None:
        """Say ``message``; a retry waits ``after`` instead of what its policy says."""
        super().__init__(
            message, *details, type=type(self).__name__, non_retryable=not self.retry, next_retry_delay=after
        )


class Transient(RecoveryError):
    """Try again: the world may answer differently in a moment."""

    retry = True


class Refused(RecoveryError):
    """A person, a rule or the data said no."""


class Invalid(RecoveryError):
    """Input is bad: the message names the field and what to do, never the value."""


class Drifted(RecoveryError):
    """The system is in a state that neither this recovery nor its plan knows; nothing was overwritten."""


class Stale(RecoveryError):
    """The instruction arrived after its ``not_after``; nothing was done."""


class Fatal(RecoveryError):
    """It cannot work until its cause is mended."""


def fields(error: ValidationError) -> str:
    """Return ``field: what is wrong`` for each fault of ``error``, without any value that was sent."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(str(part) for part in fault['loc']) or 'input'}: {fault['msg']}" for fault in faults)


def root(error: BaseException) -> BaseException:
    """Return the failure that an activity or child raised, inside Temporal's wrappers."""
    while isinstance(error, ActivityError | ChildWorkflowError) and error.cause is not None:
        error = error.cause
    return error


def kind(error: BaseException) -> str:
    """Return the tree's name of ``error`` ("Refused", …), or the Temporal class name for other failures."""
    cause = root(error)
    return cause.type or "Fatal" if isinstance(cause, ApplicationError) else type(cause).__name__


def worker_died(error: BaseException) -> bool:
    """Tell whether an activity came to nothing because its worker was no longer heard of."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, TimeoutError) and at.type == TimeoutType.HEARTBEAT:
            return True
        at = at.__cause__
    return False


def sentence(error: BaseException) -> str:
    """Return what an operator should read of ``error``: a timeout tells only that time was over, its cause why."""
    cause = root(error)
    while isinstance(cause, TimeoutError):
        if cause.type == TimeoutType.SCHEDULE_TO_START:
            return "no worker took it in time: start the one of the site from which it is to be seen"
        if not isinstance(cause.cause, TimeoutError | ApplicationError):
            break
        cause = cause.cause
    text = cause.message if isinstance(cause, ApplicationError) else str(cause)
    return text or type(cause).__name__
