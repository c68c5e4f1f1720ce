"""The trials of a residual prior in a store, and the offset that they make known."""

from collections.abc import Sequence

from vlamem.memory.success.experience.layout import Layout
from vlamem.memory.success.experience.records import StoredTrial
from vlamem.memory.success.retrieve.residual import Residual, ResidualOptions, residual_prior
from vlamem.memory.success.store.interface import SuccessStore


class Trials:
    """Trials of one origin; what they say of the next one is made when one is stored, so that no plan waits for it.

    Args:
        store, origin: where they are.
        layout: of the origin.
        options: how a residual prior is learned.
    """

    def __init__(self, store: SuccessStore, origin: int, layout: Layout, options: ResidualOptions) -> None:
        self._store, self._origin, self._layout, self._options = store, origin, layout, options
        self._known: tuple[bool, Residual] | None = None

    def residual(self, explore: bool) -> Residual:
        """What the next trial is to be played with; see `retrieve.residual`."""
        known = self._known
        return self._learn(explore) if known is None or known[0] != explore else known[1]

    def _learn(self, explore: bool) -> Residual:
        trials = self._store.trials(self._origin)
        found = residual_prior(trials, self._layout, self._options, explore)
        self._known = explore, found
        return found

    def add(self, trial: StoredTrial) -> None:
        """Stores a trial, in the place of one of the same identity. Raises EntryError, and what the store raises."""
        trial.check(self._layout)
        self._store.add_trials(self._origin, [trial])
        if self._known is not None:
            self._learn(self._known[0])

    def delete(self, identities: Sequence[str]) -> None:
        """Deletes trials by identity. Raises what the store raises."""
        self._store.delete_trials(self._origin, identities)
        self.forget()

    def forget(self) -> None:
        """Others may have changed the store: what is known is made again when it is asked for."""
        self._known = None
