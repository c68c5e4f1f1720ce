"""Files that someone made to break a reader: each is one error of the reader's own that names the file."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlamem.core.json_files import parse_json, read_json_map
from vlamem.core.seeding import stream
from vlamem.core.tensors import write_tensors
from vlamem.deploy.robot.make import read_settings
from vlamem.deploy.robot.robot_file import SHIPPED, RobotFileError, load_robot_file
from vlamem.memory.success.lifecycle.critic import ProgressCritic
from vlamem.memory.success.store.errors import StoreError
from vlamem.memory.success.store.salvage import salvage
from vlamem.memory.train.features import Features
from vlamem.memory.weights import load_weights
from vlamem.policies.lerobot.dataset_files import read_info
from vlamem.policies.tiny.frames import read_meta
from vlamem.policies.tiny.weights import read_header
from vlamem.sim.bench.faults.samples import database_sample
from vlamem.sim.results.pages import load_page, load_results
from vlamem.sim.rollout.config import PlanError, _read_run

TEXTS = {
    "empty": b"",
    "cut short": b'{"a": [1, ',
    "no map": b"[1]",
    "nothing": b"null",
    "no text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "deep maps": b'{"a":' * 100_000,
    "a map of maps": b'{"configuration": [], "format": [], "policy": 1, "vlamem": {}}',
}
MAPS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "frames": ("meta.json", read_meta),
    "features": ("meta.json", Features),
    "a run": ("run.json", lambda folder: _read_run(folder / "run.json")),
    "results": ("results.json", load_results),
    "a page": ("page.json", lambda folder: load_page("page", folder)),
    "settings of an arm": ("arm.json", lambda folder: read_settings(folder / "arm.json")),
    "a dataset": ("meta/info.json", read_info),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("reader", MAPS)
def test_a_map_that_is_none_is_one_error_that_names_the_file(reader: str, text: str, tmp_path: Path) -> None:
    name, read = MAPS[reader]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(TEXTS[text])
    if text == "a map of maps" and reader in ("settings of an arm", "a dataset"):
        assert read(tmp_path)  # whatever is in it
        return
    with pytest.raises((ValueError, PlanError)) as found:
        read(tmp_path)
    assert type(found.value).__name__ != "JSONDecodeError"
    assert str(tmp_path) in str(found.value)


def header(body: bytes) -> bytes:
    return struct.pack("<Q", len(body)) + body


TENSORS = {
    "empty": b"",
    "a length beyond the file": struct.pack("<Q", 1 << 62) + b"{}",
    "deep": header(b'{"__metadata__":' + b"[" * 100_000),
    "no JSON": header(b"abc"),
    "a list": header(b"[]"),
    **{
        f"a header of {text}": header(json.dumps({"__metadata__": {"vlamem": said, "vlamem_memory": said}}).encode())
        for text, said in {"nothing": "", "a list": "[]", "depth": "[" * 50_000, "a map": "{}", "a number": "3"}.items()
    },
}


@pytest.mark.parametrize("raw", TENSORS)
@pytest.mark.parametrize("read", [load_weights, read_header, ProgressCritic.load])
def test_weights_that_are_none_are_one_error_that_names_the_file(read: Any, raw: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(TENSORS[raw])
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        read(path)


@pytest.mark.parametrize("numbers", ["", "[]", "3", '{"threshold": 1}', "[" * 50_000])
def test_a_critic_whose_numbers_are_none_is_named(numbers: str, tmp_path: Path) -> None:
    path, ones = tmp_path / "critic.safetensors", np.ones(4, np.float32)
    arrays = {"w.w1": np.ones((2, 4, 3), np.float32), "mean": ones, "scale": ones}
    ProgressCritic({"w1": arrays["w.w1"]}, ones, ones, 0.9, 0.1, 0.97, 0.6, 40, 20).save(path)
    from vlamem.core.tensors import read_tensors

    _, metadata = read_tensors(path)
    write_tensors(path, arrays, metadata | {"numbers": numbers})
    with pytest.raises(ValueError, match=r"critic\.safetensors is no whole critic"):
        ProgressCritic.load(path)


@pytest.mark.parametrize(
    "text",
    ["x = " + "[" * 50_000, "x = " + "{a=" * 3_000, ".".join("a" * 500_000) + " = 1", "[" + ".".join("a" * 99) + "]",
     "x = " + "9" * 5_000, "\0", "x = {" + ".".join("a" * 99) + " = 1}"],
    ids=["arrays", "tables", "a key", "a heading", "a number", "nul", "a key in a table"],
)  # fmt: skip
def test_a_robots_file_that_breaks_its_reader_is_one_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "robot.toml"
    path.write_text((SHIPPED / "tabletop.toml").read_text() + "\n" + text)
    with pytest.raises(RobotFileError, match=r"robot\.toml (is not TOML|has a key of more than 32 parts)"):
        load_robot_file(path)


def test_a_memory_with_a_page_of_anything_is_salvaged_or_refused_by_name(tmp_path: Path) -> None:
    path, _ = database_sample(tmp_path)
    whole, damaged, kept = path.read_bytes(), tmp_path / "damaged.db", 0
    for page in range(len(whole) // 4096):
        for case in range(3):
            draw = stream(0, "salvage", page, case)
            raw = bytearray(whole)
            if case == 0:
                raw[4096 * page : 4096 * (page + 1)] = draw.bytes(4096)
            else:
                for at in draw.integers(4096 * page, 4096 * (page + 1), 40).tolist():
                    raw[at] = int(draw.integers(256))
            damaged.write_bytes(raw)
            into = tmp_path / f"{page}-{case}.db"
            try:
                kept += salvage(damaged, into).segments
            except StoreError as error:
                assert str(damaged) in str(error)  # noqa: PT017  # the others are salvaged
    assert kept > 6 * len(whole) // 4096


def test_every_byte_of_a_memorys_first_page_that_is_changed_is_named_with_the_mend_or_harmless(tmp_path: Path) -> None:
    path, read = database_sample(tmp_path)
    whole, expected, named = path.read_bytes(), read(), 0
    for at in (*range(0, 100), *range(100, 3 * 4096, 61)):  # the file's header, and pages of the schema
        raw = bytearray(whole)
        raw[at] ^= 0x85
        path.write_bytes(raw)
        try:
            assert read() == expected
        except ValueError as error:
            named += str(path) in str(error) and "--salvage NEW_FILE" in str(error)
            assert str(path) in str(error)  # noqa: PT017  # the others are read
    assert named > 20


def test_json_that_is_nested_too_deeply_is_a_wrong_value(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match="a list, expected a map"):
        read_json_map(tmp_path / "x.json")
