"""What the page draws of an episode, by control steps: a robot's need not begin at 0, and some are missing."""

from typing import Any

from vlamem.core.tick_trace import TickTrace, columns_of
from vlamem.sim.report.shown import timeline

STEPS = [7, 8, 11, 12, 20]


def trace() -> TickTrace:
    rows: list[dict[str, Any]] = [
        {"step": step, "mode": mode, "phase": phase, "cue_known": True, "cue_over": step >= 11,
         "planned": step in (8, 12), "aura.gate": step / 100, "aura.wrote": step == 11,
         "clipped": 0.1 if step == 20 else 0.0, "limits": "speed" if step == 20 else None, "command": [step / 10]}
        for step, mode, phase in zip(STEPS, ("wait", "run", "run", "hold", "hold"), (0, 0, 1, 1, 1), strict=True)
    ]  # fmt: skip
    for row, retrieved in ((rows[1], [3, 5]), (rows[3], [4])):
        row |= {"weight": 0.5, "success.chunk_weight": 0.5, "success.abstained": "", "success.retrieved": retrieved}
    return TickTrace(columns_of({"aura": (True, False), "success": (False, True)}), rows)


def test_what_happened_is_at_its_control_step_and_not_at_its_row() -> None:
    line = timeline(trace())
    assert (line["numbers"], line["steps"]) == (STEPS, 5)
    assert line["planned"] == [8, 12]
    assert line["clipped"] == [20]
    assert line["limits"] == {20: "speed"}
    assert (line["cue_over"], line["phases"]) == (11, [11])
    assert line["memories"][0]["wrote"] == [11]
    assert line["modes"] == [
        {"from": 7, "to": 8, "mode": "wait"},
        {"from": 8, "to": 12, "mode": "run"},
        {"from": 12, "to": 21, "mode": "hold"},
    ]


def test_lists_have_an_entry_a_row_or_a_plan() -> None:
    line = timeline(trace())
    aura, success = line["memories"]
    assert aura["gate"] == [step / 100 for step in STEPS]
    assert line["commands"] == [[step / 10 for step in STEPS]]
    assert (success["retrieved"], success["weight"]) == ([[3, 5], [4]], [0.5, 0.5])
