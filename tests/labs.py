"""Labs in folders of their own."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.estate import Lab
from lab.models import Status

RATE = 40.0
"""Orders per second. Each costs, and a copy replays all that came since its base backup: no test needs more."""


class OurLab(Lab):
    """A lab under as much load as tests need."""

    def up(
        self,
        load: bool = True,
        rate: float = RATE,
        writers: int = 2,
        mixed: bool = False,
        south: bool = False,
        cluster: bool = False,
    ) -> Status:
        """As any lab."""
        return super().up(load, rate, writers, mixed, south, cluster)


@contextmanager
def lab_apart() -> Iterator[Lab]:
    """Make a lab that nobody else uses; it is not up yet, and is taken down at the end."""
    # Short, because of unix sockets, and open to all, because under root the servers run as nobody.
    folder = Path(tempfile.gettempdir()) / f"lab-{secrets.token_hex(3)}"
    folder.mkdir(mode=0o755)
    found = OurLab(folder / "lab", folder / "state")
    try:
        yield found
    finally:
        found.down()
        shutil.rmtree(folder)
