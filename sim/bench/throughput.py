"""Episodes an hour of `vlamem rollout` and of lerobot-eval: same policy, tasks, initial states, machine and renderer.

Both clocks run from the first reset to the end of the last episode: imports and the building of scenes are left out.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlamem.sim.bench import throughput_parts as parts
from vlamem.sim.bench.throughput_options import ThroughputBench
from vlamem.sim.episode import Player
from vlamem.sim.plan import RolloutConfig
from vlamem.sim.recording import EpisodeRecord
from vlamem.sim.results import Figure, write_result_page
from vlamem.sim.rollout import rollout
from vlamem.sim.statistics import PairedDifference, paired_difference, wilson95
from vlamem.sim.suite import load_suite, select_tasks

_HOUR = 3600.0


class ThroughputError(RuntimeError):
    """A run that did not finish; the message says which and shows its last lines."""


@dataclass(frozen=True)
class Run:
    """What one program did.

    Attributes:
        title: as the page calls it.
        seconds: from the first reset to the end of the last episode.
        successes: by (task, initial state).
    """

    title: str
    seconds: float
    successes: Mapping[tuple[str, int], bool]

    @property
    def hourly(self) -> float:
        """Episodes an hour."""
        return _HOUR * len(self.successes) / self.seconds


def run(bench: ThroughputBench, command: str, say: Callable[[str], None]) -> tuple[Path, Path]:
    """Measures both programs and writes throughput.md and throughput.json, with the `command`; returns the two files.

    Raises ThroughputError when a run breaks off, and what `rollout` raises.
    """
    tasks = select_tasks(load_suite("tabletop"), bench.tasks)
    shutil.rmtree(bench.out, ignore_errors=True)
    theirs = []
    for batch in bench.batches:
        say(f"lerobot-eval, {batch} environments")
        theirs.append(_lerobot(bench, tasks, batch))
    say("vlamem rollout")
    ours = _ours(bench, tasks)
    say("where the time goes")
    shares, steps = _profile(bench, tasks)
    fastest = max(theirs, key=lambda r: r.hourly)
    keys = sorted(ours.successes)
    difference = paired_difference([ours.successes[k] for k in keys], [fastest.successes[k] for k in keys])
    page = _page(bench, ours, theirs, shares, steps, difference)
    rate = Figure.rate(sum(ours.successes.values()), len(keys))
    figures = {
        "ratio_tabletop": Figure(ours.hourly / fastest.hourly, len(keys)),
        "episodes_per_hour": Figure(ours.hourly, len(keys)),
        "episodes_per_hour_lerobot": Figure(fastest.hourly, len(keys)),
        "success": rate,
        "success_lerobot": Figure.rate(sum(fastest.successes.values()), len(keys)),
        **{f"share_{name}": Figure(share, steps) for name, share in shares.items()},
    }
    return write_result_page("throughput", command, figures, page, bench.results)


def _configuration(bench: ThroughputBench, tasks: tuple[str, ...], **changes: Any) -> RolloutConfig:
    options: dict[str, Any] = {
        "suite": "tabletop", "tasks": tasks, "policy": bench.policy, "memory": "none", "episodes": bench.episodes,
        "seed": 0, "out": bench.out / "vlamem", "workers": bench.workers, "video": 0, "split": "test",
        "wording": "training", "size": bench.size, "render": "fast", "execute": bench.execute, "parameters": (),
        "watchdog_s": 600.0, "retry_errors": False,
    }  # fmt: skip
    return RolloutConfig(**options | changes)


def _ours(bench: ThroughputBench, tasks: tuple[str, ...]) -> Run:
    records: list[EpisodeRecord] = []
    finished: list[float] = []

    def note(record: EpisodeRecord) -> None:
        records.append(record)
        finished.append(time.perf_counter())

    end = rollout(_configuration(bench, tasks), lambda done, planned: None, note)
    if end.results is None or end.errors:
        raise ThroughputError(f"vlamem rollout ended after {end.done} of {end.planned} episodes, {end.errors} errors")
    first = finished[0] - float(records[0].wall_clock["seconds"])
    return Run("vlamem rollout", finished[-1] - first, {(r.task, r.episode): r.outcome == "success" for r in records})


def _lerobot(bench: ThroughputBench, tasks: tuple[str, ...], batch: int) -> Run:
    folder = bench.out / f"lerobot-{batch}"
    folder.mkdir(parents=True)
    program = Path(sys.executable).with_name("lerobot-eval")
    words = [
        str(program), "--policy.type=vlamem", f"--policy.inner={bench.policy}",
        f"--policy.n_action_steps={bench.execute}", "--policy.device=cpu", "--policy.push_to_hub=false",
        "--env.type=vlamem_tabletop", f"--env.task={','.join(tasks)}", f"--env.size={bench.size}",
        f"--eval.n_episodes={bench.episodes}", f"--eval.batch_size={batch}",
        f"--eval.use_async_envs={'true' if batch > 1 else 'false'}", "--seed=0", f"--output_dir={folder / 'eval'}",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    (folder / "log.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    report = folder / "eval" / "eval_info.json"
    if done.returncode or not report.is_file():
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ThroughputError(f"lerobot-eval with {batch} environments ended with {done.returncode}:\n{last}")
    body = json.loads(report.read_text(encoding="utf-8"))
    won = {
        (tasks[entry["task_id"]], episode): bool(success)
        for entry in body["per_task"]
        for episode, success in enumerate(entry["metrics"]["successes"])
    }
    kind = "in one process" if batch == 1 else "in processes of their own"
    return Run(f"lerobot-eval, {batch} environment(s) {kind}", float(body["overall"]["eval_s"]), won)


def _profile(bench: ThroughputBench, tasks: tuple[str, ...]) -> tuple[dict[str, float], int]:
    """Share of each part in the time of `vlamem rollout`'s episodes, and the control steps that were timed."""
    home = "vlamem.sim.bench.throughput_parts"
    config = _configuration(bench, tasks, suite=f"{home}:SUITE", policy=f"{home}:policy")
    parts.begin(bench.policy)
    player = Player(config, lambda: None)
    for task in tasks:  # scenes are built and caches filled before the clock starts
        player.play(task, bench.episodes)
    parts.SECONDS.clear()
    total, steps = 0.0, 0
    for task in tasks:
        for episode in range(bench.profile_episodes):
            record = player.play(task, episode)
            if record.error is not None:
                raise ThroughputError(f"{task} {episode}: {record.error}")
            total += float(record.wall_clock["seconds"])
            steps += record.steps
    player.close()
    shares = {name: parts.SECONDS[name] / total for name in parts.PARTS}
    return shares | {"rest": max(0.0, 1.0 - sum(shares.values()))}, steps


