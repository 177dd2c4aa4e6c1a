"""What a move between sites meets on its way: a primary that died, half a rewind, lost log, a peer that writes."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from activities import ssh
from activities.sites import Pair, Sites
from activities.switching import PairSpec, Retired, follow, keep_role, promote_standby, retire
from lab import processes
from recovery.errors import Drifted, Fatal, Refused, Transient
from tests.lab.pairs import ask
from tests.matrix.twins import Twins, follows, settings, twins

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]
LAST = "select pg_snapshot_xmax(pg_current_snapshot())"
"""The next transaction that writes."""
OWN_SCHEMAS = "select count(*) from pg_namespace where nspname like 'recovery%'"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Twins]:
    """Two sites."""
    async with AsyncExitStack() as ends:
        ends.push_async_callback(ssh.close)
        yield await twins(ends, tmp_path_factory.mktemp("known"))


@pytest.fixture
def move(both: Twins) -> Sites:
    """The move to south, with north its primary again."""
    if both.stands() != both.pristine:
        both.restore()
    return both.sites()


@pytest.fixture
def pair(move: Sites) -> Pair:
    """Both databases."""
    return move.databases[0]


async def followed(both: Twins, spec: PairSpec) -> None:
    """Have north follow, and see that it does, with its own settings, and nothing of what parted it."""
    own = {name: found for name, found in settings(Path(spec.database.data)).items() if "auto" not in name}
    await follow.apply(spec, await follow.observe(spec))
    await follow.halt(spec)
    north = both.lab.databases["north"]
    assert follows(north) == both.reached("south")
    assert await follow.observe(spec) == follow.desired(spec, await follow.observe(spec))
    assert ask(north, "select count(*) from orders where number = -1") == "0"
    now = settings(north.place.data)
    assert not own or own == {name: found for name, found in now.items() if "auto" not in name}
    assert [path.name for path in north.place.folder.glob("data*") if path.is_dir()] == ["data"]


def beside(spec: PairSpec) -> Path:
    """Return the folder of what is kept."""
    return Path(f"{spec.database.data}.switch-{spec.owner}")


async def kept(spec: PairSpec) -> None:
    """Keep its settings, as a follow does first."""
    await keep_role._run(spec, "keep_role")
    await keep_role.halt(spec)


async def test_primary_that_died_follows(both: Twins, move: Sites, pair: Pair) -> None:
    south, north = both.lab.databases["south"], both.lab.databases["north"]
    south.stop(quick=False)
    ask(north, "insert into orders (number, customer, amount) values (-1, 'lost', 1)")
    processes.stop(processes.postgres_in(north.place.data), signal.SIGKILL, 10)
    south.start()
    ask(south, "select pg_promote(wait => true)")
    await followed(both, move.of_old(pair))


async def test_half_rewound_one_is_built_anew(both: Twins, move: Sites, pair: Pair) -> None:
    both.diverge()
    spec = move.of_old(pair)
    await kept(spec)
    both.lab.place.north.joinpath("data").rename(beside(spec) / "rewinding")
    shutil.rmtree(beside(spec) / "rewinding" / "base")
    await followed(both, spec)


async def test_swap_that_was_cut_is_ended(both: Twins, move: Sites, pair: Pair) -> None:
    both.diverge()
    spec, north, south = move.of_old(pair), both.lab.databases["north"], both.lab.databases["south"]
    await kept(spec)
    joining = beside(spec) / "joining"
    north.run("pg_basebackup", "-D", joining, "-d", pair.new.upstream, "--checkpoint=fast")
    subprocess.run(["cp", "-a", f"{beside(spec)}/kept/files/.", joining], check=True)
    with (joining / "postgresql.auto.conf").open("a") as file:
        file.write(f"primary_conninfo = '{pair.new.upstream}'\n")
    (joining / "standby.signal").touch()
    north.who.own(joining / "standby.signal")
    north.place.data.rename(beside(spec) / "parted")
    await followed(both, spec)
    assert not south.standby()


async def test_log_that_is_gone_is_made_good_by_a_base_backup(both: Twins, move: Sites, pair: Pair) -> None:
    both.retire()
    south = both.lab.databases["south"]
    ask(south, "select pg_promote(wait => true)")
    ask(south, "alter system set wal_keep_size = 0")
    ask(south, "select pg_reload_conf()")
    for _ in range(6):
        ask(south, "select pg_logical_emit_message(true, 'x', repeat('y', 100000))")
        ask(south, "select pg_switch_wal()")
        ask(south, "checkpoint")
    await followed(both, move.of_old(pair))


async def test_another_database_is_not_followed(both: Twins, move: Sites, pair: Pair) -> None:
    both.diverge()
    spec = move.of_old(pair)
    await kept(spec)
    (beside(spec) / "kept" / "system").write_text("7\n")
    before = both.shows("north")
    with pytest.raises(Refused, match="there is another database"):
        await follow.apply(spec, await follow.observe(spec))
    assert both.shows("north") == before


async def test_one_that_cannot_be_reached_is_waited_for(both: Twins, move: Sites, pair: Pair) -> None:
    both.diverge()
    spec, passfile = move.of_old(pair), both.lab.place.at("north").passfile
    text = passfile.read_text()
    passfile.write_text("")
    try:
        with pytest.raises(Transient, match="cannot be replicated"):
            await follow.apply(spec, await follow.observe(spec))
    finally:
        passfile.write_text(text)
    assert both.shows("north")["signal"]
    await follow.halt(spec)
    await followed(both, spec)


async def test_nobody_is_promoted_beside_a_primary(both: Twins, move: Sites, pair: Pair) -> None:
    spec = move.of_new(pair)
    with pytest.raises(Refused, match="takes writes: two would"):
        await promote_standby.apply(spec, await promote_standby.observe(spec))
    both.lab.databases["north"].stop(quick=False)
    with pytest.raises(Refused, match="would come up as a primary"):
        await promote_standby.apply(spec, await promote_standby.observe(spec))
    assert both.shows("south")["role"] == "standby"


async def test_nobody_is_promoted_while_the_other_one_is_not_seen(both: Twins, move: Sites, pair: Pair) -> None:
    both.retire()
    spec = move.of_new(pair)
    nowhere = spec.other.model_copy(update={"host": spec.other.host.model_copy(update={"port": 1})})
    with pytest.raises(Transient, match="cannot be reached"):
        await promote_standby.apply(spec.model_copy(update={"other": nowhere}), await promote_standby.observe(spec))
    assert both.shows("south")["role"] == "standby"


async def test_one_that_lacks_the_last_log_is_not_promoted(both: Twins, move: Sites, pair: Pair) -> None:
    south, north = both.lab.databases["south"], both.lab.databases["north"]
    south.stop(quick=False)
    ask(north, "insert into orders (number, customer, amount) values (-1, 'kept', 1)")
    both.retire()
    south.start()
    with pytest.raises(Refused, match="some of it would be lost"):
        await promote_standby.apply(move.of_new(pair), await promote_standby.observe(move.of_new(pair)))
    assert both.shows("south")["role"] == "standby"


async def test_promotion_that_was_cut_before_its_row_is_ended(both: Twins, move: Sites, pair: Pair) -> None:
    both.retire()
    spec, south = move.of_new(pair), both.lab.databases["south"]
    before = await promote_standby.observe(spec)
    (beside(spec) / "kept").mkdir(parents=True)
    (beside(spec) / "kept" / "timeline").write_text("00000001\n")
    (beside(spec) / "kept" / "promoted").write_text(f"{spec.owner}\n")
    for path in (beside(spec), *beside(spec).rglob("*")):
        south.who.own(path)
    ask(south, "select pg_promote(wait => true)")
    assert promote_standby.partial(spec, before, now := await promote_standby.observe(spec))
    assert now != promote_standby.desired(spec, before)
    await promote_standby.apply(spec, before)
    await promote_standby.halt(spec)
    assert await promote_standby.observe(spec) == promote_standby.desired(spec, before)
    assert ask(south, OWN_SCHEMAS) == "0"


async def test_one_that_was_promoted_and_takes_no_row_is_no_success(both: Twins, move: Sites, pair: Pair) -> None:
    south, north = both.lab.databases["south"], both.lab.databases["north"]
    ask(north, "create function refuse() returns event_trigger language plpgsql as 'begin raise ''not here''; end'")
    ask(north, "create event trigger refuse on ddl_command_start execute function refuse()")
    ask(north, "alter event trigger refuse enable always")
    both.retire()
    spec = move.of_new(pair)
    before = await promote_standby.observe(spec)
    with pytest.raises(Fatal, match=r"the promoted database takes no write: ERROR: +not here"):
        await promote_standby.apply(spec, before)
    await promote_standby.halt(spec)
    assert await promote_standby.observe(spec) != promote_standby.desired(spec, before)
    await promote_standby.undo(spec, before)
    assert both.shows("south")["servers"] == 0
    assert south.standby()


async def test_one_that_somebody_else_promoted_gets_no_row(both: Twins, move: Sites, pair: Pair) -> None:
    both.retire()
    spec, south = move.of_new(pair), both.lab.databases["south"]
    before = await promote_standby.observe(spec)
    ask(south, "select pg_promote(wait => true)")
    last = ask(south, LAST)
    with pytest.raises(Drifted, match="somebody else promoted"):
        await promote_standby.apply(spec, before)
    await promote_standby.halt(spec)
    assert ask(south, LAST) == last


async def test_one_that_died_is_not_followed_by_a_promotion(both: Twins, move: Sites, pair: Pair) -> None:
    north = both.lab.databases["north"]
    processes.stop(processes.postgres_in(north.place.data), signal.SIGKILL, 10)
    spec = move.of_old(pair)
    before = await retire.observe(spec)
    await retire.apply(spec, before)
    await retire.halt(spec)
    with pytest.raises(Refused, match="was not shut down in order"):
        await promote_standby.apply(move.of_new(pair), await promote_standby.observe(move.of_new(pair)))
    await retire.undo(spec, before)
    assert await retire.observe(spec) == before
    assert both.shows("north")["servers"] == 0  # it did not serve before


async def test_retired_one_is_not_opened_beside_a_primary(both: Twins, move: Sites, pair: Pair) -> None:
    both.diverge()
    with pytest.raises(Refused, match="takes writes: two would"):
        await retire.undo(move.of_old(pair), Retired(serving=True))
    assert both.shows("north")["servers"] == 0


async def test_standby_is_not_restored_without_a_primary(both: Twins, move: Sites, pair: Pair) -> None:
    spec = move.of_new(pair)
    before = await keep_role.observe(spec)
    await keep_role.apply(spec, before)
    await keep_role.halt(spec)
    both.retire()
    with pytest.raises(Refused, match="orders is down, and orders-south has nobody to replicate"):
        await keep_role.undo(spec, before)
    assert both.shows("south")["role"] == "standby"
