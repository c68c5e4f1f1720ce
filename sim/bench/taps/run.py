"""What linear probes find at each tap of frozen policies: the page docs/results/taps.md."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vlamem.policies.probe import Recording, Told, probe
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, label_of, load_policy
from vlamem.sim.bench.taps.options import TapsBench
from vlamem.sim.record.probe import record
from vlamem.sim.results.pages import Figure, write_result_page

_INTRODUCTION = (
    "# Where a memory's feature is read",
    "",
    "A memory sees what one place of the frozen network puts out, pooled, beside the normalised state. Here a ridge",
    "probe looks for three things in that feature, tested on episodes that it was not trained on: the cue of a memory",
    "task while it can be seen (share of frames told right, and what the commonest class would get), the robot's state",
    "and how much of the episode has passed (R2). A tick reads the feature alone, a plan makes a chunk from an",
    "observation without a memory; both are medians of one row.",
)
_RANDOM = (
    "",
    "The policies of tests/lerobot_cases.py are lerobot's own classes at small sizes with random weights: their",
    "numbers say what depth and pooling keep, not what training adds. For a trained checkpoint run the same command.",
)


@dataclass(frozen=True)
class Row:
    """One tap of one policy.

    Attributes:
        policy: as the page calls it.
        told: what was found, by cue.
        default: whether this is where the feature is read when nothing is said.
    """

    policy: str
    told: dict[str, Told]
    default: bool


def taps_of(policy: FrozenPolicy, poolings: tuple[str, ...]) -> Iterator[tuple[str, FrozenPolicy, bool]]:
    """Name of each tap, the policy that reads its feature there, and whether that is its default.

    A tap whose outputs a pooling does not fit is left out.
    """
    from vlamem.policies.lerobot.policy import LeRobotPolicy
    from vlamem.policies.lerobot.taps import GridError

    if not isinstance(policy, LeRobotPolicy):
        yield "its encoder", policy, True
        return
    for alias in policy.family.taps:
        for pooling in poolings:
            name = f"{alias}:{pooling}"
            try:
                other = policy.tapped(name)
            except GridError:
                continue
            yield name, other, name == policy.tap.name


def run(bench: TapsBench, command: str, say: Callable[[str], None]) -> tuple[Path, Path]:
    """Probes every tap and writes taps.md and taps.json, with the `command`; returns the two files.

    Raises PolicyError for a policy that is not there, ProbeError for a cue that a task does not show.
    """
    recordings: dict[tuple[int, tuple[str, ...], str, int], Recording] = {}
    sources = [(name, find_policy(name)) for name in bench.policies]
    rows: list[Row] = []
    for name, source in sources:
        policy = load_policy(source)
        spec, history = policy.spec, getattr(policy, "history", 1)
        for task, cue in zip(bench.tasks, bench.cues, strict=True):
            kind = (spec.image_size, spec.cameras, task, history)
            if kind not in recordings:
                say(f"{task}: {bench.episodes} episodes at {spec.image_size} pixels")
                recordings[kind] = record(spec, task, cue, bench.episodes, bench.stride, history)
        for tap, tapped, default in taps_of(policy, bench.poolings):
            say(f"{label_of(name)}: {tap}")
            told = {
                cue: probe(tapped, recordings[spec.image_size, spec.cameras, task, history], tap)
                for task, cue in zip(bench.tasks, bench.cues, strict=True)
            }
            rows.append(Row(label_of(name), told, default))
    return write_result_page("taps", command, figures_of(rows), "\n".join(page_of(rows, bench)), bench.results)


def figures_of(rows: list[Row]) -> dict[str, Figure]:
    """Share of frames in which each cue is told, and the median tick [ms], by policy and tap."""
    found: dict[str, Figure] = {}
    for row in rows:
        first = next(iter(row.told.values()))
        place = f"{row.policy}_{first.tap.replace(' ', '_').replace(':', '_')}"
        for cue, told in row.told.items():
            found[f"{cue}_{place}"] = Figure(told.cue, told.cue_n)
        found[f"tick_ms_{place}"] = Figure(first.milliseconds)
    return found


def page_of(rows: list[Row], bench: TapsBench) -> list[str]:
    """The page's lines."""
    cues = ", ".join(f"{cue} in {task}" for task, cue in zip(bench.tasks, bench.cues, strict=True))
    lines = [*_INTRODUCTION, "", f"Cues: {cues}; {bench.episodes} episodes of each by the scripted expert."]
    if any(name.startswith("lerobot_cases:") for name in bench.policies):
        lines += _RANDOM
    columns = ["policy", "tap", "size", "tick ms", "plan ms", *bench.cues, "state R2", "progress R2"]
    lines += ["", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for row in rows:
        first = next(iter(row.told.values()))
        found = [f"{100 * t.cue:.0f} % (chance {100 * t.chance:.0f}, n {t.cue_n})" for t in row.told.values()]
        state = sum(t.proprioception for t in row.told.values()) / len(row.told)
        progress = sum(t.progress for t in row.told.values()) / len(row.told)
        tap = f"**{first.tap}**" if row.default else first.tap
        cells = [row.policy, tap, str(first.size), f"{first.milliseconds:.1f}", f"{first.plan_milliseconds:.1f}"]
        lines.append(f"| {' | '.join([*cells, *found, f'{state:.2f}', f'{progress:.2f}'])} |")
    return [*lines, "", "Bold: where the feature is read when nothing is said."]
