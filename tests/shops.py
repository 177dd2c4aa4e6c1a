"""A Git repository with a configuration, and hosts that have it: folders that one SSH server shows under many names."""

from __future__ import annotations

import json
import secrets
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from activities.git import Repository
from activities.host_files import FilesAt
from activities.ssh import HostAt
from lab.place import runner

WHO = {"GIT_AUTHOR_NAME": "carol", "GIT_COMMITTER_NAME": "carol"}
WHO |= {"GIT_AUTHOR_EMAIL": "carol@example.org", "GIT_COMMITTER_EMAIL": "carol@example.org"}
Tree = Mapping[str, str]


@dataclass(frozen=True)
class Remote:
    """A bare repository, and somebody who commits to it."""

    folder: Path

    @classmethod
    def new(cls, folder: Path) -> Remote:
        """Make one."""
        subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", folder], check=True)
        return cls(folder)

    @property
    def repository(self) -> Repository:
        """How the engine reaches it."""
        return Repository(url=str(self.folder))

    def git(self, *words: str, text: str = "", **more: str) -> str:
        """Run Git in it, as somebody."""
        done = subprocess.run(
            ["git", f"--git-dir={self.folder}", *words], input=text, capture_output=True, text=True, check=True,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin", **WHO, **more},
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, files: Tree, subject: str = "a change", ref: str = "refs/heads/main", at: int = 0) -> str:
        """Commit exactly these files on top; return the commit."""
        with tempfile.TemporaryDirectory() as folder:
            index = {"GIT_INDEX_FILE": f"{folder}/index"}
            for path, content in files.items():
                blob = self.git("hash-object", "-w", "--stdin", text=content)
                mode = "100755" if path.endswith(".sh") else "100644"
                self.git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}", **index)
            tree = self.git("write-tree", **index)
        parents = [
            word for one in self.git("for-each-ref", "--format=%(objectname)", ref).split() for word in ("-p", one)
        ]
        when = {"GIT_AUTHOR_DATE": f"{at} +0000", "GIT_COMMITTER_DATE": f"{at} +0000"} if at else {}
        commit = self.git("commit-tree", tree, *parents, "-m", subject, **when)
        self.git("update-ref", ref, commit)
        return commit

    def deployed(self, commit: str, name: str, health: str) -> None:
        """Note a deployment."""
        line = json.dumps({"id": name, "health": health, "at": "2026-11-20T12:00:00Z"})
        self.git("notes", "--ref=deployments", "append", "-m", line, commit)

    def head(self) -> str:
        """Return the newest commit."""
        return self.git("rev-parse", "main")

    def tree(self, revision: str = "main") -> str:
        """Return the tree of a revision."""
        return self.git("rev-parse", f"{revision}^{{tree}}")

    def files(self, revision: str = "main") -> dict[str, str]:
        """Return what a revision holds."""
        names = self.git("ls-tree", "-r", "--name-only", revision).splitlines()
        return {name: self.git("show", f"{revision}:{name}") for name in names}


@dataclass(frozen=True)
class Machine:
    """A host: a folder that it has files in, with what a program there has read, and whether that is well."""

    name: str
    folder: Path

    @classmethod
    def new(cls, name: str, parent: Path) -> Machine:
        """Make one; everything in it belongs to the user of the SSH server."""
        found = cls(name, parent / name)
        found.folder.mkdir()
        found.conf.mkdir()
        for path in (found.folder, found.conf):
            path.chmod(0o755)
            runner().own(path)
        return found

    @property
    def conf(self) -> Path:
        """Where its files are."""
        return self.folder / "conf"

    @property
    def loaded(self) -> str:
        """What its program has read."""
        file = self.folder / "loaded"
        return file.read_text() if file.exists() else ""

    @property
    def reload(self) -> str:
        """Have its program read; it refuses what it does not understand."""
        return f"! grep -q nonsense {self.conf}/app.conf && cat {self.conf}/app.conf >{self.folder}/loaded"

    @property
    def health(self) -> str:
        """Tell whether it is well with what it has read, and with where it stands."""
        return f"grep -q works {self.folder}/loaded && ! grep -q 'not on {self.name}$' {self.folder}/loaded"

    def have(self, files: Tree) -> None:
        """Have exactly these files, and read them."""
        for path in self.conf.rglob("*"):
            if path.is_file() or path.is_symlink():
                path.unlink()
        for name, content in files.items():
            self.write(name, content)
        self.folder.joinpath("loaded").write_text(files.get("app.conf", ""))
        runner().own(self.folder / "loaded")

    def write(self, name: str, content: str) -> None:
        """Write a file by hand."""
        path = self.conf / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o640)
        for one in (path, *[up for up in path.parents if self.conf in up.parents]):
            runner().own(one)

    def files(self) -> list[Path]:
        """Return where its files are."""
        return [path for path in sorted(self.conf.rglob("*")) if path.is_file()]

    def has(self) -> dict[str, str]:
        """Return its files."""
        return {str(path.relative_to(self.conf)): path.read_text() for path in self.files()}

    def rights(self) -> dict[str, tuple[int, int]]:
        """Return mode and owner of each file."""
        found = [(path, path.stat()) for path in self.files()]
        return {str(path.relative_to(self.conf)): (at.st_mode & 0o777, at.st_uid) for path, at in found}

    def target(self, host: HostAt, **more: str) -> FilesAt:
        """Return how the engine reaches it."""
        given = {"to": str(self.conf), "reload": self.reload, "health": self.health} | more
        return FilesAt(name=f"web@{self.name}", host=host.model_copy(update={"name": self.name}), **given)


