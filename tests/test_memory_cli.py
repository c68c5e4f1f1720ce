"""`vlamem memory`: each command on a real file, and wrong input."""

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from success_cases import LAYOUT, ORIGIN, episode, job

from vlamem.memory.success import MemoryOptions, SuccessMemory
from vlamem.memory.success.experience import StoredTrial
from vlamem.scripts.main import main


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.db"
    with SuccessMemory(path, ORIGIN, LAYOUT, MemoryOptions(merge_similarity=2.0)) as memory:
        for made in job(0, 40):
            memory.commit(made)
        memory.commit(episode(1, outcome="failure"))
        memory.store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def test_info_prints_origins_numbers_and_calibration(file, capsys):
    assert main(["memory", "info", str(file)]) == 0
    printed = capsys.readouterr().out
    for part in ("policy policy-a", "robot panda", "40 episodes, 160 segments", "1 episodes, 3 segments", "not calib"):
        assert part in printed


def test_info_says_what_trials_of_a_residual_prior_make_known(file, capsys):
    with SuccessMemory(file, ORIGIN, LAYOUT, MemoryOptions(prior="residual")) as memory:
        for i in range(24):
            offset = np.array([0.3 * (i % 2), 0, 0, 0, 0, 0, 0])
            memory.add_trial(StoredTrial(f"t{i}", "success" if i % 2 else "failure", offset, float(i)))
    assert main(["memory", "info", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "trials of a residual prior: 24" in printed
    assert "correction +0.3" in printed or "correction +0.2" in printed
    with SuccessMemory(file, ORIGIN, LAYOUT) as memory:
        memory.store.add_trials(memory.origin, [StoredTrial(f"t{i}", "failure", np.zeros(7), 0.0) for i in range(24)])
    main(["memory", "info", str(file)])
    assert "no correction: nothing verified" in capsys.readouterr().out


def test_calibrate_stores_and_plots_and_info_prints_it(file, capsys):
    assert main(["memory", "calibrate", str(file), "--reach", "0.4"]) == 0
    assert file.with_name("memory-calibration.png").stat().st_size > 5000
    main(["memory", "info", str(file)])
    assert "calibrated: threshold" in capsys.readouterr().out


def test_show_draws(file):
    assert main(["memory", "show", str(file)]) == 0
    assert file.with_name("memory.png").stat().st_size > 5000


def test_export_and_import_carry_everything(file, tmp_path, capsys):
    carried, other = tmp_path / "carried.safetensors", tmp_path / "other.db"
    assert main(["memory", "export", str(file), "--to", str(carried)]) == 0
    assert main(["memory", "import", str(other), str(carried)]) == 0
    assert "163 segments stored" in capsys.readouterr().out
    assert main(["memory", "verify", str(other)]) == 0


def test_prune_keeps_the_number_that_was_asked_for(file, capsys):
    assert main(["memory", "prune", str(file), "--most", "50", "--dry-run"]) == 0
    assert "110 segments would go, 163 are there" in capsys.readouterr().out
    assert main(["memory", "prune", str(file), "--most", "50"]) == 0
    assert "110 segments deleted, 53 are there" in capsys.readouterr().out


def test_verify_names_damage_and_salvages(file, tmp_path, capsys):
    page = file.read_bytes().index(job(0, 40)[20].segments[1].chunk.tobytes()) // 4096
    with file.open("r+b") as opened:
        opened.seek(4096 * page)
        opened.write(os.urandom(4096))
    saved = tmp_path / "saved.db"
    assert main(["memory", "verify", str(file), "--salvage", str(saved)]) == 1
    printed = capsys.readouterr()
    assert "is damaged" in printed.err
    assert "segments of" in printed.out
    assert main(["memory", "verify", str(saved)]) == 0


def test_several_origins_are_named_and_one_can_be_chosen(file, capsys):
    with SuccessMemory(file, replace(ORIGIN, robot="ur5"), LAYOUT, admit=True) as memory:
        memory.commit(episode(9))
    assert main(["memory", "verify", str(file)]) == 2
    assert "1 (panda), 2 (ur5): choose one with --origin" in capsys.readouterr().err
    assert main(["memory", "verify", str(file), "--origin", "2"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inof"], "did you mean 'info'?"),
        (["info", "missing.db"], "missing.db is missing"),
        (["verify", "missing.db"], "missing.db is missing"),
        (["import", "new.db", "missing.safetensors"], "missing.safetensors"),
    ],
)
def test_wrong_input_is_named(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["memory", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["sync", "new.db", "ADDRESS", "--robot", "anna"], ["fleet", "ADDRESS", "list"]])
def test_without_the_libraries_of_a_fleet_their_extra_is_named(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith("vlamem.memory.success.store.fleet")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("sqlalchemy", "alembic", "alembic.config"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["memory", *(word.replace("ADDRESS", "postgresql://anna@db/fleet") for word in words)]) == 2
    assert "pip install 'vlamem[fleet]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_an_administrator_leaves_out_is_asked_for(capsys):
    assert main(["memory", "fleet", "postgresql://owner@db/fleet", "revoke"]) == 2
    assert "whom to revoke?" in capsys.readouterr().err
    assert main(["memory", "fleet", "postgresql://owner@db/fleet", "admit", "anna"]) == 2
    assert "which database role is robot 'anna'? name it with --login" in capsys.readouterr().err
