"""Alerts that a recovery sets off itself are kept from people while it lasts; which did fire is told."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from activities.silences import Alerts, in_words, see_alerts, silence
from activities.sites import Sites
from recovery.procedure import Missed, Procedure

NONE, UNSURE = "none, its alerts are heard", "not known whether it was made"


async def see_what_fires(
    recovery: Procedure[Any], sites: Sites, queue: str | None = None, within: float | None = None
) -> dict[str, Alerts]:
    """See which alerts fire before any is silenced; ``within`` so many seconds, where clients wait."""
    found: dict[str, Alerts] = {}

    async def see(name: str) -> None:
        found[name] = await _seen(recovery, sites, name, "", queue, within)

    if sites.alerting:
        await recovery.together(*map(see, sites.alerting))
    for name in sites.alerting:
        recovery.measured(f"alerts at {name} that fire at the beginning", in_words(found[name]))
    return found


async def silence_alerts(recovery: Procedure[Any], sites: Sites) -> None:
    """Silence what the move sets off; who cannot be asked is told of, and holds nobody up."""
    if sites.alerting:
        await recovery.together(*(_silence(recovery, sites, name) for name in sites.alerting))


async def silently(recovery: Procedure[Any], sites: Sites, work: Coroutine[Any, Any, None]) -> None:
    """Do ``work``, and have alerts silenced beside it: clients are waiting."""
    if sites.alerting:
        await recovery.together(silence_alerts(recovery, sites), work)
    else:
        await work


async def _silence(recovery: Procedure[Any], sites: Sites, name: str) -> None:
    try:
        stands = await recovery.do(silence, sites.silences(name))
        trouble = "" if stands.stands == "one" or recovery.start.mode != "live" else stands.trouble or stands.stands
    except Missed as missed:  # what was asked for may have come to pass
        recovery.delivered(f"silence at {name}", f"{UNSURE}: {missed.message}")
        return
    if trouble:
        recovery.delivered(f"silence at {name}", f"{NONE}: {trouble}")
    elif f"silence at {name}" in recovery.report().delivered:  # on the way that this one turned from
        recovery.delivered(f"silence at {name}", "none at first; made after that")


async def hear_alerts(recovery: Procedure[Any], sites: Sites) -> None:
    """Lift the silences, and tell which alerts fire then; say so of one that did not stand until now."""
    if not sites.alerting or recovery.start.mode != "live":
        return
    before = {name: await _seen(recovery, sites, name, ", before they are heard again") for name in sites.alerting}
    await recovery.end_passing()
    for name, was in before.items():
        now = await _seen(recovery, sites, name, ", now that they are heard again")
        recovery.measured(f"alerts at {name} that fire at the end", in_words(now))
        _tell(recovery, name, was)


async def _seen(
    recovery: Procedure[Any], sites: Sites, name: str, when: str, queue: str | None = None, within: float | None = None
) -> Alerts:
    spec = sites.silences(name).model_copy(update={"within": within})
    try:
        return await recovery.look(see_alerts, spec, f"{see_alerts.title(spec)}{when}", queue=queue)
    except Missed as missed:
        return Alerts(trouble=missed.message)


def _tell(recovery: Procedure[Any], name: str, was: Alerts) -> None:
    """Tell of a silence that somebody lifted, or changed, or that did not last."""
    until = f"{was.until:%Y-%m-%d %H:%M:%SZ}" if was.until else ""
    words = {
        "lifted": f"somebody lifted it at {until}; it was not made anew",
        "lapsed": f"it lapsed at {until}, before the recovery was over (at_most)",
        "changed": f"somebody changed it; it is theirs, and stands until {until}",
        "lost": "it is known there no more: its alerts have been heard since",  # killed before it was on its disk
    }
    told = recovery.report().delivered.get(f"silence at {name}", "")
    if told.startswith(UNSURE) and not was.trouble and was.silence in ("stands", "lost"):
        stood = was.silence == "stands"
        told = "made, though nobody was told so; it stood until the end" if stood else told.replace(UNSURE, NONE, 1)
        recovery.delivered(f"silence at {name}", told)
    never_made = was.silence == "lost" and told
    if was.silence in words and not was.trouble and not never_made:
        recovery.delivered(f"silence at {name}", words[was.silence])
