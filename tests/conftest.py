"""Fixtures of several modules; what they need is imported where they are asked for."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

pytest_plugins = ["worker_memory"]

if TYPE_CHECKING:
    from deploy_cases import Hosted

if os.environ.get("VLAMEM_CHECK_TYPES"):
    # before anything of vlamem is imported: arguments and results are checked against annotations, shapes included
    install_import_hook(["vlamem.memory.designs", "vlamem.memory.train"], "runtime_types.checked")


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator["Hosted"]:
    """A policy server in this process, with its state below the test's folder."""
    from deploy_cases import Hosted

    host = Hosted(tmp_path / "server")
    host.start()
    yield host
    host.end()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny checkpoints of lerobot: a direct policy and one that samples by flow matching."""
    from lerobot_cases import build

    root = tmp_path_factory.mktemp("checkpoints")
    return {family: build(family, root / family) for family in ("act", "smolvla")}
