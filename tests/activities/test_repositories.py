"""Backups that Barman and pgBackRest keep: listed, laid down and fetched from by their own programs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from activities.scripts import text
from activities.timelines import position
from tests.repositories import Repository, barman, pgbackrest

pytestmark = pytest.mark.drawn

SIZE = 1024 * 1024


@dataclass
class Story:
    """A full backup, and two that begin with it; a row before each, and rows after the last."""

    at: Repository
    full: str
    second: str
    third: str
    first: str
    last: str


@pytest.fixture(scope="module", params=["barman", "pgbackrest"])
def story(request: pytest.FixtureRequest) -> Iterator[Story]:
    with barman() if request.param == "barman" else pgbackrest() as at:
        at.commit()
        full = at.back_up()
        at.commit()
        second = at.back_up(incremental=True)
        at.commit()
        third = at.back_up(incremental=True)
        first = at.archive()
        for _ in range(3):
            at.commit()
        yield Story(at, full, second, third, first, at.archive())


def backups(rows: list[list[str]]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row[0] == "backup":
            found.setdefault(row[1], {})[row[2]] = row[3]
    return found


def segments(rows: list[list[str]]) -> dict[str, int]:
    return {row[2]: int(row[3]) for row in rows if row[:2] == ["wal", "archive"]}


def faults(rows: list[list[str]]) -> list[str]:
    return [row[1] for row in rows if row[0] == "fault"]


def flip(file: Path, at: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte[0] ^ 0xFF]))


def test_backups_are_listed_as_the_tool_has_them(story: Story) -> None:
    rows = story.at.listed()
    found = backups(rows)
    assert set(found) == {story.full, story.second, story.third}
    for backup, told in found.items():
        assert told.items() >= story.at.told(backup).items()
    assert [found[one]["incremental"] for one in (story.full, story.second, story.third)] == [
        "", story.full, story.second,
    ]  # fmt: skip
    assert faults(rows) == []


def test_backup_needs_no_log_after_its_end(story: Story) -> None:
    found = backups(story.at.listed())
    for told in found.values():
        start, stop = position(told["start_lsn"]), position(told["stop_lsn"])
        assert start < stop
        name = story.at.ask(f"select pg_walfile_name('{told['stop_lsn']}')")[0]
        # Under the present timeline, whose segments are all of one megabyte.
        assert name in segments(story.at.listed())
    newest = max(found.values(), key=lambda told: position(told["stop_lsn"]))
    assert position(newest["stop_lsn"]) < position(story.at.ask("select pg_current_wal_lsn()")[0])


def test_every_whole_segment_is_listed(story: Story) -> None:
    found = segments(story.at.listed())
    first = min(backups(story.at.listed()).values(), key=lambda told: position(told["start_lsn"]))["start_lsn"]
    numbers = range(position(first) // SIZE, int(story.last[16:], 16) + 1)
    assert {f"00000001{0:08X}{number:08X}" for number in numbers} <= set(found)
    assert set(found.values()) == {SIZE}
    assert max(found) == story.last


def test_missing_segment_is_a_hole(story: Story) -> None:
    kept = story.at.segment(story.first)
    aside = kept.with_name(f"aside.{kept.name}")
    kept.rename(aside)
    try:
        assert story.first not in segments(story.at.listed())
        assert fetched(story, story.first).returncode == 1
    finally:
        aside.rename(kept)
    assert story.first in segments(story.at.listed())


def test_segment_is_fetched_whole(story: Story) -> None:
    done = fetched(story, story.first)
    assert done.returncode == 0, done.stderr
    file = story.at.folder / "fetched" / story.first
    assert file.stat().st_size == SIZE
    said = story.at.run(story.at.binaries / "pg_waldump", "--quiet", file)
    assert said == ""


def test_what_there_is_not_is_not_fetched(story: Story) -> None:
    for name in ("0000000100000000000000F0", "0000000A.history"):
        done = fetched(story, name)
        assert done.returncode == 1
        assert list((story.at.folder / "fetched").iterdir()) == []


def fetched(story: Story, name: str) -> subprocess.CompletedProcess[str]:
    """Fetch into an empty folder, from a folder of data as the server of a copy does."""
    folder = story.at.folder / "fetched"
    shutil.rmtree(folder, ignore_errors=True)
    body = (
        f"mkdir {folder}; fetch_command >{folder}.sh; cd '{story.at.place.data}'; sh {folder}.sh {name} {folder}/{name}"
    )
    return story.at.shell(body)


@pytest.mark.parametrize(("which", "target"), [("full", 2), ("third", 4)])
def test_copy_is_exact_at_its_target(story: Story, which: str, target: int) -> None:
    copy, wrong = story.at.lay_down(getattr(story, which), f"exact-{which}")
    assert wrong == ""
    links = {link.name: link.resolve() for link in (copy / "data/pg_tblspc").iterdir()}
    assert list(links.values()) == [copy / "tablespaces" / name for name in links]
    assert len(links) == 1
    assert story.at.replayed(copy, story.at.rows[target]) == list(range(1, target + 1))


@pytest.mark.parametrize("relation", ["rows", "pg_proc"])  # one of which something changed, and one that is the same
def test_damaged_byte_is_named(story: Story, relation: str) -> None:
    path = story.at.ask(f"select pg_relation_filepath('{relation}')")[0]
    holder = story.third if story.at.file_of(story.third, path).exists() else story.full
    file = story.at.file_of(holder, path)
    middle = file.stat().st_size // 2  # what changed of it lies at its ends
    flip(file, middle)
    try:
        _, wrong = story.at.lay_down(story.third, "damaged")
    finally:
        flip(file, middle)
    assert wrong.startswith("Fatal: ")
    assert (holder if story.at.kind == "barman" else story.third) in wrong
    _, wrong = story.at.lay_down(story.third, "damaged")
    assert wrong == ""


def test_killed_laying_down_is_done_again(story: Story) -> None:
    copy = story.at.place.copies / "killed"
    for files in (0, 1, 100, 500):
        begun = story.at.begin(story.at.laying(story.third, copy))
        deadline = time.monotonic() + 60
        try:
            while count(copy / "data") < files and begun.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
        finally:
            os.killpg(begun.pid, signal.SIGKILL)
            begun.communicate(timeout=30)
    copy, wrong = story.at.lay_down(story.third, "killed")
    assert wrong == ""
    assert story.at.replayed(copy, story.at.rows[5]) == [1, 2, 3, 4, 5]


def count(folder: Path) -> int:
    """Return how many files there are, also while they come and go."""
    return len(subprocess.run(["find", folder, "-type", "f"], capture_output=True, check=False).stdout.splitlines())


def test_cut_segment_is_no_log(story: Story) -> None:
    kept = story.at.segment(story.first)
    content = kept.read_bytes()
    kept.write_bytes(content[: len(content) // 2])
    try:
        done = fetched(story, story.first)
        rows = story.at.listed()
    finally:
        kept.write_bytes(content)
    assert done.returncode == 1
    if story.at.kind == "barman":  # to pgBackRest the names are all there is to see
        assert story.first not in segments(rows)
        assert [fault for fault in faults(rows) if story.first in fault] == faults(rows) != []


@pytest.mark.parametrize("story", ["pgbackrest"], indirect=True)  # Barman puts the second one aside
def test_segment_of_two_contents_is_no_log(story: Story) -> None:
    kept = story.at.segment(story.first)
    other = kept.with_name(f"{story.first}-{'0' * 40}.gz")
    shutil.copyfile(kept, other)
    try:
        rows = story.at.listed()
    finally:
        other.unlink()
    assert story.first not in segments(rows)
    assert [fault for fault in faults(rows) if story.first in fault] == faults(rows) != []


def test_wrong_field_is_named(story: Story) -> None:
    for field, value in (("server", "nothing"), ("configuration", "/nowhere"), ("cli", "/nowhere/tool")):
        found = faults(story.at.listed(**{field: value}))
        assert len(found) == 1
        assert found[0].startswith(f"backups.{field}: ")


def test_history_is_listed_line_by_line(story: Story) -> None:
    story.at.keep_history("00000002.history", "1\t0/3000110\tno recovery target specified\n")
    rows = [row for row in story.at.listed() if row[0] == "history"]
    assert rows == [["history", "00000002", "1", "0/3000110"]]
    done = fetched(story, "00000002.history")
    assert done.returncode == 0, done.stderr


def test_all_is_there_while_the_database_is_down(story: Story) -> None:
    story.at.run(story.at.binaries / "pg_ctl", "-D", story.at.place.data, "-m", "fast", "stop")
    lost = story.at.place.data.rename(story.at.folder / "lost")
    try:
        assert set(backups(story.at.listed())) == {story.full, story.second, story.third}
        copy, wrong = story.at.lay_down(story.third, "down")
        assert wrong == ""
        assert story.at.replayed(copy, story.at.rows[5]) == [1, 2, 3, 4, 5]
    finally:
        lost.rename(story.at.place.data)
        story.at.start(story.at.place.data)


@pytest.mark.parametrize("story", ["barman"], indirect=True)  # pgBackRest compresses all of them
def test_compressed_backup_is_checked_too(story: Story) -> None:
    plain = story.at.configuration.read_text()
    story.at.configuration.write_text(f"{plain}backup_compression = gzip\n")
    try:
        backup = story.at.back_up()
        story.at.commit()
        story.at.commit()
        story.at.archive()
        copy, wrong = story.at.lay_down(backup, "compressed")
    finally:
        story.at.configuration.write_text(plain)
    assert wrong == ""
    assert story.at.file_of(backup, "base.tar.gz").exists()
    last = max(story.at.rows) - 1
    assert story.at.replayed(copy, story.at.rows[last]) == list(range(1, last + 1))


@pytest.mark.parametrize("story", ["barman"], indirect=True)  # pgBackRest lists none that was not finished
def test_failed_backup_says_only_that(story: Story) -> None:
    backup = story.at.back_up()
    begins = backups(story.at.listed())[backup]["start_lsn"]
    story.at.archive()  # what comes later is there: Barman does not wait for what is missing
    kept = story.at.segment(story.at.ask(f"select pg_walfile_name('{begins}')")[0])
    aside = kept.with_name(f"aside.{kept.name}")
    kept.rename(aside)
    try:
        words = ("-c", story.at.configuration, "check-backup", "orders", backup)
        story.at.run(story.at.cli, *words, check=False)  # the mark stays when the segment is back
    finally:
        aside.rename(kept)
    assert backups(story.at.listed())[backup] == {"path": backup, "status": "FAILED"}
    _, wrong = story.at.lay_down(backup, "failed")
    assert wrong == f"Fatal: Barman has no backup {backup} of orders that is done any more\n"


@pytest.mark.parametrize(
    "given",
    [
        {"a": [1, {"b": None}, {"c": True}], "d": {}, "e": []},
        [{"text": 'a "quoted", \\ and },{ within'}, {"text": "/"}],
        {"long": [{"n": n} for n in range(50)]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_told_as_rows(given: Any, indent: int | None) -> None:
    said = json_rows(json.dumps(given, indent=indent))
    assert (said.returncode, said.stdout.splitlines()) == (0, list(flat("", given)))


@pytest.mark.parametrize("given", ['{"a": ', "WARNING (no JSON)", '[{"a": 1},{"b": "cut'])
def test_what_is_not_json_is_refused(given: str) -> None:
    assert json_rows(given).returncode == 1


def json_rows(given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f"{text('json')}json_rows"], input=given, capture_output=True, text=True, timeout=10
    )


def flat(path: str, value: object) -> Iterator[str]:
    match value:
        case dict() | list():
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            for key, one in inner:
                yield from flat(f"{path}/{key}" if path else str(key), one)
        case None:
            yield f"{path}\t"
        case bool():
            yield f"{path}\t{str(value).lower()}"
        case _:
            yield f"{path}\t{value}"
