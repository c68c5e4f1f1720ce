"""memory/success/store/fleet: stores of several robots and a real PostgreSQL with pgvector."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sqlalchemy", reason="needs vlamem[fleet]")
pytest.importorskip("alembic", reason="needs vlamem[fleet]")
pytest.importorskip("psycopg", reason="needs vlamem[fleet]")
pytest.importorskip("pgvector", reason="needs vlamem[fleet]")

from fleet_cases import Postgres
from success_cases import LAYOUT, ORIGIN, episode

from vlamem.memory.success import Layout, Origin, OriginError, SuccessMemory
from vlamem.memory.success.store import StoreError, SuccessStore, open_store
from vlamem.memory.success.store.fleet import FleetError, FleetServer, Synced, admit, initialise, revoke, robots, sync
from vlamem.scripts.main import main

ROBOTS = ("anna", "bert", "carl")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.sql("; ".join(f"CREATE ROLE {name} LOGIN" for name in (*ROBOTS, "stranger")), database="postgres")
    yield server
    server.remove()


@pytest.fixture
def fleet(postgres: Postgres) -> Iterator[Postgres]:
    """A fleet's database with three robots."""
    postgres.sql("CREATE DATABASE fleet", database="postgres")
    owner = FleetServer(postgres.address())
    initialise(owner)
    for name in ROBOTS:
        admit(owner, name, name)
    yield postgres
    postgres.sql("DROP DATABASE fleet WITH (FORCE)", database="postgres")


def stored(path: Path, seeds: range, origin: Origin = ORIGIN, layout: Layout = LAYOUT) -> SuccessStore:
    """A robot's store with an episode for each seed, every third one a failure."""
    store = open_store(path)
    number = store.add_origin(origin, layout)
    for seed in seeds:
        store.commit(number, episode(seed, 2, "success" if seed % 3 else "failure"))
    return store


def carried(store: SuccessStore, fleet: Postgres, robot: str, **given: Any) -> Synced:
    return sync(store, FleetServer(fleet.address(robot)), robot, **given)


def names(store: SuccessStore) -> list[str]:
    return sorted(head.identity for head in store.episode_heads(1))


def test_what_one_robot_stored_every_other_has_bit_for_bit_with_its_name(fleet: Postgres, tmp_path: Path) -> None:
    anna, bert = stored(tmp_path / "a.db", range(70)), stored(tmp_path / "b.db", range(70, 75))
    own = names(anna), names(bert)
    assert carried(anna, fleet, "anna") == Synced(sent=70)
    assert carried(bert, fleet, "bert") == Synced(sent=5, received=70)
    assert carried(anna, fleet, "anna") == Synced(received=5)
    assert names(bert) == sorted([*own[1], *(f"fleet:anna/{name}" for name in own[0])])
    sent = {(s.segment.tick, s.made): s for s in anna.segments(1)}
    assert len(sent) == 150
    for there in bert.segments(1):
        here = sent[there.segment.tick, there.made]
        assert (there.outcome, there.segment.progress) == (here.outcome, here.segment.progress)
        for array in ("key", "proprioception", "chunk"):
            np.testing.assert_array_equal(getattr(there.segment, array), getattr(here.segment, array), strict=True)
    with SuccessMemory(tmp_path / "b.db", ORIGIN, LAYOUT) as memory:
        assert memory.verify() == 150


def test_a_second_sync_carries_nothing_and_a_third_only_what_is_new(fleet: Postgres, tmp_path: Path) -> None:
    anna, bert = stored(tmp_path / "a.db", range(3)), open_store(tmp_path / "b.db")
    carried(anna, fleet, "anna")
    assert carried(bert, fleet, "bert") == Synced(received=3)
    assert carried(anna, fleet, "anna") == carried(bert, fleet, "bert") == Synced()
    anna.commit(1, episode(9))
    assert carried(anna, fleet, "anna") == Synced(sent=1)
    assert carried(bert, fleet, "bert") == Synced(received=1)
    assert fleet.sql("SELECT robot, count(*) FROM vlamem.episodes GROUP BY robot") == "anna|4"


def test_a_label_that_was_corrected_is_corrected_everywhere(fleet: Postgres, tmp_path: Path) -> None:
    anna, bert = stored(tmp_path / "a.db", range(1, 3)), open_store(tmp_path / "b.db")
    carried(anna, fleet, "anna")
    carried(bert, fleet, "bert")
    anna.commit(1, replace(episode(1), outcome="failure"))
    assert carried(anna, fleet, "anna") == Synced(corrected=1)
    assert carried(bert, fleet, "bert") == Synced(received=1, dropped=1)
    outcomes = {head.identity: head.outcome for head in bert.episode_heads(1)}
    assert outcomes == {"fleet:anna/success-1": "failure", "fleet:anna/success-2": "success"}


