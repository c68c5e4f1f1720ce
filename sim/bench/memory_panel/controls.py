"""Controls of the memory panel that have to be trained, and the mark that ties each to what it was trained with.

controls/NAME holds the weights and control.json: the gate beside which the control stands, and every setting that its
training took. Weights under another mark are refused, not trained over: the arms were played with them.
"""

import json
import shlex
from collections.abc import Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from vlamem.core.bench import Progress
from vlamem.core.factors import factors
from vlamem.core.files import write_atomically
from vlamem.memory.config import HeadConfig
from vlamem.memory.designs import design
from vlamem.memory.protocol import Memory, named_arrays
from vlamem.memory.registry import MemoryName
from vlamem.memory.train.features import open_features
from vlamem.memory.train.fit import Progress as TrainingProgress
from vlamem.memory.train.fit import train_memory
from vlamem.memory.train.gate import GateOptions, data_for, head_for, metrics_of, train_gate
from vlamem.memory.weights import Header, load_weights, save_weights
from vlamem.policies.memories import parse_memories
from vlamem.sim.bench.memory_panel.arms import TRAINED, PanelArm
from vlamem.sim.bench.memory_panel.options import PanelOptions
from vlamem.sim.rollout.config import differences

GATED = ("always", "random", "periodic")
"""Controls that are AURA-Mem under another gate; the others are memories of another kind."""
PLAYED_TICKS = 900
"""Entries of the growing cache when it is played: more than any episode of the panel takes."""
_Mark = dict[str, Any]


class ControlError(ValueError):
    """A control that was trained beside another gate or with other settings; the message names them and the mend."""


def gate_of(options: PanelOptions) -> MemoryName:
    """The gate of the panel. Raises MemoryNameError when its file is missing."""
    (name,) = parse_memories(("aura" if options.gate == "shipped" else f"aura:{options.gate}",))
    return name


def gate_file(options: PanelOptions) -> Path:
    """The gate's weights file. Raises MemoryNameError when it is missing."""
    file = gate_of(options).file
    assert file is not None
    return file


def train_controls(
    options: PanelOptions, command: str, arms: Sequence[PanelArm], progress: Progress
) -> dict[str, Path]:
    """Weights of every control that the arms need, trained where they are missing.

    Random and periodic write at `options.control_rate`, or at the rate that the gate had on held-out features. Raises
    ControlError, before anything is trained, for weights that are there under another mark.
    """
    needed = [n for n in TRAINED if any(a.memory == "CONTROL" and a.name.partition("-")[0] == n for a in arms)]
    if not needed:
        return {}
    header, _ = load_weights(gate_file(options))
    features = open_features(options.features, header.trained_for)
    recordings, tasks = [f.digest for f in features], {e.task for f in features for e in f.episodes}
    wanted = {name: _wanted(name, options, header, tasks, command) for name in needed}
    folders = {name: options.out / "controls" / name for name in needed}
    marks = {name: _mark(name, gate_of(options).sha256, how, recordings) for name, how in wanted.items()}
    for name, how in wanted.items():
        _check(folders[name], marks[name], how)
    for name, mark in marks.items():
        write_atomically(folders[name] / "control.json", json.dumps(mark, indent=1, sort_keys=True) + "\n")
    files = {name: _weights(name, folder) for name, folder in folders.items()}
    for name, how in wanted.items():
        if files[name].exists():
            continue

        def trained(update: int, last: dict[str, float], title: str = f"train {name}") -> None:
            if update % 25 == 0:
                progress.begin(title, update, options.updates)

        if name in GATED:
            train_gate(how, folders[name], trained)
        else:
            _train_baseline(name, how, files[name], trained)
    return files


def _weights(name: str, folder: Path) -> Path:
    return folder / ("gate.safetensors" if name in GATED else "baseline.safetensors")


def _wanted(name: str, options: PanelOptions, header: Header, tasks: Set[str], command: str) -> GateOptions:
    """How a control is trained; `tasks` are recorded, and weights of others are left out."""
    rate = options.control_rate
    if rate is None:
        rate = max(header.metrics.get("writes_per_tick", 0.05), 1e-3)
    made = GateOptions(
        features=options.features,
        rate=rate,
        updates=options.updates,
        ticks=options.ticks,
        rows=options.rows,
        weights=tuple(w for w in factors("--weight", options.weight).items() if w[0] in tasks),
        hidden=header.head.hidden,
        used_with=header.trained_for,
        command=command,
    )
    return replace(made, gate=name) if name in GATED else made


