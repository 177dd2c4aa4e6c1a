"""What objects were before a recovery changed them: kept in a Secret beside them, and read again to undo it."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
from collections.abc import Collection, Mapping

from activities.applied import beyond, body, managers, mark, tree
from activities.cluster_refusals import Conflict, Missing
from activities.clusters import ClusterAt, Object, ask, get
from recovery.errors import Drifted, Fatal
from recovery.models import Wire

TYPE = "recovery/kept"
MOST = 1_000_000
"""Bytes; a Secret holds no more than that."""


class Part(Wire):
    """What another manager owned of an object, by which operation, and what of it that was (``fieldsV1``)."""

    manager: str
    operation: str
    owned: Object
    body: Object


class Kept(Wire):
    """What the manager had applied of an object, and its digest; None where there was no object.

    ``others`` are those from whom something is taken, or, of an object that goes, everybody.
    """

    digest: str
    body: Object | None = None
    others: tuple[Part, ...] = ()


class Keeping(Wire):
    """Where it is kept: one Secret for each recovery and target."""

    cluster: ClusterAt
    namespace: str
    run: str
    name: str

    @property
    def secret(self) -> str:
        """The name of the Secret."""
        return re.sub(r"[^a-z0-9.-]+", "-", f"recovery-{self.run}-{self.name}".lower()).strip("-.")[:250]

    @property
    def _all(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/secrets"

    async def there(self) -> bool:
        """Tell whether anything is kept."""
        return await get(self.cluster, f"{self._all}/{self.secret}") is not None

    async def load(self) -> dict[str, Kept] | None:
        """Return what is kept, by the keys of the objects; None when nothing is. Raises Fatal."""
        found = await get(self.cluster, f"{self._all}/{self.secret}")
        if found is None:
            return None
        try:
            text = gzip.decompress(base64.b64decode(found["data"]["objects"]))
            return {key: Kept.model_validate(one) for key, one in json.loads(text).items()}
        except (KeyError, TypeError, ValueError, OSError, EOFError):
            raise Fatal(f"{self.cluster.name}: secret/{self.secret} does not hold what was kept in it") from None

    async def save(self, kept: Mapping[str, Kept]) -> None:
        """Keep it, if nothing is kept yet: a second attempt would keep what the first one has changed.

        Raises Drifted when something else is kept, Fatal when it is more than a Secret holds.
        """
        text = json.dumps({key: one.model_dump() for key, one in kept.items()}).encode()
        data = base64.b64encode(gzip.compress(text, mtime=0)).decode()
        if len(data) > MOST:
            raise Fatal(f"{self.cluster.name}: what would be kept of {self.name} is more than a Secret holds")
        labels = {"app.kubernetes.io/managed-by": "recovery", "recovery/run": self.run}
        meta = {"name": self.secret, "labels": labels}
        new = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": TYPE, "data": {"objects": data}}
        try:
            await ask(self.cluster, "POST", self._all, new)
        except Conflict:
            self.check(await self.load() or {}, {key: one.digest for key, one in kept.items()})

    def check(self, kept: Mapping[str, Kept], before: Mapping[str, str]) -> None:
        """See that what is kept is what was seen before. Raises Drifted."""
        if {key: one.digest for key, one in kept.items()} != dict(before):
            raise Drifted(f"{self.cluster.name}: secret/{self.secret} keeps something else than what was seen before")

    async def drop(self) -> None:
        """Let go of it."""
        with contextlib.suppress(Missing):
            await ask(self.cluster, "DELETE", f"{self._all}/{self.secret}")


def keep(live: Object | None, manager: str, overruled: Collection[str], *, goes: bool) -> Kept:
    """Return what is to be kept of an object; ``goes`` if it is to be deleted."""
    if live is None:
        return Kept(digest="")
    others = [name for name in managers(live) if name != manager and (goes or name in overruled)]
    parts = (
        Part(manager=name, operation=how, owned=owned, body=body(live, owned))
        for name in others
        for how in ("Apply", "Update")
        if (owned := tree(live, name, how))
    )
    return Kept(digest=mark(live, manager=manager), body=body(live, tree(live, manager)), others=tuple(parts))


def lacks(live: Object, part: Part) -> Object:
    """Return what another manager owned and owns no more (``fieldsV1``)."""
    return beyond(part.owned, tree(live, part.manager, part.operation))


def lost(live: Object, part: Part) -> Object | None:
    """Return what another manager has to write to own again what it owned; None where it owns that.

    Of what it applied server-side all of it has to be applied again, or it would let go of the rest.
    """
    missing = lacks(live, part)
    if not missing:
        return None
    return part.body if part.operation == "Apply" else body(part.body, missing)
