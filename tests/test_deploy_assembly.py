"""deploy/assembly.py: the server that files make, from the first frame to what a labelled episode changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import client, options, run

from vlamem.deploy.assembly import build_server


def retrieved(server: Any) -> list[float]:
    """Plans for which success memory proposed, and those for which it abstained."""
    lines = server.metrics.text().decode().splitlines()
    names = ("vlamem_retrieval_hits_total ", "vlamem_retrieval_abstentions_total ")
    return [float(line.split()[1]) for name in names for line in lines if line.startswith(name)]


def test_a_labelled_episode_is_found_again_in_the_next_one_and_after_a_restart(tmp_path: Path) -> None:
    async def scenario(server: Any, desk: Any, restarted: bool) -> None:
        size, cameras = server.desk.policy.spec.image_size, server.desk.policy.spec.cameras
        body = {camera: np.full((size, size, 3), 90, np.uint8) for camera in cameras}
        body |= {"proprioception": np.float32([0.4, 0, 0.3, 0, 1, 0, 0, 0.04]), "instruction": "touch the red cube"}
        async with server.running() as port, client(port) as c:
            assert c.metadata["vlamem"]["serves"]["success"] == "s.db"
            await c.ask("hello", session=f"arm-{restarted}")
            await c.ask("episode_start", episode=1)
            reply = await c.ask("observe", body, episode=1, step=0, plan=True)
            assert retrieved(server) == ([1, 0] if restarted else [0, 1])
            for step in range(1, 9):
                executed = {"executed": np.array(reply["actions"][step - 1]).tolist()}
                await c.ask("observe", body, episode=1, step=step, plan=False, **executed)
            await c.ask("episode_start", episode=2)
            await c.ask("label", label=f"a-{restarted}", episode=1, outcome="success")
            assert desk.settle(20)
            await c.ask("observe", body, episode=2, step=0, plan=True)
            assert retrieved(server) == ([2, 0] if restarted else [1, 1])
        desk.close()

    for restarted in (False, True):
        server, desk = build_server("tiny", "shipped", tmp_path / "s.db", tmp_path / "state", options())
        run(lambda server=server, desk=desk, restarted=restarted: scenario(server, desk, restarted))


def test_a_server_without_files_for_labels_says_what_is_missing_and_one_without_memory_serves(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give --state"):
        build_server("tiny", "none", tmp_path / "s.db", None, options())
    server, desk = build_server("tiny", "none", None, None, options())
    assert desk is None

    async def scenario() -> None:
        async with server.running() as port, client(port) as c:
            assert c.metadata["vlamem"]["serves"] == {"policy": "tiny", "aura": "none", "success": "none"}
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            assert (await c.ask("label", label="a", episode=1, outcome="success"))["vlamem"]["code"] == "label"

    run(scenario)
