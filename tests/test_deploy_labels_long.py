"""deploy/server/labels.py: a file of labels that grew long begins anew, and nothing that was acknowledged is lost."""

import json
from dataclasses import replace
from pathlib import Path

from deploy_cases import LONG_S, wait
from deploy_cases import label as label_of

from vlamem.deploy.server.labels import Label, LabelQueue

MOST = 5


def label(name: str) -> Label:
    """One of an episode of its own."""
    return replace(label_of(name), episode=1 + int(name[1:]))


def queue_in(folder: Path, done: list[str], fails: frozenset[str] = frozenset()) -> LabelQueue:
    def process(given: Label) -> str:
        if given.label in fails:
            raise OSError("the disk is full")
        done.append(given.label)
        return "done"

    return LabelQueue(folder / "labels.jsonl", process, most=MOST, retry_s=1000.0)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def test_a_long_file_begins_anew_with_what_is_pending_or_remembered(tmp_path: Path) -> None:
    done: list[str] = []
    queue = queue_in(tmp_path, done, frozenset({"l3"}))
    for i in range(60):
        queue.add(label(f"l{i}"), hold=i == 4)
    wait(lambda: lines(tmp_path / "labels.jsonl") < 60 and not queue._waiting)
    queue.close()
    earlier = sorted(p.name for p in tmp_path.glob("labels.*.jsonl"))
    assert earlier[0] == "labels.1.jsonl"
    written = [json.loads(x) for p in tmp_path.glob("labels*.jsonl") for x in p.read_bytes().splitlines()]
    assert {b["label"]["label"] for b in written if "label" in b} == {f"l{i}" for i in range(60)}
    again: list[str] = []
    queue = queue_in(tmp_path, again)
    assert queue.drain(LONG_S)
    assert not queue.add(label("l59"))  # still known
    queue.close()
    assert sorted(again) == ["l3", "l4"]


def test_a_file_that_an_earlier_version_let_grow_is_shortened_at_the_start(tmp_path: Path) -> None:
    done: list[str] = []
    queue = LabelQueue(tmp_path / "labels.jsonl", lambda given: done.append(given.label) or "done")
    for i in range(60):
        queue.add(label(f"l{i}"))
    assert queue.drain(LONG_S)
    queue.close()
    before = (tmp_path / "labels.jsonl").read_bytes()
    for _ in range(2):
        queue_in(tmp_path, done).close()
        assert lines(tmp_path / "labels.jsonl") == 2 * MOST
    assert (tmp_path / "labels.1.jsonl").read_bytes() == before
    assert len(done) == 60
