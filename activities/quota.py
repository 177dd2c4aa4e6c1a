"""What Azure grants a subscription in a region, and what of that the machines need that a site is started with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from activities.azure import AzureAt, Session, asked
from activities.machine_operations import MachineAt, look
from activities.machines import MachineSpec
from recovery.actions import Probe, Spec
from recovery.errors import RecoveryError
from recovery.models import Wire

if TYPE_CHECKING:
    from azure.mgmt.compute.models import ResourceSku

SECONDS = 12.0
"""What Azure has not told by then is not known: clients may be waiting. A list of sizes takes some seconds."""
REGIONAL = "cores"
"""Azure's name for the vCPUs of all families in a region."""


class QuotaSpec(Spec):
    """The machines that are to run together; what is not told within ``seconds`` is not waited for."""

    machines: tuple[MachineSpec, ...]
    seconds: float = SECONDS


class Stood(Wire):
    """How a machine stands, and in which region (a key of ``regions``)."""

    power: str
    size: str
    zone: str = ""
    region: str = ""


class Grant(Wire):
    """How much of something is used in a region, and how much is granted: vCPUs."""

    used: int
    limit: int


class Size(Wire):
    """What a machine of a size takes; ``barred`` are zones in which this subscription gets none ("": nowhere here)."""

    cores: int
    family: str
    barred: tuple[str, ...] = ()


class Region(Wire):
    """What a subscription is granted in a region, and the sizes that were asked for; ``why`` that is not known."""

    grants: dict[str, Grant] = {}
    sizes: dict[str, Size] = {}
    why: str = ""


class QuotaSeen(Wire):
    """What was seen at Azure; ``why`` nothing was, where it did not tell."""

    machines: dict[str, Stood] = {}
    regions: dict[str, Region] = {}
    why: str = ""


class LookAtQuota(Probe[QuotaSpec, QuotaSeen]):
    """See what is granted; that Azure does not tell is an answer, too, and is told at once."""

    name = "azure.quota"
    limit = timedelta(seconds=SECONDS + 5)

    def title(self, spec: QuotaSpec) -> str:
        """Say what is looked at."""
        return f"see what Azure grants {spec.system}"

    async def observe(self, spec: QuotaSpec) -> QuotaSeen:
        """Look at each machine, then at what its region has."""
        try:
            async with asyncio.timeout(spec.seconds):
                return await _seen(spec)
        except TimeoutError:
            return QuotaSeen(why=f"Azure has not told within {spec.seconds:g} s")
        except (RecoveryError, ValueError) as error:
            return QuotaSeen(why=error.message if isinstance(error, RecoveryError) else f"Azure tells of {error!r}")


look_at_quota = LookAtQuota()


async def _seen(spec: QuotaSpec) -> QuotaSeen:
    machines = {at.machine: at for one in spec.machines for at in one.all}
    found = await asyncio.gather(*map(look, machines.values()))
    stood: dict[str, Stood] = {}
    asks: dict[str, tuple[MachineAt, str]] = {}
    for at, one in zip(machines.values(), found, strict=True):
        region = f"{at.subscription}/{one.location}"
        stood[at.machine] = Stood.model_validate(one.stands.model_dump() | {"region": region})
        asks.setdefault(region, (at, one.location))
    sizes = {one.size for one in stood.values()} | {size for one in spec.machines for size in one.sizes}
    regions = await asyncio.gather(*(_region(at, where, sizes) for at, where in asks.values()))
    return QuotaSeen(machines=stood, regions=dict(zip(asks, regions, strict=True)))


async def _region(at: MachineAt, location: str, wanted: Iterable[str]) -> Region:
    """Ask for both at once; that this worker may not see them is no failure."""
    try:
        grants, sizes = await asyncio.gather(_grants(at, location), _sizes(at, location, set(wanted)))
    except RecoveryError as error:
        return Region(why=error.message)
    return Region(grants=grants, sizes=sizes)


async def _grants(at: MachineAt, location: str) -> dict[str, Grant]:
    async def call(session: Session) -> dict[str, Grant]:
        found = session.compute.usage.list(location)
        return {str(one.name.value): Grant(used=one.current_value, limit=one.limit) async for one in found}

    return await asked(_regional(at), f"{at.field.rpartition('.')[0]}.subscription", call)


async def _sizes(at: MachineAt, location: str, wanted: set[str]) -> dict[str, Size]:
    async def call(session: Session) -> dict[str, Size]:
        found = session.compute.resource_skus.list(filter=f"location eq '{location}'")
        return {
            str(one.name): _size(one, location)
            async for one in found
            if one.resource_type == "virtualMachines" and one.name in wanted
        }

    return await asked(_regional(at), f"{at.field.rpartition('.')[0]}.subscription", call)


def _regional(at: MachineAt) -> AzureAt:
    return AzureAt.model_validate(at.model_dump())


def _size(found: ResourceSku, location: str) -> Size:
    """Return what a size takes, and where there is none for this subscription."""
    told = {str(one.name): str(one.value) for one in found.capabilities or ()}
    barred: list[str] = []
    for one in found.restrictions or ():
        info = one.restriction_info
        if one.type == "Zone":
            barred += (info.zones or ()) if info else ()
        elif location.lower() in {where.lower() for where in one.values_property or ()}:
            barred.append("")
    return Size(cores=int(told.get("vCPUs", "0")), family=str(found.family), barred=tuple(sorted(barred)))
