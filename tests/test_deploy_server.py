"""deploy/server: protocols, sessions and their memory, labels, and what is there after a restart."""

import asyncio
import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_cases import FOUR, LONG_S, Summing, client, ended, observation, options, run, serving, store_in
from websockets.asyncio.client import connect

from vlamem.core.observation import Encoding
from vlamem.deploy.server.labels import LabelQueue
from vlamem.deploy.server.options import ServeOptions
from vlamem.deploy.server.sessions import SessionLimits
from vlamem.deploy.wire import pack, unpack


def test_an_openpi_client_gets_metadata_then_a_chunk_for_each_observation() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            assert c.metadata["vlamem"]["spec"]["name"] == "summing"
            await c.ws.send(pack(observation(write=True, value=7.0)))
            reply = unpack(await c.ws.recv())
            assert reply["actions"].shape == (4, 7)
            assert reply["actions"][0, 0] == np.float32(0.07)
            assert reply["policy_timing"]["infer_ms"] > 0
            assert reply["server_timing"]["infer_ms"] > 0
            await c.ws.send(pack(observation()))
            assert unpack(await c.ws.recv())["server_timing"]["prev_total_ms"] > 0

    run(scenario)


def test_reset_of_an_openpi_client_empties_its_memory() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ws.send(pack(observation(write=True, value=7.0)))
            await c.ws.recv()
            await c.ws.send(pack({"reset": True}))
            assert unpack(await c.ws.recv()) == {"reset_finished": True}
            await c.ws.send(pack(observation()))
            assert unpack(await c.ws.recv())["actions"][0, 0] == 0

    run(scenario)


def test_memory_sees_ticks_between_plans_and_is_empty_in_the_next_episode() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            reply = await c.observe(1, 0, write=True, value=5.0, plan=False)
            assert reply["vlamem"]["type"] == "tick"
            assert reply["vlamem"]["wrote"] is True
            assert "actions" not in reply
            assert await c.memory(1, 1) == 5
            await c.ask("episode_start", episode=2)
            assert await c.memory(2, 0) == 0

    run(scenario)


def test_no_session_sees_the_memory_of_another_and_a_row_is_clean_for_its_next_holder() -> None:
    async def scenario() -> None:
        async with serving(options=options(sessions=SessionLimits(count=2))) as server:
            for value in range(1, 6):  # more sessions than rows, one after the other
                async with client(server.port) as a, client(server.port) as b:
                    for c, own in ((a, value), (b, 10 * value)):
                        await c.ask("episode_start", episode=1)
                        assert await c.memory(1, 0) == 0
                        await c.observe(1, 1, write=True, value=own)
                    assert (await a.memory(1, 2), await b.memory(1, 2)) == (value, 10 * value)
                    await a.ask("bye")
                await asyncio.sleep(0)
                while len(server.state.table):
                    await asyncio.sleep(0.01)

    run(scenario)


def test_a_step_that_comes_again_or_late_is_not_seen_twice() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            first = await c.observe(1, 3, write=True, value=5.0)
            again = await c.observe(1, 3, write=True, value=5.0)
            assert again["vlamem"]["duplicate"] is True
            np.testing.assert_array_equal(again["actions"], first["actions"])
            late = await c.observe(1, 2, write=True, value=5.0)
            assert late["vlamem"]["duplicate"] is True
            assert "actions" not in late
            assert (await c.ask("episode_start", episode=1))["vlamem"]["fresh"] is False
            assert await c.memory(1, 4) == 5

    run(scenario)


def test_what_belongs_to_another_episode_is_refused() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            assert (await c.observe(1, 0))["vlamem"]["code"] == "episode"
            await c.ask("episode_start", episode=2)
            assert (await c.observe(1, 0))["vlamem"]["code"] == "episode"
            assert (await c.ask("episode_start", episode=1))["vlamem"]["code"] == "order"
            assert await c.memory(2, 0) == 0

    run(scenario)


def test_a_session_is_resumed_by_its_token_alone() -> None:
    async def scenario() -> None:
        async with serving() as server:
            async with client(server.port) as c:
                token = (await c.ask("hello", session="arm"))["vlamem"]["token"]
                await c.ask("episode_start", episode=1)
                await c.observe(1, 0, write=True, value=5.0)
            async with client(server.port) as thief:
                assert (await thief.ask("hello", session="arm"))["vlamem"]["code"] == "taken"
                assert (await thief.ask("hello", session="arm", token="guess"))["vlamem"]["code"] == "taken"
            async with client(server.port) as c:
                back = (await c.ask("hello", session="arm", token=token))["vlamem"]
                assert (back["restored"], back["episode"], back["step"]) == (True, 1, 0)
                assert await c.memory(1, 1) == 5

    run(scenario)


