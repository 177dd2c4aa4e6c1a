"""What two stores tell of themselves, and what of one the other lacks."""

from __future__ import annotations

import pytest

from activities.stores import Replication, alone, replication
from recovery.errors import Invalid


def _told(**more: object) -> Replication:
    usual: dict[str, object] = {"role": "primary", "writes": "taken", "history": "a", "offset": 100}
    return Replication.model_validate(usual | more)


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        (_told(), _told(offset=100), 0),
        (_told(), _told(offset=60), 40),
        (_told(), _told(offset=140), 0),
        (_told(), _told(history="b", former="a", common=100, offset=190), 0),
        (_told(), _told(history="b", former="a", common=70, offset=190), 30),
        (_told(), _told(history="b", former="c", common=100, offset=190), None),
        (_told(), _told(history="b", offset=190), None),
        (_told(history="c", former="a", common=100), _told(offset=130), 0),
        (_told(history="c", former="a", common=90), _told(offset=130), 10),
        (_told(history="c", former="a", common=90), _told(offset=60), 40),
        (_told(history="c", former="a", common=90), _told(history="b", former="a", common=80, offset=190), 20),
        (_told(history="c"), _told(history="b"), None),
    ],
)
def test_what_is_alone_is_told_by_history(old: Replication, new: Replication, left: int | None) -> None:
    assert alone(old, new) == left


def test_strange_answer_is_named() -> None:
    with pytest.raises(Invalid, match=r"cli: .* as Valkey does"):
        replication("role\tmaster\ngate\t0 10\n")


def test_former_history_keeps_its_zeros() -> None:
    told = {
        "role": "master", "gate": "0 10", "master_replid": "1" * 40, "master_replid2": "0abc00", "file": "unknown",
        "second_repl_offset": "15", "master_repl_offset": "20", "writes": "taken", "used_memory": "1",
        "maxmemory": "0", "maxmemory_policy": "noeviction",
    }  # fmt: skip
    found = replication("".join(f"{key}\t{value}\n" for key, value in told.items()))
    assert (found.former, found.common) == ("0abc00", 14)
    assert replication("".join(f"{k}\t{v}\n" for k, v in (told | {"master_replid2": "0" * 40}).items())).former == ""
