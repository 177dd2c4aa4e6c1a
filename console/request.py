"""Make the one object that starts a recovery out of what was typed; pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from recovery.errors import Invalid, fields
from recovery.models import Start


def parameters(pairs: Sequence[str], text: str = "") -> dict[str, Any]:
    """Return the parameters of ``pairs`` (key=value) and of the JSON object ``text`` together.

    A value that begins with ``[`` or ``{`` is JSON, every other one text, which the runbook's model reads.
    """
    found: dict[str, Any] = _json("parameters", text) if text else {}
    if not isinstance(found, dict):
        raise Invalid("parameters: is no JSON object")
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Invalid("parameter: write it as key=value")
        if key in found:
            raise Invalid(f"parameters.{key}: is given twice")
        found[key] = _json(f"parameters.{key}", value) if value[:1] in ("[", "{") else value
    return found


def request(**given: Any) -> Start:
    """Return the start of a recovery; what is None or "" was not given. Raises Invalid naming the field."""
    try:
        return Start.model_validate({key: value for key, value in given.items() if value not in (None, "")})
    except ValidationError as error:
        raise Invalid(fields(error)) from None


def _json(field: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise Invalid(f"{field}: is no JSON") from None
