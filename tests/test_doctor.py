"""sim/doctor.py, sim/gl.py and the verb"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from vlamem.scripts.main import main
from vlamem.sim import doctor, gl


@pytest.fixture(autouse=True)
def _fresh_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)


def test_some_backend_draws_a_picture_and_says_what_drew_it() -> None:
    chosen = gl.choose()
    assert chosen.works
    assert chosen.renderer
    assert chosen.marks() == {"backend": chosen.name, "renderer": chosen.renderer, "software": chosen.software}


def test_a_backend_that_cannot_draw_says_why_and_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(gl.NoGLError, match=r"nonsense: .*set MUJOCO_GL to osmesa or egl"):
        gl.choose()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {
        name: gl.Backend(name, False, problem="no library", mend=f"apt-get install {gl._PACKAGES[name]}")
        for name in gl.BACKENDS
    }
    monkeypatch.setattr(gl, "probe", broken.__getitem__)
    with pytest.raises(gl.NoGLError, match=r"libosmesa6.*libegl1"):
        gl.choose()
    rendering = [c for c in doctor.examine() if c.name == "rendering"]
    assert rendering[0].status == "broken"


def test_doctor_prints_one_json_object_and_fails_only_for_what_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status = main(["doctor", "--json"])
    body = json.loads(capsys.readouterr().out)
    assert status == (0 if body["ok"] else 1)
    by_name = {c["name"]: c for c in body["checks"]}
    assert by_name["numpy"]["status"] == "ok"
    assert by_name["jax devices"]["status"] == "ok"
    assert all(c["mend"] for c in body["checks"] if c["status"] != "ok")

    assert by_name["gate gate.safetensors"]["status"] == "ok"

    damaged = tmp_path / "tiny.safetensors"
    damaged.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    monkeypatch.setattr(doctor, "shipped_weights", lambda name: damaged)
    assert main(["doctor"]) == 1
    assert "broken: weights tiny.safetensors" in capsys.readouterr().out


def test_a_gate_of_other_weights_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_policy", lambda name: SimpleNamespace(sha256="0" * 64))
    found = doctor._gate(doctor.SHIPPED_GATE)
    assert found.status == "broken"
    assert "for other weights" in found.found


def test_a_package_outside_its_declared_versions_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "4.0.1" if name == "mujoco" else "1000")
    mujoco = next(c for c in doctor._packages() if c.name == "mujoco")
    assert mujoco.status == "broken"
    assert "<3.9" in mujoco.mend
