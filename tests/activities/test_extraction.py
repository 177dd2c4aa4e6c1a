"""What the script ``extraction`` printed, as what a person reads and as what the engine compares."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from activities.extraction import (
    CopiedBack,
    CopyBack,
    Preview,
    copied_back,
    copy_back,
    copying_back,
    previewed,
    previewing,
)
from recovery.actions import agrees
from recovery.errors import Refused, Transient
from runbooks.procedures.database_point_in_time_restore import Extraction, Parameters
from tests.activities.sample import TARGET, copy

LACKS = "table\t0\tpublic.a\tyes\t44\t22\t21\t1\t10-30, 40\t3\n"
ABSENT = "absent\tpublic.b\ntable\t1\tpublic.b\tno\t5\t5\t0\t0\t\t\n"
TOLD = f"{LACKS}differs\t0\t3\tv, w\nsilent\t0\tloud, noting\n{ABSENT}without\t1\tview v\n"
WENT = "put\t00ff00ff00ff00ff\nwent\tpublic.a\t22\t10-30, 40\nwent\tpublic.b\t5\t\n"


def lines(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_preview_is_said_in_words() -> None:
    assert previewed(lines(TOLD)).in_words == (
        "public.a: 22 rows would come back (10-30, 40)",
        "public.a: its triggers would not fire for them (loud, noting)",
        "public.a: 1 rows are there with other content and stay as they are (3; 3: v, w)",
        "public.b: does not stand, would be re-created with 5 rows; it comes back without view v",
    )


def test_nothing_to_do_is_said_in_words() -> None:
    found = previewed(lines("table\t0\tpublic.a\tyes\t4\t0\t4\t0\t\t\n"))
    assert found.in_words == ("public.a: no rows would come back",)
    assert found.blockers == ()


def test_rows_that_went_are_said_in_words() -> None:
    assert previewed(lines(WENT)).in_words == (
        "public.a: 22 rows (10-30, 40) went back already", "public.b: 5 rows went back already",
    )  # fmt: skip


def test_copy_that_does_not_stand_is_planned_for() -> None:
    before = copied_back(lines("uncopied\n"))
    assert before == CopiedBack(uncopied=True)
    assert copy_back.desired(copying_back(copy(), 5433), before) == CopiedBack(put=None, rows=None)


def test_missing_reference_is_a_blocker() -> None:
    found = previewed(lines(f"{LACKS}unmet\t0\ta_fkey\tpublic.c\t2\t50, 51\n"))
    assert found.blockers == (
        "public.a: 2 rows that public.c lacks are referred to by a_fkey (50, 51); extract those too",
    )
    assert found.tables[0].unmet


def test_blockers_are_all_told() -> None:
    found = previewed(lines(f"blocker\tparameters.extract.1.where: no\n{LACKS}blocker\tbin: no\n"))
    assert found.blockers == ("parameters.extract.1.where: no", "bin: no")


@pytest.mark.parametrize(
    ("text", "said"), [("down\tno such socket\n", "no such socket"), ("down\t\n", "it says nothing")]
)
def test_database_that_is_down_is_told(text: str, said: str) -> None:
    found = previewed(lines(text))
    assert (found.unreachable, found.blockers) == (said, (f"the running database does not answer: {said}",))
    with pytest.raises(Transient, match=said):
        copied_back(lines(text))


def test_state_before_names_no_count() -> None:
    """Whoever writes beside the recovery changes how many rows are missing."""
    assert copied_back(lines(LACKS + ABSENT)) == CopiedBack(absent=("public.b",), lacking=True)
    assert copied_back(lines(LACKS.replace("\t22\t", "\t23\t") + ABSENT)) == copied_back(lines(LACKS + ABSENT))


def test_state_after_names_what_was_put() -> None:
    assert copied_back(lines(WENT)) == CopiedBack(
        put="00ff00ff00ff00ff", rows=("public.a: 22 rows (10-30, 40)", "public.b: 5 rows")
    )


def test_blocker_is_no_state() -> None:
    with pytest.raises(Refused, match=r"parameters\.extract\.0\.where: no"):
        copied_back(lines(f"blocker\tparameters.extract.0.where: no\n{ABSENT}"))


@pytest.mark.parametrize("before", [CopiedBack(lacking=True), CopiedBack(absent=("public.b",))])
def test_what_is_put_is_known_after(before: CopiedBack) -> None:
    wanted = copy_back.desired(spec(), before)
    assert not agrees(wanted, before)
    assert agrees(wanted, copied_back(lines(WENT)))


def test_nothing_missing_is_unchanged() -> None:
    assert copy_back.desired(spec(), CopiedBack()) == CopiedBack()


def spec() -> CopyBack:
    return copying_back(
        copy(cutover="extract", extract=({"table": "public.a", "where": "id < 7"}, {"table": '"S x"."T ""x"'})), 6001
    )


def test_specs_are_of_the_copy() -> None:
    of, look = spec(), previewing(copy(), 6001)
    assert (of.sockets, of.port, of.copy_port, of.drill) == ("/run/pg", 5432, 6001, True)
    assert [(w.table, w.where) for w in of.wanted] == [("public.a", "id < 7"), ('"S x"."T ""x"', "")]
    assert look.wanted == ()
    assert (look.copy_dir, look.owner, look.host) == (of.copy_dir, of.owner, of.host)


@pytest.mark.parametrize("model", [spec(), CopiedBack(), previewed(lines(TOLD))], ids=lambda m: type(m).__name__)
def test_models_survive_the_wire(model: CopyBack | CopiedBack | Preview) -> None:
    assert type(model).model_validate_json(model.model_dump_json()) == model


@pytest.mark.parametrize("table", ["a.b", "_a1.B$", '"A b".c', 'a."B ""c"""', '"é\'"."a.b"', '"a;b"."--"'], ids=str)
def test_table_may_be_named_so(table: str) -> None:
    assert Extraction(table=table).where == ""


@pytest.mark.parametrize(
    "table", ["a", "a.b.c", '"a"', '"".b', 'a."b', 'a."b"c"', 'a."b\n"', 'a."b$c"', "a b.c", "a.b\n", "a.1b"], ids=repr
)
def test_table_may_not_be_named_so(table: str) -> None:
    with pytest.raises(ValidationError, match="table"):
        Extraction(table=table)


@pytest.mark.parametrize(
    ("extract", "field"),
    [
        ([{"table": "a.b", "where": "x" * 2001}], "extract.0.where"),
        ([{"table": "a.b", "rows": "x"}], "extract.0.rows"),
        ([{"table": "a.b"}, {"table": "a.b", "where": "x"}], "extract"),
    ],
)
def test_bad_extraction_is_named(extract: list[Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Parameters.model_validate({"target_time": TARGET, "cutover": "extract", "extract": extract})
    assert ".".join(map(str, refused.value.errors()[0]["loc"])) == field


def test_parameters_survive_being_frozen() -> None:
    """A condition that is left out is written down as none, and read again."""
    wanted = Parameters.model_validate({"target_time": TARGET, "cutover": "extract", "extract": [{"table": "a.b"}]})
    assert Parameters.model_validate(wanted.model_dump(mode="json")) == wanted
