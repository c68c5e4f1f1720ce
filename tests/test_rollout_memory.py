"""Rollouts with a memory: the memory's part of a run's configuration, of an episode, of ablations and of oracles."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import point_mass
import pytest
from memory_cases import Recalling, runner, save_gate

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.memory.designs import design
from vlamem.memory.designs.aura import AuraConfig, HeadConfig
from vlamem.memory.protocol import named_arrays
from vlamem.memory.registry import MemoryName, MemoryNameError, load_memory
from vlamem.memory.weights import Header, WeightsError, identity, save_weights
from vlamem.policies.memory_policy import MemoryPolicy
from vlamem.scripts.config import preset
from vlamem.sim.results.episodes import with_gate
from vlamem.sim.rollout.ablations import ABLATIONS, DONOR_OFFSET, OutputAblation, StateAblation
from vlamem.sim.rollout.config import PlanError, RolloutConfig
from vlamem.sim.rollout.episode import Player
from vlamem.sim.rollout.hooks import HookContext
from vlamem.sim.rollout.oracles import OracleRunner, Privileged
from vlamem.sim.rollout.run import rollout
from vlamem.sim.suites.protocol import Cue


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
    metrics = {"threshold_shift@0.01": 4.0, "threshold_shift@0.1": 1.0}
    return save_gate(path, AuraConfig(16, HEAD), identity(Wide().spec, None), metrics)


def config(gate: Path, out: Path, **given: Any) -> RolloutConfig:
    base = replace(
        preset(RolloutConfig, "rollout"),
        suite="point_mass:SUITE",
        policy="test_rollout_memory:wide",
        memory=(f"aura:{gate}",),
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
    always = play(config(gate, tmp_path, memory=(f"aura:{gate}?gate=always",)))
    assert always.writes == always.ticks == always.steps


def test_a_memory_that_is_never_sure_leaves_the_episode_as_it_is_without_one(gate: Path, tmp_path: Path) -> None:
    bare = play(config(gate, tmp_path, memory=("none",)))
    silent = play(config(gate, tmp_path, memory=(f"aura:{gate}?abstain_below=1",)))
    assert (bare.steps, bare.outcome, bare.decisions) == (silent.steps, silent.outcome, silent.decisions)
    assert bare.ticks == bare.state_bytes == 0


def test_every_injection_plays_and_re_planning_on_writes_decides_more_often(gate: Path, tmp_path: Path) -> None:
    for inject in ("context", "chunk", "both"):
        play(config(gate, tmp_path, memory=(f"aura:{gate}?inject={inject}&abstain_below=0",)))
    often = play(config(gate, tmp_path, memory=(f"aura:{gate}?gate=always&replan_on_write=true",)))
    assert often.decisions == often.steps


def test_camera_noise_reaches_the_policy_and_is_repeatable(gate: Path, tmp_path: Path) -> None:
    noisy = config(gate, tmp_path, memory=("none",), camera_noise=200.0)
    first, again = play(noisy), play(noisy)
    assert first.steps == again.steps
    assert (first.steps, first.outcome) != (
        (bare := play(config(gate, tmp_path, memory=("none",)))).steps,
        bare.outcome,
    )


@pytest.mark.parametrize("ablation", ["blend", "proposal_only"])
def test_ablations_of_the_output_play_the_proposed_chunk(gate: Path, tmp_path: Path, ablation: Any) -> None:
    memory = (f"aura:{gate}?inject=chunk&abstain_below=0",)
    played = [play(config(gate, tmp_path, memory=memory, ablation=name)) for name in ("none", ablation)]
    assert (played[0].steps, played[0].outcome) != (played[1].steps, played[1].outcome)


@pytest.mark.parametrize("ablation", ["freeze", "noise", "swap"])
def test_ablations_of_the_state_play_and_are_repeatable(gate: Path, tmp_path: Path, ablation: Any) -> None:
    asked = config(gate, tmp_path, memory=(f"aura:{gate}?abstain_below=0",), ablation=ablation)
    first, again = play(asked), play(asked)
    assert replace(first, wall_clock={}) == replace(again, wall_clock={})


def test_several_memories_are_played_and_named_together(gate: Path, tmp_path: Path) -> None:
    both = config(gate, tmp_path, memory=(f"aura:{gate}?gate=always", f"aura:{gate}?gate=never"))
    assert both.arm == "aura?gate=always+aura?gate=never"
    record = play(both)
    assert record.state_bytes == 2 * 4224
    assert record.writes == record.ticks
    assert record.arm == both.arm


def test_options_at_their_defaults_leave_the_record_of_a_run_as_it_was(tmp_path: Path, gate: Path) -> None:
    bare = config(gate, tmp_path, memory=("none",))
    assert "ablation" not in bare.results_depend_on()
    assert "--memory none" in bare.command()
    assert bare.arm == "none"
    asked = config(gate, tmp_path, memory=(f"aura:{gate}?inject=chunk&budget=0.02",), ablation="freeze")
    assert asked.results_depend_on()["memory"] == [f"aura:{gate}?inject=chunk&budget=0.02"]
    assert asked.arm == "aura?inject=chunk&budget=0.02"
    assert "--ablation freeze" in asked.command()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memory": ("aurora",)}, "unknown memory 'aurora': did you mean 'aura'"),
        ({"memory": ("aura:nowhere.safetensors",)}, "no weights at nowhere"),
        ({"memory": ("oracle:file",)}, "takes no file"),
        ({"memory": ("gru",)}, "memory 'gru' needs weights, gru:FILE"),
        ({"memory": ("success",)}, "memory 'success' needs its file, success:FILE"),
        ({"memory": ("oracle", "oracle")}, "memory 'oracle' is given twice"),
        ({"memory": ("none", "oracle")}, "unknown memory 'none'"),
        ({"policy": "expert"}, "is scripted and takes no memory"),
        ({"memory": ("aura?budget=0",)}, "budget is 0.0"),
        ({"camera_noise": -1.0}, "camera_noise is -1.0"),
        ({"memory": ("aura?abstain_below=1.5",)}, "0 to 1"),
        ({"memory": ("none",), "ablation": "freeze"}, "ablation 'freeze' needs a memory with a state"),
        ({"memory": ("oracle",), "ablation": "blend"}, "ablation 'blend' needs a memory with a state"),
    ],
)
def test_what_a_rollout_cannot_do_with_a_memory_is_named(gate: Path, tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        config(gate, tmp_path, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"memory": ("oracle",)},
            "'oracle' is given what a memory task hides, and suite 'points' has no such task",
        ),
        (
            {"ablation": "freeze"},
            "'freeze' begins when a memory task's cue ends, and suite 'points' has no such task",
        ),
    ],
)
def test_a_suite_that_hides_nothing_is_refused_at_once(gate: Path, tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        rollout(config(gate, tmp_path / "run", suite="point_mass:BREAKING", **given))
    assert not (tmp_path / "run").exists()


def test_a_budget_moves_the_threshold_between_what_was_measured(gate: Path) -> None:
    policy = Wide()

    def gates(options: str) -> float:
        """The mean gate over random features."""
        memory = load_memory(MemoryName.parse(f"aura:{gate}{options}"), policy, None, 1)
        draw = np.random.default_rng(0).standard_normal((40, 1, 16)).astype(np.float32)
        return float(np.mean([memory.step(z, np.array([0])).gate for z in draw]))

    assert gates("?budget=0.01") < gates("?budget=0.1") < gates("")
    with pytest.raises(ValueError, match=r"outside 0.01 to 0.1"):
        gates("?budget=0.5")


class Clock:
    """An environment of which an ablation or an oracle needs no more than its cue."""

    instruction = "go"

    def __init__(self, cue_ends: int = 3) -> None:
        self.now, self.cue_ends, self.answer = 0, cue_ends, "go left"

    def cue(self) -> Cue:
        return Cue(self.now >= self.cue_ends, self.now >= self.cue_ends, self.answer)


def tick(policy: MemoryPolicy, draw: np.random.Generator) -> None:
    images = {"top": np.zeros((1, 16, 16, 3), np.uint8)}
    policy.observe(Observation(images, draw.uniform(-1, 1, (1, 4)).astype(np.float32), ("go",)))


@pytest.mark.parametrize("kind", ["freeze", "noise", "swap"])
def test_ablations_act_on_the_state_from_the_end_of_the_cue_on(gate: Path, tmp_path: Path, kind: Any) -> None:
    policy = MemoryPolicy(Wide(), [runner(AuraConfig(16, HEAD), gate="always")])
    donor = {"W": np.full((32, 32), 7.0, np.float32), "b": np.zeros(32, np.float32)}
    rehearsed: list[int] = []

    def rehearse(row: Any, episode: int, until: Any) -> None:
        rehearsed.append(episode)
        row.steps, row.env.now = 0, 0
        while not until(row):
            row.steps, row.env.now = row.steps + 1, row.env.now + 1
        assert row.env.now == 4  # one step after the first that saw the cue over
        policy.restore(0, donor)

    ablation = StateAblation(HookContext(config(gate, tmp_path, ablation=kind), policy, rehearse))
    clock, states = Clock(), []
    row: Any = SimpleNamespace(index=0, task="near", episode=0, env=clock, steps=0)
    ablation.before_reset(row)
    policy.reset()
    draw = np.random.default_rng(0)
    for now in range(6):
        clock.now = now
        ablation.before_tick(row)
        states.append(policy.state(0)["W"])
        tick(policy, draw)
    assert not np.array_equal(states[1], states[2])
    assert rehearsed == ([DONOR_OFFSET] if kind == "swap" else [])
    if kind == "freeze":
        np.testing.assert_array_equal(states[3], states[5])
    elif kind == "noise":
        assert abs(np.corrcoef(states[4].ravel(), states[5].ravel())[0, 1]) < 0.2
        assert states[5].std() == pytest.approx(states[4].std(), rel=0.5)
    else:
        np.testing.assert_array_equal(states[3], donor["W"])
        assert not np.array_equal(states[4], donor["W"])


class Contexts(Wide):
    """Adds a proposed context to the first two entries of an action, and knows no chunks."""

    def sample(self, encoding: Encoding, noise: Any, proposal: Any = None) -> Any:
        chunk = super().sample(encoding, noise)
        if proposal is not None:
            assert proposal.chunk is None
            chunk[..., :2] += (proposal.context_weight[:, None] * proposal.context)[:, None]
        return chunk


@pytest.mark.parametrize("kind", ["blend", "proposal_only"])
def test_ablations_of_the_output_leave_the_sampler_alone_and_mix_into_its_chunk(kind: Any) -> None:
    policy = Contexts()
    ablated = OutputAblation(policy, kind)
    images = {"top": np.zeros((3, 16, 16, 3), np.uint8)}
    encoding = ablated.encode(Observation(images, np.zeros((3, 4), np.float32), ("go",) * 3))
    noise = np.random.default_rng(0).standard_normal((3, 8, 7)).astype(np.float32)
    bare = policy.sample(encoding, noise)
    chunk = np.full((3, 8, 7), 0.25, np.float32)
    np.testing.assert_array_equal(ablated.sample(encoding, noise), bare)
    weight, residual = np.array([0.0, 0.5, 1.0], np.float32), np.full((3, 2), 0.125, np.float32)
    mixed = ablated.sample(encoding, noise, Proposal.of_chunk(chunk, weight))
    share = weight if kind == "blend" else np.array([0.0, 1.0, 1.0], np.float32)
    np.testing.assert_array_equal(mixed[0], bare[0])
    np.testing.assert_allclose(mixed, bare + share[:, None, None] * (chunk - bare), atol=1e-6)
    conditioned = ablated.sample(encoding, noise, Proposal(chunk, weight, residual, np.ones(3, np.float32)))
    np.testing.assert_allclose(conditioned[0, :, :2], bare[0, :, :2] + 0.125, atol=1e-6)
    alone = ablated.sample(encoding, noise, Proposal.of_context(residual, np.ones(3)))
    np.testing.assert_array_equal(alone, policy.sample(encoding, noise, Proposal.of_context(residual, np.ones(3))))
    assert (ablated.spec, ablated.history, ablated.lowest_start) == (policy.spec, policy.history, 0.0)


def test_an_ablation_of_the_output_takes_a_proposals_weight_as_it_is() -> None:
    policy = OutputAblation(Wide(), "blend")
    sure = Recalling(policy.spec, 0.25, 1.0)
    wrapped = MemoryPolicy(policy, [sure])
    seen = Observation({"top": np.zeros((1, 16, 16, 3), np.uint8)}, np.zeros((1, 4), np.float32), ("go",))
    np.testing.assert_array_equal(wrapped.plan(wrapped.observe(seen), np.zeros((1, 8, 7))), np.full((1, 8, 7), 0.25))


class Sentences(Wide):
    def context_of(self, instruction: list[str]) -> Any:
        return np.array([[len(sentence), 1.0] for sentence in instruction], np.float32)


def test_an_oracle_follows_the_answer_and_a_first_observation_keeps_what_was_so_when_the_cue_ended() -> None:
    policy, clocks = Sentences(), [Clock(2), Clock(9)]
    proposed: dict[str, list[list[float]]] = {}
    for name in ("oracle", "first-observation"):
        memory = load_memory(MemoryName.parse(name), policy, None, 2)
        assert isinstance(memory, OracleRunner)
        assert isinstance(memory, Privileged)
        memory.reset(np.ones(2, bool))
        for now, answer in enumerate(["go left", "go left", "go left", "go right now", "go right now"]):
            for row, clock in enumerate(clocks):
                clock.now, clock.answer = now, answer
                memory.look(clock, row)  # type: ignore[arg-type]
            out = memory.step(np.zeros((2, 16), np.float32), np.array([0, 1]))
            proposal = memory.propose(out, None, None, 0.2)  # type: ignore[arg-type]
            proposed.setdefault(name, []).append((proposal.context[:, 0] * proposal.context_weight).tolist())
            assert not out.wrote.any()
        assert memory.state(0) == {}
        memory.reset(np.array([True, False]))
        assert not memory.step(np.zeros((1, 16), np.float32), np.array([0])).confidence.any()
    left, right = len("go left") - len("go"), len("go right now") - len("go")
    assert [row[0] for row in proposed["first-observation"]] == [0, 0, left, left, left]
    assert [row[0] for row in proposed["oracle"]] == [left, left, left, right, right]
    assert [row[1] for row in proposed["first-observation"]] == [0] * 5


@pytest.mark.parametrize("kind", ["gru", "kv_window", "kv_growing"])
def test_a_baseline_is_read_back_and_refused_for_another_policy(tmp_path: Path, kind: str) -> None:
    policy = Wide()
    memory, mine = design(kind).make(16, HEAD), identity(policy.spec, "a" * 64)
    path = tmp_path / "baseline.safetensors"
    save_weights(path, Header.of(memory, mine, "test", {}), named_arrays(memory.init_params(jax.random.key(0))))
    name = MemoryName.parse(f"{kind}:{path}")
    loaded, row = load_memory(name, policy, "a" * 64, 2), np.array([1])
    outs = [loaded.step(z, row) for z in np.random.default_rng(0).standard_normal((3, 1, 16)).astype(np.float32)]
    assert all(out.wrote.all() for out in outs)
    kept = loaded.state(1)
    after = loaded.step(np.ones((1, 16), np.float32), row)
    loaded.restore(1, kept)
    np.testing.assert_array_equal(loaded.step(np.ones((1, 16), np.float32), row).context, after.context)
    with pytest.raises(WeightsError, match=r"was trained for (policy )?'points'"):
        load_memory(name, policy, "b" * 64, 1)
    other = "kv_window" if kind == "gru" else "gru"
    with pytest.raises(WeightsError, match=f"a memory of design '{kind}': write {kind}:"):
        load_memory(MemoryName.parse(f"{other}:{path}"), policy, "a" * 64, 1)


def test_an_unknown_memory_is_named() -> None:
    with pytest.raises(MemoryNameError, match="choose one of"):
        MemoryName.parse("lstm")


def test_every_ablation_has_a_preset_and_none_is_the_default() -> None:
    assert preset(RolloutConfig, "rollout").ablation == ABLATIONS[0] == "none"


def test_a_frame_shows_the_gate_and_marks_a_write() -> None:
    image = np.zeros((84, 168, 3), np.uint8)
    quiet, loud = with_gate(image, 0.25, False, 0.5), with_gate(image, 0.75, True, 0.5)
    assert quiet.shape == image.shape
    assert not quiet[:10].any()
    assert (loud[0] == [230, 40, 30]).all()
    assert (quiet[-3] > 0).any(axis=1).sum() == 42
    assert (loud[-1] > 0).any(axis=1).sum() == 84
