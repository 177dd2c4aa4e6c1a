"""What the page of SessionRecovery is filled with: the engine's own scripts and values, sent over SSH; pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping

from activities.scripts import lua
from activities.session_recovery import Stores
from activities.sessions import MANY
from activities.ssh import HostAt
from activities.store_roles import CLOSED, LAG
from activities.stores import StoreAt
from console.shell.data_center_activation import PLAIN, RUN, Found, hosts, must, named, on, scripts, written
from recovery.models import Frozen
from runbooks.procedures.session_recovery import GATE, Parameters

SCRIPTS = ("store_state", "store_gate", "store_role", "store_ask", "store_all", "keep_sessions", "sessions_kept")
RESTORING = (
    "see_snapshot", "read_snapshot", "snapshot_read", "put_sessions", "sessions_put", "check_put", "settle_sessions",
)  # fmt: skip
OWNER = Found(f"{RUN}-$SINCE")
"""Whose each use of the page is; an engine's recovery has another name."""


def variant(frozen: Frozen) -> str:
    """Return which parts of the page are its own."""
    return str(frozen.parameters["how"])


def fill(frozen: Frozen, known: bool) -> dict[str, str]:
    """Return what each placeholder of the page stands for; nothing is left open, so that it is always ``known``."""
    wanted = Parameters.model_validate(frozen.parameters)
    page = StorePage(Stores(frozen.estate, wanted, RUN))
    more = RESTORING if wanted.how == "restore" else ()
    lines: dict[str, Iterable[str]] = {
        "hosts": hosts(page.used), "values": written(page.values()), "scripts": scripts((*SCRIPTS, *more)),
        "look": page.look(), "sound": page.sound(), "found": page.found(), "compare": page.compare(),
        "fence": page.fence(), "keep": page.keep(), "plan": page.plan(), "halt": page.halt(), "follow": page.follow(),
        "promote": page.promote(), "put": page.put(), "forget": page.forget(), "prove": page.prove(),
        "undo": page.undo(), "tidy": page.tidy(),
    }  # fmt: skip
    return {name: "\n".join(found) for name, found in lines.items()} | {
        "store": page.store.name,
        "peer": page.peer.name,
        "gate": GATE[wanted.how],
        "snapshot": wanted.snapshot or "",
        "work": f"by-hand-{frozen.runbook.replace('/', '-')}",
        "key": page.store.host.key,
        "known_hosts": page.store.host.known_hosts,
    }


