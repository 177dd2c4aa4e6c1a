"""How each action of a move between sites is tried on two databases that replicate each other."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from activities.divergence import PartedSpec, export_divergence
from activities.salvage import Salvaged
from activities.sites import Pair, Sites
from activities.switching import (
    Follows,
    Held,
    Kept,
    PairSpec,
    Promoted,
    Retired,
    SwitchAction,
    follow,
    forget_role,
    keep_role,
    promote_standby,
    retire,
)
from lab.place import SITES
from lab.postgres import Postgres
from recovery.actions import Spec
from recovery.models import Wire
from tests.copies import end_jobs
from tests.lab.pairs import ask
from tests.matrix.scenes import JobScene, Stage, folder_of_another
from tests.matrix.twins import Twins, follows, settings, signal_file, twins
from tests.running import eventually

S = TypeVar("S", bound=Spec)
T = TypeVar("T", bound=Wire)


class SiteScene(JobScene[S, T]):
    """An action on ``at``, one of two sites that all of them share; each begins with north as the primary."""

    moments = 1
    often: ClassVar[str]
    """The one accident of each action that is not left to a soak; together they are all of them."""
    at: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        often = getattr(cls, "often", "")
        cls.rarely = tuple(accident for accident in cls.accidents if accident != often)

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.twins: Twins
        self.sites: Sites

    async def set(self) -> S:
        """Have both sites up, and bring them to where the action begins."""
        if self.stage.twins is None:
            folder = self.stage.ends.enter_context(tempfile.TemporaryDirectory())
            self.stage.twins = await twins(self.stage.ends, Path(folder))
        self.twins, self.lab = self.stage.twins, self.stage.twins.lab
        self.sites = self.twins.sites()
        await self.prepare()
        return self.spec()

    def spec(self) -> S:
        """Return what to act on."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Bring both sites to where the action begins. By default that is where they are."""

    @property
    def jobs(self) -> Path:
        """The folder of the jobs at the site."""
        return self.lab.place.at(self.at).jobs

    def cut(self) -> None:
        """Cut every connection to both sites."""
        for relay in self.twins.relays.values():
            relay.cut()

    def listed(self) -> list[str]:
        """Return the jobs that are there."""
        return sorted(path.name for path in self.jobs.glob("[!.]*"))


class SwitchScene(SiteScene[PairSpec, T]):
    """An action on one database of the pair."""

    action: ClassVar[SwitchAction[Any]]

    @property
    def pair(self) -> Pair:
        """Both databases, as the engine names them."""
        return self.sites.databases[0]

    @property
    def database(self) -> Postgres:
        """The one that is acted on."""
        return self.lab.databases[self.at]

    def spec(self) -> PairSpec:
        """Return how it is named in a step."""
        return self.sites.of_new(self.pair) if self.at == "south" else self.sites.of_old(self.pair)

    def job(self, spec: PairSpec) -> str:
        """Return the name of the job."""
        return self.action.job(spec)

    def shows(self, spec: PairSpec) -> Mapping[str, object]:
        """Return what both databases are, whom this one follows, and the jobs."""
        other = "north" if self.at == "south" else "south"
        found: dict[str, object] = {self.at: self.twins.shows(self.at), "jobs": self.listed()}
        return found | {other: self.twins.shows(other), "follows": follows(self.database)}

    def begun(self, spec: PairSpec) -> bool:
        """Tell whether its settings are being kept."""
        return Path(f"{spec.database.data}.switch-{spec.owner}").exists()

    async def meddle_before(self, spec: PairSpec) -> None:
        """Somebody puts another folder in the place of the database."""
        await self.meddle_after(spec)

    async def meddle_after(self, spec: PairSpec) -> None:
        """Somebody puts another folder in the place of the database."""
        self.database.stop(quick=True)
        self.database.place.data.rename(self.database.place.folder / "data.moved")
        folder_of_another(self.lab, self.database.place.data)

    async def clear(self) -> None:
        """Have both be what they were at first, unless they are."""
        self.release()
        self.cut()
        end_jobs(self.lab)
        if self.twins.stands() != self.twins.pristine:
            self.twins.restore()


class KeepRoleScene(SwitchScene[Kept]):
    """Keep what south is."""

    action = keep_role
    at = "south"
    often = "connection cut"

    async def meddle_before(self, spec: PairSpec) -> None:
        """Somebody has it replicate another one."""
        ask(self.database, "alter system set primary_conninfo = 'host=192.0.2.1 port=5432'")
        ask(self.database, "select pg_reload_conf()")
        await eventually(lambda: follows(self.database) == "", "south replicates nobody")

    async def meddle_after(self, spec: PairSpec) -> None:
        """Somebody promotes it."""
        ask(self.database, "select pg_promote(wait => true)")


class RetireScene(SwitchScene[Retired]):
    """Stop north for good."""

    action = retire
    at = "north"
    often = "job's script killed"

    def begun(self, spec: PairSpec) -> bool:
        """Tell whether it would come up as a standby."""
        return self.database.standby()


