"""A policy whose memory shows in its actions, and a server of it on a free port."""

import asyncio
import contextlib
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from vlamem.core.observation import Encoding, Observation
from vlamem.core.spec import OSC_POSE, PolicySpec
from vlamem.deploy.robot.link import Link
from vlamem.deploy.robot.messages import Frame
from vlamem.deploy.robot.protocol import RobotObservation
from vlamem.deploy.server.labels import Label, LabelQueue
from vlamem.deploy.server.options import ServeOptions
from vlamem.deploy.server.policy_server import PolicyServer
from vlamem.deploy.server.session_record import Owner, hash_token, layout_of
from vlamem.deploy.server.session_store import SessionStore
from vlamem.deploy.server.sessions import SessionLimits
from vlamem.deploy.server.traces import TraceStore
from vlamem.deploy.wire import pack, unpack
from vlamem.memory.protocol import StepOut
from vlamem.policies.memory_policy import Moment, Tick

LONG_S = 240.0
"""Longest wait for what happens at once on an idle machine; a busy one may need seconds for it."""
SPEC = PolicySpec("summing", 4, 2, 2, 2, 20.0, ("front",), 8, 8, OSC_POSE, "abc", state="pose")
FOUR = SessionLimits(count=4)


class Summing:
    """Writes when proprioception[0] is above 0.5: adds proprioception[1] to its memory. Action 0 is the memory / 100.

    Raises what a policy might for proprioception[7] == 13.
    """

    def __init__(self, rows: int = 4) -> None:
        self.spec, self.rows = SPEC, rows
        self._memory = np.zeros((rows, 2), np.float32)
        self.batches: list[int] = []

    history, ticks = 1, True

    def skip(self, rows: Any) -> None:
        """Nothing is kept of the frames before."""

    def moment(self, row: int) -> Moment:
        return Moment(self.state(row), ())

    def return_to(self, row: int, moment: Moment) -> None:
        self.restore(row, dict(moment.state))

    def reset(self, mask: Any = None) -> None:
        self._memory[slice(None) if mask is None else mask] = 0

    def observe(self, obs: Observation, rows: Any = None) -> Tick:
        p = obs.proprioception
        self.batches.append(len(p))
        wrote = p[:, 0] > 0.5
        self._memory[rows, 0] += np.where(wrote, p[:, 1], 0)
        self._memory[rows, 1] += wrote
        if (p[:, 7] == 13).any():
            raise RuntimeError("unlucky")
        key = np.tile(np.float32([1, 0]), (len(p), 1))
        gate, no = wrote.astype(np.float32), np.zeros(len(p), np.float32)
        out = StepOut(no, None, None, None, wrote, gate, no, no.astype(bool), no)
        return Tick(rows, obs, Encoding(key, key, None), (out,))

    def plan(self, tick: Tick, noise: np.ndarray) -> np.ndarray:
        chunk = np.zeros((len(tick.rows), 4, 7), np.float32)
        chunk[:, :, 0] = self._memory[tick.rows, :1] / 100
        chunk[:, :, 1] = np.arange(4) / 10
        return chunk

    def state(self, row: int) -> dict[str, np.ndarray]:
        return {"sum": self._memory[row].copy()}

    def restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        self._memory[row] = state["sum"]


def observation(write: bool = False, value: float = 1.0, **changed: Any) -> dict[str, Any]:
    proprioception = np.zeros(8, np.float32)
    proprioception[:2] = float(write), value
    full = {"front": np.zeros((8, 8, 3), np.uint8), "proprioception": proprioception, "instruction": "touch it"}
    return full | changed


def frame(step: int, write: bool = False, plan: bool = False, episode: int = 1) -> Frame:
    """The robot's side of `observation`, for the link."""
    seen = observation(write)
    return Frame(
        episode, step, RobotObservation({"front": seen["front"]}, seen["proprioception"], 0.0), "touch it", plan, None
    )


def store_in(folder: Path, **owner: str) -> SessionStore:
    template = Summing().state(0)
    fields = {"policy": "summing", "fingerprint": SPEC.fingerprint, "normaliser": "abc", "memory": "sum1"} | owner
    return SessionStore(folder, Owner(**fields, layout=layout_of(template)), template)


FULL = {"sum": np.float32([3.0, 1.0])}


