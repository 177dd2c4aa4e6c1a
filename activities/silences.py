"""Silences of Alertmanager for the time of a recovery: made with the recovery's mark, lifted by that mark alone.

Alertmanager takes no id from who makes a silence, so a silence is known by who has created it: ``recovery RUN``. Its
comment says what it was when it was written: by whose hand, until when. One that is not so any more is somebody
else's; it is left alone. Expired ones stay to be seen for days: by these it is known that a silence was lifted.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal, Self

from activities.alertmanagers import AlertmanagerAt, Answered, Matched, ask, matchers, written
from recovery.actions import Action, Probe, Spec
from recovery.errors import Drifted, RecoveryError, Stale, Transient
from recovery.fencing import hand
from recovery.models import Wire
from runbooks.schema import Alertmanager

SHOWN = 20
"""Names of alerts that are told; the rest is counted."""
LOOKS = 2
"""How often an Alertmanager is asked until it counts as out of reach: nothing waits for one."""
PAST = "2000-01-01T00:00:00Z"
"""A start in the past is now, by Alertmanager's own clock."""
MARK = re.compile(r"\[(\d+)\.(\d+)\.(\d+) until (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\]$")


class AlertsSpec(Spec):
    """Alerts of a move at one Alertmanager. ``system`` is the one whose lease puts the recovery's writes in order.

    ``run`` is the recovery in its mark; ``why`` is what the silence says of itself, ``seconds`` how long it may stand.
    ``within`` is for how many seconds an answer is waited for where clients wait; None where they do not.
    """

    at: AlertmanagerAt
    matchers: tuple[Matched, ...]
    run: str
    why: str = "a recovery"
    seconds: int = 4 * 3600
    within: float | None = None

    @classmethod
    def of(cls, system: str, name: str, one: Alertmanager, sites: tuple[str, ...], **more: Any) -> Self:
        """Return the spec for an Alertmanager of the estate, for a move between ``sites``."""
        given = {"system": system, "at": AlertmanagerAt.of(name, one), "matchers": matchers(one.silence, sites)}
        return cls.model_validate(given | {"seconds": int(one.at_most.total_seconds())} | more)

    @property
    def mark(self) -> str:
        """By whom its silences were created."""
        return f"recovery {self.run}"

    @property
    def which(self) -> str:
        """The matchers as people write them."""
        return ", ".join(map(written, self.matchers))

    @property
    def by_hand(self) -> str:
        """The command that lifts its silences."""
        own = f"amtool --alertmanager.url={self.at.url} silence"
        return f"{own} expire $({own} query -q --created-by='{self.mark}')"


class Silenced(Wire):
    """Whether a silence with the recovery's mark stands, as it was written: none, one, more by accident.

    ``changed``: one stands that somebody has changed; ``unknown``: nobody could be asked, why is ``trouble``.
    """

    stands: Literal["none", "one", "several", "changed", "unknown"]
    trouble: str | None = ""