def test_entries_of_a_revoked_robot_leave_every_store_and_it_reads_nothing_more(
    fleet: Postgres, tmp_path: Path
) -> None:
    anna, bert = stored(tmp_path / "a.db", range(3)), stored(tmp_path / "b.db", range(5, 6))
    carried(anna, fleet, "anna")
    assert carried(bert, fleet, "bert").received == 3
    owner = FleetServer(fleet.address())
    revoke(owner, "anna")
    assert carried(bert, fleet, "bert") == Synced(dropped=3)
    assert names(bert) == ["success-5"]
    with pytest.raises(FleetError, match="robot 'anna' was revoked and may neither read nor write"):
        carried(anna, fleet, "anna")
    for table in ("episodes", "segments"):  # whatever program asks
        assert fleet.sql(f"SELECT count(*) FROM vlamem.{table}", login="anna") == "0"
    admit(owner, "anna", "anna")
    assert carried(bert, fleet, "bert").received == 3
    assert robots(owner)[:2] == [("anna", "anna", False, 3), ("bert", "bert", False, 1)]


def test_what_is_a_robots_own_no_other_reads_or_writes(fleet: Postgres, tmp_path: Path) -> None:
    anna, bert = stored(tmp_path / "a.db", range(4)), open_store(tmp_path / "b.db")
    carried(anna, fleet, "anna", scope="robot")
    assert carried(bert, fleet, "bert") == Synced()
    assert fleet.sql("SELECT count(*) FROM vlamem.segments", login="bert") == "0"
    carried(anna, fleet, "anna", scope="shared")
    assert carried(bert, fleet, "bert") == Synced(received=4)
    assert fleet.sql("WITH d AS (DELETE FROM vlamem.episodes RETURNING 1) SELECT count(*) FROM d", login="bert") == "0"
    with pytest.raises(AssertionError, match="row-level security"):
        fleet.sql("INSERT INTO vlamem.segments SELECT episode, 9, 0, 0, key, proprioception, chunk, 0 FROM "
                  "vlamem.segments LIMIT 1", login="bert")  # fmt: skip
    carried(anna, fleet, "anna", scope="robot")
    assert carried(bert, fleet, "bert") == Synced(dropped=4)
    with pytest.raises(AssertionError, match="permission denied"):
        fleet.sql("SELECT count(*) FROM vlamem.episodes", login="stranger")


def test_a_server_that_is_killed_in_the_middle_loses_and_doubles_nothing(fleet: Postgres, tmp_path: Path) -> None:
    anna, bert = stored(tmp_path / "a.db", range(150)), open_store(tmp_path / "b.db")

    def lose_it(done: Synced) -> None:
        fleet.kill()

    for store, robot in ((anna, "anna"), (bert, "bert")):
        with pytest.raises(FleetError, match=r"cannot be reached or was lost .*: what was carried stays, the"):
            carried(store, fleet, robot, progress=lose_it)
        with pytest.raises(FleetError, match="cannot be reached"):
            carried(store, fleet, robot)
        fleet.start()
        done = carried(store, fleet, robot)
        assert 0 < done.sent + done.received < 150
    assert fleet.sql("SELECT count(*), count(DISTINCT identity) FROM vlamem.episodes") == "150|150"
    assert fleet.sql("SELECT count(*) FROM vlamem.segments") == "300"
    assert names(bert) == [f"fleet:anna/{name}" for name in names(anna)]


def test_what_may_not_be_stored_is_named_and_the_rest_is_carried(fleet: Postgres, tmp_path: Path) -> None:
    anna, bert = stored(tmp_path / "a.db", range(3)), open_store(tmp_path / "b.db")
    carried(anna, fleet, "anna")
    fleet.sql("UPDATE vlamem.segments SET chunk = '\\x00' WHERE episode = 1 AND place = 0")
    fleet.sql("UPDATE vlamem.segments SET tick = 77 WHERE episode = 2 AND place = 0")
    done = carried(bert, fleet, "bert")
    assert (done.received, len(done.refused)) == (1, 2)
    assert done.refused[0].startswith("anna/failure-0: ")
    assert "segment 0 is not what was sent" in done.refused[1]


def test_another_origin_is_refused_by_what_differs_and_kept_apart_when_it_is_admitted(
    fleet: Postgres, tmp_path: Path
) -> None:
    carried(stored(tmp_path / "a.db", range(2)), fleet, "anna")
    other = stored(tmp_path / "b.db", range(3), replace(ORIGIN, weights="weights-b"))
    with pytest.raises(OriginError, match=r"weights is 'weights-a' in postgresql://bert@.* but 'weights-b' in .*b.db"):
        carried(other, fleet, "bert")
    assert fleet.sql("SELECT count(*) FROM vlamem.origins") == "1"
    assert carried(other, fleet, "bert", admit=True) == Synced(sent=3)
    with pytest.raises(ValueError, match="stores arrays of this origin as"):
        carried(stored(tmp_path / "c.db", range(0), layout=replace(LAYOUT, horizon=5)), fleet, "carl")
    with pytest.raises(StoreError, match="is empty and the fleet has 2 origins"):
        carried(open_store(tmp_path / "d.db"), fleet, "carl")