def filled(folder: Path) -> SessionStore:
    """A store with session "arm", whose episode 2 wrote FULL at step 7."""
    store = store_in(folder)
    store.persist(store.begin("arm", hash_token("t"), 2), 7, FULL)
    return store


def label(name: str, outcome: str = "success") -> Label:
    return Label(name, "arm", 1, outcome, "operator", 1.0)  # type: ignore[arg-type]  # a bad one is tested too


def options(**changed: Any) -> ServeOptions:
    return ServeOptions(**{"port": 0, "sessions": FOUR, **changed})


class Client:
    """Speaks the extended protocol, one message at a time."""

    def __init__(self, ws: ClientConnection, metadata: dict[str, Any]) -> None:
        self.ws, self.metadata = ws, metadata

    async def ask(self, kind: str, body: Mapping[str, Any] | None = None, **head: Any) -> dict[str, Any]:
        await self.ws.send(pack({**(body or {}), "vlamem": {"type": kind, **head}}))
        return unpack(await self.ws.recv())

    async def observe(self, episode: int, step: int, write: bool = False, value: float = 1.0, plan: bool = True) -> Any:
        return await self.ask("observe", observation(write, value), episode=episode, step=step, plan=plan)

    async def memory(self, episode: int, step: int) -> float:
        """What the memory of this session holds."""
        reply = await self.observe(episode, step)
        return round(100 * float(reply["actions"][0, 0]), 3)


async def ended(ask: Callable[[], Awaitable[Any]]) -> list[Any]:
    """What a connection still says until it is closed."""
    answers = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            answers.append(await ask())
    return answers


@contextlib.asynccontextmanager
async def client(port: int, **options: Any) -> AsyncIterator[Client]:
    async with connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None, **options) as ws:
        yield Client(ws, unpack(await ws.recv()))


@contextlib.asynccontextmanager
async def serving(policy: Any = None, options: ServeOptions | None = None, **parts: Any) -> AsyncIterator[Any]:
    server = PolicyServer(policy or Summing(), options or ServeOptions(port=0, sessions=FOUR), **parts)
    async with server.running() as port:
        server.port = port  # type: ignore[attr-defined]  # for the tests
        yield server


class Hosted:
    """A server in a thread, that can be ended and started again on the same port."""

    def __init__(self, folder: Path | None, **options: Any) -> None:
        self.folder, self.options, self.port = folder, options, 0
        self.done: list[str] = []

    def start(self) -> None:
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(LONG_S)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(LONG_S)

    async def _serve(self) -> None:
        store = queue = None
        if self.folder is not None:
            store = store_in(self.folder / "sessions")
            queue = LabelQueue(self.folder / "labels.jsonl", lambda label: self.done.append(label.label) or "done")
        self.policy = Summing()
        server = PolicyServer(self.policy, ServeOptions(port=self.port, sessions=FOUR, **self.options), store, queue)
        async with server.running() as self.port:
            self.server = server
            self._ready.set()
            while not self._stop.is_set():
                await asyncio.sleep(0.01)
        if queue is not None:
            queue.drain(LONG_S)
            queue.close()


def run(scenario: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), LONG_S))


def wait(condition: Callable[[], Any], seconds: float = LONG_S) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def collect(link: Link, step: int) -> Any:
    """The reply to the frame of a step."""
    found: list[Any] = []
    wait(lambda: found.extend(r for r in link.poll() if r.step == step) or found)
    return found[0]


def get(port: int, path: str, key: str | None = None) -> tuple[int, str]:
    headers = {"Authorization": f"Api-Key {key}"} if key else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def episode_in(folder: Path, at: float = 0.0) -> TraceStore:
    """Episode 1 of session "arm", which begins at a position [m]: eight steps, two plans."""
    traces = TraceStore(folder)
    traces.begin("arm", 1)
    key = np.float32([1, 0])
    for step in range(9):
        chunk = np.tile(np.float32([[step + 1], [step + 2], [step + 3], [step + 4]]) / 10, 7)
        if step:
            traces.record_action("arm", 1, step, np.full(7, step / 10, np.float32))
        if step in (0, 4):
            traces.record_plan(
                "arm", 1, step, "touch it", key, np.float32([at + step / 10, 0, 0, 1, 0, 0, 0, 0]), chunk
            )
    return traces


def steps(traces: TraceStore, session: str, episode: int, count: int) -> None:
    for step in range(count):
        traces.record_action(session, episode, step, np.zeros(7, np.float32))
