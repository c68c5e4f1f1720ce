"""deploy/server/assembly.py: the server that files make, from the first frame to what a labelled episode changes."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import LONG_S, client, options, run, serving

from vlamem.deploy.server.assembly import build_server, load_memory_policy
from vlamem.deploy.server.sessions import SessionLimits
from vlamem.memory.success import ProgressCritic
from vlamem.memory.success.runner import open_success
from vlamem.policies.registry import find_policy, load_policy


def retrieved(server: Any) -> list[float]:
    """Plans for which success memory proposed, and those for which it abstained."""
    lines = server.metrics.text().decode().splitlines()
    names = ("vlamem_retrieval_hits_total ", "vlamem_retrieval_abstentions_total ")
    return [float(line.split()[1]) for name in names for line in lines if line.startswith(name)]


def test_a_labelled_episode_is_found_again_in_the_next_one_and_after_a_restart(tmp_path: Path) -> None:
    async def scenario(server: Any, queue: Any, restarted: bool) -> None:
        size, cameras = server.state.policy.spec.image_size, server.state.policy.spec.cameras
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
            assert queue.drain(LONG_S)
            await c.ask("observe", body, episode=2, step=0, plan=True)
            assert retrieved(server) == ([2, 0] if restarted else [1, 1])
        queue.close()

    for restarted in (False, True):
        server, queue = build_server("tiny", ["aura", f"success:{tmp_path / 's.db'}"], tmp_path / "state", options())
        run(lambda server=server, queue=queue, restarted=restarted: scenario(server, queue, restarted))


def test_a_served_robot_explores_only_when_asked_learns_from_labels_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    name, found = f"success:{tmp_path / 's.db'}?prior=residual", []

    async def scenario(server: Any, queue: Any, first: int) -> None:
        size, cameras = server.state.policy.spec.image_size, server.state.policy.spec.cameras
        body = {camera: np.full((size, size, 3), 90, np.uint8) for camera in cameras}
        body |= {"proprioception": np.float32([0.4, 0, 0.3, 0, 1, 0, 0, 0.04]), "instruction": "touch the red cube"}
        async with server.running() as port, client(port) as c:
            await c.ask("hello", session=f"arm-{first}")
            for episode in (1, 2):
                await c.ask("episode_start", episode=episode)
                reply = await c.ask("observe", body, episode=episode, step=0, plan=True)
                executed = {"executed": np.array(reply["actions"][0]).tolist()}
                await c.ask("observe", body, episode=episode, step=1, plan=False, **executed)
                await c.ask("episode_end", episode=episode)
                await c.ask("label", label=f"{first}-{episode}", episode=episode, outcome="success")
                assert queue.drain(LONG_S)
                found.append(len(memory_of(server).store.trials(1)))
        queue.close()

    def memory_of(server: Any) -> Any:
        return server.state.policy.memories[0].memory

    for asked, first in (("&explore=3", 0), ("&explore=3", 2), ("", 4)):
        server, queue = build_server(
            "tiny", [name + asked], tmp_path / "state", options(sessions=SessionLimits(count=1))
        )
        run(lambda server=server, queue=queue, first=first: scenario(server, queue, first))
        trials = memory_of(server).store.trials(1)
        memory_of(server).close()
    assert found == [1, 2, 3, 4, 5, 6]
    assert [bool(t.offset.any()) for t in trials[:3]] == [False, True, True]  # a control, then two draws
    assert {t.outcome for t in trials} == {"success"}
    with pytest.raises(ValueError, match="give --sessions 1"):
        build_server("tiny", [f"{name}&explore=3"], tmp_path / "state", options())
    with pytest.raises(ValueError, match="only prior=residual explores"):
        build_server("tiny", [f"success:{tmp_path / 's.db'}?explore=3"], tmp_path / "state", options())


def critic(path: Path, keys: int, says: float) -> Path:
    """A progress critic's file that reads how far the hand is; at x = 0.7 it says `says`, success is from 0.9 on."""
    size = keys + 8
    weights = {
        "w1": np.zeros((1, size, 1)), "b1": np.zeros((1, 1)), "w2": np.ones((1, 1, 1)), "b2": np.zeros((1, 1)),
        "w3": np.full((1, 1, 1), 20.0), "b3": np.full((1, 1), np.log(says / (1 - says)) - 20 * np.tanh(np.tanh(0.7))),
    }  # fmt: skip
    weights["w1"][0, keys, 0] = 1.0
    ProgressCritic(weights, np.zeros(size), np.ones(size), 0.9, 0.0, 0.99, 0.5, 10, 5).save(path)
    return path


