"""A `valkey-cli` for the lab's hosts: the wheel has the server only. Made with the client library.

It takes `-h HOST -p PORT -a PASSWORD -t SECONDS -n DATABASE -e --no-auth-warning --raw` and one command, the password
also as VALKEYCLI_AUTH or REDISCLI_AUTH, and prints the answer as the real one does when nobody watches: raw, one
element a line, nothing for nil. An error is printed, too, and the exit code is then 1; the real one says so only with
`-e`, which a script that relies on it has to give. Not covered: TLS, clusters, standard input, subscriptions,
pipelines, and everything interactive.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from valkey._parsers import _RESP2Parser
from valkey.connection import Connection
from valkey.exceptions import ResponseError, ValkeyError


class Parser(_RESP2Parser):
    """Keeps errors as the server said them."""

    @classmethod
    def parse_error(cls, response: str) -> ResponseError:
        """Return the error with its code, which the client library would turn into a class."""
        return ResponseError(response)


def raw(answer: Any) -> Iterator[bytes]:
    """Return the lines of an answer."""
    if isinstance(answer, list):
        for element in answer:
            yield from raw(element)
    elif answer is None:
        yield b""
    else:
        yield answer if isinstance(answer, bytes) else str(answer).encode()


def ask(given: argparse.Namespace) -> Any:
    """Send the command and return its answer. Raises ValkeyError."""
    connection = Connection(
        host=given.host, port=given.port, db=given.database, password=given.password,
        socket_connect_timeout=given.seconds, socket_timeout=given.seconds, parser_class=Parser,
        lib_name=None, lib_version=None,
    )  # fmt: skip
    try:
        connection.send_command(*given.command)
        return connection.read_response()
    finally:
        connection.disconnect()


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, ask, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="valkey-cli", description=__doc__, add_help=False)
    parser.add_argument("-h", dest="host", default="127.0.0.1")
    parser.add_argument("-p", dest="port", type=int, default=6379)
    secret = os.environ.get("VALKEYCLI_AUTH") or os.environ.get("REDISCLI_AUTH")
    parser.add_argument("-a", "--pass", dest="password", default=secret)
    parser.add_argument("-t", dest="seconds", type=float)
    parser.add_argument("-n", dest="database", type=int, default=0)
    parser.add_argument("-e", "--no-auth-warning", "--raw", dest="ignored", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    if not given.command:
        parser.error("one command is needed")
    try:
        answer = ask(given)
    except ResponseError as error:
        print(error)
        return 1
    except ValkeyError as error:
        print(f"Could not connect to Valkey at {given.host}:{given.port}: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(b"\n".join(raw(answer)) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
