"""Success memory: verified successes in a store, retrieved by similarity of state, proposed as action priors."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from vlamem.core.proposal import Proposal
from vlamem.memory.success.experience.episode import Episode
from vlamem.memory.success.experience.layout import EntryError, Layout, Origin, OriginError
from vlamem.memory.success.experience.records import Committed, Merge, SegmentColumns, StoredTrial
from vlamem.memory.success.experience.trace import Trace, Verdict
from vlamem.memory.success.lifecycle.capacity import victims
from vlamem.memory.success.lifecycle.duplicates import near_duplicates
from vlamem.memory.success.lifecycle.recorder import verified_episode
from vlamem.memory.success.lifecycle.trials import Trials
from vlamem.memory.success.options import MemoryOptions
from vlamem.memory.success.retrieve.abstention import AbstentionWatch, opening_note
from vlamem.memory.success.retrieve.calibration import Calibration
from vlamem.memory.success.retrieve.instructions import InstructionMatcher
from vlamem.memory.success.retrieve.metric import Metric
from vlamem.memory.success.retrieve.prior import Candidates, Prior, elite_prior
from vlamem.memory.success.retrieve.residual import Residual
from vlamem.memory.success.retrieve.segments import SegmentIndex
from vlamem.memory.success.store import StoreBusyError, StoreChangedError, StoreDamagedError, UndoingStore, open_store

__all__ = ["MemoryOptions", "SuccessMemory"]
_LOG = logging.getLogger(__name__)
_TRIES = 100
"""A commit is decided anew so often where other processes write meanwhile."""


class SuccessMemory:
    """The success memory of one origin (policy, weights, normaliser, robot).

    `query` retrieves; `observe_episode` and `commit` store verified episodes, from any thread. The store is the truth:
    the indices of successes and failures are rebuilt from it at opening, and checked against it.

    Args:
        address: of the store, made when missing: `sqlite:PATH` or a path; see `store.open_store`.
        origin, layout: policy and robot of the experience, and the meaning of its arrays.
        options: how it is kept.
        admit: let a second origin into a store that has another; the two are kept apart.

    Raises OriginError when the store holds another origin's experience and `admit` is False, EntryError when its arrays
    have another meaning, and the errors of `open_store`.
    """

    def __init__(
        self,
        address: str | Path,
        origin: Origin,
        layout: Layout,
        options: MemoryOptions | None = None,
        admit: bool = False,
    ) -> None:
        self.options = options or MemoryOptions()
        self.layout = layout
        self._lock = threading.RLock()  # held by whoever reads or changes the index, for moments
        self._writing = threading.RLock()  # held by whoever writes the store, for as long as the medium takes
        self.store = open_store(address, self.options.wait_s, self.options.read_only)
        try:
            if self.options.check:
                self.store.check()
            self.origin = self._find(origin, admit)
            self._load()
        except BaseException:
            self.store.close()
            raise
        self.last: tuple[Prior, ...] = ()
        self.trials = Trials(self.store, self.origin, layout, self.options.residual)
        self._watch = AbstentionWatch(self.store.name)
        if self.options.prior == "elite":
            note = opening_note(self.store.name, len(self), self.calibration is not None, self.retrieve.threshold)
            if note:
                _LOG.warning(note)

    def _find(self, origin: Origin, admit: bool) -> int:
        known = self.store.origins()
        for number, theirs, layout in known:
            if theirs == origin:
                if layout != self.layout:
                    raise EntryError(
                        f"{self.store.name} stores arrays as {layout.to_json()}, asked for {self.layout.to_json()}: "
                        "open it with the layout that it was made with; where the two differ in the quaternion, "
                        "?state=pose after a checkpoint declares a state of position, quaternion and opening"
                    )
                return number
        if known and not admit:
            known[0][1].check(origin, self.store.name, "what it is opened for")
            raise OriginError(f"{self.store.name} holds another origin")  # unreachable unless equality is changed
        return self.store.add_origin(origin, self.layout)

    def _load(self) -> None:
        """Builds the indices from the store."""
        body = self.store.calibration(self.origin) if self.options.calibrated else None
        self._calibration_body = body
        try:
            self.calibration = None if body is None else Calibration.from_json(body, self.layout)
        except EntryError as error:
            raise StoreDamagedError(
                f"{self.store.name}: what it stores as its calibration cannot be used ({error}); 'vlamem memory "
                "calibrate' replaces it, ?calibrated=false opens it without"
            ) from error
        retrieve = self.options.retrieve
        weight, centre = self.options.proprioception_weight, None
        if self.calibration is not None:
            retrieve = replace(retrieve, threshold=self.calibration.threshold)
            weight = self.calibration.proprioception_weight
            centre = None if self.calibration.centre is None else np.asarray(self.calibration.centre)
        self.retrieve = retrieve
        self.metric = Metric(self.layout, weight, centre)
        self.successes = SegmentIndex(self.metric)
        self.failures = SegmentIndex(self.metric)
        self._seen = 0
        self._data_version = self.store.data_version()
        self._take(self.store.columns(self.origin))

    def _take(self, stored: SegmentColumns) -> None:
        self.successes.add(stored.those(stored.success))
        self.failures.add(stored.those(~stored.success))
        self._seen = max(self._seen, int(stored.ids.max(initial=0)))
        self._instructions = InstructionMatcher(self.store.instructions(), self.retrieve.instruction)

    def close(self) -> None:
        """Closes the store."""
        self.store.close()

    def __enter__(self) -> "SuccessMemory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Segments of successes."""
        return len(self.successes)

    # Retrieval ----------------------------------------------------------------------------------------------------

    def query(
        self,
        key: Float[np.ndarray, "R K"],
        proprioception: Float[np.ndarray, "R P"],
        instruction: Sequence[str],
        meaning: Float[np.ndarray, "R C"] | None = None,
    ) -> Proposal:
        """What the memory proposes for R states; rows where it abstains have weight 0 and a chunk of zeros.

        `last` keeps the priors, with the segments that they were made of.

        Args:
            key: of the policy's encoding, unit length.
            proprioception: raw, as stored.
            instruction: one a row.
            meaning: the policy's vector of each instruction: with it a paraphrase finds what was stored under other
                words; without, an instruction finds its own words alone.

        Raises EntryError for keys of another size or values that are not finite.
        """
        keys, states = np.asarray(key, np.float32), np.asarray(proprioception, np.float32)
        self.layout.check_key(keys)
        self.layout.check_proprioception(states)
        if not len(keys) == len(states) == len(instruction):
            raise EntryError(f"{len(keys)} keys, {len(states)} states, {len(instruction)} instructions: give one a row")
        embedded = self.metric.embed(keys, states)
        with self._lock:
            self.last = tuple(
                self._prior(x, text, None if meaning is None else meaning[i])
                for i, (x, text) in enumerate(zip(embedded, instruction, strict=True))
            )
        self._watch.saw(self.last, len(self), self.retrieve.threshold)
        shape = (len(keys), self.layout.horizon, self.layout.action_size)
        chunks = np.zeros(shape, np.float32)
        for row, prior in enumerate(self.last):
            if prior.chunk is not None:
                chunks[row] = prior.chunk
        return Proposal.of_chunk(chunks, np.array([p.confidence for p in self.last], np.float32))

    def _prior(self, state: Float[np.ndarray, "D"], text: str, meaning: Float[np.ndarray, "C"] | None) -> Prior:
        allowed = self._instructions.matches(text, meaning)
        k, least = self.retrieve.neighbours, self.retrieve.threshold
        bad = none = Candidates.none(self.layout.horizon, self.layout.action_size)
        good = self.successes.nearest(state, k, allowed, least) if len(self.successes) else none
        known = len(good.ids) > 0 and good.similarity[0] >= least
        if known and self.retrieve.failures and len(self.failures):
            bad = self.failures.nearest(state, k, allowed, least)
        return elite_prior(good, bad, self.layout.parts, self.retrieve)

    def residual(self, explore: bool = False) -> Residual:
        """What is added to every command of the next trial, which is played to learn with `explore`; see `trials`."""
        return self.trials.residual(explore)

    def credit(self, used: Int[np.ndarray, "N"], success: bool) -> None:
        """Counts the outcome of an episode on the segments that were used in it. Raises as `commit`."""
        ids = np.unique(used)
        if len(ids):
            with self._writing:
                self.store.credit(ids, success)
                with self._lock:
                    self.successes.credit(ids, success)

    # Storage ------------------------------------------------------------------------------------------------------

    def episode_of(self, trace: Trace, verdict: Verdict, made: float | None = None) -> Episode | None:
        """What `observe_episode` would store; None when nothing may be stored."""
        when = time.time() if made is None else made
        return verified_episode(trace, verdict, self.layout, when, self.options.failure_segments)

    def observe_episode(self, trace: Trace, verdict: Verdict, made: float | None = None) -> Committed | None:
        """Stores what may be stored of an ended episode, then credits its outcome to the segments used in it.

        Of an episode whose outcome is unknown no segment is stored or credited; None when no segment was stored. With
        residual priors the trial itself is stored whatever its outcome.

        Args:
            trace: of the episode.
            verdict: of a verifier.
            made: time of the episode [s since 1970]; now when not given.

        Raises as `commit`.
        """
        episode = self.episode_of(trace, verdict, made)
        done = None if episode is None else self.commit(episode)
        if verdict.success is not None:
            self.credit(trace.used, verdict.success)
        trial = self.trial_of(trace, verdict, made)
        if trial is not None:
            self.add_trial(trial)
        return done

    def trial_of(self, trace: Trace, verdict: Verdict, made: float | None = None) -> StoredTrial | None:
        """The trial that `observe_episode` would store; None without residual priors or without a known offset."""
        if trace.offset is None or self.options.prior != "residual":
            return None
        return StoredTrial(trace.identity, verdict.outcome, trace.offset, time.time() if made is None else made)

    def add_trial(self, trial: StoredTrial) -> None:
        """Stores a trial durably, in the place of one of the same identity.

        Raises EntryError for what may not be stored, and otherwise as `commit`.
        """
        with self._writing:
            self.trials.add(trial)

    def commit(self, episode: Episode) -> Committed:
        """Stores a verified episode in one transaction: durable when this returns.

        Near-duplicates are merged, and what has to be evicted is deleted in the same transaction; so is what the same
        episode was stored as under another outcome, which this one corrects, but for segments others were merged into.
        Raises EntryError for what may not be stored, StoreBusyError and StoreFullError when nothing was stored and it
        may be tried again.
        """
        began = time.perf_counter()
        episode.check(self.layout)
        with self._writing:  # alone changes the index, so that it may read it here without holding `_lock`
            for _ in range(_TRIES):
                try:
                    done = self._commit(episode)
                    break
                except StoreChangedError:  # what was merged into or evicted may be gone: decide anew
                    self._follow()
            else:
                raise StoreBusyError(f"{self.store.name} was changed by others {_TRIES} times: it may be tried again")
        return replace(done, milliseconds=1e3 * (time.perf_counter() - began))

    def _commit(self, episode: Episode) -> Committed:
        """One try; raises StoreChangedError when another process has changed the store since it was read."""
        index = self.successes if episode.outcome == "success" else self.failures
        merges, nearest = self._near(index, episode)
        fresh = len(episode.segments) - len(merges)
        room = self._room()
        if room is not None and fresh > room:  # an episode larger than the memory: its end is kept
            first = len(episode.segments) - room if room else len(episode.segments)
            kept = episode.segments[first:]
            if not kept:
                return Committed((), 0, (), 0.0)
            episode = replace(episode, segments=kept)
            merges, nearest = self._near(index, episode)
            fresh = len(kept) - len(merges)
        over = 0 if room is None else len(index) + fresh - room
        spared = np.array([m.onto for m in merges], np.int64)
        gone = victims(index, over, self.options.eviction, self.retrieve.threshold, self.options.seed)
        gone = gone[~np.isin(gone, spared)]
        done = self.store.commit(self.origin, episode, nearest, merges, gone.tolist(), self._data_version)
        if done is None:
            return Committed((), 0, (), 0.0)
        stored = self.store.columns(self.origin, self._seen)
        with self._lock:
            index.remove(gone)
            other = self.failures if index is self.successes else self.successes
            other.remove(np.array(done.retracted, np.int64))
            for place in index.places(spared):
                index.column("merged")[place] += 1
            self._take(stored)
        return Committed(tuple(done.ids), len(merges), tuple(gone.tolist()), 0.0, len(done.retracted))

    def _near(self, index: SegmentIndex, episode: Episode) -> tuple[list[Merge], list[float]]:
        here = self._instructions.exact(episode.instruction)
        return near_duplicates(index, episode, here, self.options.merge_similarity, self.options.merge_distance)

    def _room(self) -> int | None:
        bounds = []
        if self.options.most_segments is not None:
            bounds.append(self.options.most_segments)
        if self.options.most_bytes is not None:
            bounds.append(self.options.most_bytes // self.layout.segment_bytes)
        return min(bounds) if bounds else None

    def prune(self, ids: Int[np.ndarray, "N"]) -> None:
        """Deletes segments. Raises as `commit`."""
        with self._writing:
            self.store.delete(ids.tolist())
            with self._lock:
                self.successes.remove(ids)
                self.failures.remove(ids)

    # Soundness ----------------------------------------------------------------------------------------------------

    def refresh(self, wait: bool = True) -> bool:
        """Takes over what another process has stored or deleted since; True when there was something.

        Without `wait` nothing is done while a commit is under way.
        """
        if not self._writing.acquire(blocking=wait):
            return False
        try:
            if self.store.data_version() == self._data_version:
                return False
            self._follow()
            return True
        finally:
            self._writing.release()

    @property
    def undoing(self) -> UndoingStore | None:
        """The store, where it can take back what it stored for an episode."""
        return self.store if isinstance(self.store, UndoingStore) else None

    def reload(self) -> None:
        """Reads everything again: the store was changed beside what is known here."""
        with self._writing, self._lock:
            self._load()
        self.trials.forget()

    def _follow(self) -> None:
        """Takes over what the store holds; what has not changed is not read again."""
        body = self.store.calibration(self.origin) if self.options.calibrated else None
        if body != self._calibration_body:
            self.reload()
            return
        version, use = self.store.data_version(), self.store.use(self.origin)
        fresh = self.store.columns(self.origin, self._seen)
        with self._lock:
            for index in (self.successes, self.failures):
                index.remove(np.array([i for i in index.ids.tolist() if i not in use], np.int64))
                for name in ("uses", "successes", "merged"):
                    index.column(name)[:] = [getattr(use[i], name) for i in index.ids.tolist()]
            self._take(fresh)
            self._data_version = version
        self.trials.forget()

    def verify(self) -> int:
        """Checks the store, and the indices against it; gives the number of segments.

        Raises StoreDamagedError naming the first thing that does not match.
        """
        self.store.check()
        with self._writing, self._lock:
            stored = self.store.columns(self.origin)
            count = len(stored)
            for index, mask in ((self.successes, stored.success), (self.failures, ~stored.success)):
                rows = stored.those(mask)
                same = np.isin(rows.ids, index.ids)
                same[same] = index.column("checksum")[index.places(rows.ids[same])] == rows.checksum[same]
                if not same.all():
                    raise StoreDamagedError(
                        f"{self.store.name}: the index does not hold segment {rows.ids[~same][0]}: open it again"
                    )
            if count != len(self.successes) + len(self.failures):
                raise StoreDamagedError(
                    f"{self.store.name}: the index holds segments that the store has not: open it again"
                )
        return count

    def recalibrate(self, calibration: Calibration) -> None:
        """Stores a calibration and uses it from now on."""
        calibration.check(self.layout)
        with self._writing, self._lock:
            self.store.add_calibration(self.origin, time.time(), calibration.to_json())
            self._load()
