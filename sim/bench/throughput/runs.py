"""One run of `vlamem rollout` or of lerobot-eval under a clock, and where the time of an episode goes."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlamem.core.bench import BenchError
from vlamem.sim import gl
from vlamem.sim.bench.throughput import parts
from vlamem.sim.bench.throughput.options import Reset, ThroughputBench
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.results.pages import WALL_CLOCK
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.episode import Player
from vlamem.sim.rollout.run import rollout
from vlamem.sim.suites.protocol import RenderProfile
from vlamem.sim.suites.registry import load_suite

_HOUR = 3600.0


class ThroughputError(BenchError):
    """A run that did not finish; the message says which and shows its last lines."""


@dataclass(frozen=True)
class Arena:
    """What both programs play.

    Attributes:
        suite, tasks: by name.
        policy: as in `--policy`.
        episodes: of each task, initial states 0 and on.
        profiled: episodes of each task in `profile`.
        built_inside: lerobot-eval builds its scenes under its clock, as it does for LIBERO; then the clock of
            `vlamem rollout` runs from its call on, start of processes and imports included.
    """

    suite: str
    tasks: tuple[str, ...]
    policy: str
    episodes: int
    profiled: int
    built_inside: bool


@dataclass(frozen=True)
class Run:
    """What one program did.

    Attributes:
        title: as the page calls it.
        seconds: from the first reset to the end of the last episode; of `vlamem rollout` with start-up where
            lerobot-eval builds its scenes under its clock.
        successes: by (task, initial state).
        processor: seconds of processor time of all its processes from their start on, which other programs on the
            machine change little; None where a process leaves no account of it.
    """

    title: str
    seconds: float
    successes: Mapping[tuple[str, int], bool]
    processor: float | None = None

    @property
    def hourly(self) -> float:
        """Episodes an hour."""
        return _HOUR * len(self.successes) / self.seconds


def _processor() -> float:
    """Processor time of this process and of all that it has waited for [s]."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def configuration(bench: ThroughputBench, arena: Arena, **changes: Any) -> RolloutConfig:
    """The rollout of an arena; `changes` replace options."""
    options: dict[str, Any] = {
        "suite": arena.suite, "tasks": arena.tasks, "policy": arena.policy, "memory": ("none",),
        "episodes": arena.episodes, "seed": 0, "out": bench.out / arena.suite / "vlamem", "workers": bench.workers,
        "video": 0, "split": "test", "wording": "training", "size": bench.size, "render": "fast",
        "execute": bench.execute, "parameters": (), "watchdog_s": 600.0, "retry_errors": False,
    }  # fmt: skip
    return RolloutConfig(**options | changes)


