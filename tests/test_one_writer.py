"""Verbs that write for long: two of them in one folder do not double or mix what they write."""

from pathlib import Path

import pytest

import vlamem.core.locks
from vlamem.core.locks import InUseError, one_writer
from vlamem.scripts.main import main


def test_a_second_writer_of_a_folder_is_refused_until_the_first_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vlamem.core.locks, "WAIT_S", 0.1)
    with one_writer(tmp_path / "out"):
        with pytest.raises(InUseError, match="choose another --out"), one_writer(tmp_path / "out"):
            pytest.fail("two at once")
        with one_writer(tmp_path / "other"):
            pass
    with one_writer(tmp_path / "out"):
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["collect", "--tasks", "touch", "--episodes", "1"],
        ["train-gate", "--features", "nowhere"],
        ["fit", "tiny", "nowhere"],
        ["pretrain", "--frames", "nowhere"],
    ],
    ids=lambda words: words[0],
)
def test_a_verb_whose_output_another_writes_says_so_and_ends(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vlamem.core.locks, "WAIT_S", 0.1)
    out = tmp_path / ("out.safetensors" if words[0] in ("fit", "pretrain") else "out")
    with one_writer(out):
        assert main([*words, "--out", str(out)]) == 2
    assert "is in use by another process: wait for its end" in capsys.readouterr().err
    assert not out.exists()
