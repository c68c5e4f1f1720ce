"""sim/bench/faults: the setting of a minute, the table of files, and that the checks see what must not happen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vlamem.core.pages import row
from vlamem.scripts.main import main
from vlamem.sim.bench.faults.driver import age_of, marked
from vlamem.sim.bench.faults.flips import flip
from vlamem.sim.bench.faults.fuzz import _tried, mutated
from vlamem.sim.bench.faults.kills import kill_recordings
from vlamem.sim.bench.faults.kinds import KINDS, FileKind
from vlamem.sim.bench.faults.options import SIZES
from vlamem.sim.bench.faults.run import Found, figures
from vlamem.sim.bench.faults.stalls import _judged, _rest_after
from vlamem.sim.results.pages import load_page

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = [kind for kind in KINDS if kind.sample is not None]


def test_the_setting_of_a_minute_finds_nothing_lost_and_writes_its_page(tmp_path: Path) -> None:
    words = ["bench", "faults", "--preset", "ci", "--folder", str(tmp_path), "--verbs", "import", "prune"]
    assert main(words) == 0
    found = {name: figure["value"] for name, figure in load_page("faults", tmp_path)["figures"].items()}
    for name in (
        "bitflips_undetected", "bitflips_unnamed", "bitflips_tracebacks", "fuzzed_unnamed", "fuzzed_tracebacks",
        "acknowledged_lost",
    ):  # fmt: skip
        assert found[name] == 0, name
    assert found["stale_commands"] == 0
    assert found["moved_after_stop"] == 0
    assert found["kills_survived"] == 10 * SIZES["ci"].kills
    assert "## Changed bits" in (tmp_path / "faults.md").read_text()


def test_the_table_of_files_is_that_of_the_docs() -> None:
    lines = (ROOT / "docs" / "files.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| `")]
    assert table == [row([f"`{k.name}`", k.form, k.version, k.checksum, k.writer, k.crash, k.mend]) for k in KINDS]


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.name)
def test_every_kind_of_file_that_is_written_has_a_checksum_that_notices(kind: FileKind, tmp_path: Path) -> None:
    found = flip(kind, tmp_path, 40, 1)
    assert (found.silent, found.unnamed, found.tracebacks) == (0, 0, 0)
    assert found.detected + found.harmless == 40
    assert kind.checksum != "none"


def test_a_reader_that_looks_at_nothing_is_found_out(tmp_path: Path) -> None:
    def sample(folder: Path):  # type: ignore[no-untyped-def]
        path = folder / "plain"
        path.write_bytes(b"a" * 64)
        return path, path.read_bytes

    kind = FileKind("plain", "text", "-", "none", "nobody", "-", "write it again", sample)
    assert flip(kind, tmp_path, 20, 0).silent == 20

    def says(line: str):  # type: ignore[no-untyped-def]
        def sample(folder: Path):  # type: ignore[no-untyped-def]
            path = folder / "plain"
            path.write_bytes(b"a" * 64)

            def read() -> bytes:
                if path.read_bytes() != b"a" * 64:
                    raise ValueError(line.format(path=path))
                return b""

            return path, read

        return flip(replace(kind, sample=sample), tmp_path, 20, 0)

    assert says("{path} is damaged: write it again").detected == 20
    for line in ("{path} is damaged", "it is damaged: write it again"):
        assert says(line).unnamed == 20

    def breaks(raw: bytes) -> None:
        raise KeyError("x")

    assert _tried("plain", b"a" * 64, breaks, 20, 0).tracebacks == 20


def test_changed_messages_are_changed_and_the_same_for_a_seed() -> None:
    raw = bytes(range(200))
    one, again = (mutated(raw, np.random.default_rng(3)) for _ in range(2))
    assert one == again != raw


def test_the_age_of_a_command_is_read_from_it() -> None:
    assert age_of(1234.5, float(marked(1234.0, 7)[1])) == pytest.approx(0.5, abs=1e-6)
    assert age_of(1000.2, float(marked(999.9, 7)[1])) == pytest.approx(0.3, abs=1e-6)


def test_a_stale_command_and_one_that_moves_after_a_stop_are_seen() -> None:
    second = [float(marked(t, 7)[1]) for t in (10.0, 10.0, 12.0)]
    rows = np.array([[10.1, 0.3, second[0]], [11.5, 0.3, second[1]], [12.1, 0.3, second[2]], [12.2, 0.0, 0.0]])
    found = _judged(rows, [], [], [(11.0, 11.6)])
    assert (found.commands, found.stale, found.moved_after_stop) == (4, 1, 1)
    assert _rest_after(rows, 12.0) == pytest.approx(200)
    assert _rest_after(rows[:3], 12.0) == float("inf")


def test_a_line_that_is_lost_or_doubled_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "out" / "log.jsonl"
    log.parent.mkdir()
    writes = iter(["a\nb\n", "a\na\nc\n"])

    def write(*_: object) -> bool:
        log.write_text(next(writes))
        return True

    monkeypatch.setattr("vlamem.sim.bench.faults.kills.kill_after", write)
    monkeypatch.setattr("vlamem.sim.bench.faults.kills.completed", write)
    found = kill_recordings("rollout", (), log.parent, "log.jsonl", 1, 0)
    assert (found.kills, found.survived, found.acknowledged, found.lost) == (1, 0, 2, 1)


def test_a_part_that_was_left_out_has_no_figure() -> None:
    assert "stale_commands" not in figures(Found(), SIZES["ci"])
    assert "servers_ended" not in figures(Found(), SIZES["ci"])
