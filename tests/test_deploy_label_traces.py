"""deploy/server/traces.py: what is kept of episodes for a label that comes later."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
from deploy_cases import LONG_S, SPEC, episode_in, label, steps

from vlamem.deploy.server.commit import commit_episode
from vlamem.deploy.server.labels import Label, LabelQueue
from vlamem.deploy.server.traces import TraceStore
from vlamem.memory.success import Origin, SuccessMemory
from vlamem.memory.success.runner import layout_of as success_layout


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


def test_episodes_whose_labels_wait_count_and_the_disk_stays_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Labels that a full disk or a busy database leaves undone keep their traces for as long as that takes."""
    traces, keep = TraceStore(tmp_path, session_bytes=6 * 4096, total_bytes=100 * 4096), set[tuple[str, int]]()
    for episode in range(1, 9):
        traces.begin("arm", episode, frozenset(keep))
        steps(traces, "arm", episode, 1)
        keep.add(("arm", episode))
    assert [p.name[:-6] for p in sorted(tmp_path.iterdir())] == ["arm-00000001", "arm-00000002", "arm-00000003"]
    assert traces.pinned_bytes == 3 * 4096
    assert "episode 8 of session arm is not recorded" in caplog.text
    steps(traces, "leg", 1, 1)  # another session is none of this one's business
    assert traces.path("leg", 1).exists()
    traces.begin("arm", 9)  # they were processed
    steps(traces, "arm", 9, 1)
    assert traces.path("arm", 9).exists()
    assert traces.pinned_bytes == 0


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
