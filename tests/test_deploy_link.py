"""deploy/robot/link.py against a real server in this process: frames in order, once each, whatever the network does."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import deploy_cases
import numpy as np
import pytest
from deploy_cases import LONG_S, SPEC, Hosted, collect, frame, wait

from vlamem.deploy.robot.controller import Controller
from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.link import Link, LinkOptions
from vlamem.deploy.robot.outbox import LinkError, Outbox
from vlamem.deploy.robot.protocol import RobotObservation
from vlamem.deploy.robot.robot_file import RobotFileError, load_robot_file
from vlamem.deploy.robot.session import drain, join
from vlamem.deploy.server.session_record import read_record


@contextlib.contextmanager
def linked(host: Hosted, state: Path | None = None, **options: Any) -> Iterator[Link]:
    link = Link(LinkOptions(f"ws://127.0.0.1:{host.port}", "arm", state, **options), EventLog())
    try:
        yield link
    finally:
        link.close()


def test_every_frame_reaches_memory_once_and_plans_come_back(hosted: Hosted) -> None:
    with linked(hosted) as link:
        joined = link.start()
        assert joined.metadata["spec"]["name"] == SPEC.name
        link.begin(1)
        for step in range(20):
            link.send(frame(step, write=True))
        link.send(frame(20, plan=True))
        reply = collect(link, 20)
        assert round(100 * float(reply.chunk[0, 0])) == 20
        assert link.waiting == 0


def test_a_restarted_server_goes_on_with_the_memory_and_sees_what_was_missed(hosted: Hosted) -> None:
    with linked(hosted) as link:
        link.start()
        link.begin(1)
        for step in range(5):
            link.send(frame(step, write=True))
        wait(lambda: link.waiting == 0)
        hosted.end()
        for step in range(5, 10):
            link.send(frame(step, write=True, plan=step == 7))
        hosted.start()
        link.send(frame(10, plan=True))
        assert round(100 * float(collect(link, 10).chunk[0, 0])) == 10
        assert sum(hosted.policy.batches) == 6  # none of the first five again


def test_a_new_process_of_the_robot_resumes_its_session(hosted: Hosted, tmp_path: Path) -> None:
    with linked(hosted, tmp_path / "robot") as link:
        link.start()
        link.begin(1)
        link.send(frame(0, write=True))
        wait(lambda: link.waiting == 0)
    with linked(hosted, tmp_path / "robot") as link:
        joined = link.start()
        assert (joined.restored, joined.episode, joined.step) == (True, 1, 0)
        link.send(frame(1, plan=True))
        assert round(100 * float(collect(link, 1).chunk[0, 0])) == 1
    assert (tmp_path / "robot" / "link.json").stat().st_mode & 0o077 == 0  # it holds a token


def test_without_its_state_a_robot_cannot_take_the_session(hosted: Hosted, tmp_path: Path) -> None:
    with linked(hosted, tmp_path / "robot") as link, linked(hosted, tmp_path / "other") as other:
        link.start()
        with pytest.raises(LinkError, match="is in use"):
            other.start()
    with linked(hosted) as other:  # a robot that keeps nothing has a session that is its own
        assert not other.start().restored


def test_a_robot_has_one_controller(hosted: Hosted, tmp_path: Path) -> None:
    with linked(hosted, tmp_path / "robot") as link:
        link.start()
        with pytest.raises(LinkError, match=r"robot is in use by another controller \(process \d+\).* another --state"):
            Link(link.options, EventLog())
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "link.json").write_bytes((tmp_path / "robot" / "link.json").read_bytes())
        with linked(hosted, tmp_path / "copy") as other:
            assert other.start().restored
            wait(lambda: link.failure)
            assert "session 'arm' is driven by another controller" in str(link.failure)
            other.begin(1)
            other.send(frame(0, plan=True))
            assert collect(other, 0).kind == "chunk"
    with linked(hosted, tmp_path / "robot") as link, pytest.raises(LinkError, match="end one of the two"):
        link.start()  # as often started as the copy
    with linked(hosted, tmp_path / "robot") as link:
        assert link.start().restored


def test_a_label_survives_the_server_and_the_robot_and_is_acknowledged_once(hosted: Hosted, tmp_path: Path) -> None:
    with linked(hosted, tmp_path / "robot") as link:
        link.start()
        link.begin(1)
        link.send(frame(0))
        wait(lambda: link.waiting == 0)
        hosted.end()
        name = link.label(1, "success")
        assert link.unacknowledged == 1
    hosted.start()
    with linked(hosted, tmp_path / "robot") as link:
        link.start()
        assert drain(link, LONG_S)
        assert link.acknowledged == [name]
        link.begin(2)  # nothing else says that the first has ended
        wait(lambda: hosted.done == [name])


def test_an_episode_that_has_ended_is_not_unfinished_even_where_the_server_was_not_there_to_get_it(
    hosted: Hosted, tmp_path: Path
) -> None:
    with linked(hosted, tmp_path / "robot") as link:
        link.start()
        link.begin(1)
        link.send(frame(0, write=True))
        wait(lambda: link.waiting == 0)
    with linked(hosted, tmp_path / "robot") as link:
        assert link.start().unfinished
        hosted.end()
        link.end(1)
    hosted.start()
    with linked(hosted, tmp_path / "robot") as link:
        joined = link.start()
        assert (joined.restored, joined.episode, joined.ended, joined.unfinished) == (True, 1, True, False)
        wait(lambda: read_record(tmp_path / "server" / "sessions" / "arm").ended)


def test_frames_and_label_of_an_episode_reach_a_server_that_was_away_before_the_next_episode_begins(
    hosted: Hosted,
) -> None:
    with linked(hosted) as link:
        link.start()
        link.begin(1)
        link.send(frame(0, write=True))
        wait(lambda: link.waiting == 0)
        hosted.end()
        for step in range(1, 6):
            link.send(frame(step, write=True))
        link.end(1)
        name = link.label(1, "success")
        link.begin(2)
        link.send(frame(0, plan=True, episode=2))
        hosted.start()
        assert collect(link, 0).chunk[0, 0] == 0
        assert sum(hosted.policy.batches) == 6  # five of the first episode, one of the second
        assert link.acknowledged == [name]
        wait(lambda: hosted.done == [name])


def test_what_comes_back_for_the_episode_before_is_not_polled(hosted: Hosted) -> None:
    with linked(hosted) as link:
        link.start()
        link.begin(1)
        link.send(frame(0, plan=True))
        link.begin(2)
        link.send(frame(0, write=True, plan=True, episode=2))
        reply = collect(link, 0)
        assert reply.episode == 2
        assert round(100 * float(reply.chunk[0, 0])) == 1


def test_a_backlog_beyond_its_bound_loses_the_oldest_frames_and_counts_them(hosted: Hosted) -> None:
    with linked(hosted, backlog=5) as link:
        link.start()
        link.begin(1)
        hosted.end()
        wait(lambda: not link.connected)
        for step in range(12):
            link.send(frame(step, write=True))
        assert link._events.counts["frame_lost"] == 7
        hosted.start()
        link.send(frame(12, plan=True))
        assert round(100 * float(collect(link, 12).chunk[0, 0])) in (4, 5)


def test_a_refused_observation_comes_back_as_such(hosted: Hosted) -> None:
    with linked(hosted) as link:
        link.start()
        link.begin(1)
        bad = frame(0, plan=True)
        bad.observation.images["front"] = np.zeros((9, 9, 3), np.uint8)  # type: ignore[index]  # a dict here
        link.send(bad)
        reply = collect(link, 0)
        assert reply.kind == "refused"
        assert "expected uint8" in reply.detail


def test_a_refused_label_costs_neither_the_connection_nor_a_frame(tmp_path: Path) -> None:
    host = Hosted(None)  # keeps no labels
    host.start()
    try:
        with linked(host, tmp_path) as link:
            link.start()
            link.begin(1)
            link.send(frame(0))
            name = link.label(1, "success")
            wait(lambda: link.trouble)
            assert "this server keeps no labels: start it with --state" in link.trouble
            link.send(frame(1, plan=True))
            assert collect(link, 1).kind == "chunk"
            assert drain(link, LONG_S)
            counts = link._events.counts
            assert (counts["label_refused"], counts["connected"], link.unacknowledged) == (1, 1, 1)
            assert name in (tmp_path / "link.json").read_text()
    finally:
        host.end()


def test_the_label_of_a_lost_session_marks_no_episode_of_the_next(tmp_path: Path) -> None:
    host = Hosted(tmp_path / "before")
    host.start()
    try:
        with linked(host, tmp_path / "robot") as link:
            link.start()
            link.begin(1)
            link.send(frame(0))
            wait(lambda: link.waiting == 0)
            host.end()
            old = link.label(1, "success")
            host.folder = tmp_path / "after"
            host.start()
            wait(lambda: link._events.counts["session_lost"])
            link.send(frame(1, plan=True))
            assert collect(link, 1).kind == "chunk"
            new = link.label(1, "failure")
            link.end(1)
            assert drain(link, LONG_S)
            assert link.acknowledged == [new]
            assert link._events.counts["label_lost"] == 1
        assert old not in (tmp_path / "after" / "labels.jsonl").read_text()
    finally:
        host.end()


def test_a_robot_whose_disk_is_full_drives_on_and_says_so(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(outbox: Outbox) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Outbox, "save", full)
    with linked(hosted, tmp_path) as link:
        link.start()
        link.begin(1)
        link.send(frame(0, plan=True))
        assert collect(link, 0).kind == "chunk"
        assert link._events.counts["not_saved"] >= 1
        assert link._events.counts["connected"] == 1


def test_a_server_that_comes_back_with_another_policy_ends_the_link_and_that_is_reported(
    hosted: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    with linked(hosted) as link:
        link.start()
        hosted.end()
        wait(lambda: link._events.counts["server_lost"])
        assert link.trouble
        monkeypatch.setattr(deploy_cases, "SPEC", replace(SPEC, horizon=5))
        hosted.start()
        wait(lambda: link.failure)
        assert "another policy now: stop, and start the robot again" in str(link.failure)
        assert link.trouble == link.failure
        assert link._events.counts["link_ended"] == 1


def test_an_episode_that_is_over_is_refused_and_the_next_one_begins_on_the_same_connection(hosted: Hosted) -> None:
    with linked(hosted) as link:
        link.start()
        link.begin(5)
        link.send(frame(0, plan=True, episode=5))
        assert collect(link, 0).kind == "chunk"
        link.begin(2)
        link.send(frame(0, plan=True, episode=2))
        refused: list[Any] = []
        wait(lambda: refused.extend(link.poll()) or refused)
        assert (refused[0].kind, refused[0].episode) == ("refused", 2)
        assert "episode 2 of session" in refused[0].detail
        link.begin(6)
        link.send(frame(1, plan=True, episode=6))
        assert collect(link, 1).kind == "chunk"
        assert link._events.counts["connected"] == 1


def test_no_server_a_wrong_key_and_another_robot_are_named(tmp_path: Path) -> None:
    link = Link(LinkOptions("ws://127.0.0.1:9", "arm"), EventLog())
    with pytest.raises(LinkError, match=r"no server at ws://127\.0\.0\.1:9"):
        link.start(0.5)
    host = Hosted(None, api_key="secret")
    host.start()
    try:
        with linked(host) as link, pytest.raises(LinkError, match="--api-key-file"):
            link.start()
        with linked(host, api_key="secret") as link, pytest.raises(RobotFileError, match="camera"):
            join(link, load_robot_file("tabletop"))
    finally:
        host.end()


def test_a_controller_drives_through_a_link(hosted: Hosted) -> None:
    class Arm:
        sent = 0

        def connect(self) -> None: ...

        def close(self) -> None: ...

        def observe(self) -> RobotObservation:
            return replace(frame(0, write=True).observation, stamp=time.monotonic(), gripper_force=0.0)

        def send(self, command: np.ndarray) -> None:
            self.sent += 1

    # a busy machine answers late: what it plans is to be sent all the same
    arm, file = Arm(), replace(load_robot_file("tabletop"), cameras=("front",), stale_s=60.0)
    with linked(hosted) as link:
        join(link, file)
        controller = Controller(arm, file, link)
        controller.begin("touch it", 1)
        controller.run(lambda now: arm.sent >= 20)
        assert controller.timing.decisions
