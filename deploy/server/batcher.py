"""Rows of several sessions in one forward pass, with a maximal wait, so that no session pays for another's mistake."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.core.observation import Encoding, Observation
from vlamem.core.spec import PolicySpec
from vlamem.policies.memory_policy import MemoryPolicy, Moment, Tick, check_finite
from vlamem.policies.tick_recorder import Columns, TickColumns

Array = np.ndarray[Any, Any]


@runtime_checkable
class ServedPolicy(Protocol):
    """What the server needs of a policy with memory; `vlamem.wrap` makes one."""

    @property
    def spec(self) -> PolicySpec:
        """Of the frozen policy."""
        ...

    @property
    def rows(self) -> int:
        """How many sessions it can hold."""
        ...

    @property
    def history(self) -> int:
        """Observations that it reads at once, the present one included; those before it are kept row by row."""
        ...

    @property
    def ticks(self) -> bool:
        """Whether its memory wants to see every control step."""
        ...

    def reset(self, mask: Bool[np.ndarray, "B"] | None = None) -> None:
        """Clears what the masked rows carry."""
        ...

    def skip(self, rows: Int[np.ndarray, "R"]) -> None:
        """Control steps of these rows were not observed."""
        ...

    def observe(self, obs: Observation, rows: Int[np.ndarray, "R"] | None = None) -> Tick:
        """One control step of these rows."""
        ...

    def plan(self, tick: Tick, noise: Float[np.ndarray, "R H A"]) -> Float[np.ndarray, "R H A"]:
        """A chunk for each of the tick's rows."""
        ...

    def state(self, row: int) -> dict[str, np.ndarray]:
        """A copy of a row's memory."""
        ...

    def restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        """Makes `state` the memory of a row."""
        ...

    def moment(self, row: int) -> Moment:
        """All that a row carries."""
        ...

    def return_to(self, row: int, moment: Moment) -> None:
        """Makes a row what it was at `moment`."""
        ...


@dataclass(frozen=True)
class Decision:
    """What one frame led to.

    Attributes:
        chunk: [H, A] in normalised action space, or None when none was asked for.
        state: the row's memory after a write, or None when nothing was written.
        key: [K] for retrieval, where the frame was encoded.
        wrote, gate, surprise: of the recurrent memory.
        waited_s: from the request to the beginning of its forward pass.
        took_s: of the forward pass.
        rows: in that pass.
        used: ids of the stored segments that the chunk was proposed from, or None.
        columns: of this step's trace, where one is kept.
        offset: [A], what a residual prior added to every action of the chunk, or None.
        confidence: the largest of the memories that tick, 0 to 1.
        weight: of the fused proposal behind the chunk, 0 to 1; None without a chunk, or of a policy that does not say.
    """

    chunk: Float[np.ndarray, "H A"] | None
    state: dict[str, np.ndarray] | None
    key: Float[np.ndarray, "K"] | None
    wrote: bool
    gate: float
    surprise: float
    waited_s: float
    took_s: float
    rows: int
    used: Int[np.ndarray, "U"] | None = None
    columns: Columns = field(default_factory=dict)
    offset: Float[np.ndarray, "A"] | None = None
    confidence: float = 0.0
    weight: float | None = None


@dataclass
class _Request:
    row: int
    obs: Observation
    noise: Array | None
    skipped: bool
    at: float
    answer: "asyncio.Future[Decision]"


