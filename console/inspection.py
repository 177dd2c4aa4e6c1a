"""What can be said of a runbook from its files alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from console.output import span
from recovery.errors import Invalid
from runbooks.library import Library, specification, tier_of
from runbooks.schema import Runbook

if TYPE_CHECKING:
    from recovery.settings import Settings

_NEXT_FAULT = re.compile(r"; (?=[a-z_]+(?:\.[^:;]+)*: )")


def row(library: Library, name: str) -> dict[str, Any]:
    """Return what a list says of the runbook ``name``; one that cannot be read has a ``fault`` and hides no other."""
    try:
        found = library.read(name)
    except Invalid as error:
        return {"name": name, "title": "", "procedure": "", "version": "", "systems": [], "fault": error.message}
    return {"name": name, **found.model_dump(mode="json", include={"title", "procedure", "version", "systems"})}


def needed(runbook: Runbook) -> list[dict[str, Any]]:
    """Return each parameter of the procedure: its name, value, and whether it is from runbook, default or you."""
    rows = []
    procedure = specification(runbook.procedure)
    ways = getattr(procedure, "BY", ())  # one of these has to be said, most often the first
    asked = ways[:1] if not set(ways) & set(runbook.parameters) else ()
    for name, field in procedure.Parameters.model_fields.items():
        if name in runbook.parameters:
            rows.append({"name": name, "from": "runbook", "value": runbook.parameters[name]})
        elif field.is_required() or name in asked:
            rows.append({"name": name, "from": "you", "value": None})
        else:
            default = field.get_default(call_default_factory=True, validated_data={})
            rows.append({"name": name, "from": "default", "value": to_jsonable_python(default)})
    return rows


def objectives(library: Library, name: str, runbook: Runbook) -> dict[str, Any]:
    """Return tier, RTO and RPO, or the fault for which they are not known here."""
    try:
        estate = library.estate(name.split("/", maxsplit=1)[0])
        tier = tier_of(estate, runbook.systems[0])
        return {"tier": tier, "rto": span(estate.tiers[tier].rto), "rpo": span(estate.tiers[tier].rpo)}
    except Invalid as error:
        return {"fault": error.message}
    except KeyError:
        return {"fault": "the estate has no such system or tier"}


def faults(library: Library, name: str) -> list[dict[str, str]]:
    """Return every fault of the runbook ``name``, each with file, field and message."""
    found = []
    try:
        runbook = library.runbook(name)
    except Invalid as error:
        found += _split(error.message, f"{name}.yaml")
        try:
            runbook = library.read(name)  # its own parameters can be judged all the same
            specification(runbook.procedure)
        except Invalid:
            return found
    return found + _parameters(runbook, f"{name}.yaml")


def unreachable(settings: Settings, library: Library, name: str) -> list[dict[str, str]]:
    """Return each channel of the runbook ``name`` behind which RECOVERY_NOTIFY, as it is set here, has nobody."""
    from activities.notifications import find  # only when wanted: it brings a driver

    try:
        channels = library.read(name).notify
    except Invalid:  # told already
        return []
    found = find(settings.notify, channels).faults if channels else ()
    return [{"file": f"{name}.yaml", "field": "notify", "message": fault} for fault in found]


def _split(message: str, file: str) -> list[dict[str, str]]:
    head, colon, rest = message.partition(".yaml: ")
    where, text = (f"{head}.yaml", rest) if colon else (file, message)
    rows = []
    for fault in _NEXT_FAULT.split(text):
        field, colon, said = fault.partition(": ")
        rows.append({"file": where, "field": field if colon else "", "message": said if colon else fault})
    return rows


def _parameters(runbook: Runbook, file: str) -> list[dict[str, str]]:
    """Judge what the runbook pins; what it leaves to the person who starts is missing rightly."""
    try:
        specification(runbook.procedure).Parameters.model_validate(runbook.parameters)
    except ValidationError as error:
        rows = error.errors(include_url=False, include_context=False, include_input=False)
        return [
            {"file": file, "field": ".".join(["parameters", *map(str, row["loc"])]), "message": row["msg"]}
            for row in rows
            if row["type"] != "missing" or len(row["loc"]) > 1
        ]
    return []
