"""Traces of every control step: what a rollout writes beside its records, over a point mass."""

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import point_mass
import pyarrow.parquet as parquet
import pytest
from memory_cases import runner, save_gate
from test_rollout_memory import HEAD, Wide

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.tick_trace import TickTrace, TraceError, image_path, read_trace, trace_path, without_times, write_trace
from vlamem.memory.designs.aura import AuraConfig
from vlamem.memory.reasons import why_abstained
from vlamem.memory.runner import MemorySpec, StatelessRunner
from vlamem.memory.step_out import StepOut
from vlamem.memory.weights import identity
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.memory_policy import MemoryPolicy
from vlamem.policies.tick_recorder import TickRecorder
from vlamem.scripts.config import preset
from vlamem.sim.results.episodes import DiskFullError, EpisodeLog, EpisodeRecord
from vlamem.sim.results.pages import load_results, without_wall_clock
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.run import rollout


class Offsetting(StatelessRunner):
    """A memory that adds one value to every command."""

    spec = MemorySpec("offsetting", chunk_shape=(8, 7), ticks=False)

    def __init__(self, value: float) -> None:
        self._value = value

    def propose(
        self, out: StepOut | None, observation: Observation, encoding: Encoding, lowest_start: float
    ) -> Proposal:
        return Proposal.of_offset(np.full((len(observation), 8, 7), self._value, np.float32))


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained gate of the wide point-mass policy."""
    path = tmp_path_factory.mktemp("gate") / "gate.safetensors"
    return save_gate(path, AuraConfig(16, HEAD), identity(Wide().spec, None), {})


def config(out: Path, **given: Any) -> RolloutConfig:
    options: dict[str, Any] = {
        "suite": "point_mass:SUITE", "policy": "test_rollout_memory:wide", "tasks": ("near",), "size": 16,
        "execute": 4, "episodes": 5, "workers": 0, "out": out,
    }  # fmt: skip
    return replace(preset(RolloutConfig, "rollout"), **options | given)


def lines(out: Path) -> list[EpisodeRecord]:
    return EpisodeLog(out / "episodes.jsonl").read()


@pytest.fixture(scope="module")
def run(gate: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a memory that ticks and proposes where it is the least sure."""
    out = tmp_path_factory.mktemp("runs") / "run"
    rollout(config(out, memory=(f"aura:{gate}?abstain_below=0.01",)))
    return out


def test_a_trace_sums_up_to_its_record(run: Path) -> None:
    for record in lines(run):
        trace = read_trace(trace_path(run, "near", record.episode))
        assert trace.column("step") == list(range(record.steps))
        assert sum(trace.column("planned")) == record.decisions
        assert sum(trace.column("aura.wrote")) == record.writes
        weights = [w for w in trace.column("weight") if w]
        assert len(weights) == record.proposals
        assert np.mean(weights or [0]) == pytest.approx(record.proposed_weight)
        assert (trace.about["outcome"], trace.about["instruction"]) == (record.outcome, "go to the mark")


def test_gate_above_one_half_is_a_write_and_a_plan_has_weights_and_a_reason(run: Path) -> None:
    trace = read_trace(trace_path(run, "near", 0))
    assert trace.memories == ["aura"]
    for row in trace.rows:
        assert (row["aura.gate"] > 0.5) == row["aura.wrote"]
        assert (row["weight"] is not None) == row["planned"] == (row["aura.abstained"] is not None)
        assert 0 <= row["aura.confidence"] <= 1
        assert len(row["command"]) == 7
        assert min(row["encode_ms"], row["memory_ms"], row["observe_ms"], row["simulate_ms"]) > 0
        assert (row["sample_ms"] is not None) == row["planned"]
        if row["planned"]:
            assert row["weight"] == max(row["aura.chunk_weight"], row["aura.context_weight"])
            assert bool(row["aura.abstained"]) == (row["weight"] == 0)


