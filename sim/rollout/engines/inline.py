"""Plays in this process, without a watchdog: what hangs or dies takes this process with it."""

import sys
from collections.abc import Callable, Generator, Sequence

from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.engines.protocol import RunRefusedError
from vlamem.sim.rollout.episode import Player
from vlamem.sim.rollout.trials import Job


class InlineEngine:
    """See the module."""

    def play(
        self, config: RolloutConfig, jobs: Sequence[Job], stopped: Callable[[], bool]
    ) -> Generator[list[EpisodeRecord]]:
        """As Engine says."""
        if not jobs:
            return
        try:
            player = Player(config, lambda: None)
            player.check(jobs[0][0])
        except (ValueError, TypeError, OSError) as error:
            raise RunRefusedError(str(error)) from error
        torch = sys.modules.get("torch")
        threads = 1 if torch is None else torch.get_num_threads()
        try:
            if torch is not None:
                torch.set_num_threads(1)  # as a worker: sums come out in one order
            for task, episodes in jobs:
                if stopped():
                    return
                try:
                    records = player.play_together(task, episodes)
                except (ValueError, TypeError) as error:
                    raise RunRefusedError(str(error)) from error
                yield records
        finally:
            if torch is not None:
                torch.set_num_threads(threads)
            player.close()


ENGINE = InlineEngine()
