"""deploy/server/labels.py, traces.py and commit.py: labels, traces of their episodes, and what is made of both."""

import json
import os
import resource
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import LONG_S, SPEC, filled, label
from disk_cases import fill_the_disk

from vlamem.core.checksums import unsealed
from vlamem.deploy.server.commit import commit_episode
from vlamem.deploy.server.labels import Label, LabelError, LabelQueue
from vlamem.deploy.server.traces import TraceStore
from vlamem.memory.success import Origin, SuccessMemory
from vlamem.memory.success.runner import layout_of as success_layout


def test_labels_left_pending_are_processed_at_the_next_start_and_processed_ones_are_not(tmp_path: Path) -> None:
    reports: list[str] = []

    def fails(given: Label) -> str:
        if given.label == "b":
            raise OSError("disk full")
        return "done"

    queue = LabelQueue(tmp_path / "l.jsonl", fails, reports.append)
    assert [queue.add(label(n)) for n in "aba"] == [True, True, False]
    assert queue.drain(LONG_S)
    queue.close()
    assert ["disk full" in r for r in reports] == [True]
    done: list[str] = []
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: done.append(given.label) or "done")
    assert queue.drain(LONG_S)
    assert not queue.add(label("a"))
    queue.close()
    assert done == ["b"]


def test_a_label_that_a_full_disk_left_undone_is_tried_again_until_the_disk_has_room(tmp_path: Path) -> None:
    reports: list[str] = []
    tries = iter(
        [OSError("disk full"), OSError("disk full"), sqlite3.OperationalError("locked"), OSError("disk full"), None]
    )
    done = threading.Event()

    def process(given: Label) -> str:
        error = next(tries)
        if error is not None:
            raise error
        done.set()
        return "done"

    queue = LabelQueue(tmp_path / "l.jsonl", process, reports.append, retry_s=0.0)
    queue.add(label("a"))
    assert done.wait(LONG_S)
    while queue.pending:
        time.sleep(0.01)
    queue.close()
    assert ["disk full" in r for r in reports] == [True, False, True]  # each reason once, not each try
    assert LabelQueue(tmp_path / "l.jsonl", process).pending == frozenset()


def test_a_label_that_fails_three_times_is_dead_and_its_trace_is_needed_no_more(tmp_path: Path) -> None:
    reports: list[str] = []
    tried: list[str] = []

    def process(given: Label) -> str:
        tried.append(given.label)
        if given.label == "a":
            raise ValueError("its trace is damaged")
        return "done"

    for _ in range(2):  # the second time it stays dead
        queue = LabelQueue(tmp_path / "l.jsonl", process, reports.append, retry_s=0.0)
        queue.add(label("a"))
        queue.add(replace(label("b"), episode=2))
        while queue.pending or not queue.dead:
            time.sleep(0.01)
        assert queue.drain(LONG_S)
        queue.close()
        assert (tried.count("a"), tried.count("b"), queue.dead) == (3, 1, 1)
    assert "given up after 3 tries: ValueError: its trace is damaged" in reports[-1]
    assert json.loads((tmp_path / "l.jsonl").read_text().splitlines()[-1]).items() >= {"dead": "a"}.items()


def test_a_label_cut_short_by_a_crash_was_never_taken_and_the_others_stay(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done")
    queue.add(label("a"))
    queue.drain(LONG_S)
    queue.close()
    with (tmp_path / "l.jsonl").open("a") as file:
        file.write('{"label": {"label": "b", "ses')
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done")
    assert queue.stored == 1
    assert queue.add(label("b"))
    queue.drain(LONG_S)
    queue.close()


def test_a_label_that_the_disk_took_in_part_is_refused_and_the_next_one_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done")
    with monkeypatch.context() as patch:
        fill_the_disk(patch, after=0, keeps=20)
        with pytest.raises(OSError, match="No space"):
            queue.add(label("a"))
    assert (tmp_path / "l.jsonl").read_bytes() == b""
    assert queue.add(label("b"))
    queue.drain(LONG_S)
    queue.close()
    done: list[str] = []
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: done.append(given.label) or "done")
    assert queue.stored == 1
    assert queue.add(label("a"))
    queue.drain(LONG_S)
    queue.close()
    assert done == ["a"]