def _page(
    bench: ThroughputBench,
    ours: Run,
    theirs: list[Run],
    shares: Mapping[str, float],
    steps: int,
    difference: PairedDifference,
) -> str:
    lines = [
        "# Episodes an hour",
        "",
        f"Policy `{bench.policy}` without a memory on {', '.join(bench.tasks)}: the same initial states, sentences,",
        f"renderer, {bench.size}-pixel images and {bench.execute} actions a chunk, one after the other on one machine.",
        "Timed from the first reset to the end of the last episode. lerobot-eval runs the policy through its plugin",
        "and films the first ten episodes of each task, as it always does; `vlamem rollout` films on request.",
        "",
        "| program | episodes | seconds | episodes an hour | success (95 % interval) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in (ours, *theirs):
        won, n = sum(one.successes.values()), len(one.successes)
        low, high = wilson95(won, n)
        title = f"{one.title}, {bench.workers} worker(s)" if one is ours else one.title
        lines.append(
            f"| {title} | {n} | {one.seconds:.1f} | {one.hourly:.0f} | "
            f"{100 * won / n:.0f} % ({100 * low:.0f} to {100 * high:.0f}) |"
        )
    low, high = difference.ci95
    lines += [
        "",
        f"Success, `vlamem rollout` minus the fastest lerobot-eval on the same initial states: "
        f"{100 * difference.value:+.0f} points ({100 * low:+.0f} to {100 * high:+.0f}), n {difference.n}, "
        f"p {difference.p:.2f}. Noise is drawn from different streams.",
        "",
        f"Where the time of an episode goes in `vlamem rollout`, {steps} control steps in one process:",
        "",
        "| part | share |",
        "| --- | --- |",
        *(f"| {name} | {100 * share:.0f} % |" for name, share in shares.items()),
    ]
    return "\n".join(lines)
