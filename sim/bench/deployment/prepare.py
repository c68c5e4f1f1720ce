"""Before a deployment: the policy alone on initial states of the training split, to calibrate threshold and critic.

A fifth of the episodes are recorded without a shift, the others spread over the conditions of the bench: a critic that
is judged where the policy hardly fails promises a precision that it does not keep where it does. The trials that are
compared later begin in states of the test split. Each state is played twice, as states come again in a deployment.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from vlamem.core.files import write_atomically
from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.core.tensors import write_tensors
from vlamem.memory.runner import MemorySpec, StatelessRunner
from vlamem.memory.step_out import StepOut
from vlamem.memory.success import (
    Calibration,
    CriticOptions,
    EntryError,
    LabelledEpisode,
    PredicateVerifier,
    ProgressCritic,
    Segment,
    Trace,
    calibrate,
    train_critic,
)
from vlamem.memory.success.retrieve.residual import translations
from vlamem.memory.success.runner import layout_of
from vlamem.sim.bench.deployment.arms import Condition
from vlamem.sim.bench.deployment.play import Kit, play_trial
from vlamem.sim.rollout.row import Start
from vlamem.sim.suites.protocol import SuiteEnv
from vlamem.sim.suites.tabletop.shift import Shift

Report = Callable[[str], None]


EnvOf = Callable[[Shift], SuiteEnv]
"""Makes an environment of the task under a shift."""


def files_of(task: str, out: Path) -> dict[tuple[str, str], Path]:
    """The files of a task's calibration and critic that are there, by what they are and task."""
    folder = out / "prepared" / task
    found = {
        ("critic", task): folder / "critic.safetensors",
        ("calibration", task): folder / "threshold.json",
    }
    return {key: path for key, path in found.items() if path.exists()}


def prepare(
    task: str,
    conditions: Sequence[Condition],
    episodes: int,
    env_of: EnvOf,
    kit: Kit,
    out: Path,
    report: Report,
    offset: float = 0.0,
) -> tuple[Calibration | None, ProgressCritic | None]:
    """Calibration and critic of one task; made once, and read from `out` after that.

    The second time that a state is played, an offset of this standard deviation is added to the translations.

    Either is None when the recorded episodes are too few or too much alike to tell; `report` says so, and the arms of
    the task use the default threshold, or the simulator's word. Both are None where no episode is asked for.
    """
    if not episodes:
        return None, None
    folder = out / "prepared" / task
    record, judge, threshold = folder / "episodes.safetensors", folder / "critic.safetensors", folder / "threshold.json"
    if not record.exists():
        _record(task, conditions, episodes, env_of, kit, record, report, offset)
    told, segments, owners = _read(record)
    critic: ProgressCritic | None = None
    calibration: Calibration | None = None
    layout = layout_of(kit.policy.spec)
    try:
        if not judge.exists():
            train_critic(told, CriticOptions(seed=kit.seed)).save(judge)
    except EntryError as error:
        report(f"{task}: no critic, the simulator verifies in its place: {error}")
    else:
        critic = ProgressCritic.load(judge)  # an unreadable one is no reason to ask the simulator
        report(
            f"{task}: critic of precision {critic.precision:.3f} at recall {critic.recall:.3f} on "
            f"{critic.episodes} episodes ({critic.successes} successes)"
        )
    try:
        if not threshold.exists():
            keys = np.array([s.key for s in segments]).reshape(-1, layout.key_size)
            states = np.array([s.proprioception for s in segments]).reshape(-1, layout.proprioception_size)
            chunks = np.array([s.chunk for s in segments]).reshape(-1, layout.horizon, layout.action_size)
            # each state has a sentence of its own: pairs of any two, which makes the threshold stricter
            made = calibrate(layout, keys, states, chunks, owners, [0] * len(owners), kit.retrieve.reach)
            write_atomically(threshold, made.to_json() + "\n")
        calibration = Calibration.from_json(threshold.read_text(encoding="utf-8"))
        report(
            f"{task}: threshold {calibration.threshold:.4f}, precision {calibration.precision:.3f}, coverage "
            f"{calibration.coverage:.3f}"
        )
    except EntryError as error:
        report(f"{task}: threshold not calibrated, the default is used: {error}")
    return calibration, critic


