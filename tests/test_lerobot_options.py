"""policies/lerobot: cameras, sizes, states and actions that a checkpoint is given by options."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

import torch
from lerobot_cases import (
    STATE,
    build,
    lerobots_own,
    loaded,
    observation,
    raw_batch,
    state_and_sentences,
    wide_noise,
)

import vlamem
from vlamem.core.observation import Observation
from vlamem.core.spec import BI_SO101, OSC_POSE, SO101
from vlamem.deploy.robot.robot_file import SHIPPED as SHIPPED_ROBOTS
from vlamem.deploy.robot.robot_file import load_robot_file
from vlamem.deploy.server.observations import ObservationError, ObservationReader
from vlamem.memory.success import EntryError, OriginError
from vlamem.memory.success.runner import layout_of
from vlamem.policies.lerobot import CheckpointError, LeRobotPolicy
from vlamem.policies.registry import find_policy, load_policy

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations


def test_the_registry_and_the_options_lead_to_the_same_checkpoint(folders: dict[str, Path]) -> None:
    name = f"{folders['act']}?actions=osc_pose&hz=20&camera.agentview=front"
    source = find_policy(name)
    assert source.sha256 is not None
    policy = load_policy(source)
    assert (policy.spec.action, policy.spec.control_hz) == (OSC_POSE, 20.0)
    assert policy.spec.cameras == ("front", "wrist")
    obs = observation()
    renamed = Observation({"front": obs.images["agentview"], "wrist": obs.images["wrist"]}, *state_and_sentences(obs))
    plain = loaded(folders["act"], "act")
    noise = wide_noise(plain)
    np.testing.assert_array_equal(policy.sample(policy.encode(renamed), noise), plain.sample(plain.encode(obs), noise))


def test_one_camera_is_given_to_every_key_that_is_to_read_it(folders: dict[str, Path]) -> None:
    policy = loaded(folders["smolvla"], "smolvla", "?camera.wrist=agentview")
    obs = observation()
    noise, picture = wide_noise(policy), obs.images["agentview"]
    own, pre, post = lerobots_own(folders["smolvla"])
    both = Observation({"agentview": picture, "wrist": picture}, *state_and_sentences(obs))
    expected = post(own.predict_action_chunk(pre(raw_batch(both)), noise=torch.from_numpy(noise))).numpy()
    only = Observation({"agentview": picture}, *state_and_sentences(obs))
    np.testing.assert_array_equal(policy.sample(policy.encode(only), noise), expected)
    assert policy.spec.cameras == ("agentview",)


@pytest.mark.parametrize("family", ["smolvla", "pi0", "pi05"])
def test_a_camera_that_is_left_out_is_lerobots_own_chunk_without_it(family: str, folders: dict[str, Path]) -> None:
    policy, obs = loaded(folders[family], family, "?camera.wrist=none"), observation()
    assert policy.spec.cameras == ("agentview",)
    own, pre, post = lerobots_own(folders[family])
    noise, batch = wide_noise(policy), raw_batch(obs)
    del batch["observation.images.wrist"]
    expected = post(own.predict_action_chunk(pre(batch), noise=torch.from_numpy(noise))).numpy()
    only = Observation({"agentview": obs.images["agentview"]}, *state_and_sentences(obs))
    np.testing.assert_array_equal(policy.sample(policy.encode(only), noise), expected)
    np.testing.assert_array_equal(policy.sample(policy.encode(obs), noise), expected)
    assert policy.encode(only).z.shape == (3, policy.spec.feature_size)


OBLONG = {"agentview": (48, 64), "wrist": (64, 80)}


@pytest.mark.parametrize("family", ["act", "smolvla"])
def test_each_camera_is_served_at_the_height_and_width_that_it_was_trained_on(family: str, tmp_path: Path) -> None:
    folder = build(family, tmp_path / family, sizes=OBLONG)
    policy, obs = loaded(folder, family), observation(1, sizes=OBLONG)
    assert [policy.spec.size_of(camera) for camera in policy.spec.cameras] == [(48, 64), (64, 80)]
    message = {name: image[0] for name, image in obs.images.items()}
    message |= {"state": obs.proprioception[0], "task": obs.instruction[0]}
    read = ObservationReader(policy.spec).read(message)
    own, pre, post = lerobots_own(folder)
    noise = wide_noise(policy, 1)
    given = {} if family == "act" else {"noise": torch.from_numpy(noise)}
    expected = post(own.predict_action_chunk(pre(raw_batch(obs)), **given)).numpy()
    np.testing.assert_array_equal(policy.sample(policy.encode(read), noise), expected)
    with pytest.raises(ObservationError, match=r"'agentview' is uint8 \[64, 64, 3\], expected uint8 \[48, 64, 3\]"):
        ObservationReader(policy.spec).read(message | {"agentview": np.zeros((64, 64, 3), np.uint8)})


def test_wrap_takes_a_batch_of_lerobots_as_it_comes(folders: dict[str, Path]) -> None:
    policy, obs = loaded(folders["act"], "act"), observation()
    wrapped, noise = vlamem.wrap(policy, rows=3), wide_noise(policy)
    np.testing.assert_array_equal(
        wrapped.plan(wrapped.observe(raw_batch(obs)), noise), policy.sample(policy.encode(obs), noise)
    )


def test_sizes_of_pictures_are_part_of_a_fingerprint_only_where_they_are_no_squares(tmp_path: Path) -> None:
    square = loaded(build("act", tmp_path / "square"), "act").spec
    assert square.image_sizes == ()
    body = asdict(square)
    del body["image_sizes"], body["state"], body["reads_instruction"]  # as a spec was before it had them
    body["context_size"] = 0  # nor could a context enter a policy that reads no instruction
    assert square.fingerprint == hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    oblong = loaded(build("act", tmp_path / "oblong", sizes=OBLONG), "act").spec
    assert replace(oblong, image_sizes=()).fingerprint != oblong.fingerprint


def test_what_a_state_of_eight_numbers_means_is_declared_and_not_guessed(folders: dict[str, Path]) -> None:
    bare, pose = (loaded(folders["act"], "act", f"?actions=osc_pose{more}").spec for more in ("", "&state=pose"))
    assert bare.fingerprint == pose.fingerprint
    assert layout_of(bare).quaternion is None
    assert layout_of(bare).proprioception_scale == (0.1,) * STATE
    assert layout_of(pose).quaternion == 3
    joints = np.float32([0.1, -0.4, 0.2, -1.9, 0.1, 1.5, 0.7, 0.04])
    layout_of(bare).check_proprioception(joints)
    with pytest.raises(EntryError, match="which is no rotation"):
        layout_of(pose).check_proprioception(joints)


class Bus:
    """In place of the servos' bus, whose package is not installed: the motors that an arm names."""

    def __init__(self, port: str, motors: dict[str, object], **more: object) -> None:
        self.motors = motors


