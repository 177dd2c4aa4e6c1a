"""ConfigurationRollback: a configuration goes back to its last good revision, in waves, unless that makes it worse."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from temporalio import workflow

from activities.configurations import Rolling, Seen, message
from activities.finding import Found, find_revision
from activities.health import State, unwell, watch_health, worse
from activities.host_files import FilesCompared, HostsCompared, compare_files, put_files
from activities.kill_switch import Halted, look_for_kill_switch
from activities.manifest_compare import Compared, compare_manifests
from activities.manifests import apply_manifests
from activities.revision_commands import At, tell
from activities.rolling_back import record, roll_back
from activities.rollouts import RolledOut, rolled_out
from recovery.actions import Spec
from recovery.errors import Fatal
from recovery.models import Start, Wire, digest
from recovery.procedure import Procedure
from recovery.report import Report
from runbooks.procedures.configuration_rollback import KEEP, ROLL_BACK, Parameters

AT_ONCE = 25
"""Targets of a wave that are changed at a time."""


class Unwell(Wire):
    """What people decide on at the end."""

    at_stake: str
    in_words: tuple[str, ...]


@workflow.defn
class ConfigurationRollback(Procedure[Parameters]):
    """Find the good revision, show what changes, ask, roll the repository back, then target by target."""

    parameters = Parameters

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Until the gate everything is only looked at; from then on what gets worse takes everything back."""
        async with self.conducting(start) as wanted:
            plan = Rolling(self.frozen.estate, self.frozen.systems[0], wanted, digest(self.run_name)[:8])
            halt = await self.glance(look_for_kill_switch, Spec(system=plan.name), instead=Halted())
            found = await self.look(find_revision, plan.finds())
            self.require(found.faults)
            seen = (await self._seen(plan, found)).model_copy(update={"halted": halt.why})
            self.require(plan.blockers(seen))
            then = f"{plan.name} is rolled back in its repository, then on each target"
            await self.gate(ROLL_BACK, plan.decided(found, seen), then=then)
            await self.do(roll_back, plan.rolls(found, self._message(plan, found), workflow.now()))
            after = await self._in_waves(plan, found, seen)
            await self._kept(plan, after)
            await self.do(record, plan.records(found, seen.health, after, start))
            self._account(plan, found, seen, after)
        return self.report()

    async def _seen(self, plan: Rolling, found: Found) -> Seen:
        """Look at every target: how it differs from the repository, and whether it is well."""
        files: list[FilesCompared] = []
        manifests: dict[str, Compared] = {}
        commands: dict[str, At] = {}
        if plan.files:
            files += (await self.glance(compare_files, plan.compares(found), instead=HostsCompared())).hosts
        for name in plan.manifests:
            manifests[name] = await self.glance(compare_manifests, plan.dry(name, found), instead=Compared())
        for name in plan.commands:
            spec = plan.tells(name, found)
            commands[name] = await self.glance(tell, spec, f"ask {name} for its revision", instead=At())
        asked = plan.watches(plan.targets, "every target, as it is", found, None)
        health = (await self.look(watch_health, asked)).targets if asked.targets else {}
        for name, objects in manifests.items():
            before = plan.rolled_out(name, objects, before=True)
            health |= {name: _state(await self.look(rolled_out, before, f"see how {name} is now"))}
        return Seen(files=tuple(files), manifests=manifests, commands=commands, health=health)

    async def _in_waves(self, plan: Rolling, found: Found, seen: Seen) -> dict[str, State]:
        """Bring the good revision to one wave after the other; raise Fatal once something is worse than before."""
        after: dict[str, State] = {}
        touched: list[str] = []
        at: dict[str, str] = {}
        for number, wave in enumerate(plan.waves()):
            turns = asyncio.Semaphore(AT_ONCE)
            await self.together(*(self._put(plan, name, found, seen, turns, at) for name in wave))
            touched += wave
            what = f"wave {number}" if number else "the canary"
            asked = plan.watches(touched, f"what was changed, after {what}", found, seen, at)
            watched = await self.prove(watch_health, asked) if asked.targets else None
            after |= watched.targets if watched else {}
            for one in [one for one in touched if one in plan.manifests]:
                spec = plan.rolled_out(one, seen.manifests[one])
                out = await self.prove(rolled_out, spec, f"see {one} rolled out, after {what}")
                after |= {one: _state(out)} if out else {}
            self._judge(what, seen.health, after, unwell(after) if not number else [])
        return after

    async def _put(
        self, plan: Rolling, name: str, found: Found, seen: Seen, turns: asyncio.Semaphore, at: dict[str, str]
    ) -> None:
        """Change one target; ``at`` is told which revision a command has then: another one where people skipped it."""
        async with turns:
            if name in plan.files:
                await self.do(put_files, plan.puts(name, found, seen))
            elif name in plan.manifests:
                await self.do(apply_manifests, plan.applies(name, found, seen))
            else:
                at[name] = (await self.do(tell, plan.tells(name, found, seen))).revision

    def _judge(self, what: str, before: dict[str, State], after: dict[str, State], not_cured: Sequence[str]) -> None:
        if bad := worse(before, after):
            raise Fatal(f"after {what} it is worse than before: {'; '.join(bad[:5])}; everything goes back")
        if not_cured:
            raise Fatal(f"the good revision does not help {what}: {'; '.join(not_cured[:5])}; everything goes back")

    async def _kept(self, plan: Rolling, after: dict[str, State]) -> None:
        """Ask whether to keep it where something is as unwell as it was before."""
        if left := unwell(after):
            stake = f"{len(left)} targets of {plan.name} are not well with the good revision either."
            await self.gate(
                KEEP, Unwell(at_stake=stake, in_words=tuple(left[:20])), then="everything stays as it is now"
            )

    def _message(self, plan: Rolling, found: Found) -> str:
        gates = [one for one in self.report().gates if one.gate == ROLL_BACK]
        approved = [said.by for gate in gates for said in gate.decisions if said.verdict == "approve"]
        return message(found, plan.name, self.start, approved or ["nobody"], workflow.info().workflow_id)

    def _account(self, plan: Rolling, found: Found, seen: Seen, after: dict[str, State]) -> None:
        self.measured("targets that were well before", sum(state.well for state in seen.health.values()))
        if after:  # nothing was changed in a check
            well = sum(state.well for state in after.values())
            self.measured("targets that are well", well, f"of {len(after)}", well == len(after))
        self.delivered(plan.name, f"{found.good[:12]}, as a new commit on {plan.repository.branch}")


def _state(found: RolledOut) -> State:
    return State(well=found.well, why="; ".join(found.why[:3]))
