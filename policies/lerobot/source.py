"""Where a LeRobot checkpoint comes from: a folder or a hub id, with options after a question mark."""

import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlamem.core.json_files import read_json_map
from vlamem.core.query import parse_query

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
PREPROCESSOR = "policy_preprocessor.json"
POSTPROCESSOR = "policy_postprocessor.json"
ADAPTER = "adapter_config.json"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins of which Git has only the place where it is kept."""
OPTIONS = ("tap", "hz", "actions", "device", "backbone", "tokenizer", "lowest_start", "ensemble", "state", "inject_at")
"""Options of a checkpoint's name; `camera.NAME=OTHER` says besides which of the environment's cameras a key reads."""
LEFT_OUT = "none"
"""In place of OTHER: the key reads no camera."""

PATH_OPTIONS = ("backbone", "tokenizer", "actions")
"""Those of them that may name a folder or a file."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""What may be asked of the hub: org/name."""
REACH_SECONDS = 5.0
"""How long the hub has to answer at all [s]."""
_CAMERA = "camera."


IMAGE_PREFIXES = ("observation.images.", "observation.")


def camera_of(key: str) -> str:
    """The camera's name in an image key: "top" of "observation.images.top", "image" of "observation.image"."""
    for prefix in IMAGE_PREFIXES:
        if key.startswith(prefix):
            return key.removeprefix(prefix)
    return key


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded or used; the message names what was found, what was expected and the mend."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine.

    Attributes:
        name: as the user gave it, without options.
        folder: with config.json, model.safetensors and the processors' files.
        options: see OPTIONS.
        cameras: the environment's camera by the last part of the policy's image key, where the two differ.
    """

    name: str
    folder: Path
    options: dict[str, str] = field(default_factory=dict)
    cameras: dict[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.folder / WEIGHTS

    @property
    def config(self) -> dict[str, Any]:
        """config.json as it is on disk; raises CheckpointError when it is broken."""
        return read_json(self.folder / CONFIG)


def is_checkpoint(name: str) -> bool:
    """Whether `name` means a LeRobot checkpoint: a folder, a path that looks like one, or a hub id."""
    location = name.partition("?")[0]
    return Path(location).is_dir() or HUB_ID.fullmatch(location) is not None


def on_device(name: str, device: str) -> str:
    """A checkpoint's name with the option `device`; raises CheckpointError when it has that option with another."""
    query = name.partition("?")[2]
    given = dict(parse_query(query)).get("device")
    if given is None:
        return f"{name}{'&' if query else '' if '?' in name else '?'}device={device}"
    if given != device:
        raise CheckpointError(
            f"'{name}' is to run on {given}, and its caller moves it to {device}: leave one of them out"
        )
    return name


def find_checkpoint(name: str) -> Checkpoint:
    """The checkpoint called `name`: "folder", "org/name" on the hub, either with "?tap=vision&hz=20" and the like.

    A hub checkpoint is taken from the local cache when it is there and downloaded otherwise. Raises CheckpointError
    for an unknown option, a folder without a checkpoint, and a hub that cannot be reached.
    """
    location, _, query = name.partition("?")
    options, cameras = {}, {}
    for key, value in parse_query(query):
        if key.startswith(_CAMERA):
            cameras[key.removeprefix(_CAMERA)] = value
        elif key in OPTIONS:
            options[key] = value
        else:
            raise CheckpointError(
                f"unknown option '{key}' in '{name}': choose from {', '.join(OPTIONS)} or {_CAMERA}NAME"
            )
    folder = Path(location) if Path(location).is_dir() else _from_hub(location)
    _check_no_adapter(location, folder)
    for file, what in ((CONFIG, "configuration"), (WEIGHTS, "weights")):
        if not (folder / file).is_file():
            there = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
            raise CheckpointError(
                f"{location} has no {file} ({what}), only {there}: expected a folder written by lerobot's "
                "save_pretrained, often named pretrained_model"
            )
    _check_no_pointers(location, folder)
    return Checkpoint(location, folder, options, cameras)


def _check_no_adapter(location: str, folder: Path) -> None:
    """Raises CheckpointError for a folder that has the weights of an adapter and not those of a network."""
    if not (folder / ADAPTER).is_file() or (folder / WEIGHTS).is_file():
        return
    base = read_json(folder / ADAPTER).get("base_model_name_or_path") or "its base"
    raise CheckpointError(
        f"{location} is a LoRA adapter of {base} and no whole checkpoint: merge it into a copy of that (peft's "
        "PeftModel.from_pretrained(base, folder).merge_and_unload(), then save_pretrained) and give the copy's folder"
    )


def _check_no_pointers(location: str, folder: Path) -> None:
    """Raises CheckpointError for the first file of which only a Git LFS pointer is there."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".model"):
            with path.open("rb") as file:
                if file.read(len(LFS_POINTER)) == LFS_POINTER:
                    raise CheckpointError(
                        f"{path.name} of {location} is a Git LFS pointer and not the file: fetch the files with 'git "
                        "lfs pull'"
                    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint; raises CheckpointError when it is broken."""
    try:
        return read_json_map(path)
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): save or download the checkpoint again") from error


def _from_hub(repo: str) -> Path:
    """The snapshot of a hub checkpoint, from the cache or downloaded."""
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    wanted = ["*.json", "*.safetensors", "*.model", "*.txt"]
    with contextlib.suppress(LocalEntryNotFoundError):  # not in the cache: the hub is asked
        cached = Path(snapshot_download(repo, allow_patterns=wanted, local_files_only=True))
        if all((cached / file).is_file() for file in (CONFIG, WEIGHTS)):  # not a part of it alone
            return cached
    mend = f"copy the checkpoint to this machine and give its folder, e.g. --policy ./{repo.rpartition('/')[2]}"
    try:
        HfApi().model_info(repo, timeout=REACH_SECONDS)  # snapshot_download would retry for minutes
        return Path(snapshot_download(repo, allow_patterns=wanted))
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise CheckpointError(f"the hub has no checkpoint '{repo}' for you (status {status}): {mend}") from error
    except (OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        raise CheckpointError(
            f"'{repo}' is neither a folder here nor in the hub's cache, and the hub cannot be reached "
            f"({type(error).__name__}): {mend}"
        ) from error