def test_a_session_that_is_resumed_elsewhere_is_lost_to_the_old_connection() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as old, client(server.port) as new:
            token = (await old.ask("hello", session="arm"))["vlamem"]["token"]
            await old.ask("episode_start", episode=1)
            await new.ask("hello", session="arm", token=token)
            await new.observe(1, 0, write=True, value=5.0)
            refused = await ended(lambda: old.observe(1, 1, write=True, value=9.0))
            assert all(reply["vlamem"]["code"] == "taken" for reply in refused)
            assert await new.memory(1, 1) == 5

    run(scenario)


def test_a_policy_that_fails_on_one_row_fails_for_that_row_alone() -> None:
    async def scenario() -> None:
        policy = Summing()
        slow = ServeOptions(port=0, sessions=FOUR, wait_s=LONG_S)
        async with serving(policy, slow) as server, client(server.port) as good, client(server.port) as bad:
            for c in (good, bad):
                await c.ask("episode_start", episode=1)
            policy.batches.clear()
            unlucky = observation(write=True, value=3.0)
            unlucky["proprioception"][7] = 13
            answers = await asyncio.gather(
                good.observe(1, 0, write=True, value=5.0), bad.ask("observe", unlucky, episode=1, step=0, plan=True)
            )
            assert policy.batches == [2, 1, 1]
            assert answers[0]["actions"][0, 0] == np.float32(0.05)
            assert answers[1]["vlamem"]["code"] == "internal"
            assert "unlucky" not in answers[1]["vlamem"]["message"]
            _, left = await asyncio.gather(good.observe(1, 1), bad.memory(1, 0))
            assert left == 0  # the failed frame wrote nothing

    run(scenario)


def test_rows_of_several_sessions_share_a_pass() -> None:
    async def scenario() -> None:
        policy = Summing()
        slow = ServeOptions(port=0, sessions=FOUR, wait_s=LONG_S)
        async with serving(policy, slow) as server, client(server.port) as a, client(server.port) as b:
            for c in (a, b):
                await c.ask("episode_start", episode=1)
            policy.batches.clear()
            await asyncio.gather(a.observe(1, 0), b.observe(1, 0))
            assert policy.batches == [2]

    run(scenario)


def test_a_label_is_on_disk_before_it_is_acknowledged_and_counts_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        done: list[str] = []
        queue = LabelQueue(tmp_path / "labels.jsonl", lambda label: done.append(label.outcome) or "done")
        async with serving(labels=queue, store=store_in(tmp_path / "s")) as server, client(server.port) as c:
            await c.ask("hello", session="arm")
            await c.ask("episode_start", episode=1)
            for _ in range(2):
                reply = await c.ask("label", label="a1", episode=1, outcome="success")
                assert reply["vlamem"]["type"] == "labelled"
            assert "a1" in (tmp_path / "labels.jsonl").read_text()
            assert (await c.ask("label", label="a2", episode=2, outcome="success"))["vlamem"]["code"] == "episode"
            assert (await c.ask("label", label="a3", episode=1, outcome="maybe"))["vlamem"]["code"] == "label"
            await c.ask("episode_end", episode=1)
            queue.drain(LONG_S)
        queue.close()
        assert done == ["success"]

    run(scenario)