def test_who_may_not_is_told_so_in_a_line(fleet: Postgres, tmp_path: Path) -> None:
    store = stored(tmp_path / "a.db", range(2))
    with pytest.raises(FleetError, match=r"login 'anna' is not that of robot 'bert'.* admit bert --login anna"):
        sync(store, FleetServer(fleet.address("anna")), "bert")
    with pytest.raises(FleetError, match=r"this login has not the rights .*permission denied"):
        sync(store, FleetServer(fleet.address("stranger")), "anna")
    with pytest.raises(FleetError, match="this login has not the rights"):
        admit(FleetServer(fleet.address("anna")), "dora", "stranger")
    owner = FleetServer(fleet.address())
    with pytest.raises(FleetError, match="has no role 'dora'"):
        admit(owner, "dora", "dora")
    with pytest.raises(FleetError, match="role 'anna' is another robot's"):
        admit(owner, "dora", "anna")
    with pytest.raises(FleetError, match="robot 'Dora!': expected a name"):
        admit(owner, "Dora!", "stranger")
    with pytest.raises(FleetError, match="has no robot 'dora': it has anna, bert, carl"):
        revoke(owner, "dora")


def test_a_database_that_cannot_be_used_is_named_and_no_file_is_made(
    fleet: Postgres, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def complaint(address: str) -> str:
        assert main(["memory", "sync", str(tmp_path / "new.db"), address, "--robot", "anna"]) == 2
        assert not (tmp_path / "new.db").exists()
        (line,) = capfd.readouterr().err.splitlines()
        return line

    assert "login 'bert' is not that of robot 'anna'" in complaint(fleet.address("bert"))
    assert "holds no fleet: 'vlamem memory fleet ADDRESS init'" in complaint(fleet.address(database="postgres"))
    fleet.sql("UPDATE vlamem.schema_version SET version_num = '0042'")
    assert "has schema 0042 and this vlamem knows up to 0001: update vlamem" in complaint(fleet.address("anna"))
    assert main(["memory", "fleet", fleet.address(), "init"]) == 2
    assert "has schema 0042" in capfd.readouterr().err
    assert "cannot be reached or was lost" in complaint("postgresql://anna:secret@127.0.0.1:1/fleet")
    assert "expected postgresql://LOGIN@HOST:PORT/DATABASE" in complaint("mysql://anna@host/fleet")


def test_the_command_line_does_the_same(fleet: Postgres, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "a.db", range(3)).close()
    assert main(["memory", "sync", str(tmp_path / "a.db"), fleet.address("anna"), "--robot", "anna"]) == 0
    assert main(["memory", "sync", str(tmp_path / "b.db"), fleet.address("bert"), "--robot", "bert"]) == 0
    assert "b.db: 0 episodes sent, 0 corrected, 3 received, 0 dropped" in capfd.readouterr().out
    assert main(["memory", "fleet", fleet.address(), "init"]) == 0  # once more changes nothing
    assert main(["memory", "fleet", fleet.address(), "revoke", "anna"]) == 0
    assert main(["memory", "fleet", fleet.address(), "list"]) == 0
    assert "anna: login anna, 3 episodes, revoked\nbert: login bert, 0 episodes\n" in capfd.readouterr().out
    assert main(["memory", "fleet", fleet.address(), "admit", "anna"]) == 2
    assert "name it with --login" in capfd.readouterr().err


def test_keys_can_be_searched_by_the_database_itself(fleet: Postgres, tmp_path: Path) -> None:
    anna = stored(tmp_path / "a.db", range(1, 9))
    carried(anna, fleet, "anna")
    wanted = next(iter(anna.segments(1))).segment.key
    near = f"'[{','.join(map(str, wanted))}]'"
    query = "SELECT e.identity, s.place FROM vlamem.segments s JOIN vlamem.episodes e ON e.id = s.episode"
    assert fleet.sql(f"{query} ORDER BY s.key <=> {near} LIMIT 1", login="bert") == "success-1|0"


def test_a_server_without_pgvector_is_named() -> None:
    server = Postgres(pgvector=False)
    try:
        with pytest.raises(FleetError, match=r"is a server without pgvector, .* \(Debian: postgresql-\d+-pgvector\)"):
            initialise(FleetServer(server.address(database="postgres")))
        assert server.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'vlamem'", database="postgres") == "0"
    finally:
        server.remove()
