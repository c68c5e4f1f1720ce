"""vlamem.testing.check_suite, over a suite of one's own that is played with memories, and over ones that break."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlamem.core.observation import Encoding, Observation
from vlamem.core.spec import OSC_POSE, PolicySpec
from vlamem.memory.train.features import Features, parts_of
from vlamem.scripts.config import preset
from vlamem.sim.record.features import FeatureCollection, collect_here
from vlamem.sim.results.pages import load_results
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.run import rollout
from vlamem.sim.suites import registry
from vlamem.sim.suites.protocol import Cue, Suite, SuiteEnv
from vlamem.testing import ConformanceError, check_suite

sys.path.append(str(Path(__file__).resolve().parent.parent))  # examples/ lie outside the package
from examples.point_suite import SENTENCES, SUITE, PointEnv, PointSuite  # found there


class SidePolicy:
    """Goes to the side that its sentence names, to a random one where it names none."""

    history, lowest_start = 1, 0.2
    spec = PolicySpec("sides", 8, 16, 2, 1, 20.0, ("top",), 16, 2, OSC_POSE, "none")

    def encode(self, obs: Observation) -> Encoding:
        context = self.context_of(list(obs.instruction))
        key = np.concatenate([np.ones_like(context), np.zeros_like(context)], axis=1)
        light = obs.images["top"][..., 1].reshape(len(obs), 16, 16).sum(1)
        return Encoding(light.astype(np.float32) / 4080, key, context)

    def sample(self, encoding: Encoding, noise: Any, proposal: Any = None) -> Any:
        side = np.array(encoding.context)
        if proposal is not None and proposal.context is not None:
            side = side + proposal.context_weight[:, None] * proposal.context
        chunk = np.zeros_like(noise)
        chunk[..., 1] = np.where(side == 0, np.sign(noise[:, :1, 0]), np.sign(side))
        return chunk

    def context_of(self, instruction: list[str]) -> Any:
        sides = {sentence: side for side, sentence in SENTENCES.items()}
        return np.array([[sides[text]] for text in instruction], np.float32)


def policy() -> SidePolicy:
    """Factory for `--policy`."""
    return SidePolicy()


@pytest.mark.parametrize("task", SUITE.tasks)
def test_a_suite_of_ones_own_keeps_every_promise(task: str) -> None:
    assert isinstance(SUITE, Suite)
    assert isinstance(SUITE.make(task), SuiteEnv)
    check_suite(SUITE, task)


def test_it_is_played_by_name_alone_and_with_a_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SUITES", type(registry.SUITES)("suite", {}))
    registry.SUITES.register("points", "examples.point_suite:SUITE")
    asked = replace(
        preset(RolloutConfig, "rollout"), suite="points", tasks=("side",), policy="test_suite_conformance:policy",
        size=16, episodes=12, workers=0,
    )  # fmt: skip
    rates = {}
    for memory in ("none", "oracle", f"success:{tmp_path / 'points.db'}"):
        out = tmp_path / memory.partition(":")[0]
        end = rollout(replace(asked, memory=(memory,), out=out))
        assert end.errors == 0
        (arm,) = load_results(out)["arms"].values()
        rates[out.name] = arm["total"]["rate"]
    assert rates["oracle"] == 1
    assert 0 < rates["none"] < 1


def test_its_features_are_recorded_with_its_own_goals(tmp_path: Path) -> None:
    what = FeatureCollection(
        "test_suite_conformance:policy", {"side": 2}, {"side": 2}, tmp_path, suite="examples.point_suite:SUITE"
    )
    collect_here(what)
    (part,) = parts_of(tmp_path)
    recorded = Features(part)
    assert recorded.meta.goals == SUITE.goals()
    assert recorded.meta.suite == "points"
    assert sorted((e.task, e.actor) for e in recorded.episodes) == [
        ("side", "expert"), ("side", "expert"), ("side", "told"), ("side", "told"),
    ]  # fmt: skip


class Drifting(PointEnv):
    """Begins where the last episode ended."""

    def reset(self, *, options: dict[str, Any]) -> Any:
        last = getattr(self, "place", np.zeros(2))
        super().reset(options=options)
        self.place = self.place + 0.01 * last
        return self._observation(self.render_on_step), {}


class Ticking(PointEnv):
    """Moves on when it is looked at."""

    def observe(self) -> dict[str, Any]:
        self.place = self.place + 0.001
        return super().observe()


class Whispering(PointEnv):
    """Its answer is no sentence of the suite."""

    def cue(self) -> Cue:
        return replace(super().cue(), answer="left, I think")


class Forgetting(PointEnv):
    """Knows the answer now and then."""

    def cue(self) -> Cue:
        return replace(super().cue(), known=self.now % 2 == 1)


class Endless(PointEnv):
    """Never ends."""

    def step(self, action: Any) -> Any:
        seen, reward, _, truncated, info = super().step(action)
        return seen, reward, False, truncated, info


class Wide(PointEnv):
    """Sees in doubles."""

    def _observation(self, images: bool) -> dict[str, Any]:
        seen = super()._observation(images)
        return seen | {"proprioception": seen["proprioception"].astype(float)}


class Clumsy(PointEnv):
    """Its expert goes the wrong way."""

    def expert_action(self) -> Any:
        return -super().expert_action()


@pytest.mark.parametrize(
    ("env", "promise"),
    [
        (Drifting, "function of \\(task, split, episode\\) alone"),
        (Ticking, "observe and cue change nothing"),
        (Whispering, "an answer is among the goals: 'left, I think'"),
        (Forgetting, "what is known stays known"),
        (Endless, "an episode ends by itself"),
        (Wide, "proprioception is float32"),
        (Clumsy, "the scripted expert succeeds"),
    ],
)
def test_a_broken_promise_is_named(env: type[PointEnv], promise: str) -> None:
    class Broken(PointSuite):
        def make(self, task: str, **options: Any) -> PointEnv:
            super().make(task)
            return env(False, 16, False)

    with pytest.raises(ConformanceError, match=promise):
        check_suite(Broken(), "side", longest=100)
