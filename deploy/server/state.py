"""The state that all connections of a server share: sessions, rows of the policy, files, labels and metrics."""

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from vlamem.core.locks import InUseError
from vlamem.core.observation import Observation
from vlamem.core.seeding import stream
from vlamem.deploy.bounds import MOST_EPISODES
from vlamem.deploy.server.batcher import Batcher, Decision, ServedPolicy
from vlamem.deploy.server.labels import Label, LabelQueue
from vlamem.deploy.server.metrics import Metrics
from vlamem.deploy.server.observations import ObservationError, ObservationReader
from vlamem.deploy.server.options import ServeOptions
from vlamem.deploy.server.session_record import Fence, StoredSession, check_name, read_record
from vlamem.deploy.server.session_store import SessionStore
from vlamem.deploy.server.sessions import Session, SessionError, SessionTable, check_fence, check_token
from vlamem.deploy.server.tick_traces import TickTraces, read_report
from vlamem.deploy.server.traces import TraceStore
from vlamem.policies.memory_policy import check_finite

log = logging.getLogger("vlamem.serve")
_LEAST_FREE = 32 << 20
"""Bytes of disk below which a server is not ready."""


class ServerState:
    """State that all connections of a server share; a session is changed under its lock alone."""

    def __init__(
        self,
        policy: ServedPolicy,
        table: SessionTable,
        batcher: Batcher,
        reader: ObservationReader,
        metrics: Metrics,
        store: SessionStore | None,
        labels: LabelQueue | None,
        traces: TraceStore | None,
        options: ServeOptions,
        ticks: TickTraces | None = None,
    ) -> None:
        self.policy, self.table, self.batcher, self.reader, self.metrics = policy, table, batcher, reader, metrics
        self.store, self.labels, self.traces, self.options = store, labels, traces, options
        self.ticks = ticks
        action = policy.spec.action
        self.action_size = action.size
        self._low = np.concatenate([np.full(c.size, c.low, np.float32) for c in action.components])
        self._high = np.concatenate([np.full(c.size, c.high, np.float32) for c in action.components])
        self._tasks: set[asyncio.Task[None]] = set()
        self._finishing: set[asyncio.Task[None]] = set()
        self._since = time.monotonic()
        self.labelling = asyncio.Lock()
        """Held while a label is written: the newest of an episode counts, so that none overtakes another."""

    async def open(
        self,
        name: str | None,
        token: str | None,
        connection: Any,
        nonce: str | None = None,
        fence: Fence = (0, ""),
    ) -> tuple[Session, str | None, bool]:
        """A session, its token when it is new, and whether it was restored.

        A new session has the client's `nonce` for its token: a client that got no reply asks again with the same nonce
        and joins the session that it made. `fence` names the controller: the one that was started last drives. Raises
        SessionError when it is taken, driven by another, unknown or there is no row for it, StateError when what is
        stored of it cannot be used.
        """
        now = time.monotonic()
        if token is None and nonce is not None and name is not None and self._exists(name):
            try:
                session, _, _ = await self.open(name, nonce, connection, fence=fence)
            except SessionError as error:
                if error.code != "taken":
                    raise
                why = f"session '{name}' is in use: resume it with its token, or choose another name"
                raise SessionError("taken", why) from error
            return session, nonce, True
        if name is None or token is None:
            self.table.check_share(connection, now)  # before another has to go for it
            self._make_room(now)
            if name is not None and self._exists(name) and self.table.get(name) is None:
                raise SessionError(
                    "taken", f"session '{name}' is stored: resume it with its token, or choose another name"
                )
            session, token = self.table.create(name, connection, now, nonce)
            session.fence = fence
            with self._dropped_on_error(session):
                async with session.lock:  # who joins it meanwhile waits until it is on disk
                    await self._clear(session)
                    if self.store is not None and session.persistent:
                        session.record = await self._write(session, 0)
            return session, token, False
        live = self.table.get(name)
        if live is not None:
            before = live.connection
            self.table.resume(name, token, connection, now, fence)
            if before is not None and before is not connection:
                self._in_background(before.close(1012, "resumed elsewhere"))
            await self._keep_fence(live)
            return live, None, True
        if self.store is None or not self.store.has(name):
            raise SessionError("unknown", f"there is no session '{name}' to resume: begin a new one")
        record, state, step = await asyncio.to_thread(self.store.recover, name)
        check_token(record.token, token, name)
        check_fence(record.fence, fence, name)
        if self.table.get(name) is not None:  # another connection was quicker
            return await self.open(name, token, connection, fence=fence)
        self.table.check_share(connection, now)
        self._make_room(now, owner=True)
        session = Session(name, record.token, -1, True, record.episode, step, ended=record.ended, record=record)
        session.fence = max(record.fence, fence)
        self.table.adopt(session, connection, now)
        if self.traces is not None and session.episode and not session.ended:
            self.traces.resume(name, session.episode)
        if self.ticks is not None and session.episode and not session.ended:
            self.ticks.resume(name, session.episode)
        with self._dropped_on_error(session):
            async with session.lock:
                await self.batcher.run(lambda: self._restore(session.row, state))
        await self._keep_fence(session)
        return session, None, True

    async def _keep_fence(self, session: Session) -> None:
        """Puts on disk which controller drives a session: none that was started before it does after a restart."""
        async with session.lock:
            if session.record is None or session.fence <= session.record.fence:
                return
            try:
                same = session.record.saved  # the episode and its memory go on
                session.record = await self._write(session, session.episode, session.ended, same)
            except OSError as error:  # robots are served on a full disk too
                log.warning("which controller drives session %s is not on disk: %s", session.name, error)

    async def _write(
        self, session: Session, episode: int, ended: bool = False, saved: float | None = None
    ) -> StoredSession:
        assert self.store is not None
        record = session.name, session.token, episode, ended, session.fence, saved
        return await asyncio.to_thread(self.store.begin, *record)

    def _exists(self, name: str) -> bool:
        """Whether there is such a session, here or on disk."""
        return self.table.get(name) is not None or (self.store is not None and self.store.has(name))

    def find_session(self, name: object) -> tuple[str, str, int, bool]:
        """Name, token's hash and newest episode of a session, here or on disk, and whether that is over.

        Raises StateError for a name that is none, SessionError for one that is unknown.
        """
        known = check_name(name)
        live = self.table.get(known)
        if live is not None:
            return known, live.token, live.episode, live.ended
        if self.store is None or not self.store.has(known):
            raise SessionError("unknown", f"there is no session '{known}' with an episode to label")
        record = read_record(self.store.folder / known)
        return known, record.token, record.episode, record.ended

    async def begin(self, session: Session, episode: int) -> bool:
        """Episode `episode` of a session: its memory is empty, on disk too, when this returns.

        False when this episode runs already: then nothing changes. Raises SessionError for one that is over, OSError on
        a full disk: then the episode before goes on.
        """
        if episode == session.episode:
            return False
        if episode < session.episode:
            raise SessionError(
                "order", f"episode {episode} of session '{session.name}' is over: {session.episode} runs"
            )
        if episode > 2 * MOST_EPISODES - 1:  # a reset counts on from where a message may begin
            raise SessionError("limit", f"session '{session.name}' has had {session.episode} episodes: begin another")
        record, before = session.record, session.episode
        if self.traces is not None and session.persistent:
            await asyncio.to_thread(self.traces.begin, session.name, episode, self._pending_labels)
        if self.store is not None and session.persistent:
            record = await self._write(session, episode)
        await self._clear(session)
        session.record, session.episode, session.step, session.reply = record, episode, -1, None
        session.ended, session.stepped = False, None
        if self.ticks is not None:
            self._finish(self.ticks.begin(session.name, episode))
        self.release(session)
        self._queue_unlabelled(session, before)
        return True

    async def end(self, session: Session) -> None:
        """The episode that runs is over, on disk too when this returns, and its labels are processed.

        Raises OSError on a full disk: then it goes on.
        """
        if session.episode and not session.ended:
            if self.store is not None and session.persistent:
                session.record = await self._write(session, session.episode, ended=True)
            session.ended = True
            if self.ticks is not None:
                self._finish(self.ticks.end(session.name))
            self.release(session)

    @property
    def _pending_labels(self) -> frozenset[tuple[str, int]]:
        return frozenset() if self.labels is None else self.labels.pending

    def _queue_unlabelled(self, session: Session, episode: int) -> None:
        """Queues an episode that is over for the verifier, which passes over one that was labelled."""
        if self.labels is not None and self.labels.takes_unlabelled and session.persistent and episode:
            of = secrets.token_hex(16), session.name, episode
            unlabelled = Label(*of, "unlabelled", "verifier", time.time(), session.token[:16])
            self._in_background(asyncio.to_thread(self.labels.add, unlabelled))

    def release(self, session: Session, gone: bool = False) -> None:
        """Releases the labels of a session's episodes that are over; of the last one too when the session is `gone`."""
        if self.labels is not None:
            self.labels.release(session.name, session.episode - (not (gone or session.ended)))

    async def observe(self, session: Session, step: int, obs: Observation, plan: bool) -> Decision:
        """One frame: the memory ticks, what it wrote is on disk, and a chunk is planned if `plan`.

        Raises NotFiniteError for a chunk or a memory that is not finite, OSError where the disk takes nothing.
        """
        began = time.perf_counter()
        spec = self.policy.spec
        noise = None
        if plan:
            draw = stream(self.options.seed, "noise", session.name, session.episode, step)
            noise = draw.standard_normal((spec.horizon, spec.action.size), dtype=np.float32)
        decision = await self.batcher.observe(session.row, obs, noise, skipped=step > session.step + 1)
        session.step, session.stepped = step, time.monotonic()
        if self.ticks is not None:
            self.ticks.stepped(session.name, step, obs, decision, decision.chunk)
        if decision.chunk is not None:
            np.clip(decision.chunk, self._low, self._high, out=decision.chunk)
        for name, value in (decision.state or {}).items():
            check_finite(f"{name} of the memory after step {step}", value)
        if decision.state is not None and self.store is not None and session.record is not None:
            await asyncio.to_thread(self.store.persist, session.record, step, decision.state)
        if self.traces is not None and session.persistent and decision.chunk is not None and decision.key is not None:
            self.traces.record_plan(
                session.name,
                session.episode,
                step,
                obs.instruction[0],
                decision.key,
                np.array(obs.proprioception[0]),
                decision.chunk,
                decision.used,
                decision.offset,
            )
        self.metrics.decided(decision, time.perf_counter() - began)
        return decision

    def record_action(self, session: Session, step: int, action: Any) -> None:
        """Records what the robot executed before a step. Raises ObservationError for what is no action [A]."""
        try:
            given = np.asarray(action, np.float64)
        except (TypeError, ValueError):
            given = np.zeros(0)
        if given.shape != (self.action_size,) or not np.isfinite(given).all():
            raise ObservationError(
                f"the executed action is {str(action)[:80]}: expected {self.action_size} finite numbers"
            )
        reach = self._high - self._low  # a part that was outside its range may stay there or come back
        outside = (given < self._low - reach) | (given > self._high + reach)
        if outside.any():
            at = int(np.flatnonzero(outside)[0])
            raise ObservationError(
                f"entry {at} of the executed action is {given[at]:g}, far outside {self._low[at]:g} to "
                f"{self._high[at]:g}: send what was executed, in the policy's normalised action space"
            )
        if self.traces is not None and session.persistent:
            self.traces.record_action(session.name, session.episode, step, given.astype(np.float32))
        if self.ticks is not None:
            self.ticks.acted(session.name, step, given)

    def record_report(self, session: Session, step: int, report: Any) -> None:
        """Notes what the robot's controller did before a step. Raises ObservationError for what is no report."""
        try:
            found = read_report(report)
        except ValueError as error:
            raise ObservationError(str(error)) from error
        if self.ticks is not None:
            self.ticks.reported(session.name, step, found)

    def problems(self) -> list[str]:
        """Why this server is not ready to keep what it is given, a line each; none where it is."""
        found = []
        if self.store is not None and (free := self.free_bytes) < _LEAST_FREE:
            found.append(f"{self.store.folder} has {free >> 20} MB left, {_LEAST_FREE >> 20} are needed")
        if self.store is not None:
            try:
                self.store.check_lock()
            except InUseError as error:
                found.append(str(error))
        if self.labels is not None and (failing := self.labels.failing):
            found.append(f"{len(failing)} labels could not be processed and are tried again: {failing[-1]}")
        return found

    @property
    def free_bytes(self) -> int:
        """That the disk of the state folder has left; 0 without one."""
        return 0 if self.store is None else shutil.disk_usage(self.store.folder).free

    def sweep(self, now: float) -> None:
        """Ends sessions that were left and not resumed in time; what is on disk stays."""
        for session in self.table.idle(now):
            if session.connection is None:
                log.info(
                    "session %s had no connection for %.0f s: its row is free", session.name, self.table.limits.idle_s
                )
                self.drop(session)
        if self.labels is not None and now - self._since > self.table.limits.idle_s:
            for name in self.labels.held:  # a session that was not resumed by now has left its episode
                if self.table.get(name) is None:
                    self.labels.release(name, 2 * MOST_EPISODES)

    def drop(self, session: Session) -> None:
        """Ends a session now."""
        self.table.drop(session)
        if self.ticks is not None:
            self._finish(self.ticks.end(session.name))
        self.release(session, gone=True)
        if session.ended:
            self._queue_unlabelled(session, session.episode)
        if self.store is not None:
            self.store.release(session.name)
        if self.traces is not None:
            self.traces.release(session.name, self._pending_labels)

    async def close(self) -> None:
        """Ends the worker thread and the files."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*self._finishing, return_exceptions=True)
        await self.batcher.close()
        if self.ticks is not None:
            self.ticks.close()
        if self.store is not None:
            self.store.close()

    @contextlib.contextmanager
    def _dropped_on_error(self, session: Session) -> Iterator[None]:
        """Drops a session that cannot be made ready, so that its row is free again."""
        try:
            yield
        except BaseException:
            self.drop(session)
            raise

    def _make_room(self, now: float, owner: bool = False) -> None:
        """Drops, of a full table, the session that was silent for longest beyond `idle_s`; for the `owner` of a stored
        session also one that has had no episode, whatever it sends."""
        silent = self.table.idle(now) if self.table.full else []
        if owner and self.table.full and not silent:
            silent = self.table.unused()
        for session in silent[:1]:
            connection, session.connection = session.connection, None
            log.info("session %s sent nothing for %.0f s: another has its row", session.name, now - session.used)
            self.drop(session)
            if connection is not None:
                self.metrics.closed.labels("silent").inc()
                self._in_background(connection.close(1001, "silent for long, and another needed the place"))

    def _restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        """Gives a row the memory of a stored session, and nothing of the session that had it before."""
        self.policy.skip(np.array([row]))
        self.policy.restore(row, state)

    async def _clear(self, session: Session) -> None:
        mask = np.zeros(self.policy.rows, bool)
        mask[session.row] = True
        await self.batcher.run(lambda: self.policy.reset(mask))

    def _finish(self, job: Callable[[], None]) -> None:
        """Makes the files of an episode's trace, beside the loop; the server's end waits for it."""
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(job))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    def _in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
