"""From demonstrations to a gate's weights file, taught by a frozen policy's own loss: no answer is read anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.registry import make_design
from vlamem.memory.protocol import Memory, Params, flatten
from vlamem.memory.train.confidence import with_confidence
from vlamem.memory.train.demonstrations import DemonstrationData, Loss
from vlamem.memory.train.swap import TaskReport, compare, report
from vlamem.memory.train.teach import Progress, Taught, TeachOptions, teach
from vlamem.memory.weights import Header, save_weights

__all__ = ["TaughtGate", "TaughtOptions", "confident", "reports", "teach_gate"]

_CHOICES = 3
"""Ticks of an episode at which the report asks for the loss."""


@dataclass(frozen=True)
class TaughtOptions:
    """What `teach_gate` is to do.

    Attributes:
        how: of the training.
        design: memory and its options as NAME?option=value, e.g. aura?gate=always.
        hidden: width of the head's hidden layer.
        command: written into the file.
    """

    how: TeachOptions = field(default_factory=TeachOptions)
    design: str = "aura"
    hidden: int = 128
    command: str = "vlamem.memory.train.taught.teach_gate"


class TaughtGate(NamedTuple):
    """A gate's weights file and what held-out demonstrations say of it, task by task."""

    path: Path
    taught: Taught
    reports: Mapping[str, TaskReport]


def teach_gate(
    data: DemonstrationData,
    loss: Loss,
    injection: str,
    options: TaughtOptions,
    out: Path,
    progress: Progress = lambda i, last: None,
) -> TaughtGate:
    """Trains a memory on demonstrations and writes out/gate.safetensors; a killed run goes on from its checkpoint.

    `injection` names where the policy adds what is proposed. Raises what `teach` and `save_weights` raise.
    """
    head = HeadConfig(context=data.meta.context_size, hidden=options.hidden)
    memory = make_design(options.design, data.feature_size, head)
    taught = teach(memory, data, loss, options.how, out, progress)
    params = confident(memory, taught.params, data, loss)
    found = reports(memory, params, data, loss)
    metrics = {"updates": float(taught.updates), "minutes": taught.seconds / 60}
    for task, said in found.items():
        metrics |= {f"{name}.{task}": float(value) for name, value in said._asdict().items()}
    kept = {name: round(x, 5) for name, x in metrics.items() if np.isfinite(x)}
    path = out / "gate.safetensors"
    command = f"{options.command} (injection: {injection})"
    arrays = {name: np.asarray(x) for name, x in flatten(params).items()}
    save_weights(path, Header.of(memory, data.meta.policy, command, kept), arrays)
    return TaughtGate(path, taught, found)


def confident(memory: Memory, params: Params, data: DemonstrationData, loss: Loss) -> Params:
    """`params` whose confidence says where the policy's loss is lower with the memory, fitted to episodes that it was
    not trained on."""
    found = [compare(memory, params, data, data.calibration[task], loss) for task in data.tasks]
    columns = ((np.concatenate([getattr(f, name) for f in found])) for name in ("hidden", "bare", "own"))
    return with_confidence(params, *columns)


def reports(memory: Memory, params: Params, data: DemonstrationData, loss: Loss) -> dict[str, TaskReport]:
    """What held-out demonstrations say of each task, in a wording of training."""
    return {t: report(compare(memory, params, data, data.held_out[t], loss, _CHOICES)) for t in data.tasks}
