"""A `valkey-cli` for the lab's hosts: the wheel has the server only.

It takes `-h HOST -p PORT -s SOCKET -a PASSWORD -t SECONDS -n DATABASE -e --no-auth-warning --raw` and one command, the
password also as VALKEYCLI_AUTH or REDISCLI_AUTH, and prints the answer as the real one does when nobody watches: raw,
one element a line, nothing for nil. An error is printed, too, and the exit code is then 1; the real one says so only
with `-e`, which a script that relies on it has to give. Without a command it takes one from each line of standard
input, one after the other over one connection; an error ends nothing then. `--rdb FILE` has it fetch a snapshot as a
replica does, and write that. Not covered: TLS, clusters, subscriptions, pipelines, and everything interactive.

It is called many times while clients are shut out, so it loads next to nothing: not even `socket` and `typing`, which
take longer than the answer of a store (`python -I -S valkey_cli.py`).
"""

from __future__ import annotations

import _socket
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import BinaryIO

FLAGS = ("-e", "--no-auth-warning", "--raw")
VALUES = {"-h": "host", "-p": "port", "-a": "password", "--pass": "password", "-t": "seconds", "-n": "database"}
VALUES |= {"--rdb": "snapshot", "-s": "socket"}
LETTERS = {"n": b"\n", "r": b"\r", "t": b"\t", "b": b"\b", "a": b"\a"}
DIGITS = set("0123456789abcdefABCDEF")

Answer = bytes | list["Answer"] | None


class Said(Exception):
    """The store answered with an error, in its own words."""


def raw(answer: Answer) -> Iterator[bytes]:
    """Return the lines of an answer."""
    if isinstance(answer, list):
        for element in answer:
            yield from raw(element)
    else:
        yield answer or b""


def read(stream: BinaryIO) -> Answer:
    """Read one answer. Raises Said, OSError (the connection was lost)."""
    line = stream.readline()
    if line and line[:1] not in b"+-:$*":
        raise OSError(f'Protocol error, got "{line[:1]!r}" as reply type byte')
    line = whole(line)
    kind, text = line[:1], line[1:]
    if kind == b"-":
        raise Said(text.decode(errors="replace"))
    if kind == b"$":
        return None if text == b"-1" else whole(stream.read(int(text) + 2))
    if kind == b"*":
        return None if text == b"-1" else [read(stream) for _ in range(int(text))]
    return text


def whole(line: bytes) -> bytes:
    """Return a line without its end. Raises OSError when it was cut off."""
    if not line.endswith(b"\r\n"):
        raise ConnectionResetError("Connection reset by peer")
    return line[:-2]


