"""deploy/server/session_*.py, labels.py, `vlamem state`: what is on disk, its owner, and what a crash leaves of it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from deploy_cases import FULL, LONG_S, filled, label, store_in

from vlamem.core.locks import InUseError, exclusive_lock
from vlamem.deploy.server.labels import LabelQueue
from vlamem.deploy.server.session_export import export_session, import_session
from vlamem.deploy.server.session_record import StateError, hash_token, layout_of, read_record, template_of
from vlamem.deploy.server.session_store import SessionStore
from vlamem.scripts.main import main


def test_what_was_persisted_comes_back_with_its_step(tmp_path: Path) -> None:
    filled(tmp_path).close()
    session, state, step = store_in(tmp_path).recover("arm")
    np.testing.assert_array_equal(state["sum"], FULL["sum"])
    assert (session.episode, step, session.token) == (2, 7, hash_token("t"))


def test_the_memory_of_the_episode_before_never_comes_back(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.begin("arm", hash_token("t"), 3)
    store.close()
    session, state, step = store_in(tmp_path).recover("arm")
    np.testing.assert_array_equal(state["sum"], 0)
    assert (session.episode, step) == (3, -1)


def test_ticks_without_a_write_write_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    store.recover("arm")
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("policy", "other"), ("fingerprint", "0" * 16), ("normaliser", "xyz"), ("memory", "sum2"), ("version", 2)],
)
def test_a_session_of_another_owner_is_refused_by_name(tmp_path: Path, field: str, value: object) -> None:
    filled(tmp_path).close()
    other = store_in(tmp_path, **{field: value})  # type: ignore[arg-type]  # version is a number
    with pytest.raises(StateError, match=f"{field} .* this server has {value!r}"):
        other.recover("arm")


def test_a_damaged_or_missing_session_says_so(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with pytest.raises(StateError, match="no session 'leg'"):
        store.recover("leg")
    (tmp_path / "arm" / "session.json").write_text('{"name": "arm"')
    with pytest.raises(StateError, match="damaged"):
        store.recover("arm")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "a b", 7, None])
def test_a_name_that_is_no_name_reaches_no_disk(tmp_path: Path, name: object) -> None:
    with pytest.raises(StateError, match="expected 1 to 64"):
        store_in(tmp_path).begin(name, "t", 1)  # type: ignore[arg-type]  # that is what is tested


def test_the_oldest_sessions_without_an_episode_make_room(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store._most = 3
    for i in range(5):
        store.begin(f"s{i}", "t", 0)
        os.utime(tmp_path / f"s{i}" / "session.json", (i, i))
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["s2", "s3", "s4"]


def test_a_memory_that_a_journal_cannot_hold_is_refused(tmp_path: Path) -> None:
    owner = store_in(tmp_path).owner
    for state in ({"x": np.zeros(4, np.int32)}, {"x": np.zeros(4000, np.float32)}):
        with pytest.raises(StateError, match="cannot be kept"):
            SessionStore(tmp_path, owner, state)


def test_layout_and_template_are_each_other_reversed() -> None:
    state = {"W": np.zeros((3, 2), np.float32), "b": np.zeros(3, np.float32)}
    again = template_of(layout_of(state))
    assert {k: v.shape for k, v in again.items()} == {"W": (3, 2), "b": (3,)}


def test_an_exported_session_is_taken_in_where_it_belongs_and_nowhere_else(tmp_path: Path) -> None:
    export_session(filled(tmp_path / "a"), "arm", tmp_path / "arm.safetensors")
    here = store_in(tmp_path / "b")
    import_session(here, tmp_path / "arm.safetensors", "leg")
    session, state, step = here.recover("leg")
    np.testing.assert_array_equal(state["sum"], FULL["sum"])
    assert (session.episode, step) == (2, 7)
    with pytest.raises(StateError, match="exists"):
        import_session(here, tmp_path / "arm.safetensors", "leg")
    with pytest.raises(StateError, match="memory 'sum1', this server has 'sum2'"):
        import_session(store_in(tmp_path / "c", memory="sum2"), tmp_path / "arm.safetensors")


def test_the_command_shows_exports_and_imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "a" / "sessions").close()
    assert main(["state", "show", str(tmp_path / "a")]) == 0
    assert "arm" in (printed := capsys.readouterr().out)
    assert "3.1623" in printed
    assert main(["state", "export", str(tmp_path / "a"), "arm", str(tmp_path / "f")]) == 0
    assert main(["state", "import", str(tmp_path / "a"), str(tmp_path / "f"), "--name", "leg"]) == 0
    assert read_record(tmp_path / "a" / "sessions" / "leg").episode == 2
    assert main(["state", "show", str(tmp_path / "none")]) == 2
    assert "holds no sessions" in capsys.readouterr().err
    (tmp_path / "a" / "sessions" / "arm" / "session.json").write_text("{")
    assert main(["state", "show", str(tmp_path / "a")]) == 1


def test_a_folder_and_a_file_of_labels_have_one_writer_and_any_number_of_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlamem.core.locks.WAIT_S", 0.1)
    store = filled(tmp_path / "sessions")
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done")
    queue.add(label("a"))
    with pytest.raises(InUseError, match=r"sessions is in use by another process.*--state"):
        filled(tmp_path / "sessions")
    with pytest.raises(InUseError, match=r"l\.jsonl is in use"):
        LabelQueue(tmp_path / "l.jsonl", lambda given: "done")
    reader = SessionStore(tmp_path / "sessions", store.owner, FULL, writes=False)
    np.testing.assert_array_equal(reader.recover("arm")[1]["sum"], FULL["sum"])
    queue.drain(LONG_S)
    queue.close()
    store.close()
    assert LabelQueue(tmp_path / "l.jsonl", lambda given: "done").stored == 1
    filled(tmp_path / "sessions").close()


def test_a_lock_ends_with_the_process_that_was_killed(tmp_path: Path) -> None:
    holds = "import sys, time; from pathlib import Path; from vlamem.core.locks import exclusive_lock\n"
    holds += "lock = exclusive_lock(Path(sys.argv[1]), 'x'); print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", holds, str(tmp_path / "lock")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(InUseError):
            exclusive_lock(tmp_path / "lock", "x", wait_s=0.1)
        process.kill()
    exclusive_lock(tmp_path / "lock", "x").release()
