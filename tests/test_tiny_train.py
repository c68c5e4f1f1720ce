"""Pretraining of TinyVLA on drawn frames: it learns, resumes exactly, and says what it cannot read."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import synthetic_frames
import torch

from vlamem.policies.tiny import train
from vlamem.policies.tiny.batches import Batches, BatchOptions, is_held_out, sentences_of
from vlamem.policies.tiny.frames import Frames, FramesError
from vlamem.policies.tiny.language import UNKNOWN, Tokeniser, words_of
from vlamem.policies.tiny.losses import LossOptions, jittered
from vlamem.policies.tiny.normaliser import Normaliser
from vlamem.policies.tiny.policy import TinyVLA
from vlamem.policies.tiny.train import PretrainOptions, checkpoint_of, pretrain
from vlamem.policies.tiny.weights import WeightsError, load_weights, read_header
from vlamem.scripts import pretrain as verb

SMALL: Mapping[str, int] = {"stem": 8, "width": 16, "hidden": 32, "feature": 32, "key": 8, "queries": 2}


def options(steps: int, **more: object) -> PretrainOptions:
    return PretrainOptions(
        steps=steps,
        warm_up=2,
        report_steps=0,
        model=SMALL,
        batch=BatchOptions(size=16),
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("frames")
    synthetic_frames.write(directory, 40)
    return directory


def batches(frames: Path, held_out: bool = False, **more: float) -> Batches:
    table = Frames(frames)
    tokeniser = Tokeniser.of(sentences_of(table))
    return Batches(table, tokeniser, Normaliser(), BatchOptions(size=16, **more), 0, held_out)  # type: ignore[arg-type]


def test_training_lowers_the_loss_and_writes_a_policy_that_acts(frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.safetensors"
    before = pretrain([frames], tmp_path / "none.safetensors", options(1), progress=False)
    after = pretrain([frames], out, options(60), command="vlamem pretrain", progress=False)
    assert after["flow"] < before["flow"] - 0.05
    assert after["value"] < before["value"]
    header = read_header(out)
    assert header["command"] == "vlamem pretrain"
    assert header["data"]["episodes"] == {"touch": 40, "recall": 40}
    assert header["metrics"]["steps"] == 60
    assert {"probe_lamp", "majority_lamp", "probe_red_x_cm", "chunk_error_held_out_wording"} <= set(header["metrics"])
    assert TinyVLA.load(out).spec.image_size == synthetic_frames.SIZE


def test_a_stopped_training_resumes_to_the_very_same_weights(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    pretrain([frames], whole, options(6), progress=False)
    update = train._update

    def stop_at_three(run: train._Run, *rest: object) -> dict[str, torch.Tensor]:
        if run.step == 3:
            raise KeyboardInterrupt
        return update(run, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "_update", stop_at_three)
    with pytest.raises(KeyboardInterrupt):
        pretrain([frames], stopped, options(6), progress=False)
    assert not stopped.exists()
    monkeypatch.setattr(train, "_update", update)
    pretrain([frames], stopped, options(6), resume=True, progress=False)
    assert read_header(whole)["sha256"] == read_header(stopped)["sha256"]
    assert not checkpoint_of(stopped).exists()


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(frames: Path, tmp_path: Path) -> None:
    hashes = []
    for i, seed in enumerate((0, 0, 1)):
        pretrain([frames], tmp_path / f"{i}", options(2, seed=seed), progress=False)
        hashes.append(read_header(tmp_path / f"{i}")["sha256"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_training_can_start_from_weights(frames: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    pretrain([frames], first, options(30), progress=False)
    begun = pretrain([frames], second, options(1), start_from=first, progress=False)
    assert begun["flow"] < pretrain([frames], tmp_path / "anew", options(1), progress=False)["flow"]
    with pytest.raises(WeightsError, match="has stem 8 but these frames and options give 48"):
        pretrain([frames], second, PretrainOptions(steps=1), start_from=first, progress=False)
    tensors, _ = load_weights(first)
    assert {a.dtype for a in tensors.values()} == {np.dtype(np.float16)}


def test_held_out_episodes_are_never_trained_on(frames: Path) -> None:
    training, held_out = batches(frames), batches(frames, held_out=True)
    assert not set(training.rows) & set(held_out.rows)
    columns = training.frames.columns
    split = is_held_out(columns["task"], columns["episode"])
    for key in {(int(t), int(e)) for t, e in zip(columns["task"], columns["episode"], strict=True)}:
        assert len(set(split[(columns["task"] == key[0]) & (columns["episode"] == key[1])])) == 1


def test_a_batch_is_a_function_of_seed_and_number(frames: Path) -> None:
    one, two = batches(frames), batches(frames)
    for i, batch in zip(range(5, 8), two.prefetched(5), strict=False):
        expected = one.batch(i)
        assert torch.equal(batch.cameras[0], expected.cameras[0])
        assert torch.equal(batch.words, expected.words)
        assert torch.equal(batch.chunk, expected.chunk)
    assert not torch.equal(one.batch(0).chunk, one.batch(1).chunk)


def test_an_error_of_the_loading_thread_reaches_the_training(frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = batches(frames)

    def fail(*_: object) -> None:
        raise OSError("disk is gone")

    monkeypatch.setattr(source.frames, "images", fail)
    with pytest.raises(OSError, match="disk is gone"):
        next(source.prefetched(0))


def test_a_memory_sentence_carries_no_target_and_the_oracle_one_does(frames: Path) -> None:
    source = batches(frames, word_dropout=0.0)
    columns = source.frames.columns
    rows = np.flatnonzero(columns["task"] == 1)[:64]
    batch = source.of_rows(rows, np.random.default_rng(0))
    asking = {tuple(r) for r in source._words.tolist()} & {
        tuple(r) for r in Tokeniser.of(sentences_of(source.frames))(list(synthetic_frames.ASKING)).tolist()
    }
    is_asking = [tuple(batch.words[i].tolist()) in asking for i in batch.goal.tolist()]
    assert 0.2 < np.mean(is_asking) < 0.8
    assert batch.target.isnan().any(1).tolist() == is_asking


def test_named_objects_are_where_the_frame_says(frames: Path) -> None:
    source = batches(frames, word_dropout=0.0)
    rows = source.rows[:64]
    batch = source.of_rows(rows, np.random.default_rng(0))
    meta, scale = source.frames.meta, Normaliser().label_scale
    tokeniser = Tokeniser.of(sentences_of(source.frames))

    def where(row: int, colour: str, shape: str) -> np.ndarray:
        objects = source.frames.columns["objects"][row]
        fits = (objects[:, 0] == meta.colours.index(colour)) & (objects[:, 1] == meta.shapes.index(shape))
        return np.asarray(objects[fits][0, 2:])

    for i, row in enumerate(np.tile(rows, 2)):
        words = [tokeniser.words[w - 2] for w in batch.words[batch.named[i]].tolist() if w]
        things = [(words[n - 1], word) for n, word in enumerate(words) if word in meta.shapes]
        assert len(things) == (1 if i < len(rows) else 2)
        positions = (batch.named_position[i] * scale, batch.named_destination[i] * scale)
        for thing, position in zip(things, positions, strict=False):
            np.testing.assert_allclose(position, where(row, *thing), atol=1e-6)
        assert bool(batch.named_destination[i].isnan().all()) == (i < len(rows))


def test_held_out_wordings_are_not_in_the_vocabulary_and_dropout_teaches_unknown_words(frames: Path) -> None:
    table = Frames(frames)
    tokeniser = Tokeniser.of(sentences_of(table))
    assert "tap" not in tokeniser.words
    assert words_of(table.meta.goals[0].held_out[0])[1] == "tap"
    assert (batches(frames, word_dropout=0.5).batch(0).words == UNKNOWN).any()
    assert not (batches(frames, word_dropout=0.0).batch(0).words == UNKNOWN).any()


def test_jitter_keeps_the_order_of_colour_channels() -> None:
    red = torch.zeros(32, 48, 2, 2, dtype=torch.uint8)
    red[:, 0::3] = 200
    red[:, 1::3] = 60
    seen = jittered(red, LossOptions().jitter, torch.Generator().manual_seed(0))
    assert (seen[:, 0::3] > seen[:, 1::3]).all()
    assert (seen[:, 1::3] > seen[:, 2::3]).all()
    assert seen[:, 0].std() > 0.01


def test_unknown_task_weights_and_missing_frames_are_named(frames: Path, tmp_path: Path) -> None:
    with pytest.raises(FramesError, match="unknown task 'toss'"):
        pretrain([frames], tmp_path / "x", PretrainOptions(steps=1, batch=BatchOptions(task_weights={"toss": 2})))
    with pytest.raises(FramesError, match="does not exist"):
        pretrain([tmp_path / "none"], tmp_path / "x", options(1))
    with pytest.raises(ValueError, match="--weight touch: expected TASK=FACTOR"):
        verb.main(["--frames", str(frames), "--out", str(tmp_path / "x"), "--weight", "touch"])


def test_the_verb_trains_and_prints_the_figures(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tiny.safetensors"
    line = f"--frames {frames} --out {out} --steps 1 --batch 8 --draws 1 --report-steps 0 --weight touch=2"
    assert verb.main(line.split()) == 0
    assert "chunk_error" in capsys.readouterr().out
    header = read_header(out)
    assert header["options"]["batch"]["task_weights"] == {"touch": 2.0}
    assert header["command"].startswith("vlamem pretrain --frames")
