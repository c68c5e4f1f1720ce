"""sim/bench/taps: every tap of a checkpoint beside a policy that has one, and the page."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("lerobot")
pytest.importorskip("transformers")

from lerobot_cases import build, loaded, observation

from vlamem.policies.lerobot.source import CheckpointError
from vlamem.scripts.config import preset
from vlamem.scripts.main import main
from vlamem.sim.bench.taps.options import TapsBench
from vlamem.sim.bench.taps.run import taps_of

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries announce their own deprecations


def test_a_smoke_test_probes_a_shipped_policy_and_a_checkpoint(tmp_path: Path) -> None:
    words = ["--preset", "smoke", "--policies", "tiny", "lerobot_cases:act", "--results", str(tmp_path)]
    assert main(["bench", "taps", *words]) == 0
    page = (tmp_path / "taps.md").read_text()
    assert "| tiny | **its encoder** |" in page
    assert "| act | **vision:mean** |" in page
    assert "| act | encoder:mean |" in page
    assert "random weights" in page
    figures = json.loads((tmp_path / "taps.json").read_text())["figures"]
    assert figures["lamp_colour_tiny_its_encoder"]["n"] > 0
    assert figures["lamp_colour_act_vision_mean"]["n"] > 0
    assert figures["tick_ms_act_encoder_mean"]["value"] > 0


def test_a_tapped_network_is_the_one_loaded_with_that_tap(tmp_path: Path) -> None:
    folder = build("smolvla", tmp_path / "smolvla")
    policy = loaded(folder, "smolvla", "?hz=20")
    found = {name: (other, default) for name, other, default in taps_of(policy, ("mean", "grid2"))}
    assert [name for name, (_, default) in found.items() if default] == ["vision:grid2"]
    seen = observation()
    for name, (other, _) in found.items():
        again = loaded(folder, "smolvla", f"?hz=20&tap={name}")
        assert other.network is policy.network
        assert other.spec == again.spec
        assert (other.encode(seen).z == again.encode(seen).z).all()


def test_a_grid_is_left_out_where_tokens_are_no_square(tmp_path: Path) -> None:
    policy = loaded(build("smolvla", tmp_path / "smolvla"), "smolvla")
    names = [name for name, _, _ in taps_of(policy, ("mean", "grid2"))]
    assert "vision:grid2" in names
    assert "prefix:mean" in names
    assert "prefix:grid2" not in names
    with pytest.raises(CheckpointError, match="no square grid"):
        policy.tapped("prefix:grid2")


def test_each_task_has_one_cue() -> None:
    with pytest.raises(ValueError, match="one cue for each task"):
        replace(preset(TapsBench, "bench_taps"), cues=("lamp_colour",))
