"""Labels of the episodes that a controller drives: the operator's from the panel, a simulated task's own."""

import threading
from collections.abc import Callable
from typing import Literal, Protocol

Outcome = Literal["success", "failure"]
_OUTCOMES: dict[str, Outcome] = {"success": "success", "failure": "failure"}


class _Link(Protocol):
    def label(self, episode: int, outcome: Outcome, source: str = "operator") -> str: ...


class _Recorder(Protocol):
    def label(self, episode: int, outcome: Outcome) -> None: ...


class EpisodeLabels:
    """Passes labels on to the link and to a recording; of an episode that the operator labelled the task says nothing.

    The operator's come from threads of the panel while episodes end and begin: each is of one episode, for link and
    recording alike.

    Args:
        link: to the server; has a label on the robot's disk when it returns.
        running: the number of the episode that runs or has just ended, 0 before the first.
        recorder: of the run; None where nothing is recorded.
    """

    def __init__(self, link: _Link, running: Callable[[], int], recorder: _Recorder | None = None) -> None:
        self._link, self._running, self._recorder = link, running, recorder
        self._lock = threading.Lock()
        self._by_operator: set[int] = set()

    def by_operator(self, outcome: str) -> str:
        """Labels the episode that runs or has just ended a "success" or a "failure"; the label's id.

        Raises ValueError for another outcome or before the first episode, OSError when the robot's disk is full.
        """
        if outcome not in _OUTCOMES:
            raise ValueError(f"outcome {outcome[:40]!r}: expected 'success' or 'failure'")
        with self._lock:
            episode = self._running()
            if not episode:
                raise ValueError("no episode has begun: a label is for the one that runs or has just ended")
            name = self._add(episode, _OUTCOMES[outcome], "operator")
            self._by_operator.add(episode)
            return name

    def by_task(self, episode: int, outcome: Outcome) -> None:
        """The verdict of a simulated task, unless the operator has labelled the episode. Raises OSError likewise."""
        with self._lock:  # the newest label counts: the operator's must not come between question and answer
            if episode not in self._by_operator:
                self._add(episode, outcome, "task")

    def _add(self, episode: int, outcome: Outcome, source: str) -> str:
        name = self._link.label(episode, outcome, source)
        if self._recorder is not None:
            self._recorder.label(episode, outcome)
        return name
