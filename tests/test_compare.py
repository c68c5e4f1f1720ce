"""sim/compare.py and the verb"""

import csv
import io
import json
from itertools import product
from math import comb
from pathlib import Path

import pytest

from vlamem.scripts.main import main
from vlamem.sim.results.compare import CompareError, compare_runs, compare_with, verdict
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord, Outcome
from vlamem.sim.results.plan import discordant_share, pairs_needed, power_of
from vlamem.sim.results.statistics import mcnemar_exact


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


def test_further_runs_are_compared_with_the_first_and_their_number_counts(tmp_path: Path) -> None:
    reference = write(tmp_path / "alone", "f" * 7)
    better = write(tmp_path / "memory", "s" * 7)
    same, third = (write(tmp_path / name, "f" * 7) for name in ("other", "third"))
    one = compare_with(reference, [better]).rows[-1]
    assert (one.run, one.reference, one.task, one.difference.value) == ("memory", "alone", "total", 1.0)
    assert one.holm == one.difference.p == pytest.approx(2 / 2**7)
    assert one.verdict == "memory is better"
    assert compare_with(better, [reference]).rows[-1].verdict == "memory is better"
    several = {row.run: row for row in compare_with(reference, [better, same, third]).rows if row.task == "total"}
    assert several["memory"].holm == pytest.approx(6 / 2**7)
    two = compare_with(reference, [write(better, "s" * 5 + "f" * 2, "push"), same])
    assert [row.task for row in two.rows] == ["touch", "total", "touch", "total"]
    assert two.unpaired == {("memory", "alone"): tuple(("push", f"test/{i}", 0) for i in range(7))}


def test_runs_of_one_name_are_named_by_their_paths(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "run", "s")
    (row,) = compare_with(tmp_path / "a/run", [tmp_path / "b/run"]).rows[:1]
    assert (row.reference, row.run) == (str(tmp_path / "a/run"), str(tmp_path / "b/run"))


def test_a_comparison_is_printed_in_every_format_and_says_what_is_subtracted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = "a_task_whose_name_is_long_" * 6
    words = ["compare", str(write(tmp_path / "alone", "f" * 9, task)), str(write(tmp_path / "mem_1", "s" * 8, task))]

    def printed(kind: str) -> str:
        assert main([*words, "--format", kind]) == 0
        return capsys.readouterr().out

    table = printed("table")
    assert "success minus that of alone, in percentage points" in table
    assert task in table
    assert "only in alone and not in mem_1" in table
    markdown = printed("md").splitlines()
    assert markdown[0].split(" | ")[3] == "minus alone [points]"
    assert markdown[2].startswith(f"| mem_1 | {task} | 8 | +100.0 | ")
    assert [line.count("|") for line in markdown] == [11] * 4
    (_, first, total) = csv.reader(io.StringIO(printed("csv")))
    assert (first[:2], total[:4], total[-1]) == (
        ["mem_1", task], ["mem_1", "total", "8", "+100.0"], "mem_1 is better"
    )  # fmt: skip
    found = json.loads(printed("json"))
    assert (found["rows"][1]["difference"], found["rows"][1]["reference"]) == (1.0, "alone")
    assert found["unpaired"] == [{"run": "alone", "not_in": "mem_1", "pairs": [[task, "test/8", 0]]}]
    tex = printed("tex")
    assert r"mem\_1 & total & 8 & +100.0 &" in tex
    assert "_1" not in tex.replace(r"\_1", "")


def test_the_power_of_a_comparison_is_that_of_counting_every_outcome() -> None:
    difference, discordant, n = 0.3, 0.5, 12
    first, second = (discordant + difference) / 2, (discordant - difference) / 2
    exact = 0.0
    for a, b in product(range(n + 1), repeat=2):
        if a + b <= n and mcnemar_exact(a, b) < 0.05:
            ways = comb(n, a) * comb(n - a, b)
            exact += ways * first**a * second**b * (1 - discordant) ** (n - a - b)
    assert power_of(n, difference, discordant) == pytest.approx(exact, rel=1e-9)


def test_planned_pairs_have_the_power_that_was_asked_for() -> None:
    for difference, discordant in ((0.1, 0.3), (0.2, 0.2), (0.3, 0.7)):
        n = pairs_needed(difference, discordant, 0.8)
        assert all(power_of(n + more, difference, discordant) >= 0.8 for more in range(10))
        assert power_of(n - 1, difference, discordant) < 0.8
    assert discordant_share(0.4, 0.1) == pytest.approx(0.5)
    for wrong in ((0.0, 0.3), (0.4, 0.3), (0.0001, 0.5)):
        with pytest.raises(ValueError, match="expect"):
            pairs_needed(*wrong)
    with pytest.raises(ValueError, match=r"95 % cannot change by \+10 points"):
        discordant_share(0.95, 0.1)


def test_a_plan_reads_one_run_or_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "alone", "sfffffffff"), write(tmp_path / "memory", "sffffffffs")
    assert main(["compare", str(a), "--plan", "20"]) == 0
    one = capsys.readouterr().out
    assert "show +20 points with a chance of 80 %" in one
    assert "alone succeeds in 1 of 10" in one
    assert main(["compare", str(a), str(b), "--plan", "20"]) == 0
    two = capsys.readouterr().out
    assert "1 of 10 pairs of alone and memory had one success" in two
    assert int(two.split()[0]) < int(one.split()[0])  # pairs agree more than independent runs would
    assert main(["compare", str(a)]) == 2
    assert "name two or more run folders" in capsys.readouterr().err