def play_ours(bench: ThroughputBench, arena: Arena, render: RenderProfile, batch: int) -> Run:
    """`vlamem rollout` over an arena, `batch` episodes side by side.

    Raises ThroughputError when an episode ended as an error.
    """
    records: list[EpisodeRecord] = []
    finished: list[float] = []

    def note(record: EpisodeRecord) -> None:
        records.append(record)
        finished.append(time.perf_counter())

    out = bench.out / arena.suite / f"vlamem-{render}-{batch}"
    config = configuration(bench, arena, render=render, out=out, batch=batch)
    before = _processor()
    end = rollout(config, lambda done, planned: None, note)
    if end.results is None or end.errors:
        raise ThroughputError(f"vlamem rollout ended after {end.done} of {end.planned} episodes, {end.errors} errors")
    beside = [r for r in records if (r.task, r.episode // batch) == (records[0].task, records[0].episode // batch)]
    seconds = finished[-1] - finished[0] + sum(float(r.wall_clock["seconds"]) for r in beside)
    if arena.built_inside:
        seconds = float(end.results[WALL_CLOCK]["seconds"])
    title = f"vlamem rollout, {render}, {bench.workers} worker(s), batches of {batch}"
    successes = {(r.task, r.episode): r.outcome == "success" for r in records}
    return Run(title, seconds, successes, _processor() - before)


def play_lerobot(bench: ThroughputBench, arena: Arena, batch: int, reset: Reset = "hard") -> Run:
    """lerobot-eval over an arena with `batch` environments. Raises ThroughputError when it fails."""
    libero = arena.suite != "tabletop"
    folder = bench.out / arena.suite / f"lerobot-{batch}-{reset}"
    folder.mkdir(parents=True)
    program = Path(sys.executable).with_name("lerobot-eval")
    words = [
        str(program), "--policy.type=vlamem", f"--policy.inner={arena.policy}",
        f"--policy.n_action_steps={bench.execute}", "--policy.device=cpu", "--policy.push_to_hub=false",
        *(_libero(bench, arena, reset) if libero else _tabletop(bench, arena)),
        f"--eval.n_episodes={arena.episodes}", f"--eval.batch_size={batch}",
        f"--eval.use_async_envs={'true' if batch > 1 else 'false'}", "--seed=0", f"--output_dir={folder / 'eval'}",
    ]  # fmt: skip
    environment = os.environ | (dict.fromkeys(("MUJOCO_GL", "PYOPENGL_PLATFORM"), gl.choose().name) if libero else {})
    before = _processor()
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL)
    (folder / "log.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    processor = _processor() - before if batch == 1 else None  # nobody waits for processes of a vectorised environment
    report = folder / "eval" / "eval_info.json"
    if done.returncode or not report.is_file():
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ThroughputError(f"lerobot-eval with {batch} environments ended with {done.returncode}:\n{last}")
    body = json.loads(report.read_text(encoding="utf-8"))
    names = list(load_suite(arena.suite).tasks) if libero else arena.tasks
    won = {
        (names[entry["task_id"]], episode): bool(success)
        for entry in body["per_task"]
        for episode, success in enumerate(entry["metrics"]["successes"])
    }
    kind = "in one process" if batch == 1 else "in processes of their own"
    title = f"lerobot-eval, {batch} environment(s) {kind}" + (f", {reset} resets" if libero else "")
    return Run(title, float(body["overall"]["eval_s"]), won, processor)


def _tabletop(bench: ThroughputBench, arena: Arena) -> list[str]:
    return ["--env.type=vlamem_tabletop", f"--env.task={','.join(arena.tasks)}", f"--env.size={bench.size}"]


def _libero(bench: ThroughputBench, arena: Arena, reset: Reset) -> list[str]:
    names = list(load_suite(arena.suite).tasks)
    return [
        "--env.type=libero", f"--env.task={arena.suite}", f"--env.task_ids={[names.index(t) for t in arena.tasks]}",
        f"--env.observation_height={bench.size}", f"--env.observation_width={bench.size}",
        f"--env.hard_reset={'true' if reset == 'hard' else 'false'}", "--policy.observation=libero",
    ]  # fmt: skip


def profiled_batch(bench: ThroughputBench, arena: Arena) -> int:
    """Episodes side by side in `profile`: as in the run, if there are so many."""
    return min(bench.batch, arena.profiled, arena.episodes)


def profile(bench: ThroughputBench, arena: Arena, render: RenderProfile) -> tuple[dict[str, float], int]:
    """Share of each part in the time of `vlamem rollout`'s episodes, and the control steps that were timed.

    Raises ThroughputError when an episode ended as an error.
    """
    home = "vlamem.sim.bench.throughput.parts"
    batch = profiled_batch(bench, arena)
    config = configuration(bench, arena, suite=f"{home}:SUITE", policy=f"{home}:policy", render=render, batch=batch)
    parts.begin(arena.policy, arena.suite)
    player = Player(config, lambda: None)
    total, steps = 0.0, 0
    seconds = dict.fromkeys(parts.PARTS, 0.0)
    for task in arena.tasks:
        later = range(arena.episodes, arena.episodes + batch)
        player.play_together(task, later)  # scenes are built and caches are filled before the clock starts
        parts.SECONDS.clear()
        for first in range(0, arena.profiled, batch):
            for record in player.play_together(task, range(first, min(first + batch, arena.profiled))):
                if record.error is not None:
                    raise ThroughputError(f"{task} {record.episode}: {record.error}")
                total += float(record.wall_clock["seconds"])
                steps += record.steps
        for name in parts.PARTS:
            seconds[name] += parts.SECONDS[name]
    player.close()
    shares = {name: seconds[name] / total for name in parts.PARTS}
    return shares | {"rest": max(0.0, 1.0 - sum(shares.values()))}, steps
