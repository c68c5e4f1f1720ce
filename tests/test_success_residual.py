"""Residual priors: one correction of every command, learned from which trials were verified, for states never seen."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from success_cases import LAYOUT, ORIGIN, job, state

from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.memory.success import (
    BackgroundWriter,
    EntryError,
    EpisodeRecorder,
    MemoryOptions,
    SuccessMemory,
    Trace,
    Verdict,
)
from vlamem.memory.success.experience import EncodedObservation, StoredTrial
from vlamem.memory.success.retrieve import ResidualOptions, RetrieveOptions, residual_prior
from vlamem.memory.success.retrieve.abstention import PATIENCE
from vlamem.memory.success.store import export, import_snapshot, open_store
from vlamem.memory.success.store.salvage import salvage
from vlamem.policies.fuse import fuse

BEST = np.array([0.2, -0.15, 0.1])
OPTIONS = ResidualOptions(explore=60)


def played(trials: int, best: np.ndarray, height: float = 0.95, seed: int = 0) -> list[StoredTrial]:
    """Trials in which success depends on how far the offset that the memory chose is from the best one."""
    made: list[StoredTrial] = []
    for t in range(trials):
        offset = residual_prior(made, LAYOUT, OPTIONS, explore=True).offset
        chance = height * np.exp(-0.5 * (((offset[:3] - best) / 0.15) ** 2).sum())
        success = stream(seed, "outcome", t).random() < chance
        made.append(StoredTrial(f"t{t}", "success" if success else "unknown", offset, float(t)))
    return made


def test_the_offset_that_verified_trials_point_to_is_found():
    made = played(70, BEST)
    found = residual_prior(made, LAYOUT, OPTIONS, explore=True)
    assert found.why == "best"
    assert np.linalg.norm(found.offset[:3] - BEST) < 0.12
    assert found.expected > found.alone + 0.3
    assert not found.offset[3:].any()
    late = [t.outcome == "success" for t in made[-10:]]
    assert sum(late) >= 7


def test_without_anything_to_correct_no_offset_is_played_after_exploring():
    found = residual_prior(played(70, np.zeros(3), 0.6, seed=1), LAYOUT, OPTIONS, explore=True)
    assert np.linalg.norm(found.offset) < 0.1


def test_outcomes_that_have_nothing_to_do_with_the_offset_move_it_little():
    made = played(70, BEST)
    order = stream(3, "shuffled").permutation(len(made))
    shuffled = [replace(t, outcome=made[i].outcome) for t, i in zip(made, order, strict=True)]
    true = residual_prior(made, LAYOUT, OPTIONS, explore=False)
    found = residual_prior(shuffled, LAYOUT, OPTIONS, explore=False)
    assert found.expected - found.alone < 0.5 * (true.expected - true.alone)


def test_the_offset_is_a_function_of_the_trials_before_it():
    made = played(20, BEST)
    first, again = (residual_prior(made, LAYOUT, OPTIONS, explore=True) for _ in range(2))
    np.testing.assert_array_equal(first.offset, again.offset)
    assert (residual_prior(made[:-1], LAYOUT, OPTIONS, explore=True).offset != first.offset).any()


def test_where_nothing_is_verified_the_search_is_given_up_and_without_trials_nothing_is_added():
    unknown = [StoredTrial(f"t{i}", "unknown", np.full(7, 0.1), float(i)) for i in range(OPTIONS.patience)]
    assert residual_prior(unknown[:-1], LAYOUT, OPTIONS, explore=True).offset.any()
    given_up = residual_prior(unknown, LAYOUT, OPTIONS, explore=True)
    assert (given_up.why, given_up.offset.any()) == ("nothing verified", False)
    nothing = residual_prior([], LAYOUT, OPTIONS, explore=False)
    assert (nothing.why, nothing.offset.any()) == ("no gain", False)


def test_a_bad_option_is_named():
    with pytest.raises(ValueError, match="explore -1"):
        ResidualOptions(explore=-1)
    with pytest.raises(ValueError, match="reach 0"):
        ResidualOptions(reach=0)


def trace(identity: str, offset: np.ndarray) -> Trace:
    """An episode of one plan, played with an offset."""
    key, proprioception = state(0)
    seen = EncodedObservation(0, key, proprioception, np.zeros((4, 7), np.float32))
    return Trace(identity, "touch", None, (seen,), np.zeros((4, 7), np.float32), np.zeros(0, np.int64), offset)


def verdict(outcome: str) -> Verdict:
    """Of an episode of 4 actions."""
    return Verdict(outcome, "test", 1.0, 4, np.linspace(0, 1, 5))  # type: ignore[arg-type]


def test_trials_are_stored_whatever_their_outcome_and_are_there_after_opening_again(tmp_path):
    options = MemoryOptions(prior="residual")
    offset = np.array([0.1, 0.2, 0.3, 0, 0, 0, 0])
    with SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT, options) as memory:
        for i, outcome in enumerate(("success", "unknown", "failure")):
            memory.observe_episode(trace(f"t{i}", offset), verdict(outcome), float(i))
        memory.observe_episode(trace("t1", 2 * offset), verdict("success"), 4.0)
    with SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT, options) as memory:
        found = {t.identity: t for t in memory.store.trials(memory.origin)}
        assert {k: t.outcome for k, t in found.items()} == {"t0": "success", "t1": "success", "t2": "failure"}
        np.testing.assert_allclose(found["t1"].offset, 2 * offset, rtol=1e-6)
        assert memory.residual().trials == 3
        memory.trials.delete(["t0"])
        assert memory.residual().trials == len(memory.store.trials(memory.origin)) == 2
        memory.add_trial(StoredTrial("t5", "success", offset, 5.0))
        assert memory.residual() is memory.residual()  # made when the trial was stored
        assert memory.residual().trials == 3


def test_a_background_writer_stores_trials_too(tmp_path):
    reported: list[str] = []
    with SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT, MemoryOptions(prior="residual")) as memory:
        writer = BackgroundWriter(memory, reported.append)
        writer.observe_episode(trace("a", np.full(7, 0.1)), verdict("unknown"), 1.0)
        writer.observe_episode(trace("b", np.full(7, np.nan)), verdict("unknown"), 1.0)
        assert writer.flush(60)
        writer.close()
        assert [t.identity for t in memory.store.trials(memory.origin)] == ["a"]
    assert "expected 7 finite numbers" in reported[0]


def test_an_offset_that_changed_within_an_episode_is_no_trial():
    key, proprioception = state(0)
    recorder = EpisodeRecorder(LAYOUT)
    for offsets, known in (((0.1, 0.1), True), ((0.1, 0.2), False)):
        recorder.begin("touch", "t")
        for offset in offsets:
            recorder.observe(key, proprioception, np.zeros((4, 7)), None, np.full(7, offset))
        assert (recorder.trace().offset is not None) == known


def test_trials_are_exported_imported_and_salvaged(tmp_path):
    options, file = MemoryOptions(prior="residual"), tmp_path / "memory.safetensors"
    with SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT, options) as memory:
        for i, outcome in enumerate(("unknown", "failure", "unknown")):
            memory.add_trial(StoredTrial(f"t{i}", outcome, np.full(7, i / 10), float(i)))
        before = memory.store.trials(memory.origin)
        assert export(memory.store, memory.origin, file) == 0
    assert salvage(tmp_path / "memory.db", tmp_path / "saved.db").trials == 3
    store = open_store(tmp_path / "imported.db")
    for _ in range(2):
        assert import_snapshot(store, file).segments == 0
    store.close()
    for name in ("saved.db", "imported.db"):
        with SuccessMemory(tmp_path / name, ORIGIN, LAYOUT, options) as memory:
            found = memory.store.trials(memory.origin)
            assert memory.store.counts(memory.origin)["trials"] == 3
        assert [(t.identity, t.outcome, t.made) for t in found] == [(t.identity, t.outcome, t.made) for t in before]
        np.testing.assert_array_equal([t.offset for t in found], [t.offset for t in before])


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"outcome": "won"}, "'won'"), ({"offset": np.zeros(3)}, r"\[3\], expected 7"), ({"made": np.nan}, "made at nan")],
)
def test_a_trial_that_means_nothing_is_refused(tmp_path, changed, said):
    with SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT, MemoryOptions(prior="residual")) as memory:
        with pytest.raises(EntryError, match=said):
            memory.add_trial(replace(StoredTrial("t", "success", np.zeros(7), 0.0), **changed))
        assert memory.store.trials(memory.origin) == []


def test_an_elite_memory_stores_no_trials(tmp_path):
    with SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT) as memory:
        memory.observe_episode(trace("t", np.zeros(7)), verdict("success"), 0.0)
        assert memory.store.trials(memory.origin) == []


def test_offsets_are_checked_cut_to_rows_and_added_to_one_another():
    offset = np.zeros((2, 4, 7), np.float32)
    offset[1] = 0.25
    proposal = Proposal.of_offset(offset)
    assert proposal.weight.tolist() == [0, 1]
    assert proposal.rows([1]).offset.tolist() == offset[1:].tolist()
    both = fuse([proposal, proposal])
    assert both is not None
    np.testing.assert_array_equal(both.offset, 2 * offset)
    with pytest.raises(ValueError, match="not finite"):
        Proposal.of_offset(np.full((1, 4, 7), np.nan))
    with pytest.raises(ValueError, match="proposed offset"):
        proposal.check(2, (5, 7), 3)


def test_a_memory_that_is_hardly_ready_says_so_at_opening(tmp_path, caplog):
    with SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT) as memory:
        for episode in job(0, 3):
            memory.commit(episode)
    assert "holds 0 segments" in caplog.text
    assert "no calibration: it speaks from the default similarity of 0.9" in caplog.text
    caplog.clear()
    SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT).close()
    assert "segments of successes" not in caplog.text  # twelve are enough
    assert "no calibration" in caplog.text
    caplog.clear()
    SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT, MemoryOptions(prior="residual")).close()
    assert caplog.text == ""


def test_a_memory_of_another_key_or_frame_is_refused_at_opening(tmp_path):
    SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT).close()
    with pytest.raises(EntryError, match="open it with the layout that it was made with"):
        SuccessMemory(tmp_path / "memory.db", ORIGIN, replace(LAYOUT, key_size=5))
    with pytest.raises(EntryError, match="open it with the layout that it was made with"):
        SuccessMemory(tmp_path / "memory.db", ORIGIN, replace(LAYOUT, quaternion=None))


def test_fifty_abstentions_in_a_row_are_explained_once_with_the_nearest_similarity(tmp_path, caplog):
    options = MemoryOptions(RetrieveOptions(threshold=0.999999))
    with SuccessMemory(tmp_path / "memory.db", ORIGIN, LAYOUT, options) as memory:
        for episode in job(0, 3):
            memory.commit(episode)
        caplog.clear()
        known = job(0, 1)[0].segments[0]
        key, proprioception = state(5)
        far = (key[None], proprioception[None], ["go home"])
        with caplog.at_level(logging.WARNING):
            for _ in range(PATIENCE - 1):
                memory.query(*far)
            assert memory.query(known.key[None], known.proprioception[None], ["go home"]).weight[0] > 0
            for _ in range(PATIENCE - 1):
                memory.query(*far)
            assert caplog.text == ""  # it spoke in between
            for _ in range(PATIENCE):
                memory.query(*far)
        (record,) = caplog.records
        assert f"{PATIENCE} times in a row" in record.getMessage()
        assert f"similarity {memory.last[0].similarity:.4f}" in record.getMessage()
        assert "speaks from 1.0000 on" in record.getMessage()
