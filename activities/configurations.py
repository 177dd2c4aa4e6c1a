"""Rolling a configuration back: its targets and waves, what is in the way, and what people decide on; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from activities.finding import Find, Found, Taken
from activities.git import Repository, Source
from activities.health import HealthAt, State, WatchHealth
from activities.host_files import CompareFiles, FilesAt, FilesCompared, PutFiles
from activities.manifest_compare import Compared, CompareSpec, refs
from activities.manifests import ManifestsAt, ManifestsSpec
from activities.revision_commands import At, CommandAt, Told
from activities.revisions import Wanted
from activities.rolling_back import Record, RollBack
from activities.rollouts import RolledOutSpec
from recovery.models import Start, Wire
from runbooks.procedures.configuration_rollback import BY, Parameters, meant, targets
from runbooks.schema import Cluster, Configuration, Host


class Decided(Wire):
    """What people decide on."""

    at_stake: str
    in_words: tuple[str, ...]
    taken_back: tuple[Taken, ...] = ()
    changed_by_hand: str = ""
    diff: str = ""


class Seen(Wire):
    """How every target differs from the repository, and whether it is well."""

    files: tuple[FilesCompared, ...] = ()
    manifests: dict[str, Compared] = {}
    commands: dict[str, At] = {}
    health: dict[str, State] = {}
    halted: str = ""


class Rolling:
    """A configuration that goes back; ``run`` is the recovery, in names of things on systems."""

    def __init__(self, estate: Mapping[str, Any], name: str, wanted: Parameters, run: str) -> None:
        self.name, self.wanted, self.run = name, wanted, run
        self.configuration = Configuration.model_validate(estate["configurations"][name])
        self.repository = Repository.of(self.configuration)
        left = {one for named in wanted.without for one in meant(self.configuration, named)}
        self.left = [one for one in targets(self.configuration) if one in left]
        self.targets = [one for one in targets(self.configuration) if one not in left]
        hosts = {host: Host.model_validate(known) for host, known in estate["hosts"].items()}
        self.files = {
            at.name: at
            for label, group in self.configuration.files.items()
            for at in (FilesAt.of(label, group, host, hosts[host]) for host in group.hosts)
            if at.name in self.targets
        }
        self.manifests = {
            label: ManifestsAt.of(label, group, Cluster.model_validate(estate["clusters"][group.cluster]))
            for label, group in self.configuration.manifests.items()
            if label in self.targets
        }
        self.commands = {
            label: CommandAt.of(label, command, hosts[command.host])
            for label, command in self.configuration.commands.items()
            if label in self.targets
        }

    # --- looking ------------------------------------------------------------------------------------------

    def finds(self) -> Find:
        """Return how the good revision is found."""
        given = {field: value for field in BY if (value := getattr(self.wanted, field)) is not None}
        wanted = Wanted.model_validate(given)
        return Find(system=self.name, repository=self.repository, wanted=wanted, secret=self.configuration.secret)

    def compares(self, found: Found) -> CompareFiles:
        """Return how the hosts are compared with the repository."""
        return CompareFiles(
            system=self.name, targets=tuple(self.files.values()), run=self.run, secret=self.configuration.secret,
            repository=self.repository, head=found.head, good=found.good,
        )  # fmt: skip

    def dry(self, name: str, found: Found) -> CompareSpec:
        """Return how a cluster is compared with the repository."""
        return CompareSpec(
            system=self.name, target=self.manifests[name], good=self._source(found.good, name),
            head=self._source(found.head, name), overrule=self.wanted.overrule, hidden=self.configuration.secret,
        )  # fmt: skip

    def _source(self, revision: str, group: str) -> Source:
        folder = (self.configuration.files.get(group) or self.configuration.manifests[group]).folder
        return Source(repository=self.repository, revision=revision, folder=folder)

    def rolled_out(self, name: str, seen: Compared, *, before: bool = False) -> RolledOutSpec:
        """Return what of a cluster has to be well; ``before`` what there is of it, at this moment."""
        objects = tuple(one for one in refs(seen) if one.key not in _new(seen)) if before else refs(seen)
        settle, stays = (
            (0.0, 0.0) if before else (self.wanted.settle.total_seconds(), self.wanted.watch.total_seconds())
        )
        return RolledOutSpec(
            system=self.name, target=self.manifests[name], objects=objects, seconds=settle, stays=stays
        )  # fmt: skip

    def tells(self, name: str, found: Found, seen: Seen | None = None) -> Told:
        """Return how a target is brought to the good revision by its own command, as it was ``seen``."""
        at = seen.commands[name].revision if seen else ""
        return Told(system=self.name, target=self.commands[name], revision=found.good, seen=at, run=self.run)

    def watches(
        self, names: Sequence[str], what: str, found: Found, seen: Seen | None, at: Mapping[str, str] | None = None
    ) -> WatchHealth:
        """Return how targets are watched once they have the good revision; as they are where nothing was ``seen``.

        ``at`` are those that have another one, since people left them as they are.
        """
        revision = found.good if seen else found.head
        asked = [one for name in names for one in self._health(name, (at or {}).get(name) or revision)]
        if seen is None:
            return WatchHealth(system=self.name, what=what, targets=tuple(asked))
        return WatchHealth(
            system=self.name, what=what, targets=tuple(asked), settle=self.wanted.settle.total_seconds(),
            seconds=self.wanted.watch.total_seconds(),
            must=tuple(name for name in names if name in seen.health and seen.health[name].well),
        )  # fmt: skip

    def _health(self, name: str, revision: str) -> Iterator[HealthAt]:
        if name in self.files and self.files[name].health:
            at = self.files[name]
            yield HealthAt(target=name, host=at.host, command=at.health, revision=revision)
        if name in self.commands:
            told = self.commands[name]
            yield HealthAt(target=name, host=told.host, command=told.verify, revision=revision)

    # --- acting -------------------------------------------------------------------------------------------

    def waves(self) -> list[list[str]]:
        """Return the targets in the order in which they get the good revision."""
        first = [one for name in self.wanted.canary for one in meant(self.configuration, name)] or self.targets[:1]
        rest = [one for one in self.targets if one not in first]
        return [first, *sliced(rest, self.wanted.waves)]

    def rolls(self, found: Found, message: str, at: datetime) -> RollBack:
        """Return the commit in the repository."""
        return RollBack(
            system=self.name, repository=self.repository, seen=found.head_tree, wanted=found.good_tree,
            good=found.good, run=self.run, at=int(at.timestamp()), message=message,
        )  # fmt: skip

    def puts(self, name: str, found: Found, seen: Seen) -> PutFiles:
        """Return what a host gets."""
        at = self.files[name]
        compared = next(one for one in seen.files if one.target == name)
        return PutFiles(
            system=self.name, target=at, source=self._source(found.good, name.partition("@")[0]),
            files=compared.changes, owner=compared.owner, run=self.run,
            tolerant=not seen.health.get(name, State(well=True)).well,
        )  # fmt: skip

    def applies(self, name: str, found: Found, seen: Seen) -> ManifestsSpec:
        """Return what a cluster gets; what the good revision has not is left there unless it is to be pruned."""
        compared = seen.manifests[name]
        extra = set() if self.wanted.prune else {one.key for one in compared.objects if one.how == "extra"}
        return ManifestsSpec(
            system=self.name, target=self.manifests[name], source=self._source(found.good, name), run=self.run,
            objects=tuple(one for one in compared.wanted if one.key not in extra), overrule=self.wanted.overrule,
        )  # fmt: skip

    def records(self, found: Found, before: Mapping[str, State], after: Mapping[str, State], start: Start) -> Record:
        """Return what is written down of it."""
        told = {
            "by": start.requested_by or "", "reason": start.reason, "incident": start.incident or "",
            "from": found.head, "to": found.good, "why": found.why,
            "well_before": sum(one.well for one in before.values()), "watched_before": len(before),
            "well_after": sum(one.well for one in after.values()), "watched_after": len(after),
        }  # fmt: skip
        healthy = bool(after) and all(one.well for one in after.values())
        return Record(system=self.name, repository=self.repository, run=self.run, healthy=healthy, told=told)

    # --- what is in the way, and what people decide on ----------------------------------------------------

    def blockers(self, seen: Seen) -> list[str]:
        """Return everything that stands in the way, each with what to do about it."""
        halted = [f"the kill switch is on ({seen.halted}); nothing is changed until it is taken away"]
        manifests = [
            fault
            for one in seen.manifests.values()
            for fault in (
                *one.faults,
                *(f"{taken}; leave it, or name that manager in overrule" for taken in one.conflicts),
            )
        ]
        files = [fault for one in seen.files for fault in one.faults]
        return [*(halted if seen.halted else []), *files, *manifests]

    def decided(self, found: Found, seen: Seen) -> Decided:
        """Return what goes back, what is lost with it, and how everything is."""
        first, *rest = self.waves()
        then = f", then {', '.join(f'{len(wave)} more' for wave in rest)}" if rest else ""
        stake = f"{self.name} goes back from {found.head[:12]} to {found.good[:12]}, on {len(self.targets)} targets."
        shown = "\n".join(one.shown for one in seen.files if one.shown)
        return Decided(
            at_stake=stake,
            in_words=(
                f"the good revision, {found.good[:12]} ({found.subject}), {found.why}",
                f"first {', '.join(first[:5])}{' …' if len(first) > 5 else ''}{then}",
                *self._lost(found),
                *self._objects(seen),
                *self._by_hand(seen),
                *self._well(seen),
                *self._elsewhere(found, seen),
            ),
            taken_back=found.taken, changed_by_hand=shown[:20_000], diff=found.diff,
        )  # fmt: skip

    def _lost(self, found: Found) -> Iterator[str]:
        if found.taken_in_all > 1:
            yield f"{found.taken_in_all} commits are taken back; what each was for goes with it"
        more = f" and {len(found.files) - 8} more" if len(found.files) > 8 else ""
        yield f"what changes in the repository: {'; '.join(found.files[:8])}{more}"
        if found.unread:
            yield f"{found.unread} lines in the notes of deployments could not be read, and were left out"

    def _by_hand(self, seen: Seen) -> Iterator[str]:
        for one in seen.files:
            if one.drift:
                yield f"{one.target} was changed by hand: {'; '.join(one.drift[:8])}; that is replaced, and kept there"
        for name, at in seen.manifests.items():
            if at.drift:
                yield f"{name} was changed by hand: {'; '.join(at.drift[:8])}; that is replaced, and kept there"
            if at.overruled:
                yield f"taken from other managers, as asked: {'; '.join(at.overruled[:8])}"

    def _objects(self, seen: Seen) -> Iterator[str]:
        for name, at in seen.manifests.items():
            extra = "go" if self.wanted.prune else "stay, though the good revision has them not"
            data = "stay: they hold data, or are of the whole cluster"
            said = {"changed": "change", "new": "are made", "extra": extra, "left": data}
            for how, word in said.items():
                labels = [one.label for one in at.objects if one.how == how]
                if labels:
                    yield f"{name}: {word}: {', '.join(labels[:8])}{' …' if len(labels) > 8 else ''}"

    def _well(self, seen: Seen) -> Iterator[str]:
        unwell = [f"{name} ({state.why})" for name, state in seen.health.items() if not state.well]
        if unwell:
            more = f" … ({len(unwell)} of {len(seen.health)})" if len(unwell) > 8 else ""
            yield f"not well now: {', '.join(unwell[:8])}{more}"
        elif seen.health:
            yield f"all {len(seen.health)} targets that tell their health are well now"
        silent = [one for one in self.targets if one not in seen.health]
        if silent:
            yield f"nobody can tell whether these are well: {', '.join(silent[:8])}{' …' if len(silent) > 8 else ''}"

    def _elsewhere(self, found: Found, seen: Seen) -> Iterator[str]:
        if self.left:
            yield f"left as they are, as asked: {', '.join(self.left[:8])}"
        done = [one.target for one in seen.files if not one.changes]
        done += [name for name, at in seen.manifests.items() if all(one.how == "same" for one in at.objects)]
        done += [name for name, at in seen.commands.items() if at.revision == found.good]
        if done:
            yield f"have the good revision already: {', '.join(done[:8])}{' …' if len(done) > 8 else ''}"
        for name, at in seen.commands.items():
            if at.revision not in (found.head, found.good):
                yield f"{name} says that it has {at.revision[:40]}, which is neither of the two"


def _new(seen: Compared) -> set[str]:
    return {one.key for one in seen.objects if one.how == "new"}


def sliced(rest: Sequence[str], sizes: Sequence[int | str]) -> list[list[str]]:
    """Return ``rest`` in waves: each a number, or a share of all of ``rest``; the last one repeats."""
    found: list[list[str]] = []
    at = 0
    while at < len(rest):
        size = sizes[min(len(found), len(sizes) - 1)]
        count = size if isinstance(size, int) else -(-len(rest) * int(size.rstrip("%")) // 100)
        found.append(list(rest[at : at + count]))
        at += count
    return found


def message(found: Found, name: str, start: Start, approved: Sequence[str], workflow: str) -> str:
    """Return what the commit says: from what to what, why, by whom; no line of it can be taken for a trailer."""

    def plain(text: str) -> str:
        return " ".join(text.split())

    lines = [
        f"Roll {name} back to {found.good[:12]}", "",
        f"* {found.good[:12]} ({plain(found.subject)}) {plain(found.why)}.",
        f"* why: {plain(start.reason)}",
        *([f"* incident: {plain(start.incident)}"] if start.incident else []),
        f"* started by {plain(start.requested_by or 'nobody who was named')}, approved by {', '.join(approved)}",
        f"* recovery {workflow}, runbook {start.runbook}", *(["", "Takes back:"] if found.taken else []),
        *(f"* {one.commit} {plain(one.what)} ({plain(one.who)})" for one in found.taken),
    ]  # fmt: skip
    return "\n".join(lines)
