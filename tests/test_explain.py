"""`vlamem explain`: words of recorded quantities, and a plan that is made again without some steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_cases import save_gate
from report_cases import write_run, write_served
from test_rollout_memory import HEAD, Wide
from test_tick_traces import config

from vlamem.core.tick_trace import TickTrace, columns_of, read_trace, trace_path
from vlamem.memory.designs.aura import AuraConfig
from vlamem.memory.weights import identity
from vlamem.scripts.main import main
from vlamem.sim.report.explain import explain_episode, explain_step
from vlamem.sim.rollout.config import PlanError
from vlamem.sim.rollout.counterfactual import config_of, replan
from vlamem.sim.rollout.run import rollout


class Steered(Wide):
    """The point-mass policy, moved by what is proposed."""

    def sample(self, encoding: Any, noise: Any, proposal: Any = None) -> Any:
        chunk = super().sample(encoding, noise)
        return chunk if proposal is None else chunk + proposal.chunk_weight[:, None, None] * proposal.chunk


def steered() -> Steered:
    """Factory for `--policy`."""
    return Steered()


def trace(**changed: Any) -> TickTrace:
    """Twelve steps, planned at 0, 4 and 8; written at 2 and 3; the first plan unsure, a store that knows nothing."""
    rows: list[dict[str, Any]] = []
    for i in range(12):
        wrote = i in (2, 3)
        row: dict[str, Any] = {"step": i, "planned": i % 4 == 0, "command": [0.5, -1.0], "encode_ms": 2.0}
        row |= {"aura.gate": 0.9 if wrote else 0.1 * i / 12, "aura.wrote": wrote, "aura.refused": False}
        row |= {"aura.surprise": 3.0 if wrote else 0.5, "aura.confidence": 0.9 if i > 3 else 0.2}
        if i % 4 == 0:
            sure = float(i > 3)
            row |= {"weight": sure, "aura.context_weight": sure, "aura.chunk_weight": 0.0, "aura.offset": 0.0}
            row |= {"aura.abstained": "" if sure else "unsure"}
            row |= {"success.abstained": "unknown", "success.similarity": 0.7 if i else None, "success.retrieved": []}
            row |= {"success.chunk_weight": 0.0, "success.context_weight": 0.0, "success.offset": 0.0}
        rows.append(row | changed.get(f"at{i}", {}))
    settings = {"aura": {"abstain_below": 0.5}, "success": {"threshold": 0.94}}
    columns = columns_of({"aura": (True, False), "success": (False, True)})
    return TickTrace(columns, rows, {"control_hz": 20.0, "memories": settings})


def test_an_episode_is_told_in_stretches_with_what_figures_were_held_against() -> None:
    lines = explain_episode(trace())
    assert lines[0] == (
        "step 0: aura abstained (unsure): its confidence was too low, 0.20 where 0.50 is asked for; success abstained "
        "(unknown): no stored state was similar enough; nothing is stored for this instruction"
    )
    assert lines[1] == "steps 2 to 3: aura was written: gate 0.90, above 0.5; surprise 3.00, 0.50 in the median step"
    assert lines[2] == (
        "steps 4 to 8, 2 plans: aura proposed a context with weight 1.00; success abstained (unknown): no stored state "
        "was similar enough, 0.700 where 0.940 is asked for"
    )
    assert len(lines) == 3


def test_a_memory_that_never_wrote_says_how_near_it_came() -> None:
    never = {f"at{i}": {"aura.gate": 0.4 if i == 3 else 0.1, "aura.wrote": False} for i in (2, 3)}
    assert explain_episode(trace(**never))[-1] == "aura was never written: its gate came to 0.40 at most, at step 3"
    assert explain_episode(TickTrace({}, [{"step": 0}])) == ["no memory was used: the policy alone decided"]


def test_a_step_names_gate_plan_in_force_limits_and_times() -> None:
    more = {"clipped": 0.25, "limits": "speed step", "mode": "hold"}
    lines = explain_step(trace(at6=more), 6)
    assert lines[0] == "step 6 (0.30 s)"
    assert lines[1].startswith("aura was not written: gate 0.05, and a write takes more than 0.5; surprise 0.5, larger")
    assert lines[2] == "the chunk in force was planned at step 4, 2 steps before"
    assert "aura proposed a context with weight 1.00" in lines
    assert "clipped by 0.25 by limits of speed, step" in lines
    assert "the robot's controller was in mode hold: the command came from no fresh chunk" in lines
    assert lines[-1] == "took encode 2.0 ms"
    assert "so the policy planned as without a memory, bit for bit" in explain_step(trace(), 2)
    with pytest.raises(ValueError, match="step 12 is not in this episode: it has steps 0 to 11"):
        explain_step(trace(), 12)


def test_the_verb_explains_the_first_failure_and_a_robots_episode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", "aura", 3, 0.0, videos=0)
    assert main(["explain", str(run)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("recall_colour 0: failure after ")
    assert "steps 4 to 8: aura was written" in said
    assert "segments 3 17 are of a store that the trace does not name, which is not here" in said
    served = write_served(tmp_path / "served", 2)
    assert main(["explain", str(served), "--task", "right-arm", "--episode", "2", "--step", "33"]) == 0
    assert "in mode hold" in capsys.readouterr().out
    assert main(["explain", str(served), "--task", "left-arm", "--episode", "1"]) == 0
    said = capsys.readouterr().out
    steps = len(read_trace(trace_path(served, "left-arm", 1)).rows)
    assert f"was not in mode run at 8 of {steps} steps: hold 5, wait 3" in said
    assert "no chunk came to the robot before it was requested again" in said


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--task", "fly"], "has no task 'fly': choose one of recall_colour, shell_game"),
        (["--episode", "1"], "has 2 tasks: give --task, one of recall_colour, shell_game"),
        (["--task", "shell_game", "--episode", "9"], "has no episode 9: it has 0 to 1"),
        (["--step", "9999"], "step 9999 is not in this episode"),
        (["--without", "1", "2"], "--without changes a plan: give the --step"),
        (
            ["--step", "9", "--without", "8", "8"],
            "expected steps from 0 on and before the plan, at step 8",
        ),
    ],
)
def test_what_there_is_not_is_named(
    words: list[str], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", "aura", 2, 0.0, videos=0)
    assert main(["explain", str(run), *words]) == 2
    assert error in capsys.readouterr().err


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an untrained gate, which proposes at every plan."""
    folder = tmp_path_factory.mktemp("played")
    gate = save_gate(folder / "gate.safetensors", AuraConfig(16, HEAD), identity(Wide().spec, None), {})
    memory = (f"aura:{gate}?inject=chunk&abstain_below=0&gate=always",)
    rollout(config(folder / "run", policy="test_explain:steered", memory=memory, episodes=1))
    return folder / "run"


