"""The kill switch beside a worker: a file that stops every change, read anew each time, without Temporal."""

from __future__ import annotations

from pathlib import Path

from recovery.errors import Refused
from recovery.settings import Settings

NAME = "kill-switch"
LONGEST = 200
"""Characters of the file that are told."""


def place() -> Path:
    """Return where the file stands, if it does: in the folder of the state (RECOVERY_STATE)."""
    return Settings.from_environment().state / NAME


def engaged() -> str:
    """Return where the switch is and what it says (who, why), "" where it is not on; what cannot be read is on."""
    file = place()
    try:
        text = file.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        text = f"cannot be read ({error.strerror})"
    return f"{file}: {' '.join(text.split())[:LONGEST] or 'nobody says why'}"


def engage(text: str) -> None:
    """Put the file there, saying who and why. Raises Refused if the switch is on already."""
    if said := engaged():
        raise Refused(f"the kill switch is on already, {said}")
    Settings.from_environment().folder(".")  # nothing may have run here yet
    place().write_text(f"{text}\n")


def release() -> str:
    """Take the file away, and return what it said. Raises Refused if there is none."""
    if not (said := engaged()):
        raise Refused(f"there is no {place()}; hosts have one of their own, each in its folder for jobs")
    place().unlink()
    return said


def heed() -> None:
    """Refuse to change anything while the switch is on."""
    if said := engaged():
        raise Refused(
            f"nothing is changed while the kill switch stands there, {said}. Ask who put it; then take it away"
        )