class Batcher:
    """Collects frames for at most `wait_s`, then runs them in one thread: those with a plan together, then the rest.

    A frame that makes a pass fail is found by running its rows alone, from the memory they had before; the others get
    what they would have got without it. A row is in a pass at most once, so its frames stay in order.

    Args:
        policy: used by this batcher's thread alone from now on.
        wait_s: longest wait for other sessions' frames.
        most_rows: in one pass.
        active: how many sessions may send a frame now; a batch that holds them all is not kept waiting.
        encode: the frozen policy's, where the key of every planned frame is wanted though no memory needs it.
        used: ids of the stored segments behind the chunk of a pass's i-th row, where experience is to be credited.
        traced: whether decisions carry the columns of a trace; the policy is a MemoryPolicy then.
        offset: what a residual prior adds to all chunks of a pass, where it is to be learned from.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        wait_s: float = 0.002,
        most_rows: int = 16,
        active: Callable[[], int] = lambda: 1,
        encode: Callable[[Observation], Encoding] | None = None,
        used: Callable[[int], Array] | None = None,
        traced: bool = False,
        offset: Callable[[], Array | None] = lambda: None,
    ) -> None:
        self._encode, self._used, self._offset = encode, used, offset
        self._columns = TickColumns(policy) if traced and isinstance(policy, MemoryPolicy) else None
        self._policy, self._wait_s, self._most, self._active = policy, wait_s, most_rows, active
        self._pending: list[_Request] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "policy")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to work, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def close(self) -> None:
        """Ends the thread; frames that wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for request in self._pending:
            request.answer.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    @property
    def oldest_s(self) -> float:
        """Age of the oldest frame that waits [s]."""
        return time.perf_counter() - min(r.at for r in self._pending) if self._pending else 0.0

    async def run[T](self, work: Callable[[], T]) -> T:
        """Runs `work`, which may touch the policy, between two passes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def observe(
        self, row: int, obs: Observation, noise: Float[np.ndarray, "H A"] | None, skipped: bool = False
    ) -> Decision:
        """One control step of a row, with a plan from `noise` unless that is None; `skipped` when those before it were
        not all observed. Raises what the policy raises."""
        answer: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._pending.append(_Request(row, obs, noise, skipped, time.perf_counter(), answer))
        self._arrived.set()
        return await answer

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            until = self._pending[0].at + self._wait_s
            while len(self._pending) < min(self._active(), self._most) and (left := until - time.perf_counter()) > 0:
                self._arrived.clear()
                try:
                    await asyncio.wait_for(self._arrived.wait(), left)
                except TimeoutError:
                    break
            batch = self._take()
            for wants_plan in (True, False):
                group = [r for r in batch if (r.noise is not None) == wants_plan]
                if group:
                    results: Sequence[Decision | Exception]
                    try:
                        results = await loop.run_in_executor(self._thread, self._pass, group)
                    except Exception as error:  # of keeping or giving back a row's memory: the other robots go on
                        results = [error] * len(group)
                    for request, result in zip(group, results, strict=True):
                        if request.answer.done():
                            continue
                        if isinstance(result, BaseException):
                            request.answer.set_exception(result)
                        else:
                            request.answer.set_result(result)
            if not self._pending:
                self._arrived.clear()

    def _take(self) -> list[_Request]:
        """The oldest frames, one a row; those whose session has gone are dropped."""
        taken: dict[int, _Request] = {}
        kept = []
        for request in self._pending:
            if request.answer.done():
                continue
            if request.row in taken or len(taken) >= self._most:
                kept.append(request)
            else:
                taken[request.row] = request
        self._pending = kept
        return list(taken.values())

    def _pass(self, group: Sequence[_Request]) -> "list[Decision | Exception]":
        began = time.perf_counter()
        before = {r.row: self._policy.moment(r.row) for r in group}
        try:
            return list(self._forward(group, began))
        except Exception as error:
            for row, moment in before.items():
                self._policy.return_to(row, moment)
            if len(group) == 1:
                return [error]
        return [answer for request in group for answer in self._pass([request])]

    def _forward(self, group: Sequence[_Request], began: float) -> list[Decision]:
        rows = np.array([r.row for r in group], np.int64)
        self._policy.skip(rows[[r.skipped for r in group]])
        tick = self._policy.observe(Observation.stack([r.obs for r in group]), rows)
        if tick.encoding is None and self._encode is not None:
            tick = replace(tick, encoding=self._encode(tick.observation))
        planned = [r.noise for r in group if r.noise is not None]
        chunks, weights, columns = self._plan(tick, np.stack(planned) if planned else None)
        took = time.perf_counter() - began
        if chunks is not None:
            check_finite("the chunk", np.asarray(chunks))
        check_finite("the gate", np.stack([tick.gate, tick.surprise, tick.confidence]))
        keys = tick.encoding.key if tick.encoding is not None else None
        if keys is not None:
            check_finite("the retrieval key", np.asarray(keys))
        return [
            Decision(
                None if chunks is None else np.array(chunks[i], np.float32),
                self._policy.state(request.row) if bool(tick.wrote[i]) else None,
                None if keys is None else np.array(keys[i], np.float32),
                bool(tick.wrote[i]),
                float(tick.gate[i]),
                float(tick.surprise[i]),
                began - request.at,
                took,
                len(group),
                None if self._used is None or chunks is None else np.array(self._used(i), np.int64),
                columns[i],
                None if chunks is None else self._offset(),
                float(tick.confidence[i]),
                None if weights is None else float(weights[i]),
            )
            for i, request in enumerate(group)
        ]

    def _plan(self, tick: Tick, noise: Array | None) -> tuple[Array | None, Array | None, list[Columns]]:
        """The chunks of a pass, None without noise, the weights of the proposals behind them, where the policy says
        them, and the columns of each row's trace."""
        columns = [{} if self._columns is None else self._columns.ticked(tick, i) for i in range(len(tick.rows))]
        if noise is None:
            return None, None, columns
        if not isinstance(self._policy, MemoryPolicy):
            return self._policy.plan(tick, noise), None, columns
        decision = self._policy.decide(tick, noise)
        if self._columns is not None:
            columns = [before | self._columns.planned(decision, i) for i, before in enumerate(columns)]
        return decision.chunks, decision.weight, columns
