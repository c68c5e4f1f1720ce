"""`vlamem probe`: which tap of a frozen policy carries the cue, the robot's state and the progress."""

from dataclasses import dataclass

from vlamem.scripts.config import load_config

_HELP = """Trains linear probes on features of the scripted expert's episodes and prints one line a tap.

Choose the cheapest tap that carries the cue, and give it to the policy: --policy 'FOLDER?tap=connector:grid2'.

example: vlamem probe --policy checkpoints/smolvla --taps vision connector vision:grid2 prefix
         vlamem probe --policy tiny --task recall_colour --cue lamp_colour
"""


@dataclass(frozen=True)
class Args:
    """Options of `vlamem probe`."""

    policy: str
    """A checkpoint of lerobot (folder or hub id), tiny, a .safetensors file, or package.module:FACTORY."""
    taps: tuple[str, ...]
    """Taps of a checkpoint: aliases such as vision, or modules, with :mean, :max, :grid2 or :grid4."""
    task: str
    """Memory task of the tabletop suite."""
    cue: str
    """Privileged category: lamp_colour, pea_place, button_lit, block_on_pad, go_light or touched_colour."""
    episodes: int
    """Initial states, at least 5."""
    stride: int
    """Every so many control steps a frame."""


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the table is printed."""
    args = load_config(Args, "probe", arguments, _HELP)
    from rich.console import Console
    from rich.table import Table

    from vlamem.policies.probe import probe
    from vlamem.policies.registry import find_policy, is_lerobots, load_policy
    from vlamem.sim.record.probe import record

    if args.taps and not is_lerobots(args.policy):
        raise ValueError(f"policy '{args.policy}' has no taps to choose from, only checkpoints of lerobot have")
    mark = "&" if "?" in args.policy else "?"
    names = {tap: f"{args.policy}{mark}tap={tap}" for tap in args.taps} or {"": args.policy}
    recording = None
    table = Table(title=f"{args.policy}: {args.task}, {args.episodes} episodes")
    for title in (
        "tap",
        "size",
        "ms a tick",
        "ms a plan",
        f"{args.cue} (chance)",
        "p",
        "proprioception R2",
        "progress R2",
    ):
        table.add_column(title, justify="left" if title == "tap" else "right")
    for tap, name in names.items():
        policy = load_policy(find_policy(name))
        if recording is None:
            history = getattr(policy, "history", 1)
            recording = record(policy.spec, args.task, args.cue, args.episodes, args.stride, history)
        found = probe(policy, recording, tap or policy.spec.name)
        table.add_row(
            found.tap,
            str(found.size),
            f"{found.milliseconds:.1f}",
            f"{found.plan_milliseconds:.1f}",
            f"{100 * found.cue:.0f} % ({100 * found.chance:.0f} %), n {found.cue_n}",
            f"{found.cue_p:.2g}",
            f"{found.proprioception:.2f}",
            f"{found.progress:.2f}",
        )
    Console(width=120, soft_wrap=True).print(table)
    return 0
