"""A gymnasium task that needs memory, and a small frozen policy for it: from a rollout to a rollout with memory.

    PYTHONPATH=. vlamem rollout --suite examples.recall_gym:SUITE --policy examples.recall_gym:policy --tasks all \
        --size 64 --execute 4 --episodes 40 --out runs/alone
    PYTHONPATH=. vlamem collect --suite examples.recall_gym:SUITE --format lerobot --tasks all --episodes 60 \
        --out data/recall
    PYTHONPATH=. vlamem fit examples.recall_gym:policy data/recall/dataset --out runs/recall/gate.safetensors
    PYTHONPATH=. vlamem rollout --suite examples.recall_gym:SUITE --policy examples.recall_gym:policy --tasks all \
        --size 64 --execute 4 --episodes 40 --memory aura:runs/recall/gate.safetensors --out runs/remembers

The picture's rim shows a colour and goes dark. Later two marks appear, and the point has to go to the one of that
colour. The policy stands for one of your own: it goes to one of the marks, and which one is chance, for it sees this
moment alone. What `vlamem fit` asks of it beside the protocol of every policy is its imitation loss with its gradient.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

import vlamem
from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.spec import ActionComponent, ActionSpec, PolicySpec

SIZE, RIM, MARK = 64, 6, 8
"""Pixels of a side, of the rim, and of a mark."""
SHOWN, GO, LONGEST, NEAR, STRIDE = 4, 8, 40, 0.15, 0.1
"""Steps at which the colour is gone, the marks appear and the episode ends; how near is there; how far a 1 moves."""
SENTENCES = {"red": "go to the red mark", "blue": "go to the blue mark", "": "go to the mark of the rim's colour"}
ACTIONS = ActionSpec((ActionComponent("translation", 2, "xyz", "delta", "base", "0.1 of the half side"),))


class RecallEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """A point, two marks, and a rim that shows the colour of the right one for a while."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # gymnasium declares it
    render_mode = "rgb_array"
    observation_space = gymnasium.spaces.Dict(
        {
            "pixels": gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
            "agent_pos": gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float64),
        }
    )
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.now, self.place = 0, self.np_random.uniform(-0.05, 0.05, 2)
        side, height = self.np_random.choice([-0.7, 0.7]), self.np_random.uniform(-0.5, 0.5)
        self.marks = np.array([[side, height], [-side, height]])  # red, blue
        self.answer = int(self.np_random.integers(2))
        return self._observation(), {}

    def step(self, action: np.ndarray) -> Any:
        self.now, self.place = self.now + 1, np.clip(self.place + STRIDE * action, -1, 1)
        reached = np.linalg.norm(self.marks - self.place, axis=1) < NEAR
        ended = bool(reached.any()) and self.now > GO
        return self._observation(), 0.0, ended, False, {"is_success": ended and bool(reached[self.answer])}

    def render(self) -> Any:
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        if self.now < SHOWN:
            picture[..., 2 * self.answer] = 255
            picture[RIM:-RIM, RIM:-RIM] = 0
        drawn = [(self.place, (255, 255, 255))]
        if self.now >= GO:
            drawn = [(self.marks[0], (255, 0, 0)), (self.marks[1], (0, 0, 255)), *drawn]
        for place, colour in drawn:
            column, row = np.rint((place + 1) / 2 * (SIZE - MARK)).astype(int)
            picture[row : row + MARK, column : column + MARK] = colour
        return picture

    def _observation(self) -> dict[str, Any]:
        return {"pixels": self.render(), "agent_pos": self.place.copy()}


def expert(env: RecallEnv) -> np.ndarray:
    """Waits for the marks, then goes straight to the right one."""
    return np.clip((env.marks[env.answer] - env.place) / STRIDE, -1, 1) * (env.now >= GO)


SUITE = vlamem.suite_from_gym(
    RecallEnv,
    name="recall",
    cameras={"pixels": "top"},
    proprioception=["agent_pos"],
    instruction=SENTENCES[""],
    goals=list(SENTENCES.values()),
    action=ACTIONS,
    horizon=LONGEST,
    expert=expert,
)


