"""LeRobotDataset (format v3) as episodes.

Actions of a dataset are in the environment's units, as are the chunks of a LeRobotPolicy and of TinyVLA.
"""

import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, UInt8

from vlamem.core.observation import Observation
from vlamem.policies.lerobot.dataset_files import INFO, DatasetError, check_files, is_dataset, read_info
from vlamem.policies.lerobot.dataset_images import DatasetImages
from vlamem.policies.lerobot.source import HUB_ID, REACH_SECONDS, camera_of
from vlamem.policies.protocol import FrozenPolicy

SUCCESS, REWARD, LABELLED = "next.success", "next.reward", "labelled"
INTERVENTION, ACTED_BY, TELEOPERATOR = "intervention", "acted_by", 3
"""Who acted: a flag that lerobot's DAgger rollouts write, or the number that `vlamem control --record` writes."""
_LOCAL = "copy it to this machine and give its folder"
log = logging.getLogger("vlamem.policies")


class EpisodeError(DatasetError):
    """An episode that cannot be used; the others can."""


class DatasetView(Protocol):
    """How a dataset's observations are read with other conventions than its own.

    Attributes:
        cameras: their names here, by those of the dataset.
        state_size: entries of the state that it reads.
    """

    @property
    def cameras(self) -> Mapping[str, str]: ...

    @property
    def state_size(self) -> int: ...

    def pictures(self, frames: UInt8[np.ndarray, "N H W 3"]) -> UInt8[np.ndarray, "N H W 3"]:
        """Pictures of a camera as they are here."""
        ...

    def state(self, state: Float[np.ndarray, "T S"], sentences: Sequence[str]) -> Float[np.ndarray, "T P"]:
        """Proprioception of the control steps."""
        ...


@dataclass(frozen=True)
class DatasetEpisode:
    """One episode.

    Attributes:
        index: in the dataset.
        observation: T rows, one a control step, its images by camera (decoded when they are indexed) and the sentence
            of each step.
        actions: [T, A], executed, in the environment's units.
        success: by the dataset's own field or as given; None where nothing says.
        demonstrated: [T], control steps in which a person acted, where a policy had the others; None where the dataset
            does not tell them apart.
    """

    index: int
    observation: Observation
    actions: Float[np.ndarray, "T A"]
    success: bool | None
    demonstrated: Bool[np.ndarray, "T"] | None = None

    @property
    def digest(self) -> str:
        """Hash of states, actions and sentences: the same whatever the dataset's folder is called."""
        found = hashlib.sha256("\n".join(self.observation.instruction).encode())
        for values in (self.observation.proprioception, self.actions):
            found.update(np.ascontiguousarray(values, np.float32).tobytes())
        return found.hexdigest()[:16]

    def rows(self, first: int, last: int) -> Observation:
        """The control steps from `first` to before `last` as a batch."""
        obs = self.observation
        return Observation(
            {name: images[first:last] for name, images in obs.images.items()},
            obs.proprioception[first:last],
            obs.instruction[first:last],
        )


