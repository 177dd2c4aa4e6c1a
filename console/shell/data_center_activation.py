"""What the page of DataCenterActivation is filled with: the engine's own scripts and values, sent over SSH; pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping

from activities.databases import DatabaseAt
from activities.scripts import heads, text
from activities.services import ServiceAt
from activities.sites import Pair, Sites, Stores
from activities.ssh import HostAt
from activities.store_roles import CLOSED, LAG
from activities.stores import StoreAt
from console.shell import workloads
from console.shell.fronts import front
from console.shell.silences import hear, mute, muted
from recovery.models import Frozen
from runbooks.procedures.data_center_activation import Parameters

SCRIPTS = (
    "pg_state", "store_state", "service_state", "service", "keep_role", "restore_role", "store_gate", "store_role",
    "retire", "unretire", "promote_standby", "demote", "follow",
)  # fmt: skip
OWN = {
    "halt": """mkdir -p "$JOBS" || exit
if [ -e "$JOBS/kill-switch" ] && ! grep -qs '^by hand: ' "$JOBS/kill-switch"; then
    echo "Refused: $JOBS/kill-switch stands there already: $(head -c 200 "$JOBS/kill-switch")" >&2
    exit 3
fi
printf 'by hand: %s\\n' "$WHO" >"$JOBS/kill-switch\"""",
    "resume": """! grep -qs '^by hand: ' "$JOBS/kill-switch" || rm -f "$JOBS/kill-switch" """.rstrip(),
    "forget": 'rm -rf "$COPY"',
}
"""What only a person needs: the kill switch of a host, and what a switch by hand leaves beside the data."""
END = "END_OF_FILE"
RUN = "by-hand"  # no recovery has this name, so that no job of one is in the way
PLAIN = {"HISTORY": "", "UPTO": 0, "UNFINISHED": "no", "DISCARD": "yes", "COPIED": "no", "TRIED": "no"}


def variant(frozen: Frozen) -> str:
    """Return which page is its own."""
    return "unplanned" if frozen.parameters["how"] == "unplanned" else ""


def fill(frozen: Frozen, known: bool) -> dict[str, str]:
    """Return what each placeholder of the page stands for; nothing is left open, so that it is always ``known``."""
    wanted = Parameters.model_validate(frozen.parameters)
    page = Page(Sites(frozen.systems, frozen.estate, wanted, RUN))
    lines: dict[str, Iterable[str]] = {
        "hosts": hosts(page.used), "values": written(page.values()), "scripts": scripts(SCRIPTS), "look": page.look(),
        "sound": page.sound(), "found": page.found(), "halt": page.halt(), "keep": page.keep(), "shut": page.shut(),
        "stops": page.stops(), "fence": page.fence(), "promote": page.promote(), "starts": page.starts(),
        "open": page.open(), "validate": page.validate(), "follow": page.follow(), "tidy": page.tidy(),
        "undo": page.undo(), "seen": page.seen(), "ready": page.ready(), "take": page.take(), "back": page.back(),
    }  # fmt: skip
    sites = page.sites
    return {name: "\n".join(found) for name, found in lines.items()} | {
        **where(sites, frozen),
        "drain": f"{wanted.drain.total_seconds():g} s",
        "all": " ".join(page.systems()),
        "muted": muted(page.sites),
        "fenced": str(sites.rules.max_fenced),
        "freeze": "; ".join(
            f"from {one.begins:%Y-%m-%d %H:%M%z} to {one.ends:%Y-%m-%d %H:%M%z} ({one.why})"
            for one in sites.rules.freeze
        )
        or "none",
    }


def where(sites: Sites, frozen: Frozen) -> dict[str, str]:
    """Return what every page about two sites says of them, and of the machine that it is used at."""
    first = next(iter(sites.hosts.values()))
    return {
        "old": sites.old,
        "new": sites.new,
        "work": f"by-hand-{frozen.runbook.replace('/', '-')}",
        "key": first.key,
        "known_hosts": first.known_hosts,
    }


def scripts(names: Iterable[str]) -> Iterator[str]:
    """Yield what writes the scripts of these names, and those that only a person needs, into files."""
    for name, content in {**{name: text(name) for name in names}, **OWN}.items():
        yield from (f"cat >\"$WORK/{name}.sh\" <<'{END}'", content.rstrip(), END)