def test_records_are_the_same_without_traces(run: Path, gate: Path, tmp_path: Path) -> None:
    rollout(config(tmp_path, memory=(f"aura:{gate}?abstain_below=0.01",), trace=False))
    assert not (tmp_path / "traces").exists()
    assert [replace(r, wall_clock={}) for r in lines(tmp_path)] == [replace(r, wall_clock={}) for r in lines(run)]
    assert without_wall_clock(load_results(tmp_path)) == without_wall_clock(load_results(run))


def test_traces_do_not_depend_on_the_number_of_workers(run: Path, gate: Path, tmp_path: Path) -> None:
    end = rollout(config(tmp_path, memory=(f"aura:{gate}?abstain_below=0.01",), workers=2, watchdog_s=900.0))
    assert end.errors == 0, [record.error for record in lines(tmp_path)]
    for record in lines(run):
        mine, theirs = (read_trace(trace_path(out, "near", record.episode)) for out in (tmp_path, run))
        assert list(without_times(mine)) == list(without_times(theirs))


def test_an_episode_that_is_played_again_replaces_its_trace(run: Path, gate: Path, tmp_path: Path) -> None:
    options = {"memory": (f"aura:{gate}?abstain_below=0.01",)}
    rollout(config(tmp_path, **options))
    log = tmp_path / "episodes.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    last = trace_path(tmp_path, "near", 4)
    last.write_bytes(b"cut short")
    rollout(config(tmp_path, **options))
    assert list(without_times(read_trace(last))) == list(without_times(read_trace(trace_path(run, "near", 4))))


def test_rows_that_are_played_side_by_side_have_a_trace_each(gate: Path, tmp_path: Path) -> None:
    rollout(config(tmp_path, memory=(f"aura:{gate}",), batch=3))
    for record in lines(tmp_path):
        trace = read_trace(trace_path(tmp_path, "near", record.episode))
        assert (len(trace.rows), sum(trace.column("aura.wrote"))) == (record.steps, record.writes)


def test_a_failed_episode_leaves_the_last_camera_image(tmp_path: Path) -> None:
    rollout(config(tmp_path, tasks=("far",), episodes=12))
    failed = {r.episode for r in lines(tmp_path) if r.outcome == "failure"}
    assert failed
    assert {e for e in range(12) if image_path(tmp_path, "far", e).exists()} == failed
    assert image_path(tmp_path, "far", min(failed)).read_bytes()[:2] == b"\xff\xd8"  # of JPEG


def test_without_a_memory_commands_and_times_are_left(tmp_path: Path) -> None:
    rollout(config(tmp_path / "expert", policy="expert", episodes=1))
    trace = read_trace(trace_path(tmp_path / "expert", "near", 0))
    assert trace.memories == []
    assert trace.column("planned") == [False] * len(trace.rows)
    assert trace.column("encode_ms") == [None] * len(trace.rows)
    rollout(config(tmp_path / "alone", episodes=1))
    trace = read_trace(trace_path(tmp_path / "alone", "near", 0))
    assert {w for w in trace.column("weight") if w is not None} == {0.0}


def test_commands_that_were_clipped_say_by_how_much() -> None:
    policy = MemoryPolicy(point_mass.policy())
    chunks = ChunkRunner(policy, 1, 8)
    chunks.reset(np.ones(1, bool), [np.random.default_rng(0)])
    image = np.zeros((1, 16, 16, 3), np.uint8)
    seen = Observation({"top": image}, np.zeros((1, 4), np.float32), ("go",))
    decision = chunks.plan(np.arange(1), chunks.observe(seen))
    recorder = TickRecorder(policy, {})
    recorder.planned(decision, 0)
    for action in decision.chunks[0]:
        recorder.acted(action, {})
    drawn = np.random.default_rng(0).standard_normal((1, 8, 7), dtype=np.float32)
    bare = policy.policy.sample(policy.policy.encode(seen), drawn)[0]
    np.testing.assert_allclose(recorder.trace.column("clipped"), (np.abs(bare) - 1).clip(0).max(axis=1), rtol=1e-6)
    assert max(recorder.trace.column("clipped")) > 0