def _train_baseline(kind: str, base: GateOptions, file: Path, progress: TrainingProgress) -> None:
    data = data_for(base)
    head = head_for(data, base.hidden)
    memory, played = (_baseline(kind, data.feature_size, head, ticks) for ticks in (2 * base.ticks, PLAYED_TICKS))
    trained = train_memory(memory, data, base.training(), file.parent, progress)
    header = Header.of(played, data.meta.policy, base.command, {})
    save_weights(file, header, named_arrays(trained.params))
    (file.parent / "metrics.json").write_text(json.dumps(metrics_of(trained), indent=1) + "\n", encoding="utf-8")


def _baseline(kind: str, feature_size: int, head: HeadConfig, ticks: int) -> Memory:
    """A baseline that keeps up to `ticks` ticks, where it grows; the GRU has about as many parameters as AURA-Mem."""
    options = {"gru": {"hidden": 64}, "kv_growing": {"entries": ticks}}.get(kind, {})
    return design(kind).make(feature_size, head, **options)


def _mark(name: str, gate_sha256: str | None, how: GateOptions, recordings: Sequence[str]) -> _Mark:
    mark = {"gate_sha256": gate_sha256, "features": list(recordings), "weights": [list(pair) for pair in how.weights]}
    return mark | _settings(name, how)


def _settings(name: str, how: GateOptions) -> _Mark:
    """The part of a mark that weights without one can be asked for: what their own files say of them."""
    assert how.used_with is not None
    mark = {
        "control": name,
        "rate": how.rate if name in ("random", "periodic") else None,
        "hidden": how.hidden,
        "policy": asdict(how.used_with),
        "training": asdict(how.training()),
    }
    return dict(json.loads(json.dumps(mark)))


def _check(folder: Path, mark: _Mark, how: GateOptions) -> None:
    """Raises ControlError when a control's folder is not that of `mark`.

    Weights from before there were marks are taken when their own files name the same control, settings and recordings.
    """
    path, name, now = folder / "control.json", mark["control"], mark
    if path.exists():
        before = _renamed(json.loads(path.read_text(encoding="utf-8")))
    elif _weights(name, folder).exists():
        before = _recorded(_weights(name, folder))
        now = _settings(name, how) | {"features": _paths(how.features)}
    else:
        return
    found = differences(before, now)
    if found:
        keep = f" (--control-rate {before['rate']} keeps its rate)" if before.get("rate") != mark["rate"] else ""
        raise ControlError(
            f"{folder} was trained with other settings: {'; '.join(found)}{keep}: choose another --out, or move "
            f"{folder} and the arms '{name}' and '{name}-*' beside it away to train and play '{name}' again"
        )


def _renamed(mark: _Mark) -> _Mark:
    """A mark of version 0.1 under today's names of its settings."""
    train = mark["training"]["train"]
    if "certain" in train:
        train["noise_anneal"] = train.pop("certain")
    return mark


def _paths(folders: Sequence[Path]) -> list[str]:
    return [str(folder.resolve()) for folder in folders]


def _recorded(weights: Path) -> _Mark:
    """What weights without a mark say of their training: their header, and the checkpoint beside them.

    Raises ControlError when they do not say enough.
    """
    name, checkpoint = weights.parent.name, weights.parent / "checkpoint.safetensors"
    if not checkpoint.exists():
        raise ControlError(
            f"{weights} has neither a mark (control.json) nor the checkpoint of its training beside it: what it was "
            "trained with is not known, choose another --out, or move its folder away to train it again"
        )
    with safe_open(checkpoint, framework="numpy") as file:
        how = _renamed({"training": json.loads(file.metadata()["marks"])["how"]})["training"]
    header, _ = load_weights(weights)
    return {
        "control": header.config["gate"] if name in GATED else header.design,
        "rate": header.config["rate"] if name in ("random", "periodic") else None,
        "hidden": header.head.hidden,
        "policy": asdict(header.trained_for),
        "training": how,
        "features": _paths(_features_in(header.command)),
    }


def _features_in(command: str) -> list[Path]:
    """The recordings that a command line names."""
    words = shlex.split(command)
    if "--features" not in words:
        return []
    after = words[words.index("--features") + 1 :]
    until = next((i for i, word in enumerate(after) if word.startswith("--")), len(after))
    return [Path(word) for word in after[:until]]
