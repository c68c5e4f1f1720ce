"""The SDK of Feetech's servos, which LeRobot's SO-101 talks through, on servos that are tables of registers, and a
camera that shows one grey.

`installed` puts it where LeRobot looks for the SDK: LeRobot's own classes of arm, bus and calibration do the rest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lerobot.cameras.camera import Camera
from lerobot.cameras.configs import CameraConfig

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
_STS3215, _FIRMWARE = 777, (3, 10)
_LOW, _HIGH = 0, 4095
"""Range of every servo: 4,096 counts a turn, so that the middle of the range is 0 degrees."""
_GOAL, _PRESENT, _MIN, _MAX, _MODEL = 42, 56, 9, 11, 3
SIZE = 64


class Servos:
    """Registers of six servos, which reach a goal at once.

    Attributes:
        goals: positions that were commanded, [6] each [counts], in order.
    """

    def __init__(self) -> None:
        self.memory = {number: bytearray(128) for number in range(1, 7)}
        self.goals: list[list[int]] = []
        for number in self.memory:
            for address, value in ((_MODEL, _STS3215), (_MIN, _LOW), (_MAX, _HIGH), (_PRESENT, 2048)):
                self.write(number, address, list(value.to_bytes(2, "little")))
            self.memory[number][:2] = bytes(_FIRMWARE)

    def read(self, number: int, address: int, length: int) -> int:
        return int.from_bytes(self.memory[number][address : address + length], "little")

    def write(self, number: int, address: int, data: list[int]) -> None:
        self.memory[number][address : address + len(data)] = bytes(data)
        if address == _GOAL:
            self.memory[number][_PRESENT : _PRESENT + 2] = bytes(data)


class _Port:
    def __init__(self, servos: Servos) -> None:
        self.servos, self.is_open, self.is_using = servos, False, False

    def openPort(self) -> bool:  # noqa: N802
        self.is_open = True
        return True

    def closePort(self) -> None:  # noqa: N802
        self.is_open = False

    def clearPort(self) -> None: ...  # noqa: N802

    def setPacketTimeoutMillis(self, _: float) -> None: ...  # noqa: N802


class _Packets:
    def __init__(self, _: int) -> None: ...

    def ping(self, port: _Port, number: int) -> tuple[int, int, int]:
        return port.servos.read(number, _MODEL, 2), 0, 0

    def read1ByteTxRx(self, port: _Port, number: int, address: int) -> tuple[int, int, int]:  # noqa: N802
        return port.servos.read(number, address, 1), 0, 0

    def read2ByteTxRx(self, port: _Port, number: int, address: int) -> tuple[int, int, int]:  # noqa: N802
        return port.servos.read(number, address, 2), 0, 0

    def writeTxRx(self, port: _Port, number: int, address: int, _: int, data: list[int]) -> tuple[int, int]:  # noqa: N802
        port.servos.write(number, address, data)
        return 0, 0


class _Group:
    def __init__(self, port: _Port, *_: Any) -> None:
        self.port, self.start_address, self.data_length = port, 0, 0
        self.clearParam()

    def clearParam(self) -> None:  # noqa: N802
        self.given: dict[int, list[int]] = {}

    def addParam(self, number: int, data: list[int] = []) -> None:  # noqa: N802, B006  # never changed
        self.given[number] = data

    def txRxPacket(self) -> int:  # noqa: N802
        return 0

    def txPacket(self) -> int:  # noqa: N802
        for number, data in self.given.items():
            self.port.servos.write(number, self.start_address, data)
        if self.start_address == _GOAL:
            self.port.servos.goals.append([self.port.servos.read(n, _GOAL, 2) for n in sorted(self.given)])
        return 0

    def getData(self, number: int, address: int, length: int) -> int:  # noqa: N802
        return self.port.servos.read(number, address, length)


def installed(monkeypatch: pytest.MonkeyPatch, others: Mapping[str, Servos] = {}) -> Servos:
    """Makes LeRobot find the SDK, with these servos at every port but those of `others`."""
    from lerobot.motors.feetech import feetech
    from lerobot.utils import import_utils

    servos = Servos()

    class Port(_Port):
        def __init__(self, name: str) -> None:
            super().__init__(others.get(name, servos))

    sdk = SimpleNamespace(
        PortHandler=Port, PacketHandler=_Packets, GroupSyncRead=_Group, GroupSyncWrite=_Group, COMM_SUCCESS=0,
        MAX_ID=0xFC, SCS_LOBYTE=lambda value: value & 0xFF, SCS_HIBYTE=lambda value: value >> 8 & 0xFF,
    )  # fmt: skip
    monkeypatch.setattr(feetech, "scs", sdk)
    monkeypatch.setitem(import_utils._require_package_cache, "scservo_sdk", True)
    monkeypatch.setattr(import_utils, "register_third_party_plugins", lambda: None)
    return servos


def leader_settings(folder: Path) -> Path:
    """Settings for `--teleop-config`, after those of the arm: a leader at another port with the arm's calibration."""
    path = folder / "leader.json"
    path.write_text(json.dumps({"port": "/dev/leader", "id": "arm", "calibration_dir": str(folder)}))
    return path


def settings(folder: Path) -> Path:
    """Settings for `vlamem control --robot-config`: a calibrated arm with the cameras of the shipped robot file."""
    motor = {"drive_mode": 0, "homing_offset": 0, "range_min": _LOW, "range_max": _HIGH}
    calibration = {name: motor | {"id": number} for number, name in enumerate(JOINTS, 1)}
    (folder / "arm.json").write_text(json.dumps(calibration))
    camera = {"type": "grey", "width": SIZE, "height": SIZE, "fps": 30}
    given = {
        "port": "/dev/servos", "id": "arm", "calibration_dir": str(folder),
        "cameras": {"front": camera, "wrist": camera},
    }  # fmt: skip
    path = folder / "settings.json"
    path.write_text(json.dumps(given))
    return path


@CameraConfig.register_subclass("grey")
@dataclass(kw_only=True)
class GreyConfig(CameraConfig):
    """A camera that shows one grey, brighter with each picture."""


class Grey(Camera):
    def __init__(self, config: GreyConfig) -> None:
        super().__init__(config)
        self._on, self._shown = False, 0

    @property
    def is_connected(self) -> bool:
        return self._on

    @staticmethod
    def find_cameras() -> list[dict[str, Any]]:
        return []

    def connect(self, warmup: bool = True) -> None:
        self._on = True

    def read(self) -> np.ndarray:
        self._shown += 1
        return np.full((SIZE, SIZE, 3), self._shown % 256, np.uint8)

    def async_read(self, timeout_ms: float = 200) -> np.ndarray:
        return self.read()

    def read_latest(self, max_age_ms: int = 500) -> np.ndarray:
        return self.read()

    def disconnect(self) -> None:
        self._on = False
