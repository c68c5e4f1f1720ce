"""The success memory as a policy asks it: origins, bad input, capacity, merging, credit, calibration, snapshots."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from success_cases import LAYOUT, ORIGIN, episode, job, segment

from vlamem.memory.success import (
    EntryError,
    MemoryOptions,
    OriginError,
    RetrieveOptions,
    Segment,
    StoreDamagedError,
    StoreError,
    SuccessMemory,
    calibrate,
    open_store,
)
from vlamem.memory.success.lifecycle import EVICTIONS, victims
from vlamem.memory.success.store import export, import_snapshot
from vlamem.memory.success.store.salvage import salvage

OPTIONS = MemoryOptions(retrieve=RetrieveOptions(threshold=0.5), merge_similarity=0.9999)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.db"


def opened(path, **options: object) -> SuccessMemory:
    return SuccessMemory(path, ORIGIN, LAYOUT, replace(OPTIONS, **options))


def asked(memory: SuccessMemory, s: Segment, instruction: str = "touch the mark"):
    return memory.query(s.key[None], s.proprioception[None], [instruction])


def test_what_was_done_in_this_very_state_is_proposed(path):
    with opened(path) as memory:
        memory.commit(episode(1))
        proposal = asked(memory, segment(1, 4))
        assert proposal.chunk_weight[0] > 0.9
        np.testing.assert_array_equal(proposal.chunk[0], segment(1, 4).chunk)
        np.testing.assert_array_equal(memory.last[0].used, [2])


def test_a_memory_that_is_opened_again_proposes_the_same(path):
    with opened(path) as memory:
        memory.commit(episode(1))
        before = asked(memory, segment(1, 4))
    with opened(path) as memory:
        np.testing.assert_array_equal(asked(memory, segment(1, 4)).chunk, before.chunk)
        assert memory.verify() == 3


def test_an_empty_memory_and_an_unknown_state_abstain(path):
    with opened(path) as memory:
        assert asked(memory, segment(5)).chunk_weight[0] == 0
        memory.commit(episode(1))
        assert asked(memory, segment(5)).chunk_weight[0] == 0
        assert memory.last[0].why == "unknown"


def test_states_that_look_alike_are_told_apart_by_where_the_robot_is(path):
    with opened(path) as memory:
        memory.commit(episode(1))
        seen = segment(1, 4)
        elsewhere = seen.proprioception + np.array([0.3, 0, 0, 0, 0, 0, 0, 0], np.float32)
        assert memory.query(seen.key[None], elsewhere[None], ["touch the mark"]).chunk_weight[0] == 0


def test_a_batch_of_rows_equals_single_rows(path):
    with opened(path) as memory:
        for i in range(4):
            memory.commit(episode(i))
        rows = [segment(i, 4) for i in range(6)]
        together = memory.query(
            np.stack([r.key for r in rows]), np.stack([r.proprioception for r in rows]), ["touch the mark"] * 6
        )
        for i, row in enumerate(rows):
            alone = asked(memory, row)
            assert alone.chunk_weight[0] == together.chunk_weight[i]
            np.testing.assert_array_equal(alone.chunk[0], together.chunk[i])


def test_another_instruction_finds_nothing_and_a_paraphrase_by_its_vector_does(path):
    meaning, other = np.array([1.0, 0.1], np.float32), np.array([0.0, 1.0], np.float32)
    with opened(path) as memory:
        memory.commit(replace(episode(1), meaning=meaning))
        s = segment(1, 4)
        assert asked(memory, s, "push the mark").chunk_weight[0] == 0
        for vector, known in ((1.01 * meaning, True), (other, False)):
            proposal = memory.query(s.key[None], s.proprioception[None], ["press on the mark"], vector[None])
            assert bool(proposal.chunk_weight[0] > 0) is known


# Bad input ------------------------------------------------------------------------------------------------------------


def test_a_sentence_that_was_asked_in_vain_is_found_once_it_is_stored(path):
    with opened(path) as memory:
        memory.commit(episode(1))
        s = episode(2).segments[0]
        assert asked(memory, s, "wipe the mark").chunk_weight[0] == 0
        memory.commit(episode(2, instruction="wipe the mark"))
        assert asked(memory, s, "wipe the mark").chunk_weight[0] > 0


def test_a_key_of_another_size_is_named_with_both_sizes(path):
    with opened(path) as memory, pytest.raises(EntryError, match=r"key size 5 does not match this memory \(6\)"):
        memory.query(np.ones((1, 5), np.float32), np.zeros((1, 8), np.float32), ["x"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk": np.full((4, 7), np.nan, np.float32)}, "chunk has entries that are not finite"),
        ({"chunk": np.zeros((5, 7), np.float32)}, r"chunk is \[5, 7\], expected \[4, 7\]"),
        ({"chunk": np.full((4, 7), 3.0, np.float32)}, "translation has the entry 3 outside"),
        ({"key": np.zeros(6, np.float32)}, "key of length 0"),
        ({"key": np.full(6, np.nan, np.float32)}, "key of length nan"),
        ({"proprioception": np.zeros(8, np.float32)}, "no rotation"),
        ({"proprioception": np.zeros(3, np.float32)}, "expected 8 entries"),
        ({"progress": 1.5}, "progress 1.5"),
    ],
)
def test_a_segment_that_may_not_be_stored_is_named_and_nothing_is_stored(path, change, message):
    bad = replace(episode(1), segments=(segment(1), replace(segment(1, 4), **change)))
    with opened(path) as memory:
        with pytest.raises(EntryError, match=f"segment 1: .*{message}"):
            memory.commit(bad)
        assert len(memory) == 0


def test_rotations_beyond_half_a_turn_are_refused(path):
    wide = replace(LAYOUT, parts=(*LAYOUT.parts[:1], replace(LAYOUT.parts[1], scale=4.0), *LAYOUT.parts[2:]))
    bad = np.zeros((4, 7), np.float32)
    bad[:, 3:6] = 1.0
    with pytest.raises(EntryError, match=r"turns by 6\.93 rad"):
        wide.check_chunk(bad)


@pytest.mark.parametrize("field", ["policy", "weights", "normaliser", "robot"])
def test_another_origin_is_refused_by_name_and_kept_apart_when_asked_for(path, field):
    other = replace(ORIGIN, **{field: "another"})
    with opened(path) as memory:
        memory.commit(episode(1))
    with pytest.raises(OriginError, match=f"{field} is .* but 'another'"):
        SuccessMemory(path, other, LAYOUT, OPTIONS)
    with SuccessMemory(path, other, LAYOUT, OPTIONS, admit=True) as apart:
        assert asked(apart, segment(1, 4)).chunk_weight[0] == 0
        apart.commit(episode(2))
    with opened(path) as memory:
        assert len(memory) == 3
        assert asked(memory, segment(2, 4)).chunk_weight[0] == 0


def test_another_layout_for_the_same_origin_is_refused(path):
    opened(path).close()
    with pytest.raises(EntryError, match="open it with the layout that it was made with"):
        SuccessMemory(path, ORIGIN, replace(LAYOUT, horizon=5), OPTIONS)


# Capacity, merging, credit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eviction", list(EVICTIONS))
def test_the_bound_holds_on_disk_and_in_memory(path, eviction):
    with opened(path, most_segments=7, eviction=eviction) as memory:
        for i in range(6):
            memory.commit(episode(i))
            assert len(memory) <= 7
        assert memory.verify() == len(memory) == 7


def test_a_bound_in_bytes_is_a_bound_on_stored_arrays(path):
    with opened(path, most_bytes=5 * LAYOUT.segment_bytes + 3) as memory:
        for i in range(4):
            memory.commit(episode(i))
        assert len(memory) == 5


def test_a_memory_of_no_capacity_stores_nothing(path):
    with opened(path, most_segments=0) as memory:
        memory.commit(episode(1))
        assert memory.verify() == 0


def test_first_in_first_out_forgets_the_oldest(path):
    with opened(path) as memory:
        for i in range(3):
            memory.commit(episode(i))
        np.testing.assert_array_equal(victims(memory.successes, 4, "fifo", 0.5), [1, 2, 3, 4])


def test_utility_keeps_what_helped_and_forgets_what_misled(path):
    with opened(path) as memory:
        for i in range(3):
            memory.commit(episode(i))
        for _ in range(5):
            memory.credit(np.array([1, 2]), success=True)
            memory.credit(np.array([8]), success=False)
        gone = victims(memory.successes, 7, "utility", 0.5)
        assert gone[0] == 8
        assert not {1, 2} & set(gone.tolist())


def test_near_duplicates_are_merged_and_other_actions_from_the_same_state_are_not(path):
    with opened(path) as memory:
        memory.commit(episode(1))
        again = replace(episode(1), identity="again")
        assert memory.commit(again).merged == 3
        turned = tuple(replace(s, chunk=-s.chunk) for s in episode(1).segments)
        assert len(memory.commit(replace(again, identity="other way", segments=turned)).ids) == 3
        assert memory.successes.column("merged").tolist() == [1, 1, 1, 0, 0, 0]
    with opened(path) as memory:
        assert memory.successes.column("merged").tolist() == [1, 1, 1, 0, 0, 0]


def test_credit_survives_reopening_and_lowers_confidence_in_what_misled(path):
    with opened(path) as memory:
        memory.commit(episode(1))
        memory.commit(episode(2))
        before = asked(memory, segment(1, 4)).chunk_weight[0]
        for _ in range(4):
            memory.credit(np.array([2]), success=False)
            memory.credit(np.array([5]), success=True)
    with opened(path) as memory:
        assert asked(memory, segment(1, 4)).chunk_weight[0] < before
        assert memory.successes.column("uses").tolist() == [0, 4, 0, 0, 4, 0]


def test_failures_are_kept_apart_from_successes(path):
    with opened(path) as memory:
        memory.commit(episode(1, outcome="failure"))
        assert len(memory) == 0
        assert len(memory.failures) == 3
        assert asked(memory, segment(1, 4)).chunk_weight[0] == 0


def test_what_another_process_stored_is_taken_over_on_refresh(path):
    with opened(path) as first, opened(path) as second:
        second.commit(episode(1))
        assert first.refresh()
        assert asked(first, segment(1, 4)).chunk_weight[0] > 0
        assert not first.refresh()
        second.prune(np.array([1, 2, 3]))
        first.refresh()
        assert len(first) == 0


# Calibration, snapshots, damage ---------------------------------------------------------------------------------------


def test_calibration_finds_a_threshold_of_the_wanted_precision_that_holds_on_new_states(path):
    def data(seed: int):
        cut = [(i, s) for i, e in enumerate(job(seed, 60)) for s in e.segments]
        return (
            np.stack([s.key for _, s in cut]),
            np.stack([s.proprioception for _, s in cut]),
            np.stack([s.chunk for _, s in cut]),
            [i for i, _ in cut],
            [0] * len(cut),
        )

    found = calibrate(LAYOUT, *data(0), reach=0.4, precision=0.9)
    assert found.precision >= 0.9
    assert found.coverage > 0.1
    with opened(path) as memory:
        for e in job(0, 60):
            memory.commit(e)
        memory.recalibrate(found)
        assert memory.retrieve.threshold == found.threshold
        errors = []
        for e in job(1, 30):
            for s in e.segments:
                proposal = memory.query(s.key[None], s.proprioception[None], ["go home"])
                if proposal.chunk_weight[0] > 0:
                    errors.append(np.abs(proposal.chunk[0] - s.chunk).max())
        assert len(errors) > 10
        assert np.mean(np.array(errors) < 0.4) > 0.85
    with opened(path) as memory:
        assert memory.calibration == found


def test_calibration_of_too_little_says_so():
    with pytest.raises(EntryError, match="expected 50 of each; store more episodes"):
        calibrate(LAYOUT, *(np.zeros((2, n)) for n in (6, 8)), np.zeros((2, 4, 7)), [0, 1], [0, 0], reach=0.5)


def test_an_exported_memory_is_the_same_where_it_is_imported(path, tmp_path):
    with opened(path) as memory:
        memory.commit(replace(episode(1), meaning=np.array([1.0, 2.0], np.float32)))
        memory.commit(episode(2, outcome="failure"))
        assert export(memory.store, memory.origin, tmp_path / "memory.safetensors") == 6
        before = asked(memory, segment(1, 4))
    other = tmp_path / "other.db"
    store = open_store(other)
    assert import_snapshot(store, tmp_path / "memory.safetensors").segments == 6
    assert import_snapshot(store, tmp_path / "memory.safetensors").segments == 0
    store.close()
    with opened(other) as memory:
        np.testing.assert_array_equal(asked(memory, segment(1, 4)).chunk, before.chunk)
        assert len(memory.failures) == 3


def test_an_export_of_another_robot_is_refused_on_import(path, tmp_path):
    with opened(path) as memory:
        memory.commit(episode(1))
        export(memory.store, memory.origin, tmp_path / "memory.safetensors")
    store = open_store(tmp_path / "other.db")
    store.add_origin(replace(ORIGIN, robot="ur5"), LAYOUT)
    with pytest.raises(OriginError, match="robot is 'ur5'"):
        import_snapshot(store, tmp_path / "memory.safetensors")
    assert import_snapshot(store, tmp_path / "memory.safetensors", admit=True).segments == 3
    store.close()


def test_a_truncated_export_is_named(path, tmp_path):
    file = tmp_path / "memory.safetensors"
    with opened(path) as memory:
        memory.commit(episode(1))
        export(memory.store, memory.origin, file)
    file.write_bytes(file.read_bytes()[:-40])
    store = open_store(tmp_path / "other.db")
    with pytest.raises(StoreError, match="is damaged"):
        import_snapshot(store, file)
    store.close()


def test_a_damaged_page_is_detected_named_and_the_rest_is_salvaged(path, tmp_path):
    with opened(path) as memory:
        for i in range(60):
            memory.commit(episode(i))
        memory.store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = tmp_path / "whole.db"
    shutil.copy(path, whole)
    page = path.read_bytes().index(segment(30, 4).chunk.tobytes()) // 4096
    with path.open("r+b") as file:
        file.seek(4096 * page)
        file.write(os.urandom(4096))
    with pytest.raises(StoreDamagedError, match=r"memory\.db.*--salvage"):
        opened(path)
    found = salvage(path, tmp_path / "saved.db")
    assert 100 <= found.segments < 180
    assert found.lost
    with opened(tmp_path / "saved.db") as saved, opened(whole) as before:
        assert saved.verify() == found.segments
        for s in saved.store.segments(saved.origin):
            assert asked(before, s.segment).chunk_weight[0] > 0.9
