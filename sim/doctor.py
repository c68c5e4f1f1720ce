"""Checks what vlamem needs on this machine, and says how to mend what is broken."""

import importlib.util
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from vlamem.core.check import Check
from vlamem.memory.weights import load_weights as load_gate
from vlamem.policies.memories import SHIPPED_GATE
from vlamem.policies.registry import SHIPPED, find_policy, shipped_weights
from vlamem.policies.tiny.weights import WeightsError, load_weights
from vlamem.sim import gl

_RUNTIME_EXTRAS = ("torch", "sim", "success", "lerobot", "robot", "serve", "libero", "mikasa", "export")


def _python() -> Check:
    version = platform.python_version()
    if version.startswith("3.12."):
        return Check("python", "ok", version)
    return Check("python", "broken", version, "install vlamem into a Python 3.12 environment")


def _packages() -> Iterator[Check]:
    """Every declared dependency, against the versions that it may have."""
    try:
        declared = metadata.requires("vlamem") or []
    except metadata.PackageNotFoundError:
        yield Check("vlamem", "broken", "not installed", "make setup")
        return
    seen: set[tuple[str, str]] = set()
    for extra in ("", *_RUNTIME_EXTRAS):
        for requirement in map(Requirement, declared):
            alone = requirement.marker is None
            if alone != (extra == "") or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
                continue
            key = (requirement.name, str(requirement.specifier))  # some stand in two extras
            if key in seen:
                continue
            seen.add(key)
            mend = f"pip install 'vlamem[{extra}]'" if extra else "pip install vlamem"
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                yield Check(requirement.name, "absent" if extra else "broken", "not installed", mend)
                continue
            if requirement.specifier.contains(version, prereleases=True):
                yield Check(requirement.name, "ok", version)
            else:
                wanted = f"pip install '{requirement.name}{requirement.specifier}'"
                yield Check(requirement.name, "broken", f"{version}, needs {requirement.specifier}", wanted)


def _rendering() -> Iterator[Check]:
    if importlib.util.find_spec("mujoco") is None:
        yield Check("GL", "absent", "mujoco is not installed", "pip install 'vlamem[sim]'")
        return
    named = os.environ.get("MUJOCO_GL", "").lower()
    found = [gl.probe(name) for name in dict.fromkeys([*([named] if named else []), *gl.BACKENDS])]
    for backend in found:
        if backend.works:
            kind = "software" if backend.software else "hardware"
            yield Check(f"GL {backend.name}", "ok", f"{kind}: {backend.renderer}")
        else:
            yield Check(f"GL {backend.name}", "absent", backend.problem, backend.mend)
    try:
        chosen = gl.choose()
    except gl.NoGLError as error:
        yield Check("rendering", "broken", str(error), "make one of the backends work, or unset MUJOCO_GL")
        return
    hardware = [b.name for b in found if b.works and not b.software]
    note = f"; MUJOCO_GL={hardware[0]} would use the GPU" if chosen.software and hardware else ""
    slow = " (software: slow)" if chosen.software else ""
    yield Check("rendering", "ok", f"{chosen.name}{slow}{note}")


def _devices() -> Iterator[Check]:
    try:
        import jax

        yield Check("jax devices", "ok", ", ".join(str(d) for d in jax.devices()))
    except (ImportError, RuntimeError) as error:
        yield Check("jax devices", "broken", _line(error), "pip install vlamem")
    if importlib.util.find_spec("torch") is None:
        yield Check("torch devices", "absent", "not installed", "pip install 'vlamem[torch]'")
        return
    try:
        import torch

        cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Check("torch devices", "ok", ", ".join(["cpu", *cuda]))
    except (ImportError, OSError, RuntimeError) as error:
        yield Check("torch devices", "broken", _line(error), "pip install 'vlamem[torch]'")


def _weights(path: Path) -> Check:
    name = f"weights {path.name}"
    if not path.is_file():
        return Check(name, "broken", "not there", "reinstall vlamem, or train them: vlamem pretrain")
    try:
        _, header = load_weights(path)
    except (WeightsError, OSError) as error:
        return Check(name, "broken", _line(error), "reinstall vlamem, or train them: vlamem pretrain")
    return Check(name, "ok", f"{path.stat().st_size / 1e6:.1f} MB, hash {header['sha256'][:16]}")


def _gate(path: Path) -> Check:
    """The shipped gate, and whether it was trained for the shipped policy."""
    name, again = f"gate {path.name}", "reinstall vlamem, or train it: vlamem train-gate"
    try:
        header, _ = load_gate(path)
        shipped = find_policy("tiny").sha256 or ""
    except (ValueError, OSError) as error:
        return Check(name, "broken", _line(error), again)
    trained_for = header.trained_for.fingerprint
    if trained_for.rpartition("-")[2] != shipped[:16]:
        return Check(name, "broken", f"for other weights ({trained_for}) than those shipped", again)
    return Check(name, "ok", f"{path.stat().st_size / 1e6:.1f} MB, for {header.trained_for.policy} {trained_for}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def examine() -> list[Check]:
    """All checks, in the order in which they are best mended."""
    weights = [*(_weights(shipped_weights(name)) for name in SHIPPED), _gate(SHIPPED_GATE)]
    return [_python(), *_packages(), *_rendering(), *_devices(), *weights]
