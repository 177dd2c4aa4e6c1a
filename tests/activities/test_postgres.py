"""What the scripts about a copy printed, as the models that a report shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.postgres import Readiness, Replayed, copy_name, lag, readiness
from activities.proofs import Proof, Question, TableDifference, at_stake, comparison, in_words, proof
from activities.targets import Target
from tests.activities.captured import captured

PROGRAMS = ("postgres", "pg_ctl", "psql", "pg_verifybackup", "pg_amcheck", "pg_waldump", "pg_controldata")
NOW = 1795312401.761910403
TARGET = datetime(2026, 11, 21, 22, 30, 15, 250000, tzinfo=UTC)


def asked(*expected: str) -> tuple[Question, ...]:
    return tuple(
        Question(name=f"question {n}", sql="select", expect=expect) for n, expect in enumerate(expected, start=1)
    )


# --- readiness ---------------------------------------------------------------------------------------------------


def test_host_that_is_ready_is_read() -> None:
    found = readiness(captured("readiness"), NOW - 1, NOW + 1)
    assert (found.free, found.version, found.skew, found.faults) == (82217783296, 18, 0, ())
    assert len(found.listening) == captured("readiness").count("listening")
    assert found.listening == tuple(sorted(found.listening))
    assert 0x4543 in found.listening


def test_host_that_is_bare_names_everything() -> None:
    found = readiness(captured("readiness_bare"), 0, 2e9)
    assert (found.free, found.version) == (None, 0)
    assert found.faults == (
        "copies: /nowhere/copies is no folder that this login may write to",
        "jobs: /nowhere/at/jobs cannot be written to",
        *(
            f"bin: {program} is missing in /nowhere/bin"
            for program in (
                "postgres",
                "pg_ctl",
                "psql",
                "pg_verifybackup",
                "pg_amcheck",
                "pg_waldump",
                "pg_controldata",
            )
        ),
    )


def test_port_that_listens_twice_is_one() -> None:
    assert readiness("now\t1\nlistening\t1538\nlistening\t1538\nlistening\tffff\n", 0, 2).listening == (5432, 65535)


@pytest.mark.parametrize(
    ("sent", "received", "skew"),
    [
        (NOW, NOW, 0), (NOW - 5, NOW + 5, 0), (NOW - 10, NOW - 8, 8), (NOW + 8, NOW + 10, -8),
        (NOW - 3.0004, NOW - 3, 3),
    ],
)  # fmt: skip
def test_skew_takes_the_way_off(sent: float, received: float, skew: float) -> None:
    assert readiness(captured("readiness"), sent, received).skew == pytest.approx(skew, abs=0.001)


@given(st.floats(-1e6, 1e6), st.floats(0, 100), st.floats(0, 1))
@settings(deadline=None)
def test_skew_is_never_overstated(skew: float, way: float, share: float) -> None:
    """Wherever on the way the host read its clock: what is said is no more than the truth, and less by the way."""
    read_at = 1e9 + way * share
    found = readiness(f"now\t{read_at + skew}\n", 1e9, 1e9 + way)
    assert abs(found.skew) <= abs(skew) + 0.001
    assert abs(skew - found.skew) <= way + 0.001


def test_readiness_survives_the_wire() -> None:
    found = readiness(captured("readiness_bare"), 0, 2e9)
    assert Readiness.model_validate_json(found.model_dump_json()) == found


# --- proof -------------------------------------------------------------------------------------------------------


def test_good_copy_is_proven() -> None:
    assert proof(captured("verify_good"), asked("200", "a b")) == Proof(
        heaps_and_indexes="pg_amcheck found no fault", answers={"question 1": "200", "question 2": "a b"}, failed=()
    )


def test_bad_answers_are_each_named() -> None:
    found = proof(captured("verify_bad"), asked("0", "8", "two rows"))
    assert found.heaps_and_indexes == "pg_amcheck found no fault"
    assert found.answers["question 3"] == "two rows"
    assert found.failed[0].startswith('question 1: ERROR:  relation "nowhere" does not exist')
    assert found.failed[0].endswith("(expected 0)")
    assert found.failed[1] == "question 2: 7 (expected 8)"
    assert len(found.failed) == 2


def test_corruption_is_named() -> None:
    found = proof('amcheck\t2\theap table "orders.public.orders", block 0: bad\n', ())
    assert found.heaps_and_indexes == 'pg_amcheck: heap table "orders.public.orders", block 0: bad'
    assert found.failed == (found.heaps_and_indexes,)


def test_amcheck_that_was_not_asked_is_said() -> None:
    found = proof("query\t1\t0\t1\n", asked("1"))
    assert (found.heaps_and_indexes, found.failed) == ("not checked: switched off in the runbook", ())


def test_right_text_of_a_failed_question_is_no_proof() -> None:
    assert proof("query\t1\t1\t7\n", asked("7")).failed == ("question 1: 7 (expected 7)",)


@pytest.mark.parametrize("text", ["", "amcheck\t0\t\n", "query\t1\t0\t1\n", "query\t1\t0\n"])
def test_unanswered_question_is_no_proof(text: str) -> None:
    assert "not every question was answered" in proof(text, asked("1", "2")).failed


# --- comparison --------------------------------------------------------------------------------------------------


def test_rows_are_compared() -> None:
    found = comparison(captured("compare_rows"))
    assert (found.unreachable, found.faults) == ("", ())
    assert found.tables == (
        TableDifference(
            table="public.customers", in_copy=200, in_running=200, only_in_copy=0, only_in_running=0, changed=164
        ),
        TableDifference(
            table="public.orders", in_copy=33550, in_running=35229, only_in_copy=0, only_in_running=1679, changed=319,
            later_keys="33551 33552 33553",
        ),
    )  # fmt: skip


def table(name: str = "public.a", **facts: int | str | None) -> TableDifference:
    none = dict.fromkeys(("only_in_copy", "only_in_running", "changed"), 0)
    return TableDifference.model_validate({"table": name, "in_copy": 7, "in_running": 7} | none | facts)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (table(), ""),
        (table(in_running=None), "public.a: gone from the running database, 7 rows in the copy"),
        (table(in_copy=None), "public.a: came after the target, 7 rows"),
        (table(only_in_copy=3), "public.a: 3 rows gone from the running database"),
        (table(changed=1), "public.a: 1 rows changed after the target"),
        (
            table(only_in_copy=3, only_in_running=2, changed=1),
            "public.a: 3 rows gone from the running database, 2 rows written after the target, 1 rows changed after"
            " the target",
        ),
    ],
)
def test_difference_is_said_in_words(of: TableDifference, words: str) -> None:
    assert in_words(of) == words


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (
            table(only_in_running=512, later_keys="1001-1512"),
            "public.a: 512 rows written after the target (1001-1512) would go with it",
        ),
        (
            table(only_in_copy=3, only_in_running=1, changed=2, lost_keys="1-3", later_keys="9"),
            "public.a: 1 rows written after the target (9) would go with it, 2 rows changed after the target (5, 6)"
            " would be as before, 3 rows gone from the running database (1-3) would come back",
        ),
        (table(in_running=None), "public.a: gone from the running database, 7 rows in the copy, would come back"),
        (table(in_copy=None), "public.a: came after the target, 7 rows, would go with it"),
        (table(), ""),
    ],
)
def test_cut_over_is_said_in_words(of: TableDifference, words: str) -> None:
    assert in_words(of, "5, 6", replaces=True) == words


def test_words_name_the_rows() -> None:
    row = "table\tpublic.a\t7\t7\t1\t2\t1\t3\t8, 9\t5\n"
    words = (
        "public.a: 1 rows gone from the running database (3), 2 rows written after the target (8, 9),"
        " 1 rows changed after the target (5)"
    )
    assert comparison(row).in_words == (words,)
    assert (
        comparison(row, replaces=True).in_words[0].startswith("public.a: 2 rows written after the target (8, 9) would")
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("down\tno such host\n", "Nobody can tell which rows would go with the running database: it does not answer."),
        ("table\tpublic.a\t7\t7\t3\t0\t0\t1-3\t\t\n", "No row would go with the running database."),
        (
            "".join(f"table\tpublic.{name}\t7\t7\t0\t2\t{name == 'b':d}\t\t\t\n" for name in "abcde"),
            "10 rows of public.a, public.b, public.c and 2 more tables would go with the running database; 1 rows of"
            " public.b would be as before.",
        ),
        (
            "fault\tpublic.a: ERROR\ntable\tpublic.a\t-1\t-1\t0\t0\t0\t\t\t\n",
            "No row would go with the running database; 1 tables could not be compared.",
        ),
    ],
)
def test_stake_is_one_sentence(text: str, said: str) -> None:
    assert at_stake(comparison(text, replaces=True)) == said


def test_table_that_is_nowhere_is_not_gone() -> None:
    """As one that the runbook misspells."""
    assert "gone" not in in_words(table(in_copy=None, in_running=None))


def test_tables_that_differ_come_first() -> None:
    row = "table\tpublic.{}\t7\t7\t0\t{}\t0\t\t\n"
    found = comparison("".join(row.format(name, later) for name, later in (("a", 0), ("b", 1), ("c", 0), ("d", 2))))
    assert [t.table[-1] for t in found.tables] == ["b", "d", "a", "c"]
    assert found.in_words == ("public.b: 1 rows written after the target", "public.d: 2 rows written after the target")


def test_same_rows_are_said_to_be() -> None:
    assert comparison("table\tpublic.a\t7\t7\t0\t0\t0\t\t\n").in_words == ("nothing differs",)


@pytest.mark.parametrize("text", ["down\tno such host\n", "fault\tpublic.a: ERROR:  permission denied\n"])
def test_what_was_not_compared_is_not_the_same(text: str) -> None:
    assert comparison(text).in_words == ()


def test_missing_table_has_no_count() -> None:
    found = comparison("table\tpublic.a\t7\t-1\t7\t0\t0\t 1 2 3\t\ntable\tpublic.b\t-1\t0\t0\t0\t0\t\t\n").tables
    assert [(t.in_copy, t.in_running, t.lost_keys) for t in found] == [(7, None, "1 2 3"), (None, 0, "")]


def test_table_that_cannot_be_read_is_a_fault() -> None:
    found = comparison("fault\tpublic.a: ERROR:  permission denied\ntable\tpublic.a\t-1\t0\t0\t0\t0\t\t\n")
    assert found.faults == ("public.a: ERROR:  permission denied",)


def test_unreachable_database_says_why() -> None:
    assert "accepting connections on that socket" in comparison(captured("compare_down")).unreachable


# --- lag and names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "seconds"),
    [
        ("2026-11-21 22:30:15.25", 0),
        ("2026-11-21 22:30:15.249999", 0),
        ("2026-11-21 22:30:15.2", 0.05),
        ("2026-11-21 22:30:15", 0.25),
        ("2026-11-21 22:29:15.25", 60),
        ("2026-11-20 22:30:15.25", 86400),
        ("", None),
        (None, None),
    ],
)
def test_lag_is_from_the_last_commit(last: str | None, seconds: float | None) -> None:
    assert lag(Target.at(TARGET), Replayed(stage="ready", last_commit=last)) == seconds
    there = TARGET.astimezone(timezone(timedelta(hours=-9)))
    assert lag(Target.at(there), Replayed(stage="ready", last_commit=last)) == seconds


def test_copy_is_named_by_system_target_and_run() -> None:
    there = TARGET.astimezone(timezone(timedelta(hours=9)))
    assert copy_name("orders", Target.at(there), "0000-0a1b2c3d") == "orders-20261121T223015Z-0a1b2c3d"


@given(st.text(min_size=1), st.datetimes(timezones=st.just(UTC)), st.uuids().map(str))
@settings(deadline=None, max_examples=50)
def test_name_is_safe_anywhere(system: str, target: datetime, run: str) -> None:
    name = copy_name(system, Target.at(target), run)
    assert name.replace("-", "").replace("_", "").isalnum()
    assert name.isascii()
    assert name != copy_name(system, Target.at(target), f"{run[:-1]}x")
