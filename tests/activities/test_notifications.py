"""Delivery to real receivers: once, whatever goes wrong, and nothing secret in what is said about it."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities import notifications
from activities.notifications import LATER, find
from recovery.errors import Fatal, Invalid, RecoveryError, Transient
from recovery.models import digest
from recovery.notices import Notice, Sending, Sent, Target
from recovery.settings import Settings
from tests.activities.receivers import Mailbox, Webhook, free_port, mailbox, silent, webhook
from tests.running import eventually

ROOT = Path(__file__).parents[2]
SECRET = "hunter2"
NOTICE = Notice(
    id="run-1/3", number=3, workflow="lab/orders", run="run-1", channels=("ops",), kind="waits",
    tone="warning", title="orders: dba to decide: keep the copy", body="WAITING for 1 × dba.\n\n- rows: 7",
)  # fmt: skip
SENDER = """
import asyncio
from temporalio.testing import ActivityEnvironment
from activities import notifications
from recovery.notices import Sending
order = Sending.model_validate_json({order!r})
asyncio.run(ActivityEnvironment().run(notifications.send, order))
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECOVERY_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("RECOVERY_NOTIFY", str(tmp_path / "notify.conf"))
    return tmp_path / "state"


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as found:
        yield found


@pytest.fixture
def mail() -> Iterator[tuple[Mailbox, int]]:
    with mailbox() as found:
        yield found


def addresses(*lines: str) -> None:
    Path(os.environ["RECOVERY_NOTIFY"]).write_text("\n".join(lines))


def mailto(port: int, *to: str, more: str = "") -> str:
    return f"mailto://127.0.0.1:{port}/{'/'.join(to)}?from=recovery@example.org&mode=insecure&cto=1{more}"


def order(number: int = 1, service: str = "JSON", **fields: Any) -> Sending:
    notice = NOTICE.model_copy(update=fields)
    return Sending(notice=notice, target=Target(channel="ops", number=number, service=service))


async def send(what: Sending) -> Sent:
    sent = await ActivityEnvironment().run(notifications.send, what)
    assert isinstance(sent, Sent)
    return sent


async def fails(what: Sending, kind: type[RecoveryError]) -> RecoveryError:
    with pytest.raises(kind) as raised:
        await send(what)
    return raised.value


def text(message: EmailMessage) -> str:
    assert message.get_content_type() == "text/plain"
    return str(message.get_content()).replace("\r\n", "\n")


# --- what arrives -------------------------------------------------------------------------------------------------


