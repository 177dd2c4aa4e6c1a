"""PostgreSQL side copies: prove one, and compare it with the running database. Looks only."""

from __future__ import annotations

from datetime import timedelta

from activities import ssh
from activities.postgres import CopySpec
from recovery.actions import Probe
from recovery.models import Wire


class Question(Wire):
    """A question to the copy and the one value that proves it."""

    name: str
    sql: str
    expect: str


class VerifyCopy(CopySpec):
    """What to prove about a copy."""

    amcheck: bool
    questions: tuple[Question, ...]

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``verify_copy``."""
        asked = {f"query_{i}": question.sql for i, question in enumerate(self.questions, start=1)}
        return super().values() | {"amcheck": "yes" if self.amcheck else "no", "queries": len(asked)} | asked


class Proof(Wire):
    """What was proven: heaps and indexes, and each question; ``failed`` says what was not."""

    heaps_and_indexes: str
    answers: dict[str, str]
    failed: tuple[str, ...]


class Verify(Probe[VerifyCopy, Proof]):
    """Check heaps and indexes of the copy, and ask the runbook's own questions."""

    name = "postgres.verify"
    limit = timedelta(hours=2)
    patience = timedelta(hours=4)

    def title(self, spec: VerifyCopy) -> str:
        """Say what is proven."""
        return f"verify the copy of {spec.system}"

    async def observe(self, spec: VerifyCopy) -> Proof:
        """Look; one command."""
        text = await ssh.look(spec.host, "verify_copy", spec.values(), ssh.within(self.limit))
        return proof(text, spec.questions, spec.amcheck)


verify = Verify()


def proof(text: str, questions: tuple[Question, ...], amcheck: bool = False) -> Proof:
    """Return what the script ``verify_copy`` printed, as a verdict; ``amcheck`` tells whether it was wanted."""
    checked, answers, failed = "not checked: switched off in the runbook", {}, []
    if amcheck and not any(line.startswith("amcheck\t") for line in text.splitlines()):
        failed.append("heaps and indexes were not checked: pg_amcheck did not answer")
    for line in text.splitlines():
        match line.split("\t"):
            case ["amcheck", "0", _]:
                checked = "pg_amcheck found no fault"
            case ["amcheck", _, said]:
                checked = f"pg_amcheck: {said}"
                failed.append(checked)
            case ["query", index, status, value]:
                question = questions[int(index) - 1]
                good = status == "0" and value == question.expect
                answers[question.name] = value if good else f"{value} (expected {question.expect})"
                if not good:
                    failed.append(f"{question.name}: {answers[question.name]}")
    if len(answers) != len(questions):
        failed.append("not every question was answered")
    return Proof(heaps_and_indexes=checked, answers=answers, failed=tuple(failed))


