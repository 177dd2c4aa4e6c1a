"""Whether what a recovery says of its end is what the world shows."""

from __future__ import annotations

from dataclasses import dataclass

from recovery.report import Report
from tests.matrix.plans import Plan
from tests.matrix.world import Before, Damage, World

NAMED = {
    "data": "fence the running|put the copy in the place",
    "settings": "refuse clients|let clients|archive its log|put the copy in the place",
    "copies": "lay|replay|export",
    "jobs": "",
    "backups": "take a base backup",
    "archive": "",
    "timelines": "archive its log",
    "servers": "fence the running|replay|put the copy in the place",
    "listening": "fence the running|replay|put the copy in the place",
}
"""The steps, in their own words, whose residual accounts for a subject that is not as it was; some have none."""


@dataclass(frozen=True)
class Case:
    """A recovery that has ended: what was planned, what was so before, and what it reports."""

    world: World
    plan: Plan
    before: Before
    damage: Damage
    report: Report

    def faults(self) -> list[str]:
        """Return everything in which the report is not true of the world."""
        match self.report.outcome:
            case "recovered":
                return self._recovered()
            case "checked" | "drilled" | "compensated":
                return [f"residual: {self.report.residual}"] * bool(self.report.residual) + self.as_before()
            case "cancelled" | "failed":
                return self._committed() if self.report.committed else self._named()
            case other:
                return [f"{other} is no outcome"]

    def as_before(self) -> list[str]:
        """Return what is not as it was."""
        return [f"{what}: {how}" for what, how in self.differs().items()] + self._kept_rows()

    def differs(self) -> dict[str, str]:
        """Return by subject what is not as it was."""
        now = self.world.shown(self.before.archived)
        return {what: f"{now[what]}, not {was}" for what, was in self.before.shown.items() if now[what] != was}

    def _named(self) -> list[str]:
        """Return what is not as it was and no residual names."""
        residual = self.report.residual
        unnamed = [
            f"{what}: {how}"
            for what, how in self.differs().items()
            if not any(word in line for line in residual for word in NAMED[what].split("|") if word)
        ]
        return unnamed if residual else self.as_before()

    def _kept_rows(self) -> list[str]:
        """Return what was lost or changed of rows that nobody was to touch."""
        now, told = self.world.orders(), self.before.orders
        wrong = [number for number, row in told.items() if now.get(number) != row]
        lost = self.world.told - now.keys() - self.before.missing
        customers = [] if self.world.customers() == self.before.customers else ["customers are not as before"]
        return customers + _said("orders changed", wrong) + _said("acknowledged orders lost", lost)

    # --- recovered -----------------------------------------------------------------------------------------

    def _recovered(self) -> list[str]:
        match self.plan.cutover:
            case "replace":
                return [*self._replaced(), *self._safe_again(), *self._all_done()]
            case "extract":
                return [*self._extracted(), *self._all_done()]
            case _:
                return [*self._stands(), *self._kept_rows(), *self._all_done()]

    def _all_done(self) -> list[str]:
        return [f"{line.step} is {line.state}" for line in self.report.steps if line.state in ("failed", "changing")]

    def _stands(self) -> list[str]:
        """The copy stands, with the rows of the moment before the accident; nothing else is new."""
        now, was = self.world.shown(self.before.archived), self.before.shown
        same = [
            f"{what}: {now[what]}, not {was[what]}"
            for what in was
            if what not in ("copies", "servers", "listening") and now[what] != was[what]
        ]
        rows = self.world.rows_of_copy()
        wrong = [number for number, row in self.damage.whole.items() if rows.get(number) != row]
        return same + _said("orders that the copy has not as they were", wrong)

    def _extracted(self) -> list[str]:
        """The rows that were deleted are back, and all others as they were."""
        now, wanted = self.world.orders(), {**self.before.orders, **self.damage.rows}
        wrong = [number for number, row in wanted.items() if now.get(number) != row]
        lost = self.world.told - now.keys() - (self.before.missing - self.damage.rows.keys())
        customers = [] if self.world.customers() == self.world.first_customers else ["customers are not back"]
        stands = [line for line in self._stands() if not line.startswith("orders")]
        return customers + stands + _said("orders that are not as wanted", wrong) + _said("orders lost", lost)

    def _replaced(self) -> list[str]:
        """The database of the target serves, clients are in, and every acknowledged order is there or exported."""
        now, exported, shown = self.world.orders(), self.world.exported(), self.world.shown(self.before.archived)
        wrong = [number for number, row in self.damage.whole.items() if now.get(number) != row]
        lost = self.world.told - now.keys() - exported.keys() - (self.before.missing - self.damage.rows.keys())
        data = dict(shown["data"])  # type: ignore[call-overload]
        home = dict(self.before.shown["data"])["data"]  # type: ignore[call-overload]
        aside = [name for name, inode in data.items() if inode == home]
        found = [] if data.get("data") != home and aside and aside[0].startswith("data.fenced-") else [f"data: {data}"]
        found += [
            f"{what}: {shown[what]}, not {self.before.shown[what]}"
            for what in ("settings", "jobs", "servers", "listening", "archive")
            if shown[what] != self.before.shown[what]
        ]
        customers = [] if self.world.customers() == self.world.first_customers else ["customers are not back"]
        return customers + found + _said("orders not as at the target", wrong) + _said("acknowledged orders lost", lost)

    def _safe_again(self) -> list[str]:
        """A base backup was taken on the new timeline, or the report says that it was not."""
        said = self.report.delivered.get("redundancy", "")
        if "skipped" in said:
            return []
        newest = self.world.newest_backup_timeline()
        return [] if newest == self.world.timeline() else [f"the newest backup is of timeline {newest}: {said}"]

    # --- past the point of no return -----------------------------------------------------------------------

    def _committed(self) -> list[str]:
        """Nothing was undone: what was reached is kept, and what was not is named."""
        residual = self.report.residual
        said = [] if any("point of no return" in line for line in residual) else [f"nothing says so: {residual}"]
        if self.plan.cutover == "extract":
            return said + [line for line in self._extracted() if not any("back" in one for one in residual)]
        shut = any("let clients" in line for line in residual)
        return said + [line for line in self._replaced() if not (shut and line.startswith(("settings", "orders not")))]


def _said(what: str, numbers: object) -> list[str]:
    found = sorted(numbers)  # type: ignore[call-overload]
    return [f"{what}: {len(found)}, from {found[0]} to {found[-1]}"] if found else []
