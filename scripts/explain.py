"""Says in words why memory wrote or stayed silent in an episode, and why it proposed something or abstained.

RUN is the --out of a rollout or the --state of a server, whose tasks are its sessions. With --step one control step is
explained: what the gate and the proposals were held against, which stored segments are behind them. With --without
FIRST LAST the plan in force at that step is made again, as if memory had not seen those steps; the run's policy and
simulator play the episode up to there, with the recorded commands.

Example: vlamem explain runs/aura --task recall_colour --episode 3 --step 60 --without 4 9

Exit status: 0 explained, 2 not possible as asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from vlamem.core.tick_trace import TickTrace
from vlamem.scripts.config import parse
from vlamem.sim.report.explain import explain_episode, explain_step, segments_of
from vlamem.sim.report.runs import ReportError, Run, find_episode, read_runs
from vlamem.sim.results.episodes import EpisodeRecord

_SEGMENTS = 12
"""Stored segments that are listed."""
_FAITHFUL = 1e-3
"""Difference of commands up to which an episode that was played again is the recorded one."""


@dataclass(frozen=True)
class Options:
    """Which episode, and which step of it."""

    run: tyro.conf.Positional[Path]
    """Run folder, or the state folder of a server."""
    task: str | None = None
    """Task of the episode, or session of a served one; not needed where there is one alone."""
    episode: int | None = None
    """Number of the episode; the first failure when not given."""
    step: int | None = None
    """Control step to be explained; the whole episode when not given."""
    without: tuple[int, int] | None = None
    """First and last step that memory is not to see, for another plan at --step."""


def main(arguments: list[str]) -> int:
    """`vlamem explain`."""
    options = parse(Options, "explain", arguments, __doc__)
    (run,) = read_runs([options.run])
    record = find_episode(run, options.task, options.episode)
    trace = run.trace(record)
    if trace is None or not trace.rows:
        note = f" ({run.notes[-1]})" if run.notes else ""
        of = f"{record.task} {record.episode} of {options.run}"
        raise ReportError(f"{of} has no trace{note}: play it without --no-trace")
    seconds = f" ({record.steps / trace.about['control_hz']:.1f} s)" if trace.about.get("control_hz") else ""
    print(f"{record.task} {record.episode}: {record.outcome} after {record.steps} steps{seconds}; memory {record.arm}")
    print(f'"{record.instruction}"')
    if record.error:
        print(record.error)
    for line in explain_episode(trace) if options.step is None else explain_step(trace, options.step):
        print(line)
    for line in _segments(trace, options.step):
        print(line)
    if record.verdict:
        print(f"the verifier's verdict on the episode: {record.verdict}; the memory holds {record.segments} segments")
    if options.without is not None:
        for line in _without(run, record, trace, options):
            print(line)
    return 0


def _segments(trace: TickTrace, step: int | None) -> Iterator[str]:
    """What the store still knows of the segments behind proposals."""
    from vlamem.memory.success.store import open_store

    for store, ids in segments_of(trace, step).items():
        path = Path(store.partition(":")[2] if store.startswith("sqlite:") else store)
        if not store or not path.is_file():
            where = store or "a store that the trace does not name"
            yield f"segments {' '.join(map(str, ids))} are of {where}, which is not here"
            continue
        stored = open_store(store, read_only=True)
        try:
            origins = [number for number, _, _ in stored.origins()]
            heads = {head.id: head for origin in origins for head in stored.episode_heads(origin)}
            known = {s.id: s for origin in origins for s in stored.segments(origin) if s.id in ids}
        finally:
            stored.close()
        for number in ids[:_SEGMENTS]:
            if number not in known:
                yield f"segment {number} is no longer in {path}: it was removed, or its label was taken back"
                continue
            segment = known[number]
            of = heads[segment.episode]
            yield (
                f"segment {number}: of {of.identity}, {of.outcome} by {of.verifier}; used {segment.uses} times, "
                f"{segment.successes} of them in a success"
            )
        if len(ids) > _SEGMENTS:
            yield f"and {len(ids) - _SEGMENTS} more segments of {path}"


def _without(run: Run, record: EpisodeRecord, trace: TickTrace, options: Options) -> Iterator[str]:
    """The plan in force at a step, had memory not seen some steps. Raises ReportError for steps that make no sense."""
    from vlamem.sim.rollout.counterfactual import config_of, replan

    if options.without is None or options.step is None:
        raise ReportError("--without changes a plan: give the --step at which it is in force")
    if not run.configuration:
        raise ReportError(f"{options.run} has no configuration to be played again: only a rollout's episode can be")
    first, last = options.without
    plan = max((row["step"] for row in trace.rows[: options.step + 1] if row.get("planned")), default=None)
    if plan is None or not 0 <= first <= last < plan:
        raise ReportError(f"--without {first} {last}: expected steps from 0 on and before the plan, at step {plan}")
    commands = trace.column("command")
    config = config_of(run.folder, run.configuration)
    here = config, record.task, record.episode, commands, plan
    before, after = replan(*here), replan(*here, unseen=range(first, last + 1))
    executed = [command for command in commands[plan : plan + config.execute] if command is not None]
    apart = float(np.abs(before.chunk[: len(executed)] - np.asarray(executed)).max())
    if apart > _FAITHFUL:
        yield f"played again, the plan differs by up to {apart:.2g} from the executed commands; of the replay:"
    changed = np.abs(after.chunk - before.chunk)
    for name in trace.memories:
        reason = after.columns.get(f"{name}.abstained") or "it would still have proposed something"
        yield f"without steps {first} to {last}, {name}: {reason}"
    if not changed.any():
        yield f"without steps {first} to {last} the plan at step {plan} would have been the same"
        return
    yield (
        f"without steps {first} to {last} the plan at step {plan} would have differed by {changed.mean():.2g} an "
        f"entry, by {changed.max():.2g} at most; its first action:"
    )
    for what, chunk in (("as it was", before.chunk), ("without", after.chunk)):
        yield f"  {what:<10}" + " ".join(f"{value:6.2f}" for value in chunk[0])