class CompareCopy(CopySpec):
    """Compare with the running database at ``sockets``; no tables means all.

    ``replaces`` tells that the copy is to take its place, so that the words say what would become of its rows.
    """

    sockets: str
    port: int
    tables: tuple[str, ...]
    replaces: bool = False

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``compare_copy``."""
        more = {"sockets": self.sockets, "port": self.port, "tables": "\n".join(self.tables)}
        return super().values() | more


class TableDifference(Wire):
    """One table, rows counted; None where the table does not exist. Keys are compact ("1-512, 600")."""

    table: str
    in_copy: int | None
    in_running: int | None
    only_in_copy: int
    only_in_running: int
    changed: int
    lost_keys: str = ""
    later_keys: str = ""


class Comparison(Wire):
    """What lies between the copy and the running database; ``unreachable`` if that one does not answer.

    ``in_words`` says of each table that differs what a person would; those tables come first.
    """

    in_words: tuple[str, ...] = ()
    tables: tuple[TableDifference, ...]
    unreachable: str = ""
    faults: tuple[str, ...] = ()


class Compare(Probe[CompareCopy, Comparison]):
    """Tell, row by row, what the running database has beyond the copy, and what it lacks."""

    name = "postgres.compare"
    limit = timedelta(hours=2)
    patience = timedelta(hours=4)

    def title(self, spec: CompareCopy) -> str:
        """Say what is compared."""
        return f"compare the copy with the running {spec.system}"

    async def observe(self, spec: CompareCopy) -> Comparison:
        """Look; one command."""
        text = await ssh.look(spec.host, "compare_copy", spec.values(), ssh.within(self.limit))
        return comparison(text, spec.replaces)


compare = Compare()


def comparison(text: str, replaces: bool = False) -> Comparison:
    """Return what the script ``compare_copy`` printed."""
    rows = [line.split("\t") for line in text.splitlines()]
    down = next((" ".join(row[1:]).strip() or "it does not answer" for row in rows if row[0] == "down"), "")
    found = [(_difference(row), _words(row, replaces)) for row in rows if row[0] == "table"]
    found.sort(key=lambda one: not one[1])
    words = tuple(said for _, said in found if said)
    faults = tuple(row[1] for row in rows if row[0] == "fault")
    same = () if down or faults or words else ("nothing differs",)
    return Comparison(
        in_words=words or same, tables=tuple(table for table, _ in found), unreachable=down, faults=faults
    )


def _difference(row: list[str]) -> TableDifference:
    return TableDifference(
        table=row[1],
        in_copy=_count(row[2]),
        in_running=_count(row[3]),
        only_in_copy=int(row[4]),
        only_in_running=int(row[5]),
        changed=int(row[6]),
        lost_keys=row[7].strip(),
        later_keys=row[8].strip(),
    )


def _words(row: list[str], replaces: bool) -> str:
    return in_words(_difference(row), row[9] if len(row) > 9 else "", replaces)


def in_words(table: TableDifference, changed_keys: str = "", replaces: bool = False) -> str:
    """Return what the running database lacks and has beyond the copy, "" if nothing.

    If the copy ``replaces`` it, also what becomes of these rows.
    """
    if table.in_running is None and table.in_copy is None:
        return f"{table.table}: stands in neither database; check its name in the runbook"
    if table.in_running is None:
        back = ", would come back" if replaces else ""
        return f"{table.table}: gone from the running database, {table.in_copy or 0} rows in the copy{back}"
    if table.in_copy is None:
        lost = ", would go with it" if replaces else ""
        return f"{table.table}: came after the target, {table.in_running} rows{lost}"
    parts = [
        (table.only_in_running, "rows written after the target", table.later_keys, "would go with it"),
        (table.changed, "rows changed after the target", changed_keys, "would be as before"),
        (table.only_in_copy, "rows gone from the running database", table.lost_keys, "would come back"),
    ]
    said = [_rows(*part, replaces) for part in (parts if replaces else [parts[2], *parts[:2]]) if part[0]]
    return f"{table.table}: {', '.join(said)}" if said else ""


def at_stake(found: Comparison) -> str:
    """Return in one sentence how much goes with the running database when the copy takes its place."""
    if found.unreachable:
        return "Nobody can tell which rows would go with the running database: it does not answer."
    parts = [("only_in_running", "would go with the running database"), ("changed", "would be as before")]
    said = [_going(found, name, then) for name, then in parts if any(getattr(t, name) for t in found.tables)]
    blind = [f"{len(found.faults)} tables could not be compared"] if found.faults else []
    return f"{'; '.join([*(said or ['No row would go with the running database']), *blind])}."


def _going(found: Comparison, name: str, then: str) -> str:
    tables = [table for table in found.tables if getattr(table, name)]
    more = f" and {len(tables) - 3} more tables" if len(tables) > 3 else ""
    names = f"{', '.join(table.table for table in tables[:3])}{more}"
    return f"{sum(getattr(table, name) for table in tables)} rows of {names} {then}"


def _rows(count: int, what: str, keys: str, then: str, replaces: bool) -> str:
    return f"{count} {what}{f' ({keys})' if keys else ''}{f' {then}' if replaces else ''}"


def _count(text: str) -> int | None:
    return None if int(text) < 0 else int(text)
