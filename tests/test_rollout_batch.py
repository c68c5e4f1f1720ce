"""Rollouts of several episodes side by side, `--batch`: one pass for all, groups, and what a batch cannot do."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import point_mass
import pytest
from disk_cases import fill_the_disk
from libero_cases import TASKS, needs_libero

from vlamem.core.observation import Encoding, Observation
from vlamem.scripts.config import preset
from vlamem.sim.results.episodes import DiskFullError, EpisodeLog, EpisodeRecord
from vlamem.sim.results.pages import load_results, without_wall_clock
from vlamem.sim.rollout.config import PlanError, RolloutConfig
from vlamem.sim.rollout.episode import Player
from vlamem.sim.rollout.run import rollout
from vlamem.sim.suites.registry import load_suite

needs_tabletop = pytest.mark.skipif(
    any(importlib.util.find_spec(needed) is None for needed in ("robosuite", "torch")),
    reason="needs the tabletop suite",
)


class TwoFrames(point_mass.PointPolicy):
    """Reads two observations and steers by the older one."""

    history = 2

    def encode(self, obs: Observation) -> Encoding:
        images = {name: image[:, 0] for name, image in obs.images.items()}
        return super().encode(Observation(images, obs.proprioception[:, 0], obs.instruction))


def two_frames() -> TwoFrames:
    """Factory for `--policy`."""
    return TwoFrames()


def config(out: Path, **given: Any) -> RolloutConfig:
    options: dict[str, Any] = {
        "suite": "point_mass:SUITE", "policy": "point_mass:policy", "tasks": ("near",), "size": 16, "execute": 4,
        "episodes": 4, "workers": 0, "batch": 4, "out": out, "watchdog_s": 900.0,
    }  # fmt: skip
    return replace(preset(RolloutConfig, "rollout"), **options | given)


def lines(out: Path) -> list[EpisodeRecord]:
    """The records of a run in the order of their lines, without times."""
    return [replace(record, wall_clock={}) for record in EpisodeLog(out / "episodes.jsonl").read()]


def results(out: Path) -> dict[str, Any]:
    return without_wall_clock(load_results(out))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"camera_noise": 90.0},
        {"policy": "test_rollout_batch:two_frames"},
        {"policy": "expert"},
        {"tasks": ("near", "far"), "batch": 3},
        {"batch": 9},
    ],
)
def test_episodes_beside_others_go_as_they_go_alone_where_a_row_does_not_depend_on_the_pass(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    assert rollout(config(tmp_path / "many", **given)).errors == 0
    rollout(config(tmp_path / "one", **given | {"batch": 1}))
    assert lines(tmp_path / "many") == lines(tmp_path / "one")
    assert len({record.steps for record in lines(tmp_path / "many")}) > 1


def test_rows_that_still_go_on_are_encoded_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    encode = point_mass.PointPolicy.encode

    def counted(policy: point_mass.PointPolicy, obs: Observation) -> Encoding:
        passes.append(len(obs.instruction))
        return encode(policy, obs)

    monkeypatch.setattr(point_mass.PointPolicy, "encode", counted)
    player = Player(config(tmp_path), lambda: None)
    records = player.play_together("near", range(4))
    player.close()
    assert passes == [sum(r.decisions > done for r in records) for done in range(len(passes))]
    assert passes[0] == 4
    late = [max(0, r.decisions - 3) for r in records]
    assert [len(r.wall_clock["decision_ms"]) for r in records] == late
    assert len({r.wall_clock["seconds"] for r in records}) == 1


def test_each_filmed_episode_of_a_group_has_its_own_video(tmp_path: Path) -> None:
    rollout(config(tmp_path, video=2))
    found = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert found == ["near-0000.mp4", "near-0001.mp4"]


def test_an_environment_that_raises_ends_its_episode_alone(tmp_path: Path) -> None:
    broken = config(tmp_path / "many", suite="point_mass:BREAKING", tasks=("raises",))
    assert rollout(broken).errors == 1
    rollout(replace(broken, batch=1, out=tmp_path / "one"))
    assert lines(tmp_path / "many") == lines(tmp_path / "one")


def test_a_policy_that_raises_ends_all_episodes_of_the_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(point_mass.PointPolicy, "sample", broken)
    assert rollout(config(tmp_path, episodes=6)).errors == 6
    assert all("out of memory" in str(record.error) for record in lines(tmp_path))


def test_a_worker_that_dies_loses_its_group_and_no_other(tmp_path: Path) -> None:
    end = rollout(config(tmp_path, suite="point_mass:BREAKING", tasks=("dies",), batch=2, workers=1))
    assert (end.done, end.errors) == (4, 2)
    errors = {record.episode: str(record.error) for record in lines(tmp_path) if record.outcome == "error"}
    assert set(errors) == {0, 1}
    assert all("exit status 7" in error for error in errors.values())


def test_errors_played_again_with_their_group_give_what_a_run_without_them_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = point_mass.PointMass.step

    def broken(env: point_mass.PointMass, action: Any) -> Any:
        if env.episode == 1 and env.now == 2:
            raise RuntimeError("the solver diverged")
        return step(env, action)

    monkeypatch.setattr(point_mass.PointMass, "step", broken)
    assert rollout(config(tmp_path / "run", episodes=6)).errors == 1
    monkeypatch.undo()
    again: list[int] = []
    asked = config(tmp_path / "run", episodes=6, retry_errors=True)
    rollout(asked, progress=lambda record: again.append(record.episode))
    assert again == [0, 1, 2, 3]
    rollout(config(tmp_path / "clean", episodes=6))
    assert results(tmp_path / "run") == results(tmp_path / "clean")
    assert len(lines(tmp_path / "run")) == 7


def test_a_group_cut_short_is_played_again_whole_and_its_lines_are_not_repeated(tmp_path: Path) -> None:
    out, clean = tmp_path / "run", tmp_path / "clean"
    for folder in (out, clean):
        rollout(config(folder, episodes=8))
    kept = (out / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    (out / "episodes.jsonl").write_bytes(b"".join(kept[:6]) + kept[6][:40])
    (out / "results.json").unlink()
    begun: list[tuple[int, int]] = []
    again: list[int] = []
    rollout(config(out, episodes=8), lambda *counts: begun.append(counts), lambda r: again.append(r.episode))
    assert (begun, again) == ([(4, 8)], [4, 5, 6, 7])
    assert results(out) == results(clean)
    assert lines(out) == lines(clean)


def test_a_full_disk_keeps_groups_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_the_disk(monkeypatch, after=1, keeps=600)
    with pytest.raises(DiskFullError):
        rollout(config(tmp_path, episodes=8))
    monkeypatch.undo()
    assert [record.episode for record in lines(tmp_path)] == [0, 1, 2, 3]


def test_a_last_group_that_was_shorter_is_played_again_with_the_episodes_that_join_it(tmp_path: Path) -> None:
    rollout(config(tmp_path / "run", batch=3))
    again: list[int] = []
    rollout(config(tmp_path / "run", batch=3, episodes=6), progress=lambda record: again.append(record.episode))
    assert again == [3, 4, 5]
    rollout(config(tmp_path / "clean", batch=3, episodes=6))
    assert results(tmp_path / "run") == results(tmp_path / "clean")


def test_the_batch_is_part_of_a_run_that_has_one_and_of_no_other(tmp_path: Path) -> None:
    assert "batch" not in config(tmp_path, batch=1).results_depend_on()
    assert "--batch 4" in config(tmp_path).command()
    rollout(config(tmp_path, batch=1))
    with pytest.raises(PlanError, match="batch was None and is now 4"):
        rollout(config(tmp_path))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"batch": 0}, "batch is 0: expected 1 or more"),
        ({"batch": -3}, "batch is -3: expected 1 or more"),
        (
            {"memory": ("aura",), "ablation": "freeze"},
            r"'freeze' works on one environment .* batch is 4: use --batch 1",
        ),
    ],
)
def test_what_a_batch_cannot_do_is_named(tmp_path: Path, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        config(tmp_path, **given)


@needs_tabletop
@pytest.mark.parametrize("memory", ["none", "aura"])
def test_on_the_tabletop_results_depend_on_neither_workers_nor_what_was_resumed(tmp_path: Path, memory: str) -> None:
    asked = config(
        tmp_path / "one", suite="tabletop", policy="tiny", tasks=("recall_colour",), memory=(memory,), size=84,
        execute=8, episodes=3, batch=2,
    )  # fmt: skip
    assert rollout(asked).errors == 0
    rollout(replace(asked, workers=2, out=tmp_path / "two"))
    assert results(tmp_path / "two") == results(tmp_path / "one")
    kept = (tmp_path / "two" / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    first = next(line for line in kept if b'"episode": 0,' in line)
    (tmp_path / "two" / "episodes.jsonl").write_bytes(first + kept[-1][:50])
    rollout(replace(asked, workers=0, out=tmp_path / "two"))
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert sorted(lines(tmp_path / "two"), key=lambda r: r.episode) == sorted(
        lines(tmp_path / "one"), key=lambda r: r.episode
    )


@needs_tabletop
def test_an_oracle_tells_each_row_of_its_own_environment(tmp_path: Path) -> None:
    asked = config(
        tmp_path, suite="tabletop", policy="tiny", tasks=("recall_colour",), memory=("oracle",), size=84, execute=8,
        episodes=2, batch=2,
    )  # fmt: skip
    rollout(asked)
    assert [record.outcome for record in lines(tmp_path)] == ["success", "success"]


@pytest.mark.parametrize(
    ("suite", "task"),
    [
        pytest.param("tabletop", "touch", marks=needs_tabletop),
        pytest.param("libero_object", TASKS[0], marks=needs_libero),
    ],
)
def test_two_environments_side_by_side_draw_and_move_as_each_does_alone(suite: str, task: str) -> None:
    made = [load_suite(suite).make(task) for _ in range(2)]

    def play(*pairs: tuple[int, int]) -> dict[int, list[dict[str, Any]]]:
        """Some steps of (environment, episode) pairs, in turns."""
        seen: dict[int, list[dict[str, Any]]] = {episode: [] for _, episode in pairs}
        for at, episode in pairs:
            made[at].reset(options={"episode": episode, "split": "test", "wording": "training"})
        for _ in range(4):
            for at, episode in pairs:
                made[at].step(made[at].expert_action())
                seen[episode].append(made[at].observe())
        return seen

    together = play((0, 0), (1, 1))
    alone = play((0, 0)) | play((0, 1))
    for env in made:
        env.close()
    for episode in (0, 1):
        for one, other in zip(together[episode], alone[episode], strict=True):
            assert one.keys() == other.keys()
            for name in set(one) - {"instruction"}:
                np.testing.assert_array_equal(one[name], other[name])
    assert not np.array_equal(together[0][0]["agentview"], together[1][0]["agentview"])
