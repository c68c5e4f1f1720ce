"""Programs of others, in environments of their own: openpi's client, vla-eval's, and a robot's own computer."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_cases import Hosted
from other_environment import ROOT, environment, run

OPENPI = """
import sys
import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

client = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key="secret")
print(client.get_server_metadata()["vlamem"]["spec"]["name"])

def observation(write, value=1.0):
    state = np.zeros(8, np.float32)
    state[:2] = write, value
    return {"observation/front": np.zeros((8, 8, 3), np.uint8), "observation/state": state, "prompt": "touch it"}

for write, value in ((1, 5.0), (0, 1.0), (1, 2.0)):
    reply = client.infer(observation(write, value))
    print(reply["actions"].shape, reply["actions"].dtype, round(100 * float(reply["actions"][0, 0])))
print(sorted(reply["server_timing"]), reply["policy_timing"]["infer_ms"] > 0)
try:
    client.infer({"prompt": "touch it"})
except RuntimeError as error:
    print("no 'front'" in str(error))
print(round(100 * float(client.infer(observation(0))["actions"][0, 0])))
"""

VLA_EVAL_CLIENT = """
import asyncio
import sys
import numpy as np
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.connection import Connection
from vla_eval.runners.sync_runner import SyncEpisodeRunner
from vla_eval.specs import DimSpec, IMAGE_RGB, LANGUAGE, POSITION_DELTA, ROTATION_AA, GRIPPER_CLOSE_POS, check_specs

class Remember(StepBenchmark):
    '''Shows a number in the first frame alone; every later action has to know it.'''

    def __init__(self):
        super().__init__()
        self.actions = []

    def get_tasks(self):
        return [{"name": "remember", "number": 5}, {"name": "remember", "number": 3}]

    def reset(self, task):
        self.now, self.task, self.actions = 0, task, []
        return None

    def step(self, action):
        self.actions.append(np.asarray(action["actions"]))
        self.now += 1
        return StepResult(None, 0.0, self.now == 10, {})

    def make_obs(self, raw, task):
        state = np.zeros(8, np.float32)
        if self.now in (0, 5):  # 5 is inside the second chunk: memory must see it all the same
            state[:2] = 1, task["number"]
        return {"images": {"front": np.zeros((8, 8, 3), np.uint8)}, "states": state, "task_description": "remember"}

    def check_done(self, step_result):
        return step_result.done

    def get_step_result(self, step_result):
        return {"success": True}

    def get_metadata(self):
        return {"max_steps": 10}

async def main():
    async with Connection(sys.argv[1]) as connection:
        info = connection.server_info
        specs = {name: DimSpec.from_dict(spec) for name, spec in info["action_spec"].items()}
        wanted = {"position": POSITION_DELTA, "rotation": ROTATION_AA, "gripper": GRIPPER_CLOSE_POS}
        print(check_specs(specs, wanted, {}, {}))
        bench = Remember()
        for task in bench.get_tasks():
            await SyncEpisodeRunner().run_episode(bench, task, connection, max_steps=10)
            print([round(100 * float(a[0])) for a in bench.actions], bench.actions[0].shape)
        try:
            await connection.act({"images": {}, "task_description": "x"})
        except RuntimeError as error:
            print("no 'front'" in str(error))

asyncio.run(main())
"""

ROBOT = """
import sys
import time
import numpy as np
import vlamem.deploy as deploy
from vlamem.deploy.robot.session import join
from vlamem.deploy.robot.realtime import prepare_process
from vlamem.deploy.robot.link import LinkOptions
from vlamem.deploy.robot.events import EventLog
from dataclasses import replace

class Arm:
    sent = 0
    def connect(self): pass
    def close(self): pass
    def observe(self):
        images = {"front": np.zeros((8, 8, 3), np.uint8)}
        return deploy.RobotObservation(images, np.zeros(8, np.float32), time.monotonic(), 0.0)
    def send(self, command):
        self.sent += 1

arm, file = Arm(), replace(deploy.load_robot_file("tabletop"), cameras=("front",))
link = deploy.Link(LinkOptions("ws://127.0.0.1:" + sys.argv[1], "light"), EventLog())
join(link, file)
prepare_process()
controller = deploy.Controller(arm, file, link)
controller.begin("touch it", 1)
controller.run(lambda now: arm.sent >= 20)
link.close()
heavy = {"jax", "torch", "flax", "scipy", "yaml", "tyro", "jaxtyping", "mujoco"} & set(sys.modules)
print(arm.sent, sorted(heavy))
"""


@pytest.fixture
def hosted(request: pytest.FixtureRequest) -> Iterator[Hosted]:
    host = Hosted(None, **getattr(request, "param", {}))
    host.start()
    yield host
    host.end()


@pytest.mark.parametrize("hosted", [{"api_key": "secret"}], indirect=True)
def test_the_published_openpi_client_drives_it_unchanged(hosted: Hosted) -> None:
    python = environment("openpi", "openpi-client==0.1.2", "typing-extensions>=4")
    assert run(python, OPENPI, str(hosted.port)).splitlines() == [
        "summing",
        "(4, 7) float32 5",
        "(4, 7) float32 5",
        "(4, 7) float32 7",
        "['infer_ms', 'prev_total_ms'] True",
        "True",
        "7",
    ]


@pytest.mark.parametrize("hosted", [{"execute": 4}], indirect=True)
def test_the_published_vla_eval_client_drives_it_and_memory_sees_frames_inside_chunks(hosted: Hosted) -> None:
    python = environment("vla-eval", "vla-eval==0.8.0")
    printed = run(python, VLA_EVAL_CLIENT, f"ws://127.0.0.1:{hosted.port}/vla-eval").splitlines()
    assert printed == ["[]", "[5, 5, 5, 5, 5, 5, 5, 5, 10, 10] (7,)", "[3, 3, 3, 3, 3, 3, 3, 3, 6, 6] (7,)", "True"]


def test_a_robots_computer_needs_numpy_msgpack_and_websockets_alone(hosted: Hosted, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "uv", "build", "-q", "--wheel", "--no-build-isolation", "-o", wheels, ROOT]
    subprocess.run(build, check=True, cwd=tmp_path)
    wheel = next(wheels.glob("*.whl"))
    python = environment("robot", "numpy>=2", "msgpack>=1.1", "websockets>=15", no_deps=(str(wheel),))
    assert run(python, ROBOT, str(hosted.port), folder=tmp_path) == "20 []\n"
    done = subprocess.run([python.with_name("vlamem"), "control", "--help"], capture_output=True, text=True)
    assert "--robot-file" in done.stdout, done.stderr
    listed = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "list", "--python", python], capture_output=True, text=True, check=True
    )
    assert {line.split()[0] for line in listed.stdout.splitlines()[2:]} == {"msgpack", "numpy", "vlamem", "websockets"}
