"""From demonstrations to a gate's weights file, taught by a frozen policy's own loss: no answer is read anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.registry import make_design
from vlamem.memory.protocol import Memory, Params, named_arrays
from vlamem.memory.train.confidence import abstaining, with_confidence
from vlamem.memory.train.demonstrations import DemonstrationData, Loss, loss_units
from vlamem.memory.train.losses import DECIDED
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
    command: str = "vlamem fit"


class TaughtGate(NamedTuple):
    """A gate's weights file and what held-out demonstrations say, task by task.

    Attributes:
        path: the file.
        taught: the training.
        reports: of the memory as it was trained; where no task remembers, the file's neither writes nor proposes.
    """

    path: Path
    taught: Taught
    reports: Mapping[str, TaskReport]

    @property
    def remembering(self) -> tuple[str, ...]:
        """Tasks in which something is shown to be remembered; with none, nothing in them needs a memory."""
        return tuple(task for task, found in self.reports.items() if found.remembers)


def teach_gate(
    data: DemonstrationData,
    loss: Loss,
    injection: str,
    options: TaughtOptions,
    out: Path,
    work: Path,
    progress: Progress = lambda i, last: None,
) -> TaughtGate:
    """Trains a memory on demonstrations and writes the file `out`; `work` takes checkpoints, and a killed run goes on.

    `injection` names where the policy adds what is proposed. Raises what `teach` and `save_weights` raise.
    """
    head = HeadConfig(context=data.meta.context_size, hidden=options.hidden)
    memory = make_design(options.design, data.feature_size, head)
    taught = teach(memory, data, loss, options.how, work, progress)
    params = confident(memory, taught.params, data, loss)
    made = TaughtGate(out, taught, reports(memory, params, data, loss))
    if not made.remembering:
        params = _shut(memory, abstaining(params))
    out.parent.mkdir(parents=True, exist_ok=True)
    command = f"{options.command} (injection: {injection})"
    save_weights(out, Header.of(memory, data.meta.policy, command, _metrics(made)), named_arrays(params))
    return made


def confident(memory: Memory, params: Params, data: DemonstrationData, loss: Loss) -> Params:
    """`params` whose confidence says where the policy's loss is lower by what the memory has seen, fitted to episodes
    that it was not trained on."""
    found = [compare(memory, params, data, data.calibration[task], loss) for task in data.tasks]
    lost = np.array([float(f.bare @ f.weight) / max(float(f.weight.sum()), 1e-9) for f in found])
    task = np.repeat(np.arange(len(found)), [len(f.bare) for f in found])
    names = ("hidden", "bare", "own", "swapped", "weight")
    hidden, bare, own, swapped, weight = (np.concatenate([getattr(f, name) for f in found]) for name in names)
    return with_confidence(params, hidden, bare, own, swapped, weight, loss_units(lost)[task], task)


def reports(memory: Memory, params: Params, data: DemonstrationData, loss: Loss) -> dict[str, TaskReport]:
    """What held-out demonstrations say of each task, in a wording of training."""
    return {t: report(compare(memory, params, data, data.held_out[t], loss, _CHOICES)) for t in data.tasks}


def _shut(memory: Memory, params: Params) -> Params:
    """`params` whose learned gate never opens; those of a memory without one as they are."""
    return params if memory.gate_signal is None else memory.move_threshold(params, jnp.asarray(DECIDED))


def _metrics(made: TaughtGate) -> dict[str, float]:
    """Figures for the file's header; those that could not be measured are left out."""
    metrics = {"updates": float(made.taught.updates), "minutes": made.taught.seconds / 60}
    metrics["remembering_tasks"] = float(len(made.remembering))
    for task, found in made.reports.items():
        metrics |= {f"{name}.{task}": float(value) for name, value in found._asdict().items()}
    return {name: round(x, 5) for name, x in metrics.items() if np.isfinite(x)}
