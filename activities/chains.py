"""Chains of incremental backups: what each one was taken from, down to a full one; pure."""

from __future__ import annotations

from collections.abc import Mapping

from activities.timelines import position

NEEDED = ("version", "start_lsn", "stop_lsn", "stopped")
"""What every whole backup tells of itself."""


def by_place(row: Mapping[str, str]) -> bool:
    """Tell whether it names the backup before it by a position in the log."""
    return "/" in row.get("incremental", "")


def chains(rows: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...] | str]:
    """Return for each backup those it is put together from, the full one first and itself last, or why it cannot be.

    ``rows`` are what backups tell of themselves: an incremental one names the position (``incremental``) and timeline
    (``parent``) at which the one before it began; where a tool keeps them, the name of that one.
    """
    whole = {name: row for name, row in rows.items() if all(row.get(key) for key in NEEDED)}
    begun: dict[tuple[str, str, str], list[str]] = {}
    for name, row in sorted(whole.items()):
        begun.setdefault((row["start_lsn"], row.get("timeline", ""), row.get("system", "")), []).append(name)
    found: dict[str, tuple[str, ...] | str] = {}

    def link(name: str, seen: frozenset[str]) -> tuple[str, ...] | str:
        if name in found:
            return found[name]
        if name not in whole:
            status = rows[name].get("status")
            return f"not complete: it is {status}" if status else "not complete: label or manifest is missing"
        row = whole[name]
        if not row.get("incremental"):
            return (name,)
        if by_place(row):
            before = begun.get((row["incremental"], row.get("parent", ""), row.get("system", "")), [])
        else:
            before = [row["incremental"]] if row["incremental"] in rows else []
        known = [link(one, seen | {name}) for one in before if one not in seen | {name}]
        fits = [one for one in known if isinstance(one, tuple)]
        if fits:
            return (*min(fits, key=len), name)
        if before:
            return f"incremental: the one before it, {before[0]}, cannot be used: {_first(known)}"
        one = f"that began at {row['incremental']}" if by_place(row) else row["incremental"]
        return f"incremental: the backup {one} is missing"

    for name in sorted(rows, key=lambda one: position(rows[one].get("start_lsn") or "0/0")):  # what is before it first
        found[name] = link(name, frozenset())
    return found


def _first(known: list[tuple[str, ...] | str]) -> str:
    return next((one for one in known if isinstance(one, str)), "it leads back to itself")
