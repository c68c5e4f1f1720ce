"""LeRobotDataset (format v3) as episodes: what a gate is trained on, and what a success memory takes in.

Actions of a dataset are in the environment's units, as are the chunks of a LeRobotPolicy and of TinyVLA.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from vlamem.core.observation import Observation
from vlamem.policies.lerobot.source import REACH_SECONDS, camera_of
from vlamem.policies.protocol import FrozenPolicy

if TYPE_CHECKING:
    from vlamem.core.observation import Encoding
    from vlamem.memory.success import SuccessMemory
    from vlamem.memory.train.conditioning import Conditioned

INFO = Path("meta") / "info.json"
SUCCESS, REWARD = "next.success", "next.reward"
_BATCH = 32
_STRIDE = 2
"""Control steps between two whose conditioning is kept."""
_LOCAL = "copy it to this machine and give its folder"


class DatasetError(ValueError):
    """A dataset that cannot be read or used; the message names what was found, what was expected and the mend."""


@dataclass(frozen=True)
class DatasetEpisode:
    """One episode.

    Attributes:
        index: in the dataset.
        observation: T rows, one a control step, its images by camera and the sentence of each step.
        actions: [T, A], executed, in the environment's units.
        success: by the dataset's own field or as given; None where nothing says.
    """

    index: int
    observation: Observation
    actions: Float[np.ndarray, "T A"]
    success: bool | None

    def rows(self, first: int, last: int) -> Observation:
        """The control steps from `first` to before `last` as a batch."""
        obs = self.observation
        return Observation(
            {name: images[first:last] for name, images in obs.images.items()},
            obs.proprioception[first:last],
            obs.instruction[first:last],
        )


def is_dataset(name: str | Path) -> bool:
    """Whether `name` is the folder of a LeRobotDataset of this format."""
    return (Path(name) / INFO).is_file()


class DatasetReader:
    """The episodes of a dataset, read one at a time.

    Attributes:
        name: folder or hub id.
        fps: control rate [Hz].
        cameras: names of its images.
    """

    def __init__(self, name: str | Path, success: bool | Collection[int] | None = None) -> None:
        """Opens a folder or a hub id.

        Args:
            name: folder with meta/info.json, or org/name on the hub.
            success: of every episode, or the indices of successful ones; by next.success, else next.reward, when None.

        Raises DatasetError for a folder that is none, a hub that cannot be reached, and a dataset of another format
        version or without states or actions.
        """
        import httpx
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
        from lerobot.datasets.utils import CompatibilityError

        self.name, self._given = str(name), success
        folder = Path(name)
        if folder.is_dir() and not is_dataset(folder):
            there = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
            raise DatasetError(f"{folder} is no LeRobotDataset: expected {INFO}, found {there}")
        if folder.is_dir():
            version = str(_info(folder).get("codebase_version"))
            if not version.startswith("v3"):
                raise DatasetError(
                    f"{folder} has format {version}, expected v3: convert it with "
                    "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id ID --root FOLDER"
                )
        local = {"root": folder} if folder.is_dir() else {}
        if not local:
            _reach(self.name)
        try:
            self._dataset: Any = LeRobotDataset(folder.name if local else self.name, **local)
        except (OSError, ValueError, RuntimeError, CompatibilityError, httpx.HTTPError) as error:
            raise DatasetError(
                f"dataset '{self.name}' cannot be opened ({(str(error) or repr(error)).splitlines()[0][:200]})"
                + ("" if local else f": {_LOCAL}")
            ) from error
        features = self._dataset.meta.features
        missing = [key for key in ("action", "observation.state") if key not in features]
        if missing:
            raise DatasetError(f"dataset '{self.name}' has no '{missing[0]}', only {sorted(features)}")
        self.fps = float(self._dataset.meta.fps)
        self._images = {camera_of(key): key for key in self._dataset.meta.camera_keys}
        self.cameras = tuple(self._images)

    def __len__(self) -> int:
        return int(self._dataset.meta.total_episodes)

    def episode(self, index: int) -> DatasetEpisode:
        """One episode with its images; raises DatasetError for an index that is not there."""
        if not 0 <= index < len(self):
            raise DatasetError(f"dataset '{self.name}' has episodes 0 to {len(self) - 1}, not {index}")
        entry = self._dataset.meta.episodes[index]
        first, last = int(entry["dataset_from_index"]), int(entry["dataset_to_index"])
        frames = [self._dataset[i] for i in range(first, last)]
        images = {name: np.stack([_bytes(frame[key]) for frame in frames]) for name, key in self._images.items()}
        state = np.stack([np.asarray(frame["observation.state"], np.float32) for frame in frames])
        actions = np.stack([np.asarray(frame["action"], np.float32) for frame in frames])
        sentences = tuple(str(frame["task"]) for frame in frames)
        return DatasetEpisode(index, Observation(images, state, sentences), actions, self._success(index, frames))

    def __iter__(self) -> Iterator[DatasetEpisode]:
        return (self.episode(index) for index in range(len(self)))

    def check(self, policy: FrozenPolicy) -> None:
        """Raises DatasetError when the policy was not made for this robot, naming both sides."""
        spec = policy.spec
        missing = [name for name in spec.cameras if name not in self.cameras]
        if missing:
            raise DatasetError(
                f"policy '{spec.name}' reads cameras {sorted(spec.cameras)}, dataset '{self.name}' has "
                f"{sorted(self.cameras)}: name the ones that are meant with ?camera.NAME=OTHER after the checkpoint"
            )
        features = self._dataset.meta.features
        for key, size in (("action", spec.action.size), ("observation.state", spec.proprioception_size)):
            found = int(features[key]["shape"][0])
            if found != size:
                raise DatasetError(
                    f"'{key}' has {found} entries in dataset '{self.name}' and {size} in policy '{spec.name}': choose "
                    "a policy made for this robot"
                )
        if spec.control_hz and spec.control_hz != self.fps:
            raise DatasetError(
                f"dataset '{self.name}' runs at {self.fps:g} Hz and policy '{spec.name}' at {spec.control_hz:g} Hz: "
                "their chunks do not mean the same; choose a policy made for this rate"
            )

    def _success(self, index: int, frames: list[dict[str, Any]]) -> bool | None:
        if isinstance(self._given, bool):
            return self._given
        if self._given is not None:
            return index in self._given
        if SUCCESS in frames[-1]:
            return any(bool(np.asarray(frame[SUCCESS]).any()) for frame in frames)
        if REWARD in frames[-1]:
            return float(np.asarray(frames[-1][REWARD]).max()) > 0
        return None


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
    tasks = [str(t) for t in reader._dataset.meta.tasks.index]
    meta = FeaturesMeta(
        identity(policy.spec, sha256), spec.feature_size, spec.context_size, (spec.horizon, spec.action.size),
        tuple((task,) for task in tasks), f"dataset:{reader.name}", command,
    )  # fmt: skip
    writer = FeatureWriter(out, meta, np.stack([policy.context_of([task]) for task in tasks]))
    done = {episode.episode for episode in writer.episodes}
    try:
        for index in range(len(reader)):
            progress(index, len(reader))
            if index in done:
                continue
            episode = reader.episode(index)
            if episode.success is False:
                continue
            seen = [policy.encode(rows) for rows in batches(episode, getattr(policy, "history", 1))]
            z = np.concatenate([encoding.z for encoding in seen])
            goal = np.array([[tasks.index(s)] * 2 for s in episode.observation.instruction])
            ticks = EpisodeTicks(z, chunks_of(episode.actions, spec.horizon), goal, np.zeros(len(z), bool))
            task = episode.observation.instruction[0]
            if conditioning:
                write_conditioning(out, task, index, "expert", _conditioned(policy, seen, index))
            writer.add(task, index, "expert", ticks, True)
        count = len(writer.episodes)
    finally:
        writer.close()
    if not count:
        raise DatasetError(f"no episode of dataset '{reader.name}' is successful: nothing to learn from")
    return count


def _conditioned(policy: FrozenPolicy, seen: Sequence["Encoding"], index: int) -> "Conditioned":
    """What a policy that is Teachable read at every `_STRIDE`-th control step of an episode, batch after batch."""
    from vlamem.core.seeding import stream
    from vlamem.memory.train.conditioning import Conditioned
    from vlamem.policies.choice import disagreement
    from vlamem.policies.protocol import Teachable

    assert isinstance(policy, Teachable)
    rng = stream(0, "teach", "dataset", index)
    kept = [encoding.rows(np.arange(0, len(encoding.z), _STRIDE)) for encoding in seen]  # _BATCH is a multiple of it
    spread = np.concatenate([disagreement(policy, encoding, rng) for encoding in kept]).astype(np.float32)
    return Conditioned(
        _STRIDE * np.arange(len(spread)), spread, np.concatenate([policy.pack(encoding) for encoding in kept])
    )


def demonstrations_of(
    sources: Sequence[Path], policy: FrozenPolicy, sha256: str | None, out: Path, command: str,
    progress: Callable[[int, int], None],
) -> tuple[Path, ...]:  # fmt: skip
    """The sources, each LeRobotDataset among them replaced by a recording below `out` of what `vlamem fit` reads.

    What is not on this machine is taken for the hub id of a dataset. Raises what `DatasetReader` and `record_dataset`
    raise.
    """
    found = []
    for number, source in enumerate(sources):
        if source.exists() and not is_dataset(source):
            found.append(source)  # a recording, or nothing: whoever opens it says so
            continue
        record = out / f"features-{number}"
        record_dataset(DatasetReader(str(source)), policy, sha256, record, command, progress, conditioning=True)
        found.append(record)
    return tuple(found)


def features_of(
    folders: Sequence[Path],
    policy: str,
    out: Path,
    command: str,
    progress: Callable[[int, int], None],
    targets: str = "chunk",
) -> tuple[Path, ...]:
    """The folders, each LeRobotDataset among them replaced by a recording of the policy's features below `out`.

    What is not on this machine is taken for the hub id of a dataset when a policy is named. Raises DatasetError when
    there is a dataset and no policy is named, or `targets` are not chunks alone.
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
        record = out / f"features-{number}"
        record_dataset(DatasetReader(str(folder)), load_policy(source), source.sha256, record, command, progress)
        found.append(record)
    return tuple(found)


