"""Going back to a site that was lost: what stands in the way, and what people decide on; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from activities.comparing import Compared
from activities.databases import DatabaseSeen, known
from activities.divergence import Divergence, PartedSpec
from activities.pointing import Sighted
from activities.quota import QuotaSeen
from activities.rooms import RoomSeen
from activities.salvage import Salvaged
from activities.session_keeping import KeepSpec, Snapshot
from activities.sessions import Comparison
from activities.sites import NEEDED, Pair, Sites, Stores
from activities.store_roles import CLOSED, Follow, Unfence
from activities.stores import Replication
from activities.takeovers import TakenOver
from activities.workload_looks import WorkloadSeen
from recovery.models import Wire


class Back(Wire):
    """All that was looked at, by name: both sites, and what only the lost one has.

    ``halted`` is who has all workers of a site stopped, and why, by that site. ``unseen`` is what a check could not
    see: nothing is said of that.
    """

    databases: dict[str, DatabaseSeen] = {}
    divergences: dict[str, Divergence] = {}
    stores: dict[str, Replication] = {}
    sessions: dict[str, Compared] = {}
    workloads: dict[str, WorkloadSeen] = {}
    directors: dict[str, Sighted] = {}
    halted: dict[str, str] = {}
    unseen: frozenset[str] = frozenset()
    quota: QuotaSeen | None = None
    rooms: dict[str, RoomSeen] = {}


class Overwritten(Wire):
    """What people decide on who may have a lost site rebuilt: what only that has, where that is, the criteria."""

    at_stake: str
    in_words: tuple[str, ...]


class Home(Wire):
    """What people declare the end on."""

    at_stake: str
    in_words: tuple[str, ...]


def parted(sites: Sites, pair: Pair) -> PartedSpec:
    """Return how the lost database is named where it is read: ``new`` is the one at home."""
    out = f"{pair.new.copies}/{pair.new.name}.divergent-{sites.owner}"
    return PartedSpec(system=pair.new.name, database=pair.new, other=pair.old, owner=sites.owner, out=out)


def strayed(sites: Sites, two: Stores) -> Comparison:
    """Return what compares every session of the lost store with what the one that serves holds."""
    return Comparison(
        system=two.new.name, primary=two.new, replica=two.old, run=sites.owner, whole=True, keeps_up=False
    )


def follows(found: Back, two: Stores) -> bool:
    """Tell whether the store at home replicates the one that serves: then it has nothing of its own."""
    return found.stores[two.new.name].of == two.old.upstream


def keeps(sites: Sites, two: Stores) -> KeepSpec:
    """Return how what the store at home holds is kept."""
    out = f"{two.new.copies}/{two.new.name}.divergent-{sites.owner}"
    return KeepSpec(system=two.new.name, store=two.new, run=sites.owner, out=out)


def readable(found: Back, pair: Pair) -> bool:
    """Tell whether the lost database may have something of its own, and takes no writes any more."""
    lost = found.databases[pair.new.name]
    follows = lost.streaming and lost.of == pair.old.reached
    return not follows and known(pair.new.name, lost).writable is False


def rejoins(sites: Sites, two: Stores) -> Follow:
    """Return whom the store at home follows; what only it has goes, as people were told."""
    return Follow(system=two.new.name, store=two.new, run=sites.owner, peer=two.old, discard=True)


def reopens(sites: Sites, two: Stores, found: Back, taken: TakenOver) -> Unfence:
    """Return what opens the gate of the store at home: as it was before the site was lost, or as the other one's is.

    One that was fenced since, when it came back, was so by its own start-up or by a watch that is not read here.
    """
    serves = found.stores[two.old.name]
    least, lag = taken.fenced.get(two.new.name, (CLOSED, 0))
    least, lag = (least, lag) if least != CLOSED else (serves.least, serves.lag)
    return Unfence(system=two.new.name, store=two.new, run=sites.owner, least=least, lag=lag)


def shut(found: Back, two: Stores) -> bool:
    """Tell whether the store at home is fenced: before its site was lost, or when that came back."""
    return found.stores[two.new.name].least == CLOSED


def blockers(sites: Sites, found: Back, taken: TakenOver, settled: timedelta, now: datetime) -> list[str]:
    """Return everything that stands in the way of going back, each with what to do about it."""
    lines = (
        *sites.frozen(now),
        *(f"the kill switch is on at {site} ({why})" for site, why in found.halted.items() if why),
        *_recorded(sites, taken, settled, now),
        *(line for pair in sites.databases for line in _database(pair, found)),
        *(line for two in sites.stores for line in _store(two, found)),
        *(fault for seen in found.workloads.values() for fault in seen.faults),
        *(
            f"{name}: does not point at {sites.old} alone, which is said to serve; see who takes the clients"
            for name, seen in found.directors.items()
            if seen.pointed.site != sites.old
        ),
    )
    return [line for line in lines if line.partition(": ")[0] not in found.unseen]


def _recorded(sites: Sites, taken: TakenOver, settled: timedelta, now: datetime) -> Iterator[str]:
    wanted = {pair.old.name: pair.new.name for pair in sites.databases}
    if taken.databases != wanted:
        was = ", ".join(f"{new} from {old}" for new, old in sorted(taken.databases.items()))
        yield f"parameters.recovery: that one had {was} taken over, which is not what this runbook goes back from"
    if taken.ended is not None and now < taken.ended + settled:
        yield f"parameters.settled: {sites.old} has to serve until {taken.ended + settled:%Y-%m-%d %H:%M:%S}Z; wait"


def _database(pair: Pair, found: Back) -> Iterator[str]:
    serves, lost = found.databases[pair.old.name], found.databases[pair.new.name]
    if {pair.old.name, pair.new.name} & found.unseen:
        return  # one of them tells little without the other
    for at, seen in ((pair.old, serves), (pair.new, lost)):
        yield from (f"{at.name}: {fault}" for fault in seen.faults)
    if serves.role != "primary":
        yield f"{pair.old.name}: is {_is(serves)}, no primary; nobody could be followed"
    if not lost.system and lost.left:
        where = " or ".join(f"{pair.new.data}.switch-{owner}" for owner in lost.left)
        yield f"{pair.new.name}: its data are not in their place; see {where}, and put them back"
    elif known(pair.new.name, lost).writable is not False:
        how = known(pair.new.name, lost).seen
        yield f"{pair.new.name}: {how}; have it fenced first (the runbook that fences its site)"
    if lost.system and serves.system and lost.system != serves.system:
        yield f"{pair.new.name}: is another database (system identifier {lost.system}, not {serves.system})"
    if lost.unreached or lost.reached != serves.system:
        why = lost.unreached or f"another database answers there ({lost.reached})"
        yield f"{pair.new.name}: its host cannot replicate {pair.old.name}: {why}"
    if lost.free is not None and lost.free < NEEDED:
        yield f"{pair.new.name}: {lost.free // 1024} MiB are free, {NEEDED // 1024} are needed; free room"


def _is(seen: DatabaseSeen) -> str:
    return "down" if seen.role == "down" else f"a {seen.role}"


def _store(two: Stores, found: Back) -> Iterator[str]:
    if found.stores[two.old.name].role != "primary":
        yield f"{two.old.name}: is a replica, no primary; nobody could be followed"


def at_stake(
    sites: Sites,
    found: Back,
    exported: Mapping[str, Salvaged],
    kept: Mapping[str, Snapshot],
    criteria: tuple[str, ...],
) -> Overwritten:
    """Return what is overwritten, and where it is kept, in words."""
    return Overwritten(
        at_stake=f"{sites.new} is rebuilt as a replica of {sites.old}: what only {sites.new} has is overwritten there.",
        in_words=(
            *(line for pair in sites.databases for line in _only(sites, pair, found, exported.get(pair.new.name))),
            *(line for two in sites.stores for line in _discarded(sites, two, found, kept.get(two.new.name))),
            f"after that {sites.new} is watched, and people are asked before clients are moved there",
            *(f"whoever approves answers for this: {one}" for one in criteria),
        ),
    )


def _only(sites: Sites, pair: Pair, found: Back, kept: Salvaged | None) -> Iterator[str]:
    seen, name = found.divergences.get(pair.new.name, Divergence()), pair.new.name
    if not seen.commits or seen.first is None or seen.last is None:
        yield f"{name} has committed nothing that {pair.old.name} lacks"
        return
    count = "1 transaction was" if seen.commits == 1 else f"{seen.commits} transactions were"
    yield (
        f"{name}: {count} committed there only, after {seen.fork}, from {seen.first:%Y-%m-%d %H:%M:%S}Z to"
        f" {seen.last:%Y-%m-%d %H:%M:%S}Z"
    )
    if kept is None or kept.stage != "exported":
        yield f"{name}: the rows of that are NOT exported; they are gone once it is rebuilt"
        return
    yield from rows(name, kept)
    yield f"{name}: those rows are kept in {parted(sites, pair).out} on host {pair.new.host.name}"


def rows(name: str, kept: Salvaged) -> Iterator[str]:
    """Say which rows were exported, a table each."""
    for table in kept.tables or ():
        keys = f" ({table.keys})" if table.keys else ""
        yield f"{name}: {table.rows} {'row' if table.rows == 1 else 'rows'} of {table.table}{keys}"
    yield from (f"{name}: {note}" for note in kept.notes or ())


def _discarded(sites: Sites, two: Stores, found: Back, kept: Snapshot | None) -> Iterator[str]:
    if follows(found, two):
        return
    name, seen = two.new.name, found.sessions.get(two.new.name, Compared(failed="they were not compared"))
    if seen.failed:
        how = f"{found.stores[name].keys} keys, of which nobody knows how many {two.old.name} has ({seen.failed})"
    else:
        only, other = seen.differences.get("missing", 0), unlike(seen)
        how = f"{only} sessions that {two.old.name} does not have, and {other} that it has otherwise"
        how += f" ({'; '.join(seen.named[:5])})" if seen.named else ""
    yield f"{name}: {how} are overwritten"
    if kept is None or kept.stage != "kept":
        yield f"{name}: they are NOT kept; they are gone once it replicates {two.old.name}"
    else:
        where = f"{keeps(sites, two).out} on host {two.new.host.name}"
        yield f"{name}: all {kept.keys} keys that it holds are kept, as a snapshot, in {where}"


def unlike(seen: Compared) -> int:
    """Return how many sessions both have, each in another form."""
    return sum(count for how, count in seen.differences.items() if how not in ("missing", "left over"))


def home(sites: Sites, exported: Mapping[str, Salvaged], kept: Mapping[str, Snapshot]) -> Home:
    """Return what is true at the end, in words."""
    sessions = [
        f"{keeps(sites, two).out} on host {two.new.host.name} has what {two.new.name} held: see to it, then throw it"
        " away"
        for two in sites.stores
        if two.new.name in kept
    ]
    rows_kept = [
        f"{parted(sites, pair).out} on host {pair.new.host.name} has what only {pair.new.name} had: see to it, then"
        " throw it away"
        for pair in sites.databases
        if pair.new.name in exported
    ]
    return Home(
        at_stake=f"{sites.new} serves again, and {sites.old} is its replica. Whoever approves declares the end.",
        in_words=(*rows_kept, *sessions, "a rejection leaves all as it is, and says that it is not over"),
    )
