"""What the page of RestoreVerification is filled with: what a restore's is, of a copy apart, and its policy; pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from activities.sources import Source
from console.shell import database_point_in_time_restore as restore
from recovery.details import span
from recovery.models import Frozen
from runbooks.procedures.restore_verification import Parameters, Policy
from runbooks.schema import Database

_MOMENT = "2000-01-01T00:00:00Z"


def variant(frozen: Frozen) -> str:
    """Return which parts of the page belong to it: there is one way."""
    return "one"


def fill(frozen: Frozen, known: bool) -> dict[str, str]:
    """Return what each placeholder of the page stands for."""
    name, wanted = frozen.systems[0], Parameters.model_validate(frozen.parameters)
    database = Database.model_validate(frozen.estate["databases"][name])
    # As if there was no running database, whose own log would be taken too; the first port is left to a recovery.
    ports = tuple(reversed(database.copy_ports[1:] or database.copy_ports))
    nowhere = database.archive or database.copies
    apart = database.model_copy(update={"data": nowhere, "copy_ports": ports})
    asked = wanted.model_dump(mode="json", include={"queries", "amcheck"}) | {"target_time": _MOMENT}
    estate = frozen.estate | {"databases": {name: apart.model_dump(mode="json")}}
    values = restore.fill(frozen.model_copy(update={"parameters": asked, "estate": estate}), known=True)
    look = Source.of(database).values() | {"bin": database.bin, "data": nowhere}
    return values | {
        "copy": values["copy"].replace("20000101T000000Z", "newest"),
        "last_commit": restore.body("last_commit", look),
        "policy": "\n".join(f"- {line}" for line in _policy(wanted.policy, frozen)),
    }


def _policy(policy: Policy, frozen: Frozen) -> Iterator[str]:
    """Yield what there has to be, as a person compares it with what the first step prints."""
    late = f"; it may be {_span(policy.grace)} late" if policy.grace else ""
    if policy.full_every:
        yield f"a full backup (no `incremental`) that was `stopped` within the last {_span(policy.full_every)}{late}"
    if policy.incremental_every:
        yield f"one of any kind that was within the last {_span(policy.incremental_every)}{late}"
    yield f"log in the archive up to {_span(policy.log_within or frozen.objectives.rpo)} ago, if anything was committed"
    if policy.keep_for:
        yield f"a full backup that is older than {_span(policy.keep_for)}, and every segment of the log since"
    if offsite := policy.offsite:
        yield (
            f"on {offsite.host} all backups that are older than {_span(offsite.within)} in `{offsite.backups}`, and the"
            f" log in `{offsite.archive}`: compare names, and `sha256sum */backup_manifest`, with those here"
        )


def _span(length: timedelta) -> str:
    return span(length.total_seconds())
