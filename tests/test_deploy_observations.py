"""deploy/server: observations and actions that a client sends, and the images in them."""

import io
import re
import threading
from typing import Any

import numpy as np
import pytest
from deploy_cases import client, observation, run, serving
from PIL import Image, ImageFile
from websockets.asyncio.client import connect

from vlamem.deploy.wire import pack, unpack


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"front": np.zeros((9, 8, 3), np.uint8)}, r"uint8 \[9, 8, 3\], expected uint8 \[8, 8, 3\]"),
        ({"front": np.zeros((8, 8, 3), np.float32)}, "float32"),
        ({"front": "picture"}, "is str"),
        ({"proprioception": np.full(8, np.nan, np.float32)}, "not finite"),
        ({"proprioception": np.zeros(7, np.float32)}, r"\[7\], expected \[8\]"),
        ({"proprioception": {"x": 1}}, "expected 8 numbers"),
        ({"instruction": ""}, "the instruction is ''"),
        ({"instruction": 3}, "the instruction is '3'"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused_by_name_and_the_session_goes_on(
    changed: Any, expected: str
) -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("episode_start", episode=1)
            bad = await c.ask("observe", observation() | changed, episode=1, step=0, plan=True)
            assert bad["vlamem"]["code"] == "observation"
            assert len(bad["vlamem"]["id"]) == 12
            assert re.search(expected, bad["vlamem"]["message"]), bad
            assert await c.memory(1, 0) == 0

    run(scenario)


def test_what_the_robot_executed_must_be_an_action() -> None:
    async def scenario() -> None:
        async with serving() as server, client(server.port) as c:
            await c.ask("episode_start", episode=1)
            reply = await c.ask("observe", observation(), episode=1, step=0, plan=True, executed=[1.0, 2.0])
            assert reply["vlamem"]["code"] == "observation"

    run(scenario)


def encoded(size: int, form: str = "png") -> dict[str, Any]:
    """A grey image as vla-eval's harness sends it."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (128, 128, 128)).save(file, form)
    return {"__image__": True, "format": form, "data": file.getvalue(), "shape": [size, size, 3]}


async def vla_eval_message(port: int, images: dict[str, Any]) -> dict[str, Any]:
    payload = {"images": images, "states": np.zeros(8, np.float32), "task_description": "touch it"}
    async with connect(f"ws://127.0.0.1:{port}/vla-eval", compression=None, proxy=None) as ws:
        await ws.send(pack({"type": "observation", "payload": payload, "seq": 1, "timestamp": 0.0}))
        return unpack(await ws.recv())


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_of_the_images_of_a_vla_eval_client_those_of_the_policy_are_decoded_beside_the_loop_and_no_others(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[tuple[int, int], bool]] = []
    load = ImageFile.ImageFile.load

    def loaded(image: Any) -> Any:
        decoded.append((image.size, threading.current_thread() is threading.main_thread()))
        return load(image)

    async def scenario() -> None:
        async with serving() as server:
            bombs = {f"other{i}": encoded(64, form) for i in range(20)}
            right, bomb = encoded(8, form), encoded(512, form)
            with monkeypatch.context() as patch:
                patch.setattr(ImageFile.ImageFile, "load", loaded)
                reply = await vla_eval_message(server.port, bombs | {"front": right})
                assert reply["type"] == "action", reply
                reply = await vla_eval_message(server.port, {"front": bomb})
                assert "512 pixels high and 512 wide, expected 8 high and 8 wide" in reply["payload"]["error"]

    run(scenario)
    assert set(decoded) == {((8, 8), False)}


def test_an_image_too_large_to_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with serving() as server:
            for most in (10, 40):  # an error beyond twice of it, a warning beyond once
                monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
                reply = await vla_eval_message(server.port, {"front": bomb})
                assert "(message): a damaged png image" in reply["payload"]["error"]

    bomb = encoded(8)
    run(scenario)