class StorePage:
    """The lines of shell of each step. ``LOST`` is set by who uses the page where the peer can not be reached."""

    def __init__(self, stores: Stores) -> None:
        self.wanted, self.store, self.peer = stores.wanted, stores.store, stores.peer
        self.used: list[HostAt] = [self.store.host]
        if self.peer.host.name != self.store.host.name:
            self.used.append(self.peer.host)

    def values(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Yield what scripts are told about each host, and each store."""
        for host in self.used:
            yield host.name, {"jobs": host.jobs}
        usual = {"read": lua("sessions"), "match": self.wanted.match, "count": MANY}
        usual |= {"upto": 0, "patience": 0, "limit": 10}
        for one in (self.store, self.peer):
            yield one.name, one.values() | usual
        field = (self.wanted.version or "").encode().hex() or "-"
        more = {"text": lua("restore"), "match": self.wanted.match, "field": field, "server": self.store.server}
        more |= {"snapshot": self.wanted.snapshot or "", "copies": self.store.copies}
        if self.wanted.how == "restore":
            yield "snapshot", self.store.values() | more

    # --- looking -----------------------------------------------------------------------------------------

    def look(self) -> Iterator[str]:
        """Yield how both stores are looked at, and the snapshot."""
        yield f'{self._on(self.store, "store_state", ASKED="all")} >"$WORK/{self.store.name}.seen"'
        yield self._there(f'{self._on(self.peer, "store_state", ASKED="all")} >"$WORK/{self.peer.name}.seen"')
        if self.wanted.how == "restore":
            yield f'{on(self.store.host, "snapshot", "see_snapshot")} >"$WORK/snapshot.seen"'

    def sound(self) -> Iterator[str]:
        """Yield what has to be so before anything is begun."""
        ways = {"reattach": self._reattached, "promote": self._promoted, "restore": self._restored}
        return ways[self.wanted.how]()

    def _reattached(self) -> Iterator[str]:
        store, peer = self.store.name, self.peer.name
        yield must(self._takes(peer), "'master taken'", f"{peer} is no primary that takes writes: nobody to replicate")
        already = shlex.quote(f"slave {self.peer.upstream} up")
        yield f"[ {self._follows(store)} != {already} ] || stop '{store} replicates {peer} already: nothing to do'"

    def _promoted(self) -> Iterator[str]:
        store, peer = self.store.name, self.peer.name
        yield must(f'"$(seen {store} role)"', "slave", f"{store} is no replica: there is nothing to promote")
        yield must(f'"$(seen {store} master_sync_in_progress)"', "0", f"{store} is being filled: what it has is old")
        yield self._there(must(self._takes(peer), "'master taken'", f"{peer} is no primary that takes writes"))
        follows = shlex.quote(f"slave {self.peer.upstream} up")
        yield self._there(must(self._follows(store), follows, f"{store} has no link to {peer}; see its log"))
        yield f'echo "{store} has heard nothing of {peer} for $(seen {store} master_last_io_seconds_ago) s"'

    def _restored(self) -> Iterator[str]:
        store = self.store.name
        yield must(self._takes(store), "'master taken'", f"{store} is no primary that takes writes")
        yield must('"$(seen snapshot fault)"', "''", "take another snapshot, or mend this")

    def _takes(self, name: str) -> str:
        return f'"$(seen {name} role) $(seen {name} writes)"'

    def _follows(self, name: str) -> str:
        at = f"$(seen {name} master_host):$(seen {name} master_port)"
        return f'"$(seen {name} role) {at} $(seen {name} master_link_status)"'

    def found(self) -> Iterator[str]:
        """Yield how what is needed later is kept, and taken up in this shell."""
        store, peer = self.store.name, self.peer.name
        yield '[ -n "$STOPPED" ] || [ ! -e "$WORK/decided" ] || mv "$WORK/decided" "$WORK/decided.$(date +%s)"'
        yield "goes_on && {"
        yield """    printf "SINCE='%s'\\n" "$(date -u +%Y%m%dT%H%M%SZ)\""""
        yield f"""    printf "GATE='%s'\\n" "$(seen {store} gate)\""""
        yield f"""    printf "PEER='%s'\\n" "$([ -n "${{LOST-}}" ] || seen {peer} gate)\""""
        of = f"$(seen {store} master_host):$(seen {store} master_port)"
        yield f"""    printf "OF='%s'\\n" "$([ "$(seen {store} role)" = master ] || echo "{of}")\""""
        yield '} >"$WORK/found"'
        yield '. "$WORK/found"'

    def compare(self) -> Iterator[str]:
        """Yield what tells how many sessions only the store has, by what both tell of each."""
        store, peer = self.store.name, self.peer.name
        for one in (self.store, self.peer):
            yield f'{self._on(one, "store_all")} >"$WORK/all"'
            yield f"""goes_on && grep -E '^[0-9a-f]+ ' "$WORK/all" | LC_ALL=C sort >"$WORK/{one.name}.rows\""""
        both = f'"$WORK/{store}.rows" "$WORK/{peer}.rows"'
        yield f'goes_on && echo "only {store} has: $(LC_ALL=C join -v 1 {both} | wc -l)"'
        differ = "awk '$2 != $5 || $4 != $7'"
        yield f'goes_on && echo "both have otherwise: $(LC_ALL=C join {both} | {differ} | wc -l)"'

    # --- acting ------------------------------------------------------------------------------------------

    def fence(self) -> Iterator[str]:
        """Yield what has the one take no session that took them: the store itself, or the peer of one promoted."""
        if self.wanted.how == "reattach":
            return (f'[ -n "$OF" ] || {{ {line}; }}' for line in self._shut(self.store, "GATE"))
        names = " ".join(word for one in (self.peer, self.store) for word in (named(one.host.name), one.name))
        seconds = int(self.wanted.catch_up.total_seconds())
        what = shlex.quote(f"{self.store.name} has all of {self.peer.name}")
        lines = (*self._shut(self.peer, "PEER"), f"await {seconds} {what} copied {names}")
        return (self._there(f"{{ {line}; }}") for line in lines)

    def _shut(self, one: StoreAt, gate: str) -> Iterator[str]:
        yield from _lag(gate)
        yield self._on(one, "store_gate", EXPECTED=Found(f"${gate}"), LEAST=CLOSED, LAG=Found("$LAG"), CLOSED="yes")

    def _open(self, one: StoreAt, gate: str) -> Iterator[str]:
        yield from _lag(gate)
        yield self._on(
            one, "store_gate", EXPECTED=Found(f"{CLOSED} $LAG"), LEAST=Found(f"${{{gate}% *}}"),
            LAG=Found(f"${{{gate}#* }}"), CLOSED="no",
        )  # fmt: skip

    def keep(self) -> Iterator[str]:
        """Yield what keeps all that the store holds as a snapshot, unless this use of the page has it already."""
        if not self.store.copies:
            yield f"# {self.store.name} has no folder for copies in the estate: nothing is kept"
            return
        out = Found(f"{self.store.copies}/{self.store.name}.replaced-{OWNER}")
        look = f'{self._on(self.store, "sessions_kept", OUT=out)} >"$WORK/kept.seen"'
        own = '[ -n "$OF" ] || ' if self.wanted.how == "reattach" else ""
        yield own + look
        kept = '[ "$(seen kept stage)" = kept ]'
        yield f"{own}{kept} || {self._on(self.store, 'keep_sessions', OUT=out, OWNER=OWNER)}"
        yield own + look
        yield own + must(
            '"$(seen kept stage)"', "kept", f"what {self.store.name} holds is not kept; nothing was changed"
        )
        yield f'{own}echo "{out}: $(seen kept keys) keys"'

    def halt(self) -> Iterator[str]:
        """Yield what keeps an engine from acting on these hosts."""
        yield from (on(host, host.name, "halt", WHO=Found("$DECIDED")) for host in self.used[:1])
        yield from (self._there(on(host, host.name, "halt", WHO=Found("$DECIDED"))) for host in self.used[1:])

    def follow(self) -> Iterator[str]:
        """Yield what makes a replica: of the store, or of the peer of one promoted; it takes nothing by itself."""
        follows = {**PLAIN, "COPIED": "yes"}
        if self.wanted.how == "reattach":
            yield self._on(self.store, "store_role", WANTED=self.peer.upstream, EXPECTED=Found("$OF"), **follows)
            yield f'case $GATE in "{CLOSED} "*) OPEN=$PEER ;; *) OPEN=$GATE ;; esac'
            yield from (f'[ -n "$OF" ] || {{ {line}; }}' for line in self._opened())
            return
        line = self._on(self.peer, "store_role", WANTED=self.store.upstream, EXPECTED="", **follows)
        yield from (self._there(f"{{ {one}; }}") for one in (line, *self._open(self.peer, "PEER")))

    def _opened(self) -> Iterator[str]:
        yield from _lag("GATE")
        yield self._on(
            self.store, "store_gate", EXPECTED=Found(f"{CLOSED} $LAG"), LEAST=Found("${OPEN% *}"),
            LAG=Found("${OPEN#* }"), CLOSED="no",
        )  # fmt: skip

    def promote(self) -> Iterator[str]:
        """Yield what promotes the store."""
        yield self._on(self.store, "store_role", WANTED="", EXPECTED=Found("$OF"), **{**PLAIN, "TRIED": "yes"})

    def prove(self) -> Iterator[str]:
        """Yield what has a session arrive at the replica."""
        first, second = (self.peer, self.store) if self.wanted.how == "reattach" else (self.store, self.peer)
        sent = Found("SET recovery:canary:$SINCE here PX 60000")
        yield self._there(f'{self._on(first, "store_ask", COMMANDS=sent)} >"$WORK/canary"')
        seen = self._on(second, "store_ask", COMMANDS=Found("GET recovery:canary:$SINCE"))
        yield f"""arrived() {{ {seen} >"$WORK/canary" && grep -qx here "$WORK/canary"; }}"""
        yield self._there(f"await 10 'a session of {first.name} arrives at {second.name}' arrived")

    # --- restoring ---------------------------------------------------------------------------------------

    def plan(self) -> Iterator[str]:
        """Yield what reads the snapshot beside the store, and plans what is done with each session."""
        told = f'{self._snapshot("snapshot_read")} >"$WORK/plan.seen"'
        yield told
        found = {"DIGEST": Found("$(seen snapshot digest)"), "KEYS": Found("$(seen snapshot keys)"), "OWNER": OWNER}
        yield f'[ "$(seen plan stage)" = read ] || {self._snapshot("read_snapshot", **found)}'
        yield told
        yield must('"$(seen plan stage)"', "read", "the snapshot could not be read; nothing was changed")
        yield 'cat "$WORK/plan.seen"'

    def put(self) -> Iterator[str]:
        """Yield what puts the sessions back, and sees each of them."""
        yield self._snapshot("put_sessions", **self._planned())
        yield f'{self._snapshot("check_put", **self._planned())} >"$WORK/fates.seen"'
        yield 'cat "$WORK/fates.seen"'
        yield must('"$(seen fates undecided)"', "''", "these did not arrive, and nobody knows why; go back")

    def forget(self) -> Iterator[str]:
        """Yield what has the store forget how its sessions were before."""
        yield self._snapshot("settle_sessions", HOW="forget", **self._planned())

    def _planned(self) -> dict[str, object]:
        return {"PLAN": Found("$(seen plan plan)"), "MARK": Found(f"recovery:{OWNER}")}

    def _snapshot(self, script: str, **given: object) -> str:
        out = Found(f"{self.store.copies}/{self.store.name}.restored-{OWNER}")
        return on(self.store.host, "snapshot", script, OUT=out, **given)

    # --- the way back ------------------------------------------------------------------------------------

    def undo(self) -> Iterator[str]:
        """Yield what brings back how it was: until the store is overwritten, promoted, or has forgotten."""
        if self.wanted.how == "reattach":
            yield from (f'[ -n "$OF" ] || {{ {line}; }}' for line in self._open(self.store, "GATE"))
        elif self.wanted.how == "promote":
            yield from (self._there(f"{{ {line}; }}") for line in self._open(self.peer, "PEER"))
        else:
            yield self._snapshot("settle_sessions", HOW="back", **self._planned())
        yield from self.tidy()

    def tidy(self) -> Iterator[str]:
        """Yield what lets an engine act again."""
        yield from (on(host, host.name, "resume") for host in self.used[:1])
        yield from (self._there(on(host, host.name, "resume")) for host in self.used[1:])

    def _on(self, one: StoreAt, script: str, **given: object) -> str:
        return on(one.host, one.name, script, **given)

    def _there(self, line: str) -> str:
        """Return a line that is left out where the peer is lost."""
        return f'[ -n "${{LOST-}}" ] || {line}'


def _lag(gate: str) -> Iterator[str]:
    """Yield how the lag is found with which a store is fenced: with 0 it would take every write."""
    yield f"LAG=${{{gate}#* }}"
    yield f'[ "$LAG" != 0 ] || LAG={LAG}'
