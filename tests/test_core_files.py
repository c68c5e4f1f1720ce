"""core/files.py and core/jsonl.py: files that are whole after a crash, a full disk and a loss of power."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from disk_cases import fill_the_disk

from vlamem.core.files import write_atomically
from vlamem.core.jsonl import JsonLog, LineError, read_lines


def no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def whole(path: Path) -> list[object]:
    return list(read_lines(path, lambda value: value, "value"))


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Inodes that were synced, in order."""
    found: list[int] = []
    sync = os.fsync

    def recorded(file: int) -> None:
        found.append(os.fstat(file).st_ino)
        sync(file)

    monkeypatch.setattr(os, "fsync", recorded)
    return found


@pytest.mark.parametrize("content", ["réd", b"\x00\xff"])
def test_a_file_is_replaced_with_its_permissions_and_synced_before_and_after_its_name(
    content: str | bytes, tmp_path: Path, synced: list[int]
) -> None:
    path = tmp_path / "new" / "token"
    write_atomically(path, "old")
    synced.clear()
    write_atomically(path, content, 0o600)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert path.stat().st_mode & 0o777 == 0o600
    assert synced == [path.stat().st_ino, path.parent.stat().st_ino]
    assert [p.name for p in path.parent.iterdir()] == ["token"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_file_that_cannot_be_written_stays_as_it_was(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.md"
    write_atomically(path, "old")
    monkeypatch.setattr(os, broken, no_space)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["page.md"]


def test_what_a_kill_left_behind_is_used_again_and_many_writers_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    (tmp_path / ".run.json.tmp").write_text("half of a longer text than the one that follows")
    texts = [str(n) * (n + 1) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            list(pool.map(partial(write_atomically, path), texts))
            assert path.read_text() in texts
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_lines_come_back_and_a_new_log_is_in_its_folder_after_power_loss(tmp_path: Path, synced: list[int]) -> None:
    path = tmp_path / "new" / "log.jsonl"
    with JsonLog(path) as log:
        assert path.parent.stat().st_ino in synced
        synced.clear()
        log.append({"a": 1}, {"a": 2})
        assert synced == [path.stat().st_ino]
    with JsonLog(path, encode=lambda value: json.dumps(value, sort_keys=True)) as log:
        log.append({"b": 1, "a": "é"})
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n{"a": "\\u00e9", "b": 1}\n'
    assert whole(path) == [{"a": 1}, {"a": 2}, {"a": "é", "b": 1}]
    assert whole(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("torn", [b"{", b'{"a": 2}', b"x" * 70_000])
def test_a_last_line_cut_short_is_left_out_and_removed(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n' + torn)
    assert whole(path) == [{"a": 1}]
    with JsonLog(path) as log:
        log.append({"a": 3})
    assert path.read_bytes() == b'{"a": 1}\n{"a": 3}\n'


def full_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_the_disk(monkeypatch, after=0, keeps=5)


def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_space)


@pytest.mark.parametrize("fault", [full_at_once, unsynced])
@pytest.mark.parametrize("cannot_be_cut", [False, True])
def test_a_line_that_the_disk_does_not_take_is_gone_before_the_next(
    fault: Callable[[pytest.MonkeyPatch], None], cannot_be_cut: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    log = JsonLog(path)
    log.append({"a": 1})
    with monkeypatch.context() as patch:
        fault(patch)
        if cannot_be_cut:
            patch.setattr(os, "ftruncate", no_space)
        with pytest.raises(OSError, match="No space"):
            log.append({"a": 2})
    assert (path.read_bytes() == b'{"a": 1}\n') is not cannot_be_cut
    log.append({"a": 3})
    log.close()
    assert path.read_bytes() == b'{"a": 1}\n{"a": 3}\n'


def test_a_log_may_be_a_terminal_or_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with JsonLog(tmp_path / "pipe", sync=False) as log:
        log.append({"a": 1})
        assert os.read(reader, 99) == b'{"a": 1}\n'
    os.close(reader)
    with JsonLog(Path("/dev/full"), sync=False) as log, pytest.raises(OSError, match="No space"):
        log.append({"a": 1})


@pytest.mark.parametrize("bad", [b"nonsense", b"{}", b"[]"])
def test_a_line_that_is_something_else_is_named(bad: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n' + bad + b'\n{"a": 3}\n')
    lines = read_lines(path, lambda value: value["a"], "label")
    assert next(lines) == 1
    with pytest.raises(LineError, match=r"log.jsonl, line 2 is no label \("):
        next(lines)
