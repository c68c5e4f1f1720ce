"""Runs a policy over the tasks of a suite, in simulation.

Prints a table of success rates with Wilson 95 % intervals and leaves results.json, episodes.jsonl and videos in the run
folder. Stopped by Ctrl-C, a kill or a full disk, it is continued by the same command.

Example: vlamem rollout --tasks touch push --policy tiny --episodes 50 --workers 2 --video 2 --out runs/skills

Exit status: 0 done, 1 some episodes ended as errors, 2 not possible as asked, 130 or 143 stopped.
"""

from rich.console import Console
from tqdm import tqdm

from vlamem.scripts.config import complain, load_config
from vlamem.sim.results.episodes import DiskFullError, EpisodeRecord
from vlamem.sim.results.summary import table
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.run import rollout

_WIDEST = 10_000
"""Columns that a table may need."""


def main(arguments: list[str]) -> int:
    """`vlamem rollout`."""
    config = load_config(RolloutConfig, "rollout", arguments, __doc__)
    with tqdm(unit="episode", desc=f"{config.policy} on {config.suite}", dynamic_ncols=True) as bar:
        successes = 0

        def begin(done: int, planned: int) -> None:
            bar.reset(planned)
            bar.update(done)

        def progress(record: EpisodeRecord) -> None:
            nonlocal successes
            successes += record.outcome == "success"
            bar.set_postfix_str(
                f"{successes} successes, {record.task} {record.episode} {record.outcome}", refresh=False
            )
            bar.update()
            if record.error:
                bar.write(f"{record.task} {record.episode}: {record.error}")

        try:
            end = rollout(config, begin, progress)
        except DiskFullError as error:
            bar.close()
            complain("rollout", f"{error}; all finished episodes are kept, the same command continues")
            return 1
    if end.results is None:
        why = f" by signal {end.signal}" if end.signal else ""
        complain(
            "rollout",
            f"stopped{why}: {end.done} of {end.planned} episodes are kept in {config.out}, the same command continues",
        )
        return 128 + end.signal if end.signal else 1
    console = Console()
    shown = table(end.results)
    console.width = max(console.width, Console(width=_WIDEST).measure(shown).maximum)
    console.print(shown)
    rendering = end.results["fingerprint"]["gl"]
    if rendering and rendering["software"]:
        console.print(f"rendered in software: {rendering['renderer']}", highlight=False)
    console.print(f"results: {config.out / 'results.json'}", highlight=False, soft_wrap=True)
    if end.errors:
        complain(
            "rollout",
            f"{end.errors} of {end.planned} episodes ended as errors (see {config.out / 'episodes.jsonl'}); "
            "--retry-errors runs them again",
        )
        return 1
    return 0
