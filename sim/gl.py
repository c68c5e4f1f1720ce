"""Headless rendering: tries MuJoCo's GL backends in processes of their own and says what is missing."""

import ctypes.util
import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

BACKENDS = ("osmesa", "egl")
"""In the order of preference: several EGL processes on one GPU can hang, OSMesa never does."""
_PACKAGES = {
    "osmesa": "libosmesa6 libgl1",
    "egl": "libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libgles2",
}
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")
_TIMEOUT_S = 300

_PROBE = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom size="1" rgba="1 0 0 1"/></worldbody></mujoco>'
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
image = renderer.render()
from OpenGL import GL
name = GL.glGetString(GL.GL_RENDERER).decode()
print(json.dumps({"renderer": name, "drawn": bool(image[16, 16, 0] > 60 and image[16, 16, 1] < 60)}))
sys.stdout.flush()
os._exit(0)
"""


class NoGLError(OSError):
    """No GL backend can render; the message says what was tried and which packages bring it."""


@dataclass(frozen=True)
class Backend:
    """A GL backend as it was found.

    Attributes:
        name: value for MUJOCO_GL.
        works: a picture was drawn and read back.
        renderer: what drew it, e.g. "llvmpipe (LLVM 15.0.6, 256 bits)"; empty when it does not work.
        software: the renderer runs on the processor.
        problem: why it does not work, one line.
        mend: what to do about it.
    """

    name: str
    works: bool
    renderer: str = ""
    software: bool = False
    problem: str = ""
    mend: str = ""

    def marks(self) -> dict[str, Any]:
        """For a fingerprint: backend, renderer, software."""
        found = asdict(self)
        return {"backend": found["name"], "renderer": found["renderer"], "software": found["software"]}


@functools.cache
def probe(name: str) -> Backend:
    """Draws one picture with backend `name` ("egl", "osmesa", "glfw") in a process of its own."""
    mend = f"apt-get install {_PACKAGES[name]}" if name in _PACKAGES else f"set MUJOCO_GL to {' or '.join(BACKENDS)}"
    environment = os.environ | {"MUJOCO_GL": name, "PYTHONWARNINGS": "ignore"}
    environment.pop("PYOPENGL_PLATFORM", None)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return Backend(name, False, problem=f"no picture within {_TIMEOUT_S} s", mend="use MUJOCO_GL=osmesa")
    if done.returncode != 0 or not done.stdout.strip():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        problem = lines[-1].strip() if lines else f"exit status {done.returncode}"
        if "No module named" in problem:
            mend = "pip install 'vlamem[sim]'"
        return Backend(name, False, problem=problem, mend=mend)
    found = json.loads(done.stdout.splitlines()[-1])
    if not found["drawn"]:
        return Backend(name, False, found["renderer"], problem="the picture came back empty", mend=mend)
    software = any(word in found["renderer"].lower() for word in _SOFTWARE)
    return Backend(name, True, found["renderer"], software)


def settle(name: str = "") -> None:
    """Has this process, and those that it starts, render with backend `name`, else with the one that MUJOCO_GL names,
    else, where there is no window system, with one that is installed. MuJoCo reads it when it is imported.

    PyOpenGL's own variable follows: MuJoCo refuses one that a shell has set otherwise.
    """
    chosen = name or os.environ.get("MUJOCO_GL", "").lower()
    if not chosen and "DISPLAY" not in os.environ:
        chosen = "osmesa" if ctypes.util.find_library("OSMesa") else "egl"
    if chosen:
        os.environ["MUJOCO_GL"] = chosen
    if chosen in BACKENDS:
        os.environ["PYOPENGL_PLATFORM"] = chosen


def choose(backends: Sequence[str] = BACKENDS) -> Backend:
    """The backend to render with: the one that MUJOCO_GL names, else the first of `backends` that works.

    Raises NoGLError when it, or none of them, works.
    """
    named = os.environ.get("MUJOCO_GL", "").lower()
    tried = [probe(named)] if named else []
    for name in () if named else backends:
        tried.append(probe(name))
        if tried[-1].works:
            break
    if tried[-1].works:
        return tried[-1]
    problems = "; ".join(f"{b.name}: {b.problem} ({b.mend})" for b in tried)
    raise NoGLError(f"no GL backend can render: {problems}")
