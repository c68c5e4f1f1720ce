"""sim/bench/mikasa: who plays what, and a page with both verdicts."""

from pathlib import Path
from typing import Any

import pytest
from bench_cases import Progress

from vlamem.sim.bench.mikasa.options import MikasaBench
from vlamem.sim.bench.mikasa.run import config_of, found_in, page_of, run
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.suites.mikasa.catalogue import CANONICAL
from vlamem.sim.suites.mikasa.experts import ACTORS, plays
from vlamem.sim.suites.protocol import SuiteError

LONG, SHORT = "RememberColor3-Long-VLA-v0", "RememberColor3-VLA-v0"


def options(folder: Path, **changed: object) -> MikasaBench:
    given: dict[str, Any] = {"tasks": (LONG,), "actors": ("expert",), "episodes": 2, "out": folder, "results": folder}
    return MikasaBench(**(given | changed))


def play(folder: Path, actor: str, task: str, verdicts: list[tuple[str, bool | None]]) -> None:
    log = folder / actor / task / "episodes.jsonl"
    log.parent.mkdir(parents=True)
    EpisodeLog(log).append(
        *(
            EpisodeRecord("none", task, "test", i, 0, outcome, f"test/{i}", steps=10 + i, strict=strict)  # type: ignore[arg-type]
            for i, (outcome, strict) in enumerate(verdicts)
        )
    )


def test_the_page_has_both_verdicts_of_every_run_in_the_folder(tmp_path: Path) -> None:
    play(tmp_path, "touch-cue", LONG, [("success", False)] * 4 + [("error", None)])
    play(tmp_path, "expert", SHORT, [("success", True), ("failure", False)])
    play(tmp_path, "expert", "TakeItBack-VLA-v0", [("success", None), ("failure", None)])
    page = page_of(found_in(tmp_path), tmp_path)
    rows = [line for line in page.text.splitlines() if "-VLA-v0" in line]
    assert [row.split(" | ")[:4] for row in rows] == [
        [f"| {SHORT}", "2", "50 (9 to 91)", "50 (9 to 91)"],
        ["| TakeItBack-VLA-v0", "2", "50 (9 to 91)", "-"],
        [f"| {LONG}", "4", "100 (51 to 100)", "0 (0 to 49)"],
    ]
    assert "`guess`" not in page.text
    figures = {name: (figure.value, figure.n) for name, figure in page.figures.items()}
    assert figures["touch_cue_success_official"] == (1.0, 4)
    assert figures["touch_cue_success_strict"] == (0.0, 4)
    assert figures["expert_success_strict"] == (0.5, 2)  # of the task that has such a verdict


def test_an_actor_plays_what_it_has_a_script_for() -> None:
    able = {actor: sum(plays(task, actor) for task in CANONICAL.values()) for actor in ACTORS}
    assert able == {"expert": 46, "guess": 46, "touch-cue": 9, "touch-all": 27}


def test_a_run_is_the_benchmarks_evaluation_of_one_actor(tmp_path: Path) -> None:
    config = config_of(options(tmp_path), "touch-cue", LONG)
    assert (config.split, config.size, config.parameters) == ("test", 128, ("actor=touch-cue",))
    assert config.out == tmp_path / "touch-cue" / LONG


def test_names_that_do_not_exist_or_do_not_fit_are_refused_before_anything_is_played(tmp_path: Path) -> None:
    for changed, message in (
        ({"actors": ("oracle",)}, "actor 'oracle' is unknown"),
        ({"tasks": ("RememberColor4-VLA-v0",)}, "did you mean 'RememberColor"),
        ({"tasks": (SHORT,), "actors": ("touch-cue",)}, "none of .*touch-cue.* plays any of"),
    ):
        with pytest.raises(SuiteError, match=message):
            run(options(tmp_path, **changed), "", Progress())
    assert not list(tmp_path.iterdir())
