"""Rollouts with a memory that learns from episodes, orders of initial states, and hooks; on a point in the plane."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import point_mass
import pytest

from vlamem.core.observation import Encoding, Observation
from vlamem.memory.registry import MemoryName
from vlamem.memory.success.memory import MemoryOptions
from vlamem.policies.memories import load_memories
from vlamem.scripts.config import preset
from vlamem.sim.results.compare import compare_runs
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.results.pages import load_results, without_wall_clock
from vlamem.sim.rollout.config import PlanError, RolloutConfig, run_identity
from vlamem.sim.rollout.hooks import EpisodeHooks, HookContext
from vlamem.sim.rollout.row import Row
from vlamem.sim.rollout.run import rollout
from vlamem.sim.rollout.trials import initial_state


class UnitKeys(point_mass.PointPolicy):
    """The point-mass policy with keys of unit length, and chunks that are mixed with a proposed one."""

    def encode(self, obs: Observation) -> Encoding:
        seen = super().encode(obs)
        key = seen.z / np.maximum(np.linalg.norm(seen.z, axis=1, keepdims=True), 1e-6)
        return Encoding(seen.z, key.astype(np.float32), seen.context)

    def sample(self, encoding: Encoding, noise: Any, proposal: Any = None) -> Any:
        bare = super().sample(encoding, noise)
        if proposal is None:
            return bare
        c = proposal.chunk_weight[:, None, None]
        return np.where(c > 0, (1 - c) * bare + c * proposal.chunk, bare).astype(np.float32)


def policy() -> UnitKeys:
    """Factory for `--policy`."""
    return UnitKeys()


class Bias(EpisodeHooks):
    """Pushes the point aside at every step, and notes that it did."""

    def __init__(self, context: HookContext) -> None:
        self.pushed = 0

    def act(self, row: Row, action: Any) -> Any:
        self.pushed += 1
        return np.clip(action + np.array([0.9, 0, 0, 0, 0, 0, 0], np.float32), -1, 1)

    def episode_ended(self, row: Row) -> None:
        row.progress["verdict"] = f"pushed {self.pushed}"


def config(out: Path, **given: Any) -> RolloutConfig:
    options: dict[str, Any] = {
        "suite": "point_mass:SUITE", "policy": "test_rollout_learning:policy", "tasks": ("near",), "size": 16,
        "execute": 4, "episodes": 6, "workers": 0, "out": out,
    }  # fmt: skip
    return replace(preset(RolloutConfig, "rollout"), **options | given)


def learning(folder: Path, **given: Any) -> RolloutConfig:
    folder.mkdir(parents=True, exist_ok=True)
    memory = f"success:{folder / 'kitchen.db'}?threshold=0.5{given.pop('more', '')}"
    return config(folder / "run", states=3, order=1, **given, memory=(memory,))


def lines(config: RolloutConfig) -> list[EpisodeRecord]:
    return [replace(r, wall_clock={}) for r in EpisodeLog(config.out / "episodes.jsonl").read()]


def stored(config: RolloutConfig) -> dict[str, str]:
    """Outcomes of the episodes that the memory holds segments of, by identity."""
    name = MemoryName.parse(config.memory[0])
    (runner,) = load_memories((name,), UnitKeys(), None, 1)
    memory = runner.memory  # type: ignore[attr-defined]  # a success memory
    with memory:
        alive = {s.episode for s in memory.store.segments(memory.origin)}
        return {h.identity: h.outcome for h in memory.store.episode_heads(memory.origin) if h.id in alive}


def test_verified_episodes_are_stored_and_later_ones_retrieve_them(tmp_path: Path) -> None:
    run = learning(tmp_path)
    assert rollout(run).errors == 0
    records = lines(run)
    assert [r.verdict for r in records] == [r.outcome for r in records]
    assert records[0].proposals == 0
    assert records[0].segments > 0
    assert records[-1].proposals > 0
    assert 0 < records[-1].proposed_weight <= 1
    assert all(a.segments <= b.segments for a, b in pairwise(records))
    assert {int(name.rpartition("/")[2]): outcome for name, outcome in stored(run).items()} == {
        r.episode: r.outcome for r in records
    }
    assert {r.arm for r in records} == {"success?threshold=0.5"}


def test_a_worker_process_learns_as_this_process_does(tmp_path: Path) -> None:
    here, there = learning(tmp_path / "here"), learning(tmp_path / "there", workers=1)
    rollout(here)
    rollout(there)
    assert lines(here) == lines(there)


def test_what_a_stopped_run_stored_without_writing_it_down_is_taken_back(tmp_path: Path) -> None:
    whole, parts = learning(tmp_path / "whole"), learning(tmp_path / "parts")
    rollout(whole)
    rollout(replace(parts, episodes=3))
    log = parts.out / "episodes.jsonl"
    kept = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(kept[:2]) + kept[2][:30])  # killed while the third was written down: it was stored
    (parts.out / "results.json").unlink()
    rollout(parts)
    assert lines(parts) == lines(whole)
    first, second = (without_wall_clock(load_results(run.out)) for run in (whole, parts))
    assert first["arms"] == second["arms"]
    assert len(stored(parts)) == len(stored(whole))


def rows(config: RolloutConfig) -> dict[str, list[tuple[Any, ...]]]:
    """All that a memory holds, but for the time at which it was stored and numbers, which are never used twice."""
    (path,) = config.out.parent.glob("*.db")
    queries = {
        "episodes": "SELECT identity, outcome, verifier, confidence FROM episodes ORDER BY id",
        "segments": "SELECT e.identity, tick, progress, key, proprioception, chunk, uses, successes, merged, nearest "
        "FROM segments s JOIN episodes e ON e.id = s.episode JOIN usage u ON u.segment = s.id ORDER BY s.id",
        "trials": "SELECT identity, outcome, offset FROM trials ORDER BY id",
    }
    with closing(sqlite3.connect(path)) as db:
        found = {name: db.execute(query).fetchall() for name, query in queries.items()}
    run = run_identity(config)  # which every identity begins with, and is another's in another folder
    return {n: [(str(r[0]).removeprefix(run), *r[1:]) for r in lines] for n, lines in found.items()}


@pytest.mark.parametrize(
    ("more", "changed"),
    [
        ("", "sum(uses) > 0 AND sum(merged) > 0"),
        ("&most_segments=3", "max(segment) > count(*)"),
        ("&prior=residual", "(SELECT count(*) FROM trials) = 6"),
    ],
)
def test_what_a_stopped_run_did_to_segments_of_other_episodes_is_undone(
    more: str, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merging = partial(MemoryOptions, merge_similarity=0.9, merge_distance=2.0)
    monkeypatch.setattr("vlamem.memory.success.kind.MemoryOptions", merging)
    whole, parts = (learning(tmp_path / name, more=more) for name in ("whole", "parts"))
    rollout(whole)
    with closing(sqlite3.connect(tmp_path / "whole" / "kitchen.db")) as db:
        assert db.execute(f"SELECT {changed} FROM usage").fetchone()[0], "there is something to undo"
    for killed in (2, 4):  # while the line of this episode was written; it was stored
        rollout(replace(parts, episodes=killed + 1))
        log = parts.out / "episodes.jsonl"
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:killed]))
        (parts.out / "results.json").unlink()
    rollout(parts)
    assert lines(parts) == lines(whole)
    assert rows(parts) == rows(whole)


def test_a_memory_goes_on_learning_in_the_next_run_and_more_episodes_can_be_asked_for(tmp_path: Path) -> None:
    first = learning(tmp_path)
    rollout(first)
    before = lines(first)[-1].segments
    again = replace(first, out=tmp_path / "again")
    rollout(again)
    assert lines(again)[0].proposals > 0
    assert lines(again)[-1].segments > before
    rollout(replace(again, episodes=8))
    assert [r.episode for r in lines(again)] == list(range(8))


def test_a_memory_that_is_only_asked_stays_as_it_is_for_any_number_of_workers(tmp_path: Path) -> None:
    rollout(learning(tmp_path))
    before = stored(learning(tmp_path))
    asked = replace(learning(tmp_path, more="&commit=false"), out=tmp_path / "asked", workers=2)
    rollout(asked)
    assert all(r.proposals > 0 and not r.verdict for r in lines(asked))
    assert stored(asked) == before


@pytest.mark.parametrize("given", [{"workers": 2}, {"batch": 2}, {"retry_errors": True}])
def test_what_would_play_a_learning_memorys_episodes_out_of_order_is_refused(tmp_path: Path, given: Any) -> None:
    with pytest.raises(PlanError, match="would play them out of order"):
        learning(tmp_path, **given)


def test_an_episode_that_later_ones_learned_from_cannot_be_played_afterwards(tmp_path: Path) -> None:
    run = learning(tmp_path, tasks=("near", "far"), episodes=2)
    rollout(run)
    with pytest.raises(PlanError, match=r"near 2 is missing in .* later episodes are there"):
        rollout(replace(run, episodes=3))


def test_a_critic_without_its_file_and_a_file_without_a_critic_are_refused(tmp_path: Path) -> None:
    for more in ("&verifier=critic", "&critic=nowhere.safetensors"):
        with pytest.raises(PlanError, match="critic"):
            learning(tmp_path, more=more)


def test_unverified_writing_takes_failures_for_successes(tmp_path: Path) -> None:
    hard = {"parameters": ("delay=1",), "hooks": ("test_rollout_learning:Bias",)}
    run = learning(tmp_path, more="&verifier=none", episodes=2, **hard)
    rollout(run)
    assert "failure" in [r.outcome for r in lines(run)]
    assert list(stored(run).values()) == ["success", "success"]


def test_states_come_again_in_an_order_of_their_own(tmp_path: Path) -> None:
    run = config(tmp_path, episodes=9, states=3, order=1)
    played = [initial_state(run, episode) for episode in range(9)]
    for visit in range(3):
        lap = played[3 * visit : 3 * visit + 3]
        assert sorted(s.number for s in lap) == [0, 1, 2]
        assert {s.visit for s in lap} == {visit}
    assert played[:5] == [initial_state(replace(run, episodes=5), episode) for episode in range(5)]
    assert played != [initial_state(replace(run, order=2), episode) for episode in range(9)]
    in_turn = [initial_state(replace(run, order=0), episode).number for episode in range(4)]
    assert in_turn == [0, 1, 2, 0]


def test_an_order_pairs_by_initial_state_and_draws_noise_of_its_own(tmp_path: Path) -> None:
    plain, other = config(tmp_path / "plain", episodes=3), config(tmp_path / "other", episodes=3, order=1)
    rollout(plain)
    rollout(other)
    states = [r.initial_state for r in lines(other)]
    assert sorted(states) == [r.initial_state for r in lines(plain)] == ["test/0", "test/1", "test/2"]
    steps = {r.initial_state: r.steps for r in lines(plain)}
    assert [r.steps for r in lines(other)] != [steps[state] for state in states]
    assert compare_runs(plain.out, other.out).total.n == 3
    with pytest.raises(PlanError, match="states was 3 and is now 4"):
        rollout(replace(other, episodes=4))


def test_parameters_change_where_they_are_told_to(tmp_path: Path) -> None:
    made: list[int] = []
    original = point_mass.PointSuite.make

    def make(suite: Any, task: str, **options: Any) -> Any:
        made.append(options["delay"])
        return original(suite, task, **options)

    run = config(tmp_path, episodes=4, parameters=("delay=1",), later_parameters=("delay=2",), change_at=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(point_mass.PointSuite, "make", make)
        rollout(run)
    assert made == [1, 2]
    with pytest.raises(PlanError, match="belong together"):
        replace(run, change_at=None)


def test_a_hook_of_ones_own_changes_actions_and_adds_to_the_record(tmp_path: Path) -> None:
    bare, pushed = config(tmp_path / "bare"), config(tmp_path / "pushed", hooks=("test_rollout_learning:Bias",))
    rollout(bare)
    rollout(pushed)
    assert [r.steps for r in lines(bare)] != [r.steps for r in lines(pushed)]
    total = np.cumsum([r.steps for r in lines(pushed)])
    assert [r.verdict for r in lines(pushed)] == [f"pushed {n}" for n in total]
    assert "--hooks test_rollout_learning:Bias" in pushed.command()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "quantum"}, "unknown engine 'quantum'"),
        ({"hooks": ("nowhere",)}, "unknown hook 'nowhere'"),
    ],
)
def test_an_unknown_engine_or_hook_is_named(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rollout(config(tmp_path, **given))


def test_an_engine_can_be_named(tmp_path: Path) -> None:
    here, there = (config(tmp_path / name, engine=name, workers=1) for name in ("inline", "processes"))
    rollout(here)
    rollout(there)
    assert lines(here) == lines(there)
    with pytest.raises(PlanError, match="has no workers"):
        config(tmp_path, engine="processes")
    assert "engine" not in json.loads((here.out / "run.json").read_text())["configuration"]