def hosts(used: Iterable[HostAt]) -> Iterator[str]:
    """Yield how each host is reached."""
    for host in used:
        login = shlex.quote(f"{host.user}@{host.address}")
        yield f'at_{named(host.name)}() {{ $SSH -p {host.port} {login} "$@"; }}'


def written(told: Iterable[tuple[str, Mapping[str, object]]]) -> Iterator[str]:
    """Yield what writes what scripts are told about each system into files."""
    for name, values in told:
        yield from (f"cat >\"$WORK/{name}.values\" <<'{END}'", *heads(values), END)


class Found(str):
    """What the shell fills in, from what was found when the page is used."""


def on(host: HostAt, system: str, script: str, **given: object) -> str:
    """Return the line that runs a script on a host for a system."""
    words = [f"{key}={_word(value)}" for key, value in given.items()]
    return " ".join(["on", named(host.name), system, script, *words])


def _word(value: object) -> str:
    return f'"{value}"' if isinstance(value, Found) else shlex.quote(str(value))


def must(found: str, wanted: str, advice: str) -> str:
    """Return the line that stops where what was found is not what has to be; both are words of the shell."""
    return f"must {found} {wanted} {shlex.quote(advice)}"


def named(text: str) -> str:
    """Return a name as the shell takes one."""
    return re.sub(r"\W", "_", text)


