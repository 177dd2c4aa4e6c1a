"""Find, load, validate and freeze runbooks. Files only; every fault is an ``Invalid`` that names file and field."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ValidationError

from recovery.errors import Invalid, fields
from recovery.models import Authored, Frozen, GatePolicy, Mode, Start, digest
from recovery.names import recovery_id
from runbooks.references import mismatches
from runbooks.schema import Estate, Runbook

M = TypeVar("M", bound=Authored)
PLACEHOLDER = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
NAME = re.compile(r"[a-z0-9_-]+/[a-z0-9_-]+")
CAMEL = re.compile(r"(?:[A-Z][a-z0-9]*)+")


class Library:
    """The catalogs under ``root``: each folder with an ``estate.yaml`` is one.

    ``values`` fills the ``${NAME}`` placeholders of estates (addresses, ports; never secrets).
    """

    def __init__(self, root: Path, values: Mapping[str, str]) -> None:
        self.root = root
        self.values = values

    def names(self) -> list[str]:
        """Return the runbooks as ``catalog/name``, sorted."""
        return sorted(
            name
            for estate in self.root.glob("*/estate.yaml")
            for file in estate.parent.glob("*.yaml")
            if file != estate and NAME.fullmatch(name := f"{file.parent.name}/{file.stem}")
        )

    def runbook(self, name: str) -> Runbook:
        """Return the runbook ``name`` (``catalog/name``), checked against its estate and procedure."""
        runbook = self.read(name)
        _check(f"{name}.yaml", runbook, self.estate(name.split("/", maxsplit=1)[0]))
        return runbook

    def read(self, name: str) -> Runbook:
        """Return the runbook ``name`` as it is written, checked by itself alone."""
        if not NAME.fullmatch(name) or name not in self.names():
            raise Invalid(f"runbook: there is none of this name; there are: {', '.join(self.names()) or 'none'}")
        file = self.root / f"{name}.yaml"
        return _parse(file, Runbook, self._read(file))

    def estate(self, catalog: str) -> Estate:
        """Return the estate of ``catalog``, its placeholders filled."""
        file = self.root / catalog / "estate.yaml"
        return _parse(file, Estate, self._fill(self._read(file), file))

    def freeze(self, start: Start, procedure: str) -> Frozen:
        """Return what ``start`` asks for as it is now, with all parameters checked.

        Raises ``Invalid`` naming the field when the runbook is unknown, belongs to another procedure, or its
        parameters are wrong.
        """
        belongs = self.read(start.runbook).procedure
        if belongs != procedure:
            raise Invalid(f"runbook: it is one for {belongs}; start that workflow type, not {procedure}")
        runbook, catalog = self.runbook(start.runbook), start.runbook.split("/", maxsplit=1)[0]
        estate = self.estate(catalog)
        if start.mode == "live":
            _unproven(runbook)
        parameters = _parameters(runbook, start)
        if faults := _needed(runbook, parameters):
            raise Invalid(f"{start.runbook}.yaml: {'; '.join(faults)}")
        if faults := specification(procedure).faults(runbook.systems, parameters, estate):
            raise Invalid("; ".join(faults))
        people = {name: person.roles for name, person in estate.people.items()}
        tier = tier_of(estate, runbook.systems[0])
        frozen = Frozen(
            runbook=start.runbook,
            title=runbook.title,
            version=runbook.version,
            procedure=procedure,
            catalog=catalog,
            systems=runbook.systems,
            tier=tier,
            objectives=estate.tiers[tier],
            gates={name: _policy(runbook, name) for name in specification(procedure).gates(parameters)},
            hold=runbook.hold,
            people=people,
            parameters=parameters,
            estate=estate.model_dump(mode="json", by_alias=True, include=set(specification(procedure).ESTATE)),
            not_after=runbook.not_after,
            keep_for=runbook.keep_for,
            digest="",
            notify=runbook.notify,
            hands=_hands(procedure, runbook.systems, estate),
        )
        return frozen.model_copy(update={"digest": digest([frozen, start.mode])})

    def _read(self, file: Path) -> Any:
        try:
            return yaml.load(file.read_text(), _StrictLoader)
        except OSError as error:
            raise Invalid(f"{_short(file)}: cannot be read ({error.strerror})") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else "?"
            raise Invalid(f"{_short(file)}: line {line}: {error.problem}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # no text, no such date, nested without end
            raise Invalid(f"{_short(file)}: cannot be read as YAML ({type(error).__name__})") from None

    def _fill(self, value: Any, file: Path) -> Any:
        if isinstance(value, dict):
            return {key: self._fill(item, file) for key, item in value.items()}
        if isinstance(value, list):
            return [self._fill(item, file) for item in value]
        return PLACEHOLDER.sub(self._value(file), value) if isinstance(value, str) else value

    def _value(self, file: Path) -> Callable[[re.Match[str]], str]:
        def value(found: re.Match[str]) -> str:
            if (filled := self.values.get(found[1])) is None:
                hint = "; start the lab: starter.py lab up" if found[1].startswith("LAB_") else ""
                raise Invalid(f"{_short(file)}: ${{{found[1]}}} has no value; set it in the environment{hint}")
            return filled

        return value


def library(catalogs: Path, values_file: Path) -> Library:
    """Return the library under ``catalogs``; placeholders come from the environment, then from ``values_file``."""
    values: dict[str, str] = {}
    if values_file.is_file():
        values = dict(line.split("=", maxsplit=1) for line in values_file.read_text().splitlines() if "=" in line)
    return Library(catalogs, values | dict(os.environ))


def specification(procedure: str) -> Any:
    """Return the module that specifies ``procedure``: its ``Parameters``, ``GATES``, and parts of the ``ESTATE``."""
    module = re.sub(r"(?<!^)(?=[A-Z])", "_", procedure).lower()
    if not CAMEL.fullmatch(procedure) or not (Path(__file__).parent / "procedures" / f"{module}.py").is_file():
        known = sorted(p.stem for p in (Path(__file__).parent / "procedures").glob("[a-z]*.py"))
        raise Invalid(f"procedure: there is none of this name; there are: {', '.join(known)}")
    return importlib.import_module(f"runbooks.procedures.{module}")


def workflow_id(name: str, runbook: Runbook | Frozen, mode: Mode) -> str:
    """Return the workflow id under which the runbook ``name`` runs: that of its first system, one recovery at a time.

    What goes on beside recoveries has an id of its own.
    """
    catalog, own = name.split("/", maxsplit=1)
    beside = getattr(specification(runbook.procedure), "BESIDE", False)
    return recovery_id(catalog, own if beside else runbook.systems[0], mode)


def _check(where: str, runbook: Runbook, estate: Estate) -> None:
    spec = specification(runbook.procedure)
    known = {name for kind in spec.SYSTEMS for name in getattr(estate, kind)}
    kinds = ", ".join(kind[:-1] for kind in spec.SYSTEMS)
    faults = [f"systems: {name} is no {kinds} of the estate" for name in runbook.systems if name not in known]
    if runbook.systems[0] in known and not tier_of(estate, runbook.systems[0]):
        faults.append(f"systems: {runbook.systems[0]} comes first; let that be one with a tier, for that counts")
    if len(set(runbook.systems)) < len(runbook.systems):
        faults.append("systems: one is named twice")
    if len(set(runbook.notify)) < len(runbook.notify):
        faults.append("notify: one is named twice")
    if more := sorted(set(runbook.gates) - set(spec.GATES)):
        faults.append(f"gates: {runbook.procedure} has only these: {', '.join(spec.GATES)}; leave out {more[0]}")
    faults += _needed(runbook, runbook.parameters)
    roles = {role for person in estate.people.values() for role in person.roles}
    asked = {f"gates.{name}": gate.roles for name, gate in runbook.gates.items()}
    asked |= {"hold": runbook.hold.roles} if runbook.hold else {}
    faults += [
        f"{where}.roles: nobody in the estate has the role {role}"
        for where, wanted in asked.items()
        for role in wanted
        if role not in roles
    ]
    faults += mismatches(estate)
    faults = faults or spec.faults(runbook.systems, runbook.parameters, estate)
    if faults:
        raise Invalid(f"{where}: {'; '.join(faults)}")


def _hands(procedure: str, systems: tuple[str, ...], estate: Estate) -> tuple[str, ...]:
    """Return what a recovery takes in hand where that is not its systems, or not all of them.

    Many share one Alertmanager, and each lifts its own silences alone: nobody waits for it.
    """
    own = getattr(specification(procedure), "hand", None)
    shared = [name for name in systems if name not in estate.alerting]
    if own:
        return tuple(map(own, shared))
    return tuple(shared) if len(shared) < len(systems) else ()


def tier_of(estate: Estate, system: str) -> str:
    """Return the tier of a system, "" where it has none."""
    kinds = (estate.databases, estate.stores, estate.machines, estate.configurations)
    found = next((kind[system] for kind in kinds if system in kind), None)
    return (found.tier if found else None) or ""


def _policy(runbook: Runbook, gate: str) -> GatePolicy:
    """Return who decides at a gate: as the runbook says, or as at the gate that counts instead."""
    instead = getattr(specification(runbook.procedure), "INSTEAD", {})
    return runbook.gates[gate if gate in runbook.gates else instead[gate]]


def _needed(runbook: Runbook, parameters: Mapping[str, Any]) -> list[str]:
    """Return what a run with ``parameters`` needs the runbook to say, and it does not."""
    spec = specification(runbook.procedure)
    instead = getattr(spec, "INSTEAD", {})
    missing = [name for name in spec.gates(parameters) if name not in runbook.gates and name not in instead]
    faults = [f"gates.{name}: is missing; say who decides there" for name in missing]
    if spec.commits(parameters) and runbook.hold is None:
        faults.append("hold: is missing; say who is asked when a step fails, for after some point there is no way back")
    return faults


def _parameters(runbook: Runbook, start: Start) -> dict[str, Any]:
    own = [name for name in getattr(specification(runbook.procedure), "AUTHORED", ()) if name in start.parameters]
    if own:
        raise Invalid(f"parameters.{own[0]}: only the runbook may say that; write it there, and leave it out here")
    pinned = sorted(set(runbook.parameters) & set(start.parameters))
    if pinned:
        raise Invalid(f"parameters.{pinned[0]}: the runbook sets it; leave it out, or change the runbook")
    try:
        model = specification(runbook.procedure).Parameters.model_validate({**runbook.parameters, **start.parameters})
    except ValidationError as error:
        raise Invalid("; ".join(f"parameters.{fault}" for fault in fields(error).split("; "))) from None
    return cast(dict[str, Any], model.model_dump(mode="json"))


def _unproven(runbook: Runbook) -> None:
    for name, gate in runbook.gates.items():
        if gate.approvals > 1:
            raise Invalid(
                f"gates.{name}.approvals: more than one person in live mode has to be proven by signatures, which"
                " this version cannot verify; use 1, or a drill"
            )


def _parse(file: Path, model: type[M], content: Any) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise Invalid(f"{_short(file)}: {fields(error)}") from None


def _short(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


class _StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice instead of silently taking the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # the base class refuses it, naming the line
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, "a key is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