class _DrawnOffset(StatelessRunner):
    """Adds one offset to the translations of every command of an episode, drawn with this standard deviation."""

    def __init__(self, kit: Kit, deviation: float, rng: np.random.Generator) -> None:
        spec, at = kit.policy.spec, translations(layout_of(kit.policy.spec))
        self.spec = MemorySpec("offset", chunk_shape=(spec.horizon, spec.action.size), ticks=False)
        self._offset = np.zeros((1, spec.horizon, spec.action.size), np.float32)
        self._offset[..., at] = deviation * rng.standard_normal(len(at))

    def propose(
        self, out: StepOut | None, observation: Observation, encoding: Encoding, lowest_start: float
    ) -> Proposal:
        """The offset in every row."""
        return Proposal.of_offset(np.repeat(self._offset, len(observation), axis=0))


def _record(
    task: str,
    conditions: Sequence[Condition],
    episodes: int,
    env_of: EnvOf,
    kit: Kit,
    record: Path,
    report: Report,
    offset: float,
) -> None:
    shifts = [Shift(), *(c.shift for c in conditions)]
    plain = 2 * (episodes // 10)  # a state is played twice under one shift
    every = [0] * plain + [1 + (i // 2) % max(1, len(conditions)) for i in range(episodes - plain)]
    arrays: dict[str, np.ndarray] = {}
    heads = []
    env, under = env_of(shifts[0]), 0
    for i, which in enumerate(every):
        if which != under:
            env.close()
            env, under = env_of(shifts[which]), which
        options = {"episode": i // 2, "split": "train", "wording": "training"}
        start = Start(task, i, options, stream(kit.seed, "prepare", task, i))
        drawn = _DrawnOffset(kit, offset, stream(kit.seed, "prepare", "offset", task, i)) if offset and i % 2 else None
        success, trace = play_trial(env, kit, drawn, start)
        heads.append({"success": success, "instruction": trace.instruction, "state": i // 2})
        arrays |= _arrays(i, trace, success, kit)
        if (i + 1) % 10 == 0:
            report(f"{task}: {i + 1} of {episodes} episodes recorded for calibration")
    env.close()
    write_tensors(record, arrays, {"episodes": json.dumps(heads)})


def _arrays(i: int, trace: Trace, success: bool, kit: Kit) -> dict[str, np.ndarray]:
    verdict = PredicateVerifier().verify(trace, success)
    segments = trace.segments(layout_of(kit.policy.spec), verdict.progress, 0, len(trace.actions)) if success else ()
    found = {
        f"{i}.keys": np.stack([s.key for s in trace.observations]),
        f"{i}.states": np.stack([s.proprioception for s in trace.observations]),
        f"{i}.ticks": np.array([s.tick for s in trace.observations], np.int64),
    }
    if segments:
        found[f"{i}.chunks"] = np.stack([s.chunk for s in segments])
        found[f"{i}.starts"] = np.array([s.tick for s in segments], np.int64)
    return found


def _read(record: Path) -> tuple[list[LabelledEpisode], list[Segment], list[int]]:
    """Episodes for the critic; segments of successes, with their episode, for the threshold."""
    from safetensors import safe_open

    with safe_open(record, framework="np") as file:
        heads = json.loads(file.metadata()["episodes"])
    arrays = load_file(record)
    told, segments, owners = [], [], []
    for i, head in enumerate(heads):
        keys, states, ticks = (arrays[f"{i}.{n}"] for n in ("keys", "states", "ticks"))
        told.append(LabelledEpisode(keys, states, ticks.astype(float), bool(head["success"]), int(head["state"])))
        for chunk, tick in zip(arrays.get(f"{i}.chunks", ()), arrays.get(f"{i}.starts", ()), strict=True):
            at = int(np.flatnonzero(ticks == tick)[0])
            segments.append(Segment(int(tick), 0.0, keys[at], states[at], chunk))
            owners.append(i)
    return told, segments, owners
