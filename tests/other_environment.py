"""Environments of their own for programs that cannot share ours; built once from the package registry."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def environment(name: str, *packages: str, no_deps: tuple[str, ...] = ()) -> Path:
    """The Python of a virtual environment with `packages`; kept between runs, skips the test without a network."""
    wanted = "\n".join([*packages, "--no-deps", *no_deps])
    folder = Path(tempfile.gettempdir()) / f"vlamem-test-{os.getuid()}-{name}"
    python, mark = folder / "bin" / "python", folder / "packages"
    if mark.exists() and mark.read_text() == wanted and python.exists():
        return python
    base = [sys.executable, "-m", "uv"]
    subprocess.run([*base, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
    for words in (packages, ("--no-deps", *no_deps) if no_deps else ()):
        if not words:
            continue
        command = [*base, "pip", "install", "-q", "--python", python, *words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lost = ("dns error", "Connection refused", "timed out", "Network is unreachable", "Failed to fetch")
            if any(word in done.stderr for word in lost):
                pytest.skip(f"no network to install {', '.join(words)}")
            raise AssertionError(f"{name}: {done.stderr}")
    mark.write_text(wanted)
    return python


def run(python: Path, code: str, *arguments: str, folder: Path | None = None) -> str:
    """What `code` prints there; fails with its errors."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-c", code, *arguments], capture_output=True, text=True, timeout=1500, env=clean, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
