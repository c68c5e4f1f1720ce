"""Frozen policies by name."""

import difflib
import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from vlamem.core.query import parse_query, write_query
from vlamem.policies.lerobot.source import PATH_OPTIONS, find_checkpoint, is_checkpoint
from vlamem.policies.protocol import FrozenPolicy

SHIPPED = {
    "tiny": ("vlamem.policies.tiny", "tiny.safetensors"),
    "tiny-libero": ("vlamem.policies.tiny", "tiny-libero.safetensors"),
}
"""Package and file of the weights that come with vlamem, by the policy's name."""
EXPERTS = ("expert", "random-choice")
"""Scripted policies with privileged state; a suite makes them, since only it has that state."""


_PROMISED = ("spec", "history", "lowest_start", "encode", "sample", "context_of")


class PolicyError(ValueError):
    """A policy that does not exist or cannot be loaded; the message says what is there and the mend."""


@dataclass(frozen=True)
class PolicySource:
    """Where a policy comes from.

    Attributes:
        name: as the user gave it.
        weights: its file, or None for scripted experts and policies of your own.
        sha256: of the whole file, 64 hexadecimal digits, or None.
    """

    name: str
    weights: Path | None
    sha256: str | None


def shipped_weights(name: str) -> Path:
    """The weights file of a shipped policy, whether present or not. Raises KeyError for another name."""
    package, file = SHIPPED[name]
    return Path(str(resources.files(package) / file))


def label_of(name: str) -> str:
    """A policy's name on a page: the last part of a path or of package.module:FACTORY, without options."""
    return name.partition("?")[0].rstrip("/").rpartition("/")[2].rpartition(":")[2].removesuffix(".safetensors")


def is_lerobots(name: str) -> bool:
    """Whether `find_policy` takes a name for a checkpoint of LeRobot: no shipped policy, expert or weights file.

    A shipped policy's name means that policy whatever folders there are; "./tiny" means a folder.
    """
    return name not in (*SHIPPED, *EXPERTS) and not name.endswith(".safetensors") and is_checkpoint(name)


def absolute(name: str) -> str:
    """The name of the same policy from any working directory: paths in it are made absolute."""
    location, mark, query = name.partition("?")
    if name in SHIPPED or not (is_lerobots(name) or location.endswith(".safetensors")):
        return name
    if Path(location).exists():
        location = str(Path(location).resolve())
    options = parse_query(query)
    placed = [(k, str(Path(v).resolve()) if k in PATH_OPTIONS and Path(v).exists() else v) for k, v in options]
    return location + mark + write_query(placed)


def find_policy(name: str) -> PolicySource:
    """Finds a policy without loading it: a shipped one ("tiny", "tiny-libero"), an expert, a file,
    "package.module:FACTORY", or a LeRobot checkpoint (a folder or a hub id, options after a question mark; see
    vlamem.policies.lerobot).

    Raises PolicyError for an unknown name and for weights that are missing.
    """
    if name in EXPERTS or _is_factory(name):
        return PolicySource(name, None, None)
    if name in SHIPPED:
        path = shipped_weights(name)
        mend = "reinstall vlamem, or train it: vlamem pretrain"
    elif name.endswith(".safetensors"):
        path, mend = Path(name), "expected the path of a weights file"
    elif is_lerobots(name):
        path, mend = find_checkpoint(name).weights, "expected a folder written by lerobot's save_pretrained"
    else:
        known = [*SHIPPED, *EXPERTS]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = (
            f"did you mean '{near[0]}'?"
            if near
            else f"choose one of {', '.join(known)}, a .safetensors file, or a folder or hub id of LeRobot"
        )
        raise PolicyError(f"unknown policy '{name}': {hint}")
    if not path.is_file():
        raise PolicyError(f"policy '{name}' has no weights at {path}: {mend}")
    with path.open("rb") as file:
        return PolicySource(name, path, hashlib.file_digest(file, "sha256").hexdigest())


def _is_factory(name: str) -> bool:
    """Whether a name means package.module:FACTORY, and no file or folder with a colon in its path."""
    return ":" in name and not name.endswith(".safetensors") and not is_lerobots(name)


def preload_policy(source: PolicySource) -> None:
    """Imports what `load_policy` will need, and neither computes nor touches a device: a process may fork after it.

    Raises what `load_policy` raises for modules that are missing.
    """
    if source.weights is not None and is_lerobots(source.name):
        from vlamem.policies.lerobot.loading import preload

        preload(source.name)
    elif source.weights is not None:
        importlib.import_module("vlamem.policies.tiny.policy")
    elif source.name not in EXPERTS:
        _factory(source)


def load_policy(source: PolicySource) -> FrozenPolicy:
    """Loads what `find_policy` found. "package.module:FACTORY" is called without arguments.

    Raises PolicyError when a policy of your own cannot be imported, ModuleNotFoundError without torch, and whatever the
    policy raises for weights of another spec, truncated or changed ones.
    """
    if source.weights is not None and is_lerobots(source.name):
        from vlamem.policies.lerobot.loading import load

        adapted: FrozenPolicy = load(source.name)
        return adapted
    if source.weights is not None:
        from vlamem.policies.tiny.policy import TinyVLA

        return TinyVLA.load(source.weights)
    if source.name in EXPERTS:
        raise PolicyError(f"policy '{source.name}' is scripted and made by a suite: use it in 'vlamem rollout'")
    policy: FrozenPolicy = _factory(source)()
    missing = [name for name in _PROMISED if not hasattr(policy, name)]
    if missing:
        raise PolicyError(
            f"policy '{source.name}' has no {', '.join(missing)}, which a frozen policy declares: see "
            "vlamem.policies.protocol.FrozenPolicy, and check it with vlamem.testing.check_policy"
        )
    return policy


def weights_hash(policy: FrozenPolicy, source: PolicySource | None = None) -> str | None:
    """sha256 of a policy's weights, as its source knows it, or as the policy does that has a `weights_sha256`: a
    checkpoint of LeRobot has one, also where a factory of your own loads it."""
    if source is not None and source.sha256 is not None:
        return source.sha256
    own: str | None = getattr(policy, "weights_sha256", None)
    return own


def load(name: str) -> FrozenPolicy:
    """The frozen policy of a name; raises what `find_policy` and `load_policy` raise."""
    return load_policy(find_policy(name))


def _factory(source: PolicySource) -> Callable[[], FrozenPolicy]:
    module, _, attribute = source.name.partition(":")
    try:
        factory: Callable[[], FrozenPolicy] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise PolicyError(
            f"policy '{source.name}' needs the module '{error.name}': is it installed and on the path?"
        ) from error
    except AttributeError as error:
        raise PolicyError(f"policy '{source.name}' is not there ({error}): expected package.module:FACTORY") from error
    return factory