def commit_dataset(
    reader: DatasetReader, policy: FrozenPolicy, memory: "SuccessMemory", stride: int, made: float
) -> tuple[int, int]:
    """Stores the successful episodes of a dataset in a success memory; gives (stored, left out).

    The policy is asked at every `stride`-th control step, as it would be at a re-plan. Episodes of unknown outcome are
    left out: nothing enters without a verdict. Raises DatasetError when policy and dataset do not fit.
    """
    from vlamem.memory.success.lifecycle.recorder import EpisodeRecorder
    from vlamem.memory.success.lifecycle.verify import PredicateVerifier

    if stride < 1:
        raise DatasetError(f"stride is {stride}: expected 1 or more control steps")
    reader.check(policy)
    stored = left = 0
    for episode in reader:
        obs = episode.observation
        recorder = EpisodeRecorder(memory.layout)
        meaning = np.asarray(policy.context_of([obs.instruction[0]])[0], np.float32)
        recorder.begin(obs.instruction[0], f"{reader.name}/{episode.index}", meaning if meaning.size else None)
        asked = list(range(0, len(episode.actions), stride))
        seen = batches(episode, getattr(policy, "history", 1), stride)
        keys = dict(zip(asked, np.concatenate([policy.encode(rows).key for rows in seen]), strict=True))
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


