"""The progress bar of benches that play episodes, arm after arm."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from vlamem.scripts.config import complain

if TYPE_CHECKING:
    from vlamem.sim.bench.play import Begin, Progress
    from vlamem.sim.results.episodes import EpisodeRecord


def play_with_bar(verb: str, play: "Callable[[Begin, Progress], tuple[Path, Path]]") -> int:
    """Plays under a bar that starts anew with each arm, and prints the two files of the page.

    The exit status: 0, or 1 with a line on standard error when `play` was interrupted.
    """
    from vlamem.sim.bench.play import BenchStoppedError

    with tqdm(unit="episode") as bar:

        def begin(title: str, done: int, planned: int) -> None:
            bar.reset(planned)
            bar.set_description(title)
            bar.update(done)
            bar.refresh()

        def progress(record: "EpisodeRecord") -> None:
            bar.update()

        try:
            page, twin = play(begin, progress)
        except BenchStoppedError as error:
            complain(verb, f"{error}; the same command continues")
            return 1
    print(f"{page}\n{twin}")
    return 0