def test_two_arms_are_declared_by_name_and_their_robots_file_fits_lerobots_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.robots.bi_so_follower import BiSOFollower, BiSOFollowerConfig
    from lerobot.robots.so_follower import SOFollowerConfig, so_follower

    monkeypatch.setattr(so_follower, "FeetechMotorsBus", Bus)
    folder, shipped = build("act", tmp_path / "act", actions=12), load_robot_file("bi_so101")
    for declared in ("bi_so101", str(SHIPPED_ROBOTS / "bi_so101.toml")):
        spec = loaded(folder, "act", f"?actions={declared}&hz=30").spec
        assert spec.action == BI_SO101
        shipped.check_spec(json.loads(json.dumps(asdict(replace(spec, proprioception_size=12, cameras=("front",))))))
    pair = BiSOFollower(
        BiSOFollowerConfig(
            id="pair",
            calibration_dir=tmp_path,
            left_arm_config=SOFollowerConfig(port="/dev/null"),
            right_arm_config=SOFollowerConfig(port="/dev/null"),
        )
    )
    assert shipped.action_keys == tuple(pair.action_features)
    assert shipped.state_keys == tuple(pair.observation_features)
    measured = [key for part in shipped.parts for key in shipped.state_keys[part.measured or 0 :][: part.size]]
    assert measured == list(shipped.action_keys)


def test_joints_are_declared_by_name_or_by_the_robots_own_file(tmp_path: Path) -> None:
    folder = build("act", tmp_path / "act", actions=6)
    shipped = load_robot_file("so101")
    for declared in ("so101", str(SHIPPED_ROBOTS / "so101.toml")):
        spec = loaded(folder, "act", f"?actions={declared}&hz=30").spec
        assert spec.action == SO101
        served = json.loads(json.dumps(asdict(replace(spec, proprioception_size=6, cameras=("front", "wrist")))))
        shipped.check_spec(served)
    assert [part.kind for part in layout_of(spec).parts] == ["linear", "linear"]
    mine = tmp_path / "mine.toml"
    mine.write_text('[[part]]\nname = "arm"\nsize = 6\nmode = "absolut"\nunit = "1 rad"\nlow = -3\nhigh = 3\n')
    with pytest.raises(CheckpointError, match=r"part 1 of actions .*: mode is 'absolut', expected absolute or delta"):
        loaded(folder, "act", f"?actions={mine}")
    mine.write_text(mine.read_text().replace("absolut", "absolute"))
    component = loaded(folder, "act", f"?actions={mine}").spec.action.components[0]
    assert (component.form, component.frame, component.low) == ("joint", "none", -3.0)
    with pytest.raises(CheckpointError, match=r"gives 6 action entries, these actions have 7"):
        loaded(folder, "act", "?actions=osc_pose")


def test_checkpoints_behind_a_factory_are_told_apart_by_their_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    def made(folder: Path) -> LeRobotPolicy:
        return loaded(folder, "act", "?actions=osc_pose")

    first, second = made(folders["act"]), made(build("act", tmp_path / "second", seed=1))
    assert first.spec.fingerprint == second.spec.fingerprint
    vlamem.wrap(first, memory=f"success:{tmp_path / 'memory.db'}").memories[0].close()
    with pytest.raises(OriginError, match="weights is"):
        vlamem.wrap(second, memory=f"success:{tmp_path / 'memory.db'}")
    by_folder = vlamem.wrap(f"{folders['act']}?actions=osc_pose", memory=f"success:{tmp_path / 'memory.db'}")
    by_folder.memories[0].close()
