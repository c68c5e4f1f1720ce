"""`vlamem bench NAME`: measures one thing and writes docs/results/NAME.md with its machine-readable twin."""

import difflib
import importlib
import sys

BENCHES = {
    "memory-panel": "AURA-Mem and its controls on a frozen policy in closed loop",
    "patrol": "one stream of 100,000 control steps without a reset: recall, state and process memory along it",
    "skills": "what the frozen policy does alone on the tabletop suite",
    "synthetic": "AURA-Mem and its controls on synthetic streams",
    "kernels": "latency, throughput and bytes of the memory update",
    "deploy": "a server and a robot as two processes, quiet and under faults",
    "endurance": "bytes that a durable memory writes",
    "deployment": "hundreds of trials under a local shift, with a success memory that fills",
    "libero": "a frozen policy on LIBERO alone, with AURA-Mem, and with a success memory",
    "libero-experts": "which LIBERO tasks the scripted experts solve",
    "taps": "where in a frozen policy a cue can be read, and what a tick costs there",
    "throughput": "episodes an hour beside lerobot-eval, and where the time goes",
}
"""One line for each module bench_NAME of this folder."""


def main(arguments: list[str]) -> int:
    """Runs the bench named first; 2 when there is none of that name."""
    lines = "\n".join(f"  {name:<13} {line}" for name, line in BENCHES.items())
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: vlamem bench NAME [options]\n\n{lines}\n\nexample: vlamem bench kernels --preset quick")
        return 0 if arguments else 2
    name = arguments[0]
    if name not in BENCHES:
        near = difflib.get_close_matches(name, BENCHES, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(BENCHES)}"
        print(f"vlamem bench: unknown bench '{name}': {hint}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"vlamem.scripts.bench_{name.replace('-', '_')}").main(arguments[1:]))
