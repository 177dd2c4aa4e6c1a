"""What the page of Failback is filled with: the lost site is read and rebuilt; the switch home is a page of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from activities.homecoming import keeps, parted
from activities.sites import Sites
from activities.store_roles import CLOSED, LAG
from console.shell.data_center_activation import PLAIN, RUN, Found, Page, hosts, must, on, scripts, where, written
from recovery.models import Frozen
from runbooks.procedures.failback import Parameters

SCRIPTS = (
    "pg_state",
    "store_state",
    "keep_sessions",
    "service",
    "divergence",
    "export_divergence",
    "follow",
    "store_role",
    "store_gate",
)


def variant(frozen: Frozen) -> str:
    """Return which page is its own: there is one."""
    return ""


def fill(frozen: Frozen, known: bool) -> dict[str, str]:
    """Return what each placeholder of the page stands for; nothing is left open, so that it is always ``known``."""
    wanted = Parameters.model_validate(frozen.parameters)
    page = HomePage(Sites(frozen.systems, frozen.estate, wanted, RUN))
    lines: dict[str, Iterable[str]] = {
        "hosts": hosts(page.used), "values": written(page.values()), "scripts": scripts(SCRIPTS),
        "look": page.look_home(), "sound": page.fenced(), "read": page.read(), "export": page.export(),
        "halt": page.halt(), "rebuild": page.rebuild(), "tidy": page.tidy_home(),
    }  # fmt: skip
    return {name: "\n".join(found) for name, found in lines.items()} | {
        **where(page.sites, frozen),
        "criteria": "\n".join(f"- {one}" for one in wanted.criteria) or "- none are written down",
    }


class HomePage(Page):
    """The lines of shell of each step; ``new`` is the site that was lost."""

    def values(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Yield what scripts are told about each system, and where what only the lost site has is kept."""
        outs = {pair.new.name: parted(self.sites, pair).out for pair in self.sites.databases}
        outs |= {two.new.name: keeps(self.sites, two).out for two in self.sites.stores}
        for name, values in super().values():
            yield name, {**values, "out": outs[name], "owner": RUN} if name in outs else values

    def look_home(self) -> Iterator[str]:
        """Yield how the databases and stores of both sites are looked at."""
        for pair in self.sites.databases:
            for one, peer in ((pair.old, pair.new), (pair.new, pair.old)):
                yield f'{on(one.host, one.name, "pg_state", REACH=peer.upstream)} >"$WORK/{one.name}.seen"'
        for store in (one for two in self.sites.stores for one in (two.old, two.new)):
            yield f'{on(store.host, store.name, "store_state", ASKED="all")} >"$WORK/{store.name}.seen"'

    def fenced(self) -> Iterator[str]:
        """Yield what has to be so before anything is touched."""
        for pair in self.sites.databases:
            old, new = pair.old.name, pair.new.name
            yield must(f'"$(seen {old} fault)$(seen {new} fault)"', "''", "mend these faults")
            yield must(f'"$(tells {old} role)"', "primary", f"{old} is no primary: there is nobody to follow")
            yield must(f'"$(seen {new} signal)"', "yes", f"{new} would come up as a primary: fence it first")
            yield must(
                f'"$(seen {new} reached)"', f'"$(seen {old} system)"', f"the host of {new} cannot replicate {old}"
            )
        for two in self.sites.stores:
            yield must(f'"$(seen {two.old.name} role)"', "master", f"{two.old.name} is no primary")

    def read(self) -> Iterator[str]:
        """Yield what tells how much only the lost databases have."""
        for pair in self.sites.databases:
            seen = f'"$WORK/{pair.new.name}.divergence"'
            yield f"{on(pair.new.host, pair.new.name, 'divergence')} >{seen}"
            yield f"echo {pair.new.name} && cat {seen}"

    def export(self) -> Iterator[str]:
        """Yield what stops the services of the lost site, and exports what only its databases have."""
        yield from self._stopped(self.sites.new)
        for pair in self.sites.databases:
            line = on(pair.new.host, pair.new.name, "export_divergence")
            yield f"! grep -q '^commits{chr(9)}[1-9]' \"$WORK/{pair.new.name}.divergence\" || {line}"
        for two in self.sites.stores:
            if two.new.copies:
                line = on(two.new.host, two.new.name, "keep_sessions")
                yield f'[ "$(seen {two.new.name} role)" != master ] || {line}'

    def rebuild(self) -> Iterator[str]:
        """Yield what makes the lost site a replica of the other one."""
        for pair in self.sites.databases:
            yield on(pair.new.host, pair.new.name, "follow")
        for two in self.sites.stores:
            follows = {**PLAIN, "COPIED": "yes"}
            yield on(two.new.host, two.new.name, "store_role", WANTED=two.old.upstream, EXPECTED="", **follows)
            seen = Found(f"$(seen {two.new.name} gate)")  # one that was fenced before its site was lost
            opened = on(two.new.host, two.new.name, "store_gate", EXPECTED=seen, LEAST=0, LAG=LAG, CLOSED="no")
            yield f'case "{seen}" in "{CLOSED} "*) {opened} ;; esac'

    def tidy_home(self) -> Iterator[str]:
        """Yield what lets an engine act again."""
        yield from (on(host, host.name, "resume") for host in self.halted)
