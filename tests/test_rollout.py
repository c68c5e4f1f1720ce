"""sim/rollout.py, sim/plan.py, sim/episode.py and the verb, over a point mass in worker processes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest
from disk_cases import fill_the_disk

from vlamem.core.locks import InUseError
from vlamem.policies.registry import PolicyError
from vlamem.scripts.config import preset
from vlamem.scripts.main import main
from vlamem.sim.results.episodes import DiskFullError, EpisodeLog, EpisodeRecord
from vlamem.sim.results.pages import load_results, without_wall_clock
from vlamem.sim.rollout.config import PlanError, RolloutConfig
from vlamem.sim.rollout.engines import RunRefusedError
from vlamem.sim.rollout.run import rollout
from vlamem.sim.suites.protocol import SuiteError


def config(out: Path, **given: Any) -> RolloutConfig:
    base = replace(
        preset(RolloutConfig, "rollout"),
        suite="point_mass:SUITE",
        policy="point_mass:policy",
        size=16,
        execute=4,
        episodes=4,
        out=out,
    )
    return replace(base, **given)


def lines(out: Path) -> list[EpisodeRecord]:
    return EpisodeLog(out / "episodes.jsonl").read()


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one worker."""
    out = tmp_path_factory.mktemp("runs") / "one"
    assert rollout(config(out)).errors == 0
    return out


def test_results_do_not_depend_on_the_number_of_workers(one_worker: Path, tmp_path: Path) -> None:
    for workers in (2, 0):
        out = tmp_path / str(workers)
        rollout(config(out, workers=workers))
        assert without_wall_clock(load_results(out)) == without_wall_clock(load_results(one_worker))


def test_a_folder_in_which_another_process_plays_is_refused_by_name_and_free_when_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vlamem.core.locks

    out = tmp_path / "run"
    holds = "import sys; from pathlib import Path; from vlamem.core.locks import exclusive_lock\n"
    holds += "lock = exclusive_lock(Path(sys.argv[1]) / '.lock', 'x'); print('held', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", holds, str(out)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        monkeypatch.setattr(vlamem.core.locks, "WAIT_S", 0.1)
        with pytest.raises(InUseError, match=r"run folder .*run is in use by another process: .* another --out"):
            rollout(config(out, workers=0))
        assert not (out / "episodes.jsonl").exists()
        other.communicate("")
    assert rollout(config(out, workers=0)).done == 8


