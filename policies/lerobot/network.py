"""The network of a checkpoint, through lerobot's own class: without compilation, and with the numbers of its file."""

import logging
import warnings
from typing import Any

from safetensors import SafetensorError, safe_open

from vlamem.policies.lerobot.source import Checkpoint, CheckpointError

FAMILIES = {
    "smolvla": ("flow", "EulerFlow", "smolvla"),
    "pi0": ("flow", "EulerFlow", "pi"),
    "pi05": ("flow", "EulerFlow", "pi"),
    "multi_task_dit": ("flow", "DiT", "multi_task_dit"),
    "diffusion": ("denoise", "Diffusion", "diffusion"),
    "act": ("direct", "Direct", "dataset"),
}
"""Module and class of each type, and lerobot's extra that brings what it needs."""

log = logging.getLogger("vlamem.policies")


def network_class(kind: str) -> Any:
    """lerobot's class of a type. Raises CheckpointError where it needs more of lerobot than is installed."""
    from lerobot.policies.factory import get_policy_class

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries announce their own deprecations while they are imported
        try:
            return get_policy_class(kind)
        except ImportError as error:
            raise _needs_more(kind, error) from error


def load_network(checkpoint: Checkpoint, config: Any, kind: str) -> Any:
    """The network on its device, to be evaluated. Raises CheckpointError where weights and configuration differ."""
    made_by = network_class(kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries announce their own deprecations while loading
            network = made_by.from_pretrained(str(checkpoint.folder), config=config)
    except ImportError as error:
        raise _needs_more(kind, error) from error
    except OSError as error:  # a backbone that is a name on the hub
        raise CheckpointError(
            f"'{checkpoint.name}' names a backbone that is not on this machine ({first_line(error)}): "
            "give its folder, e.g. ?backbone=FOLDER"
        ) from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{checkpoint.weights} is no whole weights file ({error}): copy or download it again"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"the weights of '{checkpoint.name}' do not fit its configuration ({first_line(error)}): they are not of "
            "one checkpoint"
        ) from error
    _check_loaded(checkpoint, network)
    _unwrap_compiled(network)
    return network.to(config.device).eval().requires_grad_(False)


def device_of(named: str) -> str:
    """The device of an option. Raises CheckpointError for an unknown one, and one that this machine has not."""
    import torch

    known = ("cpu", "cuda", "mps", "xpu")
    try:
        device = torch.device(named)
    except RuntimeError:
        device = None
    if device is None or device.type not in known:
        raise CheckpointError(f"unknown device '{named}': expected {', '.join(known)}, or e.g. cuda:1")
    place = getattr(torch, device.type, None)
    count = {"cpu": 1, "mps": int(torch.backends.mps.is_available())}.get(device.type)
    if count is None:
        count = place.device_count() if place is not None and place.is_available() else 0
    if (device.index or 0) >= count:
        there = f"it has {count}, numbered from 0" if count else "it has none, or torch was built without it"
        raise CheckpointError(
            f"device '{named}' is not available on this machine ({there}): leave the option out, or give device=cpu"
        )
    return named


def without_compilation(checkpoint: Checkpoint, config: Any) -> None:
    """Turns compilation off, with a word: compiled functions call no hooks, and a memory reads and writes by hooks.

    A module that was compiled when it was saved has other names in the file: it is loaded under them, then unwrapped.
    """
    if not hasattr(config, "compile_model"):
        return
    if config.compile_model:
        log.warning(
            "'%s' asks for compile_model, which is left out: a compiled network calls no hooks, so that no proposal "
            "would reach it",
            checkpoint.name,
        )
    try:
        with safe_open(str(checkpoint.weights), "np") as file:
            config.compile_model = any("_orig_mod." in name for name in file.keys())  # noqa: SIM118  # no dictionary
    except SafetensorError as error:
        raise CheckpointError(
            f"{checkpoint.weights} is no whole weights file ({error}): copy or download it again"
        ) from error


def _needs_more(kind: str, error: ImportError) -> CheckpointError:
    return CheckpointError(
        f"a checkpoint of type '{kind}' needs more of lerobot ({first_line(error)}): "
        f"pip install 'lerobot[{FAMILIES[kind][2]}]'"
    )


def _unwrap_compiled(network: Any) -> None:
    """Puts a module that was compiled in the place of its compiled wrapper, everywhere in the network."""
    from torch.nn import Module

    if hasattr(network.config, "compile_model"):
        network.config.compile_model = False
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(own := getattr(child, "_orig_mod", None), Module):
                setattr(module, name, own)


def _check_loaded(checkpoint: Checkpoint, network: Any) -> None:
    """Raises CheckpointError when the network does not hold the file's numbers: pi0 goes on with random ones."""
    import torch

    own = network.state_dict()
    try:
        with safe_open(str(checkpoint.weights), "pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a dictionary
                mine = own.get(name, own.get(f"model.{name}"))
                if mine is None:
                    continue
                few = file.get_slice(name)[:1] if file.get_slice(name).get_shape() else file.get_tensor(name)
                if not torch.equal(few.to(mine.dtype), mine[:1].cpu() if mine.ndim else mine.cpu()):
                    raise CheckpointError(
                        f"tensor '{name}' of '{checkpoint.name}' was not loaded: weights and configuration differ, "
                        "save the checkpoint again"
                    )
            stored = set(file.keys())
    except SafetensorError as error:
        raise CheckpointError(
            f"{checkpoint.weights} is no whole weights file ({error}): copy or download it again"
        ) from error
    held = {own[name].data_ptr() for name in own if name in stored or name.removeprefix("model.") in stored}
    lost = [n for n in own if own[n].data_ptr() not in held and own[n].numel()]
    if lost:
        raise CheckpointError(
            f"'{checkpoint.name}' has no tensor for '{lost[0]}' and {len(lost) - 1} more: weights and configuration "
            "differ, save the checkpoint again"
        )


def first_line(error: BaseException) -> str:
    """Of an error of a library, for a message of one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
