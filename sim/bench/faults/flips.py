"""Single bits changed in every kind of file: each is noticed, changes nothing, or is read as something else."""

from dataclasses import dataclass
from pathlib import Path

from vlamem.core.seeding import stream
from vlamem.sim.bench.faults.kinds import FileKind


@dataclass(frozen=True)
class Flips:
    """What became of changed bits in one kind of file.

    Attributes:
        kind: its name.
        detected: by an error that names the file, or its folder, and the mend.
        harmless: what was read is what was written.
        silent: read as something else.
        unnamed: by an error of the reader's that leaves out one of the two.
        tracebacks: by an error that is no word about the file.
    """

    kind: str
    detected: int
    harmless: int
    silent: int
    unnamed: int
    tracebacks: int


def flip(kind: FileKind, folder: Path, count: int, seed: int) -> Flips:
    """Changes `count` bits of a sample, one at a time, and reads it."""
    assert kind.sample is not None
    folder.mkdir(parents=True, exist_ok=True)
    path, read = kind.sample(folder)
    whole, expected = path.read_bytes(), read()
    detected = harmless = silent = unnamed = tracebacks = 0
    for at in stream(seed, "flips", kind.name).integers(0, 8 * len(whole), count).tolist():
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            same = read() == expected
        except (ValueError, OSError, RuntimeError) as error:
            if tells(error, path, kind.mend):
                detected += 1
            else:
                unnamed += 1
        except Exception:
            tracebacks += 1
        else:
            harmless, silent = harmless + same, silent + (not same)
    path.write_bytes(whole)
    return Flips(kind.name, detected, harmless, silent, unnamed, tracebacks)


def tells(error: Exception, path: Path, mend: str) -> bool:
    """Whether an error names a file, or the folder that it is in, and the mend."""
    text = str(error)
    return (str(path) in text or str(path.parent) in text) and mend in text
