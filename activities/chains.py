"""Chains of incremental backups: what each one was taken from, down to a full one; pure."""

from __future__ import annotations

from collections.abc import Mapping

from activities.timelines import position

NEEDED = ("version", "start_lsn", "stop_lsn", "stopped")
"""What every whole backup tells of itself."""


def chains(rows: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...] | str]:
    """Return for each backup those it is put together from, the full one first and itself last, or why it cannot be.

    ``rows`` are what backups tell of themselves: an incremental one names the position (``incremental``) and timeline
    (``parent``) at which the one before it began.
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
            return "not complete: label or manifest is missing"
        row = whole[name]
        if not row.get("incremental"):
            return (name,)
        before = begun.get((row["incremental"], row.get("parent", ""), row.get("system", "")), [])
        known = [link(one, seen | {name}) for one in before if one not in seen | {name}]
        fits = [one for one in known if isinstance(one, tuple)]
        if fits:
            return (*min(fits, key=len), name)
        if before:
            return f"incremental: the one before it, {before[0]}, cannot be used: {_first(known)}"
        return f"incremental: the backup that began at {row['incremental']} is missing"

    for name in sorted(rows, key=lambda one: position(rows[one].get("start_lsn") or "0/0")):  # what is before it first
        found[name] = link(name, frozenset())
    return found


def _first(known: list[tuple[str, ...] | str]) -> str:
    return next((one for one in known if isinstance(one, str)), "it leads back to itself")