def test_a_file_of_version_0_1_is_read_and_written_with_its_words(tmp_path: Path) -> None:
    line = '{"label": {"episode": 1, "label": "%s", "made": 1.0, "outcome": "%s", "session": "arm", "source": "%s"}}\n'
    (tmp_path / "l.jsonl").write_text(line % ("a", "unsaid", "verifier"))
    done: list[str] = []
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: done.append(given.outcome) or "kept")
    assert queue.drain(LONG_S)
    assert queue.add(Label("b", "arm", 2, "unlabelled", "verifier", 1.0))
    assert queue.drain(LONG_S)
    queue.close()
    assert done == ["unlabelled", "unlabelled"]
    first, processed, second, _ = (tmp_path / "l.jsonl").read_text().splitlines()
    assert unsealed(json.loads(second)) == json.loads((line % ("b", "unsaid", "verifier")).replace(": 1,", ": 2,"))
    assert first == (line % ("a", "unsaid", "verifier")).strip()
    assert json.loads(processed).items() >= {"done": "a", "said": "kept"}.items()


def test_new_files_are_in_their_folders_after_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, sync = set(), os.fsync

    def recorded(file: int) -> None:
        synced.add(os.fstat(file).st_ino)
        sync(file)

    monkeypatch.setattr(os, "fsync", recorded)
    LabelQueue(tmp_path / "labels" / "l.jsonl", lambda given: "done").close()
    filled(tmp_path / "sessions").close()
    folders = {"labels", "sessions", "sessions/arm"}
    assert {f for f in folders if (tmp_path / f).stat().st_ino in synced} == folders


def test_a_queue_remembers_so_many_ids_and_no_more(tmp_path: Path) -> None:
    for _ in range(2):
        queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done", most=3)
        for name in "abcde"[queue.stored :]:
            assert queue.add(label(name))
        assert queue.drain(LONG_S)
        assert [queue.add(label(name)) for name in "cde"] == [False] * 3
        assert (queue.stored, [known[-1] for known in queue._history.known]) == (5, ["c", "d", "e"])
        queue.close()


def test_a_label_that_means_nothing_is_refused() -> None:
    with pytest.raises(LabelError, match="expected 'success'"):
        label("a", "maybe")
    with pytest.raises(LabelError, match="1 to 64"):
        label("")


def episode_in(folder: Path, at: float = 0.0) -> TraceStore:
    """Episode 1 of session "arm", which begins at a position [m]: eight steps, two plans."""
    traces = TraceStore(folder)
    traces.begin("arm", 1)
    key = np.float32([1, 0])
    for step in range(9):
        chunk = np.tile(np.float32([[step + 1], [step + 2], [step + 3], [step + 4]]) / 10, 7)
        if step:
            traces.record_action("arm", 1, step, np.full(7, step / 10, np.float32))
        if step in (0, 4):
            traces.record_plan(
                "arm", 1, step, "touch it", key, np.float32([at + step / 10, 0, 0, 1, 0, 0, 0, 0]), chunk
            )
    return traces


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


def test_an_episode_whose_label_is_pending_keeps_its_trace_and_is_not_judged_before(tmp_path: Path) -> None:
    traces, broken, done = episode_in(tmp_path / "episodes"), [True], []

    def process(given: Label) -> str:
        if broken[0] and given.outcome != "unlabelled":
            raise OSError("disk full")
        done.append(given.label)
        traces.mark_labelled(given.session, given.episode)
        return "done"

    queue = LabelQueue(tmp_path / "l.jsonl", process)
    for given in (label("a"), label("b", "unlabelled")):
        queue.add(given)
    assert queue.drain(LONG_S)
    assert done == []
    for episode in (2, 3, 4):
        traces.begin("arm", episode, queue.pending)
    traces.release("arm", queue.pending)
    assert traces.path("arm", 1).exists()
    queue.close()
    broken[0] = False
    queue = LabelQueue(tmp_path / "l.jsonl", process)
    assert queue.drain(LONG_S)
    assert (done, queue.pending) == (["a"], frozenset())
    traces.begin("arm", 5, queue.pending)
    assert not traces.path("arm", 1).exists()
    queue.close()


def test_an_episode_that_goes_on_after_a_restart_has_a_name_and_makes_no_room(tmp_path: Path) -> None:
    first = TraceStore(tmp_path, most=1)
    first.begin("arm", 1)
    steps(first, "arm", 1, 1)
    second = TraceStore(tmp_path, most=1)
    second.resume("arm", 1)
    for episode in (1, 2, 3):
        second.begin("leg", episode)
        steps(second, "leg", episode, 1)
    steps(second, "arm", 1, 1)
    assert [sorted(e) for e in second.read("arm", 1)] == [["identity"], ["action", "step"], ["action", "step"]]


