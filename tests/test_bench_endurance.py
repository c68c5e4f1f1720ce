import json

import numpy as np
import pytest

from vlamem.memory.aura.weights import WeightsError
from vlamem.sim.bench.endurance import EnduranceBench, features, run, shipped_weights, written_bytes


def test_the_page_and_its_twin_come_from_one_run(tmp_path):
    bench = EnduranceBench(40, 1, shipped_weights(), tmp_path / "files", tmp_path, "vlamem bench endurance")
    try:
        page, twin = run(bench, lambda line: None)
    except OSError as error:
        if "does not count" in str(error):
            pytest.skip(str(error))
        raise
    figures = json.loads(twin.read_text())["figures"]
    assert figures["bytes_always"]["value"] > figures["bytes_aura"]["value"] > 0
    assert figures["recovered_after_kill"]["value"] == 1
    assert "endurance.png" in page.read_text()
    assert (tmp_path / "endurance.png").exists()


def test_missing_weights_are_an_error_that_names_the_mend(tmp_path):
    bench = EnduranceBench(10, 0, tmp_path / "none.safetensors", tmp_path, tmp_path, "")
    with pytest.raises(WeightsError, match="vlamem bench synthetic"):
        run(bench, lambda line: None)


def test_the_event_stream_is_the_same_every_time():
    for once, again in zip(features(50), features(50), strict=True):
        np.testing.assert_array_equal(once, again)


def test_the_operating_system_counts_what_is_written():
    assert written_bytes() >= 0
