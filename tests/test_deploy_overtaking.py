"""deploy: what comes from two sides at once: nothing overtakes another, is counted twice, or is lost between them."""

import asyncio
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import FULL, LONG_S, Summing, client, episode_in, filled, label, run, serving, store_in

from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.labelling import EpisodeLabels
from vlamem.deploy.robot.outbox import Outbox
from vlamem.deploy.robot.record.recorder import Recorder
from vlamem.deploy.server import labels as labels_module
from vlamem.deploy.server.commit import commit_episode
from vlamem.deploy.server.labels import Label, LabelQueue
from vlamem.deploy.server.sessions import SessionError
from vlamem.deploy.wire import unpack
from vlamem.memory.success import Origin, SuccessMemory
from vlamem.memory.success.experience.trace import Trace, Verdict
from vlamem.memory.success.runner import layout_of
from vlamem.policies.memory_policy import Moment

NONCE = "n" * 32


class Beside:
    """Work in a thread that is begun in the middle of other work, and has its time there unless it has to wait."""

    def __init__(self, work: Any) -> None:
        self._thread = threading.Thread(target=work)

    def here(self) -> None:
        self._thread.start()
        self._thread.join(0.2)

    def end(self) -> None:
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()


def test_a_label_leaves_the_robot_when_it_is_on_its_disk_so_that_the_server_has_none_that_was_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Outbox("arm", tmp_path, 9, 3, EventLog(), lambda: 0.0)
    box.joined({"session": "arm", "token": "secret", "episode": 1}, first=True)
    left: list[Any] = []

    def full(path: Path, text: str, mode: int) -> None:
        left.append(box.next())  # the link's thread looks for something to send
        raise OSError("the disk is full")

    with monkeypatch.context() as disk:
        disk.setattr("vlamem.deploy.robot.outbox.write_atomically", full)
        with pytest.raises(OSError, match="the disk is full"):
            box.label(1, "success", "operator")
    assert left == [None]
    name = box.label(1, "failure", "operator")
    assert unpack(box.next() or b"")["vlamem"]["label"] == name


def test_events_that_two_threads_note_at_once_are_both_counted() -> None:
    log = EventLog()
    second = Beside(lambda: log.note("clip"))

    class Counts(dict[str, int]):
        def __getitem__(self, name: str) -> int:
            found = self.get(name, 0)
            if not second._thread.ident:
                second.here()
            return found

    log.counts = Counts()  # type: ignore[assignment]  # as a Counter is read here
    log.note("clip")
    second.end()
    assert dict(log.counts) == {"clip": 2}


def test_a_label_of_an_episode_does_not_fall_on_the_next_that_begins_meanwhile(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "tabletop", EventLog(), lambda line: None)
    recorder.begin(1)
    recorder.end()
    following = Beside(lambda: recorder.begin(2))

    class One(int):
        def __eq__(self, other: object) -> bool:
            following.here()
            return int(self) == other

        __hash__ = int.__hash__

    recorder.label(One(1), "success")
    following.end()
    assert recorder._label is None
    assert recorder._queue.get() == {"episode": 1, "store": True}


class Kept:
    """A link and a recording that keep labels; `meanwhile` happens while the first is written."""

    def __init__(self) -> None:
        self.labels: list[tuple[int, str, str]] = []
        self.recorded: list[tuple[int, str]] = []
        self.meanwhile: Any = None

    def label(self, episode: int, outcome: str, source: str = "") -> str:
        if self.meanwhile is not None:
            work, self.meanwhile = self.meanwhile, None
            work()
        if source:
            self.labels.append((episode, outcome, source))
        else:
            self.recorded.append((episode, outcome))
        return "name"


def test_the_operators_label_is_of_one_episode_for_link_and_recording_when_the_next_begins_meanwhile() -> None:
    kept, episodes = Kept(), iter([1, 2, 2, 2])
    labels = EpisodeLabels(kept, lambda: next(episodes), kept)
    labels.by_operator("success")
    assert (kept.labels, kept.recorded) == ([(1, "success", "operator")], [(1, "success")])


@pytest.mark.parametrize("first", ["operator", "task"])
def test_the_operators_label_counts_when_a_task_gives_its_verdict_at_the_same_moment(first: str) -> None:
    kept = Kept()
    labels = EpisodeLabels(kept, lambda: 1)
    says = {"operator": lambda: labels.by_operator("failure"), "task": lambda: labels.by_task(1, "success")}
    second = Beside(says["task" if first == "operator" else "operator"])
    kept.meanwhile = second.here
    says[first]()
    second.end()
    assert kept.labels[-1] == (1, "failure", "operator")


def test_a_label_that_means_nothing_or_comes_before_the_first_episode_is_refused() -> None:
    kept = Kept()
    for episode, outcome, why in ((0, "success", "no episode has begun"), (1, "maybe", "expected 'success'")):
        with pytest.raises(ValueError, match=why):
            EpisodeLabels(kept, lambda episode=episode: episode).by_operator(outcome)  # type: ignore[misc]
    assert kept.labels == []


class Ordered(ThreadPoolExecutor):
    """What it is given in its order; the first to write a label waits for `free`."""

    def __init__(self, free: threading.Event) -> None:
        super().__init__(4)
        self.free, self.given = free, list[str]()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        of = next((a for a in getattr(fn, "args", ()) if isinstance(a, Label)), None)
        if of is None:
            return super().submit(fn, *args, **kwargs)
        self.given.append(of.label)
        return super().submit(self._after if len(self.given) == 1 else fn, *((fn,) if len(self.given) == 1 else ()))

    def _after(self, fn: Any) -> Any:
        assert self.free.wait(LONG_S)
        return fn()


