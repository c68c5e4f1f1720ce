"""deploy/server: whose sessions are kept, and what is left of one that was made in part or brought in damaged."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import FOUR, FULL, client, filled, options, run, serving, store_in

from vlamem.core.checksums import unsealed
from vlamem.core.tensors import write_tensors
from vlamem.deploy.server.labels import LabelQueue
from vlamem.deploy.server.session_export import export_session, import_session
from vlamem.deploy.server.session_record import StateError, hash_token, read_record, write_record
from vlamem.deploy.server.session_store import SessionsFullError, SessionStore


def small(folder: Path, most: int = 3) -> SessionStore:
    store = store_in(folder)
    return SessionStore(folder, store.owner, FULL, most, writes=False)


def test_newcomers_never_push_out_a_session_that_is_used(tmp_path: Path) -> None:
    store = small(tmp_path)
    for name in ("a", "b", "c"):
        store.begin(name, "t", 1)
    with pytest.raises(SessionsFullError, match="holds 3 sessions, all of them used within 30 days"):
        store.begin("d", "t", 0)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["a", "b", "c"]
    store.begin("b", "t", 2)  # and those go on


def test_of_a_full_folder_sessions_without_an_episode_and_those_long_unused_make_room(tmp_path: Path) -> None:
    store = small(tmp_path)
    for name, episode in (("a", 1), ("b", 0), ("c", 1)):
        store.begin(name, "t", episode)
    store.begin("d", "t", 1)
    assert not store.has("b")
    write_record(tmp_path / "c", replace(read_record(tmp_path / "c"), saved=time.time() - 31 * 24 * 3600))
    store.begin("e", "t", 1)
    assert [store.has(name) for name in "acde"] == [True, False, True, True]


def test_the_owner_of_a_session_has_a_place_before_newcomers_that_do_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(options=options(sessions=FOUR), store=store_in(tmp_path)) as server:
            async with client(server.port) as c:
                await c.ask("hello", session="owner", nonce="n" * 30)
                await c.ask("episode_start", episode=1)
                await c.observe(1, 0, write=True, value=5.0)
                server.state.drop(server.state.table.get("owner"))
            newcomers = [client(server.port) for _ in range(4)]
            open_ = [await c.__aenter__() for c in newcomers]
            for i, c in enumerate(open_):
                assert (await c.ask("hello", session=f"new-{i}"))["vlamem"]["type"] == "session"
            await open_[0].ask("episode_start", episode=1)
            async with client(server.port) as c:
                assert (await c.ask("hello", session="another"))["vlamem"]["code"] == "full"
                assert (await c.ask("hello", session="owner", token="n" * 30))["vlamem"]["type"] == "session"
                assert await c.memory(1, 1) == 5
            assert await open_[0].memory(1, 0) == 0
            for entered in newcomers:
                await entered.__aexit__(None, None, None)

    run(scenario)


def test_the_memory_of_a_session_whose_record_is_gone_is_not_given_to_the_next_of_its_name(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.release("arm")
    (tmp_path / "arm" / "session.json").unlink()
    store.begin("arm", hash_token("other"), 2)
    _, state, step = store.recover("arm")
    assert (step, state["sum"].tolist()) == (-1, [0, 0])


def test_what_a_crash_left_of_a_session_without_a_record_is_gone_at_the_next_start(tmp_path: Path) -> None:
    filled(tmp_path).close()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / ".session.json.tmp").write_text("{")
    store_in(tmp_path).close()
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["arm"]


def exported(folder: Path, state: dict[str, np.ndarray], **changed: Any) -> Path:
    store = filled(folder / "a")
    path = folder / "arm.safetensors"
    export_session(store, "arm", path)
    store.close()
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        record = unsealed(json.loads(file.metadata()["vlamem_session"])) | changed
    del record["arrays"]  # as version 0.1 wrote it
    write_tensors(path, state, {"vlamem_session": json.dumps(record)})
    return path


@pytest.mark.parametrize(
    ("state", "changed", "says"),
    [
        ({"sum": np.float32([np.nan, 1])}, {}, "'sum' of .* is not finite"),
        ({"sum": np.float32([1, 2, 3])}, {}, "holds a memory of sum:<f4:3, its session says sum:<f4:2"),
        (FULL, {"step": 1 << 40}, "which no session has"),
        (FULL, {"step": "x"}, "which no session has"),
        (FULL, {"owner": None}, "holds a damaged session"),
        (FULL, {"strange": 1}, "holds a damaged session"),
    ],
)
def test_a_session_that_is_damaged_is_not_imported_and_no_half_of_it_stays(
    tmp_path: Path, state: dict[str, np.ndarray], changed: dict[str, Any], says: str
) -> None:
    path = exported(tmp_path, state, **changed)
    store = store_in(tmp_path / "b")
    with pytest.raises(StateError, match=says):
        import_session(store, path)
    assert [p.name for p in (tmp_path / "b").iterdir() if p.is_dir()] == []


def test_an_import_that_the_disk_ends_leaves_no_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, store = exported(tmp_path, FULL), store_in(tmp_path / "b")

    def full(*given: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(store, "persist", full)
    with pytest.raises(OSError, match="disk full"):
        import_session(store, path)
    assert not store.has("arm")


def test_a_server_whose_lock_was_removed_writes_nothing_beside_the_next_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = store_in(tmp_path / "s")
        queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done")
        async with serving(store=store, labels=queue) as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            (tmp_path / "s" / ".lock").unlink()
            (tmp_path / ".l.jsonl.lock").unlink()
            other = store_in(tmp_path / "s")
            before = read_record(tmp_path / "s" / "arm")
            for kind, head in (("episode_start", {"episode": 2}), ("label", {"label": "a", "outcome": "success"})):
                said = (await c.ask(kind, **{"episode": 1} | head))["vlamem"]
                assert (said["code"], "start this one again" in said["message"]) == ("unavailable", True)
            assert (await c.observe(1, 0, write=True))["vlamem"]["code"] == "unavailable"
            assert read_record(tmp_path / "s" / "arm") == before
            assert "may be in use by another process" in server.state.problems()[0]
            other.close()
        queue.close()
        assert (tmp_path / "l.jsonl").read_text() == ""

    run(scenario)


def test_a_session_whose_memory_was_damaged_is_said_to_begin_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path).close()
    journal = tmp_path / "arm" / "memory.journal"
    raw = bytearray(journal.read_bytes())
    raw[-1] ^= 1
    journal.write_bytes(raw)
    store = store_in(tmp_path)
    session, state, step = store.recover("arm")
    assert (session.episode, step, state["sum"].any()) == (2, -1, False)
    assert f"{journal} holds no whole state, session arm has an empty memory" in caplog.text
    journal.write_bytes(b"")  # a crash before the first write
    caplog.clear()
    assert store.recover("arm")[2] == -1
    assert not caplog.records
    store.close()