def test_a_memory_that_retrieves_says_what_and_why_not(tmp_path: Path) -> None:
    address = f"success:{tmp_path / 'memory.db'}?threshold=0.5"
    given: dict[str, Any] = {"policy": "test_rollout_learning:policy", "memory": (address,), "states": 3, "order": 1}
    rollout(config(tmp_path / "run", episodes=6, **given))
    traces = [read_trace(trace_path(tmp_path / "run", "near", r.episode)) for r in lines(tmp_path / "run")]
    first = traces[0].rows[0]
    assert (first["success.abstained"], first["success.retrieved"], first["weight"]) == ("unknown", [], 0.0)
    assert first["success.similarity"] is None
    assert "success.gate" not in traces[0].columns
    steered = [row for trace in traces for row in trace.rows if row["success.retrieved"]]
    assert steered
    for row in steered:
        assert row["success.abstained"] == ""
        assert row["success.similarity"] >= 0.5
        assert row["success.spread"] >= 0
    record = lines(tmp_path / "run")[-1]
    assert record.proposals == sum(bool(weight) for weight in traces[-1].column("weight"))


def test_an_offset_is_a_proposal_too() -> None:
    policy = MemoryPolicy(point_mass.policy(), [Offsetting(0.25), Offsetting(0.0)])
    chunks = ChunkRunner(policy, 1, 8)
    chunks.reset(np.ones(1, bool), [np.random.default_rng(0)])
    seen = Observation({"top": np.zeros((1, 16, 16, 3), np.uint8)}, np.zeros((1, 4), np.float32), ("go",))
    recorder = TickRecorder(policy, {})
    recorder.planned(chunks.plan(np.arange(1), chunks.observe(seen)), 0)
    recorder.acted(np.zeros(7, np.float32), {})
    (row,) = recorder.trace.rows
    assert (row["offsetting.offset"], row["offsetting.abstained"], row["weight"]) == (0.25, "", 1.0)
    assert (row["offsetting-2.offset"], row["offsetting-2.abstained"]) == (0.0, "nothing to propose")


def test_a_recurrent_memory_is_unsure_or_was_refused() -> None:
    memory = runner(AuraConfig(16, HEAD), rows=3, abstain_below=0.5)
    none, refused = np.zeros(3, np.float32), np.array([False, True, False])
    confidence = np.array([0.2, 0.0, 0.9], np.float32)
    out = StepOut(confidence, None, None, None, np.zeros(3, bool), none, none, refused, none)
    assert [why_abstained(memory, out, at) for at in range(3)] == ["unsure", "refused", "nothing to propose"]


def test_two_memories_of_one_kind_have_columns_of_their_own(gate: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(gate.read_bytes())
    rollout(config(tmp_path / "run", memory=(f"aura:{gate}", f"aura:{other}"), episodes=1))
    assert read_trace(trace_path(tmp_path / "run", "near", 0)).memories == ["aura", "aura-2"]


def test_a_trace_that_is_cut_changed_or_of_another_version_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "near-0000.parquet"
    write_trace(path, TickTrace({"step": "int32"}, [{"step": 0}, {"step": 1}], {"task": "near"}))
    assert read_trace(path) == TickTrace({"step": "int32"}, [{"step": 0}, {"step": 1}], {"task": "near"})
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(TraceError, match=r"near-0000\.parquet is no trace"):
        read_trace(path)
    path.write_bytes(raw.replace(b'"version": 1', b'"version": 7'))
    with pytest.raises(TraceError, match="the medium has changed it"):
        read_trace(path)
    with monkeypatch.context() as later:
        later.setattr("vlamem.core.tick_trace.VERSION", 7)
        write_trace(path, TickTrace({"step": "int32"}, [{"step": 0}], {"task": "near"}))
    with pytest.raises(TraceError, match="version 7, expected 1"):
        read_trace(path)


def test_a_full_disk_ends_the_run_with_its_records_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parquet.ParquetWriter, "write_table", full)
    with pytest.raises(DiskFullError, match=r"near-0000\.parquet"):
        rollout(config(tmp_path))
    assert lines(tmp_path) == []
    assert json.loads((tmp_path / "run.json").read_text())["configuration"]["episodes"] == 5
