"""sim/robosuite_import.py and sim/gl.py: robosuite and MuJoCo come up whatever a shell and other users have left."""

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from simulator_cases import needs_simulator

from vlamem.sim import gl
from vlamem.sim.robosuite_import import THEIRS, importing_robosuite, own_log

PLAY = """
import os
from vlamem.sim.suites.tabletop import SUITE
env = SUITE.make("touch", image_size=16)
env.reset(options={"episode": 0})
assert env.observe()["agentview"].any()
print(os.environ["MUJOCO_EGL_DEVICE_ID"], os.environ["MUJOCO_GL"], os.environ["PYOPENGL_PLATFORM"])
"""


def test_the_log_of_all_users_is_this_users_own_inside_and_the_class_as_it_was_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with importing_robosuite():
        handlers = [logging.FileHandler(name, delay=True) for name in (THEIRS, tmp_path / "other.log")]
    assert [Path(h.baseFilename) for h in handlers] == [own_log(), tmp_path / "other.log"]
    assert own_log().parent == tmp_path
    assert Path(logging.FileHandler(THEIRS, delay=True).baseFilename) == Path(THEIRS)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert own_log() == Path(os.devnull)


def test_the_gpu_that_mujoco_is_to_render_on_is_kept_from_robosuite_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "7")
    with importing_robosuite():
        assert "MUJOCO_EGL_DEVICE_ID" not in os.environ
    assert os.environ["MUJOCO_EGL_DEVICE_ID"] == "7"


def test_pyopengls_variable_follows_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOPENGL_PLATFORM", "egl")
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    gl.settle()
    assert (os.environ["MUJOCO_GL"], os.environ["PYOPENGL_PLATFORM"]) == ("osmesa", "osmesa")
    gl.settle("egl")
    assert (os.environ["MUJOCO_GL"], os.environ["PYOPENGL_PLATFORM"]) == ("egl", "egl")
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setenv("DISPLAY", ":0")
    gl.settle()
    assert "MUJOCO_GL" not in os.environ


@needs_simulator
def test_an_environment_is_made_and_drawn_under_a_shell_that_says_otherwise(tmp_path: Path) -> None:
    shell = {
        "PYOPENGL_PLATFORM": "egl", "MUJOCO_GL": "osmesa", "MUJOCO_EGL_DEVICE_ID": "7", "CUDA_VISIBLE_DEVICES": "0",
        "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", PLAY], env=os.environ | shell, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["7", "osmesa", "osmesa"]
    assert list(tmp_path.glob("robosuite-*.log"))