def _bytes(image: Any) -> np.ndarray:
    """A frame [3, H, W] of 0..1 as uint8 [H, W, 3]."""
    array = np.moveaxis(np.asarray(image), 0, -1)
    return array if array.dtype == np.uint8 else np.clip(np.round(array * 255), 0, 255).astype(np.uint8)


def _reach(repo: str) -> None:
    """Raises DatasetError when a dataset is neither kept here by lerobot nor to be had from the hub.

    Asked with a limit of time first: lerobot would try again for minutes.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from lerobot.utils.constants import HF_LEROBOT_HOME

    if is_dataset(HF_LEROBOT_HOME / repo):
        return
    try:
        HfApi().dataset_info(repo, timeout=REACH_SECONDS)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise DatasetError(f"the hub has no dataset '{repo}' for you (status {status}): {_LOCAL}") from error
    except (httpx.HTTPError, OSError) as error:
        raise DatasetError(
            f"dataset '{repo}' is no folder here, and the hub cannot be reached ({type(error).__name__}): {_LOCAL}"
        ) from error
    except ValueError as error:
        raise DatasetError(f"'{repo}' is neither a folder here nor a hub id such as org/name: {_LOCAL}") from error


def _info(folder: Path) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{folder / INFO} is not JSON ({error}): copy the dataset again") from error
    return body
