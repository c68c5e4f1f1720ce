"""The page of `vlamem bench throughput`: one section for each part."""

from collections.abc import Mapping, Sequence

from vlamem.sim.bench.throughput.options import ThroughputBench
from vlamem.sim.bench.throughput.runs import Arena, Run, profiled_batch
from vlamem.sim.results.pages import Figure
from vlamem.sim.results.statistics import PairedDifference, paired_difference, wilson95

TITLE = "# Episodes an hour"
_TABLETOP = (
    "Timed from the first reset to the end of the last episode. lerobot-eval runs the policy through its plugin and",
    "films the first ten episodes of each task, as it always does; `vlamem rollout` films on request.",
)
_LIBERO = (
    "lerobot-eval plays lerobot's own LIBERO environment, at the same image size, and shows the policy what the suite",
    "shows it (`--policy.observation=libero`). It builds scenes under its clock, hard resets (its default) anew for",
    "each episode, soft resets once an environment; imports are before its clock. The clock of `vlamem rollout` has",
    "the start of its processes, imports, weights and scenes in it, so that its rate is a lower bound. lerobot-eval",
    "draws both cameras at every control step, `vlamem rollout` where a plan is due. `faithful` draws what lerobot's",
    "environment draws: its success is on equal pixels.",
)


def between(first: Run, second: Run) -> PairedDifference:
    """Success of `first` minus that of `second`. Raises KeyError unless both have the same tasks and states."""
    keys = sorted(first.successes)
    return paired_difference([first.successes[k] for k in keys], [second.successes[k] for k in keys])


def rate(run: Run) -> Figure:
    """Its success."""
    return Figure.rate(sum(run.successes.values()), len(run.successes))


def section(
    bench: ThroughputBench,
    arena: Arena,
    ours: Sequence[Run],
    theirs: Sequence[Run],
    shares: Mapping[str, Mapping[str, float]],
    steps: Mapping[str, int],
) -> list[str]:
    """The lines of one arena: each run, differences of success, and where the time goes by render profile."""
    fastest = max(theirs, key=lambda r: r.hourly)
    lines = [
        f"## {arena.suite}",
        "",
        f"Policy `{arena.policy}` without a memory on {', '.join(arena.tasks)}: the same initial states, sentences,",
        f"{bench.size}-pixel images and {bench.execute} actions a chunk, one program after the other on one machine.",
        *(_LIBERO if arena.built_inside else _TABLETOP),
        "",
        "| program | episodes | seconds | episodes an hour | success (95 % interval) | ratio | processor seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in (*ours, *theirs):
        won, n = sum(one.successes.values()), len(one.successes)
        low, high = wilson95(won, n)
        lines.append(
            f"| {one.title} | {n} | {one.seconds:.1f} | {one.hourly:.0f} | {100 * won / n:.0f} % "
            f"({100 * low:.0f} to {100 * high:.0f}) | {ours[0].hourly / one.hourly:.2f} | "
            f"{'' if one.processor is None else f'{one.processor:.0f}'} |"
        )
    lines += [
        "",
        "The ratio is of the first line to each. Processor seconds are of all processes from their start, imports and",
        "scenes included; processes of a vectorised environment leave no account of theirs. Where other programs ran",
        "on the machine they are the better measure: the clock shares its time with those. Noise is drawn from",
        "different streams.",
        "",
    ]
    for one in ours:
        difference = between(one, fastest)
        low, high = difference.ci95
        lines.append(
            f"- Success, {one.title} minus {fastest.title}: {100 * difference.value:+.0f} points ({100 * low:+.0f} to "
            f"{100 * high:+.0f}), n {difference.n}, p {difference.p:.2f}."
        )
    counted = ", ".join(f"{n} control steps {name}" for name, n in steps.items())
    lines += [
        "",
        "Where the time of an episode goes in `vlamem rollout`, in one process, "
        f"batches of {profiled_batch(bench, arena)} ({counted}):",
        "",
        f"| part | {' | '.join(shares)} |",
        f"| --- | {' | '.join('---' for _ in shares)} |",
    ]
    first = next(iter(shares.values()))
    lines += [f"| {part} | {' | '.join(f'{100 * s[part]:.0f} %' for s in shares.values())} |" for part in first]
    return lines
