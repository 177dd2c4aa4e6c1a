"""What is said of sessions, given what was seen of them."""

from __future__ import annotations

from typing import Any

import pytest

from activities.comparing import Compared, masked
from activities.session_verdict import Limits, Loss, SeenSessions, Verdict, verdict
from activities.sessions import Canary, rows
from activities.sightings import StoreSighting
from activities.ssh import HostAt
from activities.store_roles import CLOSED
from activities.stores import Replication, StoreAt
from recovery.errors import Invalid, Transient
from runbooks.procedures.session_replication_check import Parameters

HOST_AT = HostAt(address="127.0.0.1", port=22, user="x", known_hosts="/x", key="/x", jobs="/x")


def test_name_that_may_be_a_token_is_masked() -> None:
    assert masked(b"session:4711") == "session:4711"
    secret = "c0ffee00c0ffee00c0ffee00"
    assert masked(f"session:{secret}".encode()).startswith("session:c0ffee…")
    assert secret not in masked(f"session:{secret}".encode())
    assert masked(b"\xff\x00a\nb") == "\\xff\\x00a\\nb"


@pytest.mark.parametrize(("text", "error"), [("ERR no", Invalid), ("Error: Server closed", Transient)])
def test_what_no_store_says_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        rows(f"offset\t1\n{text}")


def test_key_without_a_name_is_left_out() -> None:
    assert rows("cursor 0\n string -1 abc\n61 string -1 abc").keys() == {"61"}


@pytest.mark.parametrize("match", ["session:*\nFLUSHALL", 'a"b', "", "x" * 201])
def test_pattern_that_could_end_its_command_is_refused(match: str) -> None:
    with pytest.raises(ValueError, match="match"):
        Parameters.model_validate({"match": match})


# --- the verdict ------------------------------------------------------------------------------------------------

LIMITS = Limits(lag_bytes=100, lag_seconds=2)
STORES = {
    name: StoreAt(name=name, host=HOST_AT, cli="/x", address="127.0.0.1", port=port, upstream=f"127.0.0.1:{port}")
    for name, port in (("north", 1), ("south", 2))
}
PRIMARY = StoreSighting(answered=True, seen=Replication(role="primary", offset=500, keys=9))
REPLICA = StoreSighting(
    answered=True, seen=Replication(role="replica", of="127.0.0.1:1", linked=True, offset=480, idle=1, keys=9)
)

ARRIVED, SAME = Canary(confirmed=1, seconds=0.01, arrived=True), Compared(compared=9)


def said(
    north: StoreSighting = PRIMARY,
    south: StoreSighting = REPLICA,
    canary: Canary | None = ARRIVED,
    compared: Compared | None = SAME,
) -> Verdict:
    seen = SeenSessions(
        stores={"north": north, "south": south},
        canaries={"south": canary} if canary else {},
        compared={"south": compared} if compared else {},
    )
    return verdict(STORES, seen, LIMITS)


def seen(base: StoreSighting, **changes: object) -> StoreSighting:
    return base.model_copy(update={"seen": base.seen.model_copy(update=changes)})


def test_pair_that_keeps_up_is_replicated() -> None:
    found = said()
    assert (found.state, found.reasons) == ("replicated", ())
    assert found.losses == (Loss(replica="south", sessions=0, seconds=0.01),)


AWAY = StoreSighting(why="it does not answer")


@pytest.mark.parametrize(
    ("changes", "state", "why"),
    [
        ({"north": AWAY}, "broken", "north cannot be seen: it does not answer"),
        ({"south": AWAY}, "broken", "south cannot be seen"),
        ({"south": PRIMARY}, "split", "north (9 keys, offset 500) and south (9 keys, offset 500) all take writes"),
        ({"north": seen(PRIMARY, least=CLOSED)}, "broken", "no store takes writes"),
        ({"south": seen(PRIMARY, least=CLOSED)}, "broken", "south is fenced, and replicates nobody"),
        ({"south": seen(REPLICA, of="elsewhere:1")}, "broken", "south replicates elsewhere:1, which is not north"),
        ({"south": seen(REPLICA, filling=True)}, "broken", "being filled"),
        ({"south": seen(REPLICA, linked=False, down=7)}, "broken", "no link to north for 7 s"),
        ({"south": seen(REPLICA, offset=300)}, "lagging", "south lacks 200 bytes of log, 100 are allowed"),
        ({"canary": Canary()}, "lagging", "had not arrived at south after 2 s"),
        ({"canary": Canary(refused="NOREPLICAS")}, "broken", "north takes no session: NOREPLICAS"),
        ({"canary": Canary(failed="gone")}, "broken", "south or north went away: gone"),
        ({"compared": Compared(failed="gone")}, "broken", "went away: gone"),
        (
            {"compared": Compared(compared=9, differences={"missing": 2}, named=("a: missing",))},
            "broken",
            "of 9 sessions 2 missing (a: missing)",
        ),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], state: str, why: str) -> None:
    found = said(**changes)
    assert found.state == state
    assert any(why in line for line in found.reasons), found.reasons


def test_loss_is_known_as_far_as_it_was_seen() -> None:
    cut = seen(REPLICA, linked=False, down=7)
    lacks = Compared(compared=9, differences={"missing": 2, "other contents": 1, "left over": 5})
    assert said(south=cut, canary=None, compared=lacks).losses == (Loss(replica="south", sessions=3, seconds=7),)
    assert said(north=AWAY, south=cut, canary=None, compared=None).losses == (
        Loss(replica="south", sessions=None, seconds=7),
    )
    assert said(south=PRIMARY).losses == ()
