"""deploy/robot/outbox.py without a network: what is sent, what is sent again, and what is dropped."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from deploy_cases import LONG_S, frame

from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.outbox import LinkError, Outbox
from vlamem.deploy.wire import unpack


def outbox(state: Path | None = None, backlog: int = 9, window: int = 3) -> Outbox:
    made = Outbox("arm", state, backlog, window, EventLog(), lambda: 0.0)
    made.joined({"session": "arm", "token": "secret", "episode": 0}, first=True)
    return made


def fill(box: Outbox, steps: range, episode: int = 1) -> None:
    for step in steps:
        box.add(frame(step, plan=True, episode=episode))


def begin(box: Outbox, episode: int) -> None:
    """Begins an episode, at the server too."""
    box.begin(episode)
    assert sent(box)[-1]["type"] == "episode_start"
    box.started(episode)


def sent(box: Outbox) -> list[dict[str, Any]]:
    """The heads of everything that is to be sent now."""
    heads = []
    while (data := box.next()) is not None:
        heads.append(unpack(data)["vlamem"])
    return heads


def test_the_episode_comes_first_and_no_more_frames_are_under_way_than_the_window_has() -> None:
    box = outbox()
    box.begin(1)
    fill(box, range(5))
    (start,) = sent(box)
    assert start == {"type": "episode_start", "episode": 1, "seq": "start 1"}
    box.started(1)
    assert [f["step"] for f in sent(box)] == [0, 1, 2]
    box.confirm({"episode": 1, "step": 1}, None)
    assert [f["step"] for f in sent(box)] == [3, 4]
    assert [(r.kind, r.step) for r in box.poll()] == [("tick", 1)]
    assert box.waiting == 3


def test_the_end_and_the_labels_of_an_episode_follow_its_last_frame_and_the_next_start_follows_them() -> None:
    box = outbox()
    begin(box, 1)
    fill(box, range(5))
    name = box.label(1, "success", "operator")
    box.end(1)
    box.begin(2)
    fill(box, range(2), 2)
    assert [f["step"] for f in sent(box)] == [0, 1, 2]
    box.confirm({"episode": 1, "step": 2}, None)
    assert [f["step"] for f in sent(box)] == [3, 4]
    box.confirm({"episode": 1, "step": 3}, None)
    assert sent(box) == []
    box.confirm({"episode": 1, "step": 4}, None)
    assert box.poll() == []
    after = sent(box)
    assert [head["type"] for head in after] == ["episode_end", "label", "episode_start"]
    assert (after[0]["episode"], after[1]["label"], after[2]["episode"]) == (1, name, 2)
    box.started(2)
    assert [(f["episode"], f["step"]) for f in sent(box)] == [(2, 0), (2, 1)]
    assert box.waiting == 2


def test_a_robot_that_sends_no_end_is_served_too() -> None:
    box = outbox()
    begin(box, 1)
    name = box.label(1, "success", "operator")
    assert [head["label"] for head in sent(box)] == [name]
    box.begin(2)
    assert [(head["type"], head["episode"]) for head in sent(box)] == [("episode_start", 2)]


def test_an_end_is_sent_again_until_the_server_confirms_it() -> None:
    box = outbox()
    begin(box, 1)
    box.end(1)
    assert [head["type"] for head in sent(box)] == ["episode_end"]
    box.joined({"session": "arm", "episode": 1, "ended": False}, first=False)
    assert [head["type"] for head in sent(box)] == ["episode_end"]
    assert not box.drained
    box.confirm_end(1)
    assert box.drained
    box.joined({"session": "arm", "episode": 1, "ended": True}, first=False)
    assert sent(box) == []
    assert box.drained


def test_a_start_is_sent_until_it_is_answered_and_no_frame_overtakes_it() -> None:
    now = 0.0
    box = Outbox("arm", None, 9, 3, EventLog(), lambda: now)
    box.joined({"session": "arm", "token": "secret", "episode": 0}, first=True)
    box.begin(1)
    fill(box, range(1))
    assert [head["type"] for head in sent(box)] == ["episode_start"]
    now = 3.0
    assert box.overdue(2.0)
    box.joined({"session": "arm", "episode": 0}, first=False)
    assert [head["type"] for head in sent(box)] == ["episode_start"]
    box.started(1)
    assert [head["type"] for head in sent(box)] == ["observe"]


def test_of_an_episode_that_another_session_knows_nothing_is_sent() -> None:
    box = outbox()
    begin(box, 1)
    fill(box, range(2))
    box.end(1)
    box.begin(2)
    fill(box, range(1), 2)
    box.joined({"session": "arm-1", "token": "other", "episode": 0}, first=False)
    assert [(head["type"], head["episode"]) for head in sent(box)] == [("episode_start", 2)]
    assert box.waiting == 1


def test_what_was_not_confirmed_goes_out_again_and_asks_for_a_chunk_only_at_the_newest_frame() -> None:
    box = outbox()
    begin(box, 1)
    fill(box, range(3))
    sent(box)
    box.confirm({"episode": 1, "step": 0}, None)
    box.joined({"session": "arm", "episode": 1}, first=False)
    assert [(f["step"], f["plan"]) for f in sent(box)] == [(1, False), (2, True)]


def test_a_refused_frame_is_not_sent_again_and_an_answer_of_another_episode_is_not_polled() -> None:
    box = outbox()
    begin(box, 1)
    fill(box, range(2))
    seq = sent(box)[0]["seq"]
    box.refuse(seq, "observation", "no picture")
    box.joined({"session": "arm", "episode": 1}, first=False)
    assert [f["step"] for f in sent(box)] == [1]
    assert [(r.kind, r.detail) for r in box.poll()] == [("refused", "no picture")]
    box.begin(2)
    box.confirm({"episode": 1, "step": 1}, None)
    box.refuse(seq, "observation", "late")
    assert box.poll() == []


def test_a_refused_label_is_refused_labels_and_tried_again_on_the_next_connection_behind_the_others() -> None:
    box = outbox()
    begin(box, 1)
    first = box.label(0, "success", "operator")
    (head,) = sent(box)
    box.refuse(head["seq"], "label", "no labels here")
    assert sent(box) == []
    assert box.drained
    assert (box.unacknowledged, box.trouble) == (1, "1 labels were refused: no labels here")
    second = box.label(1, "failure", "operator")
    assert not box.drained
    assert [head["label"] for head in sent(box)] == [second]
    box.joined({"session": "arm", "episode": 1}, first=False)
    assert [head["label"] for head in sent(box)] == [second, first]
    box.acknowledge(first)
    box.acknowledge(second)
    assert (box.unacknowledged, box.trouble) == (0, None)


def test_a_server_that_refuses_labels_gets_only_a_few_of_them() -> None:
    box = outbox()
    begin(box, 60)
    for episode in range(1, 61):
        box.label(episode, "success", "operator")
    for _ in range(60):
        heads = sent(box)
        assert len(heads) <= 8
        for head in heads:
            box.refuse(head["seq"], "label", "no labels here")
    assert len(box._labels_sent) == 8


def test_an_episode_that_is_over_at_the_server_is_not_started_again_and_the_controller_gets_the_reason() -> None:
    box = outbox()
    box.joined({"session": "arm", "episode": 7}, first=False)
    box.begin(3)
    fill(box, range(2), 3)
    (start,) = sent(box)
    box.refuse(start["seq"], "order", "episode 3 is over")
    fill(box, range(2, 4), 3)
    assert sent(box) == []
    assert [(r.kind, r.episode, r.detail) for r in box.poll()] == [("refused", 3, "episode 3 is over")]
    assert (box.waiting, box.trouble) == (0, "episode 3 does not begin: episode 3 is over")
    box.joined({"session": "arm", "episode": 7}, first=False)
    assert sent(box) == []
    begin(box, 8)
    assert box.trouble is None


def test_an_episode_that_the_server_could_not_begin_is_begun_later_with_all_its_frames() -> None:
    now = 0.0
    box = Outbox("arm", None, 9, 3, EventLog(), lambda: now)
    box.joined({"session": "arm", "token": "secret", "episode": 0}, first=True)
    box.begin(1)
    fill(box, range(2))
    (start,) = sent(box)
    box.refuse(start["seq"], "internal", "disk full")
    assert sent(box) == []
    assert box.trouble == "episode 1 does not begin: disk full"
    now = 2.0
    assert [head["type"] for head in sent(box)] == ["episode_start"]
    box.started(1)
    assert [head["step"] for head in sent(box)] == [0, 1]
    assert box.trouble is None


def test_a_label_of_a_session_that_is_lost_is_never_sent_to_the_next_one(tmp_path: Path) -> None:
    events = EventLog()
    box = Outbox("arm", tmp_path, 9, 3, events, lambda: 0.0)
    box.joined({"session": "arm", "token": "secret", "episode": 0}, first=True)
    begin(box, 1)
    box.label(1, "success", "operator")
    again = Outbox("arm", tmp_path, 9, 3, events, lambda: 0.0)
    again.joined({"session": "arm-1", "token": "other", "episode": 0}, first=True)
    begin(again, 1)
    assert sent(again) == []
    assert (again.unacknowledged, events.counts["label_lost"]) == (0, 1)
    name = again.label(1, "failure", "operator")
    (head,) = sent(again)
    assert (head["label"], "session" in head) == (name, False)


def test_a_label_kept_before_labels_knew_their_session_belongs_to_the_one_beside_it(tmp_path: Path) -> None:
    label = {"label": "a", "episode": 0, "outcome": "success", "source": "operator"}
    kept = {"session": "arm", "token": "secret", "labels": {"a": label}}
    (tmp_path / "link.json").write_text(json.dumps(kept))
    box = Outbox("arm", tmp_path, 9, 3, EventLog(), lambda: 0.0)
    box.joined({"session": "arm", "episode": 0}, first=True)
    assert [head["label"] for head in sent(box)] == ["a"]


def test_labels_and_the_session_are_found_again_by_the_next_process(tmp_path: Path) -> None:
    name = outbox(tmp_path).label(0, "success", "operator")
    again = Outbox("arm", tmp_path, 9, 3, EventLog(), lambda: 0.0)
    assert again.hello() == {"type": "hello", "session": "arm", "token": "secret"}
    again.joined({"session": "arm", "episode": 0}, first=True)
    assert [head["label"] for head in sent(again)] == [name]
    again.acknowledge(name)
    assert again.acknowledged == [name]
    assert again.unsaved
    again.save()
    assert Outbox("arm", tmp_path, 9, 3, EventLog(), lambda: 0.0).unacknowledged == 0


def test_nothing_that_the_loop_calls_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = outbox(tmp_path)
    begin(box, 1)
    writing, written = threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        writing.set()
        assert written.wait(LONG_S)

    monkeypatch.setattr("os.fsync", slow)
    thread = threading.Thread(target=box.label, args=(1, "success", "operator"))
    thread.start()
    assert writing.wait(LONG_S)
    assert not box._lock.locked()
    fill(box, range(1))
    box.confirm({"episode": 1, "step": sent(box)[0]["step"]}, None)
    assert [r.step for r in box.poll()] == [0]
    box.end(1)
    box.begin(2)
    assert thread.is_alive()
    written.set()
    thread.join(LONG_S)
    assert box.unsaved  # the end came after what was written
    box.save()
    assert json.loads((tmp_path / "link.json").read_text())["ended"] == 1


def test_a_label_that_the_disk_does_not_take_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = outbox(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        box.label(1, "success", "operator")
    assert box.unacknowledged == 0
    assert box.unsaved


def test_a_session_is_asked_for_with_one_nonce_until_the_server_answers_and_by_the_next_process_too(
    tmp_path: Path,
) -> None:
    box = Outbox("arm", tmp_path, 9, 3, EventLog(), lambda: 0.0)
    hello = box.hello()
    assert hello.keys() == {"type", "session", "nonce"}
    assert len(hello["nonce"]) >= 22
    assert box.unsaved
    assert box.hello() == hello
    box.save()
    again = Outbox("arm", tmp_path, 9, 3, EventLog(), lambda: 0.0)
    assert again.hello() == hello
    again.joined({"session": "arm", "token": hello["nonce"], "episode": 0}, first=True)
    assert again.hello() == {"type": "hello", "session": "arm", "token": hello["nonce"]}
    fresh = again.hello(fresh=True)
    assert fresh["session"].startswith("arm-")
    assert again.hello(fresh=True) == fresh  # and no session more, however often it is asked for
    again.joined({"session": fresh["session"], "token": fresh["nonce"], "episode": 0}, first=False)
    assert again.hello() == {"type": "hello", "session": fresh["session"], "token": fresh["nonce"]}


def test_without_a_folder_the_session_has_a_name_of_its_own() -> None:
    first, second = (Outbox("arm", None, 9, 3, EventLog(), lambda: 0.0).hello() for _ in range(2))
    assert first["session"] != second["session"]
    assert "token" not in first


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "link.json").write_text("{")
    with pytest.raises(LinkError, match=r"link\.json is damaged .*: remove it to begin a new session"):
        Outbox("arm", tmp_path, 9, 3, EventLog(), lambda: 0.0)


def test_a_label_that_corrects_one_that_was_refused_is_the_only_one_that_is_sent_again(tmp_path: Path) -> None:
    box = Outbox("arm", tmp_path, 400, 16, EventLog(), time.monotonic)
    box.joined({"session": "arm", "token": "t", "episode": 1, "step": -1}, first=True)
    box.end(1)
    old = box.label(1, "success", "operator")
    other = box.label(2, "success", "operator")
    box.refuse(f"label {old}", "state", "the disk is full")
    new = box.label(1, "failure", "operator")
    assert (box.unacknowledged, box.trouble) == (2, None)
    again = Outbox("arm", tmp_path, 400, 16, EventLog(), time.monotonic)
    assert set(again._labels) == {other, new}


def test_the_folder_of_one_session_is_not_taken_for_another(tmp_path: Path) -> None:
    Outbox("arm", tmp_path, 400, 16, EventLog(), time.monotonic).save()
    with pytest.raises(LinkError, match=r"link\.json is of session 'arm', not 'leg': .* another --state"):
        Outbox("leg", tmp_path, 400, 16, EventLog(), time.monotonic)