class SilenceAlerts(Action[AlertsSpec, Silenced]):
    """Silence the alerts of a move, for as long as the recovery lasts, and never longer than it may stand.

    An Alertmanager that cannot be asked holds nobody up: then nothing is silenced. Undone, the silences with the
    recovery's mark are expired, exactly those. One that people have lifted is not made anew by the same order.
    """

    name = "alertmanager.silence"
    limit = timedelta(seconds=15)
    look_limit: ClassVar[timedelta] = timedelta(seconds=15)
    look_patience: ClassVar[timedelta] = timedelta(seconds=15)
    expires: ClassVar[timedelta] = timedelta(minutes=1)
    undo_patience: ClassVar[timedelta] = timedelta(seconds=30)
    guards: ClassVar[bool] = False
    beside: ClassVar[bool] = True

    def title(self, spec: AlertsSpec) -> str:
        """Say where what is silenced."""
        return f"silence alerts at {spec.at.name}"

    def passing(self, spec: AlertsSpec) -> str:
        """Say what to do about a silence that could not be lifted."""
        return (
            f"The silence of {spec.which} may stand on, until {spec.seconds // 60} min after it was made. Lift it:"
            f" {spec.by_hand}"
        )

    async def observe(self, spec: AlertsSpec) -> Silenced:
        """Look; who cannot be asked is told of, and is no failure."""
        try:
            return _stands(spec, (await _asked(spec, "GET", "silences")).said)
        except RecoveryError as error:
            return Silenced(stands="unknown", trouble=error.message)

    def desired(self, spec: AlertsSpec, before: Silenced) -> Silenced:
        """Want one; nothing of who cannot be asked."""
        return before if before.stands == "unknown" else Silenced(stands="one", trouble="")

    def partial(self, spec: AlertsSpec, before: Silenced, now: Silenced) -> bool:
        """Know two of its own, and that nobody can be asked just now."""
        return now.stands in ("several", "unknown")

    def begun(self, spec: AlertsSpec, before: Silenced, now: Silenced) -> bool:
        """Know it by two of its own; of one that cannot be asked just now it is not known, and asked again."""
        return now.stands in ("several", "unknown")

    async def apply(self, spec: AlertsSpec, before: Silenced) -> None:
        """Make one, unless it is there; leave only one, where an earlier attempt has made one as well."""
        found = await ask(spec.at, "GET", "silences")
        if not _standing(spec, found.said):
            _in_order(spec, _own(spec, found.said), lifted=True)
            await ask(spec.at, "POST", "silences", json=_silence(spec, found.at))
            found = await ask(spec.at, "GET", "silences")
        standing = _standing(spec, found.said)
        _in_order(spec, standing)
        for one in sorted(standing, key=lambda one: (one["startsAt"], one["id"]))[1:]:
            await ask(spec.at, "DELETE", "silence", one["id"])

    async def undo(self, spec: AlertsSpec, before: Silenced) -> None:
        """Expire what bears its mark."""
        standing = _standing(spec, (await ask(spec.at, "GET", "silences")).said)
        _in_order(spec, standing)
        for one in standing:
            await ask(spec.at, "DELETE", "silence", one["id"])


silence = SilenceAlerts()


class Alerts(Wire):
    """Which alerts of a move fire, by name, and what has become of its silence; ``trouble`` says who did not answer.

    ``lifted`` is before its time, by this recovery or by people; ``lost``: none with its mark is known there.
    """

    trouble: str = ""
    firing: dict[str, int] = {}
    silence: Literal["stands", "changed", "lifted", "lapsed", "lost"] = "lost"
    until: datetime | None = None


class SeeAlerts(Probe[AlertsSpec, Alerts]):
    """See which alerts fire that a silence is, or was, to keep from people; never a failure."""

    name = "alertmanager.alerts"
    limit = timedelta(seconds=15)
    patience = timedelta(seconds=15)
    beside: ClassVar[bool] = True

    def title(self, spec: AlertsSpec) -> str:
        """Say where they are seen."""
        return f"see which alerts fire at {spec.at.name}"

    async def observe(self, spec: AlertsSpec) -> Alerts:
        """Look at both."""
        wanted = [("filter", written(one)) for one in spec.matchers]
        try:
            async with asyncio.timeout(spec.within):
                alerts = await _asked(spec, "GET", "alerts", params=[*wanted, ("inhibited", "false")])
                silences = (await _asked(spec, "GET", "silences")).said
        except RecoveryError as error:
            return Alerts(trouble=error.message)
        except TimeoutError:
            return Alerts(trouble=f"{spec.at.where} has not answered within {spec.within:g} s")
        names = Counter(str(one["labels"].get("alertname", "?")) for one in alerts.said)
        return Alerts(firing=dict(names.most_common()), **_became(spec, silences))


see_alerts = SeeAlerts()


class Muted(Wire):
    """What people are shown of alerts, in words."""

    in_words: tuple[str, ...]


def in_words(alerts: Alerts) -> str:
    """Return how many alerts fire, and which."""
    if alerts.trouble:
        return f"not known: {alerts.trouble}"
    shown = [f"{name} × {count}" if count > 1 else name for name, count in list(alerts.firing.items())[:SHOWN]]
    more = [f"{len(alerts.firing) - SHOWN} more"] if len(alerts.firing) > SHOWN else []
    return f"{sum(alerts.firing.values())} ({', '.join([*shown, *more])})" if alerts.firing else "none"