class PromoteScene(SwitchScene[Promoted]):
    """Promote south, once north was retired."""

    action = promote_standby
    at = "south"
    often = "job's programs killed"

    async def prepare(self) -> None:
        """Retire north."""
        self.twins.retire()

    async def reopen(self, spec: PairSpec) -> None:
        """Have south be a standby again, and north retired."""
        self.twins.restore()
        await self.prepare()

    def shows(self, spec: PairSpec) -> Mapping[str, object]:
        """Return what its undo restores: that nobody can write, and all that it is but whether it serves reads."""
        found, south = dict(super().shows(spec)), self.twins.shows("south")
        shown = {name: value for name, value in south.items() if name in SHOWN}
        return found | {"south": shown | {"writable": south["role"] == "primary"}}

    def begun(self, spec: PairSpec) -> bool:
        """Tell whether the promotion was written down."""
        return Path(f"{spec.database.data}.switch-{spec.owner}/kept/promoted").exists()


SHOWN = ("folders", "signal", "settings", "timelines")


class FollowScene(SwitchScene[Follows]):
    """Have north, which parted from south, follow that: it is rewound."""

    action = follow
    at = "north"
    often = "job's shell killed"

    async def prepare(self) -> None:
        """Have south be the primary."""
        self.twins.diverge()

    def begun(self, spec: PairSpec) -> bool:
        """Tell whether it is being rewound."""
        return Path(f"{spec.database.data}.switch-{spec.owner}/rewinding").exists()

    async def meddle_before(self, spec: PairSpec) -> None:
        """Somebody lets it be a primary again."""
        (self.database.place.data / "standby.signal").unlink()
        self.database.start()


class ExportDivergenceScene(SiteScene[PartedSpec, Salvaged]):
    """Export what only north has, which parted from south."""

    action = export_divergence
    at = "north"
    often = "job's script killed"

    def spec(self) -> PartedSpec:
        """Return how it is named in a step: the way home from south."""
        pair = self.sites.databases[0]
        out = f"{pair.old.copies}/{pair.old.name}.divergent-{self.sites.owner}"
        return PartedSpec(system=pair.old.name, database=pair.old, other=pair.new, owner=self.sites.owner, out=out)

    async def prepare(self) -> None:
        """Have south be the primary, and north stopped with more than south has."""
        self.twins.diverge()
        self.kept = settings(self.lab.place.at(self.at).data)

    def job(self, spec: PartedSpec) -> str:
        """Return the name of the job."""
        return export_divergence.job(spec)

    def shows(self, spec: PartedSpec) -> Mapping[str, object]:
        """Return every exported file, what both databases are, and the jobs."""
        files = {
            str(file.relative_to(self.exports)): file.read_text()
            for file in sorted(self.exports.rglob("*"))
            if file.is_file() and file.name != "owner"
        }
        return {site: self.twins.shows(site) for site in SITES} | {"files": files, "jobs": self.listed()}

    @property
    def exports(self) -> Path:
        """The folder that it goes into."""
        return self.lab.place.at(self.at).copies

    def begun(self, spec: PartedSpec) -> bool:
        """Tell whether the database is being read."""
        return Path(f"{spec.out}.partial/reading/log").exists()

    async def meddle_before(self, spec: PartedSpec) -> None:
        """Somebody puts something where the export is to stand."""
        folder_of_another(self.lab, Path(spec.out))
        (Path(spec.out) / "manifest.tsv").write_text("kind\n")

    async def meddle_after(self, spec: PartedSpec) -> None:
        """Nothing: it is never taken back."""
        raise AssertionError("what only the lost site had is kept")

    async def clear(self) -> None:
        """Have both be what they were at first, and no export; reading it left the settings as they were."""
        self.release()
        assert settings(self.lab.place.at(self.at).data) == self.kept
        self.cut()
        end_jobs(self.lab)
        if self.twins.stands() != self.twins.pristine:
            self.twins.restore()
        for folder in self.exports.iterdir():
            shutil.rmtree(folder)


class ForgetScene(SwitchScene[Held]):
    """Forget what south was, now that it is the primary."""

    action = forget_role
    at = "south"
    often = "job's programs killed"

    async def prepare(self) -> None:
        """Keep what south is, with so many files that removing them takes its time; then promote it."""
        spec = self.spec()
        await keep_role.apply(spec, await keep_role.observe(spec))
        await keep_role.halt(spec)
        for number in range(MANY):
            (self.files(spec) / f"{number}.conf").touch()
        self.twins.retire()
        ask(self.database, "select pg_promote(wait => true)")

    def files(self, spec: PairSpec) -> Path:
        """Return the folder of the settings that are kept."""
        return Path(f"{spec.database.data}.switch-{spec.owner}/kept/files")

    def begun(self, spec: PairSpec) -> bool:
        """Tell whether something was removed."""
        return not all((self.files(spec) / f"{number}.conf").exists() for number in range(MANY))

    async def meddle_before(self, spec: PairSpec) -> None:
        """Somebody makes a standby of it again."""
        self.database.stop(quick=True)
        signal_file(self.database)
        self.database.start()


MANY = 2000
