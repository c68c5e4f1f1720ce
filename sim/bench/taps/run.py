"""What linear probes find at each tap of frozen policies: the page docs/results/taps.md."""

from collections.abc import Iterator
from dataclasses import dataclass

from vlamem.core.bench import Page, Progress
from vlamem.core.pages import render
from vlamem.policies.probe import ProbeResult, Recording, probe
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import find_policy, label_of, load_policy
from vlamem.sim.bench.taps.options import TapsBench
from vlamem.sim.record.probe import record
from vlamem.sim.results.pages import Figure


@dataclass(frozen=True)
class Row:
    """One tap of one policy.

    Attributes:
        policy: as the page calls it.
        results: of the probes, by cue.
        default: whether this is where the feature is read by default.
    """

    policy: str
    results: dict[str, ProbeResult]
    default: bool

    @property
    def first(self) -> ProbeResult:
        """Of the first cue: tap, size and times are the same for all."""
        return next(iter(self.results.values()))

    @property
    def proprioception(self) -> float:
        """Mean R2 over the cues."""
        return sum(t.proprioception for t in self.results.values()) / len(self.results)

    @property
    def progress(self) -> float:
        """Mean R2 over the cues."""
        return sum(t.progress for t in self.results.values()) / len(self.results)


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


def run(options: TapsBench, command: str, progress: Progress) -> Page:
    """Probes every tap, and gives the page.

    Raises PolicyError for a policy that is not there, ProbeError for a cue that a task does not show.
    """
    bench = options.sized()
    recordings: dict[tuple[int, tuple[str, ...], str, int], Recording] = {}
    sources = [(name, find_policy(name)) for name in bench.policies]
    rows: list[Row] = []
    for name, source in sources:
        policy = load_policy(source)
        spec, history = policy.spec, policy.history
        for task, cue in zip(bench.tasks, bench.cues, strict=True):
            kind = (spec.image_size, spec.cameras, task, history)
            if kind not in recordings:
                progress.say(f"{task}: {bench.episodes} episodes at {spec.image_size} pixels")
                recordings[kind] = record(spec, task, cue, bench.episodes, bench.stride, history)
        for tap, tapped, default in taps_of(policy, bench.poolings):
            progress.say(f"{label_of(name)}: {tap}")
            results = {
                cue: probe(tapped, recordings[spec.image_size, spec.cameras, task, history], tap)
                for task, cue in zip(bench.tasks, bench.cues, strict=True)
            }
            rows.append(Row(label_of(name), results, default))
    return page_of(rows, bench)


def figures_of(rows: list[Row]) -> dict[str, Figure]:
    """Share of frames in which each cue is classified right, and the median tick [ms], by policy and tap."""
    found: dict[str, Figure] = {}
    for row in rows:
        place = f"{row.policy}_{row.first.tap.replace(' ', '_').replace(':', '_')}"
        for cue, result in row.results.items():
            found[f"{cue}_{place}"] = Figure(result.cue, result.cue_n)
        found[f"tick_ms_{place}"] = Figure(row.first.milliseconds)
    return found


def page_of(rows: list[Row], bench: TapsBench) -> Page:
    """The page of every tap that was probed."""
    tests = any(name.startswith("lerobot_cases:") for name in bench.policies)
    text = render("vlamem.sim.bench.taps", "page.md.j2", rows=rows, bench=bench, of_tests=tests)
    return Page("taps", text, figures_of(rows), bench.results)
