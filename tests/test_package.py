"""pyproject.toml against the tree, and the layers."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from setuptools import find_packages

ROOT = Path(__file__).resolve().parent.parent
TOP = ("memory", "policies", "sim", "deploy", "scripts", "configs")
HIGHER = {
    "vlamem/core": ("memory", "policies", "sim", "deploy", "scripts"),
    "memory": ("policies", "sim", "deploy", "scripts"),
    "policies": ("sim", "deploy", "scripts"),
    "sim": ("deploy", "scripts"),
    "deploy": ("sim", "scripts"),
}


def test_every_top_folder_is_a_package_of_vlamem() -> None:
    for top in TOP:
        assert (ROOT / "vlamem" / top).resolve() == ROOT / top
    listed = set(find_packages(str(ROOT), include=["vlamem*"]))
    found = {"vlamem", "vlamem.core", "vlamem.testing"}
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
        if ROOT / "sim/bench/faults" in path.parents:  # it kills servers and robots as well as rollouts
            continue
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
import vlamem, vlamem.memory, vlamem.memory.designs.aura, vlamem.policies, vlamem.policies.chunk_runner
import vlamem.sim, vlamem.sim.suites.registry, vlamem.sim.rollout.run, vlamem.sim.doctor
import vlamem.sim.results.compare, vlamem.sim.results.pages
import vlamem.scripts.main, vlamem.scripts.rollout, vlamem.scripts.compare, vlamem.scripts.doctor
from vlamem.sim.suites.registry import load_suite
load_suite("tabletop")
print("imported")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "imported\n", done.stderr


def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_imports", ROOT / "docs" / "draw_imports.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert drawing().circles() == []


@pytest.mark.parametrize(("folder", "most"), [("sim", 15), ("deploy", 7), ("memory", 29), ("memory/success", 18)])
def test_rooms_of_a_folder_import_few_others(folder: str, most: int) -> None:
    found = drawing().arrows(folder)
    assert len(found) <= most, sorted(found)


def test_every_package_lists_its_public_names() -> None:
    for top in (*TOP[:4], "vlamem/core"):
        for path in (ROOT / top).rglob("__init__.py"):
            tree = ast.parse(path.read_text())
            if any(isinstance(node, ast.ImportFrom | ast.FunctionDef | ast.ClassDef) for node in tree.body):
                assert "__all__" in path.read_text(), path