def test_a_plan_that_is_made_again_is_the_recorded_one_and_another_without_what_memory_saw(played: Path) -> None:
    recorded = read_trace(trace_path(played, "near", 0))
    again = config_of(played, configuration(played))
    plan = [row["step"] for row in recorded.rows if row["planned"]][2]
    here = again, "near", 0, recorded.column("command"), plan
    same, other = replan(*here), replan(*here, unseen=range(plan))
    executed = np.asarray(recorded.column("command")[plan : plan + 4], np.float32)
    np.testing.assert_array_equal(same.chunk[: len(executed)], executed)
    assert same.columns["aura.chunk_weight"] == recorded.rows[plan]["aura.chunk_weight"]
    np.testing.assert_array_equal(same.columns["aura.chunk"], np.float32(recorded.rows[plan]["aura.chunk"]))
    assert np.abs(other.chunk - same.chunk).max() > 0
    with pytest.raises(PlanError, match="nothing is planned at step 1 of near 0"):
        replan(*here[:4], 1)


def test_the_verb_says_what_would_have_differed(played: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(played), "--episode", "0", "--step", "9", "--without", "0", "7"]) == 0
    said = capsys.readouterr().out
    assert "without steps 0 to 7 the plan at step 8 would have differed by" in said
    assert "from the executed commands" not in said


def test_a_run_of_a_memory_that_has_learned_is_not_played_again(played: Path, tmp_path: Path) -> None:
    known = configuration(played) | {"memory": [f"success:{tmp_path / 'm.db'}"]}
    with pytest.raises(PlanError, match="has learned from later episodes"):
        config_of(played, known)
    with pytest.raises(PlanError, match="of another version"):
        config_of(played, {"tasks": ["near"]})


def configuration(run: Path) -> dict[str, Any]:
    from vlamem.sim.report.runs import read_runs

    return dict(replace(read_runs([run])[0]).configuration)