@dataclass(frozen=True)
class Program:
    """Something on a host that knows revisions by itself; it is well with every one but the ``sick``."""

    folder: Path
    sick: str = ""

    @classmethod
    def new(cls, parent: Path, revision: str, sick: str = "") -> Program:
        """Make one that is at a revision."""
        found = cls(parent / "program", sick)
        found.folder.mkdir()
        runner().own(found.folder)
        found.bring(revision)
        return found

    def bring(self, revision: str) -> None:
        """Have it be at a revision, as if nobody had ever brought it to another one."""
        (self.folder / "at").write_text(f"{revision}\n")
        runner().own(self.folder / "at")
        (self.folder / "applied").unlink(missing_ok=True)

    @property
    def at(self) -> str:
        """Where it is."""
        return (self.folder / "at").read_text().strip()

    @property
    def applied(self) -> list[str]:
        """Return every revision that it was brought to."""
        file = self.folder / "applied"
        return file.read_text().split() if file.exists() else []

    def known(self, host: str) -> dict[str, str]:
        """Return it as an estate names it."""
        at = self.folder / "at"
        return {
            "host": host, "check": f"cat {at}",
            "apply": f'echo "$REVISION" >{at}; echo "$REVISION" >>{self.folder}/applied',
            "verify": f'[ "$(cat {at})" = "$REVISION" ] && [ "$REVISION" != "{self.sick}" ]',
        }  # fmt: skip


def below(folder: str, files: Tree) -> dict[str, str]:
    """Return files as they lie in a folder of a repository."""
    return {f"{folder}/{path}": content for path, content in files.items()}


def catalog(
    folder: Path, name: str, remote: Remote, machines: Mapping[str, Machine], hosts: Mapping[str, HostAt],
    parameters: Mapping[str, Any], *, hold: Mapping[str, Any] | None = None, system: str = "shop", **more: Any,
) -> None:  # fmt: skip
    """Write a catalog of one configuration that machines have, and a runbook that rolls it back."""
    fields = {"address", "port", "user", "known_hosts", "key", "jobs"}
    groups = {
        f"on-{one.name}": {
            "hosts": [one.name], "folder": "web", "to": str(one.conf), "reload": one.reload, "health": one.health,
        }
        for one in machines.values()
    }  # fmt: skip
    estate = {
        "title": "A shop",
        "sites": {"north": {"title": "north"}},
        "hosts": {one: {"site": "north", **hosts[one].model_dump(include=fields)} for one in machines},
        "configurations": {system: {"repository": str(remote.folder), "tier": "gold", "files": groups, **more}},
        "tiers": {"gold": {"rto": "PT1H", "rpo": "PT5S"}},
        "people": {"bob": {"roles": ["dba"]}},
    }
    gate = {"roles": ["dba"], "within": "PT5M", "valid": "PT5M"}
    runbook = {
        "title": "Roll the shop back", "version": "1", "procedure": "ConfigurationRollback", "systems": [system],
        "why": "a test", "parameters": {"watch": "PT1S", "settle": "PT2S", **parameters},
        "gates": {"roll back": gate, "keep what is not well": gate}, **({"hold": hold} if hold else {}),
    }  # fmt: skip
    (folder / name).mkdir(parents=True)
    (folder / name / "estate.yaml").write_text(yaml.safe_dump(estate))
    (folder / name / "back.yaml").write_text(yaml.safe_dump(runbook))


def run() -> str:
    """Return the name of a recovery that never was."""
    return secrets.token_hex(4)
