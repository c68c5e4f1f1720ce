"""From an episode to what is stored: recorder, verifiers, critic, and the thread that writes."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from success_cases import LAYOUT, ORIGIN, episode, state

from vlamem.core.seeding import stream
from vlamem.memory.success import (
    BackgroundWriter,
    CriticOptions,
    CriticVerifier,
    EntryError,
    EpisodeRecorder,
    LabelledEpisode,
    MemoryOptions,
    OperatorVerifier,
    PredicateVerifier,
    ProgressCritic,
    SuccessMemory,
    open_store,
    train_critic,
)
from vlamem.memory.success.experience.trace import Verdict
from vlamem.memory.success.lifecycle import VERIFIERS
from vlamem.memory.success.lifecycle.critic import _folds, calibrate_threshold
from vlamem.memory.success.lifecycle.verify import TrustAll, time_to_success


def recorded(steps: int = 10, every: int = 2, plans: bool = True) -> EpisodeRecorder:
    """An episode of `steps` actions (all entries t / 100), asked at every second tick, plans of tenths."""
    recorder = EpisodeRecorder(LAYOUT)
    recorder.begin("touch the mark", "one")
    for t in range(steps):
        if t % every == 0:
            planned = np.full((4, 7), 0.5, np.float32) if plans else None
            recorder.observe(*state(0, t), planned, np.array([t]))
        recorder.act(np.full(7, t / 100))
    return recorder


def test_segments_hold_what_was_executed_and_go_on_as_planned_at_the_end():
    recorder = recorded()
    made = recorder.finish(PredicateVerifier().verify(recorder.trace(), True), 5.0)
    assert made is not None
    assert [s.tick for s in made.segments] == [0, 2, 4, 6, 8]
    np.testing.assert_allclose(made.segments[1].chunk[:, 0], [0.02, 0.03, 0.04, 0.05])
    np.testing.assert_allclose(made.segments[4].chunk[:, 0], [0.08, 0.09, 0.5, 0.5])
    made.check(LAYOUT)


def test_only_the_prefix_up_to_the_progress_peak_is_kept():
    recorder = recorded()
    progress = np.array([0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.7, 0.4, 0.2, 0.1, 0.0])
    made = recorder.finish(Verdict("success", "critic", 0.97, 5, progress), 5.0)
    assert made is not None
    assert [s.tick for s in made.segments] == [0, 2, 4]
    np.testing.assert_allclose(made.segments[2].chunk[:, 0], [0.04, 0.5, 0.5, 0.5])
    assert [s.progress for s in made.segments] == [0, 0.4, 0.8]


def test_a_segment_cut_short_without_a_plan_is_left_out():
    recorder = recorded(plans=False)
    made = recorder.finish(PredicateVerifier().verify(recorder.trace(), True), 5.0)
    assert made is not None
    assert [s.tick for s in made.segments] == [0, 2, 4, 6]


def test_of_a_failure_the_last_segments_are_kept():
    recorder = recorded(20)
    made = recorder.finish(PredicateVerifier().verify(recorder.trace(), False), 5.0)
    assert made is not None
    assert made.outcome == "failure"
    assert [s.tick for s in made.segments] == [12, 14, 16, 18]


def test_nothing_is_stored_without_a_verdict():
    recorder = recorded()
    for verifier in (PredicateVerifier(), OperatorVerifier()):
        assert recorder.finish(verifier.verify(recorder.trace(), None), 5.0) is None
    assert TrustAll().verify(recorder.trace(), False).outcome == "success"


def test_the_trace_names_what_was_used_and_a_new_episode_forgets_it():
    recorder = recorded()
    np.testing.assert_array_equal(recorder.trace().used, [0, 2, 4, 6, 8])
    recorder.begin("touch the mark")
    assert recorder.trace().used.size == 0
    assert recorder.trace().identity != "one"


def test_time_to_success_is_progress_where_nothing_else_is_known():
    np.testing.assert_allclose(time_to_success(4, 4), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(time_to_success(4, 2), [0, 0.5, 1, 1, 1])


# The critic -----------------------------------------------------------------------------------------------------------


def labelled(i: int, success: bool) -> LabelledEpisode:
    """A hand that comes down to the mark, or stops half-way."""
    draw = stream(0, "labelled", i)
    end = 1.0 if success else draw.uniform(0.2, 0.6)
    done = np.linspace(0, end, 12)
    keys = np.stack([np.cos(done), np.sin(done), *(0.05 * draw.standard_normal((4, 12)))], axis=1)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    proprioception = np.zeros((12, 8), np.float32)
    proprioception[:, 2], proprioception[:, 3] = 0.2 * (1 - done), 1.0
    return LabelledEpisode(keys.astype(np.float32), proprioception, np.arange(12.0), success)


@pytest.fixture(scope="module")
def critic() -> ProgressCritic:
    return train_critic([labelled(i, i % 3 != 0) for i in range(60)], CriticOptions(steps=250))


def test_the_critic_is_precise_on_episodes_that_it_has_not_seen(critic):
    assert critic.precision >= 0.97
    assert critic.recall > 0.6
    accepted = []
    for i in range(100, 160):
        t = labelled(i, i % 2 == 0)
        if critic.progress(t.keys, t.proprioception).max() >= critic.threshold:
            accepted.append(t.success)
    assert len(accepted) > 15
    assert np.mean(accepted) >= 0.95


def test_episodes_of_one_state_are_judged_by_a_member_that_has_not_seen_it():
    episodes = [replace(labelled(i, i % 3 != 0), state=i // 4) for i in range(60)]
    folds = _folds([*episodes, labelled(60, True)], 0)
    for one in range(15):
        assert len({folds[i] for i in range(60) if i // 4 == one}) == 1
    assert len(set(folds)) == 5


@pytest.mark.parametrize("successes", [0, 4])
def test_too_few_states_for_a_critic_are_an_error_that_says_so(successes):
    """All successes, or all episodes, of one initial state: some member would see none."""
    episodes = [replace(labelled(i, i % 2 == 0), state=7 if i % 2 == 0 or successes == 0 else i) for i in range(20)]
    with pytest.raises(EntryError, match="too few states"):
        train_critic(episodes, CriticOptions(steps=1))


def test_progress_rises_along_a_success(critic):
    progress = critic.progress(labelled(200, True).keys, labelled(200, True).proprioception)
    assert progress[-1] > 0.8 > progress[6] > progress[0]


def test_a_saved_critic_estimates_the_same(critic, tmp_path):
    critic.save(tmp_path / "critic.safetensors")
    loaded = ProgressCritic.load(tmp_path / "critic.safetensors")
    t = labelled(3, False)
    np.testing.assert_allclose(loaded.progress(t.keys, t.proprioception), critic.progress(t.keys, t.proprioception))
    assert loaded.threshold == critic.threshold


def test_the_critic_verifies_from_the_trace_alone(critic):
    verifier = CriticVerifier(critic)
    for i, success in ((300, True), (303, False)):
        t = labelled(i, success)
        recorder = EpisodeRecorder(LAYOUT)
        recorder.begin("touch the mark")
        for key, proprioception in zip(t.keys, t.proprioception, strict=True):
            recorder.observe(key, proprioception)
            recorder.act(np.zeros(7))
        verdict = verifier.verify(recorder.trace(), not success)  # what the environment reports is ignored
        assert (verdict.outcome == "success") is success
        assert verdict.progress.shape == (13,)


def test_features_of_another_size_are_refused_by_the_critic(critic):
    with pytest.raises(EntryError, match="features of size 9 do not match this critic"):
        critic.progress(np.zeros((1, 1), np.float32), np.zeros((1, 8), np.float32))


def test_too_few_failures_to_learn_from_are_named():
    with pytest.raises(EntryError, match="20 successes and 0 failures are too few"):
        train_critic([labelled(i, True) for i in range(20)])


def test_the_threshold_is_the_lowest_of_the_wanted_precision():
    peaks = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    threshold, precision, recall = calibrate_threshold(peaks, np.array([True, True, False, True, False]), 0.75)
    assert (threshold, precision, recall) == (pytest.approx(0.55), 0.75, 1.0)
    assert calibrate_threshold(peaks, np.array([True, True, False, True, False]), 1.0)[0] == pytest.approx(0.75)


# The writer -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def memory(tmp_path):
    made = SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT, MemoryOptions(wait_s=0.05))
    yield made
    made.close()


def test_the_writer_stores_and_credits_in_order(memory):
    writer = BackgroundWriter(memory)
    writer.submit(episode(1))
    writer.submit(episode(2), np.array([1, 2]), True)
    assert writer.flush(20)
    assert len(memory) == 6
    assert memory.successes.column("uses").tolist() == [1, 1, 0, 0, 0, 0]
    assert writer.close() == ()


@pytest.mark.parametrize("later", [False, True])
def test_an_observed_success_is_stored_and_credited_to_what_was_used(memory, later):
    memory.commit(episode(1))
    recorder = recorded()
    trace = replace(recorder.trace(), used=np.array([1, 3]))
    verdict = PredicateVerifier().verify(trace, True)
    if later:
        writer = BackgroundWriter(memory)
        writer.observe_episode(trace, verdict, 5.0)
        assert writer.close() == ()
    else:
        done = memory.observe_episode(trace, verdict, 5.0)
        assert done is not None
        assert done.ids == (4, 5, 6, 7, 8)
    assert memory.store.episode_heads(memory.origin)[1].made == 5.0
    assert memory.successes.column("uses").tolist() == [1, 0, 1, 0, 0, 0, 0, 0]
    assert memory.successes.column("successes").tolist() == [1, 0, 1, 0, 0, 0, 0, 0]


def test_an_observed_failure_is_stored_apart_and_an_unknown_outcome_neither_stored_nor_credited(memory):
    memory.commit(episode(1))
    trace = replace(recorded(20).trace(), used=np.array([1]))
    assert memory.observe_episode(trace, OperatorVerifier().verify(trace, None)) is None
    assert (len(memory), len(memory.failures)) == (3, 0)
    assert memory.successes.column("uses").tolist() == [0, 0, 0]
    assert memory.observe_episode(trace, OperatorVerifier().verify(trace, False)) is not None
    assert (len(memory), len(memory.failures)) == (3, 4)
    assert memory.successes.column("uses").tolist() == [1, 0, 0]
    assert memory.successes.column("successes").tolist() == [0, 0, 0]


def test_stages_are_found_by_name_and_a_wrong_name_is_answered_with_the_nearest(tmp_path):
    for verifier in VERIFIERS:
        assert callable(VERIFIERS.get(verifier).verify)
    with pytest.raises(ValueError, match="unknown verifier 'critik': did you mean 'critic'"):
        VERIFIERS.get("critik")
    with pytest.raises(ValueError, match="unknown eviction policy 'newest': choose one of utility, fifo, random"):
        MemoryOptions(eviction="newest")


def test_a_query_does_not_wait_for_the_disk(tmp_path):
    reports: list[str] = []
    options = MemoryOptions(wait_s=20)
    with SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT, options) as waiting:
        waiting.commit(episode(1))
        other = open_store(tmp_path / "memory.db")
        other._db.execute("BEGIN IMMEDIATE")  # another process writes, and does not end
        writer = BackgroundWriter(waiting, reports.append)
        writer.submit(episode(2))
        s = episode(1).segments[1]
        while waiting._writing.acquire(blocking=False):  # until the writer has it
            waiting._writing.release()
        assert waiting.query(s.key[None], s.proprioception[None], ["touch the mark"]).chunk_weight[0] > 0
        assert writer.pending == 1
        assert reports == []
        other._db.execute("ROLLBACK")
        assert writer.flush(20)
        assert len(waiting) == 6
        writer.close()
        other.close()


def test_with_a_full_disk_episodes_are_kept_and_stored_when_there_is_room(memory):
    reports: list[str] = []
    reported = threading.Event()

    def report(line: str) -> None:
        reports.append(line)
        reported.set()

    memory.store.limit_bytes(memory.store.bytes())
    writer = BackgroundWriter(memory, report, retry_s=0.02)
    for i in range(60):
        writer.submit(episode(i))
    assert reported.wait(20)
    assert "disk is full" in reports[0]
    assert writer.pending > 0
    memory.store.limit_bytes(1 << 30)
    assert writer.flush(20)
    assert memory.verify() == 180
    writer.close()


def test_what_could_not_be_stored_is_given_back_on_closing(memory):
    memory.store.limit_bytes(memory.store.bytes())
    writer = BackgroundWriter(memory, retry_s=0.02)
    for i in range(60):
        writer.submit(episode(i))
    left = writer.close()
    assert left
    stored = {h.identity for h in memory.store.episode_heads(memory.origin)}
    assert stored | {e.identity for e in left} == {f"success-{i}" for i in range(60)}


def test_an_episode_that_may_not_be_stored_is_reported_and_does_not_stop_the_rest(memory):
    reports: list[str] = []
    writer = BackgroundWriter(memory, reports.append)
    writer.submit(episode(1, instruction=" "))
    writer.submit(episode(2))
    assert writer.flush(20)
    assert len(memory) == 3
    assert "not stored: an episode needs an identity and an instruction" in reports[0]
    writer.close()
