import json

import numpy as np
import pytest
from bench_cases import Progress

from vlamem.memory.weights import WeightsError
from vlamem.scripts.bench import main
from vlamem.sim.bench.endurance import EnduranceBench
from vlamem.sim.bench.endurance.arms import features, written_bytes
from vlamem.sim.bench.endurance.run import run


def test_the_smoke_setting_writes_the_page_its_twin_and_its_plot(tmp_path):
    try:
        assert main(["endurance", "--preset", "smoke", "--folder", str(tmp_path)]) == 0
    except OSError as error:
        if "does not count" in str(error):
            pytest.skip(str(error))
        raise
    figures = json.loads((tmp_path / "smoke" / "endurance.json").read_text())["figures"]
    assert figures["bytes_always"]["value"] > figures["bytes_aura"]["value"] > 0
    assert figures["bytes_kv"]["value"] > 0
    assert figures["always_over_aura"]["value"] > 1
    assert figures["recovered_after_kill"]["value"] == 1
    assert "endurance.png" in (tmp_path / "smoke" / "endurance.md").read_text()
    assert (tmp_path / "smoke" / "endurance.png").exists()


def test_missing_weights_are_an_error_that_names_the_mend(tmp_path):
    bench = EnduranceBench("smoke", tmp_path / "none.safetensors", tmp_path, tmp_path)
    with pytest.raises(WeightsError, match="vlamem bench synthetic"):
        run(bench, "", Progress())


def test_the_event_stream_is_the_same_every_time():
    for once, again in zip(features(50), features(50), strict=True):
        np.testing.assert_array_equal(once, again)


def test_the_operating_system_counts_what_is_written():
    assert written_bytes() >= 0
