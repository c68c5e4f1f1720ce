"""Success memory beside other writers, and with what others hand it: commits, imports, the background writer."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from success_cases import LAYOUT, ORIGIN, episode, job

from vlamem.core.tensors import read_tensors, write_tensors
from vlamem.memory.success import (
    BackgroundWriter,
    Calibration,
    EntryError,
    Episode,
    MemoryOptions,
    SuccessMemory,
    calibrate,
    open_store,
)
from vlamem.memory.success.store import StoreDamagedError, export, import_snapshot
from vlamem.memory.success.store.errors import StoreError


def memory(path: Path, **options: Any) -> SuccessMemory:
    return SuccessMemory(path, ORIGIN, LAYOUT, MemoryOptions(**options))


def again(made: Episode) -> Episode:
    """Another episode of the same states and actions, which is merged into it."""
    return replace(made, identity=f"{made.identity}-again")


def test_a_commit_after_another_process_pruned_stores_what_it_would_have_merged(tmp_path: Path) -> None:
    with memory(tmp_path / "m.db") as one, memory(tmp_path / "m.db") as other:
        first = one.commit(episode(1))
        other.refresh()
        one.prune(np.array(first.ids))
        done = other.commit(again(episode(1)))
        assert (len(done.ids), done.merged) == (3, 0)
        assert other.verify() == 3


def test_two_writers_keep_the_capacity(tmp_path: Path) -> None:
    with memory(tmp_path / "m.db", most_segments=6) as one, memory(tmp_path / "m.db", most_segments=6) as other:
        for i in range(8):
            (one if i % 2 else other).commit(episode(i))
        assert other.store.counts(other.origin)["success_segments"] == 6
        other.refresh()
        assert other.verify() == 6


def test_many_writers_at_once_lose_nothing_and_keep_the_capacity(tmp_path: Path) -> None:
    def write(part: int) -> None:
        with memory(tmp_path / "m.db", most_segments=30, wait_s=60.0, check=False) as mine:
            for i in range(6):
                mine.commit(episode(10 * part + i))

    memory(tmp_path / "m.db").close()
    threads = [threading.Thread(target=write, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with memory(tmp_path / "m.db") as after:
        assert after.verify() == 30


def test_what_another_process_stored_deleted_and_credited_is_taken_over(tmp_path: Path) -> None:
    with memory(tmp_path / "m.db") as one, memory(tmp_path / "m.db") as other:
        ids = one.commit(episode(1)).ids
        assert other.refresh()
        assert not other.refresh()
        one.credit(np.array(ids[:1]), True)
        one.prune(np.array(ids[2:]))
        one.commit(episode(2, outcome="failure"))
        assert other.refresh()
        assert other.successes.ids.tolist() == list(ids[:2])
        assert other.successes.column("uses").tolist() == [1, 0]
        assert len(other.failures) == 3


# Imports --------------------------------------------------------------------------------------------------------------


def snapshot(folder: Path) -> Path:
    """Two episodes; the segments of the first were used, the second is older."""
    with memory(folder / "theirs.db") as theirs:
        ids = theirs.commit(episode(1)).ids
        theirs.commit(replace(episode(2), made=5.0))
        theirs.credit(np.array(ids), True)
        theirs.credit(np.array(ids[:1]), False)
        export(theirs.store, theirs.origin, folder / "theirs.safetensors")
    return folder / "theirs.safetensors"


def changed(path: Path, **header: Any) -> Path:
    """The snapshot with another header."""
    arrays, metadata = read_tensors(path)
    write_tensors(path, arrays, {"vlamem": json.dumps(json.loads(metadata["vlamem"]) | header)})
    return path


def test_an_import_brings_use_counts_and_the_oldest_episode_first(tmp_path: Path) -> None:
    store = open_store(tmp_path / "mine.db")
    assert import_snapshot(store, snapshot(tmp_path)).segments == 6
    found = list(store.segments(1))
    assert [s.made for s in found] == [5.0] * 3 + [1001.0] * 3
    assert [(s.uses, s.successes) for s in found[3:]] == [(2, 1), (1, 1), (1, 1)]
    store.close()


def test_an_import_does_not_overrule_an_operators_correction(tmp_path: Path) -> None:
    with memory(tmp_path / "mine.db") as mine:
        mine.commit(replace(episode(1), outcome="failure", verifier="operator"))
        done = import_snapshot(mine.store, snapshot(tmp_path))
        assert (done.segments, done.known) == (3, 1)
        (head,) = [h for h in mine.store.episode_heads(mine.origin) if h.identity == episode(1).identity]
        assert (head.outcome, head.verifier) == ("failure", "operator")


GOOD = Calibration(0.9, 1.0, None, 0.9, 0.5, 60, 30, (0.0, 1.0), (30,), (30,))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("{", "it is no calibration"),
        ("[1]", "it is no calibration"),
        (replace(GOOD, threshold=float("nan")).to_json(), "threshold is nan"),
        (replace(GOOD, threshold="0.9").to_json(), "threshold is '0.9'"),  # type: ignore[arg-type]  # what a file may say
        (replace(GOOD, threshold=2.0).to_json(), "out of range"),
        (replace(GOOD, proprioception_weight=-1.0).to_json(), "out of range"),
        (replace(GOOD, centre=(0.1,) * 5).to_json(), "centre has 5 entries, keys have 6"),
        (replace(GOOD, centre=(0.1, float("inf"))).to_json(), "expected finite numbers"),
    ],
)
def test_a_calibration_that_makes_no_sense_is_not_imported(tmp_path: Path, body: str, complaint: str) -> None:
    store = open_store(tmp_path / "mine.db")
    with pytest.raises((EntryError, StoreError), match=complaint):
        import_snapshot(store, changed(snapshot(tmp_path), calibration=body))
    assert store.origins() == []
    store.close()


def test_a_stored_calibration_that_makes_no_sense_is_named_with_its_mend_and_can_be_replaced(tmp_path: Path) -> None:
    with memory(tmp_path / "m.db") as mine:
        for one in job(3, 60):
            mine.commit(one)
        mine.store.add_calibration(mine.origin, 1.0, replace(GOOD, threshold=float("nan")).to_json())
    with pytest.raises(StoreDamagedError, match="'vlamem memory calibrate' replaces it"):
        memory(tmp_path / "m.db")
    with memory(tmp_path / "m.db", calibrated=False) as mine:
        found = [s.segment for s in mine.store.segments(mine.origin)]
        arrays = [np.stack([getattr(s, name) for s in found]) for name in ("key", "proprioception", "chunk")]
        episodes = [s.episode for s in mine.store.segments(mine.origin)]
        mine.recalibrate(calibrate(LAYOUT, *arrays, episodes, [1] * len(episodes), 0.2))  # type: ignore[arg-type]
    memory(tmp_path / "m.db").close()


# What is odd ----------------------------------------------------------------------------------------------------------

ODD = [
    {"confidence": np.float32(0.5)}, {"confidence": None}, {"made": None}, {"made": float("nan")},
    {"identity": "a\ud800"}, {"instruction": "touch \udfff"}, {"verifier": 3}, {"outcome": np.str_("success\ud800")},
    {"meaning": np.float32([np.nan])}, {"identity": None},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: f"{next(iter(odd))}")
def test_an_odd_entry_is_refused_by_name(tmp_path: Path, odd: dict[str, Any]) -> None:
    with memory(tmp_path / "m.db") as mine, pytest.raises(EntryError, match=r"expected|is no text|not finite"):
        mine.commit(replace(episode(1), **odd))


@pytest.mark.parametrize("odd", [{"tick": 1.5}, {"tick": -1}, {"tick": 1 << 63}, {"progress": None}])
def test_an_odd_segment_is_refused(tmp_path: Path, odd: dict[str, Any]) -> None:
    made = episode(1)
    with memory(tmp_path / "m.db") as mine, pytest.raises(EntryError, match=r"segment 0: (tick|progress)"):
        mine.commit(replace(made, segments=(replace(made.segments[0], **odd),)))


def test_the_background_writer_lives_after_whatever_it_was_given(tmp_path: Path) -> None:
    reported: list[str] = []
    with memory(tmp_path / "m.db") as mine:
        writer = BackgroundWriter(mine, reported.append)
        for i, odd in enumerate(ODD):
            writer.submit(replace(episode(10 + i), **odd))
        writer.submit("no episode")  # type: ignore[arg-type]  # that is the test
        writer.submit(episode(1), np.array(["no id"]), True)  # type: ignore[arg-type]
        writer.submit(episode(2))
        assert writer.flush(60)
        assert writer.close() == ()
        assert len(reported) == len(ODD) + 2
        assert len(mine) == 6


def test_a_memory_that_is_opened_for_reading_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with memory(tmp_path / "m.db") as mine:
        mine.commit(episode(1))
    before = sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir())
    monkeypatch.setattr("vlamem.memory.success.store.sqlite.os.access", lambda *_: False)  # a medium of that kind
    with memory(tmp_path / "m.db", read_only=True) as mine:
        assert mine.verify() == 3
        with pytest.raises(OSError, match=r"readonly|read-only"):
            mine.commit(episode(2))
    assert sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir()) == before
