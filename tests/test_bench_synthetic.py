"""The synthetic benchmark in its smoke setting: a page with its figures and plots, resumable arm by arm."""

import json

import numpy as np
import pytest

from vlamem.scripts.bench import main
from vlamem.sim.bench.synthetic.arms import FAMILY, FamilyTraining
from vlamem.sim.bench.synthetic.presets import PRESETS
from vlamem.sim.bench.synthetic.report import accuracy, best_fixed, figures
from vlamem.sim.bench.synthetic.run import finished

FIGURES = ("accuracy_hard", "hard_gap_to_best_points", "oracle_write_ratio", "always_write_ratio_10pct")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic")
    assert main(["synthetic", "--preset", "smoke", "--out", str(out)]) == 0
    return out


def test_the_smoke_setting_writes_page_twin_and_plots(folder):
    twin = json.loads((folder / "smoke" / "synthetic.json").read_text())
    for name in (*FIGURES, "p_write_event", "p_write_lookalike", "random_gap_points", "seeds"):
        assert np.isfinite(twin["figures"][name]["value"]), name
    page = (folder / "smoke" / "synthetic.md").read_text()
    for plot in ("synthetic_accuracy_against_writes.png", "synthetic_gate_over_time.png"):
        assert plot in page
        assert (folder / "smoke" / plot).stat().st_size > 1000


def test_a_second_run_takes_finished_arms_as_they_are(folder):
    arms = sorted((folder / "smoke" / "events").glob("*.json"))
    assert [arm.stem for arm in arms] == ["fifo", "learned", "random"]
    before = [arm.stat().st_mtime_ns for arm in arms]
    assert main(["synthetic", "--preset", "smoke", "--out", str(folder)]) == 0
    assert [arm.stat().st_mtime_ns for arm in arms] == before


def test_an_arm_trained_with_other_settings_of_its_family_is_not_taken_for_done(folder, monkeypatch):
    assert finished(PRESETS["smoke"], folder / "smoke")
    monkeypatch.setitem(FAMILY, "events", FamilyTraining(write_cost=0.2))
    with pytest.raises(FileNotFoundError, match="no finished arm"):
        finished(PRESETS["smoke"], folder / "smoke")


def test_random_writing_is_given_the_writes_of_the_learned_gate(folder):
    settings = {
        arm: json.loads((folder / "smoke" / "events" / f"{arm}.json").read_text())["settings"]["horizon 512"]
        for arm in ("learned", "random")
    }
    for ours, theirs in zip(settings["learned"], settings["random"], strict=True):
        spread = np.sqrt(ours["ticks"] * 0.25)
        assert abs(ours["writes"] - theirs["writes"]) < 5 * spread


def test_a_page_without_a_finished_arm_is_an_error_that_names_the_mend(tmp_path):
    with pytest.raises(FileNotFoundError, match="run 'vlamem bench synthetic' without --only-page"):
        main(["synthetic", "--preset", "smoke", "--out", str(tmp_path), "--only-page"])


def counted(right: int, writes: int) -> dict:
    kinds = {name: [0, 10] for name in ("noise", "lookalike", "repeat", "query", "loud")}
    return {"asked": 100, "right": right, "ticks": 1000, "writes": writes, "kinds": kinds | {"event": [writes, 100]}}


def test_figures_compare_with_the_best_baseline_of_constant_size_and_never_with_the_growing_cache():
    arms = {"learned": 90, "always": 80, "fifo": 85, "kv_growing": 100}
    scored = {name: {"settings": {"events 10%": [counted(right, 100)] * 2}} for name, right in arms.items()}
    hard = {name: done["settings"]["events 10%"] for name, done in scored.items()}
    assert best_fixed(hard) == "fifo"
    assert accuracy(hard["fifo"]) == [0.85, 0.85]
    given = figures({"events": scored})
    assert given["hard_gap_to_best_points"].value == pytest.approx(5.0)
    assert given["oracle_write_ratio"].value == pytest.approx(1.0)
    assert given["always_write_ratio_10pct"].value == pytest.approx(10.0)
