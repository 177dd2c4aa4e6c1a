"""Labs in folders of their own."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.estate import Lab


@contextmanager
def lab_apart() -> Iterator[Lab]:
    """Make a lab that nobody else uses; it is not up yet, and is taken down at the end."""
    # Short, because of unix sockets, and open to all, because under root the servers run as nobody.
    folder = Path(tempfile.gettempdir()) / f"lab-{secrets.token_hex(3)}"
    folder.mkdir(mode=0o755)
    found = Lab(folder / "lab", folder / "state")
    try:
        yield found
    finally:
        found.down()
        shutil.rmtree(folder)
