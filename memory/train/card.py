"""The card of a gate that was taught from demonstrations: what it was trained on, and what held-out ones say of it."""

import textwrap
from pathlib import Path

from vlamem.core.pages import WIDTH
from vlamem.memory.train.demonstrations import DemonstrationData
from vlamem.memory.train.swap import TaskReport
from vlamem.memory.train.taught import TaughtGate
from vlamem.memory.weights import load_weights

__all__ = ["NOTHING", "card_path", "table", "verdict", "write_card"]

NOTHING = "nothing in these demonstrations needs a memory"
_FEW = 10
"""With fewer held-out episodes of a task the verdict says so; one demonstration in ten is held out."""
_HEAD = (
    "task", "held out", "bare", "memory", "gain", "95 % interval", "another's state", "95 % interval", "abstains",
    "writes an episode", "",
)  # fmt: skip


def card_path(gate: Path) -> Path:
    """Where the card of a gate's weights file is."""
    return gate.with_suffix(".card.md")


def verdict(made: TaughtGate) -> str:
    """One sentence: in which tasks something is remembered, and whether there was much to tell it by."""
    few = min(found.episodes for found in made.reports.values())
    doubt = f"; {few} held-out episodes of a task are few to tell by, record more of it" if few < _FEW else ""
    if made.remembering:
        return (
            f"remembers in {len(made.remembering)} of {len(made.reports)} tasks: {', '.join(made.remembering)}{doubt}"
        )
    return f"{NOTHING}: the gate neither writes nor proposes{doubt}"


def table(made: TaughtGate) -> list[str]:
    """Lines of a Markdown table, one a task."""
    rows = [_HEAD, ("---",) * len(_HEAD), *(_row(task, found) for task, found in made.reports.items())]
    return [f"| {' | '.join(row)} |" for row in rows]


def _row(task: str, found: TaskReport) -> tuple[str, ...]:
    return (
        task,
        str(found.episodes),
        f"{found.bare:.4f}",
        f"{found.injected:.4f}",
        f"{found.gain:+.4f}",
        f"{found.gain_low:+.4f} to {found.gain_high:+.4f}",
        f"{found.kept:+.4f}",
        f"{found.kept_low:+.4f} to {found.kept_high:+.4f}",
        f"{100 * (1 - found.confident):.0f} %",
        f"{found.writes:.1f}",
        "remembers" if found.remembers else "nothing shown",
    )


def write_card(made: TaughtGate, data: DemonstrationData, seed: int) -> Path:
    """Writes the card beside the gate's file."""
    header, _ = load_weights(made.path)
    count = ", ".join(f"{task} {n}" for task, n in data.count.items())
    minutes = made.taught.seconds / 60
    paragraphs = (
        f"# {made.path.name}",
        f"Design {header.design}, for policy {header.trained_for.policy} ({header.trained_for.fingerprint}); made by",
        f"    {header.command}",
        f"Trained on demonstrations of {data.meta.suite}: {count}. Of ten of a task eight are trained on, one is for "
        f"the confidence and one is held out. {made.taught.updates} updates in {minutes:.1f} min, seed {seed}. No "
        "sentence that tells an answer was read; what trained it is the policy's own imitation loss.",
        f"**It {verdict(made)}.**" if made.remembering else f"**{verdict(made).capitalize()}.**",
        "Held-out demonstrations, at moments of choice (where samples of the bare policy disagree): the policy's loss "
        "bare and with the memory where it does not abstain; what is gained; and how much higher the loss is with "
        "another episode's state in place of its own. Intervals are Student's t over episodes; something is remembered "
        "where something is gained and the lower end of the second interval is above 0.",
        "\n".join(table(made)),
    )
    kept = ("#", "    ", "|")
    text = "\n\n".join(p if p.startswith(kept) else textwrap.fill(p, WIDTH) for p in paragraphs)
    path = card_path(made.path)
    path.write_text(text + "\n", encoding="utf-8")
    return path
