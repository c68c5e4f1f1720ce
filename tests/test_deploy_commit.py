"""deploy/server/commit.py: what labelled episodes become in success memory."""

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import LONG_S, SPEC, episode_in, label

from vlamem.deploy.server.commit import commit_episode
from vlamem.deploy.server.labels import Label, LabelQueue
from vlamem.memory.success import Origin, SuccessMemory
from vlamem.memory.success.runner import layout_of as success_layout


def test_a_labelled_episode_becomes_segments_of_success_memory_and_an_unknown_one_does_not(tmp_path: Path) -> None:
    traces, key = episode_in(tmp_path / "episodes"), np.float32([1, 0])
    with SuccessMemory(tmp_path / "s.db", Origin("p", "w", "n", "r"), success_layout(SPEC)) as memory:
        assert "2 segments kept" in commit_episode(memory, traces, label("a"))
        assert len(memory) == 2
        assert "0 segments kept" in commit_episode(memory, traces, label("b"))
        assert "nothing" in commit_episode(memory, traces, replace(label("c"), episode=2))
        stored = memory.query(key[None], np.float32([[0, 0, 0, 1, 0, 0, 0, 0]]), ["touch it"])
    assert stored.chunk is not None
    assert stored.weight[0] == 0 or np.allclose(stored.chunk[0, :, 0], [0.1, 0.2, 0.3, 0.4], atol=0.05)


def test_episodes_of_one_name_in_two_folders_are_both_kept_and_one_that_is_processed_again_is_not(
    tmp_path: Path,
) -> None:
    with SuccessMemory(tmp_path / "s.db", Origin("p", "w", "n", "r"), success_layout(SPEC)) as memory:
        for folder, at in (("before", 0.0), ("after", 2.0)):
            traces = episode_in(tmp_path / folder, at)
            trace = traces.path("arm", 1).read_bytes()
            assert "2 segments kept" in commit_episode(memory, traces, label("a"))
            traces.path("arm", 1).unlink()  # the process ended before the trace was marked
            traces.path("arm", 1).write_bytes(trace)
            assert "0 segments kept" in commit_episode(memory, traces, label("a"))
        assert len(memory) == 4


def test_a_label_that_corrects_another_retracts_what_that_stored(tmp_path: Path) -> None:
    traces = episode_in(tmp_path / "episodes")
    with SuccessMemory(tmp_path / "s.db", Origin("p", "w", "n", "r"), success_layout(SPEC)) as memory:
        for outcome, elsewhere, gone in (
            ("success", "failure", 0),
            ("failure", "success", 2),
            ("success", "failure", 2),
        ):
            result = commit_episode(memory, traces, label("a", outcome))
            assert (f"{gone} of an earlier label retracted" in result) == bool(gone)
            counts = memory.store.counts(memory.origin)
            assert (counts[f"{outcome}_segments"], counts[f"{elsewhere}_segments"]) == (2, 0)
            assert memory.verify() == 2
        assert "was labelled" in commit_episode(memory, traces, label("c", "unlabelled"))
        traces.begin("arm", 2)
        assert "0 segments kept" in commit_episode(memory, traces, label("d"))
        traces.begin("arm", 3)
        assert "nothing" in commit_episode(memory, traces, label("e", "failure"))
        assert memory.store.counts(memory.origin)["success_segments"] == 2


def test_of_labels_that_wait_the_newest_of_an_episode_is_processed(tmp_path: Path) -> None:
    done: list[tuple[str, str]] = []

    def process(given: Label) -> str:
        done.append((given.label, given.outcome))
        return "done"

    other = replace(label("b"), episode=2)
    for _ in range(2):  # the second time nothing is left to do
        queue = LabelQueue(tmp_path / "l.jsonl", process)
        for given in (label("a"), other, replace(label("c", "unlabelled"), episode=2), label("d", "failure")):
            queue.add(given, hold=True)
        queue.release("arm", 2)
        assert queue.drain(LONG_S)
        queue.close()
    assert done == [("b", "success"), ("c", "unlabelled"), ("d", "failure")]


def test_what_others_were_merged_into_stays_when_its_own_episode_is_corrected(tmp_path: Path) -> None:
    stores = [episode_in(tmp_path / name) for name in ("first", "second")]
    with SuccessMemory(tmp_path / "s.db", Origin("p", "w", "n", "r"), success_layout(SPEC)) as memory:
        assert "2 segments kept, 0 merged" in commit_episode(memory, stores[0], label("a"))
        assert "0 segments kept, 2 merged" in commit_episode(memory, stores[1], label("b"))
        assert "2 segments kept" in commit_episode(memory, stores[0], label("c", "failure"))
        counts = memory.store.counts(memory.origin)
        assert (counts["success_segments"], counts["failure_segments"]) == (2, 2)
        assert memory.verify() == 4
        assert "0 segments kept" in commit_episode(memory, stores[1], label("b"))
    with SuccessMemory(tmp_path / "s.db", Origin("p", "w", "n", "r"), success_layout(SPEC)) as memory:
        assert memory.verify() == 4


def test_a_disk_that_is_full_leaves_what_a_correction_would_have_retracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = episode_in(tmp_path / "episodes")
    with SuccessMemory(tmp_path / "s.db", Origin("p", "w", "n", "r"), success_layout(SPEC)) as memory:
        commit_episode(memory, traces, label("a"))

        def fails(*given: Any) -> int:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(memory.store, "_instruction", fails)
            with pytest.raises(sqlite3.OperationalError):
                commit_episode(memory, traces, label("b", "failure"))
        assert memory.store.counts(memory.origin)["success_segments"] == 2
        assert memory.verify() == 2
        assert "2 of an earlier label retracted" in commit_episode(memory, traces, label("b", "failure"))
