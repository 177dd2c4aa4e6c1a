"""What is said of sessions, given what was seen of them."""

from __future__ import annotations

import pytest

from activities.sessions import masked, rows
from recovery.errors import Invalid, Transient


def test_name_that_may_be_a_token_is_masked() -> None:
    assert masked(b"session:4711") == "session:4711"
    secret = "c0ffee00c0ffee00c0ffee00"
    assert masked(f"session:{secret}".encode()).startswith("session:c0ffee…")
    assert secret not in masked(f"session:{secret}".encode())
    assert masked(b"\xff\x00") == "\\xff\x00"


@pytest.mark.parametrize(("text", "error"), [("ERR no", Invalid), ("Error: Server closed", Transient)])
def test_what_no_store_says_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        rows(f"offset\t1\n{text}")