async def test_webhook_carries_the_notice_and_its_id(hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    assert await send(order()) == Sent(target=order().target)
    [(headers, body)] = hook.got
    assert headers["Idempotency-Key"] == body["id"] == "run-1/3"
    assert (body["title"], body["type"], body["kind"]) == (NOTICE.title, "warning", "waits")
    assert (body["workflow"], body["run"], body["repeat"]) == ("lab/orders", "run-1", False)
    assert body["link"].endswith("/namespaces/default/workflows/lab%2Forders/run-1/user-metadata")
    assert body["message"] == f"{NOTICE.body}\n\nIn the Temporal UI: {body['link']}\nNotice run-1/3"


async def test_mail_is_plain_text_with_the_id(mail: tuple[Mailbox, int]) -> None:
    box, port = mail
    addresses(f"ops={mailto(port, 'bob@example.org')}")
    await send(order(service="E-Mail"))
    [message] = box.got
    assert (message["Subject"], message["To"]) == (NOTICE.title, "bob@example.org")
    assert (message["X-Recovery-Notice"], message["Auto-Submitted"]) == ("run-1/3", "auto-generated")
    assert text(message).startswith("WAITING for 1 × dba.\n\n- rows: 7\n\nIn the Temporal UI: http")


async def test_accepted_notice_is_not_sent_again(hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    assert await send(order()) == await send(order())
    assert len(hook.got) == 1
    await send(order(id="run-1/4"))
    assert [body["id"] for body in hook.bodies] == ["run-1/3", "run-1/4"]


# --- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [500, 503, 404, 302])
async def test_refused_webhook_is_tried_again_unmarked(hook: Webhook, code: int) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    hook.answers = [code, code]
    for _ in range(2):
        assert (await fails(order(), Transient)).message == f"it refused with {code}"
    assert await send(order()) == Sent(target=order().target)
    assert [body["repeat"] for body in hook.bodies] == [False] * 3


async def test_refused_mail_is_tried_again_unmarked(mail: tuple[Mailbox, int]) -> None:
    box, port = mail
    addresses(f"ops={mailto(port, 'bob@example.org')}")
    box.answers = ["451 try later"]
    assert (await fails(order(service="E-Mail"), Transient)).message == "it refused with 451"
    await send(order(service="E-Mail"))
    assert [message["Subject"] for message in box.got] == [NOTICE.title]


async def test_refused_recipient_costs_nobody_a_repeat(mail: tuple[Mailbox, int]) -> None:
    box, port = mail
    addresses(f"ops={mailto(port, 'alice@example.org', 'bob@example.org')}")
    box.refused = {"alice@example.org"}
    found = find(os.environ["RECOVERY_NOTIFY"], ["ops"]).found
    assert [target.number for target in found] == [1, 2]
    for _ in range(2):
        assert (await fails(order(1, "E-Mail"), Transient)).message == "it refused with 550"
        await send(order(2, "E-Mail"))
    assert [message["To"] for message in box.got] == ["bob@example.org"]


async def test_address_does_not_change_how_often_it_is_sent(hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in?retry=3&wait=0&optional=yes")
    hook.answers = [500]
    await fails(order(), Transient)
    assert len(hook.got) == 1


async def test_fault_of_the_worker_is_named_by_its_kind_only(hook: Webhook, state: Path) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    (state / "notified" / digest(["run-1/3", 1])).mkdir(parents=True)
    assert (await fails(order(), Transient)).message == "IsADirectoryError in the worker that sends it"
    assert hook.got == []


async def test_unreachable_webhook_is_tried_again_unmarked() -> None:
    port = free_port()
    addresses(f"ops=json://127.0.0.1:{port}/in")
    assert (await fails(order(), Transient)).message == "it cannot be reached"
    with webhook(port) as hook:
        assert not (await send(order())).repeat
        assert len(hook.got) == 1


async def test_mail_server_without_greeting_got_nothing() -> None:
    with silent() as port:
        addresses(f"ops={mailto(port, 'bob@example.org', more='&cto=0.3')}".replace("&cto=1", ""))
        failure = await fails(order(service="E-Mail"), Transient)
    assert (failure.message, failure.next_retry_delay) == ("it cannot be reached", None)


async def test_slow_receiver_gets_it_once(hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    hook.slow = 4.1  # beyond what Apprise waits by itself
    assert not (await send(order())).repeat
    assert len(hook.got) == 1


async def test_silent_receiver_gets_marked_repeats_ever_later(hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in?rto=0.2")
    hook.answers = ["hang"] * 9
    for pause in LATER:
        failure = await fails(order(), Transient)
        assert (failure.message, failure.next_retry_delay) == ("it did not answer; it may have arrived", pause)
    assert "not sent again" in (await fails(order(), Fatal)).message
    assert "more than once" in (await fails(order(), Fatal)).message
    assert [body["repeat"] for body in hook.bodies] == [False, True, True, True]
    assert {body["id"] for body in hook.bodies} == {"run-1/3"}
    assert hook.bodies[1]["title"] == f"(repeat) {NOTICE.title}"
    assert hook.bodies[1]["message"].startswith("It may have reached you before")


async def test_mail_without_an_answer_is_repeated_marked(mail: tuple[Mailbox, int]) -> None:
    box, port = mail
    addresses(f"ops={mailto(port, 'bob@example.org', more='&cto=0.5')}".replace("&cto=1", ""))
    box.answers = ["hang"]
    assert "may have arrived" in (await fails(order(service="E-Mail"), Transient)).message
    assert (await send(order(service="E-Mail"))).repeat
    assert [message["Subject"] for message in box.got] == [NOTICE.title, f"(repeat) {NOTICE.title}"]


async def test_attempts_do_not_overlap(hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    hook.answers = ["hang"]
    first = threading.Thread(target=lambda: notifications._send(Settings.from_environment(), order()))
    first.start()
    await eventually(lambda: hook.got, "the first sending")
    assert "still at it" in (await fails(order(), Transient)).message
    hook.go.set()
    first.join()
    assert await send(order()) == Sent(target=order().target)
    assert len(hook.got) == 1


async def killed_while_sending(hook: Webhook) -> None:
    """Send from a process of its own, and kill -9 it when the message is there and the answer is not."""
    before = len(hook.got)
    command = [sys.executable, "-c", SENDER.format(order=order().model_dump_json())]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            await eventually(lambda: len(hook.got) > before, "the message")
        finally:
            process.kill()
    hook.go.set()
    hook.go = threading.Event()


async def test_kill_in_the_middle_costs_one_marked_repeat(hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    hook.answers = ["hang"]
    await killed_while_sending(hook)
    assert (await send(order())).repeat
    assert (await send(order())).repeat
    assert [body["repeat"] for body in hook.bodies] == [False, True]


async def test_second_kill_ends_the_repeats(hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    hook.answers = ["hang", "hang"]
    await killed_while_sending(hook)
    await killed_while_sending(hook)
    assert "may have arrived" in (await fails(order(), Fatal)).message
    assert [body["repeat"] for body in hook.bodies] == [False, True]


# --- the file -----------------------------------------------------------------------------------------------------


def faults(*channels: str) -> tuple[str, ...]:
    return find(os.environ.get("RECOVERY_NOTIFY", ""), channels).faults


def test_addresses_are_found_once_each_in_their_order() -> None:
    addresses(
        "# who is told", "ops,night=json://127.0.0.1:1/a", f"night={mailto(1, 'a@example.org', 'b@example.org')}",
        "json://127.0.0.1:1/untagged",
    )  # fmt: skip
    found = find(os.environ["RECOVERY_NOTIFY"], ["Night", "ops"])
    assert [(t.channel, t.number, t.service) for t in found.found] == [
        ("Night", 1, "JSON"), ("Night", 2, "E-Mail"), ("Night", 3, "E-Mail"),
    ]  # fmt: skip
    assert found.faults == ()


def test_yaml_is_read_as_well() -> None:
    addresses("urls:", "  - json://127.0.0.1:1/a:", "      tag: ops")
    assert [target.service for target in find(os.environ["RECOVERY_NOTIFY"], ["ops"]).found] == ["JSON"]


def test_example_of_the_readme_can_be_used() -> None:
    blocks = (ROOT / "README.md").read_text().split("```")
    addresses(*next(block for block in blocks if "\ndba=" in block).splitlines())
    found = find(os.environ["RECOVERY_NOTIFY"], ["dba", "pager"])
    assert [(target.channel, target.service) for target in found.found] == [
        ("dba", "E-Mail"), ("dba", "E-Mail"), ("pager", "JSON"),
    ]  # fmt: skip
    assert found.faults == ()


def test_unknown_channel_is_named_and_hides_no_other() -> None:
    addresses("ops=json://127.0.0.1:1/a")
    found = find(os.environ["RECOVERY_NOTIFY"], ["pager", "ops"])
    assert found.faults == ("channel pager: RECOVERY_NOTIFY: its file tags no usable address with this name",)
    assert [target.channel for target in found.found] == ["ops"]


@pytest.mark.parametrize("special", ["all", "always", "ops,night", "ops night"])
def test_channel_is_a_name_and_no_expression(special: str) -> None:
    addresses("ops,always=json://127.0.0.1:1/a", "night=json://127.0.0.1:1/b")
    assert len(find(os.environ["RECOVERY_NOTIFY"], [special]).found) == (special == "always")


def test_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECOVERY_NOTIFY")
    assert faults("ops") == ("RECOVERY_NOTIFY: is not set; name the file with the addresses of the channels",)


@pytest.mark.parametrize(
    ("name", "why"),
    [("nowhere", "No such file or directory"), (".", "Is a directory"), ("~nobody-here/x", "RuntimeError")],
)
def test_unreadable_file_is_named_by_its_variable(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECOVERY_NOTIFY", name)
    assert faults("ops") == (f"RECOVERY_NOTIFY: its file cannot be read ({why})",)


def test_unusable_entry_is_named_by_its_line() -> None:
    addresses("ops=json://127.0.0.1:1/a", f"ops=nosuch://{SECRET}@127.0.0.1/", f"ops=mailto://x:{SECRET}@/")
    found = find(os.environ["RECOVERY_NOTIFY"], ["ops"])
    assert found.faults
    assert all(fault.endswith("of its file cannot be used") for fault in found.faults)
    assert len(found.found) == 1


def test_copies_of_a_mail_are_refused() -> None:
    addresses(f"ops={mailto(1, 'a@example.org', more='&cc=b@example.org')}")
    assert "name every one in `to`" in faults("ops")[0]


def test_address_with_several_targets_is_refused() -> None:
    addresses("ops=ntfy://127.0.0.1/one/two")
    assert "several targets" in faults("ops")[0]


async def test_changed_file_stops_what_is_on_its_way(hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    assert "was changed" in (await fails(order(2), Invalid)).message
    assert "was changed" in (await fails(order(1, "E-Mail"), Invalid)).message
    addresses(f"others=json://127.0.0.1:{hook.port}/in")
    assert "was changed" in (await fails(order(1), Invalid)).message
    assert hook.got == []


# --- secrets ------------------------------------------------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The log of a worker at its most talkative."""
    said = io.StringIO()
    root, handler = logging.getLogger(), logging.StreamHandler(said)
    before = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    logging.getLogger("urllib3.connectionpool").info("it is heard")
    yield said
    root.removeHandler(handler)
    root.setLevel(before)


async def test_no_secret_in_logs_errors_and_answers(
    hook: Webhook, log: io.StringIO, capfd: pytest.CaptureFixture[str], state: Path
) -> None:
    addresses(
        f"ops=json://me:{SECRET}@127.0.0.1:{hook.port}/{SECRET}?+Authorization={SECRET}&:token={SECRET}&rto=0.3",
        f"ops=json://127.0.0.1:{free_port()}/{SECRET}",
        f"ops=mailto://me:{SECRET}@127.0.0.1:{free_port()}/bob@example.org?from=r@example.org&mode=insecure",
        f"ops=nosuch://{SECRET}", f"ops={SECRET}?!",
    )  # fmt: skip
    assert find(os.environ["RECOVERY_NOTIFY"], ["ops"]).found == ()  # the last line spoils the whole file
    told = [find(os.environ["RECOVERY_NOTIFY"], ["ops"]).model_dump_json()]
    lines = Path(os.environ["RECOVERY_NOTIFY"]).read_text().splitlines()
    addresses(*lines[:4])
    told.append(find(os.environ["RECOVERY_NOTIFY"], ["ops"]).model_dump_json())
    hook.answers = [500, "hang"]
    for what in (order(1), order(1), order(2), order(3, "E-Mail")):
        failure = await fails(what, Transient)
        told.append(f"{failure!r} {failure.details} {failure.__cause__!r} {failure.__context__!r}")
    told.append((await send(order(1))).model_dump_json())
    assert SECRET in str(hook.got[-1])  # it was really in use
    assert "it is heard" in log.getvalue()
    told += [
        log.getvalue(),
        *capfd.readouterr(),
        *(file.name + file.read_text() for file in (state / "notified").iterdir()),
    ]
    assert [one for one in told if SECRET in one] == []
