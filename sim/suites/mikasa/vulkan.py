"""Finds a Vulkan driver that SAPIEN can draw with, in processes of their own, and says what is missing.

A driver of the system is taken where it works, as one of a GPU does. Software drivers before Mesa 23 do not: for them
`make mikasa` puts a newer one into the environment's own folder, where nothing else sees it.
"""

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from vlamem.sim.suites.mikasa.package import MikasaMissingError

VARIABLES = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")
"""With either, a user names a driver; the loader reads both."""
_SYSTEM = (Path("/usr/share/vulkan/icd.d"), Path("/etc/vulkan/icd.d"), Path("/usr/local/share/vulkan/icd.d"))
_SOFTWARE = ("llvmpipe", "lavapipe", "swiftshader", "software")
_TIMEOUT_S = 300
_MEND = "fetch a software driver with 'make mikasa'"

_PROBE = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
import sapien
scene = sapien.Scene([sapien.render.RenderSystem(sys.argv[1])] if len(sys.argv) > 1 else None)
scene.set_ambient_light([1.0, 1.0, 1.0])
material = sapien.render.RenderMaterial(base_color=[1.0, 0.0, 0.0, 1.0])
builder = scene.create_actor_builder()
builder.add_box_visual(half_size=[1.0, 1.0, 1.0], material=material)
builder.build_kinematic(name="box")
camera = scene.add_camera("camera", 32, 32, 1.0, 0.01, 10.0)
camera.set_entity_pose(sapien.Pose([-3.0, 0.0, 0.0]))
scene.update_render()
camera.take_picture()
image = np.asarray(camera.get_picture("Color"))[..., :3]
drawn = bool(image[16, 16, 0] > 2 * image[16, 16, 1])
print(json.dumps({"renderer": str(sapien.render.get_device_summary()), "drawn": drawn}))
sys.stdout.flush()
os._exit(0)
"""


@dataclass(frozen=True)
class Vulkan:
    """A Vulkan driver as it was found.

    Attributes:
        name: "named by VK_DRIVER_FILES", "of the system" or "of this environment".
        works: a picture was drawn and read back.
        files: what VK_DRIVER_FILES has to be; empty where the loader finds it by itself.
        software: it draws on the processor.
        problem: why it does not work, one line.
    """

    name: str
    works: bool
    files: str = ""
    software: bool = True
    problem: str = ""


def own_driver() -> Path:
    """Where `make mikasa` puts the description of the software driver."""
    return Path(sys.prefix) / "share" / "vlamem" / "vulkan" / "lvp_icd.json"


def _candidates() -> list[tuple[str, str]]:
    """Names and files of the drivers to try, the best first."""
    named = next((v for v in VARIABLES if os.environ.get(v)), None)
    if named:  # what a user names is used or refused, never passed over
        return [(f"named by {named}", os.environ[named])]
    found = []
    if any(folder.is_dir() and any(folder.glob("*.json")) for folder in _SYSTEM):
        found.append(("of the system", ""))
    if own_driver().is_file():
        found.append(("of this environment", str(own_driver())))
    return found


@functools.cache
def probe(name: str, files: str) -> Vulkan:
    """Draws one picture with a driver, in a process of its own."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    if files:
        environment |= dict.fromkeys(VARIABLES, files)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return Vulkan(name, False, files, problem=f"gave no picture within {_TIMEOUT_S} s")
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        ended = f"ended with status {done.returncode}" if done.returncode > 0 else f"died of signal {-done.returncode}"
        return Vulkan(name, False, files, problem=f"{ended}: {lines[-1].strip()}" if lines else ended)
    said = json.loads(done.stdout.splitlines()[-1])
    software = any(word in said["renderer"].lower() for word in _SOFTWARE)
    if not said["drawn"]:
        return Vulkan(name, False, files, software, "drew a picture without the box that was in it")
    return Vulkan(name, True, files, software)


def choose() -> Vulkan:
    """The first driver that draws. Raises MikasaMissingError saying what was tried."""
    tried = []
    for name, files in _candidates():
        found = probe(name, files)
        if found.works:
            return found
        tried.append(f"the one {name} {found.problem}")
    if not tried:
        raise MikasaMissingError(f"no Vulkan driver is installed, and SAPIEN draws with Vulkan alone: {_MEND}")
    named = any(os.environ.get(v) for v in VARIABLES)
    mend = f"unset {' and '.join(VARIABLES)}, or {_MEND}" if named else _MEND
    raise MikasaMissingError(f"no Vulkan driver draws ({'; '.join(tried)}): {mend}")


@functools.cache
def settle() -> Vulkan:
    """Chooses a driver for this process, once and before the simulator is imported. Raises MikasaMissingError."""
    found = choose()
    if found.files:
        os.environ.update(dict.fromkeys(VARIABLES, found.files))
    return found
