"""Look for the revision to go back to, and at what that changes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from activities import git
from activities.git import Repository
from activities.revisions import Commit, Deployment, History, Wanted, choose, deployments, newer
from recovery.actions import Probe, Spec
from recovery.errors import Invalid, Refused
from recovery.models import Wire

MOST_COMMITS = 5000
"""How far back a good revision is looked for."""
SHOWN = 60_000
"""Characters of a difference that are kept in the record; Git has all of it, by the two revisions."""
HIDDEN = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase)?|secret|token|credential|api[_-]?key|private[_-]?key|access[_-]?key)[\w.-]*[\"']?\s*[:=]\s*)\S.*"
)


class Find(Spec):
    """Find the good revision of a configuration; ``secret`` are patterns of files that are not shown."""

    repository: Repository
    wanted: Wanted
    secret: tuple[str, ...] = ()


class Taken(Wire):
    """A commit that is taken back."""

    commit: str
    at: str
    who: str
    what: str


class Found(Wire):
    """The branch's newest commit ``head`` and the good one, the trees of the configuration in both, what differs.

    ``at`` is when the head was made (seconds since 1970). ``faults`` are what is in the way of finding one.
    """

    head: str = ""
    good: str = ""
    why: str = ""
    head_tree: str = ""
    good_tree: str = ""
    subject: str = ""
    taken: tuple[Taken, ...] = ()
    taken_in_all: int = 0
    files: tuple[str, ...] = ()
    diff: str = ""
    unread: int = 0
    faults: tuple[str, ...] = ()


class FindRevision(Probe[Find, Found]):
    """Find what to go back to; what is wrong with that is told, not raised."""

    name = "git.find"
    limit = timedelta(minutes=3)
    patience = timedelta(minutes=6)

    def title(self, spec: Find) -> str:
        """Say what is looked for."""
        return f"find the good revision of {spec.system}"

    async def observe(self, spec: Find) -> Found:
        """Fetch, choose, and compare with the newest one."""
        repository = spec.repository
        try:
            head = await git.refresh(repository)
            await git.pushable(repository)
        except (Invalid, Refused) as error:
            return Found(faults=(error.message,))
        history, unread = await _history(repository, head)
        chosen = choose(spec.wanted, history)
        if chosen.faults:
            return Found(head=head, unread=unread, faults=chosen.faults)
        found = Found(head=head, good=chosen.revision, why=chosen.why, unread=unread)
        return await _compared(spec, found, newer(history, chosen.revision))


find_revision = FindRevision()


async def _compared(spec: Find, found: Found, taken: Sequence[Commit]) -> Found:
    repository = spec.repository
    before, after = await git.tree(repository, found.head), await git.tree(repository, found.good)
    if not after:
        return found.model_copy(update={"faults": (f"revision: {found.good[:12]} has no {repository.path}",)})
    if before == after:
        why = f"revision: {found.good[:12]} has the same configuration as the newest commit; nothing to roll back"
        return found.model_copy(update={"faults": (why,)})
    hidden = [f":(exclude,glob){pattern}" for pattern in spec.secret]
    words = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")
    diff = await git.text(repository, "diff", *words, before, after, "--", ".", *hidden)
    names = await git.text(repository, "diff", "--name-status", "--no-renames", before, after)
    rows = [
        Taken(commit=one.id[:12], at=f"{one.at:%Y-%m-%d %H:%M:%SZ}", who=one.author[:60], what=one.subject[:100])
        for one in taken
    ]
    return found.model_copy(
        update={
            "head_tree": before, "good_tree": after, "taken": tuple(rows[:20]), "taken_in_all": len(rows),
            "subject": (await git.text(repository, "show", "-s", "--format=%s", found.good)).strip()[:100],
            "files": tuple(names.replace("\t", " ").splitlines()[:500]), "diff": shown(diff),
        }
    )  # fmt: skip


def shown(diff: str) -> str:
    """Return a difference as it may be shown: what looks like a secret is not, nor what is longer than a record."""
    kept = HIDDEN.sub(r"\1(not shown)", diff)
    if len(kept) <= SHOWN:
        return kept
    return f"{kept[:SHOWN]}\n… {len(kept) - SHOWN} characters more: `git diff` of the two revisions shows them"


async def _history(repository: Repository, head: str) -> tuple[History, int]:
    form = "--format=%H%x00%ct%x00%an%x00%s"
    log, reached, tags, (notes, unread) = await asyncio.gather(
        git.text(repository, "log", "--first-parent", f"-n{MOST_COMMITS}", form, head),
        git.text(repository, "rev-list", f"-n{20 * MOST_COMMITS}", head),
        _tags(repository),
        _notes(repository),
    )
    rows = [line.split("\0") for line in log.splitlines()]
    trees = await _trees(repository, [row[0] for row in rows])
    line = [
        Commit(row[0], trees[row[0]], datetime.fromtimestamp(int(row[1]), UTC), row[2], row[3], tags.get(row[0], ()))
        for row in rows
    ]
    return History(line, notes, reached.split()), unread


async def _trees(repository: Repository, commits: Sequence[str]) -> dict[str, str]:
    """Return the tree of the configuration in each commit, with one command for all of them."""
    asked = "".join(f"{one}:{repository.path}\n" for one in commits).encode()
    rows = (await git.text(repository, "cat-file", "--batch-check=%(objectname)", stdin=asked)).splitlines()
    return {one: "" if row.endswith(" missing") else row for one, row in zip(commits, rows, strict=True)}


async def _tags(repository: Repository) -> dict[str, tuple[str, ...]]:
    form = "--format=%(objectname) %(*objectname) %(refname:strip=2)"
    found: dict[str, tuple[str, ...]] = {}
    for line in (await git.text(repository, "for-each-ref", form, "refs/tags")).splitlines():
        own, peeled, name = line.split(" ", 2)
        found[peeled or own] = (*found.get(peeled or own, ()), name)
    return found


async def _notes(repository: Repository) -> tuple[Mapping[str, Sequence[Deployment]], int]:
    """Return the deployments of each commit, and how many lines of notes could not be read."""
    ref = repository.deployments
    if not (await git.text(repository, "for-each-ref", ref)).strip():
        return {}, 0
    listed = (await git.text(repository, "notes", f"--ref={ref}", "list")).split()
    found, unread = {}, 0
    for commit, note in zip(listed[1::2], await git.blobs_of(repository, listed[::2]), strict=True):
        found[commit], bad = deployments(note.decode(errors="replace"))
        unread += bad
    return found, unread
