"""memory/train/batches.py: recordings as what a gate is trained on, made without a simulator."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recorded_features as rec

from vlamem.core.seeding import stream
from vlamem.memory.train.batches import TargetOptions, TrainingSet
from vlamem.memory.train.features import FeaturesError, FeatureWriter, open_features
from vlamem.memory.train.gate import GateOptions, train_gate

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty episodes of a memory task and of a skill."""
    return rec.record(tmp_path_factory.mktemp("features"))


def test_a_recording_with_one_sentence_is_of_use_for_chunks_alone(tmp_path: Path) -> None:
    one = replace(rec.meta(), goals=(("go",) * 3,))
    writer = FeatureWriter(tmp_path, one, rec.contexts()[:1])
    for number in range(4):
        ticks = rec.episode(number, "skill")
        writer.add("skill", number, "expert", replace(ticks, goal=np.zeros_like(ticks.goal)), True)
    writer.close()
    recordings = open_features([tmp_path])
    with pytest.raises(FeaturesError, match="one sentence alone"):
        _ = TrainingSet(recordings, TargetOptions()).scales
    assert TrainingSet(recordings, TargetOptions(context=False)).scales.chunk >= 0


def test_a_recording_with_one_wording_a_sentence_can_be_trained_on(tmp_path: Path) -> None:
    single = replace(rec.meta(), goals=tuple(goal[:1] for goal in rec.meta().goals))
    writer = FeatureWriter(tmp_path / "features", single, rec.contexts()[:, :1])
    for number in range(20):
        writer.add("skill", number, "expert", rec.episode(number, "skill"), True)
    writer.close()
    how = GateOptions(
        (tmp_path / "features",), targets="chunk", design="gru?hidden=8", updates=1, ticks=32, rows=2, hidden=16
    )
    path, trained = train_gate(how, tmp_path / "gate")
    assert path.exists()
    assert np.isfinite(trained.score.error)


def test_recorded_features_that_are_not_finite_are_named_before_they_are_trained_on(tmp_path: Path) -> None:
    folder = rec.record(tmp_path, 1, ("skill",))
    rec.without_checksums(folder)
    z = np.memmap(folder / "z", np.float16, "r+", shape=(20, rec.D))
    z[4, 1] = np.nan
    with pytest.raises(FeaturesError, match=r"episode 0 of task 'skill' \(expert\) has features that are not finite"):
        TrainingSet(open_features([tmp_path]), TargetOptions()).labelled(8, 1, stream(0, "test"))


def test_a_task_of_more_weight_is_drawn_more_often(recording: Path) -> None:
    def share(weights: tuple[tuple[str, float], ...]) -> float:
        data = TrainingSet(open_features([recording]), TargetOptions(weights=weights))
        rows, _ = data.labelled(2000, 4, stream(0, "test"))
        return float(np.mean([row.goal[:, 0] != row.goal[:, 1] for row in rows]))

    assert share((("remember", 1.0),)) == pytest.approx(0.5, abs=0.1)
    assert share((("remember", 4.0),)) == pytest.approx(0.8, abs=0.1)
    assert share((("skill", 0.0),)) == 1.0


def test_what_cannot_be_trained_on_is_named(recording: Path) -> None:
    with pytest.raises(FeaturesError, match="weight of unknown task 'fold': there are remember, skill"):
        TrainingSet(open_features([recording]), TargetOptions(weights=(("fold", 2.0),)))
    with pytest.raises(FeaturesError, match="every one of remember, skill has weight 0"):
        TrainingSet(open_features([recording]), TargetOptions(weights=(("remember", 0.0), ("skill", 0.0))))
    with pytest.raises(FeaturesError, match="no features of task 'fold'"):
        TrainingSet(open_features([recording]), TargetOptions(), ("fold",))
    with pytest.raises(ValueError, match="nothing to learn"):
        TargetOptions(context=False, chunk=False)
