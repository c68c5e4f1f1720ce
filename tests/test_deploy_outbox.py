"""deploy/outbox.py without a network: what is sent, what is sent again, and what is forgotten."""

from pathlib import Path
from typing import Any

import pytest
from deploy_cases import frame

from vlamem.deploy.events import EventLog
from vlamem.deploy.outbox import LinkError, Outbox
from vlamem.deploy.wire import unpack


def outbox(state: Path | None = None, backlog: int = 9, window: int = 3) -> Outbox:
    made = Outbox("arm", state, backlog, window, EventLog(), lambda: 0.0)
    made.joined({"session": "arm", "token": "secret", "episode": 0}, first=True)
    return made


def fill(box: Outbox, steps: range) -> None:
    for step in steps:
        box.add(frame(step, plan=True))


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
    start, *frames = sent(box)
    assert start == {"type": "episode_start", "episode": 1}
    assert [f["step"] for f in frames] == [0, 1, 2]
    box.confirm({"episode": 1, "step": 1}, None)
    assert [f["step"] for f in sent(box)] == [3, 4]
    assert [(r.kind, r.step) for r in box.poll()] == [("tick", 1)]
    assert box.waiting == 3


def test_what_was_not_confirmed_goes_out_again_and_asks_for_a_chunk_only_at_the_newest_frame() -> None:
    box = outbox()
    box.begin(1)
    fill(box, range(3))
    sent(box)
    box.confirm({"episode": 1, "step": 0}, None)
    box.joined({"session": "arm", "episode": 1}, first=False)
    assert [(f["step"], f["plan"]) for f in sent(box)] == [(1, False), (2, True)]


def test_a_refused_frame_is_not_sent_again_and_an_answer_of_another_episode_is_not_polled() -> None:
    box = outbox()
    box.begin(1)
    fill(box, range(2))
    seq = sent(box)[1]["seq"]
    box.refuse(seq, "no picture")
    box.joined({"session": "arm", "episode": 1}, first=False)
    assert [f["step"] for f in sent(box)] == [1]
    assert [(r.kind, r.detail) for r in box.poll()] == [("refused", "no picture")]
    box.begin(2)
    box.confirm({"episode": 1, "step": 1}, None)
    box.refuse(seq, "late")
    assert box.poll() == []


def test_labels_and_the_session_are_found_again_by_the_next_process(tmp_path: Path) -> None:
    name = outbox(tmp_path).label(0, "success", "operator")
    again = Outbox("other", tmp_path, 9, 3, EventLog(), lambda: 0.0)
    assert again.hello() == {"type": "hello", "session": "arm", "token": "secret"}
    again.joined({"session": "arm", "episode": 0}, first=True)
    assert [head["label"] for head in sent(again)] == [name]
    again.acknowledge(name)
    assert again.acknowledged == [name]
    assert Outbox("arm", tmp_path, 9, 3, EventLog(), lambda: 0.0).unacknowledged == 0


def test_without_a_folder_the_session_has_a_name_of_its_own() -> None:
    first, second = (Outbox("arm", None, 9, 3, EventLog(), lambda: 0.0).hello() for _ in range(2))
    assert first["session"] != second["session"]
    assert "token" not in first


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "link.json").write_text("{")
    with pytest.raises(LinkError, match=r"link\.json is damaged .*: remove it to begin a new session"):
        Outbox("arm", tmp_path, 9, 3, EventLog(), lambda: 0.0)