class DatasetReader:
    """The episodes of a dataset, read one at a time.

    Attributes:
        name: folder or hub id.
        fps: control rate [Hz].
        cameras: names of its images.
    """

    def __init__(
        self,
        name: str | Path,
        success: bool | Collection[int] | Literal["reward"] | None = None,
        view: DatasetView | None = None,
    ) -> None:
        """Opens a folder or a hub id.

        Args:
            name: folder with meta/info.json, or org/name on the hub.
            success: of every episode, the indices of successful ones, or "reward" where a last reward above 0 means
                success; by next.success when None, and unknown without it: a reward may be a shaped one. It is unknown
                too where the field `labelled`, which `vlamem control --record` writes, is false throughout.
            view: how its observations are read; as they are without one.

        Raises DatasetError for a folder that is none, a hub that cannot be reached, and a dataset of another format
        version or without states or actions.
        """
        import httpx
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
        from lerobot.datasets.utils import CompatibilityError

        self.name, self._given, self._view = str(name), success, view
        folder = Path(name)
        if folder.is_dir() and not is_dataset(folder):
            there = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
            raise DatasetError(f"{folder} is no LeRobotDataset: expected {INFO}, found {there}")
        if folder.is_dir():
            version = str(read_info(folder).get("codebase_version"))
            if not version.startswith("v3"):
                raise DatasetError(
                    f"{folder} has format {version}, expected v3: convert it with "
                    "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id ID --root FOLDER"
                )
            check_files(folder)
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
        if success == "reward" and REWARD not in features:
            raise DatasetError(f"dataset '{self.name}' has no '{REWARD}', only {sorted(features)}")
        wanted = ("observation.state", "action", "task_index", SUCCESS, REWARD, LABELLED, INTERVENTION, ACTED_BY)
        self._columns = [key for key in wanted if key in features]
        self.fps = float(self._dataset.meta.fps)
        self._images = {camera_of(key): key for key in self._dataset.meta.camera_keys}
        if view is not None:
            self._images = {view.cameras[name]: key for name, key in self._images.items() if name in view.cameras}
        self.cameras = tuple(self._images)

    def __len__(self) -> int:
        return int(self._dataset.meta.total_episodes)

    def episode(self, index: int) -> DatasetEpisode:
        """One episode. Raises DatasetError for an index that is not there, EpisodeError for states or actions that are
        not finite and for a control step without a task; indexing its images does for a picture that is broken."""
        if not 0 <= index < len(self):
            raise DatasetError(f"dataset '{self.name}' has episodes 0 to {len(self) - 1}, not {index}")
        entry = self._dataset.meta.episodes[index]
        first, last = int(entry["dataset_from_index"]), int(entry["dataset_to_index"])
        table = self._dataset.hf_dataset.select_columns(self._columns)[first:last]
        state, actions = (self._numbers(index, key, table[key]) for key in ("observation.state", "action"))
        tasks = self._dataset.meta.tasks.index
        sentences = tuple(str(tasks[int(number)]) for number in table["task_index"])
        silent = next((step for step, sentence in enumerate(sentences) if not sentence.strip()), None)
        if silent is not None:
            raise EpisodeError(
                f"episode {index} of dataset '{self.name}' has an empty task at control step {silent}: give it a "
                "sentence in meta/tasks.parquet"
            )
        if self._view is not None:
            state = self._view.state(state, sentences)
        images: dict[str, Any] = {
            name: DatasetImages(partial(self._pictures, index, first, key), last - first)
            for name, key in self._images.items()
        }
        success, demonstrated = self._success(index, table), _demonstrated(table)
        return DatasetEpisode(index, Observation(images, state, sentences), actions, success, demonstrated)

    def usable(self, index: int) -> DatasetEpisode | None:
        """One episode; None, with a word in the log, for one that cannot be used."""
        try:
            return self.episode(index)
        except EpisodeError as error:
            log.warning("%s: it is left out", error)
            return None

    def __iter__(self) -> Iterator[DatasetEpisode]:
        return (self.episode(index) for index in range(len(self)))

    def check(self, policy: FrozenPolicy) -> None:
        """Raises DatasetError when the policy was not made for this robot, naming both sides."""
        spec = policy.spec
        missing = [name for name in spec.cameras if name not in self.cameras]
        if missing:
            raise DatasetError(
                f"policy '{spec.name}' reads cameras {sorted(spec.cameras)}, dataset '{self.name}' has "
                f"{sorted(self.cameras)}: {self._mend_of_cameras(policy)}"
            )
        features = self._dataset.meta.features
        for key, size in (("action", spec.action.size), ("observation.state", spec.proprioception_size)):
            found = int(features[key]["shape"][0])
            if key == "observation.state" and self._view is not None and found == self._view.state_size:
                continue
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

    def _mend_of_cameras(self, policy: FrozenPolicy) -> str:
        """What to do about cameras of other names."""
        if set(self.cameras) == {"image", "image2"} and set(policy.spec.cameras) == {"agentview", "wrist"}:
            return "read a dataset of lerobot's LIBERO with --observation libero"
        if hasattr(policy, "bridge"):  # a checkpoint of lerobot, which takes options
            return "name the ones that are meant with ?camera.NAME=OTHER after the checkpoint"
        return "choose a policy that was trained with these cameras"

    def _numbers(self, index: int, key: str, column: Sequence[Any]) -> Float[np.ndarray, "T N"]:
        """A column of vectors; lerobot gives those of one entry without their axis."""
        values = np.stack([np.asarray(value, np.float32) for value in column]).reshape(len(column), -1)
        if not np.isfinite(values).all():
            step, entry = np.argwhere(~np.isfinite(values))[0].tolist()
            raise EpisodeError(
                f"episode {index} of dataset '{self.name}' has {values[step, entry]} in entry {entry} of '{key}' at "
                f"control step {step}"
            )
        return values

    def _pictures(self, index: int, first: int, key: str, steps: Sequence[int]) -> UInt8[np.ndarray, "N H W 3"]:
        """The pictures of some control steps of an episode, of one camera."""
        meta = self._dataset.meta
        rows = [first + step for step in steps]
        try:
            if key not in meta.video_keys:
                frames = self._dataset.hf_dataset.select_columns([key])[rows][key]
            elif key in meta.depth_keys:
                frames = [self._dataset[row][key] for row in rows]
            else:
                from lerobot.datasets.video_utils import decode_video_frames

                times = self._dataset.hf_dataset.select_columns(["timestamp"])[rows]["timestamp"]
                begins = meta.episodes[index][f"videos/{key}/from_timestamp"]
                path = self._dataset.root / meta.get_video_file_path(index, key)
                frames = decode_video_frames(
                    path, [begins + float(t) for t in times], self._dataset.tolerance_s, return_uint8=True
                )
        except Exception as error:  # the libraries that decode raise errors of many types
            where = meta.get_video_file_path(index, key) if key in meta.video_keys else meta.get_data_file_path(index)
            raise EpisodeError(
                f"'{key}' of episode {index} of dataset '{self.name}' cannot be decoded from {where} "
                f"({(str(error) or repr(error)).splitlines()[0][:120]}): copy that file again"
            ) from error
        pictures = np.stack([_bytes(frame) for frame in frames])
        return pictures if self._view is None else self._view.pictures(pictures)

    def _success(self, index: int, table: dict[str, Sequence[Any]]) -> bool | None:
        if isinstance(self._given, bool):
            return self._given
        if self._given is not None and self._given != "reward":
            return index in self._given
        if self._given is None and LABELLED in table and not any(np.asarray(value).any() for value in table[LABELLED]):
            return None
        if self._given is None and SUCCESS in table:
            return any(bool(np.asarray(value).any()) for value in table[SUCCESS])
        if self._given == "reward":
            return float(np.asarray(table[REWARD][-1]).max()) > 0
        return None


def _demonstrated(table: dict[str, Sequence[Any]]) -> Bool[np.ndarray, "T"] | None:
    """Control steps in which a person acted, where the dataset says who did."""
    if INTERVENTION in table:
        return np.array([bool(np.asarray(value).any()) for value in table[INTERVENTION]])
    if ACTED_BY in table:
        return np.array([int(np.asarray(value).max()) == TELEOPERATOR for value in table[ACTED_BY]])
    return None


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
    if not HUB_ID.fullmatch(repo):
        raise DatasetError(f"'{repo}' is neither a folder here nor a hub id such as org/name: {_LOCAL}")
    try:
        HfApi().dataset_info(repo, timeout=REACH_SECONDS)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise DatasetError(f"the hub has no dataset '{repo}' for you (status {status}): {_LOCAL}") from error
    except (httpx.HTTPError, OSError) as error:
        raise DatasetError(
            f"dataset '{repo}' is no folder here, and the hub cannot be reached ({type(error).__name__}): {_LOCAL}"
        ) from error