async def _asked(spec: AlertsSpec, method: str, *path: str, **more: Any) -> Answered:
    """Ask, and once again where nobody answers."""
    for _ in range(LOOKS - 1):
        try:
            return await ask(spec.at, method, *path, **more)
        except Transient:
            await asyncio.sleep(0.2)
    return await ask(spec.at, method, *path, **more)


def _own(spec: AlertsSpec, silences: Iterable[Any]) -> list[dict[str, Any]]:
    return [one for one in silences if one["createdBy"] == spec.mark]


def _open(spec: AlertsSpec, silences: Iterable[Any]) -> list[dict[str, Any]]:
    return [one for one in _own(spec, silences) if one["status"]["state"] != "expired"]


def _as_written(spec: AlertsSpec, one: dict[str, Any]) -> bool:
    """Tell whether a silence is what a recovery wrote: nobody has moved its end, or made it another one's."""
    found, kept = MARK.search(one["comment"]), sorted(map(written, one["matchers"]))
    whole = bool(found) and _moment(one["endsAt"]) == _moment(found[4]) if found else False
    return whole and one["status"]["state"] == "active" and kept == sorted(map(written, spec.matchers))


def _stands(spec: AlertsSpec, silences: Iterable[Any]) -> Silenced:
    found = _open(spec, silences)
    if not all(_as_written(spec, one) for one in found):
        return Silenced(stands="changed")
    return Silenced(stands="several" if len(found) > 1 else "one" if found else "none")


def _standing(spec: AlertsSpec, silences: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the recovery's silences that stand. Raises Drifted where somebody has changed one."""
    found = _open(spec, silences)
    for one in found:
        if not _as_written(spec, one):
            raise Drifted(
                f"{silence.title(spec)}: somebody else changed the silence {one['id']}; it is theirs now, and stands"
                f" until {one['endsAt']}"
            )
    return found


def _in_order(spec: AlertsSpec, silences: Iterable[dict[str, Any]], lifted: bool = False) -> None:
    """Raise Stale where a later hand wrote one of ``silences``; or, of those that were ``lifted``, the same order."""
    mine = hand()
    if mine.system != spec.system:
        return
    own = (mine.epoch, mine.order, mine.attempt)
    for one in silences:
        found = MARK.search(one["comment"])
        was = tuple(int(word) for word in found.groups()[:3]) if found else (0, 0, 0)
        if was > own:
            raise Stale(f"{spec.at.name}: a later order has written the silence {one['id']}; nothing was written")
        if lifted and was[:2] == own[:2]:
            raise Stale(f"{spec.at.name}: the silence {one['id']} was lifted since it was made; it is not made anew")


def _silence(spec: AlertsSpec, now: datetime) -> dict[str, Any]:
    until = f"{now + timedelta(seconds=spec.seconds):%Y-%m-%dT%H:%M:%SZ}"
    mine = hand()
    mark = f"[{mine.epoch}.{mine.order}.{mine.attempt} until {until}]"
    comment = f"{spec.why}; lifted at its end. {mark}"
    return {
        "matchers": list(spec.matchers), "startsAt": PAST, "endsAt": until, "createdBy": spec.mark, "comment": comment
    }  # fmt: skip


def _became(spec: AlertsSpec, silences: Iterable[Any]) -> dict[str, Any]:
    """Return what has become of the recovery's silence, and until when it stands, or stood."""
    own = _own(spec, silences)
    if not own:
        return {"silence": "lost"}
    if open_ones := _open(spec, own):
        how = "stands" if all(_as_written(spec, one) for one in open_ones) else "changed"
        return {"silence": how, "until": max(_moment(one["endsAt"]) for one in open_ones)}
    last = max(own, key=lambda one: _moment(one["endsAt"]))
    found = MARK.search(last["comment"])
    lapsed = found is not None and _moment(last["endsAt"]) >= _moment(found[4])
    return {"silence": "lapsed" if lapsed else "lifted", "until": _moment(last["endsAt"])}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