def test_a_script_without_a_main_guard_is_told_of_it(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom test_rollout import config\n"
        "from vlamem.sim.rollout.run import rollout\n"
        "rollout(config(Path(sys.argv[1]), workers=1))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "mine.py again: put what it does under if __name__ == '__main__':, or play with workers=0" in last
    assert "doctor" not in done.stderr


def test_a_run_without_workers_is_refused_and_stopped_as_one_with_them(tmp_path: Path) -> None:
    with pytest.raises(RunRefusedError, match="reads"):
        rollout(config(tmp_path / "wide", workers=0, size=24))

    def stop(record: EpisodeRecord) -> None:
        if record.episode == 1:
            signal.raise_signal(signal.SIGINT)

    end = rollout(config(tmp_path / "stopped", workers=0), progress=stop)
    assert (end.done, end.signal, end.results) == (2, signal.SIGINT, None)
    assert rollout(config(tmp_path / "stopped", workers=0)).done == 8


def test_another_seed_gives_other_episodes(one_worker: Path, tmp_path: Path) -> None:
    rollout(config(tmp_path / "run", seed=1))
    assert [r.steps for r in lines(tmp_path / "run")] != [r.steps for r in lines(one_worker)]


def test_results_hold_counts_intervals_and_latencies(one_worker: Path) -> None:
    body = load_results(one_worker)
    near = body["arms"]["none"]["tasks"]["near"]
    assert (near["n"], near["errors"]) == (4, 0)
    assert near["wilson95"][0] <= near["rate"] <= near["wilson95"][1]
    assert body["arms"]["none"]["total"]["n"] == 8
    assert body["fingerprint"]["policy"]["action_spec"]["components"][0]["name"] == "translation"
    assert body["fingerprint"]["gl"]["backend"] in ("osmesa", "egl")
    assert "--tasks skills" in body["fingerprint"]["command"]
    decisions = body["arms"]["none"]["total"]["decisions"]
    assert body["wall_clock"]["decision_ms"]["none"]["total"]["n"] == decisions - 3


def test_a_run_that_was_cut_short_is_continued_to_the_same_results(one_worker: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    rollout(config(out))
    kept = (out / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    (out / "episodes.jsonl").write_bytes(b"".join(kept[:3]) + kept[3][:40])
    (out / "results.json").unlink()
    begun = []
    rollout(config(out), lambda done, planned: begun.append((done, planned)))
    assert begun == [(3, 8)]
    assert without_wall_clock(load_results(out)) == without_wall_clock(load_results(one_worker))


def test_a_finished_run_plays_nothing_again_and_may_be_given_more_episodes(one_worker: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    rollout(config(out, episodes=2))
    assert rollout(config(out, episodes=2)).results is not None
    assert len(lines(out)) == 4
    rollout(config(out, episodes=4))
    assert load_results(out)["arms"] == load_results(one_worker)["arms"]
    with pytest.raises(PlanError, match="episodes was 4 and is now 2"):
        rollout(config(out, episodes=2))


def test_a_folder_of_another_run_is_refused_and_the_difference_named(one_worker: Path) -> None:
    with pytest.raises(PlanError, match=r"another run: configuration.seed was 0 and is now 5"):
        rollout(config(one_worker, seed=5))


def test_an_episode_that_raises_is_an_error_and_the_run_goes_on(tmp_path: Path) -> None:
    end = rollout(config(tmp_path, suite="point_mass:BREAKING", tasks=("near", "raises"), episodes=3))
    assert end.results is not None
    counts = end.results["arms"]["none"]["tasks"]["raises"]
    assert (counts["n"], counts["errors"]) == (2, 1)
    assert end.results["arms"]["none"]["tasks"]["near"]["n"] == 3
    broken = next(r for r in lines(tmp_path) if r.outcome == "error")
    assert (broken.task, broken.episode) == ("raises", 1)
    assert broken.error is not None
    assert broken.error.startswith("RuntimeError: mj_step: the solver diverged (point_mass.py:")


def test_a_worker_that_hangs_or_dies_is_replaced_and_its_episode_an_error(tmp_path: Path) -> None:
    asked = config(tmp_path, suite="point_mass:BREAKING", tasks=("hangs", "dies"), episodes=3, workers=2)
    end = rollout(replace(asked, watchdog_s=20.0))
    assert (end.done, end.errors) == (6, 2)
    errors = {r.task: r.error for r in lines(tmp_path) if r.outcome == "error"}
    assert "hung and was replaced" in str(errors["hangs"])
    assert "exit status 7" in str(errors["dies"])


def test_errors_are_played_again_only_when_asked(tmp_path: Path) -> None:
    asked = config(tmp_path, suite="point_mass:BREAKING", tasks=("raises",), episodes=2)
    rollout(asked)
    assert len(lines(tmp_path)) == 2
    rollout(asked)
    assert len(lines(tmp_path)) == 2
    assert rollout(replace(asked, retry_errors=True)).errors == 1
    assert len(lines(tmp_path)) == 3


@pytest.mark.parametrize(
    ("given", "error", "complaint"),
    [
        (
            {"policy": "point_mass:policy_of_another_robot"},
            RunRefusedError,
            "'rotation' has form 'axis_angle' in suite",
        ),
        ({"policy": "point_mass:policy_with_two_cameras"}, RunRefusedError, "no camera 'wrist'"),
        ({"size": 24}, RunRefusedError, "use --size 16"),
        ({"execute": 9}, RunRefusedError, "chunks have 8 steps"),
        ({"parameters": ("dely=4",)}, RunRefusedError, "dely"),
        ({"tasks": ("neer",)}, SuiteError, "did you mean 'near'"),
        ({"suite": "table_top"}, SuiteError, "did you mean 'tabletop'"),
        ({"policy": "tinny"}, PolicyError, "did you mean 'tiny'"),
        ({"policy": "gone.safetensors"}, PolicyError, "no weights at gone.safetensors"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_played(
    tmp_path: Path, given: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        rollout(config(tmp_path, **given))
    assert not (tmp_path / "episodes.jsonl").exists()


def test_a_full_disk_stops_the_run_and_loses_nothing(
    one_worker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_the_disk(monkeypatch, after=2, keeps=10)
    with pytest.raises(DiskFullError, match=r"the disk is full, episodes.jsonl could not be written"):
        rollout(config(tmp_path))
    monkeypatch.undo()
    assert len(lines(tmp_path)) == 2
    assert (tmp_path / "episodes.jsonl").read_bytes().endswith(b"}\n")
    rollout(config(tmp_path))
    assert load_results(tmp_path)["arms"] == load_results(one_worker)["arms"]


def test_the_first_episodes_are_filmed_from_reset_to_end(tmp_path: Path, one_worker: Path) -> None:
    rollout(config(tmp_path, video=1, episodes=2, tasks=("near",)))
    assert [p.name for p in (tmp_path / "videos").iterdir()] == ["near-0000.mp4"]
    with av.open(str(tmp_path / "videos" / "near-0000.mp4")) as video:
        frames = list(video.decode(video=0))
    first = next(r for r in lines(tmp_path) if r.episode == 0)
    assert len(frames) == first.steps
    unfilmed = [r.steps for r in lines(one_worker) if r.task == "near"][:2]
    assert [r.steps for r in lines(tmp_path)] == unfilmed


def test_scripted_experts_need_no_policy_and_the_guessing_one_misses(tmp_path: Path) -> None:
    knowing = rollout(config(tmp_path / "expert", policy="expert")).results
    guessing = rollout(config(tmp_path / "guess", policy="random-choice")).results
    assert knowing is not None
    assert guessing is not None
    assert knowing["arms"]["none"]["total"]["rate"] == 1
    assert guessing["arms"]["none"]["total"]["rate"] < 0.5
    assert knowing["fingerprint"]["gl"] is None


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"episodes": 0}, "episodes is 0"),
        ({"memory": ("aur",)}, "unknown memory 'aur': did you mean 'aura'"),
        ({"memory": "aura"}, r"memory is 'aura': expected a tuple, \('aura',\)"),
        ({"tasks": "touch"}, "tasks is 'touch': expected a tuple"),
        ({"parameters": ("delay",)}, "name=value"),
        ({"watchdog_s": 0.0}, "watchdog_s"),
    ],
)
def test_impossible_values_are_refused(tmp_path: Path, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        config(tmp_path, **given)


_COMMAND = ["rollout", "--suite", "point_mass:BREAKING", "--policy", "point_mass:policy", "--size", "16"]


def test_exit_status_tells_errors_apart_from_failures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fine = [*_COMMAND, "--tasks", "near", "--episodes", "2", "--out", str(tmp_path / "fine")]
    assert main(fine) == 0
    assert "near" in capfd.readouterr().out
    broken = [*_COMMAND, "--tasks", "raises", "--episodes", "2", "--out", str(tmp_path / "broken")]
    assert main(broken) == 1
    assert "1 of 2 episodes ended as errors" in capfd.readouterr().err
    assert main([*fine, "--seed", "3"]) == 2
    assert capfd.readouterr().err.count("another run") == 1


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 2), (signal.SIGINT, 1)])
def test_a_stopped_run_says_so_and_can_go_on(tmp_path: Path, number: signal.Signals, workers: int) -> None:
    out = tmp_path / "run"
    command = [*_COMMAND, "--tasks", "slow", "--episodes", "6", "--workers", str(workers), "--out", str(out)]
    run = subprocess.Popen(
        [sys.executable, "-m", "vlamem", *command],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    deadline = time.monotonic() + 600
    while not (out / "episodes.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(number)
    _, printed = run.communicate(timeout=600)
    assert run.returncode == 128 + number
    assert "the same command continues" in printed
    assert "Traceback" not in printed
    done = len(lines(out))
    assert 1 <= done < 6
    assert not (out / "results.json").exists()
    assert main(command) == 0
    assert len(lines(out)) == 6
    assert json.loads((out / "results.json").read_text())["wall_clock"]["played_in_this_call"] == 6 - done
