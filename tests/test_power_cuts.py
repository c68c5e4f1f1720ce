"""What was acknowledged is there after a loss of power at any moment, and what is left can be read and gone on with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded_features as rec
from deploy_cases import FULL, store_in
from deploy_cases import label as label_of
from power_cut_cases import Medium, cuts
from test_tiny_frames import META
from test_tiny_frames import episode as frames_of

from vlamem.core.arrays import load_array, save_array
from vlamem.core.tensors import read_tensors, write_tensors
from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.outbox import Outbox
from vlamem.deploy.server.label_file import Label
from vlamem.deploy.server.labels import LabelQueue
from vlamem.deploy.server.session_record import hash_token
from vlamem.memory.train.features import Features, FeatureWriter
from vlamem.policies.tiny.frames import Frames, FramesWriter
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord


def nothing(folder: Path) -> None:
    """The work begins in an empty folder."""


def label(number: int) -> Label:
    return replace(label_of(f"l{number}"), episode=number + 1)


def kept(path: Path, most: int = 4) -> set[str]:
    """Ids of the labels that a queue knows."""
    queue = LabelQueue(path, lambda given: "done", most=most, runs=lambda given: True)
    queue.close()
    return {identity[-1] for identity in queue._history.known}


def test_labels_are_there_that_were_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(folder: Path, done: list[Any], medium: Medium) -> None:
        queue = LabelQueue(folder / "labels.jsonl", lambda given: "done")
        try:
            for number in range(3):
                queue.add(label(number), hold=True)
                done.append(f"l{number}")
        finally:
            medium.on = False
            queue.close()

    for folder, done in cuts(tmp_path, monkeypatch, nothing, work):
        assert kept(folder / "labels.jsonl", 10) >= set(done)


def test_a_file_of_labels_that_begins_anew_loses_none_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(folder: Path) -> None:
        queue = LabelQueue(folder / "labels.jsonl", lambda given: "done")
        for number in range(20):
            queue.add(label(number), hold=number == 17)
        queue.drain(60)
        queue.close()

    def work(folder: Path, done: list[Any], medium: Medium) -> None:
        done += ["l16", "l17", "l18", "l19"]
        queue = LabelQueue(folder / "labels.jsonl", lambda given: "done", most=4, runs=lambda given: True)
        try:
            assert len(queue._held) == 1
            queue.add(label(20), hold=True)
            done.append("l20")
        finally:
            medium.on = False
            queue.close()

    shortened = 0
    for folder, done in cuts(tmp_path, monkeypatch, prepare, work):
        lines = (folder / "labels.jsonl").read_bytes().count(b"\n")
        shortened += lines < 30
        assert kept(folder / "labels.jsonl") >= set(done[-3:])  # four are remembered, of which one may be newer
        queue = LabelQueue(folder / "labels.jsonl", lambda given: "done", most=4, runs=lambda given: True)
        queue.close()
        assert [held.label for held in queue._held][:1] == ["l17"]  # what was not processed is not taken for processed
    assert shortened > 3


def test_what_a_robot_knows_is_there_after_a_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def box(folder: Path) -> Outbox:
        return Outbox("arm", folder, 9, 3, EventLog(), lambda: 0.0)

    def work(folder: Path, done: list[Any], medium: Medium) -> None:
        mine = box(folder / "new")
        mine.joined({"session": "arm", "token": "secret", "episode": 1}, first=True)
        for episode in (1, 2):
            done.append(mine.label(episode, "success", "operator"))

    for folder, done in cuts(tmp_path, monkeypatch, nothing, work):
        again = box(folder / "new")
        assert again._labels.keys() >= set(done)
        assert again.token == "secret" if done else again.token in (None, "secret")


def test_a_session_goes_on_with_the_memory_that_was_written_or_with_that_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(step: int) -> dict[str, np.ndarray]:
        return {"sum": FULL["sum"] + step}

    def work(folder: Path, done: list[Any], medium: Medium) -> None:
        store = store_in(folder / "state" / "sessions")
        try:
            for episode in (1, 2):
                session = store.begin("arm", hash_token("t"), episode)
                done.append((episode, -1))
                for step in (3, 4, 9):
                    store.persist(session, step, state(step))
                    done.append((episode, step))
        finally:
            medium.on = False
            store.close()

    order = [(episode, step) for episode in (1, 2) for step in (-1, 3, 4, 9)]
    for folder, done in cuts(tmp_path, monkeypatch, nothing, work):
        store = store_in(folder / "state" / "sessions")
        if done or store.has("arm"):
            session, found, step = store.recover("arm")
            here = order.index((session.episode, step))
            assert here in (len(done) - 1, len(done))
            np.testing.assert_array_equal(found["sum"], state(step)["sum"] if step >= 0 else 0 * FULL["sum"])
            store.persist(session, 20, state(20))  # it can be gone on with
        store.close()


def test_a_run_has_every_episode_that_was_said_to_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(folder: Path, done: list[Any], medium: Medium) -> None:
        log = EpisodeLog(folder / "episodes.jsonl")
        for number in range(3):
            log.append(EpisodeRecord("none", "touch", "test", number, 0, "success", f"state-{number}"))
            done.append(number)

    for folder, done in cuts(tmp_path, monkeypatch, nothing, work):
        found = [record.episode for record in EpisodeLog(folder / "episodes.jsonl").read()]
        assert found[: len(done)] == done
        assert len(found) <= len(done) + 1


def test_a_recording_is_whole_up_to_an_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def recording(folder: Path) -> FeatureWriter:
        return FeatureWriter(folder, rec.meta(), rec.contexts())

    def work(folder: Path, done: list[Any], medium: Medium) -> None:
        writer = recording(folder)
        try:
            for number in range(2):
                writer.add("remember", number, "expert", rec.episode(number, "remember"), True)
                done.append(number)
        finally:
            medium.on = False
            writer.close()

    for folder, done in cuts(tmp_path, monkeypatch, nothing, work):
        again = recording(folder)
        again.add("remember", 9, "expert", rec.episode(9, "remember"), True)
        again.close()
        found = Features(folder)
        assert [e.episode for e in found.episodes] in ([*done, 9], [*done, len(done), 9])
        for episode in found.episodes:
            np.testing.assert_allclose(
                found.ticks(episode).z, rec.episode(episode.episode, "remember").z, atol=2e-2, rtol=2e-3
            )


def test_frames_are_whole_up_to_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shard(folder: Path, number: int) -> None:
        with FramesWriter(folder / "frames", META, shard_size=5) as writer:
            writer.add_episode(frames_of(META, 0, number))

    def work(folder: Path, done: list[Any], medium: Medium) -> None:
        shard(folder, 1)
        done.append((0, 1))

    for folder, done in cuts(tmp_path, monkeypatch, lambda folder: shard(folder, 0), work, every=4):
        shard(folder, 9)
        assert FramesWriter(folder / "frames", META).episodes_done() >= {(0, 0), *done, (0, 9)}
        Frames(folder / "frames").images("wrist", np.arange(5))


@pytest.mark.parametrize("kind", ["tensors", "array"])
def test_a_file_that_is_replaced_is_the_old_one_or_the_new_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(folder: Path, value: float) -> None:
        if kind == "array":
            save_array(folder / "x", np.full(3, value))
        else:
            write_tensors(folder / "x", {"x": np.full(3, value)}, {"is": str(value)})

    def read(folder: Path) -> float:
        array = load_array(folder / "x") if kind == "array" else read_tensors(folder / "x")[0]["x"]
        return float(array[0])

    def work(folder: Path, done: list[Any], medium: Medium) -> None:
        for value in (2.0, 3.0):
            save(folder, value)
            done.append(value)

    for folder, done in cuts(tmp_path, monkeypatch, lambda folder: save(folder, 1.0), work):
        before = [1.0, *done]
        assert read(folder) in (before[-1], before[-1] + 1)
        save(folder, 9.0)
        assert read(folder) == 9


def test_a_writer_that_does_not_sync_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(folder: Path, done: list[Any], medium: Medium) -> None:
        for number in range(3):
            draft = folder / "draft"
            draft.write_text(f"{number}")
            draft.replace(folder / "kept")
            done.append(f"{number}")

    lost = sum(
        bool(done) and (not (folder / "kept").exists() or (folder / "kept").read_text() < done[-1])
        for folder, done in cuts(tmp_path, monkeypatch, nothing, work)
    )
    assert lost > 0
