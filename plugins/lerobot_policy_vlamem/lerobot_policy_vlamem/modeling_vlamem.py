"""A frozen policy with memory behind lerobot's policy interface."""

import shlex
import shutil
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from numpy.typing import NDArray
from torch import Tensor

from lerobot_policy_vlamem.configuration_vlamem import VlamemConfig
from lerobot_policy_vlamem.processor_vlamem import make_vlamem_pre_post_processors
from vlamem.core.observation import Observation
from vlamem.memory.runner import MemoryRunner
from vlamem.policies.lerobot import LeRobotPolicy
from vlamem.policies.lerobot.source import camera_of, on_device
from vlamem.policies.lerobot.watch import WATCH, Watched
from vlamem.policies.memories import SHIPPED, load_memories, parse_memories
from vlamem.policies.memory_policy import MemoryPolicy, Tick
from vlamem.policies.registry import absolute, find_policy, is_lerobots, load_policy

_STATE, _IMAGE = "observation.state", "observation.image"
_WEIGHTS = "memory-{}.safetensors"


class VlamemPolicy(PreTrainedPolicy):  # type: ignore[misc]  # lerobot's classes have no types here
    """Sees every observation, plans when its queue of actions is empty.

    Without a memory it is the frozen policy itself: for a checkpoint of lerobot, its own `select_action` between its
    own processors. Rows of a vectorised environment have memories of their own.
    """

    config_class = VlamemConfig
    name = "vlamem"

    def __init__(self, config: VlamemConfig, **kwargs: Any) -> None:
        """Raises ValueError, WeightsError or CheckpointError for an inner policy or memory that cannot be used."""
        super().__init__(config)
        config.validate_features()
        source = find_policy(self._inner())
        self.frozen = load_policy(source)
        self._theirs = self.frozen if isinstance(self.frozen, LeRobotPolicy) else None
        if self._theirs is not None:
            self.network = self._theirs.network
        self._sha256 = source.sha256
        self._names = parse_memories(shlex.split(config.memory))
        for name in self._names:
            if name.kind == "success" and name.file is not None and not name.file.is_file():
                raise ValueError(
                    f"there is no success memory at {name.file.absolute()}, and nothing is stored here: name a file "
                    "that 'vlamem memory import' or 'vlamem serve --memory success:FILE' has filled"
                )
        self._made: tuple[MemoryRunner, ...] = load_memories(self._names, self.frozen, source.sha256, 1)
        own = getattr(getattr(self, "network", None), "config", None)
        if getattr(own, "temporal_ensemble_coeff", None) is not None and self.remembers:
            raise ValueError(
                "a temporal ensemble averages chunks planned at different ticks, which a memory cannot steer: "
                "save the checkpoint with temporal_ensemble_coeff null"
            )
        self._steps = self._steps_of(own)
        self._memory: MemoryPolicy | None = None
        self.reset()

    @property
    def remembers(self) -> bool:
        """Whether there is a memory at all."""
        return bool(self._names)

    @property
    def memory(self) -> MemoryPolicy | None:
        """The frozen policy with its memories over the rows of the last batch; None before the first."""
        return self._memory

    def _inner(self) -> str:
        """The frozen policy's name; a checkpoint is loaded where lerobot moves this policy's modules, its processors
        too. Raises CheckpointError when its own option says another device."""
        inner = self.config.inner
        return on_device(inner, str(self.config.device)) if is_lerobots(inner) else inner

    def _steps_of(self, own: Any) -> int:
        """Actions carried out of each chunk, given to the frozen policy too, which carries them out without a memory.

        Raises ValueError for a number that its chunks do not have.
        """
        asked, horizon = self.config.n_action_steps, self.frozen.spec.horizon
        steps = getattr(own, "n_action_steps", None) or horizon
        if asked is None:
            return int(steps)
        if not 1 <= asked <= horizon:
            raise ValueError(f"n_action_steps is {asked}: chunks have {horizon} steps, choose 1 to {horizon}")
        if getattr(own, "temporal_ensemble_coeff", None) is not None and asked != 1:
            raise ValueError(f"n_action_steps is {asked}: a temporal ensemble plans at every step, leave it out")
        if own is not None:
            own.n_action_steps = asked
        return asked

    def reset(self, rows: NDArray[np.bool_] | None = None) -> None:
        """Clears memory, history and queued actions: of all rows, or of those marked in `rows`.

        Raises ValueError for a part of the rows without a memory: lerobot's own queue is one for all of them.
        """
        if rows is not None and not np.all(rows) and self._theirs is not None and not self.remembers:
            raise ValueError(
                f"rows {np.flatnonzero(rows).tolist()} of {len(rows)} cannot be reset alone: without a memory the "
                "checkpoint plans for all rows at once, reset all of them"
            )
        self._last: tuple[Observation, Tick] | None = None
        if self._memory is not None and rows is not None:
            self._memory.reset(rows)
            self._restart |= rows
            return
        self._memory = None
        self._restart = np.zeros(0, bool)
        self._queues: list[deque[NDArray[np.float32]]] = []
        self._history: deque[Observation] = deque(maxlen=self.frozen.history)
        WATCH.clear()
        if self._theirs is not None:
            self.network.reset()

    def supports_rtc(self) -> bool:
        """Whether the frozen policy implements real-time chunking."""
        return self._theirs is not None and bool(self.network.supports_rtc())

    def init_rtc_processor(self) -> None:
        """Hands lerobot's real-time-chunking configuration to the frozen policy; a memory's prior wraps around it."""
        if self.supports_rtc():
            self.network.config.rtc_config = self.config.rtc_config
            self.network.init_rtc_processor()

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        """The next action of each row, [B, A], in the environment's units; the memory sees this observation."""
        observation = self._observation(batch)
        if self._theirs is not None and not self.remembers:
            bridge = self._theirs.bridge
            own = bridge.batch(observation, gathers=True)
            return torch.as_tensor(bridge.postprocessor(self.network.select_action(own)))
        memory = self._rows(len(observation.instruction))
        tick = self._tick(memory, observation)
        due = np.array([row for row, queue in enumerate(self._queues) if not queue], np.int64)
        if len(due):
            noise = self._noise(len(self._queues))[due]
            chunks = memory.plan(tick.of(due), noise)
            for row, chunk in zip(due, chunks, strict=True):
                self._queues[row].extend(chunk[: self._steps])
        return torch.from_numpy(np.stack([queue.popleft() for queue in self._queues]))

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Tensor],
        noise: Tensor | None = None,
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        execution_horizon: int | None = None,
    ) -> Tensor:
        """A chunk of each row, [B, H, A], in the environment's units; real-time chunking goes on underneath.

        Control steps that a watched robot published before this observation are shown to the memory first, each once
        and in order; those after it wait for the next call. A call with the observation of the last one ticks nothing.
        """
        observation = self._observation(batch)
        memory = self._rows(len(observation.instruction))
        tick = self._next_tick(memory, observation)
        drawn = self._noise(len(observation.instruction)) if noise is None else noise.cpu().numpy()
        if self._theirs is None:
            return torch.from_numpy(memory.plan(tick, drawn))
        guidance: dict[str, Any] = {}
        if self.supports_rtc():
            left = prev_chunk_left_over
            if left is not None:  # it was given out in the environment's units
                rows = left if left.ndim == 3 else left[None]
                left = self._theirs.bridge.normalise(rows.cpu().numpy(), observation)
            guidance = {
                "inference_delay": inference_delay,
                "prev_chunk_left_over": left,
                "execution_horizon": execution_horizon,
            }
        with self._theirs.guided(**guidance):
            return torch.from_numpy(memory.plan(tick, drawn))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any] | None]:
        """Raises: the policy is frozen."""
        raise NotImplementedError("a vlamem policy is frozen; its memory is trained by 'vlamem train-gate'")

    def get_optim_params(self) -> dict[str, Any]:
        """Raises: the policy is frozen."""
        raise NotImplementedError("a vlamem policy is frozen; its memory is trained by 'vlamem train-gate'")

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """What `--policy.path` needs: the configuration, the recurrent memory's weights and both processors.

        The frozen policy and a success memory stay where they are, under absolute paths.
        """
        saved = replace(self.config, inner=absolute(self.config.inner))
        names = []
        for i, name in enumerate(self._names):
            if name.file is None or name.file == SHIPPED.get(name.kind):
                names.append(replace(name, file=None))
            elif name.sha256 is None:  # a database: it grows, and stays where it is
                names.append(replace(name, file=name.file.resolve()))
            else:
                copy = save_directory / _WEIGHTS.format(i)
                if not (copy.exists() and copy.samefile(name.file)):
                    shutil.copyfile(name.file, copy)
                names.append(replace(name, file=Path(copy.name)))
        saved.memory = shlex.join(map(str, names)) or "none"
        saved._save_pretrained(save_directory)
        for processor in make_vlamem_pre_post_processors(saved):
            processor.save_pretrained(save_directory)

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path | None, *, config: VlamemConfig | None = None, **kwargs: Any
    ) -> "VlamemPolicy":
        """What `save_pretrained` wrote; with None, the policy that `config` describes."""
        if config is None:
            if pretrained_name_or_path is None:
                raise ValueError("neither a folder nor a configuration is given: add --policy.path=FOLDER")
            config = PreTrainedConfig.from_pretrained(str(pretrained_name_or_path))
        if pretrained_name_or_path is not None:
            folder = Path(pretrained_name_or_path)
            config.memory = shlex.join(_in_folder(text, folder) for text in shlex.split(config.memory))
        kwargs = {k: v for k, v in kwargs.items() if k in ("dataset_stats", "dataset_meta")}
        policy = cls(config, **kwargs)
        policy.eval()
        return policy

    def _rows(self, count: int) -> MemoryPolicy:
        """The memory over `count` rows; the queues of rows that were reset are emptied here."""
        if self._memory is None or self._memory.rows != count:
            memories = self._made if count == 1 else load_memories(self._names, self.frozen, self._sha256, count)
            self._memory = MemoryPolicy(self.frozen, memories, count)
            self._memory.reset()
            self._queues = [deque() for _ in range(count)]
            self._restart = np.zeros(count, bool)
            self._last = None
        for row in np.flatnonzero(self._restart):
            self._queues[row].clear()
        return self._memory

    def _tick(self, memory: MemoryPolicy, observation: Observation) -> Tick:
        """One control step of all rows."""
        tick = memory.observe(self._stacked(observation))
        self._restart[:] = False
        self._last = observation, tick
        return tick

    def _next_tick(self, memory: MemoryPolicy, observation: Observation) -> Tick:
        """The tick of `observation` after those of what was published before it: lerobot plans again and again from
        one observation while its queue of actions is short, and what it plans from was published too."""
        seen = WATCH.take() if memory.ticks else []
        frames = [self._published(step, observation) for step in seen]
        here = max((number for number, frame in enumerate(frames) if self._same(frame, observation)), default=None)
        if here is not None:
            WATCH.give_back(seen[here + 1 :])
            frames = frames[:here]
        elif self._last is not None and self._same(self._last[0], observation):
            WATCH.give_back(seen)
            return self._last[1]
        for frame in frames:
            self._tick(memory, frame)
        return self._tick(memory, observation)

    def _same(self, one: Observation, other: Observation) -> bool:
        """Whether two observations are the same to the frozen policy."""
        return (
            one.instruction == other.instruction
            and np.array_equal(one.proprioception, other.proprioception)
            and all(np.array_equal(one.images[name], other.images[name]) for name in self.frozen.spec.cameras)
        )

    def _noise(self, rows: int) -> NDArray[np.float32]:
        """Drawn from torch's global stream, as lerobot draws it, in the size that the network takes."""
        if self._theirs is None:
            return torch.randn(rows, self.frozen.spec.horizon, self.frozen.spec.action.size).numpy()
        return torch.randn(rows, *self._theirs.noise_shape).numpy()

    def _observation(self, batch: dict[str, Any]) -> Observation:
        """lerobot's batch as the policy's observation; images 0..1 become the bytes that they were."""
        names = {key: camera_of(key) for key, value in batch.items() if key.startswith(_IMAGE) and value.ndim == 4}
        images = {
            name: (batch[key].permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
            for key, name in names.items()
        }
        if not images:
            raise ValueError(f"the batch has no image, only {sorted(batch)}: the environment must give pixels")
        rows = len(next(iter(images.values())))
        task = batch.get("task") or [""] * rows
        task = [task] * rows if isinstance(task, str) else list(task)
        state = batch.get(_STATE)
        proprioception = np.zeros((rows, 0), np.float32) if state is None else state.float().cpu().numpy()
        return self._read(Observation(images, proprioception, tuple(task)))

    def _read(self, given: Observation) -> Observation:
        """The environment's observation as the frozen policy takes it; raises ValueError for cameras it does not have.

        The message names the option where the cameras are those of lerobot's LIBERO environment.
        """
        spec = self.frozen.spec
        if self.config.observation == "libero":
            from vlamem.sim.suites.libero.from_lerobot import observation_from_lerobot

            given = observation_from_lerobot(given.images, given.proprioception, given.instruction, spec.image_size)
        missing = [camera for camera in spec.cameras if camera not in given.images]
        if missing:
            mend = "choose a policy trained with these cameras, or --rename_map"
            if self.config.observation == "libero":
                mend = "this policy takes lerobot's own images: leave out --policy.observation=libero"
            elif set(given.images) == {"image", "image2"}:
                mend = "for a policy of this project on lerobot's LIBERO environment add --policy.observation=libero"
            raise ValueError(
                f"the policy reads cameras {sorted(spec.cameras)}, the observation has {sorted(given.images)}: {mend}"
            )
        return given

    def _published(self, seen: Watched, like: Observation) -> Observation:
        images = {name: image[None] for name, image in seen.images.items()}
        return self._read(Observation(images, seen.state[None], like.instruction[:1]))

    def _stacked(self, observation: Observation) -> Observation:
        """With the observations before it, for a frozen policy that reads several; the first is repeated."""
        depth = self._history.maxlen or 1
        if depth == 1:
            return observation
        if not self._history or len(self._history[-1].instruction) != len(observation.instruction):
            self._history.clear()
        if self._restart.any():
            self._history.extend([_replaced(old, observation, self._restart) for old in self._history])
        self._history.append(observation)
        past = [self._history[0]] * (depth - len(self._history)) + list(self._history)
        return Observation(
            {name: np.stack([o.images[name] for o in past], 1) for name in observation.images},
            np.stack([o.proprioception for o in past], 1),
            observation.instruction,
        )


def _replaced(old: Observation, new: Observation, rows: NDArray[np.bool_]) -> Observation:
    """`old` with the marked rows of `new`."""

    def mixed(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return np.where(rows.reshape(-1, *[1] * (a.ndim - 1)), b, a)

    images = {name: mixed(image, new.images[name]) for name, image in old.images.items()}
    return Observation(images, mixed(old.proprioception, new.proprioception), new.instruction)


def _in_folder(text: str, folder: Path) -> str:
    """A memory's name whose weights lie in `folder`, where they were saved; other names as they are."""
    location, mark, query = text.partition("?")
    kind, colon, file = location.rpartition(":")
    if colon and not Path(file).is_absolute() and (folder / file).is_file():
        return f"{kind}:{folder / file}{mark}{query}"
    return text
