"""Says in words why memory wrote or stayed silent in an episode, and why it proposed or abstained, from its trace.

Every figure is a recorded one; nothing is computed anew but ranks and medians over the episode.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from vlamem.core.tick_trace import TickTrace

_GATE = 0.5
"""The memory is written where the gate is above."""
_WHY = {
    "unsure": "its confidence was too low",
    "refused": "the feature that it was to read was not finite, or larger than any in training",
    "unknown": "no stored state was similar enough",
    "disagree": "similar states are stored, and what was done in them differs",
    "like a failure": "what it would have proposed resembles what preceded failures",
    "nothing to propose": "it had nothing to propose, and gives no other reason",
}


def explain_episode(trace: TickTrace) -> list[str]:
    """What happened, one line a stretch of plans that are alike and a line a write, in the order of time."""
    lines = [(at, text) for name in trace.memories for at, text in _writes(trace, name)]
    for first, last, plans, text in _stretches(trace):
        where = f"step {first}" if plans == 1 else f"steps {first} to {last}, {plans} plans"
        lines.append((first, f"{where}: {text}"))
    lines += [(at, f"step {at}: {text}") for at, text in _robot(trace)]
    ordered = [text for _, text in sorted(lines, key=lambda line: line[0])]
    clipped = sum(bool(by) for by in trace.column("clipped"))
    if clipped:
        ordered.append(f"{clipped} of {len(trace.rows)} commands were clipped")
    ordered += _robot_in_all(trace)
    silent = [name for name in trace.memories if _ticks(trace, name) and not any(trace.column(f"{name}.wrote"))]
    for name in silent:
        gates = [(row[f"{name}.gate"], row["step"]) for row in trace.rows if row.get(f"{name}.gate") is not None]
        if gates:
            most, at = max(gates)
            ordered.append(f"{name} was never written: its gate came to {most:.2f} at most, at step {at}")
    return ordered or ["no memory was used: the policy alone decided"]


def explain_step(trace: TickTrace, step: int) -> list[str]:
    """What memory did at a control step, what its gate and proposals were held against, and the plan in force.

    Raises ValueError for a step that the trace has not.
    """
    at = next((i for i, row in enumerate(trace.rows) if row.get("step") == step), None)
    if at is None:
        raise ValueError(f"step {step} is not in this episode: it has steps 0 to {trace.rows[-1].get('step')}")
    row, hz = trace.rows[at], trace.about.get("control_hz") or 0
    lines = [f"step {step}" + (f" ({step / hz:.2f} s)" if hz else "") + _cue(row)]
    for name in trace.memories:
        if _ticks(trace, name):
            lines += _gate_lines(trace, name, row)
    plan = next((i for i in range(at, -1, -1) if trace.rows[i].get("planned")), None)
    if plan is None:
        return [*lines, "nothing was planned by then"]
    planned = trace.rows[plan]
    lines.append(f"the chunk in force was planned at step {planned['step']}, {step - planned['step']} steps before")
    for name in trace.memories:
        lines += _plan_lines(trace, name, planned)
    if trace.memories and not planned.get("weight"):
        lines.append("so the policy planned as without a memory, bit for bit")
    return lines + _command_lines(row)


def segments_of(trace: TickTrace, step: int | None = None) -> dict[str, list[int]]:
    """Ids of the stored segments behind proposals, by the store that they are in; of the plan in force at a step."""
    found: dict[str, list[int]] = {}
    rows = [row for row in trace.rows if row.get("planned") and (step is None or row["step"] <= step)]
    for name in trace.memories:
        store = str(_settings(trace, name).get("store", ""))
        for row in rows if step is None else rows[-1:]:
            for number in row.get(f"{name}.retrieved") or []:
                known = found.setdefault(store, [])
                if number not in known:
                    known.append(number)
    return found


def _ticks(trace: TickTrace, name: str) -> bool:
    return f"{name}.gate" in trace.columns


def _settings(trace: TickTrace, name: str) -> dict[str, Any]:
    found: dict[str, Any] = trace.about.get("memories", {}).get(name, {})
    return found


def _cue(row: dict[str, Any]) -> str:
    if row.get("cue_over") is None:
        return ""
    if row["cue_over"]:
        return "; the cue can no longer be seen"
    return "; the cue is in view" if row.get("cue_known") else "; the cue has not been shown in full"


def _writes(trace: TickTrace, name: str) -> Iterator[tuple[int, str]]:
    """A line for each stretch of steps at which a memory was written."""
    if not _ticks(trace, name):
        return
    surprises = [value for value in trace.column(f"{name}.surprise") if value is not None]
    usual = float(np.median(surprises)) if surprises else 0.0
    for wrote, group in groupby(trace.rows, key=lambda row: bool(row.get(f"{name}.wrote"))):
        rows = list(group)
        if not wrote:
            continue
        first, last = rows[0]["step"], rows[-1]["step"]
        where = f"step {first}" if len(rows) == 1 else f"steps {first} to {last}"
        gate = _range([row[f"{name}.gate"] for row in rows])
        surprise = _range([row[f"{name}.surprise"] for row in rows])
        told = f"surprise {surprise}, {usual:.2f} in the median step"
        yield first, f"{where}: {name} was written: gate {gate}, above {_GATE:g}; {told}{_cue(rows[0])}"


def _stretches(trace: TickTrace) -> Iterator[tuple[int, int, int, str]]:
    """First and last step, number of plans and what they have in common, of plans that follow each other."""
    plans = [row for row in trace.rows if row.get("planned")]
    for _, group in groupby(plans, key=lambda row: tuple(_kind(row, name) for name in trace.memories)):
        rows = list(group)
        texts = [_common(trace, name, rows) for name in trace.memories]
        if texts:
            yield rows[0]["step"], rows[-1]["step"], len(rows), "; ".join(texts)


def _kind(row: dict[str, Any], name: str) -> str:
    return str(row.get(f"{name}.abstained") or "proposed")


def _common(trace: TickTrace, name: str, rows: Sequence[dict[str, Any]]) -> str:
    kind = _kind(rows[0], name)
    if kind == "proposed":
        weights = [weight for weight, _ in (_weight(row, name) for row in rows)]
        return f"{name} proposed {_weight(rows[0], name)[1]} with weight {_range(weights)}"
    return f"{name} abstained ({kind}): {_WHY.get(kind, kind)}{_held_against(trace, name, rows, kind)}"


def _held_against(trace: TickTrace, name: str, rows: Sequence[dict[str, Any]], kind: str) -> str:
    """The recorded figures behind an abstention, and what they were held against."""
    settings = _settings(trace, name)
    if kind == "unsure" and _ticks(trace, name):
        limit = settings.get("abstain_below")
        found = _range([row.get(f"{name}.confidence") for row in rows])
        return f", {found}" + (f" where {limit:.2f} is asked for" if limit is not None else "")
    if kind == "unknown":
        similar = [row.get(f"{name}.similarity") for row in rows]
        if not any(value is not None for value in similar):
            return "; nothing is stored for this instruction"
        limit = settings.get("threshold")
        return f", {_range(similar, 3)}" + (f" where {limit:.3f} is asked for" if limit is not None else "")
    if kind == "disagree" and "agreement" in settings:
        return f": less than {100 * settings['agreement']:.0f} % of their weight lies within {settings['reach']:g}"
    return ""


def _weight(row: dict[str, Any], name: str) -> tuple[float, str]:
    """The largest weight of what was proposed, and what that was."""
    parts = [(row.get(f"{name}.{kind}_weight") or 0.0, f"a {kind}") for kind in ("context", "chunk")]
    if offset := row.get(f"{name}.offset"):
        return 1.0, f"an offset of {offset:.2g}"
    return max(parts)


def _gate_lines(trace: TickTrace, name: str, row: dict[str, Any]) -> list[str]:
    gate, surprise = row.get(f"{name}.gate"), row.get(f"{name}.surprise")
    if gate is None or surprise is None:
        return [f"{name} did not see this step"]
    if row.get(f"{name}.refused"):
        return [f"{name} was not written: {_WHY['refused']}"]
    all_ = np.array([value for value in trace.column(f"{name}.surprise") if value is not None])
    rank = f"larger than at {100 * float((all_ < surprise).mean()):.0f} % of the episode's steps"
    told = f"surprise {surprise:.2g}, {rank}; confidence {row[f'{name}.confidence']:.2f}"
    if row.get(f"{name}.wrote"):
        return [f"{name} was written: gate {gate:.2f}, above {_GATE:g}; {told}"]
    return [
        f"{name} was not written: gate {gate:.2f}, and a write takes more than {_GATE:g}; {told}",
    ]


def _plan_lines(trace: TickTrace, name: str, row: dict[str, Any]) -> list[str]:
    kind = _kind(row, name)
    found = []
    if kind == "proposed":
        weight, what = _weight(row, name)
        found.append(f"{name} proposed {what} with weight {weight:.2f}")
    else:
        found.append(f"{name} abstained: {_WHY.get(kind, kind)}{_held_against(trace, name, [row], kind)}")
    similarity = row.get(f"{name}.similarity")
    if similarity is not None:
        ids = row.get(f"{name}.retrieved") or []
        behind = f"segments {' '.join(map(str, ids))}" if ids else "no segment"
        found.append(
            f"{name}: the nearest stored state has similarity {similarity:.3f}; {behind} behind the proposal, spread "
            f"{row.get(f'{name}.spread') or 0:.2g}; likeness to failures {row.get(f'{name}.failure') or 0:.2f}"
        )
    return found


def _command_lines(row: dict[str, Any]) -> list[str]:
    found = []
    if row.get("command"):
        found.append("command " + " ".join(f"{value:.2f}" for value in row["command"]))
    if row.get("clipped"):
        kinds = f" by limits of {row['limits'].replace(' ', ', ')}" if row.get("limits") else ""
        found.append(f"clipped by {row['clipped']:.2g}{kinds}")
    if row.get("mode") not in (None, "run"):
        found.append(f"the robot's controller was in mode {row['mode']}: the command came from no fresh chunk")
    times = {name.removesuffix("_ms"): row[name] for name in row if name.endswith("_ms") and row[name] is not None}
    if times:
        found.append("took " + ", ".join(f"{part} {ms:.1f}" for part, ms in times.items()) + " ms")
    return found


def _robot(trace: TickTrace) -> Iterator[tuple[int, str]]:
    """Changes of the robot's mode."""
    before = None
    for row in trace.rows:
        mode = row.get("mode")
        if mode is not None and mode != before:
            if before is not None or mode != "run":
                yield row["step"], f"the robot's controller went to mode {mode}"
            before = mode


def _robot_in_all(trace: TickTrace) -> Iterator[str]:
    """How long the robot had no fresh command, and how long chunks took to come."""
    modes = Counter(mode for mode in trace.column("mode") if mode)
    idle = [f"{mode} {count}" for mode, count in modes.most_common() if mode != "run"]
    if idle:
        steps, words = sum(modes.values()), ", ".join(idle)
        yield f"the robot's controller was not in mode run at {steps - modes['run']} of {steps} steps: {words}"
    came = [ms for ms in trace.column("plan_ms") if ms is not None]
    if came:
        yield f"a chunk came {np.median(came):.0f} ms after it was requested in the median, {max(came):.0f} at most"
    elif modes and any(trace.column("planned")):
        yield "no chunk came to the robot before it was requested again"


def _range(values: Sequence[float | None], digits: int = 2) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "unknown"
    low, high = f"{min(known):.{digits}f}", f"{max(known):.{digits}f}"
    return low if low == high else f"{low} to {high}"
