"""What a database keeps as its own while another site's files take their place: the real shell, in a folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from activities import scripts

UPSTREAM = r"host=192.0.2.1 port=7000 passfile=/a\b application_name=it's"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory, as far as settings go."""
    found = tmp_path / "pg data"
    (found / "conf.d").mkdir(parents=True)
    (found / "postgresql.conf").write_text("port = 1\n")
    (found / "postgresql.auto.conf").write_text(
        "primary_conninfo = 'host=old'\nprimary_slot_name = 's'\nwork_mem = 9\n"
    )
    (found / "postgresql.auto.conf").chmod(0o640)
    (found / "conf.d" / "own.conf").write_text("own\n")
    (found / "server.key").write_text("own key\n")
    (found / "postmaster.opts").write_text("own opts\n")
    return found


def run(data: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run ``body`` with what the scripts of a switch share."""
    values = {"data": data, "copy": f"{data}.switch-7", "owner": "7", "bin": "/nonexistent", "upstream": UPSTREAM}
    text = "\n".join([*scripts.heads(values), scripts.text("running"), scripts.text("standing_by"), body])
    return subprocess.run(["sh", "-s"], input=text, capture_output=True, text=True, timeout=20)


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the files beneath a folder, with their rights."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_text(), path.stat().st_mode) for path in found}


def overwritten(data: Path) -> None:
    """Have another site's files take their place."""
    (data / "postgresql.conf").write_text("port = 2\n")
    (data / "postgresql.auto.conf").write_text("other = 1\n")
    (data / "conf.d" / "other.conf").write_text("other\n")
    (data / "conf.d" / "own.conf").unlink()
    (data / "other.crt").write_text("other\n")
    (data / "server.key").unlink()
    (data / "postmaster.opts").unlink()
    (data / "base").write_text("rows of the other site\n")


def test_what_was_there_comes_back_as_it_was(data: Path) -> None:
    before = contents(data)
    assert run(data, "keep_settings").returncode == 0
    overwritten(data)
    assert run(data, 'restores=yes; settle "$DATA"; drop').returncode == 0
    more = {"base", "standby.signal"}
    assert {name: found for name, found in contents(data).items() if name not in more} == before
    assert [path.name for path in data.parent.iterdir()] == [data.name]


def test_another_one_is_followed_whatever_its_address_is_written_with(data: Path) -> None:
    before = contents(data)
    run(data, "keep_settings")
    overwritten(data)
    assert run(data, 'settle "$DATA"').returncode == 0
    auto, mode = contents(data)["postgresql.auto.conf"]
    assert (
        auto
        == "work_mem = 9\n"
        + r"primary_conninfo = 'host=192.0.2.1 port=7000 passfile=/a\\b application_name=it''s'"
        + "\n"
    )
    assert mode == before["postgresql.auto.conf"][1]
    assert (data / "standby.signal").exists()


def test_settings_are_kept_once(data: Path) -> None:
    run(data, "keep_settings")
    kept = contents(Path(f"{data}.switch-7"))
    overwritten(data)
    run(data, "keep_settings")
    assert contents(Path(f"{data}.switch-7")) == kept


def test_settings_that_are_half_kept_are_kept_anew(data: Path) -> None:
    half = Path(f"{data}.switch-7", "kept", "files")
    half.mkdir(parents=True)
    (half / "postgresql.conf").write_text("po")
    (half / "no.conf").write_text("of an earlier try\n")
    assert run(data, "keep_settings").returncode == 0
    assert (half / "postgresql.conf").read_text() == "port = 1\n"
    assert not (half / "no.conf").exists()
    assert (half.parent / "role").read_text() == "7\n"


def test_nothing_is_settled_from_what_is_half_kept(data: Path) -> None:
    Path(f"{data}.switch-7", "kept", "files").mkdir(parents=True)
    before = contents(data)
    done = run(data, 'settle "$DATA"')
    assert done.returncode == 3
    assert "Fatal: the settings that were kept" in done.stderr
    assert contents(data) == before


def test_what_is_not_there_is_not_kept(data: Path) -> None:
    data.rename(data.with_name("moved"))
    done = run(data, "keep_settings")
    assert done.stderr.startswith("Drifted: ")
    assert not Path(f"{data}.switch-7").exists()


def test_role_is_dropped_last(data: Path) -> None:
    run(data, "keep_settings")
    left = run(data, 'rm() { command rm "$@"; [ ! -e "$COPY" ] || find "$COPY" -type f | tail -n 1; }; drop').stdout
    assert left.splitlines()[-1].endswith("/kept/role")