def packed(words: Sequence[str]) -> bytes:
    """Return a command as it goes over the wire."""
    parts = [os.fsencode(word) for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def connected(given: dict[str, str]) -> _socket.socket:
    """Return a connection, each wait of which ends after so many seconds, if any were given. Raises OSError."""
    host, seconds, path = given["host"], given.get("seconds"), given.get("socket")
    family = _socket.AF_UNIX if path else _socket.AF_INET6 if ":" in host else _socket.AF_INET
    found = _socket.socket(family, _socket.SOCK_STREAM)
    if seconds:
        import struct

        limit = struct.pack("ll", int(float(seconds)), int(float(seconds) % 1 * 1_000_000))
        for option in (_socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO):
            found.setsockopt(_socket.SOL_SOCKET, option, limit)
    found.connect(path or (host, int(given["port"])))
    return found


def ask(given: dict[str, str], commands: Iterable[Sequence[str]]) -> Iterator[Answer | Said]:
    """Log in, send the commands and yield their answers. Raises Said (at the login), OSError."""
    first = [["AUTH", given["password"]]] if given.get("password") else []
    first += [["SELECT", given["database"]]] if int(given.get("database", 0)) else []
    connection = connected(given)
    with os.fdopen(connection.fileno(), "rb", closefd=False) as stream:
        for login in first:
            connection.sendall(packed(login))
            read(stream)
        for words in commands:
            connection.sendall(packed(words))
            try:
                yield read(stream)
            except Said as error:
                yield error
    connection.close()


def fetch(given: dict[str, str]) -> None:
    """Write a snapshot of the store into a file. Raises Said, OSError."""
    connection = connected(given)
    with os.fdopen(connection.fileno(), "rb", closefd=False) as stream, open(given["snapshot"], "wb") as file:  # noqa: PTH123
        if given.get("password"):
            connection.sendall(packed(["AUTH", given["password"]]))
            read(stream)
        connection.sendall(packed(["SYNC"]))
        while (line := stream.readline()) == b"\n":  # it says so that it is still at it
            pass
        if line[:1] == b"-":
            raise Said(whole(line)[1:].decode(errors="replace"))
        left = int(whole(line)[1:])
        while left:
            part = stream.read(min(left, 1 << 20))
            if not part:
                raise ConnectionResetError("Connection reset by peer")
            file.write(part)
            left -= len(part)
    connection.close()


def lines() -> Iterator[Sequence[str]]:
    """Yield the command of each line of standard input. Raises SystemExit."""
    for line in sys.stdin:
        if words := split(line):
            yield words


def split(line: str) -> list[str]:
    """Return the words of a line; one in quotation marks may hold blanks, and escapes. Raises SystemExit."""
    words: list[str] = []
    at, end = 0, len(line)
    while True:
        while at < end and line[at].isspace():
            at += 1
        begin = at
        if at == end:
            return words
        if line[at] == '"':
            at = closing(line, at + 1)
            words.append(plain(line[begin + 1 : at]))
            at += 1
        else:
            while at < end and not line[at].isspace():
                at += 1
            words.append(line[begin:at])


def closing(line: str, at: int) -> int:
    """Return where the quotation mark is that ends what began before ``at``. Raises SystemExit where there is none."""
    while True:
        mark, escape = line.find('"', at), line.find("\\", at)
        if mark < 0:
            sys.exit("Invalid argument(s)")
        if not 0 <= escape < mark:
            return mark
        at = escape + 2


def plain(text: str) -> str:
    """Return what escapes in a text mean, as the real one reads them: a byte (x and two digits), or a letter."""
    if "\\" not in text:
        return text
    first, *rest = text.replace("\\\\", "\\x5c").split("\\")
    found = [os.fsencode(first)]
    for part in rest:
        if part[:1] == "x" and len(part) > 2 and set(part[1:3]) <= DIGITS:
            found.append(bytes([int(part[1:3], 16)]) + os.fsencode(part[3:]))
        else:
            found.append(LETTERS.get(part[:1], os.fsencode(part[:1])) + os.fsencode(part[1:]))
    return os.fsdecode(b"".join(found))


def parsed(words: Sequence[str]) -> tuple[dict[str, str], Sequence[str]]:
    """Return the options and the command. Raises SystemExit."""
    secret = os.environ.get("VALKEYCLI_AUTH") or os.environ.get("REDISCLI_AUTH") or ""
    given, left = {"host": "127.0.0.1", "port": "6379", "password": secret}, list(words)
    while left and left[0].startswith("-"):
        option = left.pop(0)
        if option in FLAGS:
            continue
        if option not in VALUES or not left:
            sys.exit(f"valkey-cli: {option}: no such option, or nothing after it")
        given[VALUES[option]] = left.pop(0)
    return given, left


def main(arguments: Sequence[str]) -> int:
    """Read the arguments, ask, print, and return the exit code."""
    given, command = parsed(arguments)
    failed = False
    try:
        if "snapshot" in given:
            fetch(given)
            return 0
        for answer in ask(given, [command] if command else lines()):
            failed = isinstance(answer, Said)
            told = str(answer).encode() if isinstance(answer, Said) else b"\n".join(raw(answer))
            sys.stdout.buffer.write(told + b"\n")
    except Said as error:
        print(error)
        return 1
    except OSError as error:
        print(f"Could not connect to Valkey at {given['host']}:{given['port']}: {error}", file=sys.stderr)
        return 1
    return int(failed and bool(command))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
