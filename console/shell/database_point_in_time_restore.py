"""What the page of DatabasePointInTimeRestore is filled with: the engine's own scripts and values; pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from activities.backups import Backup
from activities.extraction import previewing
from activities.postgres import PlaceCopy
from activities.proofs import VerifyCopy
from activities.replacing import Replacing
from activities.restorable import Choice
from activities.scripts import NATIVE, TAKEN, heads, own, text
from activities.side_copy import SideCopy
from activities.standing import Standing
from activities.targets import Target
from recovery.details import span
from recovery.models import Frozen
from recovery.names import recovery_id
from runbooks.procedures.database_point_in_time_restore import BY, Parameters
from runbooks.schema import Database, Host


def unknown(given: Mapping[str, object]) -> dict[str, str]:
    """Return what stands in for what is not known when the page is printed; it is asked for when the page is used."""
    return {} if set(BY) & given.keys() else {"target_time": "2000-01-01T00:00:00Z"}


_CHOSEN = {
    "backup", "timeline", "enough", "copyport", "kind", "target", "inclusive", "segments", "size", "copy", "identity",
    "rules", "guard", "shut", "out", "down", "served", "forget", "label",
}  # fmt: skip
"""Variables that the page itself sets, from what it finds on the host."""
_RUN = "by-hand"  # no run of a recovery has this id, so the copy is in no engine's way
_NOBODY = Choice(
    backup=Backup(name="", path="", version=0, timeline=0, start_lsn="", stop_lsn="", stopped_at=None, size=0),
    timeline=0,
    enough="",
)


_UNSEEN = Standing(rule="\0RULE\0")
_SEEN = re.compile("\0([A-Z]+)\0")
"""What the page finds out on the host, in texts that are made here."""


def variant(frozen: Frozen) -> str:
    """Return which parts of the page belong to it."""
    return Parameters.model_validate(frozen.parameters).cutover


def fill(frozen: Frozen, known: bool) -> dict[str, str]:
    """Return what each placeholder of the page stands for; ``known`` tells whether a target time was given."""
    name = frozen.systems[0]
    database = Database.model_validate(frozen.estate["databases"][name])
    host = Host.model_validate(frozen.estate["hosts"][database.host])
    wanted = Parameters.model_validate(frozen.parameters)
    copy = SideCopy(name, database, host, wanted, recovery_id(frozen.catalog, name, "live"), _RUN)
    port = database.copy_ports[0]
    place, verify = copy.place(_NOBODY, port), copy.verify(port)
    values: dict[str, Mapping[str, object]] = {
        "inventory": copy.find().values(),
        "locate": {
            key: value for key, value in copy.find().values().items() if key in ("bin", "data", "archive", "restore")
        },
        "readiness": copy.room().values(),
        "place_copy": place.values(),
        "replay_copy": copy.replay(_NOBODY, port).values(),
        "verify_copy": verify.values(),
        "compare_copy": copy.compare(port).values(),
        "stop_copy": place.values(),
        "drop_copy": place.values(),
    }
    values |= _OF[wanted.cutover](copy, port)
    return {step: body(step, given) for step, given in values.items()} | {
        "target": _target(place.target, wanted.timeline, known),
        "copy": _copy(place, known),
        "shared": _shared(values, database.backups.kind),
        "ports": " ".join(map(str, database.copy_ports)),
        "proof": _proof(verify),
        "expect": _expect(verify),
        "login": f"ssh -p {host.port} {host.user}@{host.address}",
        "dbuser": shlex.quote(database.user),
        "dbname": shlex.quote(database.name),
        "data": database.data,
        **_needs(database.backups.kind),
        "next": _next(database, place.owner),
        "guard": _guard(Replacing(copy), port),
        "fenced": Replacing(copy).fenced,
        "keep_for": span(frozen.keep_for.total_seconds()),
        "extract": _extract(wanted),
    }


def _replacing(copy: SideCopy, port: int) -> dict[str, Mapping[str, object]]:
    new = Replacing(copy)
    cut = new.cut(port, _UNSEEN).values()
    backup = new.base_backup(port, _UNSEEN, datetime.min.replace(tzinfo=UTC)).values()
    forward = ("shut_door", "fence", "promote_copy", "install_copy", "archive_log", "open_door")
    back = ("unarchive_log", "uninstall_copy", "unfence")
    return {
        "standing": new.look().values(),
        **dict.fromkeys((*forward, *back), cut),
        "salvage": new.salvage(port, _UNSEEN).values(),
        "drop_salvage": new.salvage(port, _UNSEEN).values(),
        "first_write": new.first_write(port, _UNSEEN).values(),
        "base_backup": backup,
        "backup_state": backup,
    }


def _extracting(copy: SideCopy, port: int) -> dict[str, Mapping[str, object]]:
    rows = previewing(copy, port).values()
    return {"extraction": rows | {"detail": "yes"}, "copy_back": rows, "take_back": rows}


_OF: Mapping[str, Callable[[SideCopy, int], dict[str, Mapping[str, object]]]] = {
    "none": lambda copy, port: {}, "replace": _replacing, "extract": _extracting,
}  # fmt: skip


def body(step: str, values: Mapping[str, object]) -> str:
    """Return the script ``step`` as the body of a shell function that shares no option with its caller."""
    given = heads({key: value for key, value in values.items() if key not in _CHOSEN})
    text = TAKEN.sub(lambda found: f"with_{found[1]}\n", own(step))
    return "\n".join(["(", "set +eu", *given, text.rstrip(), ")"])


def _shared(steps: Iterable[str], kind: str) -> str:
    """Return what the scripts of these steps take from others, as functions; ``kind`` is that of the backups."""
    names = sorted({name for step in steps for name in TAKEN.findall(own(step))})
    return "\n".join(f"with_{name}() {{\n{text(name, kind).rstrip()}\n}}" for name in names)


def _guard(new: Replacing, port: int) -> str:
    """Return the pg_hba.conf that shuts everybody out, as a word of the shell; two variables are put in on the host."""
    cut = new.cut(port, _UNSEEN).model_copy(update={"copy_dir": "\0COPY\0"})
    pieces = _SEEN.split(cut.guard)
    return "".join(f'"${piece}"' if i % 2 else shlex.quote(piece) for i, piece in enumerate(pieces))


def _needs(kind: str) -> dict[str, str]:
    """Return which settings of the running database may not be off, or 0, as words of a pattern."""
    native = kind == NATIVE
    return {
        "needs": f"superuser|archive_command{'|replication' if native else ''}",
        "counts": "senders" if native else "no number",
    }


def _next(database: Database, owner: str) -> str:
    """Return what the next backup is called: of PostgreSQL's own tool by its folder, of another by its label alone."""
    label = f"LABEL={shlex.quote(f'recovery {owner}')}"
    if database.backups.kind != NATIVE:
        return f'{label}" at $(cat "$COPY/taken")"'
    return f'BACKUP={shlex.quote(database.backups.folder or "")}/$(cat "$COPY/taken")\n{label}'


