"""What is read out of a log after a fork: of versions whose servers do not run here, as their pg_waldump prints it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from activities.scripts import heads, own, text

NEW = """\
rmgr: Heap        len (rec/tot):     64/    64, tx: 3000000001, lsn: 0/00A08B48, prev 0/00A08B20, desc: INSERT off: 102, flags: 0x00, blkref #0: rel 1663/5/16384 blk 0
rmgr: Transaction len (rec/tot):     46/    46, tx: 3000000001, lsn: 0/00A08CF0, prev 0/00A08CB0, desc: COMMIT 2026-11-26 03:45:10.913411 UTC; subxacts: 3000000002 3000000003
rmgr: Heap        len (rec/tot):     76/    76, tx: 3000000003, lsn: 0/00A08DD0, prev 0/00A08DA8, desc: UPDATE old_xmax: 3000000003, old_off: 5, old_infobits: [], flags: 0x20, new_xmax: 0, new_off: 6, blkref #0: rel 1663/5/16384 blk 7, blkref #1: rel 1663/5/16384 blk 2
rmgr: Heap        len (rec/tot):     54/    54, tx: 3000000005, lsn: 0/00A08E48, prev 0/00A08E20, desc: DELETE xmax: 3000000005, off: 6, infobits: [KEYS_UPDATED], flags: 0x00, blkref #0: rel 1663/5/16384 blk 7
rmgr: Transaction len (rec/tot):     34/    34, tx:          0, lsn: 0/00A08E90, prev 0/00A08E48, desc: COMMIT_PREPARED 3000000005: 2026-11-26 03:45:11.000000 UTC
rmgr: Heap        len (rec/tot):     64/    64, tx: 3000000009, lsn: 0/00A09000, prev 0/00A08B20, desc: INSERT off: 9, flags: 0x00, blkref #0: rel 1663/5/16384 blk 0
rmgr: Transaction len (rec/tot):     34/    34, tx: 3000000009, lsn: 0/00A09100, prev 0/00A08D68, desc: ABORT 2026-11-26 03:45:12.914223 UTC
rmgr: Transaction len (rec/tot):     34/    34, tx:          0, lsn: 0/00A09200, prev 0/00A08D68, desc: COMMIT 2026-11-26 03:45:13.000000 UTC; inval msgs: catcache 1
"""  # noqa: E501
OLD = NEW.replace("old_off: 5", "off 5").replace("new_off: 6", "new off 6").replace("off: ", "off ")
ENDED = "pg_waldump: error: error in WAL record at 0/A09200: invalid record length at 0/A09300: wanted 24, got 0"


READ = "read_log\necho $count $first $last $end\nsort $work/xids\ncat $work/rows\nls $work/log"


def read(folder: Path, log: str, said: str, checkpoint: str = "0/A00000") -> subprocess.CompletedProcess[str]:
    """Read a log that a made-up pg_waldump prints."""
    data, bin_ = folder / "data", folder / "bin"
    for made in (data / "pg_wal", bin_, folder / "archive", folder / "work"):
        made.mkdir(parents=True)
    segment = data / "pg_wal" / "000000010000000000000000"
    segment.write_bytes(b"\x18\xd1" + bytes(10))
    (data / "pg_wal" / "000000010000000000000001").write_bytes(bytes(12))  # made for later: it holds nothing yet
    (folder / "log").write_text(log)
    control = f"Latest checkpoint location: {checkpoint}\nBytes per WAL segment: 16777216\n"
    programs = {
        "pg_waldump": f'cat {folder}/log; echo "{said}" >&2; exit 1',
        "pg_controldata": f"printf '%s' '{control}'",
    }
    for name, does in programs.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{does}\n")
        (bin_ / name).chmod(0o755)
    values = {
        "bin": bin_, "data": data, "archive": folder / "archive", "copy": "x", "from": "there",
    }  # fmt: skip
    asked = f"line=1 fork=0/A08B48 work={folder}/work\n{READ}"
    body = "\n".join([*heads(values), text("running"), own("parted"), "full() { fail Fatal full; }", asked])
    return subprocess.run(["sh", "-s"], input=body, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("log", [NEW, OLD], ids=["from version 16", "before 16"])
def test_committed_transactions_and_what_they_did_are_told(tmp_path: Path, log: str) -> None:
    done = read(tmp_path, log, ENDED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "2 2026-11-26T03:45:10.913411Z 2026-11-26T03:45:11.000000Z 0/00A09200",
        "3000000001", "3000000002", "3000000003", "3000000005",
        "INSERT 5 16384 0 102 0 102", "UPDATE 5 16384 2 5 7 6", "DELETE 5 16384 7 6 7 0",
        "000000010000000000000000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "checkpoint", "fault"),
    [
        ("pg_waldump: error: could not open file: Permission denied", "0/A00000", "cannot be read"),
        ("pg_waldump: error: invalid WAL segment size in WAL file (0 bytes)", "0/A00000", "cannot be read"),
        (ENDED, "0/A10000", "breaks off at 0/00A09200, before its last checkpoint"),
    ],
)
def test_log_that_cannot_be_read_to_its_end_is_a_fault(tmp_path: Path, said: str, checkpoint: str, fault: str) -> None:
    done = read(tmp_path, NEW, said, checkpoint)
    assert done.returncode != 0
    assert fault in done.stderr


def test_nothing_after_the_fork_is_nothing(tmp_path: Path) -> None:
    done = read(tmp_path, "", "pg_waldump: error: could not find a valid record after 0/A08B48")
    assert done.stdout.splitlines()[0] == "0 - - 0/A08B48", done.stderr
