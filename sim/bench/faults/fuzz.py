"""Messages and files that are changed at random places, to every reader: each is read, or refused by its own error.

The seeds in `KEPT` are tried first in every run, so that runs of other seeds have draws in common.
"""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.seeding import stream
from vlamem.deploy.robot.robot_file import SHIPPED, load_robot_file
from vlamem.deploy.wire import pack, unpack
from vlamem.sim.bench.faults.flips import tells
from vlamem.sim.bench.faults.kinds import KINDS

KEPT = (0, 7, 11, 42, 1234)
"""Seeds of draws that are tried in every run."""
_REFUSED = (ValueError, OSError, RuntimeError)
"""What a reader may say: its errors are of these."""


@dataclass(frozen=True)
class Fuzzed:
    """What became of changed messages or files of one reader.

    Attributes:
        reader: its name.
        tried: how many.
        refused: by an error of the reader's own.
        unnamed: of these, by one that leaves out the file, or its mend where that is known.
        tracebacks: by another error.
    """

    reader: str
    tried: int
    refused: int
    unnamed: int
    tracebacks: int


def mutated(raw: bytes, rng: np.random.Generator) -> bytes:
    """`raw` cut, doubled, with bytes changed, dropped or inserted at up to eight places."""
    data = bytearray(raw)
    for _ in range(int(rng.integers(1, 9))):
        at, what = int(rng.integers(0, len(data) + 1)), int(rng.integers(6))
        if what == 0:
            data[at : at + 1] = bytes([int(rng.integers(256))])
        elif what == 1:
            del data[at : at + int(rng.integers(1, 16))]
        elif what == 2:
            data[at:at] = rng.bytes(int(rng.integers(1, 16)))
        elif what == 3:
            data[at:at] = data[at : at + int(rng.integers(1, 64))]
        elif what == 4 and len(data) > 8:
            del data[at:]
        else:
            data[at:at] = b"\xdd\xff\xff\xff\xff" if at % 2 else b"\x81\xc0" * int(rng.integers(1, 40))
    return bytes(data)


def _tried(
    reader: str,
    raw: bytes,
    read: Callable[[bytes], Any],
    count: int,
    seed: int,
    told: Callable[[Exception], bool] = lambda error: True,
) -> Fuzzed:
    refused = unnamed = tracebacks = 0
    share = max(1, count // (len(KEPT) + 1))
    draws = [stream(kept, "fuzz", reader, i) for kept in KEPT for i in range(share)]
    draws += [stream(seed, "fuzz-new", reader, i) for i in range(count - len(draws))]
    for rng in draws[:count]:
        try:
            read(mutated(raw, rng))
        except _REFUSED as error:
            refused += 1
            unnamed += not told(error)
        except Exception:
            tracebacks += 1
    return Fuzzed(reader, count, refused, unnamed, tracebacks)


def _teller(path: Path, mend: str = "") -> Callable[[Exception], bool]:
    return lambda error: tells(error, path, mend)


def fuzz_wire(count: int, seed: int) -> Fuzzed:
    """Messages to the reader of the wire format."""
    image, state = np.zeros((8, 8, 3), np.uint8), np.zeros(8, np.float32)
    message = {"front": image, "proprioception": state, "vlamem": {"type": "observe", "episode": 1, "step": 3}}
    return _tried("wire", pack(message), unpack, count, seed)


def fuzz_files(folder: Path, count: int, seed: int) -> list[Fuzzed]:
    """Files of every kind that vlamem writes, and robots' files, to their readers; `count` in all."""
    kinds, found = [kind for kind in KINDS if kind.sample is not None], []
    each = max(1, count // (len(kinds) + 1))
    for kind in kinds:
        assert kind.sample is not None
        place = folder / kind.name.replace("/", "-").replace("*", "-")
        place.mkdir(parents=True)
        path, read = kind.sample(place)
        whole = path.read_bytes()

        def of(raw: bytes, path: Path = path, read: Callable[[], Any] = read) -> Any:
            path.write_bytes(raw)
            return read()

        found.append(_tried(kind.name, whole, of, each, seed, _teller(path, kind.mend)))
        shutil.rmtree(place)
    from vlamem.memory.designs import aura
    from vlamem.memory.weights import load_memory

    robot, gate = folder / "robot.toml", folder / "gate.safetensors"

    def load(raw: bytes) -> Any:
        robot.write_bytes(raw)
        return load_robot_file(robot)

    def load_gate(raw: bytes) -> Any:
        gate.write_bytes(raw)
        return load_memory(gate)

    shipped = Path(aura.__file__).parent / "learned_gate.safetensors"  # without a hash
    found.append(_tried("gate of version 0.1", shipped.read_bytes(), load_gate, min(each, 2000), seed, _teller(gate)))
    found.append(_tried("ROBOT.toml", (SHIPPED / "tabletop.toml").read_bytes(), load, each, seed, _teller(robot)))
    return found


def send_malformed(uri: str, count: int, seed: int) -> int:
    """Wrong messages to a server; gives how many were answered or ended their connection. Raises as websockets do."""
    from vlamem.deploy.bench.abuse import send_malformed as send

    good = pack({"vlamem": {"type": "observe", "episode": 1, "step": 0, "plan": False}})
    return sum(asyncio.run(send(uri, count, good, seed)))


def totals(found: Sequence[Fuzzed]) -> tuple[int, int]:
    """Tried, and tracebacks."""
    return sum(f.tried for f in found), sum(f.tracebacks for f in found)
