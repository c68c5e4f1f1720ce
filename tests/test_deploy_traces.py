"""Traces of what a server serves: deploy/server/tick_traces.py, and what the robot reports with its frames."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import point_mass
import pytest
from deploy_cases import client as connected
from deploy_cases import observation, options, run, serving, store_in
from memory_cases import Recalling
from PIL import Image

from vlamem.core.observation import Observation
from vlamem.core.running_trace import RunningTrace, read_running, running_path
from vlamem.core.tick_trace import TickTrace, TraceError, image_path, read_trace, strip_path, trace_path
from vlamem.deploy.robot.limits import Clip
from vlamem.deploy.robot.rounds import Mode, Timing
from vlamem.deploy.server.batcher import Decision
from vlamem.deploy.server.film import TILES, FilmStrip
from vlamem.deploy.server.labels import LabelQueue
from vlamem.deploy.server.tick_traces import TickTraces, read_report
from vlamem.policies.memory_policy import MemoryPolicy
from vlamem.policies.tick_recorder import TickColumns

ONES = np.ones(7, np.float32)
ABOUT = {"arm": "none", "policy": "point", "control_hz": 20.0}


def seen(step: int) -> dict[str, Any]:
    """What the point-mass policy reads."""
    image = np.full((16, 16, 3), 5 * step, np.uint8)
    return {"top": image, "proprioception": np.full(4, 0.1 * step, np.float32), "instruction": "go to the mark"}


def traced(folder: Path, most_bytes: int = 1 << 20) -> tuple[MemoryPolicy, TickTraces]:
    policy = MemoryPolicy(point_mass.policy(), rows=4)
    return policy, TickTraces(folder, TickColumns(policy).types, ABOUT, -ONES, ONES, most_bytes)


def test_an_episode_leaves_its_steps_commands_reports_film_and_label(tmp_path: Path) -> None:
    async def scenario() -> None:
        policy, ticks = traced(tmp_path)
        queue = LabelQueue(tmp_path / "labels.jsonl", lambda label: "done")
        async with serving(policy, options(), ticks=ticks, labels=queue) as server, connected(server.port) as robot:
            await robot.ask("hello", session="arm")
            await robot.ask("episode_start", episode=1)
            for step in range(30):
                more: dict[str, Any] = {"executed": [0.01 * step] * 7} if step else {}
                if step == 7:
                    report = {
                        "mode": "run",
                        "limits": ["speed", "step"],
                        "clipped": 0.25,
                        "plan_ms": 12.5,
                        "late_ms": 1,
                    }
                    more["report"] = report
                await robot.ask("observe", seen(step), episode=1, step=step, plan=step % 8 == 0, **more)
            running = read_running(trace_path(tmp_path, "arm", 1))
            assert len(running.rows) == 29  # the command of the newest step is not known yet
            await robot.ask("label", label="a", episode=1, outcome="success", source="operator")
            await robot.ask("episode_end", episode=1)
        queue.close()

    run(scenario)
    trace = read_trace(trace_path(tmp_path, "arm", 1))
    assert trace.column("step") == list(range(30))
    assert [i for i, planned in enumerate(trace.column("planned")) if planned] == [0, 8, 16, 24]
    assert trace.column("command")[6] == pytest.approx([0.07] * 7)
    assert trace.column("command")[29] is None
    assert trace.column("proprioception")[5] == pytest.approx([0.5] * 4)
    reported = trace.rows[6]
    assert (reported["mode"], reported["limits"]) == ("run", "speed step")
    assert (reported["clipped"], reported["plan_ms"], reported["late_ms"]) == (0.25, 12.5, 1.0)
    assert (reported["bounded"], trace.rows[8]["bounded"] > 0) == (None, True)
    assert min(row["pass_ms"] for row in trace.rows) > 0
    assert (trace.about["task"], trace.about["episode"], trace.about["control_hz"]) == ("arm", 1, 20.0)
    assert not running_path(trace_path(tmp_path, "arm", 1)).exists()
    with Image.open(strip_path(tmp_path, "arm", 1)) as strip, Image.open(image_path(tmp_path, "arm", 1)) as last:
        assert strip.size == (96 * TILES, 96)
        assert np.asarray(last).mean() == pytest.approx(5 * 29, abs=2)
    (line,) = (tmp_path / "traces" / "labels.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "session": "arm", "episode": 1, "outcome": "success", "source": "operator", "quarantined": False
    }  # fmt: skip


def test_chunks_are_the_same_with_and_without_traces(tmp_path: Path) -> None:
    async def chunks(ticks: TickTraces | None) -> list[np.ndarray]:
        policy = MemoryPolicy(point_mass.policy(), rows=4)
        async with serving(policy, options(), ticks=ticks) as server, connected(server.port) as robot:
            await robot.ask("hello", session="arm")
            await robot.ask("episode_start", episode=1)
            replies = [await robot.ask("observe", seen(i), episode=1, step=i, plan=True) for i in range(3)]
            return [reply["actions"] for reply in replies]

    async def scenario() -> None:
        np.testing.assert_array_equal(await chunks(None), await chunks(traced(tmp_path)[1]))

    run(scenario)


def test_a_reply_says_how_far_memory_was_trusted(tmp_path: Path) -> None:
    async def scenario() -> None:
        frozen = point_mass.policy()
        policy = MemoryPolicy(frozen, [Recalling(frozen.spec, 0.5, 0.75)], rows=4)
        async with serving(policy, options()) as server, connected(server.port) as robot:
            await robot.ask("hello", session="arm")
            await robot.ask("episode_start", episode=1)
            heads = [(await robot.ask("observe", seen(i), episode=1, step=i, plan=i == 1))["vlamem"] for i in range(3)]
        assert [head.get("weight") for head in heads] == [None, 0.75, None]
        assert [head["confidence"] for head in heads] == [0, 0, 0]  # this one does not tick

    run(scenario)


def test_an_episode_goes_on_in_its_trace_after_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        token = ""
        for first in (0, 5):
            parts = {"store": store_in(tmp_path / "sessions"), "ticks": traced(tmp_path)[1]}
            async with serving(options=options(), **parts) as server, connected(server.port) as robot:
                asked = {"token": token} if token else {}
                reply = await robot.ask("hello", session="arm", **asked)
                token = token or reply["vlamem"]["token"]
                await robot.ask("episode_start", episode=1)
                for step in range(first, first + 5):
                    await robot.observe(1, step, plan=False)

    run(scenario)
    assert [row["step"] for row in read_running(trace_path(tmp_path, "arm", 1)).rows] == list(range(10))


def test_a_report_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    for given, name in (
        (7, "the report is a int"),
        ({"speed": 1.0}, "speed of the report"),
        ({"late_ms": float("nan")}, "late_ms of the report"),
        ({"limits": ["x" * 99]}, "limits of the report"),
        ({"mode": 3}, "mode of the report"),
    ):
        with pytest.raises(ValueError, match=name):
            read_report(given)

    async def scenario() -> None:
        async with serving(options=options()) as server, connected(server.port) as robot:
            await robot.ask("hello", session="arm")
            await robot.ask("episode_start", episode=1)
            reply = await robot.ask("observe", observation(), episode=1, step=0, plan=True, report={"late_ms": "x"})
            assert (reply["vlamem"]["type"], reply["vlamem"]["code"]) == ("error", "observation")

    run(scenario)


def test_a_controllers_report_has_the_largest_of_what_happened_since_the_last() -> None:
    timing = Timing()
    timing.rounded(0.001)
    timing.rounded(0.004)
    timing.decided(0.05)
    timing.clipped([Clip("speed", "arm", (0.5, 0.1), (0.2, 0.1)), Clip("box", "arm", (0.2,), (0.1,))])
    found = timing.report(Mode.RUN)
    assert found == {"late_ms": 4.0, "plan_ms": 50.0, "limits": ["box", "speed"], "clipped": 0.3, "mode": "run"}
    assert read_report(found)["limits"] == "box speed"
    assert timing.report(Mode.HOLD) == {"mode": "hold"}


def test_a_full_disk_gives_up_the_trace_and_not_the_robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario() -> None:
        policy, ticks = traced(tmp_path)
        async with serving(policy, options(), ticks=ticks) as server, connected(server.port) as robot:
            await robot.ask("hello", session="arm")
            await robot.ask("episode_start", episode=1)
            monkeypatch.setattr(RunningTrace, "append", full)
            for step in range(4):
                reply = await robot.ask("observe", seen(step), episode=1, step=step, plan=True)
                assert reply["actions"].shape == (8, 7)
            await robot.ask("episode_end", episode=1)
            assert ticks.failed == 1

    run(scenario)
    assert not trace_path(tmp_path, "arm", 1).exists()


def test_the_oldest_traces_are_removed_beyond_the_quota_and_one_that_goes_on_never(tmp_path: Path) -> None:
    _, ticks = traced(tmp_path, most_bytes=1)
    for episode in (1, 2):
        ticks.begin("arm", episode)()
        running = ticks._running["arm"].trace
        assert running is not None
        running.append({"step": 0})
    assert [path.name for path in (tmp_path / "traces").iterdir()] == ["arm-0002.running.jsonl"]


def test_of_sessions_whose_names_hold_dots_the_oldest_trace_alone_is_removed(tmp_path: Path) -> None:
    _, ticks = traced(tmp_path, most_bytes=40)
    folder = tmp_path / "traces"
    folder.mkdir(exist_ok=True)
    for made, name in enumerate(("arm.1-0001.parquet", "arm.2-0001.parquet")):
        (folder / name).write_bytes(b"x" * 30)
        os.utime(folder / name, (made, made))
    ticks._remove_oldest()
    assert [path.name for path in folder.iterdir()] == ["arm.2-0001.parquet"]


def test_a_trace_of_an_episode_that_never_ends_ends_at_its_bound(tmp_path: Path) -> None:
    _, ticks = traced(tmp_path, most_bytes=1)
    ticks.begin("arm", 1)()
    obs = Observation({"top": np.zeros((1, 16, 16, 3), np.uint8)}, np.zeros((1, 4), np.float32), ("go",))
    for step in range(600):
        ticks.stepped("arm", step, obs, Decision(None, None, None, False, 0.0, 0.0, 0.0, 0.0, 1), None)
    ticks.close()
    assert len(read_running(trace_path(tmp_path, "arm", 1)).rows) == 256


def test_what_a_killed_server_left_of_an_episode_becomes_a_trace_when_the_next_begins(tmp_path: Path) -> None:
    left = RunningTrace(trace_path(tmp_path, "arm", 1), {"step": "int32"}, {"task": "arm"})
    left.append({"step": 0})
    left.close()
    traced(tmp_path)[1].begin("arm", 2)()
    assert read_trace(trace_path(tmp_path, "arm", 1)) == TickTrace({"step": "int32"}, [{"step": 0}], {"task": "arm"})


def test_a_running_trace_that_was_cut_is_read_as_far_as_it_goes_and_what_is_none_is_named(tmp_path: Path) -> None:
    path = trace_path(tmp_path, "arm", 1)
    trace = RunningTrace(path, {"step": "int32", "x": "floats"}, {})
    trace.append({"step": 0, "x": np.float32([1 / 3]), "y": None})
    trace.close()
    lines = running_path(path)
    lines.write_text(lines.read_text() + '{"step": 1, "x"')
    assert read_running(path).rows == [{"step": 0, "x": [0.3333333]}]
    lines.write_text("[]\n")
    with pytest.raises(TraceError, match=r"arm-0001\.running\.jsonl is no trace"):
        read_running(path)
    lines.write_text("")
    with pytest.raises(TraceError, match="no trace"):
        read_running(path)


def test_a_film_strip_is_spread_evenly_over_an_episode_of_any_length() -> None:
    for steps in (1, 3, 40, 1000):
        film = FilmStrip()
        for step in range(steps):
            image = np.full((1, 8, 16, 3), 255 * step // steps, np.uint8)
            film.seen(step, Observation({"a": image}, np.zeros((1, 1), np.float32), ("go",)))
        strip = film._kept
        assert len(strip) <= 2 * TILES
        data = film.strip()
        assert data is not None
        gaps = np.diff([at for at, _ in strip])
        assert gaps.size == 0 or gaps.min() == gaps.max()
        assert strip[0][0] == 0
        assert steps - strip[-1][0] <= max(gaps, default=1)
