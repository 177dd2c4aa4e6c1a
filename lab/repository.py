"""Git repositories: with the configuration of the order applications, and with the manifests of the storefront."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from lab.place import LabError

NOTES = "refs/notes/deployments"


class Version(NamedTuple):
    """A revision: what it was for, the one file that it has, the id of its deployment, and how that went."""

    subject: str
    content: str
    deployment: str
    health: str


class Contents(NamedTuple):
    """What a repository begins with, where its file lies, and the version that makes it worse."""

    path: str
    first: Sequence[Version]
    bad: Version


ORDERS = Contents(
    "orders/orders.conf",
    (
        Version("Take orders", "max_amount=50000\n", "deployed-1", "healthy"),
        Version("Take larger orders", "max_amount=100000\n", "deployed-2", "healthy"),
    ),
    Version("Limit what an order may be worth", "max_amount=0\n", "deployed-3", "unhealthy"),
)
"""What the order applications have; with the bad one none takes an order any more."""


@dataclass(frozen=True)
class Repository:
    """A bare repository; each version of the configuration is a commit, with a note of how its deployment went."""

    folder: Path
    contents: Contents = ORDERS

    @staticmethod
    def possible() -> bool:
        """Tell whether there is a Git on this machine; the lab does without where there is none."""
        return shutil.which("git") is not None

    def create(self) -> None:
        """Make it with its first versions, unless it is there. Raises LabError."""
        if self.folder.exists():
            return
        partial = replace(self, folder=self.folder.with_suffix(".partial"))
        shutil.rmtree(partial.folder, ignore_errors=True)
        subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", partial.folder], check=True)
        partial.add(self.contents.first)
        partial.folder.rename(self.folder)

    def add(self, versions: Sequence[Version], tag: str = "") -> str:
        """Commit versions on top, each an hour after the one before, the last one now; return that commit."""
        there = bool(self._git("for-each-ref", "refs/heads/main").strip())
        begins = datetime.now(UTC) - timedelta(hours=len(versions) - 1)
        times = [int((begins + timedelta(hours=number)).timestamp()) for number in range(len(versions))]
        stream = "".join(self._stream(versions, times, there))
        self._git("fast-import", "--quiet", "--force", text=stream)
        if tag:
            self._git("tag", "--force", tag, "main")
        return self._git("rev-parse", "main").strip()

    def _stream(self, versions: Sequence[Version], times: Sequence[int], there: bool) -> Iterator[str]:
        who = "committer shop <shop@example.org>"
        for number, one in enumerate(versions):
            yield f"commit refs/heads/main\nmark :{number + 1}\n{who} {times[number]} +0000\n{_data(one.subject)}"
            yield "from refs/heads/main^0\n" if there and not number else ""
            yield f"M 100644 inline {self.contents.path}\n{_data(one.content)}\n"
        for number, one in enumerate(versions):
            at = datetime.fromtimestamp(times[number], UTC).isoformat()
            line = json.dumps({"id": one.deployment, "health": one.health, "at": at}) + "\n"
            yield f"commit {NOTES}\n{who} {times[number]} +0000\n{_data('a deployment')}"
            yield f"from {NOTES}^0\n" if there and not number else ""
            yield f"N inline :{number + 1}\n{_data(line)}\n"

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Return what a deployment of a revision brings to a host, by name."""
        folder = self.contents.path.rpartition("/")[0]
        names = self._git("ls-tree", "--name-only", f"{revision}:{folder}").split()
        return {name: self._git("show", f"{revision}:{folder}/{name}").encode() for name in names}

    def _git(self, *words: str, text: str = "") -> str:
        command = ["git", f"--git-dir={self.folder}", *words]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise LabError(f"git {words[0]}: {done.stderr.strip()}")
        return done.stdout


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}\n"
