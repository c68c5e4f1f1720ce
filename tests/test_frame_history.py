"""A policy that reads several observations: those of each row's own episode, in a loop and behind a server."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import point_mass
import pytest
from deploy_cases import client, options, run, serving
from memory_cases import Recalling

from vlamem.core.observation import Encoding, Observation
from vlamem.deploy.wire import pack, unpack
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.memory_policy import MemoryPolicy

THREE = replace(point_mass.SPEC, proprioception_size=1)
NOISE = np.zeros((1, THREE.horizon, THREE.action.size), np.float32)


class ReadsThree:
    """A policy whose actions 0, 1 and 2 are the states of the last three control steps, over 100; 3 to 5 the pictures'.

    Raises what a policy might for a state of 13.
    """

    spec, history, lowest_start = THREE, 3, 0.2

    def encode(self, obs: Observation) -> Encoding:
        assert obs.proprioception.shape[1:] == (3, 1)
        assert obs.images["top"].shape[1] == 3
        if (obs.proprioception[:, -1] == 13).any():
            raise RuntimeError("unlucky")
        seen = np.concatenate([obs.proprioception[:, :, 0], obs.images["top"][:, :, 0, 0, 0]], 1) / 100
        return Encoding(seen[:, 1:3].astype(np.float32), seen[:, 1:3].astype(np.float32), seen)

    def sample(self, encoding: Encoding, noise: Any, proposal: Any = None) -> Any:
        chunk = np.zeros_like(noise)
        chunk[..., :6] = encoding.context[:, None]
        return chunk

    def context_of(self, instruction: list[str]) -> Any:
        return np.zeros((len(instruction), 2), np.float32)


def frame(*states: float) -> Observation:
    """One observation a row; its picture is as bright as its state is large."""
    size = point_mass.SIZE
    pictures = np.stack([np.full((size, size, 3), state, np.uint8) for state in states])
    return Observation({"top": pictures}, np.float32([[state] for state in states]), ("go",) * len(states))


def message(state: float) -> dict[str, Any]:
    seen = frame(state)
    return {"top": seen.images["top"][0], "proprioception": seen.proprioception[0], "instruction": "go"}


def read(chunk: Any) -> list[int]:
    """The states that a chunk was planned from; its pictures are of the same control steps."""
    states = np.round(100 * np.asarray(chunk)[0, :6]).astype(int).tolist()
    assert states[:3] == states[3:]
    return states[:3]


def test_a_loop_plans_from_the_observations_of_its_control_steps_and_reset_forgets_them() -> None:
    policy = MemoryPolicy(ReadsThree())
    planned = [read(policy.plan(policy.observe(frame(state)), NOISE)[0]) for state in (1, 2, 3, 4)]
    assert planned == [[1, 1, 1], [1, 1, 2], [1, 2, 3], [2, 3, 4]]
    policy.reset()
    assert read(policy.plan(policy.observe(frame(5)), NOISE)[0]) == [5, 5, 5]


def test_a_picture_that_is_overwritten_after_its_control_step_is_kept_as_it_was() -> None:
    policy, seen = MemoryPolicy(ReadsThree()), frame(1)
    policy.observe(seen)
    seen.images["top"][:] = 9
    seen.proprioception[:] = 9
    assert read(policy.plan(policy.observe(frame(2)), NOISE)[0]) == [1, 1, 2]


def test_rows_have_histories_of_their_own_and_one_is_reset_alone() -> None:
    policy, noise = MemoryPolicy(ReadsThree(), rows=2), np.repeat(NOISE, 2, 0)
    policy.observe(frame(1, 11))
    policy.observe(frame(12), np.array([1]))
    policy.reset(np.array([True, False]))
    chunks = policy.plan(policy.observe(frame(2, 14)), noise)
    assert [read(chunk) for chunk in chunks] == [[2, 2, 2], [11, 12, 14]]


def test_who_keeps_the_observations_himself_gives_all_of_them() -> None:
    policy = MemoryPolicy(ReadsThree())
    policy.observe(frame(1))
    parts = [frame(state) for state in (7, 8, 9)]
    whole = Observation(
        {"top": np.stack([p.images["top"] for p in parts], 1)}, np.stack([p.proprioception for p in parts], 1), ("go",)
    )
    assert read(policy.plan(policy.observe(whole), NOISE)[0]) == [7, 8, 9]
    assert read(policy.plan(policy.observe(frame(10)), NOISE)[0]) == [8, 9, 10]
    two = Observation({"top": whole.images["top"][:, 1:]}, whole.proprioception[:, 1:], ("go",))
    with pytest.raises(ValueError, match="2 observations a row, the policy reads 3"):
        policy.observe(two)


def test_a_memory_is_asked_about_the_present_observation_alone() -> None:
    asked: list[tuple[int, ...]] = []

    class Asked(Recalling):
        def propose(self, out: Any, observation: Observation, encoding: Any, lowest_start: float) -> Any:
            asked.append(observation.proprioception.shape)
            return super().propose(out, observation, encoding, lowest_start)

    policy = MemoryPolicy(ReadsThree(), [Asked(THREE, 0.0, 0.0)])
    policy.plan(policy.observe(frame(1)), NOISE)
    assert asked == [(1, 1)]


def test_a_control_step_is_taken_back_with_what_it_left() -> None:
    policy = MemoryPolicy(ReadsThree())
    policy.observe(frame(1))
    before = policy.moment(0)
    policy.observe(frame(2))
    policy.return_to(0, before)
    assert read(policy.plan(policy.observe(frame(3)), NOISE)[0]) == [1, 1, 3]


def test_a_plan_from_a_bare_observation_is_refused() -> None:
    runner = ChunkRunner(ReadsThree(), 1, 4)
    runner.reset(np.array([True]), [np.random.default_rng(0)])
    with pytest.raises(ValueError, match="reads 3 observations at once: give 'observe' every control step"):
        runner.plan(np.array([0]), frame(1))
    runner.observe(frame(1))
    assert read(runner.plan(np.array([0]), runner.observe(frame(2))).chunks[0]) == [1, 1, 2]


def test_a_server_plans_from_every_frame_of_the_session_and_says_so_at_the_start() -> None:
    async def scenario() -> None:
        policy = MemoryPolicy(ReadsThree(), rows=4)
        async with serving(policy, options()) as server, client(server.port) as a, client(server.port) as b:
            assert (a.metadata["vlamem"]["history"], a.metadata["vlamem"]["frames"]) == (3, "every control step")
            for c, name in ((a, "a"), (b, "b")):
                await c.ask("hello", session=name)
                await c.ask("episode_start", episode=1)
            for step in range(3):
                await a.ask("observe", message(step), episode=1, step=step, plan=False)
                await b.ask("observe", message(20 + step), episode=1, step=step, plan=False)
            reply = await a.ask("observe", message(3), episode=1, step=3, plan=True)
            assert read(reply["actions"]) == [1, 2, 3]
            again = await a.ask("observe", message(3), episode=1, step=3, plan=True)  # a step that is sent again
            assert again["vlamem"]["duplicate"]
            assert read((await a.ask("observe", message(4), episode=1, step=4, plan=True))["actions"]) == [2, 3, 4]
            assert read((await b.ask("observe", message(23), episode=1, step=3, plan=True))["actions"]) == [21, 22, 23]
            await a.ask("episode_start", episode=2)
            assert read((await a.ask("observe", message(5), episode=2, step=0, plan=True))["actions"]) == [5, 5, 5]

    run(scenario)


def test_a_frame_that_the_policy_fails_on_is_no_part_of_the_history() -> None:
    async def scenario() -> None:
        async with serving(MemoryPolicy(ReadsThree(), rows=4), options()) as server, client(server.port) as c:
            await c.ask("hello", session="a")
            await c.ask("episode_start", episode=1)
            await c.ask("observe", message(1), episode=1, step=0, plan=True)
            failed = await c.ask("observe", message(13), episode=1, step=1, plan=True)
            assert failed["vlamem"]["code"] == "internal"
            reply = await c.ask("observe", message(2), episode=1, step=1, plan=True)
            assert read(reply["actions"]) == [1, 1, 2]

    run(scenario)


def test_a_client_that_leaves_steps_out_is_told_and_an_older_frame_stands_for_no_newer_one() -> None:
    async def scenario() -> None:
        async with serving(MemoryPolicy(ReadsThree(), rows=4), options()) as server, client(server.port) as c:
            await c.ask("hello", session="a")
            await c.ask("episode_start", episode=1)
            first = await c.ask("observe", message(0), episode=1, step=0, plan=True)
            assert "skipped" not in first["vlamem"]
            reply = await c.ask("observe", message(8), episode=1, step=8, plan=True)
            assert reply["vlamem"]["skipped"] == 7
            assert read(reply["actions"]) == [8, 8, 8]

    run(scenario)


def test_an_openpi_client_that_sends_every_step_is_planned_for_from_all_and_the_log_says_that_it_must(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with serving(MemoryPolicy(ReadsThree(), rows=4), options()) as server, client(server.port) as c:
            planned = []
            for state in (1, 2, 3, 4):
                await c.ws.send(pack(message(state)))
                planned.append(read(unpack(await c.ws.recv())["actions"]))
            assert planned == [[1, 1, 1], [1, 1, 2], [1, 2, 3], [2, 3, 4]]

    with caplog.at_level(logging.WARNING, "vlamem.serve"):
        run(scenario)
    assert len([r for r in caplog.records if "reads 3 observations at once" in r.getMessage()]) == 1
