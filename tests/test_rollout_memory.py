"""Rollouts with a memory: sim/memories.py, the memory's part of sim/plan.py and sim/episode.py."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import point_mass
import pytest

from vlamem.core.observation import Encoding, Observation
from vlamem.memory.baseline_files import baseline, load_baseline, save_baseline
from vlamem.memory.designs.aura import AuraConfig, HeadConfig, save_weights
from vlamem.memory.designs.aura.step import AuraMemory
from vlamem.memory.protocol import flatten
from vlamem.memory.runner import AuraVoice, identity
from vlamem.memory.weights import Header, WeightsError
from vlamem.policies.fuse import SpeakOptions
from vlamem.policies.memory_policy import MemoryPolicy
from vlamem.scripts.config import preset
from vlamem.sim.results.episodes import with_gate
from vlamem.sim.rollout.config import PlanError, RolloutConfig
from vlamem.sim.rollout.episode import Player
from vlamem.sim.rollout.memories import MemoryControl, MemoryName, MemoryNameError, voice_of
from vlamem.sim.rollout.run import rollout


class Wide(point_mass.PointPolicy):
    """The point-mass policy with a feature wide enough for a memory."""

    def __init__(self) -> None:
        super().__init__(replace(point_mass.SPEC, feature_size=16))

    def encode(self, obs: Observation) -> Encoding:
        narrow = super().encode(obs)
        return replace(narrow, z=np.tile(narrow.z, (1, 8)))

    def sample(self, encoding: Encoding, noise: Any, proposal: Any = None) -> Any:
        return super().sample(replace(encoding, z=encoding.z[:, :2]), noise)


def wide() -> Wide:
    """Factory for `--policy`."""
    return Wide()


HEAD = HeadConfig(chunk=(8, 7), context=2)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained gate of the wide point-mass policy."""
    path = tmp_path_factory.mktemp("gate") / "gate.safetensors"
    config = AuraConfig(16, HEAD)
    arrays = {k: np.asarray(v) for k, v in flatten(AuraMemory(config).init_params(jax.random.key(0))).items()}
    metrics = {"threshold_shift@0.01": 4.0, "threshold_shift@0.1": 1.0}
    save_weights(path, Header(config, identity(Wide().spec, None), "test", metrics), arrays)
    return path


def config(gate: Path, out: Path, **given: Any) -> RolloutConfig:
    base = replace(
        preset(RolloutConfig, "rollout"),
        suite="point_mass:SUITE",
        policy="test_rollout_memory:wide",
        memory=f"aura:{gate}",
        tasks=("near",),
        size=16,
        execute=4,
        out=out,
    )
    return replace(base, **given)


def play(config: RolloutConfig, episode: int = 2) -> Any:
    player = Player(config, lambda: None)
    record = player.play("near", episode)
    player.close()
    assert record.error is None
    return record


def test_a_memory_ticks_at_every_control_step_and_its_writes_and_bytes_are_recorded(gate: Path, tmp_path: Path) -> None:
    record = play(config(gate, tmp_path))
    assert record.ticks == record.steps
    assert record.decisions < record.steps
    assert record.state_bytes == 4224
    always = play(config(gate, tmp_path, memory=f"always:{gate}"))
    assert always.writes == always.ticks == always.steps


def test_a_memory_that_is_never_sure_leaves_the_episode_as_it_is_without_one(gate: Path, tmp_path: Path) -> None:
    bare = play(config(gate, tmp_path, memory="none"))
    silent = play(config(gate, tmp_path, abstain_below=1.0))
    assert (bare.steps, bare.outcome, bare.decisions) == (silent.steps, silent.outcome, silent.decisions)
    assert bare.ticks == bare.state_bytes == 0


def test_every_way_of_speaking_plays_and_re_planning_on_writes_decides_more_often(gate: Path, tmp_path: Path) -> None:
    for speak in ("context", "chunk", "both", "blend", "alone"):
        play(config(gate, tmp_path, speak=speak, abstain_below=0.0))
    often = play(config(gate, tmp_path, memory=f"always:{gate}", replan_on_write=True))
    assert often.decisions == often.steps


def test_camera_noise_reaches_the_policy_and_is_repeatable(gate: Path, tmp_path: Path) -> None:
    noisy = config(gate, tmp_path, memory="none", camera_noise=200.0)
    first, again = play(noisy), play(noisy)
    assert first.steps == again.steps
    assert (first.steps, first.outcome) != ((bare := play(config(gate, tmp_path, memory="none"))).steps, bare.outcome)


