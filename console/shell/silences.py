"""How alerts are silenced by hand while a move lasts, and heard again: by curl, or by whoever has what logs in."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

from activities.alertmanagers import written
from activities.silences import AlertsSpec
from activities.sites import Sites


def muted(sites: Sites) -> str:
    """Return what is said of alerts on a page."""
    if not sites.alerting:
        return "Alerts are heard all the time."
    names = ", ".join(sites.alerting)
    return (
        f"Before that the alerts of both sites are silenced at {names}; “Tidy up” lifts that, or the undo block. One"
        " that does not answer stops nothing."
    )


def mute(sites: Sites) -> Iterator[str]:
    """Yield what silences the alerts of a move; where that fails, people are told, and nothing stops."""
    for name in sites.alerting:
        spec = sites.silences(name)
        yield from _asked(spec, f"silence {spec.which}: {_amtool(spec)}") if spec.at.secret else _made(spec)


def hear(sites: Sites) -> Iterator[str]:
    """Yield what lifts what was silenced here, and that alone."""
    for name in sites.alerting:
        spec = sites.silences(name)
        yield from _asked(spec, f"lift the silence at {name}: {spec.by_hand}") if spec.at.secret else _lifted(spec)


def _made(spec: AlertsSpec) -> Iterator[str]:
    body = json.dumps({
        "matchers": list(spec.matchers), "startsAt": "2000-01-01T00:00:00Z", "endsAt": "UNTIL",
        "createdBy": spec.mark, "comment": f"{spec.why}, by hand",
    })  # fmt: skip
    yield f"! goes_on || until=$(date -u -d '+{spec.seconds} seconds' +%Y-%m-%dT%H:%M:%SZ)"
    yield f'! goes_on || printf %s {shlex.quote(body)} | sed "s/UNTIL/$until/" |'
    yield f"    ask{_ca(spec)} -X POST -H 'Content-Type: application/json' -o {_file(spec)} \\"
    yield f"        --data-binary @- {_api(spec)}/silences ||"
    yield f"    echo {shlex.quote(f'its alerts are heard: {spec.at.where} did not take a silence')} >&2"


def _lifted(spec: AlertsSpec) -> Iterator[str]:
    found = rf"""$(sed -n 's/.*"silenceID":"\([^"]*\)".*/\1/p' {_file(spec)} 2>/dev/null)"""
    yield f"silence={found}"
    yield f'! goes_on || [ -z "$silence" ] || ask{_ca(spec)} -X DELETE "{_api(spec)}/silence/$silence" ||'
    yield f"    echo {shlex.quote(f'lift it: {spec.by_hand}')} >&2"


def _asked(spec: AlertsSpec, what: str) -> Iterator[str]:
    yield f"asked {shlex.quote(f'{what} (who logs in there stands in {spec.at.secret}, beside the worker)')}"


def _amtool(spec: AlertsSpec) -> str:
    matchers = shlex.join(map(written, spec.matchers))
    return (
        f"amtool --alertmanager.url={spec.at.url} silence add --author={shlex.quote(spec.mark)}"
        f" --duration={spec.seconds}s --comment={shlex.quote(spec.why)} {matchers}"
    )


def _api(spec: AlertsSpec) -> str:
    return f"{spec.at.url.rstrip('/')}/api/v2"


def _ca(spec: AlertsSpec) -> str:
    return f" --cacert {shlex.quote(spec.at.ca)}" if spec.at.ca else ""


def _file(spec: AlertsSpec) -> str:
    return f'"$WORK/{re.sub(r"[^A-Za-z0-9._-]", "_", spec.at.name)}.silence"'
