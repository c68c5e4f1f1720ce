"""pyproject.toml against the tree, and the layers."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOP = ("memory", "policies", "sim", "deploy", "scripts", "configs")
HIGHER = {
    "memory": ("policies", "sim", "deploy", "scripts"),
    "policies": ("sim", "deploy", "scripts"),
    "sim": ("deploy", "scripts"),
    "deploy": ("sim", "scripts"),
}


def test_every_package_folder_is_listed_and_every_listed_one_exists() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"vlamem"}
    for top in TOP:
        found |= {"vlamem." + ".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / top).rglob("__init__.py")}
    assert listed == found


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


@pytest.mark.parametrize("layer", sorted(HIGHER))
def test_no_layer_imports_a_higher_one(layer: str) -> None:
    for path in (ROOT / layer).rglob("*.py"):
        for module in imports(path):
            assert not module.startswith(tuple(f"vlamem.{h}" for h in HIGHER[layer])), f"{path} imports {module}"


def test_memory_knows_neither_torch_nor_a_simulator() -> None:
    for path in (ROOT / "memory").rglob("*.py"):
        roots = {m.partition(".")[0] for m in imports(path)}
        assert not roots & {"torch", "mujoco", "robosuite", "gymnasium", "lerobot"}, path


def test_the_core_imports_without_torch_simulator_or_lerobot() -> None:
    code = """
import sys
for name in ("torch", "mujoco", "robosuite", "gymnasium", "lerobot", "av", "matplotlib"):
    sys.modules[name] = None
import vlamem, vlamem.memory, vlamem.memory.aura, vlamem.policies, vlamem.policies.chunk_runner
import vlamem.sim, vlamem.sim.suite, vlamem.sim.rollout, vlamem.sim.compare, vlamem.sim.doctor, vlamem.sim.results
import vlamem.scripts.main, vlamem.scripts.rollout, vlamem.scripts.compare, vlamem.scripts.doctor
from vlamem.sim.suite import load_suite
load_suite("tabletop")
print("imported")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "imported\n", done.stderr
