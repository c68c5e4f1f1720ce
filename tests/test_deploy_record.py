"""deploy/robot/record: what a robot did as episodes of a dataset, and what a recording may never cost."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import counting_arm
import deploy_cases
import numpy as np
import pytest
from controller_cases import Scene
from deploy_cases import Hosted, wait
from record_cases import writing_here

pytest.importorskip("lerobot")
from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.messages import Frame, Reply
from vlamem.deploy.robot.panel import Panel
from vlamem.deploy.robot.protocol import RobotObservation
from vlamem.deploy.robot.record import ActedBy, EpisodeRows, Recorder, RecordError, Row
from vlamem.deploy.robot.record.columns import COLUMNS
from vlamem.deploy.robot.robot_file import SHIPPED, RobotFileError
from vlamem.deploy.robot.rounds import Mode, Round
from vlamem.policies.lerobot.dataset import DatasetReader
from vlamem.policies.lerobot.dataset_appending import DatasetAppender
from vlamem.scripts.control import main

SIZE = 64
COMMAND = np.arange(7.0) / 10


def seen(step: int, value: float = 0.0) -> RobotObservation:
    picture = np.full((SIZE, SIZE, 3), step, np.uint8)
    return RobotObservation({"front": picture}, np.full(8, step + value, np.float32), float(step))


def frame(step: int, episode: int = 1, value: float = 0.0) -> Frame:
    return Frame(episode, step, seen(step, value), "touch it", False, None)


def reply(step: int, episode: int = 1, **changed: Any) -> Reply:
    memory = {"wrote": step % 2 == 1, "gate": 0.1 * step, "confidence": 0.5, "weight": 0.25}
    return replace(Reply("tick", episode, step, None, "", 0.0, **memory), **changed)


def round_(mode: Mode, command: np.ndarray | None = COMMAND, episode: int = 1, planned: Any = None) -> Round:
    return Round(0.0, episode, mode, command, planned, np.zeros(8), None, 0.0)


# Rows -----------------------------------------------------------------------------------------------------------------


def test_a_row_has_the_last_command_of_its_step_and_the_reply_to_its_frame() -> None:
    rows: list[Row] = []
    episode = EpisodeRows(rows.append, patience=9)
    for step in range(3):
        episode.frame(frame(step))
        for part in (0.0, 0.5):
            episode.sent(round_(Mode.HOLD, COMMAND + step + part))
        if step:
            episode.replied(reply(step - 1))  # while the next step runs
    assert [row.frame.step for row in rows] == [0]  # that of step 1 came after frame 2
    episode.end()
    assert [row.frame.step for row in rows] == [0, 1, 2]
    np.testing.assert_allclose([row.action for row in rows], [COMMAND + step + 0.5 for step in range(3)])
    assert [row.reply and row.reply.wrote for row in rows] == [False, True, None]


def test_a_row_does_not_wait_for_a_server_that_is_away() -> None:
    rows: list[Row] = []
    episode = EpisodeRows(rows.append, patience=3)
    for step in range(6):
        episode.frame(frame(step))
        episode.sent(round_(Mode.STOP))
    assert [(row.frame.step, row.reply) for row in rows] == [(0, None), (1, None), (2, None)]
    episode.replied(reply(4))
    episode.replied(reply(5, kind="refused"))
    episode.end()
    assert [row.reply is not None for row in rows] == [False] * 4 + [True, False]


def test_what_was_not_sent_or_not_seen_is_no_row() -> None:
    rows: list[Row] = []
    episode = EpisodeRows(rows.append, patience=9)
    for step, command in ((0, None), (1, COMMAND), (2, COMMAND), (3, COMMAND)):
        episode.frame(frame(step, value=np.nan if step == 2 else 0.0))
        episode.sent(round_(Mode.WAIT, command))
        episode.sent(round_(Mode.RUN, COMMAND, episode=7))  # of a watchdog that was late
    episode.end()
    assert [row.frame.step for row in rows] == [1, 3]


def test_each_row_says_who_acted() -> None:
    rows: list[Row] = []
    scene = Scene()
    episode = EpisodeRows(rows.append, patience=9)
    send = scene.server.send

    def framed(given: Frame) -> None:
        episode.frame(given)
        send(given)

    scene.server.send = framed  # type: ignore[method-assign]
    scene.controller._record = episode.sent
    scene.play(20)  # a chunk
    scene.controller.stop()
    scene.play(20)
    scene.controller.go()
    scene.server.up = False
    scene.play(120)  # what was planned before grows old, then nobody
    episode.end()
    acted = [row.acted_by for row in rows]
    assert acted[:6] == [ActedBy.POLICY] * 6
    assert acted[9:15] == [ActedBy.OPERATOR] * 6
    assert acted[-6:] == [ActedBy.REST] * 6
    np.testing.assert_allclose([row.action[:3] for row in rows[-6:] if row.action is not None], 0)


# The recorder, with its process as a thread of this one ---------------------------------------------------------------


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    writing_here(monkeypatch)


@pytest.fixture
def robot_file(tmp_path: Path) -> Path:
    text = (SHIPPED / "tabletop.toml").read_text()
    text = re.sub(r"^box_.*\n", "", text, flags=re.MULTILINE).replace('["agentview", "wrist"]', '["front"]')
    path = tmp_path / "arm.toml"
    path.write_text(f"{text}measured = 7  # so that rest is sent from the first round on\n")
    return path


class Run:
    """A recorder and what it said."""

    def __init__(self, root: Path, robot_file: Path, **options: Any) -> None:
        self.said: list[str] = []
        self.events = EventLog()
        self.recorder = Recorder(root, robot_file, self.events, self.said.append, **options)

    def play(self, episode: int, frames: int = 4, label: Any = None, step: int = -1) -> None:
        self.recorder.begin(episode, step)
        for step in range(frames):
            self.recorder.frame(frame(step, episode))
            self.recorder.sent(round_(Mode.HOLD, COMMAND, episode))
            self.recorder.replied(reply(step, episode))
        self.recorder.end()
        if label:
            self.recorder.label(episode, label)


def test_episodes_carry_label_memory_and_action_and_a_later_run_goes_on(
    here: None, robot_file: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    run = Run(root, robot_file)
    with run.recorder as recorder:
        run.play(1, label="failure")
        run.recorder.label(1, "success")  # the last one counts
        run.play(2, frames=5, label="failure")
        run.play(3)
    assert (recorder.stored, recorder.lost, recorder.total, run.said) == (3, 0, 3, [])
    assert run.events.counts["recorded"] == 3
    again = Run(root, robot_file)
    with again.recorder as recorder:
        again.play(4, label="success")
    assert (recorder.stored, recorder.total) == (1, 4)
    reader = DatasetReader(root)
    assert [episode.success for episode in reader] == [True, False, None, True]
    second = reader.episode(1)
    np.testing.assert_allclose(second.actions, np.tile(COMMAND, (5, 1)), rtol=1e-6)
    np.testing.assert_allclose(second.observation.proprioception[:, 0], range(5))
    assert second.observation.instruction == ("touch it",) * 5
    table = reader._dataset.hf_dataset.with_format("numpy")[4:9]
    assert {name: np.asarray(table[name]).reshape(-1).tolist() for name in COLUMNS} == {
        "next.success": [False] * 5, "labelled": [False] * 4 + [True], "acted_by": [0] * 5,
        "intervention": [False] * 5, "planned": [False] * 5,
        "memory.replied": [True] * 5, "memory.wrote": [False, True, False, True, False],
        "memory.gate": np.float32([0, 0.1, 0.2, 0.3, 0.4]).tolist(), "memory.confidence": [0.5] * 5,
        "memory.weight": [0.25] * 5, "session.episode": [2] * 5, "session.step": list(range(5)),
    }  # fmt: skip


def test_pictures_that_cannot_be_written_in_time_cost_the_episode_and_are_said_once(
    here: None, robot_file: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "data", robot_file, most_waiting=SIZE * SIZE * 3 * 8)
    slow = threading.Event()
    with run.recorder as recorder:
        run.recorder._connection = Stuck(recorder._connection, slow)  # type: ignore[assignment]
        run.play(1, frames=40)
        slow.set()
        wait(lambda: recorder._waiting == 0)
        run.play(2)
    assert run.said == ["episode 1 is not recorded: 0 MB of pictures wait to be written"]
    assert (recorder.stored, recorder.lost) == (1, 1)
    assert [episode.observation.proprioception.shape for episode in DatasetReader(tmp_path / "data")] == [(4, 8)]


class Stuck:
    """A connection that takes nothing until it may."""

    def __init__(self, connection: socket.socket, may: threading.Event) -> None:
        self._connection, self._may = connection, may

    def sendall(self, data: bytes) -> None:
        self._may.wait()
        self._connection.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.parametrize("where", ["add", "commit"])
def test_a_full_disk_costs_the_episode_alone(
    where: str, here: None, robot_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "data", robot_file)
    original: Callable[..., None] = getattr(DatasetAppender, where)
    full = [True]

    def filling(self: DatasetAppender, *given: Any) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        original(self, *given)

    monkeypatch.setattr(DatasetAppender, where, filling)
    with run.recorder as recorder:
        run.play(1)
        recorder._finish()
        wait(lambda: run.said)
        full[0] = False
        run.play(2)
    assert run.said == ["episode 1 is not recorded: OSError: [Errno 28] No space left on device"]
    assert (recorder.stored, recorder.lost) == (1, 1)
    assert len(DatasetReader(tmp_path / "data")) == 1


def test_an_episode_that_is_not_whole_is_not_recorded(here: None, robot_file: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "data", robot_file)
    with run.recorder as recorder:
        run.play(1, step=17)
        run.play(2)
        run.recorder.begin(3)
        run.recorder.frame(frame(0, 3))
    assert sorted(run.said) == [
        "episode 1 is not recorded: the run before this one was at it, and its beginning is lost",
        "episode 3 is not recorded: the run ended in its middle",
    ]
    assert (recorder.stored, recorder.lost) == (1, 2)


def test_a_recording_that_was_killed_is_said_and_the_next_goes_on_after_the_last_whole_episode(
    robot_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = tmp_path / "data"
    run = Run(root, robot_file)
    with run.recorder as recorder:
        run.play(1)
        recorder.begin(2)
        wait(lambda: recorder.stored == 1)
        recorder.frame(frame(0, 2))
        recorder._process.kill()
        wait(lambda: run.said)
        run.play(3)  # control goes on
    assert run.said == [f"episode {n} is not recorded: the recording process has ended" for n in (2, 3)]
    request.getfixturevalue("here")
    again = Run(root, robot_file)
    with again.recorder as recorder:
        again.play(4)
    assert (recorder.total, len(DatasetReader(root))) == (2, 2)


def test_a_dataset_that_is_not_this_robots_is_refused_before_anything_moves(
    here: None, robot_file: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    run = Run(root, robot_file)
    with run.recorder:
        run.play(1)
    robot_file.write_text(robot_file.read_text().replace('"front"', '"top"'))
    with pytest.raises(RecordError, match=r"data: 'observation.images.front' of .* none: give another folder"):
        Run(root, robot_file).recorder.__enter__()
    robot_file.write_text(robot_file.read_text().replace("policy_hz = 20", "policy_hz = 12.5"))
    with pytest.raises(RobotFileError, match=r"policy_hz 12.5 .* leave --record out"):
        Run(root, robot_file)


# The command line ----------------------------------------------------------------------------------------------------


def test_control_records_its_episodes_with_the_operators_label(
    here: None, robot_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARM_LOG", str(tmp_path / "arm.jsonl"))
    monkeypatch.setattr(deploy_cases, "SPEC", replace(deploy_cases.SPEC, image_size=SIZE))

    class Pictured(counting_arm.CountingArm):
        def observe(self) -> RobotObservation:
            return replace(super().observe(), images={"front": np.full((SIZE, SIZE, 3), 99, np.uint8)})

    def pressing(panel: Panel) -> None:
        def press() -> None:
            while '"label"' not in (tmp_path / "events.jsonl").read_text():  # no episode has begun
                panel.press("s")
                time.sleep(0.05)

        threading.Thread(target=press).start()

    monkeypatch.setattr(counting_arm, "make", Pictured)
    monkeypatch.setattr(Panel, "listen", pressing)
    monkeypatch.setattr(Panel, "_report", lambda *_: None, raising=False)
    host = Hosted(tmp_path / "server")
    host.start()
    given = {
        "robot": "counting_arm:make", "robot-file": robot_file, "server": f"ws://127.0.0.1:{host.port}",
        "instruction": "touch it", "seconds": 1.0, "realtime-priority": 0, "watchdog": "thread", "episodes": 2,
        "log": tmp_path / "events.jsonl", "state": tmp_path / "state", "record": tmp_path / "data",
    }  # fmt: skip
    try:
        assert main([word for name, value in given.items() for word in (f"--{name}", str(value))]) == 0
    finally:
        host.end()
    assert f"2 episodes added to {tmp_path / 'data'}; it has 2" in capsys.readouterr().out
    reader = DatasetReader(tmp_path / "data")
    first, second = reader
    assert (first.success, second.success) == (True, None)
    sent = [json.loads(line) for line in (tmp_path / "arm.jsonl").read_text().splitlines()[1:-1]]
    commands = np.float32(sent)
    assert all((commands == action).all(axis=1).any() for action in first.actions)
    assert (first.observation.images["front"][0] > 90).all()
    table = reader._dataset.hf_dataset.with_format("numpy")[:]
    known = np.asarray(table["memory.replied"]).ravel()
    assert known.any()
    assert np.asarray(table["memory.wrote"]).ravel()[known].all()  # what the arm shows is worth writing
    assert (np.asarray(table["memory.gate"]).ravel()[known] == 1).all()
    assert np.asarray(table["planned"]).any()
    assert set(np.asarray(table["session.episode"]).ravel().tolist()) == {1, 2}


def test_a_dry_run_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--record records what the robot did, and with --dry-run it does nothing"):
        main(["--robot", "x:y", "--dry-run", "--record", str(tmp_path)])


def test_every_column_is_on_the_page() -> None:
    page = (Path(__file__).parent.parent / "docs" / "deploy.md").read_text(encoding="utf-8")
    for name in COLUMNS:
        assert f"`{name}`" in page, name