@pytest.mark.parametrize(("says", "stored"), [(0.95, True), (0.5, False)])
def test_an_episode_that_nobody_labelled_is_judged_by_the_critic_when_the_next_begins(
    says: float, stored: bool, tmp_path: Path
) -> None:
    file = critic(tmp_path / "critic.safetensors", 64, says)
    server, queue = build_server("tiny", [f"success:{tmp_path / 's.db'}"], tmp_path / "state", options(), critic=file)

    async def scenario() -> None:
        size, cameras = server.state.policy.spec.image_size, server.state.policy.spec.cameras
        body: dict[str, Any] = {camera: np.full((size, size, 3), 90, np.uint8) for camera in cameras}
        body["instruction"] = "touch the red cube"
        async with server.running() as port, client(port) as c:
            await c.ask("hello", session="arm")
            for episode in (1, 2):
                await c.ask("episode_start", episode=episode)
                for step in range(17):
                    x = 0.7 * step / 16
                    body["proprioception"] = np.array([x, 0, 0.3, 0, 1, 0, 0, 0.04], np.float32)
                    await c.ask("observe", body, episode=episode, step=step, plan=step % 8 == 0, executed=[0.1] * 7)
                await c.ask("episode_end", episode=episode)
            refused = await c.ask("label", label="x", episode=1, outcome="unlabelled")
            assert refused["vlamem"]["code"] == "label"
            while queue.stored < 1:
                await asyncio.sleep(0.01)
            assert queue.drain(LONG_S)
            assert queue.stored == 1  # the second may still be labelled

    run(scenario)
    queue.close()
    source = find_policy("tiny")
    assert bool(len(open_success(tmp_path / "s.db", load_policy(source), source.sha256).memory)) == stored


def test_a_critic_of_another_policy_or_without_a_memory_is_refused(tmp_path: Path) -> None:
    other = critic(tmp_path / "other.safetensors", 10, 0.5)
    with pytest.raises(ValueError, match="train one for this policy"):
        build_server("tiny", [f"success:{tmp_path / 's.db'}"], tmp_path / "state", options(), critic=other)
    with pytest.raises(ValueError, match="give --memory success:FILE"):
        build_server("tiny", ["none"], tmp_path / "state", options(), critic=other)


def test_a_server_without_files_for_labels_says_what_is_missing_and_one_without_memory_serves(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give --state"):
        build_server("tiny", [f"success:{tmp_path / 's.db'}"], None, options())
    server, queue = build_server("tiny", ["none"], None, options())
    assert queue is None

    async def scenario() -> None:
        async with server.running() as port, client(port) as c:
            assert c.metadata["vlamem"]["serves"] == {"policy": "tiny", "aura": "none", "success": "none"}
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            assert (await c.ask("label", label="a", episode=1, outcome="success"))["vlamem"]["code"] == "label"

    run(scenario)


def test_two_success_memories_are_refused_before_one_of_them_would_stay_empty(tmp_path: Path) -> None:
    two = [f"success:{tmp_path / name}" for name in ("a.db", "b.db")]
    with pytest.raises(ValueError, match="2 success memories are given: a server commits to one"):
        build_server("tiny", two, tmp_path / "state", options())


def test_sessions_of_a_server_belong_to_the_weights_of_all_its_memories(tmp_path: Path) -> None:
    _, _, alone = load_memory_policy("tiny", ["aura"], 1)
    _, stored, both = load_memory_policy("tiny", ["aura", f"success:{tmp_path / 's.db'}"], 1)
    assert stored is not None
    assert (both.memory, both.layout) == (alone.memory, alone.layout)
    _, _, controls = load_memory_policy("tiny", ["aura?gate=always", "aura?gate=never"], 1)
    assert controls.memory == f"{alone.memory}+{alone.memory}"
    assert controls.layout != alone.layout
    _, _, bare = load_memory_policy("tiny", ["none"], 1)
    assert bare.memory == "none"
    stored.memory.close()


def test_a_server_takes_over_what_others_store_and_goes_on_when_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlamem.deploy.server.policy_server._SWEEP_S", 0.01)
    calls: list[str] = []

    def follow() -> None:
        calls.append("called")
        raise OSError("busy")

    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            server.follow = follow
            while len(calls) < 3:
                await asyncio.sleep(0.01)
            await c.ask("episode_start", episode=1)
            assert (await c.observe(1, 0))["vlamem"]["type"] == "chunk"

    run(scenario)
