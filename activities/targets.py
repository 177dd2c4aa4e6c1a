"""Where in a PostgreSQL log a restore stops: at a moment, a position, a transaction, or a named restore point."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal, Self

from recovery.models import Wire
from runbooks.procedures.database_point_in_time_restore import Parameters

Kind = Literal["time", "lsn", "xid", "name"]


class Target(Wire):
    """What ``recovery_target_KIND`` is set to; the record that it names is part of the copy where it is ``inclusive``.

    ``moment`` is the time of a target of the kind "time". A named restore point is always part of it.
    """

    kind: Kind
    value: str
    inclusive: bool = True
    moment: datetime | None = None

    @classmethod
    def at(cls, moment: datetime, *, inclusive: bool = True) -> Self:
        """Return the target of a moment."""
        value = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"
        return cls(kind="time", value=value, inclusive=inclusive, moment=moment)

    @classmethod
    def of(cls, wanted: Parameters) -> Self:
        """Return what a runbook wants; one of the four is given."""
        if wanted.target_time is not None:
            return cls.at(wanted.target_time, inclusive=wanted.inclusive)
        if wanted.target_lsn is not None:
            return cls(kind="lsn", value=wanted.target_lsn, inclusive=wanted.inclusive)
        if wanted.target_xid is not None:
            return cls(kind="xid", value=str(wanted.target_xid), inclusive=wanted.inclusive)
        return cls(kind="name", value=wanted.target_name or "")

    @property
    def field(self) -> str:
        """Return the parameter in which it was given."""
        return f"parameters.target_{self.kind}"

    @property
    def label(self) -> str:
        """Return a part of a folder's name that tells what was wanted."""
        if self.moment is not None:
            return f"{self.moment.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        return f"{self.kind}-{re.sub(r'[^A-Za-z0-9_-]', '_', self.value)[:32]}"

    def __str__(self) -> str:
        """Say it as people do."""
        if self.moment is not None:
            return utc(self.moment)
        return f"“{self.value}”" if self.kind == "name" else self.value


def utc(at: datetime) -> str:
    """Return a moment in UTC, to the microsecond."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
