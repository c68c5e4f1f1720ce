"""sim/bench/throughput.py: what is compared with what, and the clocks around the parts of an episode."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import point_mass
import pytest

from vlamem.memory.seeding import stream
from vlamem.policies.protocol import Observation
from vlamem.sim.bench import throughput
from vlamem.sim.bench.throughput import Run, ThroughputError, run
from vlamem.sim.bench.throughput_options import ThroughputBench
from vlamem.sim.bench.throughput_parts import SECONDS, TimedEnv, TimedPolicy


def bench(tmp_path: Path) -> ThroughputBench:
    return ThroughputBench(
        preset="full", policy="tiny", tasks=("touch",), episodes=4, batches=(1, 2), workers=1, execute=8,
        profile_episodes=1, size=84, out=tmp_path / "out", results=tmp_path,
    )  # fmt: skip


def test_a_smoke_test_plays_one_task_in_one_environment(tmp_path: Path) -> None:
    small = replace(bench(tmp_path), preset="smoke", tasks=("touch", "press")).sized()
    assert (small.tasks, small.episodes, small.batches, small.profile_episodes) == (("touch",), 2, (1,), 1)
    assert bench(tmp_path).sized() == bench(tmp_path)


def outcomes(*won: bool) -> dict[tuple[str, int], bool]:
    return {("touch", episode): success for episode, success in enumerate(won)}


def test_the_ratio_is_to_the_fastest_setting_of_lerobot_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {1: 40.0, 2: 20.0}
    monkeypatch.setattr(
        throughput, "_lerobot",
        lambda bench, tasks, batch: Run(f"batch {batch}", seconds[batch], outcomes(True, True, False, True)),
    )  # fmt: skip
    monkeypatch.setattr(throughput, "_ours", lambda bench, tasks: Run("ours", 5.0, outcomes(True, True, True, True)))
    shares = {"physics": 0.5, "render": 0.2, "encode": 0.1, "sample": 0.1, "rest": 0.1}
    monkeypatch.setattr(throughput, "_profile", lambda bench, tasks: (shares, 100))
    page, twin = run(bench(tmp_path), "vlamem bench throughput", lambda text: None)
    figures = json.loads(twin.read_text())["figures"]
    assert figures["ratio_tabletop"]["value"] == pytest.approx(4.0)
    assert figures["episodes_per_hour"]["value"] == pytest.approx(4 * 3600 / 5.0)
    assert figures["success"]["value"] == 1.0
    assert figures["success_lerobot"]["value"] == 0.75
    assert figures["share_render"]["n"] == 100
    assert "+25 points" in page.read_text()


def test_a_run_that_breaks_off_shows_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "lerobot-eval"
    program.write_text("#!/bin/sh\necho no such policy >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(throughput.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ThroughputError, match=r"(?s)ended with 3:.*no such policy"):
        throughput._lerobot(bench(tmp_path), ("touch",), 1)


def test_clocks_change_no_action_and_run_only_inside_their_part() -> None:
    plain, timed = point_mass.SUITE.make("near"), TimedEnv(point_mass.SUITE.make("near"))
    policies = point_mass.policy(), TimedPolicy(point_mass.policy())
    SECONDS.clear()
    ends = []
    for env, policy in zip((plain, timed), policies, strict=True):
        env.render_on_step = False
        env.reset(options={"episode": 3, "split": "test", "wording": "training"})
        noise, ended, steps = stream(0, "noise"), False, 0
        while not ended:
            full = env.observe()
            seen = Observation({"top": full["top"][None]}, full["proprioception"][None], (full["instruction"],))
            drawn = noise.standard_normal((1, policy.spec.horizon, policy.spec.action.size), dtype=np.float32)
            last, _, terminated, truncated, _ = env.step(policy.sample(policy.encode(seen), drawn)[0, 0])
            ended, steps = terminated or truncated, steps + 1
        ends.append((steps, last["proprioception"].tolist()))
        assert bool(SECONDS) is (env is timed)
    assert ends[0] == ends[1]
    assert set(SECONDS) == {"physics", "render", "encode", "sample"}
    assert min(SECONDS.values()) > 0
    assert timed.render_on_step is False
