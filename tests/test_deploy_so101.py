"""`vlamem control --robot lerobot:so101_follower`, a policy in joint space: LeRobot's own arm, bus, calibration, ACT.

The servos and their SDK alone are simulated.
"""

import warnings
from pathlib import Path

import deploy_cases
import numpy as np
import pytest
from deploy_cases import Hosted

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("lerobot.robots")
import feetech_cases
import lerobot_cases
from lerobot.teleoperators.so_leader import SOLeader
from lerobot.teleoperators.utils import TeleopEvents
from record_cases import writing_here

import vlamem
from vlamem.deploy.robot.robot_file import SHIPPED
from vlamem.policies.lerobot.dataset import DatasetReader
from vlamem.scripts.control import main

COUNT = 360 / 4095
"""Degrees of a servo's count."""


def moved(servos: feetech_cases.Servos) -> bool:
    """Whether the arm was sent to some places one after the other."""
    return len({tuple(goal) for goal in servos.goals}) > 10


def test_an_episode_of_a_joint_space_policy_on_an_so101_is_driven_taken_over_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    writing_here(monkeypatch)
    leader = feetech_cases.Servos()
    servos = feetech_cases.installed(monkeypatch, {"/dev/leader": leader})
    for number in range(1, 7):
        leader.write(number, 56, list((2048 + 200).to_bytes(2, "little")))  # where the person holds it
    monkeypatch.setattr(  # a leader with a button, which the person presses when the policy has moved the arm
        SOLeader, "get_teleop_events", lambda self: {TeleopEvents.IS_INTERVENTION: moved(servos)}, raising=False
    )
    monkeypatch.setattr(lerobot_cases, "STATE", 6)
    checkpoint = lerobot_cases.build("act", tmp_path / "act", ("front", "wrist"), actions=6)
    policy = vlamem.wrap(f"{checkpoint}?actions=so101&hz=5", rows=4)
    monkeypatch.setattr(deploy_cases, "Summing", lambda: policy)
    host = Hosted(None)
    host.start()
    # a chunk of 8 steps lasts: a busy machine may take long to plan it
    slow = (SHIPPED / "so101.toml").read_text().replace("policy_hz = 30", "policy_hz = 5")
    (tmp_path / "slow.toml").write_text(slow)
    given = {
        "robot": "lerobot:so101_follower", "robot-config": feetech_cases.settings(tmp_path),
        "robot-file": tmp_path / "slow.toml",
        "server": f"ws://127.0.0.1:{host.port}", "instruction": "pick it up", "seconds": 8, "realtime-priority": 0,
        "watchdog": "thread", "record": tmp_path / "data",
        "teleop": "lerobot:so101_leader", "teleop-config": feetech_cases.leader_settings(tmp_path),
    }  # fmt: skip
    try:
        assert main([word for name, value in given.items() for word in (f"--{name}", str(value))]) == 0
    finally:
        host.end()
    reader = DatasetReader(tmp_path / "data")
    reader.check(policy.policy)  # as whoever learns from it does
    (episode,) = reader
    assert (reader.fps, reader.cameras, episode.success) == (5, ("front", "wrist"), None)
    assert len(episode.actions) > 3
    assert np.ptp(episode.actions[:, :5]) > 0.5  # it moved, by degrees
    goals = np.array(servos.goals)
    wanted = episode.actions[:, :5] / COUNT + 2047.5
    assert all((np.abs(goals[:, :5] - row).max(axis=1) <= 1).any() for row in wanted)
    assert (np.abs(goals[:, 5] - 40.95 * episode.actions[-1, 5]) <= 1).any()  # in percent
    np.testing.assert_allclose(episode.observation.proprioception[0, :5], COUNT / 2, atol=1e-3)
    dataset = LeRobotDataset("data", root=tmp_path / "data")
    assert dataset.meta.robot_type == "so101"
    assert dataset.meta.features["action"]["names"] == [f"{name}.pos" for name in feetech_cases.JOINTS]
    columns = dataset.hf_dataset.with_format("numpy")
    acted = np.asarray(columns["acted_by"][:]).ravel()
    assert acted[0] != 3
    assert 0 in acted
    assert (acted[-3:] == 3).all()  # the person has the arm
    np.testing.assert_array_equal(np.asarray(columns["intervention"][:]).ravel(), acted == 3)
    np.testing.assert_allclose(episode.actions[-1, :5], 200.5 * COUNT, atol=0.1)  # where the leader is held
    assert not servos.memory[1][40]  # the torque is off
