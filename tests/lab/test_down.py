"""Nothing is left after down, and nothing else is touched."""

import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab import processes
from lab.estate import Lab
from lab.place import BadPlace, LabError, Place, environment, runner

FreshLab = Callable[[], Lab]


def naming(root: Path) -> list[str]:
    """Return the command lines that name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # ended meanwhile
    return [line for line in lines if str(root) in line]


def test_nothing_is_left_after_down(fresh_lab: FreshLab) -> None:
    lab = fresh_lab()
    lab.up()
    assert naming(lab.place.root)
    lab.down()
    assert naming(lab.place.root) == []
    assert processes.members(lab.place.root) == []
    assert not lab.place.root.exists()
    assert list(lab.state.iterdir()) == []


def test_strays_are_stopped_too(fresh_lab: FreshLab) -> None:
    lab = fresh_lab()
    lab.up(load=False)
    stray = ["setsid", "-f", "sleep", "300"]
    subprocess.run(stray, check=True, env=environment(lab.place), cwd=lab.place.home, **runner().drop())
    assert len(processes.members(lab.place.root)) > 2
    lab.down()
    assert processes.members(lab.place.root) == []


def test_down_without_purge_keeps_data(fresh_lab: FreshLab) -> None:
    lab = fresh_lab()
    before = lab.up(load=False)
    lab.down(purge=False)
    assert not any(program.running for program in lab.status().programs)
    after = lab.up(load=False)
    assert after.backups == before.backups
    assert [program.address for program in after.programs] == [program.address for program in before.programs]


def test_down_twice_is_no_error(fresh_lab: FreshLab) -> None:
    lab = fresh_lab()
    lab.up(load=False)
    lab.down()
    lab.down()
    with pytest.raises(LabError, match="no lab"):
        lab.status()


def test_foreign_folder_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    for work in (Lab(tmp_path, tmp_path / "state").up, Lab(tmp_path, tmp_path / "state").down):
        with pytest.raises(BadPlace, match="something else"):
            work()
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("root", ["/tmp/has space", "/tmp/has'quote", "/tmp/../etc", "/tmp/" + "x" * 90])
def test_unusable_roots_are_refused(root: str) -> None:
    with pytest.raises(BadPlace, match="RECOVERY_LAB"):
        Place(Path(root)).check()


def test_link_is_no_place_for_a_lab(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/var/tmp")
    with pytest.raises(BadPlace):
        Place(tmp_path / "link").check()


def test_two_ups_make_one_lab(fresh_lab: FreshLab) -> None:
    lab = fresh_lab()
    labs = [Lab(lab.place.root, lab.state) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = [one.result() for one in [pool.submit(each.up) for each in labs]]
    assert len({status.programs for status in found}) == 1
    assert len(found[0].backups) == 1


def test_recycled_pid_is_not_killed() -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        found = processes.look(stranger.pid)
        assert found is not None
        other = processes.Process(found.pid, "another boot:1")
        processes.stop([other], signal.SIGKILL, 0.1)
        time.sleep(0.1)
        assert stranger.poll() is None
        stranger.kill()


def test_fenced_database_is_not_hidden_by_a_new_one(fresh_lab: FreshLab) -> None:
    lab = fresh_lab()
    lab.up(load=False)
    lab.postgres.stop(quick=True)
    fenced = lab.place.data.with_name("data.fenced-0a1b2c3d")
    lab.place.data.rename(fenced)
    with pytest.raises(LabError, match=r"a fenced one in .*data\.fenced-0a1b2c3d"):
        lab.up(load=False)
    assert not lab.place.data.exists()
    fenced.rename(lab.place.data)
    lab.up(load=False)
    lab.postgres.stop(quick=True)
    lab.place.data.rename(fenced)
    lab.down()
    assert not lab.place.root.exists()
