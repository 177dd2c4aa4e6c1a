"""Real receivers on loopback: an HTTP server and an SMTP server that do what a test tells them."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Webhook:
    """An HTTP receiver: ``answers`` are used up one a request, then it answers 200.

    An answer is a status, or "hang": the request is taken and answered only when the test is over (or ``go`` is set).
    """

    def __init__(self, port: int = 0) -> None:
        self.answers: list[int | str] = []
        self.got: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.go = threading.Event()
        self.slow = 0.0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.got.append((dict(self.headers), body))
                answer = receiver.answers.pop(0) if receiver.answers else 200
                if answer == "hang" or receiver.slow:
                    receiver.go.wait(receiver.slow or None)
                with suppress(OSError):  # whoever asked may be gone
                    self.send_response(answer if isinstance(answer, int) else 200)
                    self.send_header("Location", "/elsewhere")
                    self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Stay silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = int(self.server.server_address[1])

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """What was posted."""
        return [body for _, body in self.got]


@contextmanager
def webhook(port: int = 0) -> Iterator[Webhook]:
    """Run an HTTP receiver."""
    found = Webhook(port)
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield found
    finally:
        found.go.set()
        found.server.shutdown()
        thread.join()
        found.server.server_close()


class Mailbox:
    """An SMTP server: ``answers`` to DATA are used up one a message ("hang" is none); ``refused`` are recipients."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.refused: set[str] = set()
        self.got: list[EmailMessage] = []

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Refuse, or take the recipient."""
        if address in self.refused:
            return "550 no such person"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep the message unless told to refuse it."""
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer[0] in "2h":
            assert isinstance(envelope.content, bytes)
            self.got.append(message_from_bytes(envelope.content, policy=policy.default))
        if answer == "hang":
            await asyncio.sleep(3600)
        return answer


@contextmanager
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    """Run an SMTP server; return it and its port."""
    found, port = Mailbox(), free_port()
    controller = Controller(found, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield found, port
    finally:
        controller.stop()


@contextmanager
def silent() -> Iterator[int]:
    """Return a port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])