def test_of_two_labels_of_an_episode_the_one_that_came_last_counts_whichever_is_written_sooner(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "labels.jsonl", lambda given: "done")

    async def scenario() -> None:
        free = threading.Event()
        writers = Ordered(free)
        async with serving(labels=queue) as server, client(server.port) as robot, client(server.port) as verifier:
            await robot.ask("hello", session="arm")
            await robot.ask("episode_start", episode=1)
            asyncio.get_running_loop().set_default_executor(writers)
            first = asyncio.create_task(robot.ask("label", label="a", episode=1, outcome="success"))
            while not writers.given:
                await asyncio.sleep(0)
            more = {"session": "arm", "label": "b", "episode": 1, "outcome": "failure"}
            second = asyncio.create_task(verifier.ask("label", **more))
            while not server.state.labelling._waiters and len(writers.given) < 2:
                await asyncio.sleep(0)
            free.set()
            for reply in await asyncio.gather(first, second):
                assert reply["vlamem"]["type"] == "labelled"
        assert list(queue._history.newest.values()) == ["b"]

    run(scenario)
    queue.close()


def test_a_controller_that_was_started_before_gets_no_session_while_the_newer_one_waits_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(store=store_in(tmp_path)) as server:
            state, old, new = server.state, Closing(), Closing()
            session, _, _ = await state.open("arm", None, Closing(), NONCE, (1, "a"))
            async with session.lock:  # a frame is worked on
                newer = asyncio.create_task(state.open("arm", NONCE, new, fence=(2, "b")))
                while session.connection is not new:
                    await asyncio.sleep(0)
                with pytest.raises(SessionError) as refused:
                    await state.open("arm", NONCE, old, fence=(1, "a"))
            assert refused.value.code == "fenced"
            await newer
            assert (session.connection, session.record.fence) == (new, (2, "b"))

    run(scenario)


class Closing:
    """A connection that is closed because another has its session."""

    request = None

    async def close(self, *why: Any) -> None: ...


def test_a_session_that_ends_while_it_is_read_by_another_connection_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, read = filled(tmp_path), os.pread

    def ending(file: int, size: int, at: int) -> bytes:
        store.release("arm")
        return read(file, size, at)

    monkeypatch.setattr(os, "pread", ending)
    session, state, step = store.recover("arm")
    assert (session.episode, step) == (2, 7)
    np.testing.assert_array_equal(state["sum"], FULL["sum"])
    store.close()


class Forgetful(Summing):
    """Cannot say once what a row carries."""

    failed = False

    def moment(self, row: int) -> Moment:
        if not self.failed:
            self.failed = True
            raise MemoryError("no room for a copy")
        return super().moment(row)


def test_a_pass_that_cannot_even_begin_costs_its_own_frames_and_no_other_robot() -> None:
    async def scenario() -> None:
        async with serving(Forgetful()) as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            assert (await c.observe(1, 0, write=True, value=5.0))["vlamem"]["code"] == "internal"
            await c.observe(1, 0, write=True, value=5.0)
            assert await c.memory(1, 1) == 5

    run(scenario)


def test_a_file_of_labels_that_cannot_be_opened_again_for_a_moment_costs_no_label_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not in a file that has got the number of the one that was closed."""
    opened, refused = labels_module.JsonLog, list[str]()

    def sometimes(path: Path, *more: Any) -> Any:
        if (tmp_path / "labels.1.jsonl").exists() and len(refused) < 3:
            refused.append("no descriptor is free")
            raise OSError(refused[-1])
        return opened(path, *more)

    queue = LabelQueue(tmp_path / "labels.jsonl", lambda given: "done", most=2)
    monkeypatch.setattr(labels_module, "JsonLog", sometimes)
    kept = []
    for number in range(40):
        given = replace(label(f"l{number}"), episode=number + 1)
        try:
            queue.add(given)
            kept.append(given.label)
        except OSError:  # the robot sends it again
            continue
        queue.drain(LONG_S)
    assert queue._thread.is_alive()
    queue.close()
    assert refused
    lines = [x for p in tmp_path.glob("labels*.jsonl") for x in p.read_text().splitlines()]
    assert all(any(f'"{name}"' in line for line in lines) for name in kept)
    assert 30 < len(kept) < 41


class Unsure:
    """A critic that does not know."""

    def verify(self, trace: Trace, success: bool | None = None) -> Verdict:
        return Verdict("unknown", "critic", 0.5, 0, np.zeros(len(trace.actions) + 1))


def test_an_episode_whose_outcome_the_critic_does_not_know_is_credited_when_someone_labels_it(tmp_path: Path) -> None:
    layout = layout_of(Summing().spec)
    with SuccessMemory(tmp_path / "s.db", Origin("p", "w", "n", "r"), layout) as memory:
        commit_episode(memory, episode_in(tmp_path / "first"), label("a"))
        stored = [s.id for s in memory.store.segments(memory.origin)]
        traces = episode_in(tmp_path / "second", at=3.0)
        used = np.array(stored[:1])
        key, at = np.float32([1, 0]), np.float32([3.8, 0, 0, 1, 0, 0, 0, 0])
        traces.record_plan("arm", 1, 8, "touch it", key, at, np.full((4, 7), 0.8, np.float32), used)
        assert "nothing" in commit_episode(memory, traces, label("b", "unlabelled"), verifier=Unsure())
        commit_episode(memory, traces, label("c", "success"))
        credited = next(s for s in memory.store.segments(memory.origin) if s.id == stored[0])
        assert (credited.uses, credited.successes) == (1, 1)
