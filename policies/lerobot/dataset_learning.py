"""What is made of a LeRobotDataset's episodes: features to train a gate on, and experience of a success memory."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.policies.corrections import conditioned, whole_chunks
from vlamem.policies.lerobot.dataset import DatasetEpisode, DatasetReader, DatasetView
from vlamem.policies.lerobot.dataset_files import DatasetError, is_dataset
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import weights_hash

if TYPE_CHECKING:
    from vlamem.core.observation import Encoding
    from vlamem.memory.success import SuccessMemory
    from vlamem.memory.train.conditioning import Conditioned

_BATCH = 32
_STRIDE = 2
"""Control steps between two whose conditioning is kept."""
log = logging.getLogger("vlamem.policies")


def record_dataset(
    reader: DatasetReader, policy: FrozenPolicy, sha256: str | None, out: Path, command: str,
    progress: Callable[[int, int], None] = lambda done, all_: None, conditioning: bool = False,
) -> int:  # fmt: skip
    """Records the policy's features over every successful episode as what `vlamem train-gate` reads; the episodes.

    With `conditioning` what `vlamem fit` reads is recorded besides, of every second control step.

    A dataset knows one sentence an episode and no other that tells an answer: chunks are what can be learned from it
    (`--targets chunk`). Episodes of unknown outcome are taken as demonstrations, failures are not. A recording that was
    stopped is continued. Raises DatasetError when policy and dataset do not fit, or nothing is successful.
    """
    from vlamem.memory.train.conditioning import write_conditioning
    from vlamem.memory.train.features import EpisodeTicks, FeaturesMeta, FeatureWriter
    from vlamem.memory.weights import identity

    reader.check(policy)
    spec = policy.spec
    tasks = [str(t) for t in reader._dataset.meta.tasks.index if str(t).strip()]
    meta = FeaturesMeta(
        identity(policy.spec, sha256 or weights_hash(policy)), spec.feature_size, spec.context_size,
        (spec.horizon, spec.action.size),
        tuple((task,) for task in tasks), f"dataset:{reader.name}", command,
    )  # fmt: skip
    writer = FeatureWriter(out, meta, np.stack([policy.context_of([task]) for task in tasks]))
    done = {episode.episode for episode in writer.episodes}
    try:
        for index in range(len(reader)):
            progress(index, len(reader))
            if index in done:
                continue
            episode = reader.usable(index)
            if episode is None or episode.success is False:
                continue
            acted = _demonstrated(episode, reader.name)
            if acted is None:
                continue
            if conditioning and not whole_chunks(acted, spec.horizon)[::_STRIDE].any():
                log.warning(
                    "episode %d of dataset '%s' demonstrates no chunk of %d control steps: it is left out",
                    index, reader.name, spec.horizon,
                )  # fmt: skip
                continue
            seen = [policy.encode(rows) for rows in batches(episode, getattr(policy, "history", 1))]
            z = np.concatenate([encoding.z for encoding in seen])
            goal = np.array([[tasks.index(s)] * 2 for s in episode.observation.instruction])
            chunks = chunks_of(episode.actions, spec.horizon)
            ticks = EpisodeTicks(z, chunks, goal, np.zeros(len(z), bool))
            task = episode.observation.instruction[0]
            if conditioning:
                write_conditioning(out, task, index, "expert", _conditioned(policy, seen, acted, chunks, index))
            writer.add(task, index, "expert", ticks, True)
        count = len(writer.episodes)
    finally:
        writer.close()
    if not count:
        raise DatasetError(f"no episode of dataset '{reader.name}' is successful: nothing to learn from")
    return count


def _demonstrated(episode: DatasetEpisode, dataset: str) -> Bool[np.ndarray, "T"] | None:
    """Control steps that are learned from: a person's, where the dataset says who acted; all where it does not, and of
    a policy's own verified success. None, with a word in the log, where no one demonstrates anything."""
    acted = episode.demonstrated
    if acted is None or (not acted.any() and episode.success):
        return np.ones(len(episode.actions), bool)
    if not acted.any():
        log.warning(
            "episode %d of dataset '%s' was a policy's alone, and nothing says that it succeeded: it is left out",
            episode.index, dataset,
        )  # fmt: skip
        return None
    return acted