class Page:
    """The lines of shell of each step."""

    def __init__(self, sites: Sites) -> None:
        self.sites = sites
        self.known = {
            name: HostAt.model_validate(host.model_dump() | {"name": name}) for name, host in sites.hosts.items()
        }
        levels = [*sites.levels(sites.old), *sites.levels(sites.new)]
        self.fronts = [front(name, one) for name, one in sites.directors.items()]
        self.services: list[ServiceAt] = [one for level in levels for one in level.services]
        used = {one.host.name for one in self._kept()}
        used |= {one.host.name for one in self.services}
        self.used = [self.known[name] for name in sorted(used)]
        lost = sites.wanted.how == "unplanned"
        self.halted = [host for host in self.used if not lost or sites.hosts[host.name].site == sites.new]

    def _kept(self) -> list[DatabaseAt | StoreAt]:
        """Return every database and store."""
        databases = [one for pair in self.sites.databases for one in (pair.old, pair.new)]
        return [*databases, *(one for two in self.sites.stores for one in (two.old, two.new))]

    # --- before ------------------------------------------------------------------------------------------

    def systems(self) -> list[str]:
        """Return every system, as its file of what was seen is named."""
        return [*(one.name for one in self._kept()), *(one.name for one in self.services), *self.sites.directors]

    def values(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Yield what scripts are told about each system."""
        for host in self.used:
            yield host.name, {"jobs": host.jobs}
        for pair in self.sites.databases:
            for one, other in ((pair.old, pair.new), (pair.new, pair.old)):
                yield one.name, one.values(RUN) | {"upstream": other.upstream, "from": other.reached}
        for store in (one for two in self.sites.stores for one in (two.old, two.new)):
            yield store.name, store.values()
        for service in self.services:
            yield service.name, {"service": service.name}

    # --- looking -----------------------------------------------------------------------------------------

    def look(self) -> Iterator[str]:
        """Yield how everything is looked at; each answer goes to a file of its own."""
        for pair in self.sites.databases:
            yield from (_see(pair.old, reach=pair.new.upstream), _see(pair.new, reach=pair.old.upstream))
        for store in (one for two in self.sites.stores for one in (two.old, two.new)):
            yield f'{on(store.host, store.name, "store_state", ASKED="all")} >"$WORK/{store.name}.seen"'
        for one in self.services:
            yield f'{on(one.host, one.name, "service_state", COMMAND=one.status)} >"$WORK/{one.name}.seen"'
        for way in self.fronts:
            yield from way.look()

    def sound(self) -> Iterator[str]:
        """Yield what has to be so before anything is begun."""
        for pair in self.sites.databases:
            yield from _sound_pair(pair)
        for two in self.sites.stores:
            yield from _sound_stores(two)
        new = {one.name for level in self.sites.levels(self.sites.new) for one in level.services}
        for one in self.services:
            state = "stopped" if one.name in new else "runs"
            yield must(f'"$(cat "$WORK/{one.name}.seen")"', state, f"{one.name} has to be: {state}")
        for way in self.fronts:
            yield from way.sound(self.sites.old)
        yield from (f'{line} || stop "{name} takes too few"' for name, line in self._rooms(lost=False))
        yield from self._granted()

    def _rooms(self, *, lost: bool) -> Iterator[tuple[str, str]]:
        """Yield by system how its connections are compared; of a lost site what the estate says counts alone."""
        for pair in self.sites.databases:
            name = pair.new.name
            needed = self.sites.connected(pair) or ("" if lost else f"$(tells {pair.old.name} clients)")
            gone = f'"$(tells {name} reserved)" "$(tells {name} clients)"'
            yield name, f'room {name} "{needed}" "$(tells {name} limit)" {gone}'
        for two in self.sites.stores:
            name = two.new.name  # who looks is counted, and the link of a replica: at most three too many
            needed = self.sites.connected(two) or ("" if lost else f"$(seen {two.old.name} connected_clients)")
            yield name, f'room {name} "{needed}" "$(seen {name} maxclients)" "$(seen {name} connected_clients)"'

    def _granted(self) -> Iterator[str]:
        """Yield how it is seen what Azure grants; a page asks nothing of it by itself."""
        for machine in self.sites.machines(self.sites.new):
            at = machine.at
            there = f"--subscription {at.subscription} -g {at.resource_group} -n {at.name}"
            where = f'"$(az vm show {there} --query location -o tsv)"'
            how = f"az vm show {there} --query hardwareProfile; az vm list-usage -o table -l {where}"
            yield f"echo {shlex.quote(f'{machine.system}: see what Azure grants it: {how}')}"

    def found(self) -> Iterator[str]:
        """Yield how what undoing needs is kept, and taken up in this shell."""
        # A page that was used before is over: what is found is sound, so nothing stands half done.
        yield '[ -n "$STOPPED" ] || [ ! -e "$WORK/decided" ] || mv "$WORK/decided" "$WORK/decided.$(date +%s)"'
        yield "goes_on && {"
        for two in self.sites.stores:
            yield f"""    printf "GATE_{named(two.old.name)}='%s'\\n" "$(seen {two.old.name} gate)\""""
        for way in self.fronts:
            yield from way.found()
        yield '} >"$WORK/found"'
        yield '. "$WORK/found"'

    # --- acting ------------------------------------------------------------------------------------------

    def halt(self) -> Iterator[str]:
        """Yield what keeps an engine from acting on these hosts."""
        yield from (on(host, host.name, "halt", WHO=Found("$DECIDED")) for host in self.halted)

    def keep(self) -> Iterator[str]:
        """Yield what keeps the standbys' settings."""
        yield from (on(pair.new.host, pair.new.name, "keep_role") for pair in self.sites.databases)

    def shut(self) -> Iterator[str]:
        """Yield what shuts clients out, and waits for those who are in."""
        seconds = int(self.sites.wanted.drain.total_seconds())
        yield from mute(self.sites)
        for way in self.fronts:
            yield from way.shut()
        for way in self.fronts:
            yield from way.drain(self.sites.old, seconds)

    def stops(self) -> Iterator[str]:
        """Yield what stops the services of the old site."""
        yield from self._stopped(self.sites.old)

    def _stopped(self, site: str) -> Iterator[str]:
        """Yield what stops all that serves at a site, those first that need others."""
        for rank in reversed(self.sites.ranks(site)):
            for name in rank:
                yield from self._turned(name, up=False)

    def _started(self, site: str) -> Iterator[str]:
        """Yield what starts it, those first that others need."""
        yield from workloads.opened(self.sites, site)
        for rank in self.sites.ranks(site):
            for name in rank:
                yield from self._turned(name, up=True)

    def _turned(self, name: str, *, up: bool) -> Iterator[str]:
        if name in self.sites.workloads:
            yield from workloads.scaled(self.sites, name, self.sites.workloads[name].replicas if up else 0)
        else:
            yield from _run(next(one for one in self.services if one.name == name), up)

    def fence(self) -> Iterator[str]:
        """Yield what fences stores and databases of the old site, and proves that nothing was left."""
        seconds = int(self.sites.wanted.catch_up.total_seconds())
        for two in self.sites.stores:
            gate = Found(f"$GATE_{named(two.old.name)}")
            yield from _lag(two)
            yield on(
                two.old.host, two.old.name, "store_gate", EXPECTED=gate, LEAST=CLOSED, LAG=Found("$LAG"), CLOSED="yes",
            )  # fmt: skip
            yield _await(seconds, f"{two.new.name} has all of {two.old.name}", "copied", two)
        for pair in self.sites.databases:
            yield _await(seconds, f"{pair.new.name} has all of {pair.old.name}", "replicated", pair)
            yield on(pair.old.host, pair.old.name, "retire")
            yield _await(seconds, f"{pair.new.name} has all that {pair.old.name} had", "replicated", pair)
            name = pair.old.name
            yield must(
                f'"$(seen {name} signal)$(seen {name} serving)"', "yes", f"{name} is not fenced; undo the switch"
            )

    def promote(self) -> Iterator[str]:
        """Yield what promotes databases and stores of the new site."""
        for pair in self.sites.databases:
            last = Found(f"$(seen {pair.old.name} checkpoint)")
            yield on(pair.new.host, pair.new.name, "promote_standby", LAST=last)
        yield from self._promoted_stores()

    def _promoted_stores(self) -> Iterator[str]:
        for two in self.sites.stores:
            yield on(
                two.new.host,
                two.new.name,
                "store_role",
                WANTED="",
                EXPECTED=two.old.upstream,
                **{**PLAIN, "TRIED": "yes"},
            )

    def starts(self) -> Iterator[str]:
        """Yield what starts machines and services of the new site, and sees them ready."""
        for machine in self.sites.machines(self.sites.new):
            at = machine.at
            how = f"az vm start --subscription {at.subscription} -g {at.resource_group} -n {at.name}"
            yield f"asked {shlex.quote(f'start the machine {machine.system}, and wait until it runs: {how}')}"
        yield from self._started(self.sites.new)
        for request in self.sites.health():
            yield f"await 30 {shlex.quote(f'{request.system} is ready')} serves {shlex.quote(request.url)}"

    def open(self) -> Iterator[str]:
        """Yield what lets clients in at the new site."""
        for way in self.fronts:
            yield from way.open(self.sites.new)

    def validate(self) -> Iterator[str]:
        """Yield what sends real requests."""
        for name in self.sites.directors:
            request = self.sites.requests(name)
            address = shlex.quote(request.url.rstrip("/") + request.path)
            numbers = " ".join(map(str, range(request.count)))
            yield f"for number in {numbers}; do"
            yield f"    curl -s --noproxy '*' --max-time 5 -o \"$WORK/answer\" -w '%{{http_code}}\\n' {address} || :"
            yield "done | sort | uniq -c"

    def follow(self) -> Iterator[str]:
        """Yield what makes the old site a replica of the new one."""
        for pair in self.sites.databases:
            yield on(pair.old.host, pair.old.name, "follow")
        for two in self.sites.stores:
            follows = {**PLAIN, "COPIED": "yes"}
            yield on(two.old.host, two.old.name, "store_role", WANTED=two.new.upstream, EXPECTED="", **follows)
            yield from _unfence(two)
        yield from workloads.drained(self.sites, self.sites.old)

    def tidy(self) -> Iterator[str]:
        """Yield what takes away what this page has left."""
        yield from hear(self.sites)
        yield from (on(pair.new.host, pair.new.name, "forget") for pair in self.sites.databases)
        yield from (on(host, host.name, "resume") for host in self.halted)

    # --- without the old site ----------------------------------------------------------------------------

    def seen(self) -> Iterator[str]:
        """Yield how the new site is looked at alone."""
        yield from (_see(pair.new) for pair in self.sites.databases)
        for two in self.sites.stores:
            yield f'{on(two.new.host, two.new.name, "store_state", ASKED="all")} >"$WORK/{two.new.name}.seen"'
        for way in self.fronts:
            yield from way.look()

    def ready(self) -> Iterator[str]:
        """Yield what has to be so at the new site before it takes over."""
        for pair in self.sites.databases:
            name = pair.new.name
            yield must(f'"$(tells {name} role)"', "standby", f"{name} has to be a standby: only that can take over")
        for two in self.sites.stores:
            yield must(f'"$(seen {two.new.name} role)"', "slave", f"{two.new.name} has to be a replica")
        yield from (
            f'{line} || echo "SHORT: {name} takes too few; people decide"' for name, line in self._rooms(lost=True)
        )
        yield from self._granted()

    def take(self) -> Iterator[str]:
        """Yield what promotes the new site with what has arrived there."""
        for pair in self.sites.databases:
            yield on(pair.new.host, pair.new.name, "promote_standby", LAST="0/0")
        yield from self._promoted_stores()

    def back(self) -> Iterator[str]:
        """Yield what fences the old site once it is back: services are stopped, databases come up as standbys only."""
        yield from self._stopped(self.sites.old)
        yield from (on(pair.old.host, pair.old.name, "retire") for pair in self.sites.databases)
        yield from workloads.drained(self.sites, self.sites.old)

    # --- the way back ------------------------------------------------------------------------------------

    def undo(self) -> Iterator[str]:
        """Yield what brings the old site back: the new one is shut first."""
        yield from self._stopped(self.sites.new)
        for two in self.sites.stores:
            yield on(two.new.host, two.new.name, "store_role", WANTED=two.old.upstream, EXPECTED="", **PLAIN)
        for pair in self.sites.databases:
            name = pair.new.name
            yield _see(pair.new)
            yield f'[ "$(tells {name} role)" = standby ] || {on(pair.new.host, name, "demote")}'
            yield _see(pair.new)
            yield must(f'"$(seen {name} signal)"', "yes", f"{name} would come up as a primary: two would take writes")
            runs = must(f'"$(seen {name} serving)"', "''", f"{name} still runs")
            yield f'[ "$(tells {name} role)" = standby ] || {runs}'
            yield on(pair.old.host, pair.old.name, "unretire", SERVED="yes")
        for two in self.sites.stores:
            yield from _unfence(two)
        yield from self._started(self.sites.old)
        for way in self.fronts:
            yield from way.back()
        yield from (on(pair.new.host, pair.new.name, "restore_role") for pair in self.sites.databases)
        yield from hear(self.sites)
        yield from (on(host, host.name, "resume") for host in self.halted)


def _see(one: DatabaseAt, reach: str = "") -> str:
    return f'{on(one.host, one.name, "pg_state", REACH=reach)} >"$WORK/{one.name}.seen"'


def _await(seconds: int, what: str, how: str, pair: Pair | Stores) -> str:
    names = f"{named(pair.old.host.name)} {pair.old.name} {named(pair.new.host.name)} {pair.new.name}"
    return f"await {seconds} {shlex.quote(what)} {how} {names}"


def _run(one: ServiceAt, started: bool) -> Iterator[str]:
    yield on(one.host, one.name, "service", COMMAND=one.start if started else one.stop)


def _unfence(two: Stores) -> Iterator[str]:
    gate = f"GATE_{named(two.old.name)}"
    yield from _lag(two)
    yield on(
        two.old.host, two.old.name, "store_gate", EXPECTED=Found(f"{CLOSED} $LAG"), LEAST=Found(f"${{{gate}% *}}"),
        LAG=Found(f"${{{gate}#* }}"), CLOSED="no",
    )  # fmt: skip


def _lag(two: Stores) -> Iterator[str]:
    """Yield how the lag is found with which the old store is fenced: with 0 it would take every write."""
    yield f"LAG=${{GATE_{named(two.old.name)}#* }}"
    yield f'[ "$LAG" != 0 ] || LAG={LAG}'


def _sound_pair(pair: Pair) -> Iterator[str]:
    old, new = pair.old.name, pair.new.name
    yield must(f'"$(seen {old} fault)$(seen {new} fault)"', "''", "mend these faults")
    yield must(f'"$(tells {old} role)"', "primary", f"{old} is no primary: there is nothing to move from")
    yield must(f'"$(seen {old} signal)"', "''", f"standby.signal lies in the data of {old}; remove it")
    yield must(f'"$(tells {new} role)"', "standby", f"{new} is no standby; make it one of {old}")
    yield must(f'"$(seen {new} system)"', f'"$(seen {old} system)"', f"{new} is another database than {old}")
    yield must(f'"$(tells {new} of)"', shlex.quote(pair.old.reached), f"{new} does not replicate {old}; see its log")
    yield must(f'"$(seen {old} reached)"', f'"$(seen {old} system)"', f"the host of {old} cannot replicate {new}")
    yield must(f'"$(seen {old} kept)$(seen {new} kept)"', "''", "an attempt by hand was not ended: undo that first")


def _sound_stores(two: Stores) -> Iterator[str]:
    old, new = two.old.name, two.new.name
    yield must(f'"$(seen {old} role) $(seen {old} writes)"', "'master taken'", f"{old} is no primary that takes writes")
    address = f'"$(seen {new} role) $(seen {new} master_host):$(seen {new} master_port)"'
    yield must(address, shlex.quote(f"slave {two.old.upstream}"), f"{new} is no replica of {old}")
    yield must(f'"$(seen {new} master_link_status)"', "up", f"{new} has no link to {old}; see its log")
