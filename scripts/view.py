"""Shows an episode in the viewer Rerun: cameras, the hand's path, plans in space, and what memory did over time.

RUN is the --out of a rollout or the --state of a server. Without --live the episode is written as a .rrd file, which
'rerun FILE' opens. With --live a viewer is opened, or the one at --connect is used, and gets each episode of a rollout
when it has ended, and each control step of an episode that a server serves.

Example: vlamem view runs/aura --task recall_colour --episode 3

Exit status: 0 done, 2 not possible as asked, 130 stopped by Ctrl-C.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from vlamem.scripts.config import parse
from vlamem.sim.report.runs import find_episode, read_runs


@dataclass(frozen=True)
class Options:
    """Which episode, and where it is shown."""

    run: tyro.conf.Positional[Path]
    """Run folder, or the state folder of a server."""
    task: str | None = None
    """Task of the episode, or session of a served one; not needed where there is one alone."""
    episode: int | None = None
    """Number of the episode; the first failure when not given."""
    out: Path | None = None
    """The .rrd file; TASK-EPISODE.rrd in the run folder when not given."""
    live: bool = False
    """Follow the run in a viewer, until Ctrl-C."""
    connect: str | None = None
    """Viewer that is open already, for --live, e.g. rerun+http://127.0.0.1:9876/proxy; one is opened when not given."""


def main(arguments: list[str]) -> int:
    """`vlamem view`."""
    options = parse(Options, "view", arguments, __doc__)
    from vlamem.sim.report.viewer import follow, write_recording

    if options.live:
        where = options.connect
        for name in follow(options.run, lambda stream: stream.connect_grpc(where) if where else stream.spawn()):
            print(f"view: {name}", flush=True)
        return 0
    if options.connect is not None:
        raise ValueError("--connect is where --live shows a run: add --live, or leave it out to write a file")
    (run,) = read_runs([options.run])
    record = find_episode(run, options.task, options.episode)
    out = options.out or options.run / f"{record.task}-{record.episode:04d}.rrd"
    write_recording(run, record, out)
    print(f"view: {out} ({out.stat().st_size / 1e6:.1f} MB); open it with: rerun {out}")
    return 0