def test_after_a_restart_the_episode_goes_on_with_the_memory_it_had(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            token = (await c.ask("hello", session="arm"))["vlamem"]["token"]
            await c.ask("episode_start", episode=1)
            await c.observe(1, 0, write=True, value=5.0)
            await c.observe(1, 1)
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            assert (await c.ask("hello", session="arm"))["vlamem"]["code"] == "taken"
            back = (await c.ask("hello", session="arm", token=token))["vlamem"]
            assert (back["restored"], back["episode"], back["step"]) == (True, 1, 0)
            assert await c.memory(1, 2) == 5
            await c.ask("episode_start", episode=2)
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            await c.ask("hello", session="arm", token=token)
            assert await c.memory(2, 0) == 0  # nothing was written in episode 2

    run(scenario)


def disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_sessions_that_cannot_be_stored_take_no_rows_and_leave_no_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(store=store_in(tmp_path)) as server:
            with monkeypatch.context() as patch:
                patch.setattr("os.fsync", disk_full)
                for name in ("a", "b", "c", "d"):
                    async with client(server.port) as c:
                        assert (await c.ask("hello", session=name))["vlamem"]["code"] == "disk"
            assert len(server.state.table) == 0
            async with client(server.port) as c:
                assert (await c.ask("hello", session="a"))["vlamem"]["type"] == "session"

    run(scenario)


def test_sessions_that_cannot_be_restored_take_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            token = (await c.ask("hello", session="arm"))["vlamem"]["token"]
        policy = Summing()
        async with serving(policy, store=store_in(tmp_path)) as server, client(server.port) as c:
            with monkeypatch.context() as patch:
                patch.setattr(policy, "restore", disk_full)
                assert (await c.ask("hello", session="arm", token=token))["vlamem"]["code"] == "disk"
            assert len(server.state.table) == 0
            assert (await c.ask("hello", session="arm", token=token))["vlamem"]["restored"] is True

    run(scenario)


def test_an_episode_that_cannot_be_stored_does_not_begin_and_the_one_before_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            token = (await c.ask("hello", session="arm"))["vlamem"]["token"]
            await c.ask("episode_start", episode=1)
            await c.observe(1, 0, write=True, value=5.0)
            with monkeypatch.context() as patch:
                patch.setattr("os.fsync", disk_full)
                assert (await c.ask("episode_start", episode=2))["vlamem"]["code"] == "disk"
            assert await c.memory(1, 1) == 5
            assert (await c.ask("episode_start", episode=2))["vlamem"]["fresh"] is True
            await c.observe(2, 0, write=True, value=3.0)
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            back = (await c.ask("hello", session="arm", token=token))["vlamem"]
            assert (back["episode"], back["step"]) == (2, 0)
            assert await c.memory(2, 1) == 3

    run(scenario)


def test_a_stored_session_of_another_policy_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(store=store_in(tmp_path)) as server, client(server.port) as c:
            token = (await c.ask("hello", session="arm"))["vlamem"]["token"]
        async with serving(store=store_in(tmp_path, memory="sum2")) as server, client(server.port) as c:
            reply = (await c.ask("hello", session="arm", token=token))["vlamem"]
            assert reply["code"] == "state"
            assert "memory 'sum1', this server has 'sum2'" in reply["message"]

    run(scenario)


class Unsteady(Summing):
    """Gives a chunk, a gate figure or a key that is not finite where proprioception[6] says which."""

    def observe(self, obs: Any, rows: Any = None) -> Any:
        tick = super().observe(obs, rows)
        kind = obs.proprioception[:, 6]
        out = tick.outs[0]._replace(gate=np.where(kind == 2, np.nan, tick.outs[0].gate))
        key = np.where(kind[:, None] == 3, np.inf, tick.encoding.key)
        return replace(tick, outs=(out,), encoding=Encoding(tick.encoding.z, key, kind))

    def plan(self, tick: Any, noise: Any) -> Any:
        chunk = super().plan(tick, noise)
        chunk[tick.encoding.context == 1, 2, 3] = np.nan
        return chunk


def unsteady(kind: int, **changed: Any) -> dict[str, Any]:
    full = observation(**changed)
    full["proprioception"][6] = kind
    return full


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_nothing_that_is_not_finite_leaves_a_server_and_the_memory_is_as_it_was(kind: int) -> None:
    async def scenario() -> None:
        async with serving(Unsteady()) as server, client(server.port) as arm, client(server.port) as openpi:
            await arm.ask("hello", session="arm")
            await arm.ask("episode_start", episode=1)
            await arm.ask("observe", unsteady(0, write=True, value=5.0), episode=1, step=0, plan=True)
            broken = unsteady(kind, write=True, value=5.0)
            reply = await arm.ask("observe", broken, episode=1, step=1, plan=True)
            assert (reply["vlamem"]["type"], reply["vlamem"]["code"]) == ("error", "nan")
            assert "actions" not in reply
            assert await arm.memory(1, 1) == 5
            await openpi.ws.send(pack(broken))
            said = await openpi.ws.recv()
            assert isinstance(said, str)
            assert "(nan)" in said
            await openpi.ws.send(pack(observation()))
            assert np.isfinite(unpack(await openpi.ws.recv())["actions"]).all()

    run(scenario)


def test_a_vla_eval_client_is_sent_an_error_in_place_of_what_is_not_finite() -> None:
    async def scenario() -> None:
        async with (
            serving(Unsteady()) as server,
            connect(f"ws://127.0.0.1:{server.port}/vla-eval", compression=None, proxy=None) as ws,
        ):
            for kind, expected in ((0, "action"), (1, "error"), (0, "action")):
                await ws.send(pack({"type": "episode_start", "payload": {}, "seq": 0, "timestamp": 0.0}))
                full = unsteady(kind)
                full["state"] = full.pop("proprioception")
                await ws.send(pack({"type": "observation", "payload": full, "seq": 1, "timestamp": 0.0}))
                assert unpack(await ws.recv())["type"] == expected

    run(scenario)
