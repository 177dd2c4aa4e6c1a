"""What an accident of each kind means for a lab: which servers it strikes, and where."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lab import accidents, daemons, processes, workers
from lab.addresses import of
from lab.kinds import Kind
from lab.models import Accident
from lab.place import LabError
from lab.repository import Repository

if TYPE_CHECKING:
    from lab.estate import Lab


def cause(lab: "Lab", kind: Kind) -> Accident:
    """Cause it in a lab that is locked. Raises LabError."""
    if kind is Kind.PARTITION:
        return accidents.cut(lab.place)
    if kind is Kind.CONFIGURATION:
        return _misconfigure(lab)
    if kind is Kind.STOREFRONT:
        return _spoil(lab)
    if kind in (Kind.NORTH, Kind.SOUTH):
        if kind.value not in lab.sites:
            raise LabError(f"{kind}: this lab has no such site")
        worker = daemons.running(lab.place, workers.name(kind.value))
        return accidents.lose(kind, lab.place.at(kind.value), [worker] if worker else [])
    database = lab.primary
    site = database.place.site
    if kind in accidents.STATEMENTS:
        return accidents.destroy(database, kind)
    if kind is Kind.POSTGRES:
        postmaster, all_of_it = database.running(), processes.postgres_in(database.place.data)
        # The postmaster first: it would answer the death of a child with new ones.
        return accidents.kill(kind, site, sorted(all_of_it, key=lambda process: process != postmaster))
    found = daemons.running(lab.place, of(site, "sshd") if kind is Kind.SSH else "load")
    return accidents.kill(kind, site, [found] if found else [])


def _misconfigure(lab: "Lab") -> Accident:
    repository = Repository(lab.place.repository)
    if not repository.folder.exists():
        raise LabError("configuration: this lab has none: it needs two sites, and git on this machine")
    before = datetime.now(UTC)
    repository.add([repository.contents.bad])
    lab.configure(only_new=False)
    return Accident(kind=Kind.CONFIGURATION, site=None, before=before, happened_at=datetime.now(UTC))


def _spoil(lab: "Lab") -> Accident:
    storefront = lab.storefront
    if storefront is None:
        raise LabError(
            "storefront: this lab has none: it needs a cluster (`lab up --cluster`), and git on this machine"
        )
    before = datetime.now(UTC)
    storefront.spoil()
    return Accident(kind=Kind.STOREFRONT, site=None, before=before, happened_at=datetime.now(UTC))
