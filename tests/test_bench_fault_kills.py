"""sim/bench/faults: controllers and trainings that are killed, and that what is lost is seen."""

from dataclasses import replace
from pathlib import Path

import deploy_cases
import pytest
from deploy_cases import Hosted

from vlamem.sim.bench.faults import kill_fits as fits
from vlamem.sim.bench.faults.kill_controllers import _at_rest, _Labels, kill_controllers
from vlamem.sim.bench.faults.killed import kill_after


def test_labels_that_a_killed_controller_acknowledged_are_at_the_server_and_its_arm_is_at_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(deploy_cases.SPEC, cameras=("agentview", "wrist"), image_size=84)
    monkeypatch.setattr(deploy_cases, "SPEC", spec)
    server = Hosted(tmp_path / "server")
    server.start()
    try:
        labels = tmp_path / "server" / "labels.jsonl"
        found = kill_controllers(tmp_path / "robot", f"ws://127.0.0.1:{server.port}", labels, 2, 0)
    finally:
        server.end()
    assert (found.kills, found.survived, found.lost) == (2, 2, 0)
    assert found.acknowledged > 0


def test_a_label_that_is_lost_is_seen_and_one_that_another_corrected_is_not_missed() -> None:
    assert _Labels(["a", "b"]).lost(["a"])
    assert not _Labels(["a", "b"]).lost(["b"])
    assert not _Labels(["a"], unanswered=True).lost(["c"])
    assert _Labels(["a", "b"], unanswered=True).lost(["a"])
    assert not _Labels([]).lost([])


def test_an_arm_that_moves_on_without_its_controller_is_seen(tmp_path: Path) -> None:
    log = tmp_path / "arm.log"
    assert _at_rest(log, [])
    log.write_text("1.0 0.3 0.1\n1.1 0.0 0.0\n")
    assert _at_rest(log, [])
    log.write_text("1.0 0.0 0.0\n1.1 0.3 0.1\n")
    assert not _at_rest(log, [])


def test_a_verb_stands_still_and_goes_on_before_it_is_killed(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    words = ["/bin/sh", "-c", f"touch {begun}; exec sleep 1000"]
    assert kill_after(words, 0.0, 0.0, begun.exists) == 0
    begun.unlink()
    assert kill_after(words, 0.0, 0.01, begun.exists) == 1
    assert kill_after(["/bin/true"], 0.0, 0.01, lambda: False) == 0  # it had ended by itself


def test_a_training_that_went_back_behind_its_checkpoint_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = iter([20, 40, 10, 60])
    monkeypatch.setattr(fits, "_record", lambda folder, rng: None)
    monkeypatch.setattr(fits, "kill_after", lambda *_: 0)
    monkeypatch.setattr(fits, "completed", lambda words: True)
    monkeypatch.setattr(fits, "_updates", lambda path: next(updates))
    monkeypatch.setattr(fits, "_whole", lambda gate: True)
    found = fits.kill_fits(tmp_path, 3, 60, 0)
    assert (found.kills, found.survived, found.acknowledged, found.lost) == (3, 2, 40, 30)
