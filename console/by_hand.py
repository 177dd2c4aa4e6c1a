"""The runbook as prose and shell, for the day when the tool is down, too."""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.options import AsJson, Pairs, Parameters, Runbook
from console.output import emit, span
from console.session import library, settings

if TYPE_CHECKING:
    from recovery.models import Frozen

_PLACE = re.compile(r"\{\{([a-z_]+)\}\}")
_PART = re.compile(r"^\{\{> ([a-z]+)\}\}\n", re.MULTILINE)
_STEP = re.compile(r"^## #\. ", re.MULTILINE)
_BLOCK = re.compile(r"^(?:## (?P<heading>[^\n]+)|```sh\n(?P<shell>.*?)^```)$", re.MULTILINE | re.DOTALL)


def print_(
    name: Runbook,
    pairs: Pairs = None,
    text: Parameters = "",
    shell: Annotated[bool, typer.Option("--shell", help="Only the shell, as one script to run on the host.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the runbook as prose and shell, with this estate's addresses, to do it by hand."""
    from console.request import parameters

    page = _page(name, parameters(pairs or [], text))
    content = script(page) if shell else page
    if as_json:
        emit({"runbook": name, "format": "sh" if shell else "markdown", "content": content})
    else:
        print(content, end="")


def _page(name: str, given: Mapping[str, Any]) -> str:
    from console.request import request
    from recovery.errors import Invalid
    from runbooks.library import specification

    catalogs = library(settings())
    runbook = catalogs.read(name)
    procedure = specification(runbook.procedure)
    base = Path(procedure.__file__).with_suffix(".md")
    if not base.is_file():
        raise Invalid(f"procedure: there is no page yet for doing {runbook.procedure} by hand")
    hand = importlib.import_module(f"console.shell.{base.stem}")
    missing = hand.unknown(given) if hasattr(hand, "unknown") else {}
    asked = request(runbook=name, reason="by hand", mode="check", parameters={**missing, **given})
    frozen = catalogs.freeze(asked, runbook.procedure)
    template = numbered(joined(base, hand.variant(frozen)))
    return fill(template, {**heading(frozen, runbook.why), **hand.fill(frozen, known=not missing)})


def joined(base: Path, variant: str) -> str:
    """Return the page ``base`` with its parts, which lie beside it: its variant's, its own, or all pages'.

    A part that there is not is left out. A variant that has little in common with others has a page of its own.
    """

    def part(found: re.Match[str]) -> str:
        files = (base.with_name(f"{own}{found[1]}.md") for own in (f"{base.stem}.{variant}.", f"{base.stem}.", ""))
        return next((file.read_text() for file in files if file.is_file()), "")

    own = base.with_name(f"{base.stem}.{variant}.md")
    return _PART.sub(part, (own if own.is_file() else base).read_text())


def numbered(page: str) -> str:
    """Return ``page`` with its steps counted."""
    count = itertools.count(1)
    return _STEP.sub(lambda _: f"## {next(count)}. ", page)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return ``template`` with each {{name}} replaced; what is put in is not looked at again."""
    return _PLACE.sub(lambda found: values[found[1]], template)


def script(page: str) -> str:
    """Return the shell of ``page``, which stops at the first step that fails; a block with a remark is left out."""
    parts = ["#!/bin/sh", "set -eu"]
    for found in _BLOCK.finditer(page):
        parts.append(f"\n# {found['heading']}" if found["heading"] else found["shell"].rstrip())
    return "\n".join(parts) + "\n"


def heading(frozen: Frozen, why: str) -> dict[str, str]:
    """Return what every page says of its runbook."""
    aims = frozen.objectives
    decides = [
        f"“{gate}”: {policy.approvals} × {' or '.join(policy.roles)} ({_people(frozen, policy.roles)})"
        f" within {span(policy.within)}"
        for gate, policy in frozen.gates.items()
    ]
    return {
        "title": frozen.title,
        "why": why,
        "runbook": frozen.runbook,
        "version": frozen.version,
        "systems": ", ".join(frozen.systems),
        "objectives": f"tier {frozen.tier}, RTO {span(aims.rto)} from the outage, RPO {span(aims.rpo)}",
        "decides": "; ".join(decides) or "nobody is named",
    }


def _people(frozen: Frozen, roles: tuple[str, ...]) -> str:
    return ", ".join(name for name, theirs in frozen.people.items() if set(roles) & set(theirs)) or "nobody yet"
