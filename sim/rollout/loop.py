"""The loop that drives environments and a policy, which rollouts, recordings, trials and tuning have in common."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.sim.results.episodes import DiskFullError
from vlamem.sim.rollout.hooks import EpisodeHooks
from vlamem.sim.rollout.row import Row, seen_by

WARM_UP = 3
"""The first decisions of each loop, left out of latencies: caches are cold and libraries load lazily."""


class EpisodeLoop:
    """Plays rows side by side: their memories and policy take all that still go on in one forward pass.

    Without a runner the environments' scripted experts act.
    """

    def __init__(
        self,
        runner: ChunkRunner | None,
        hooks: Sequence[EpisodeHooks] = (),
        beat: Callable[[], None] = lambda: None,
        broke: Callable[[Row], None] | None = None,
    ) -> None:
        """`beat` is called after every control step.

        `broke` is called for a row that ended as an error, and the others go on; without it, errors are raised.
        """
        self.runner, self.hooks = runner, list(hooks)
        self._beat, self._broke = beat, broke
        self._passes = 0

    def play(self, rows: Sequence[Row]) -> None:
        """Plays one episode in each row to its end. The rows' indices are those of the runner.

        What an environment raises ends its episode, and what policy or memory raise all that are still played.
        """
        for row in rows:
            with self._blamed([row]):
                for hook in self.hooks:
                    hook.before_reset(row)
                self._reset(row)
                for hook in self.hooks:
                    hook.episode_began(row)
        while playing := [row for row in rows if not row.ended]:
            for row in playing:  # all observe before any is planned: they share one forward pass
                with self._blamed([row]):
                    self._look(row, self.hooks)
            if self.runner is not None and (playing := [row for row in playing if not row.ended]):
                with self._blamed(playing):
                    self._think(playing, self.hooks)
            for row in playing:
                if not row.ended:
                    with self._blamed([row]):
                        self._go_on(row)

    def rehearse(self, row: Row, until: Callable[[Row], bool]) -> None:
        """Plays a row up to a control step at which `until` says so, or to its end; see HookContext."""
        hooks = [hook for hook in self.hooks if hook.in_rehearsal]
        self._reset(row)
        for hook in hooks:
            hook.episode_began(row)
        while not row.ended and not until(row):
            self._look(row, hooks)
            self._think([row], hooks)
            row.step(self._pop(row))
            self._beat()

    def _go_on(self, row: Row) -> None:
        """One control step of a row where a memory ticks, else all until the row is due or ends.

        Environments that take turns drive each other out of the processor's cache: physics then takes a third longer.
        """
        while True:
            action = self._pop(row) if self.runner else row.env.expert_action()
            for hook in self.hooks:
                action = hook.act(row, action)
            info = row.step(action)
            for hook in self.hooks:
                hook.stepped(row, action, info)
            self._beat()
            if row.ended:
                for hook in self.hooks:
                    hook.episode_ended(row)
                return
            if self.runner and (self.runner.policy.ticks or self._due(row)):
                return
            self._look(row, self.hooks)

    @contextmanager
    def _blamed(self, rows: Sequence[Row]) -> Iterator[None]:
        """Whatever is raised inside ends the episodes of `rows` as errors; a full disk ends the run."""
        try:
            yield
        except DiskFullError:
            raise
        except Exception as error:  # an environment can raise anything; the run goes on and says so
            if self._broke is None:
                raise
            for row in rows:
                row.fail(error)
                self._broke(row)

    def _reset(self, row: Row) -> None:
        """Starts an episode."""
        row.reset()
        if self.runner is not None:
            mask = np.arange(self.runner.policy.rows) == row.index
            self.runner.reset(mask, [row.start.noise] * len(mask))  # of the masked row alone
            row.progress["state_bytes"] = self.runner.policy.state_bytes
        if row.index:
            self._beat()  # many environments take as long as many steps

    def _look(self, row: Row, hooks: Sequence[EpisodeHooks]) -> None:
        """What a row sees in this control step, where its memory or a plan wants it."""
        row.look(self.runner is not None and (self.runner.policy.ticks or self._due(row)))
        for hook in hooks:
            hook.before_tick(row)

    def _think(self, rows: Sequence[Row], hooks: Sequence[EpisodeHooks]) -> None:
        """One control step of the rows' memories, where these tick, and the plans that are due.

        Times of encoding, memory and sampling are divided over the rows of a pass and kept after warm-up.
        """
        runner = self.runner
        assert runner is not None
        at = np.array([row.index for row in rows])
        tick, shared = None, 0.0
        if runner.policy.ticks:
            seen = seen_by(rows)
            began = time.perf_counter()
            tick = runner.observe(seen, at)
            shared = (time.perf_counter() - began) / len(rows)
            for row, wrote in zip(rows, tick.wrote, strict=True):
                row.progress["writes"] += int(wrote)
                row.progress["ticks"] += 1
                for hook in hooks:
                    hook.after_tick(row, tick)
        due = runner.due(at)
        if due.size:
            planned = [row for row in rows if row.index in due]
            wanted = tick or seen_by(planned)  # a tick has all rows encoded; without one only these are encoded
            began = time.perf_counter()
            decision = runner.plan(due, wanted)
            # a row's share of the pass: else latency would grow with the batch while the machine does more a second
            took = shared + (time.perf_counter() - began) / len(planned)
            self._passes += 1
            for i, (row, weight) in enumerate(zip(planned, decision.weight.tolist(), strict=True)):
                row.decided(weight, 1e3 * took if self._passes > WARM_UP else None)
                for hook in hooks:
                    hook.planned(row, i, decision)

    def _due(self, row: Row) -> bool:
        """Whether a row has no action left."""
        return self.runner is not None and bool(self.runner.due(np.array([row.index])).size)

    def _pop(self, row: Row) -> np.ndarray:
        """The next action of a row."""
        assert self.runner is not None
        action: np.ndarray = self.runner.pop(np.array([row.index]))[0]
        return action
