"""Silences in real Alertmanagers: exactly the recovery's own are made and lifted; what people do there stands."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.alertmanagers import ask, matchers
from activities.silences import Alerts, AlertsSpec, Silenced, in_words, see_alerts, silence
from recovery.actions import Order
from recovery.errors import Drifted, Fatal, Invalid, RecoveryError, Refused, Stale, Transient
from recovery.fencing import Hand, acting
from runbooks.schema import Matcher
from tests.alertmanagers import Alertmanager, alertmanager
from tests.running import eventually

NONE, ONE = Silenced(stands="none"), Silenced(stands="one")
LOGIN = "basic_auth_users: {recovery: $2b$04$abcdefghijklmnopqrstuuLZYjhNQAOdpbzt4WxWlUHjv1wsyH5DG}\n"


@pytest.fixture
def alerts(tmp_path: Path) -> Iterator[Alertmanager]:
    """An Alertmanager in which alerts of both sites fire, and one of another."""
    with alertmanager(tmp_path) as found:
        found.fire("Down", site="north")
        found.fire("Slow", site="south")
        found.fire("Full", site="east")
        yield found


def order(spec: AlertsSpec, before: Silenced = NONE, **more: Any) -> Order[AlertsSpec, Silenced]:
    """Return what an activity would be told."""
    soon = datetime.now(UTC) + timedelta(minutes=5)
    return Order[AlertsSpec, Silenced](spec=spec, before=before, mode="live", not_after=soon, **more)


async def made(spec: AlertsSpec, number: int = 1, attempt: int = 1) -> Silenced:
    """Carry out the order to silence."""
    with acting(Hand(spec.system, 1, number, attempt)):
        return await silence.carry_out(order(spec))


async def lifted(spec: AlertsSpec) -> Silenced:
    """Carry it back."""
    return await silence.carry_back(order(spec))


async def test_alerts_of_both_sites_are_silenced_and_no_others(alerts: Alertmanager) -> None:
    assert await made(alerts.spec()) == ONE
    expected = {"Down": True, "Slow": True, "Full": False}
    await eventually(lambda: alerts.muted() == expected, "they are silenced", 5)
    [one] = alerts.silences()
    assert one["createdBy"] == "recovery 0a1b2c3d"
    hours = datetime.fromisoformat(one["endsAt"]) - datetime.fromisoformat(one["startsAt"])
    assert timedelta(hours=4, seconds=-2) < hours <= timedelta(hours=4)
    assert await lifted(alerts.spec()) == NONE
    await eventually(lambda: not any(alerts.muted().values()), "they are heard", 5)


async def test_others_silences_stay(alerts: Alertmanager) -> None:
    theirs = {alerts.silence(), alerts.silence(by="recovery 99999999")}
    await made(alerts.spec())
    await lifted(alerts.spec())
    assert {one["id"] for one in alerts.silences()} == theirs


async def test_doubled_silence_is_one_again(alerts: Alertmanager) -> None:
    spec = alerts.spec()
    await made(spec)
    one = alerts.silences()[0]
    twin = {key: one[key] for key in ("matchers", "startsAt", "endsAt", "createdBy", "comment")}
    alerts.tell("POST", "silences", twin)
    assert (await silence.observe(spec)).stands == "several"
    assert await made(spec) == ONE
    assert [found["id"] for found in alerts.silences()] == [one["id"]]


async def test_undo_lifts_both_of_a_doubled_one(alerts: Alertmanager) -> None:
    await made(alerts.spec())
    one = alerts.silences()[0]
    alerts.tell("POST", "silences", {key: value for key, value in one.items() if key not in ("id", "status")})
    assert len(alerts.silences()) == 2
    assert await lifted(alerts.spec()) == NONE
    assert alerts.silences() == []


async def test_lifted_by_people_it_is_not_made_anew(alerts: Alertmanager) -> None:
    spec = alerts.spec()
    await made(spec)
    alerts.lift(alerts.silences()[0]["id"])
    assert (await see_alerts.observe(spec)).silence == "lifted"
    with pytest.raises(Stale, match="was lifted since"):
        await made(spec, attempt=2)
    assert (await lifted(spec), alerts.silences()) == (NONE, [])


async def test_changed_by_people_it_is_theirs(alerts: Alertmanager) -> None:
    spec = alerts.spec()
    await made(spec)
    one = alerts.silences()[0]
    alerts.silence(**{key: one[key] for key in ("id", "matchers", "startsAt", "createdBy", "comment")})
    before = alerts.silences()
    assert (await see_alerts.observe(spec)).silence == "changed"
    with pytest.raises(Drifted, match="somebody else"):
        await lifted(spec)
    for write in (silence.apply, silence.undo):  # it was changed since it was looked at
        with pytest.raises(Drifted, match="it is theirs now"):
            await write(spec, NONE)
    assert alerts.silences() == before


async def test_silence_lapses_by_itself(alerts: Alertmanager) -> None:
    spec = alerts.spec().model_copy(update={"seconds": 2})
    await made(spec)
    await eventually(lambda: not alerts.silences(), "it has lapsed", 10)
    assert (await see_alerts.observe(spec)).silence == "lapsed"
    assert await lifted(spec) == NONE


async def test_kept_over_a_restart_it_is_found_again(alerts: Alertmanager) -> None:
    await made(alerts.spec())
    alerts.end(15)
    alerts.start()
    assert await silence.observe(alerts.spec()) == ONE


async def test_what_fires_is_told(alerts: Alertmanager) -> None:
    alerts.fire("Down", site="south")
    found = await see_alerts.observe(alerts.spec())
    assert (found.firing, found.silence) == ({"Down": 2, "Slow": 1}, "lost")
    assert in_words(found) == "3 (Down × 2, Slow)"
    await made(alerts.spec())
    found = await see_alerts.observe(alerts.spec())
    assert (sum(found.firing.values()), found.silence) == (3, "stands")


def test_many_alerts_are_counted() -> None:
    many = Alerts(firing={f"Alert{number}": 1 for number in range(23)})
    assert in_words(many).startswith("23 (Alert0, ")
    assert in_words(many).endswith("Alert19, 3 more)")


async def test_command_lifts_it_by_hand(alerts: Alertmanager) -> None:
    theirs = alerts.silence()
    await made(alerts.spec())
    said = silence.passing(alerts.spec())
    await asyncio.to_thread(subprocess.run, ["sh", "-c", said.partition("Lift it: ")[2]], check=True)
    assert [one["id"] for one in alerts.silences()] == [theirs]


async def test_out_of_reach_nothing_is_wanted(alerts: Alertmanager) -> None:
    alerts.end()
    before = await silence.observe(alerts.spec())
    assert before.stands == "unknown"
    assert "cannot be reached" in str(before.trouble)
    assert silence.desired(alerts.spec(), before) == before
    assert "cannot be reached" in (await see_alerts.observe(alerts.spec())).trouble
    for call in (made, lifted):
        with pytest.raises(Transient, match="cannot be reached"):
            await call(alerts.spec())


@pytest.mark.parametrize(
    ("secret", "error"),
    [
        ("recovery:s3cret\n", None),
        ("recovery:wrong\n", Refused),
        ("a-token", Refused),
        ("two\nlines", Invalid),
        (None, Fatal),
    ],
)
async def test_secret_logs_in(tmp_path: Path, secret: str | None, error: type[RecoveryError] | None) -> None:
    (tmp_path / "web.yml").write_text(LOGIN)
    if secret is not None:
        (tmp_path / "secret").write_text(secret)
    with alertmanager(tmp_path, web="web.yml") as found:
        spec = found.spec(secret=str(tmp_path / "secret"))
        if error is None:
            assert await made(spec) == ONE
            return
        with pytest.raises(error, match=r"alerting\.alerts\.secret") as caught:
            await ask(spec.at, "GET", "silences")
        assert not {"s3cret", "wrong", "a-token", "lines"} & set(caught.value.message.split())


async def test_certificate_is_checked(tmp_path: Path) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    make += ["-keyout", "key.pem", "-out", "ca.pem", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    await asyncio.to_thread(subprocess.run, make, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: ca.pem, key_file: key.pem}\n")
    with alertmanager(tmp_path, web="web.yml") as found:
        assert await made(found.spec(ca=str(tmp_path / "ca.pem"))) == ONE
        with pytest.raises(Fatal, match=r"alerting\.alerts\.ca: .* not trusted"):
            await ask(found.spec().at, "GET", "silences")


async def test_what_is_no_alertmanager_is_named(alerts: Alertmanager) -> None:
    with pytest.raises(Invalid, match=r"alerting\.alerts\.url"):
        await ask(alerts.spec(url=f"{alerts.url}/nowhere").at, "GET", "silences")


async def test_alertmanager_says_what_it_does_not_take(alerts: Alertmanager) -> None:
    wrong = {"name": "site", "value": "(x", "isRegex": True, "isEqual": True}
    with pytest.raises(Invalid, match=r"alerting\.alerts\.silence: .* does not take it"):
        await made(alerts.spec().model_copy(update={"matchers": (wrong,)}))


@pytest.mark.parametrize(
    ("given", "value", "regex", "equal"),
    [
        ({"value": "{site}"}, r"(eu\.west|north)", True, True),
        ({"value": "{site}-db*"}, r"(eu\.west|north)-db\*", True, True),
        ({"regex": "{site}-(db|web)"}, r"(eu\.west|north)-(db|web)", True, True),
        ({"value": "shop", "unless": True}, "shop", False, False),
    ],
)
def test_site_stands_for_both(given: dict[str, Any], value: str, regex: bool, equal: bool) -> None:
    [found] = matchers([Matcher.model_validate({"name": "site", **given})], ("eu.west", "north"))
    assert found == {"name": "site", "value": value, "isRegex": regex, "isEqual": equal}
