"""sim/compare.py and the verb"""

from pathlib import Path

import pytest

from vlamem.scripts.main import main
from vlamem.sim.results.compare import CompareError, compare_runs, verdict
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord, Outcome


def write(folder: Path, outcomes: str, task: str = "touch", seed: int = 0, arm: str = "none") -> Path:
    """A run with one episode per letter: s, f or e."""
    folder.mkdir(exist_ok=True)
    kinds: dict[str, Outcome] = {"s": "success", "f": "failure", "e": "error"}
    for i, letter in enumerate(outcomes):
        EpisodeLog(folder / "episodes.jsonl").append(
            EpisodeRecord(arm, task, "test", i, seed, kinds[letter], f"test/{i}")
        )
    return folder


def test_pairs_are_counted_by_task_and_in_all(tmp_path: Path) -> None:
    a = write(write(tmp_path / "a", "ssssffss"), "s" * 8, "push")
    b = write(write(tmp_path / "b", "ffffsfff"), "f" * 8, "push")
    comparison = compare_runs(a, b)
    touch = comparison.tasks["touch"]
    assert (touch.n, touch.only_first, touch.only_second) == (8, 6, 1)
    assert verdict(touch) == "no difference shown"
    assert comparison.total.n == 16
    assert verdict(comparison.total) == "first is better"
    assert verdict(compare_runs(b, a).total) == "second is better"


def test_episodes_without_partner_and_errors_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = write(tmp_path / "a", "sfse"), write(tmp_path / "b", "sf")
    assert compare_runs(a, b).only_first == (("touch", "test/2", 0),)
    assert main(["compare", str(a), str(b)]) == 0
    printed = capsys.readouterr().out
    assert "no difference shown" in printed
    assert "touch test/2 seed 0" in printed


def test_the_last_word_on_an_episode_counts(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", "e"), write(tmp_path / "b", "s")
    write(a, "s")
    assert compare_runs(a, b).total.n == 1


def test_runs_without_common_episodes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "a", "ss"), write(tmp_path / "b", "ss", seed=1)
    with pytest.raises(CompareError, match=r"seeds \[0\].*seeds \[1\]"):
        compare_runs(a, b)
    assert main(["compare", str(a), str(b)]) == 2
    with pytest.raises(CompareError, match="is no run"):
        compare_runs(a, tmp_path / "nothing")
    assert "run both with the same tasks and seed" in capsys.readouterr().err


def test_a_run_of_several_arms_is_refused(tmp_path: Path) -> None:
    a = write(write(tmp_path / "a", "ss"), "ss", arm="aura", task="push")
    with pytest.raises(CompareError, match="several arms"):
        compare_runs(a, a)
