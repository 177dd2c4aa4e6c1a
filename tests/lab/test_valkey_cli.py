"""How the lab's stand-in for valkey-cli reads a line: each pair is what the real one (redis-cli 7.0.15) made of it."""

from __future__ import annotations

import os

import pytest

from lab.valkey_cli import split


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('ECHO "a b"', [b"a b"]),
        (r'ECHO "\x61\x62"', [b"ab"]),
        (r'ECHO "\x6"', [b"x6"]),
        (r'ECHO "\\x61"', [rb"\x61"]),
        (r'ECHO "q\"q"', [b'q"q']),
        (r'ECHO "n\nn\tt\r."', [b"n\nn\tt\r."]),
        (r'ECHO "\q\0"', [b"q0"]),
        ("ECHO   plain\n", [b"plain"]),
        (r'ECHO "\xff\x00z"', [b"\xff\x00z"]),
        (r'ECHO "ü\xc3\xbc"', ["üü".encode()]),
        (r'ECHO "a\\"', [b"a\\"]),
        (r'ECHO "\\\\\"\x5c"', [b'\\\\"\\']),
        ('ECHO ""', [b""]),
        ("", None),
    ],
)
def test_line_is_split_as_the_real_one_does(line: str, words: list[bytes] | None) -> None:
    assert [os.fsencode(word) for word in split(line)] == ([b"ECHO", *words] if words is not None else [])


@pytest.mark.parametrize("line", ['ECHO "a', r'ECHO "a\"'])
def test_line_without_its_end_is_refused(line: str) -> None:
    with pytest.raises(SystemExit, match="Invalid argument"):
        split(line)
