"""SessionReplicationCheck: whether sessions are at every site, and what would be lost now; it only looks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities.databases import DatabaseAt
from activities.session_tables import compare_tables, see_database, write_message
from activities.session_verdict import (
    STATES,
    Finding,
    Limits,
    SeenSessions,
    State,
    Verdict,
    follows,
    joined,
    takers,
    verdict,
    with_others,
)
from activities.sessions import Comparison, PairOfStores, compare_sessions, see_store, write_canary
from activities.ssh import HostAt
from activities.statuses import CommandAsked, UrlAsked, ask_command, ask_url
from activities.stores import StoreAt, StoreSpec
from activities.table_pair import DatabasePair
from activities.table_verdict import SeenTables, figures, of_tables
from recovery import notices
from recovery.actions import Probe
from recovery.models import Start, digest
from recovery.procedure import Procedure, S, T
from recovery.report import Report
from runbooks.procedures.session_replication_check import Parameters
from runbooks.schema import Host, Store

Figures = dict[str, int]

LOOKS = 25
"""How often one run looks, before the next one goes on: a history stays short."""

VERDICT = "verdict"
"""The memo in which a run leaves to the next one what it has found."""


@workflow.defn
class SessionReplicationCheck(Procedure[Parameters]):
    """Look at stores and tables, see a session arrive, compare a sample; say what was seen, and what it means."""

    parameters = Parameters
    looks = True

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Look once, or again and again; what the run before this one found is in its memo, or is its report."""
        async with self.conducting(start) as wanted:
            known: State | None = workflow.memo_value(VERDICT, default=None)
            if known is None and workflow.has_last_completion_result():  # on a schedule
                known = _state(workflow.get_last_completion_result(Report))
            found = await self._round(wanted, "")
            known = await self._told(found, known)
            turn = 1
            while wanted.every and start.mode != "check":
                await workflow.sleep(wanted.every, summary=f"until it is looked again, {turn} of {LOOKS}")
                if turn == LOOKS:
                    await workflow.wait_condition(workflow.all_handlers_finished)
                    workflow.continue_as_new(start, memo={VERDICT: known})
                turn += 1
                found = await self._round(wanted, f", {turn}")
                known = await self._told(found, known)
            self.require(found.reasons)
        return self.report()

    async def _told(self, found: Verdict, known: State | None) -> State:
        """Have people told once of what is not as it was; what is well at first is no news."""
        if found.state != (known or "replicated"):
            await self._tell(notices.verdict_changed, found.state, known or "", "\n".join(found.reasons))
        return found.state

    async def _round(self, wanted: Parameters, turn: str) -> Verdict:
        limits = Limits(lag_bytes=wanted.lag_bytes, lag_seconds=wanted.lag.total_seconds())
        said = []
        if stores := self._stores():
            said.append(await self._of_stores(wanted, stores, limits, turn))
        for pair in DatabasePair.all(self.frozen.systems, self.frozen.estate, wanted):
            said.append(await self._of_tables(pair, limits, turn))
        found = with_others(joined(*(one for one, _ in said)), *await self._others(wanted, turn))
        self._figures(found, {name: value for _, figures in said for name, value in figures.items()}, turn)
        return found

    async def _of_stores(
        self, wanted: Parameters, stores: Mapping[str, StoreAt], limits: Limits, turn: str
    ) -> tuple[Verdict, Figures]:
        seen = SeenSessions()

        async def sighted(store: StoreAt) -> None:
            spec = StoreSpec(system=store.name, store=store)
            seen.stores[store.name] = await self._sighted(see_store, spec, store.host, turn)

        await self.together(*(sighted(one) for one in stores.values()))
        found = takers(seen.stores)
        if len(found) == 1:
            primary = stores[found[0]]
            replicas = [one for name, one in stores.items() if name != found[0] and seen.stores[name].answered]
            followed = [one for one in replicas if seen.stores[one.name].seen.role == "replica"]
            for replica in followed:
                await self._compared(wanted, seen, primary, replica, turn)
        held = {f"keys at {name}": one.seen.keys for name, one in seen.stores.items() if one.answered}
        for name, one in seen.compared.items():
            held[f"sessions compared at {name}"] = one.compared
            held |= {f"sessions not compared at {name}, just being written": one.undecided} if one.undecided else {}
        return verdict(stores, seen, limits), held

    async def _sighted(self, probe: Probe[S, T], spec: S, host: HostAt, turn: str) -> T:
        """Look from the site of a host, if a worker is there, else from here."""
        site = self.frozen.estate["hosts"][host.name]["site"]
        if queue := self.frozen.estate["sites"][site].get("queue"):
            with contextlib.suppress(FailureError):  # no worker is there
                return await self.look(probe, spec, f"see {spec.system} from {site}{turn}", queue=queue)
        return await self.look(probe, spec, f"see {spec.system}{turn}")

    async def _of_tables(self, pair: DatabasePair, limits: Limits, turn: str) -> tuple[Verdict, Figures]:
        seen = SeenTables()

        async def sighted(one: DatabaseAt) -> None:
            seen.databases[one.name] = await self._sighted(see_database, pair.sees(one), one.host, turn)

        await self.together(*map(sighted, pair.both))
        given = pair.replays(seen, writes=self.start.mode == "live")  # a check writes nothing
        if given is not None:
            found = await self.look(write_message, given, f"{write_message.title(given)}{turn}")
            seen = seen.model_copy(update={"replayed": found})
            for spec in pair.compares(seen, given):
                title = (
                    f"compare the sessions in {spec.table.table} of {spec.primary.name} and {spec.standby.name}{turn}"
                )
                seen.compared[spec.table.table] = await self.look(compare_tables, spec, title)
        return of_tables(pair.both, seen, limits), figures(seen)

    async def _compared(
        self, wanted: Parameters, seen: SeenSessions, primary: StoreAt, replica: StoreAt, turn: str
    ) -> None:
        given = PairOfStores(
            system=replica.name,
            primary=primary,
            replica=replica,
            run=digest(self.run_name)[:8],
            seconds=wanted.lag.total_seconds(),
        )
        linked = follows(primary, seen.stores[replica.name])
        if linked and self.start.mode == "live":  # a check writes nothing
            title = f"see a session of {primary.name} arrive at {replica.name}{turn}"
            seen.canaries[replica.name] = await self.look(write_canary, given, title)
        well = linked and (self.start.mode != "live" or seen.canaries[replica.name].arrived)
        # Where it does not keep up, what it lacks is counted, not estimated.
        spec = Comparison.model_validate(
            given.model_dump()
            | {"match": wanted.match, "sample": wanted.sample, "whole": wanted.whole or not well, "keeps_up": well}
        )
        title = f"compare the sessions of {primary.name} and {replica.name}{turn}"
        seen.compared[replica.name] = await self.look(compare_sessions, spec, title)

    async def _others(self, wanted: Parameters, turn: str) -> tuple[Finding, ...]:
        found: dict[str, Finding] = {}

        async def command(number: int) -> None:
            one = wanted.commands[number]
            known = Host.model_validate(self.frozen.estate["hosts"][one.host])
            host = HostAt.model_validate(known.model_dump() | {"name": one.host})
            spec = CommandAsked(
                system=one.name, host=host, run=one.run, replicated=one.replicated, lagging=one.lagging or ""
            )
            said = await self.look(ask_command, spec, f"ask {one.name} for its replication{turn}")
            found[one.name] = Finding(state=said.state, why=f"{one.name} says: {said.text.strip()}")

        async def url(number: int) -> None:
            one = wanted.urls[number]
            spec = UrlAsked(system=one.name, url=one.url, replicated=one.replicated, lagging=one.lagging or "")
            said = await self.look(ask_url, spec, f"ask {one.name} for its replication{turn}")
            found[one.name] = Finding(state=said.state, why=f"{one.name} says: {said.text.strip()}")

        await self.together(*map(command, range(len(wanted.commands))), *map(url, range(len(wanted.urls))))
        return tuple(found[name] for name in sorted(found))

    def _figures(self, said: Verdict, held: Figures, turn: str) -> None:
        """Say in figures what was seen; ``RPO`` is met where no more than its time would be lost."""
        self.measured(f"verdict{turn}", said.state, "", said.state == "replicated")
        rpo = self.frozen.objectives.rpo.total_seconds()
        for loss in said.losses:
            if loss.seconds is not None:
                self.measured(f"{loss.replica} is behind{turn}", loss.seconds, "s", loss.seconds <= rpo)
            if loss.sessions is not None:
                within = loss.sessions == 0 or (loss.seconds is not None and loss.seconds <= rpo)
                self.measured(f"sessions that {loss.replica} would lose now{turn}", loss.sessions, "", within)
        for name, value in held.items():
            self.measured(f"{name}{turn}", value, "")

    def _stores(self) -> dict[str, StoreAt]:
        named = [name for name in self.frozen.systems if name in self.frozen.estate["stores"]]
        known = {name: self.system("stores", name, Store) for name in named}
        return {name: StoreAt.of(name, one, self.system("hosts", one.host, Host)) for name, one in known.items()}


def _state(last: Report | None) -> State | None:
    """Return the verdict of the run before this one, on a schedule."""
    found = next((figure.value for figure in last.figures if figure.name == "verdict"), None) if last else None
    return next((state for state in STATES if state == found), None)
