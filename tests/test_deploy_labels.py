"""deploy/server/labels.py: labels on disk before they are acknowledged, and processed once each."""

import json
import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from deploy_cases import LONG_S, filled, label, wait
from disk_cases import fill_the_disk

from vlamem.core.checksums import sealed, unsealed, unsealed_line
from vlamem.deploy.server.labels import Label, LabelError, LabelQueue


def test_labels_left_pending_are_processed_at_the_next_start_and_processed_ones_are_not(tmp_path: Path) -> None:
    reports: list[str] = []

    def fails(given: Label) -> str:
        if given.label == "b":
            raise OSError("disk full")
        return "done"

    queue = LabelQueue(tmp_path / "l.jsonl", fails, reports.append)
    assert [queue.add(label(n)) for n in "aba"] == [True, True, False]
    assert queue.drain(LONG_S)
    queue.close()
    assert ["disk full" in r for r in reports] == [True]
    done: list[str] = []
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: done.append(given.label) or "done")
    assert queue.drain(LONG_S)
    assert not queue.add(label("a"))
    queue.close()
    assert done == ["b"]


def test_a_label_that_a_full_disk_left_undone_is_tried_again_until_the_disk_has_room(tmp_path: Path) -> None:
    reports: list[str] = []
    tries = iter(
        [OSError("disk full"), OSError("disk full"), sqlite3.OperationalError("locked"), OSError("disk full"), None]
    )
    done = threading.Event()

    def process(given: Label) -> str:
        error = next(tries)
        if error is not None:
            raise error
        done.set()
        return "done"

    queue = LabelQueue(tmp_path / "l.jsonl", process, reports.append, retry_s=0.0)
    queue.add(label("a"))
    assert done.wait(LONG_S)
    wait(lambda: not queue.pending)
    queue.close()
    assert ["disk full" in r for r in reports] == [True, False, True]  # each reason once, not each try
    assert LabelQueue(tmp_path / "l.jsonl", process).pending == frozenset()


def test_a_label_that_fails_three_times_is_dead_and_its_trace_is_needed_no_more(tmp_path: Path) -> None:
    reports: list[str] = []
    tried: list[str] = []

    def process(given: Label) -> str:
        tried.append(given.label)
        if given.label == "a":
            raise ValueError("its trace is damaged")
        return "done"

    for _ in range(2):  # the second time it stays dead
        queue = LabelQueue(tmp_path / "l.jsonl", process, reports.append, retry_s=0.0)
        queue.add(label("a"))
        queue.add(replace(label("b"), episode=2))
        wait(lambda queue=queue: not queue.pending and queue.dead > 0)
        assert queue.drain(LONG_S)
        queue.close()
        assert (tried.count("a"), tried.count("b"), queue.dead) == (3, 1, 1)
    assert "given up after 3 tries: ValueError: its trace is damaged" in reports[-1]
    assert json.loads((tmp_path / "l.jsonl").read_text().splitlines()[-1]).items() >= {"dead": "a"}.items()


def test_a_label_cut_short_by_a_crash_was_never_taken_and_the_others_stay(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done")
    queue.add(label("a"))
    queue.drain(LONG_S)
    queue.close()
    with (tmp_path / "l.jsonl").open("a") as file:
        file.write('{"label": {"label": "b", "ses')
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done")
    assert queue.stored == 1
    assert queue.add(label("b"))
    queue.drain(LONG_S)
    queue.close()


def test_a_label_that_the_disk_took_in_part_is_refused_and_the_next_one_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done")
    with monkeypatch.context() as patch:
        fill_the_disk(patch, after=0, keeps=20)
        with pytest.raises(OSError, match="No space"):
            queue.add(label("a"))
    assert (tmp_path / "l.jsonl").read_bytes() == b""
    assert queue.add(label("b"))
    queue.drain(LONG_S)
    queue.close()
    done: list[str] = []
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: done.append(given.label) or "done")
    assert queue.stored == 1
    assert queue.add(label("a"))
    queue.drain(LONG_S)
    queue.close()
    assert done == ["a"]


def test_a_long_file_on_a_disk_without_hard_links_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    lines: list[str] = []
    for first in (0, 20):
        queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done", lines.append, most=2)
        assert all(queue.add(label(str(number))) for number in range(first, first + 20))
        assert queue.drain(LONG_S)
        queue.close()
    assert any("stays long: no hard links here" in line for line in lines)


def test_a_file_of_version_0_1_is_read_and_written_with_its_words(tmp_path: Path) -> None:
    line = '{"label": {"episode": 1, "label": "%s", "made": 1.0, "outcome": "%s", "session": "arm", "source": "%s"}}\n'
    (tmp_path / "l.jsonl").write_text(line % ("a", "unsaid", "verifier"))
    done: list[str] = []
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: done.append(given.outcome) or "kept")
    assert queue.drain(LONG_S)
    assert queue.add(Label("b", "arm", 2, "unlabelled", "verifier", 1.0))
    assert queue.drain(LONG_S)
    queue.close()
    assert done == ["unlabelled", "unlabelled"]
    first, processed, second, _ = (tmp_path / "l.jsonl").read_text().splitlines()
    assert unsealed(json.loads(second)) == json.loads((line % ("b", "unsaid", "verifier")).replace(": 1,", ": 2,"))
    assert first == (line % ("a", "unsaid", "verifier")).strip()
    assert json.loads(processed).items() >= {"done": "a", "said": "kept"}.items()


def test_new_files_are_in_their_folders_after_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, sync = set(), os.fsync

    def recorded(file: int) -> None:
        synced.add(os.fstat(file).st_ino)
        sync(file)

    monkeypatch.setattr(os, "fsync", recorded)
    LabelQueue(tmp_path / "labels" / "l.jsonl", lambda given: "done").close()
    filled(tmp_path / "sessions").close()
    folders = {"labels", "sessions", "sessions/arm"}
    assert {f for f in folders if (tmp_path / f).stat().st_ino in synced} == folders


def test_a_queue_remembers_so_many_ids_and_no_more(tmp_path: Path) -> None:
    for _ in range(2):
        queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done", most=3)
        for name in "abcde"[queue.stored :]:
            assert queue.add(label(name))
        assert queue.drain(LONG_S)
        assert [queue.add(label(name)) for name in "cde"] == [False] * 3
        assert (queue.stored, [known[-1] for known in queue._history.known]) == (5, ["c", "d", "e"])
        queue.close()


def test_a_label_that_means_nothing_is_refused() -> None:
    with pytest.raises(LabelError, match="expected 'success'"):
        label("a", "maybe")
    with pytest.raises(LabelError, match="1 to 64"):
        label("")


def _said(read: Callable[[bytes], object], line: bytes) -> object:
    try:
        return read(line)
    except ValueError:
        return "damaged"


@pytest.mark.parametrize("in_order", [True, False])
def test_a_sealed_line_is_read_as_its_json_is_whichever_bit_was_changed(in_order: bool) -> None:
    body = {"label": {"label": 'a "crc": "00000000", b', "episode": 3}, "at": 1.5}
    line = json.dumps(sealed(body), sort_keys=in_order).encode() + b"\n"
    assert unsealed_line(line) == body
    for at in range(8 * len(line)):
        changed = bytearray(line)
        changed[at // 8] ^= 1 << at % 8
        slowly = _said(lambda raw: unsealed(json.loads(raw)), bytes(changed))
        assert _said(unsealed_line, bytes(changed)) == slowly