def test_options_at_their_defaults_leave_the_record_of_a_run_as_it_was(tmp_path: Path, gate: Path) -> None:
    bare = config(gate, tmp_path, memory="none")
    assert "speak" not in bare.results_depend_on()
    told = config(gate, tmp_path, speak="chunk", budget=0.02, replan_on_write=True)
    assert told.results_depend_on()["speak"] == "chunk"
    assert "--speak chunk" in told.command()
    assert "--budget 0.02" in told.command()
    assert "--replan-on-write" in told.command()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memory": "aurora"}, "unknown memory 'aurora'"),
        ({"memory": "aura:nowhere.safetensors"}, "no weights at nowhere"),
        ({"memory": "oracle:file"}, "takes no file"),
        ({"memory": "baseline"}, "needs its weights"),
        ({"policy": "expert"}, "is scripted and takes no memory"),
        ({"budget": 0.0}, "budget is 0.0"),
        ({"camera_noise": -1.0}, "camera_noise is -1.0"),
        ({"abstain_below": 1.5}, "0 to 1"),
        ({"memory": "none", "memory_control": "freeze"}, "needs a memory with a state"),
    ],
)
def test_what_a_rollout_cannot_do_with_a_memory_is_named(gate: Path, tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        config(gate, tmp_path, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memory": "oracle"}, "told what a memory task hides, and suite 'points' has no such task"),
        ({"memory_control": "freeze"}, "begins when a memory task's cue ends, and suite 'points' has no such task"),
    ],
)
def test_a_suite_that_hides_nothing_is_refused_at_once(gate: Path, tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        rollout(config(gate, tmp_path / "run", suite="point_mass:BREAKING", **given))
    assert not (tmp_path / "run").exists()


def test_a_budget_moves_the_threshold_between_what_was_measured(gate: Path) -> None:
    policy = Wide()
    name, mine = MemoryName.parse(f"aura:{gate}"), identity(policy.spec, None)
    plain = voice_of(name, policy, mine, None)
    held = voice_of(name, policy, mine, 0.1)
    assert isinstance(plain, AuraVoice)
    assert isinstance(held, AuraVoice)
    draw = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
    open_, less = ([row.tick(z).gate for z in draw] for row in (plain.row(), held.row()))
    assert np.mean(less) < np.mean(open_)
    with pytest.raises(ValueError, match=r"outside 0.01 to 0.1"):
        voice_of(name, policy, mine, 0.5)


class Clock:
    """An environment of which a control needs nothing but the time."""

    def __init__(self) -> None:
        self.now, self.task = 0, self

    @property
    def cue_over(self) -> bool:
        return self.now >= 3


@pytest.mark.parametrize("kind", ["freeze", "noise", "other"])
def test_controls_take_the_memory_apart_from_the_end_of_the_cue_on(gate: Path, kind: Any) -> None:
    policy = MemoryPolicy(Wide(), AuraVoice.load(gate).with_gate("always"), options=SpeakOptions())
    control, clock, states = MemoryControl(kind, policy, "near", 0, 0), Clock(), []
    control.other = {"W": np.full((32, 32), 7.0, np.float32), "b": np.zeros(32, np.float32)}
    draw = np.random.default_rng(0)
    for now in range(6):
        clock.now = now
        control.before(clock)
        states.append(policy.state(0)["W"])
        place = draw.uniform(-1, 1, (1, 4)).astype(np.float32)
        images = {"top": np.zeros((1, 16, 16, 3), np.uint8)}
        policy.observe(Observation(images, place, ("go",)))
    assert not np.array_equal(states[1], states[2])
    if kind == "freeze":
        np.testing.assert_array_equal(states[3], states[5])
    elif kind == "noise":
        assert abs(np.corrcoef(states[4].ravel(), states[5].ravel())[0, 1]) < 0.2
    else:
        np.testing.assert_array_equal(states[3], control.other["W"])
        assert not np.array_equal(states[4], control.other["W"])


@pytest.mark.parametrize("kind", ["gru", "kv_window", "kv_growing"])
def test_a_baseline_is_read_back_and_refused_for_another_policy(tmp_path: Path, kind: str) -> None:
    memory, mine = baseline(kind, 16, HEAD, 12), identity(Wide().spec, "a" * 64)
    path = tmp_path / "baseline.safetensors"
    save_baseline(path, kind, 12, memory, memory.init_params(jax.random.key(0)), mine, "test")
    row = load_baseline(path, mine).row()
    said = [row.tick(z) for z in np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)]
    assert all(s.wrote for s in said)
    kept = row.state()
    after = row.tick(np.ones(16, np.float32))
    row.restore(kept)
    np.testing.assert_array_equal(row.tick(np.ones(16, np.float32)).context, after.context)
    with pytest.raises(WeightsError, match="train it again"):
        load_baseline(path, identity(Wide().spec, "b" * 64))


def test_an_unknown_memory_or_baseline_is_named() -> None:
    with pytest.raises(MemoryNameError, match="choose one of"):
        MemoryName.parse("lstm")
    with pytest.raises(ValueError, match="gru, kv_window, kv_growing"):
        baseline("lstm", 16, HEAD, 8)


def test_a_frame_shows_the_gate_and_marks_a_write() -> None:
    image = np.zeros((84, 168, 3), np.uint8)
    quiet, loud = with_gate(image, 0.25, False, 0.5), with_gate(image, 0.75, True, 0.5)
    assert quiet.shape == image.shape
    assert not quiet[:10].any()
    assert (loud[0] == [230, 40, 30]).all()
    assert (quiet[-3] > 0).any(axis=1).sum() == 42
    assert (loud[-1] > 0).any(axis=1).sum() == 84