def steps(traces: TraceStore, session: str, episode: int, count: int) -> None:
    for step in range(count):
        traces.record_action(session, episode, step, np.zeros(7, np.float32))


def test_a_session_that_begins_many_episodes_leaves_those_of_others_alone_and_keeps_its_newest(tmp_path: Path) -> None:
    traces = TraceStore(tmp_path, most=4)
    for session, episode in (("arm", 1), ("arm", 2), *(("arm-2", n) for n in range(1, 101))):
        traces.begin(session, episode)
        steps(traces, session, episode, 1)
        os.utime(traces.path(session, episode), (100 * (session != "arm") + episode,) * 2)
    kept = [("arm", 1), ("arm", 2), *(("arm-2", n) for n in range(96, 101))]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(traces.path(*each).name for each in kept)


def test_the_bytes_of_a_session_and_of_all_are_bounded_and_no_running_episode_makes_room(tmp_path: Path) -> None:
    traces = TraceStore(tmp_path, session_bytes=4 * 4096, total_bytes=3 * 4096)
    traces.begin("old", 1)
    steps(traces, "old", 1, 1)
    for episode in range(1, 6):
        traces.begin("arm", episode)
        steps(traces, "arm", episode, 1)
        os.utime(traces.path("arm", episode), (10**9 + episode,) * 2)
    assert sorted(p.name[:-6] for p in tmp_path.iterdir()) == [
        "arm-00000003", "arm-00000004", "arm-00000005", "old-00000001",
    ]  # fmt: skip
    os.utime(traces.path("old", 1), (1, 1))
    traces.release("old")
    for session, there in (("b", True), ("c", False)):
        traces.begin(session, 1)
        assert traces.path("old", 1).exists() is there
        steps(traces, session, 1, 1)
        traces.release(session)


def test_an_episode_beyond_its_bytes_is_cut_short_and_never_becomes_memory(tmp_path: Path) -> None:
    traces = TraceStore(tmp_path / "episodes", session_bytes=20_000)
    traces.begin("arm", 1)
    key, chunk = np.float32([1, 0]), np.zeros((4, 7), np.float32)
    traces.record_plan("arm", 1, 0, "touch it", key, np.float32([0, 0, 0, 1, 0, 0, 0, 0]), chunk)
    assert not traces.is_truncated("arm", 1)
    steps(traces, "arm", 1, 1000)
    assert 10_000 <= traces.path("arm", 1).stat().st_size < 10_200
    assert traces.is_truncated("arm", 1)
    with SuccessMemory(tmp_path / "s.db", Origin("p", "w", "n", "r"), success_layout(SPEC)) as memory:
        assert "longer than its share" in commit_episode(memory, traces, label("a"))
        assert len(memory) == 0
    assert not traces.path("arm", 1).exists()


def test_what_the_disk_took_in_part_of_an_episode_is_cut_off_again(tmp_path: Path) -> None:
    traces = TraceStore(tmp_path)
    traces.begin("arm", 1)
    steps(traces, "arm", 1, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (traces.path("arm", 1).stat().st_size + 9, before[1]))
    try:
        with pytest.raises(OSError, match=r"9 of .* the disk is full"):
            steps(traces, "arm", 1, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    steps(traces, "arm", 1, 1)
    assert [sorted(e) for e in traces.read("arm", 1)] == [["identity"], ["action", "step"], ["action", "step"]]


def test_an_episode_is_read_back_as_far_as_it_was_written(tmp_path: Path) -> None:
    traces = TraceStore(tmp_path)
    traces.begin("arm", 1)
    traces.record_plan(
        "arm", 1, 0, "touch it", np.ones(2, np.float32), np.zeros(8, np.float32), np.zeros((4, 7), np.float32)
    )
    traces.record_action("arm", 1, 1, np.ones(7, np.float32))
    path = traces.path("arm", 1)
    path.write_bytes(path.read_bytes() + b"\xff\x00\x00\x00cut")
    entries = list(traces.read("arm", 1))
    assert [sorted(e) for e in entries] == [
        ["identity"], ["chunk", "instruction", "key", "proprioception", "step"], ["action", "step"],
    ]  # fmt: skip
    assert list(traces.read("arm", 2)) == []
