"""The ten checks of a site that was activated: by what a recovery did, by what its runbook has asked, or by people."""

from __future__ import annotations

from typing import Any

from activities.site_checks import CheckAsked, MakesCheck, make_check
from activities.sites import Attestation, Sites
from activities.switching import promote_standby
from recovery.details import told
from recovery.procedure import Procedure
from recovery.report import CheckLine, Report
from runbooks.procedures.data_center_activation import ATTEST, CHECKS, Check


async def validate(recovery: Procedure[Any], sites: Sites) -> None:
    """Make the checks, have people attest what only they can see, and report of each one how it was."""
    if not sites.wanted.checks:
        return
    seen: dict[Check, CheckLine] = {}

    async def make(one: CheckAsked) -> None:
        found = await recovery.prove(make_check, one)
        evidence = found.evidence if found else MakesCheck.skip
        seen[one.check] = CheckLine(name=one.check, how="proven" if found else "left out", evidence=evidence)

    await recovery.together(*map(make, sites.checks()))
    attest = sites.attested()
    if recovery.start.mode != "live":  # nothing was made that could be seen
        if attest:
            words = tuple(f"{name}: {what}" for name, what in attest.items())
            await recovery.gate(ATTEST, Attestation(at_stake="", in_words=words))
        return
    for name, steps in by_steps(sites, recovery.report()).items():
        asked = seen.get(name) or CheckLine(name=name, how="proven")
        seen[name] = asked.model_copy(update={"evidence": "; ".join(filter(None, (steps, asked.evidence)))})
    if attest:
        shown = [f"{name}: {told(seen[name])}" if name in seen else "" for name in CHECKS]
        nobody = [f"{name}: nobody checks it" for name in CHECKS if name not in seen and name not in attest]
        evidence = Attestation(
            at_stake=f"who approves attests for {sites.new}: {'; '.join(attest.values())}",
            in_words=(*(f"{name}: {what}" for name, what in attest.items()), *filter(None, shown), *nobody),
        )
        await recovery.gate(ATTEST, evidence, then=f"{sites.new} is declared recovered")
        gate = next(one for one in recovery.report().gates if one.gate == ATTEST)
        by = tuple(one.by for one in gate.decisions if one.verdict == "approve")
        seen |= {name: CheckLine(name=name, how="attested", evidence=what, by=by) for name, what in attest.items()}
    for name in CHECKS:
        line = seen.get(name) or CheckLine(name=name, how="nobody's", evidence="the runbook says nothing of it")
        recovery.checked(name, line.how, line.evidence, line.by)


def by_steps(sites: Sites, report: Report) -> dict[Check, str]:
    """Return the steps by which a recovery has proven a check, and when; nothing where one of them was left out."""
    lines = [line for line in report.steps if line.state in ("changed", "unchanged", "seen")]
    done = {line.title.removesuffix(", taking over"): line.ended for line in lines}
    steps: dict[Check, list[str]] = {
        "database": [promote_standby.title(sites.of_new(pair)) for pair in sites.databases],
        "application services": [
            *(act.title(spec) for act, spec in (one.start for one in sites.boots(sites.new))),
            *(f"see {request.system} ready to serve" for request in sites.health()),
        ],
        "load balancer": [f"point {name} at {sites.new}" for name in sites.directors],
        "full validation": [f"validate {name} with real requests" for name in sites.directors],
    }
    return {
        name: ", ".join(f"{title} ({done[title]:%H:%M:%SZ})" for title in own)
        for name, own in steps.items()
        if own and all(title in done for title in own)
    }
