"""The synthetic benchmark: every arm of every family, resumable arm by arm, and the page docs/results/synthetic.md."""

from pathlib import Path
from typing import Any

from vlamem.core.bench import Page, Progress
from vlamem.sim.bench.synthetic.arms import ARMS, BY_NAME
from vlamem.sim.bench.synthetic.options import SyntheticBench
from vlamem.sim.bench.synthetic.plots import accuracy_against_writes, gate_over_time
from vlamem.sim.bench.synthetic.presets import MAIN, PRESETS, Preset
from vlamem.sim.bench.synthetic.report import page_of
from vlamem.sim.bench.synthetic.train import Report, done_at, marks_of, run_arm


def run(options: SyntheticBench, command: str, progress: Progress) -> Page:
    """Trains and scores what is missing, and gives the page.

    Raises FileNotFoundError when only the page is asked for and no arm is finished.
    """
    folder, preset = options.out / options.preset, PRESETS[options.preset]
    found = finished(preset, folder) if options.only_page else play(preset, folder, command, progress.say)
    results = options.results if options.preset == "full" else folder
    plots = []
    if "events" in found:
        plots.append(accuracy_against_writes(found, results / "synthetic_accuracy_against_writes.png"))
        if "trace" in found["events"].get("learned", {}):
            plots.append(gate_over_time(found["events"]["learned"]["trace"], results / "synthetic_gate_over_time.png"))
    return page_of(found, results, plots, notes=options.preset == "full")


def finished(preset: Preset, folder: Path) -> dict[str, dict[str, Any]]:
    """The arms of a preset that are done, in the form of `play`.

    Raises FileNotFoundError when there is none.
    """
    found: dict[str, dict[str, Any]] = {}
    for family in preset.families:
        for arm in ARMS:
            done = done_at(folder / family / f"{arm.name}.json", marks_of(preset, arm, family))
            if arm.name in preset.arms and done is not None:
                found.setdefault(family, {})[arm.name] = done
    if not found:
        raise FileNotFoundError(f"{folder} holds no finished arm: run 'vlamem bench synthetic' without --only-page")
    return found


def play(preset: Preset, folder: Path, command: str, report: Report) -> dict[str, dict[str, Any]]:
    """Every family's every arm, {family: {arm: what run_arm gives}}; the families' main arms come first.

    What was compiled is kept beside the arms: seven tenths of a short run are compilation.
    """
    from jax.experimental.compilation_cache.compilation_cache import set_cache_dir

    set_cache_dir(str(folder.parent / "compiled"))
    found: dict[str, dict[str, Any]] = {family: {} for family in preset.families}
    for names in (MAIN, tuple(a.name for a in ARMS if a.name not in MAIN)):
        for family in preset.families:
            for name in names:
                if name in preset.arms and family in BY_NAME[name].families:
                    found[family][name] = run_arm(BY_NAME[name], family, preset, folder, command, report)
    return found