def _extract(wanted: Parameters) -> str:
    rows = [f"- `{one.table}`{f', where `{one.where}`' if one.where else ', all rows'}" for one in wanted.extract]
    return "\n".join(rows)


def _target(target: Target, timeline: int | None, known: bool) -> str:
    head = [f"KIND={target.kind} INCLUSIVE={'on' if target.inclusive else 'off'} WANTED={timeline or ''}"]
    if known:
        return "\n".join([*head, f"TARGET={shlex.quote(target.value)}"])
    asked = ": \"${TARGET:?STOP: set it to the moment to go back to, such as '2026-11-21 22:00:00+00'}\""
    return "\n".join([*head, asked])


def _copy(place: PlaceCopy, known: bool) -> str:
    if known:
        return f"COPY={shlex.quote(place.copy_dir)}"
    folder = place.copy_dir.replace("20000101T000000Z", '$(date -u -d "$TARGET" +%Y%m%dT%H%M%SZ)')
    return f'COPY="{folder}"'


def _proof(verify: VerifyCopy) -> str:
    rows = ["`amcheck` has to print 0." if verify.amcheck else "Heaps and indexes are not checked: switched off."]
    rows += [f"`query` {i}, “{q.name}”, has to print 0 and {q.expect!r}." for i, q in enumerate(verify.questions, 1)]
    return "\n".join(f"- {row}" for row in rows)


def _expect(verify: VerifyCopy) -> str:
    rows = [("amcheck", "^amcheck|0|", "-q")] if verify.amcheck else []
    rows += [(q.name, f"query|{i}|0|{q.expect}", "-qxF") for i, q in enumerate(verify.questions, 1)]
    return "\n".join(
        f"printf '%s\\n' \"$VERIFIED\" | grep {how} -e {shlex.quote(line)} ||"
        f" {{ PROVEN=no; echo {shlex.quote(f'NOT PROVEN: {name}')} >&2; }}"
        for name, line, how in rows
    )