class Mover:
    """A frozen policy: it goes to one of the marks that it sees, to the nearer one once it is on its way.

    z is the colour of the rim (2), whether there are marks (1), from the point to each mark (4), and the colours of a
    coarse picture (27). The conditioning vector (2) leans towards a mark.
    """

    history, lowest_start, injection, packed_size = 1, 0.2, "instruction", 0
    spec = PolicySpec("mover", 4, 34, 34, 2, 10.0, ("top",), SIZE, 2, ACTIONS, "none")

    def encode(self, obs: Observation) -> Encoding:
        """What a picture shows, by its colours."""
        pairs = zip(obs.images["top"], obs.proprioception, strict=True)
        z = np.stack([_seen(image, place) for image, place in pairs])
        key = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-6)
        return Encoding(z, key, self.context_of(obs.instruction))

    def context_of(self, instruction: Sequence[str]) -> np.ndarray:
        """The conditioning vector of sentences."""
        lean = {SENTENCES["red"]: (1, -1), SENTENCES["blue"]: (-1, 1)}
        return np.array([lean.get(sentence, (0, 0)) for sentence in instruction], np.float32)

    def sample(self, encoding: Encoding, noise: np.ndarray, proposal: Proposal | None = None) -> np.ndarray:
        """Chunks from noise; a proposed context is added to the conditioning, a proposed chunk is mixed in."""
        context = encoding.context
        if proposal is not None and proposal.context is not None:
            weight = proposal.context_weight[:, None]
            context = np.where(weight > 0, context + weight * proposal.context, context)
        share, red, blue = _share(encoding.z, context, noise[:, 0, 0]), *_ways(encoding.z)
        chunk = (share[:, None, None] * red + (1 - share)[:, None, None] * blue).astype(np.float32)
        if proposal is not None and proposal.chunk is not None:
            trust = proposal.chunk_weight[:, None, None].astype(np.float32)
            chunk = np.where(trust > 0, (1 - trust) * chunk + trust * proposal.chunk, chunk)
        return chunk

    def pack(self, encoding: Encoding) -> np.ndarray:
        """z is all that `sample` reads."""
        return np.zeros((len(encoding.z), 0), np.float16)

    def unpack(self, packed: np.ndarray, z: np.ndarray, context: np.ndarray) -> Encoding:
        """Undoes `pack`."""
        return Encoding(np.asarray(z, np.float32), np.asarray(z, np.float32), np.asarray(context, np.float32))

    def imitation_gradient(
        self, encoding: Encoding, chunk: np.ndarray, residual: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Squared error of chunks over some noise, and its gradient by what is added to the conditioning."""
        red, blue = _ways(encoding.z)
        loss, slope = np.zeros(len(chunk)), np.zeros(len(chunk))
        for noise in (draws := rng.standard_normal((8, len(chunk)))):
            share = _share(encoding.z, encoding.context + residual, noise)
            off = share[:, None, None] * red + (1 - share)[:, None, None] * blue - chunk
            loss += np.square(off).mean((1, 2)) / len(draws)
            slope += _STEEP * share * (1 - share) * (2 * off * (red - blue)).mean((1, 2)) / len(draws)
        return loss.astype(np.float32), (slope[:, None] * [1, -1]).astype(np.float32)


_STEEP, _NEARER = 6.0, 4.0
"""How sure a choice is for a lean of 1, and how much a mark that is nearer by a half side counts."""


def _seen(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    """z of a picture; colours are told apart by half their brightness, since a video blurs them."""
    bright = image > 127
    inner = np.zeros(bright.shape[:2], bool)
    inner[RIM:-RIM, RIM:-RIM] = True
    red, blue = (bright[..., i] & ~bright[..., 1] & ~bright[..., 2 - i] for i in (0, 2))
    rim = [float((colour & ~inner).mean() > 0.1) for colour in (red, blue)]
    coarse = image[: SIZE // 3 * 3, : SIZE // 3 * 3].reshape(3, SIZE // 3, 3, SIZE // 3, 3).mean((1, 3)).ravel() / 255
    if any(rim) or not (red.any() and blue.any()):
        return np.array([*rim, 0, 0, 0, 0, 0, *coarse], np.float32)
    centres = [(np.argwhere(c).mean(0)[::-1] - MARK / 2 + 0.5) / (SIZE - MARK) * 2 - 1 for c in (red, blue)]
    return np.array([0, 0, 1, *(centres[0] - place), *(centres[1] - place), *coarse], np.float32)


def _share(z: np.ndarray, context: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """How far a chunk goes to the red mark, 0 to 1; noise alone decides where nothing leans."""
    nearer = np.linalg.norm(z[:, 5:7], axis=1) - np.linalg.norm(z[:, 3:5], axis=1)
    return 1 / (1 + np.exp(-_STEEP * (context[:, 0] - context[:, 1] + _NEARER * nearer + noise)))


def _ways(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chunks to the red and to the blue mark; still where there are none."""
    ways = []
    for away in (z[:, 3:5].copy(), z[:, 5:7].copy()):
        chunk = np.zeros((len(z), Mover.spec.horizon, 2))
        for step in range(Mover.spec.horizon):
            chunk[:, step] = np.clip(away / STRIDE, -1, 1) * z[:, 2:3]
            away -= STRIDE * chunk[:, step]
        ways.append(chunk)
    return ways[0], ways[1]


def policy() -> Mover:
    """For `--policy`."""
    return Mover()