def _conditioned(
    policy: FrozenPolicy,
    seen: Sequence["Encoding"],
    acted: Bool[np.ndarray, "T"],
    chunks: Float[np.ndarray, "T H A"],
    index: int,
) -> "Conditioned":
    """What a policy that is Teachable read at every `_STRIDE`-th control step from which a chunk was demonstrated."""
    from vlamem.memory.train.conditioning import Conditioned
    from vlamem.policies.protocol import Teachable

    assert isinstance(policy, Teachable)
    rng = stream(0, "teach", "dataset", index)
    whole = whole_chunks(acted, chunks.shape[1])
    whole[1::_STRIDE] = False
    parts = []
    for number, encoding in enumerate(seen):
        at = np.flatnonzero(whole[number * _BATCH : (number + 1) * _BATCH])
        if len(at):
            ticks = number * _BATCH + at
            parts.append(conditioned(policy, encoding.rows(at), ticks, acted, chunks[ticks], rng))
    return Conditioned(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def demonstrations_of(
    sources: Sequence[Path], policy: FrozenPolicy, sha256: str | None, out: Path, command: str,
    progress: Callable[[int, int], None],
) -> tuple[Path, ...]:  # fmt: skip
    """The sources, each LeRobotDataset among them replaced by a recording below `out` of what `vlamem fit` reads.

    What is not on this machine is taken for the hub id of a dataset. Raises DatasetError for datasets of unequal rate,
    and what `DatasetReader` and `record_dataset` raise.
    """
    found = []
    rates: dict[str, float] = {}
    for number, source in enumerate(sources):
        if source.exists() and not is_dataset(source):
            found.append(source)  # a recording, or nothing: whoever opens it says so
            continue
        if not source.exists():
            log.warning("%s is no folder here: the hub is asked for a dataset of that name", source)
        record, reader = out / f"features-{number}", DatasetReader(str(source))
        rates[reader.name] = reader.fps
        if len(set(rates.values())) > 1:
            listed = ", ".join(f"'{name}' at {fps:g} Hz" for name, fps in rates.items())
            raise DatasetError(f"datasets of unequal rate: {listed}: fit those of one rate together")
        record_dataset(reader, policy, sha256, record, command, progress, conditioning=True)
        found.append(record)
    return tuple(found)


def features_of(
    folders: Sequence[Path],
    policy: str,
    out: Path,
    command: str,
    progress: Callable[[int, int], None],
    targets: str = "chunk",
    view: Callable[[int], DatasetView] | None = None,
) -> tuple[Path, ...]:
    """The folders, each LeRobotDataset among them replaced by a recording of the policy's features below `out`.

    `view` makes a view of them for the policy's image size. What is not on this machine is taken for the hub id of a
    dataset when a policy is named. Raises DatasetError when there is a dataset and no policy is named, or `targets` are
    not chunks alone.
    """
    found = []
    for number, folder in enumerate(folders):
        here = is_dataset(folder)
        if not here and (folder.exists() or not policy):
            found.append(folder)  # a recording, or nothing: whoever opens it says so
            continue
        if not policy:
            raise DatasetError(f"{folder} is a dataset: say with --policy whose features it is to be recorded as")
        if targets != "chunk":
            raise DatasetError(
                f"{folder} is a dataset, which knows no sentence that tells an answer, and --targets is {targets}: a "
                "gate learns chunks alone from it, add --targets chunk"
            )
        from vlamem.policies.registry import find_policy, load_policy

        source = find_policy(policy)
        frozen, record = load_policy(source), out / f"features-{number}"
        reader = DatasetReader(str(folder), view=None if view is None else view(frozen.spec.image_size))
        record_dataset(reader, frozen, source.sha256, record, command, progress)
        found.append(record)
    return tuple(found)


def commit_dataset(
    reader: DatasetReader, policy: FrozenPolicy, memory: "SuccessMemory", stride: int, made: float
) -> tuple[int, int]:
    """Stores the successful episodes of a dataset in a success memory; gives (stored, left out).

    The policy encodes every `stride`-th control step, as it would at a re-plan. Episodes of unknown outcome are
    left out: nothing enters without a verdict. Raises DatasetError when policy and dataset do not fit.
    """
    from vlamem.memory.success.lifecycle.recorder import EpisodeRecorder
    from vlamem.memory.success.lifecycle.verify import PredicateVerifier

    if stride < 1:
        raise DatasetError(f"stride is {stride}: expected 1 or more control steps")
    reader.check(policy)
    stored = left = 0
    for index in range(len(reader)):
        episode = reader.usable(index)
        if episode is None:
            left += 1
            continue
        obs = episode.observation
        recorder = EpisodeRecorder(memory.layout)
        meaning = np.asarray(policy.context_of([obs.instruction[0]])[0], np.float32)
        recorder.begin(obs.instruction[0], f"dataset:{episode.digest}", meaning if meaning.size else None)
        at = list(range(0, len(episode.actions), stride))
        seen = batches(episode, getattr(policy, "history", 1), stride)
        keys = dict(zip(at, np.concatenate([policy.encode(rows).key for rows in seen]), strict=True))
        for tick, action in enumerate(episode.actions):
            if tick in keys:
                held = np.repeat(episode.actions[-1:], memory.layout.horizon, axis=0)
                recorder.observe(keys[tick], obs.proprioception[tick], held)
            recorder.act(action)
        verdict = PredicateVerifier().verify(recorder.trace(), episode.success)
        kept = recorder.finish(verdict, made)
        if kept is None or verdict.outcome != "success":
            left += 1
            continue
        memory.commit(kept)
        stored += 1
    return stored, left


def chunks_of(actions: Float[np.ndarray, "T A"], horizon: int) -> Float[np.ndarray, "T H A"]:
    """The actions from each control step on; the last one is held where the episode ends."""
    at = np.minimum(np.arange(len(actions))[:, None] + np.arange(horizon), len(actions) - 1)
    return np.asarray(actions[at])


def batches(episode: DatasetEpisode, history: int = 1, stride: int = 1) -> Iterator[Observation]:
    """Every `stride`-th control step, some at a time, as a policy that reads `history` observations is given them.

    Rows are [B, history, ...] where it reads several, the newest last; where an episode begins the first is repeated,
    as in a rollout.
    """
    obs = episode.observation
    rows = np.arange(0, len(episode.actions), stride)
    for first in range(0, len(rows), _BATCH):
        now = rows[first : first + _BATCH]
        at = now if history == 1 else np.maximum(now[:, None] + np.arange(1 - history, 1), 0)
        images = {name: image[at] for name, image in obs.images.items()}
        yield Observation(images, obs.proprioception[at], tuple(obs.instruction[i] for i in now))
