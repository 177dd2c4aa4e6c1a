"""Notifications over Apprise, to the addresses in the worker's own file (RECOVERY_NOTIFY).

The addresses hold passwords and tokens: what leaves this file names a channel, a service and a number, and nothing
that Apprise says is passed on.

What "delivered once" means. A target that has accepted a notice is never sent it again, and a target that was not
reached, or refused, got nothing. In between lies what nobody can know: a process that is killed after it sent and
before it wrote that down, and a target that takes the message and does not answer. Then the notice is sent again, once
after a death and ``len(LATER)`` times, ever later, to a silent target, and says that it may be a repeat; after that it
is given up, visibly. Every sending of a notice carries the same id, by which a receiver can tell a repeat: ``id`` in
the JSON of a webhook and its header ``Idempotency-Key``; in a mail ``X-Recovery-Notice``, because Apprise writes the
``Message-ID`` itself. What was sent is remembered on the disk of the worker; another worker with another state folder
that takes over in the middle does not know of it, and repeats unsaid. An address is known by its place in the file:
add new ones at the end while notices are on their way.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from apprise import Apprise, AppriseAsset, AppriseConfig, NotifyBase
from apprise.plugins.email import NotifyEmail
from temporalio import activity

from activities.sendings import End, Record, record
from recovery.errors import Fatal, Invalid, RecoveryError, Transient
from recovery.links import run_link
from recovery.models import digest
from recovery.notices import Notice, Sending, Sent, Target, Targets
from recovery.settings import Settings

T = TypeVar("T")

LATER = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1))
"""How long a silent target is left alone before each repeat: it may be starting again."""

READ_SECONDS = 20.0
"""How long an answer may take where the address does not say (``rto``): slow must not look like silent."""

_VARIABLE = "RECOVERY_NOTIFY"
_WHERE = re.compile(r"(?:line |entry #)\d+")
_CODE = re.compile(r"error=([1-9]\d\d)\b|\(([45]\d\d), b")
_UNREACHED = re.compile(r"Max retries exceeded|Connection error while submitting email")
_ended = logging.NullHandler()


@activity.defn(name="notify.targets")
async def targets(notice: Notice) -> Targets:
    """Return what stands behind the channels of ``notice``; faults name the channel or the variable."""
    return await _apart(lambda: find(Settings.from_environment().notify, notice.channels))


@activity.defn(name="notify.send")
async def send(order: Sending) -> Sent:
    """Send a notice to one target; raises Transient as long as another attempt may bring it there."""
    sending = _apart(lambda: _send(Settings.from_environment(), order))
    while not sending.done():
        activity.heartbeat()
        await asyncio.wait([sending], timeout=1)
    return sending.result()


def find(file: str, channels: Sequence[str]) -> Targets:
    """Return the targets behind ``channels``, each once; what is wrong is a sentence without any address."""
    try:
        services, faults = _services(file)
    except Invalid as error:
        return Targets(faults=(error.message,))
    found: dict[int, Target] = {}
    for channel in channels:
        numbers = [n for n, service in enumerate(services, 1) if _is_for(service, channel)]
        if not numbers:
            faults.append(f"channel {channel}: {_VARIABLE}: its file tags no usable address with this name")
        for number in numbers:
            if fault := _fault(services[number - 1]):
                faults.append(f"channel {channel}: {_VARIABLE}: address {number}: {fault}")
            else:
                target = Target(channel=channel, number=number, service=_kind(services[number - 1]))
                found.setdefault(number, target)
    return Targets(found=tuple(found.values()), faults=tuple(faults))


def _send(settings: Settings, order: Sending) -> Sent:
    key = digest([order.notice.id, order.target.number])
    with record(settings.folder("notified"), key) as told:
        if told is None:
            raise Transient("an earlier attempt is still at it", after=timedelta(seconds=5))
        if told.sent:
            return Sent(target=order.target, repeat=told.cut + told.unanswered > 0)
        if told.cut > 1 or told.unanswered > len(LATER):
            raise Fatal("it may have arrived: it was sent more than once, and nobody knows how that ended")
        return _once(settings, order, told)


def _once(settings: Settings, order: Sending, told: Record) -> Sent:
    repeat = told.cut + told.unanswered > 0
    link = run_link(settings, order.notice.workflow, order.notice.run)
    notice = order.notice.model_copy(update={"link": link})
    service = _service(settings.notify, order.target)
    told.begin()
    end, why = _deliver(service, notice, repeat)
    told.end(end)
    if end == "sent":
        return Sent(target=order.target, repeat=repeat)
    if end == "failed":
        raise Transient(why)
    if told.unanswered > len(LATER):
        raise Fatal(f"{why}; it may have arrived, and is not sent again")
    raise Transient(f"{why}; it may have arrived", after=LATER[told.unanswered - 1])


def _deliver(service: NotifyBase, notice: Notice, repeat: bool) -> tuple[End, str]:
    """Send, and tell how it ended from what Apprise notes of it: it answers only yes or no."""
    mark = "It may have reached you before: an earlier sending was not confirmed.\n\n" if repeat else ""
    _name(service, notice, repeat)
    result = Apprise(service, asset=service.asset).notify(
        body=f"{mark}{notice.body}\n\nIn the Temporal UI: {notice.link}\nNotice {notice.id}",
        title=f"(repeat) {notice.title}" if repeat else notice.title,
        notify_type=notice.tone,
        body_format="text",
        log_level=logging.DEBUG,
    )
    said = "\n".join(entry.message for entry in result.logs())
    if result:
        return "sent", ""
    if code := _CODE.search(said):
        return "failed", f"it refused with {code[1] or code[2]}"
    return ("failed", "it cannot be reached") if _UNREACHED.search(said) else ("unanswered", "it did not answer")


def _name(service: Any, notice: Notice, repeat: bool) -> None:
    """Have every sending carry the id of the notice, where the service has a place for it."""
    service.retry, service.optional = 0, False  # whether to send again is decided here, by what is remembered
    if isinstance(headers := getattr(service, "headers", None), dict):
        mail = {"X-Recovery-Notice": notice.id, "Auto-Submitted": "auto-generated"}
        service.headers = headers | (mail if isinstance(service, NotifyEmail) else {"Idempotency-Key": notice.id})
    if isinstance(extras := getattr(service, "payload_extras", None), dict):
        more = notice.model_dump(mode="json", include={"id", "kind", "workflow", "run", "link"})
        service.payload_extras = extras | more | {"repeat": repeat}


# --- the file -----------------------------------------------------------------------------------------------------


def _service(file: str, target: Target) -> NotifyBase:
    service = next(iter(_services(file)[0][target.number - 1 :]), None)
    if service is None or _kind(service) != target.service or not _is_for(service, target.channel):
        raise Invalid(f"{_VARIABLE}: its file was changed while this was on its way")
    if "socket_read_timeout" not in vars(service):
        service.socket_read_timeout = READ_SECONDS
    return service


def _services(file: str) -> tuple[list[NotifyBase], list[str]]:
    """Return each address of ``file`` as a service of its own, in their order, and which entries cannot be used."""
    content = _read(file)
    said = _Said()
    logger = _hushed()
    logger.addHandler(said)
    try:
        config = AppriseConfig(asset=_asset())
        config.add_config(content)
        services = [one for service in config.services() for one in _each(service)]
    finally:
        logger.removeHandler(said)
    return services, [f"{_VARIABLE}: {where} of its file cannot be used" for where in said.where]


def _asset() -> AppriseAsset:
    # No time limit of Apprise's: it only stops waiting, and the message may still go out. No redirects: one makes a
    # GET of a POST, and its answer would count as accepted.
    return AppriseAsset(
        app_id="Recovery",
        async_mode=False,
        service_timeout=0,
        http_redirects=False,
        storage_mode="memory",
        allow_templates=False,
    )


def _read(file: str) -> str:
    if not file:
        raise Invalid(f"{_VARIABLE}: is not set; name the file with the addresses of the channels")
    try:
        return Path(file).expanduser().read_text()
    except (OSError, RuntimeError, ValueError) as error:  # not there, no such home, no text
        why = getattr(error, "strerror", None) or type(error).__name__
        raise Invalid(f"{_VARIABLE}: its file cannot be read ({why})") from None


def _each(service: NotifyBase) -> Sequence[NotifyBase]:
    """Return one service for each recipient of a mail, so that none gets it again because another did not."""
    if not isinstance(service, NotifyEmail):
        return [service]
    alone = [copy.copy(service) for _ in service.targets]
    for one, recipient in zip(alone, service.targets, strict=True):
        one.targets = [recipient]
    return alone


def _is_for(service: NotifyBase, channel: str) -> bool:
    return channel.lower() in map(str, service.tags)  # Apprise writes tags in small letters


def _kind(service: NotifyBase) -> str:
    return str(service.service_name)


def _fault(service: NotifyBase) -> str:
    if isinstance(service, NotifyEmail) and (service.cc or service.bcc):
        return "cc and bcc cannot be told apart from the recipient; name every one in `to`"
    return "it names several targets; give each an address of its own" if len(service) > 1 else ""


class _Said(logging.Handler):
    """Hear in which lines Apprise finds fault, in this thread; the rest of what it says may hold an address."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.where: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the place, once."""
        if record.thread == self._thread:
            found = _WHERE.search(record.getMessage())
            where = found[0] if found else "something"
            self.where += [] if where in self.where else [where]


def _hushed() -> logging.Logger:
    """Return Apprise's logger, from which nothing goes on to the worker's log; nor do addresses from HTTP."""
    logging.getLogger("urllib3").setLevel(logging.INFO)
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(_ended)  # without one, warnings would go to standard error
    return logger


def _apart(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run ``work`` in a thread of its own: a target that hangs must neither use up a pool nor hold up the exit."""
    done: Future[Any] = Future()

    def run() -> None:
        if done.set_running_or_notify_cancel():
            try:
                done.set_result(work())
            except RecoveryError as error:
                done.set_exception(error)
            except Exception as error:  # whatever it is, its words may hold an address
                done.set_exception(Transient(f"{type(error).__name__} in the worker that sends it"))

    threading.Thread(target=run, daemon=True, name="notification").start()
    ending = asyncio.wrap_future(done)
    ending.add_done_callback(lambda one: one.cancelled() or one.exception())  # seen, also when nobody waits any more
    return ending
