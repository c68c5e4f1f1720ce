"""Parts of the engine on Ray that need no cluster: nodes, the queue of jobs, what is refused before a run."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_rollout import config

from vlamem.scripts.config import preset
from vlamem.scripts.main import main
from vlamem.sim.rollout.config import PlanError
from vlamem.sim.rollout.engines.nodes import complaint, versions_here
from vlamem.sim.rollout.trials import JobQueue

PACKAGES = {"numpy": "2.2.6", "torch": "2.11.0"}


def node(**given: Any) -> dict[str, Any]:
    return {"host": "b", "python": "3.12.1", "has": True, "packages": PACKAGES} | given


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (node(), None),
        (node(has=False), "node b has no vlamem: install it there, as on this machine"),
        (node(python="3.11.2"), "node b has Python 3.11.2 and this run 3.12.1: use the same on every node"),
        (node(packages={"numpy": "2.2.6", "torch": None}), "node b has no torch: install torch 2.11.0 there"),
        (node(packages=PACKAGES | {"numpy": "1.26"}), "node b has numpy 1.26 and this run 2.2.6: install the same"),
    ],
)
def test_the_first_thing_in_which_a_node_differs_is_named(found: dict[str, Any], expected: str | None) -> None:
    problem = complaint(found, "vlamem", "3.12.1", PACKAGES)
    assert problem == expected or (expected and problem and problem.startswith(expected))


def test_a_node_says_what_it_has_and_what_it_has_not() -> None:
    found = versions_here("no_such_package", ("numpy", "no-such-distribution"))
    assert not found["has"]
    assert found["packages"] == {"numpy": np.__version__, "no-such-distribution": None}
    assert versions_here("vlamem", ())["has"]


def test_a_job_that_is_put_back_is_the_next_of_its_task_and_none_is_given_twice() -> None:
    queue = JobQueue([("near", (0,)), ("near", (1,)), ("far", (0,))])
    first = queue.take("near", set())
    queue.put_back(first)
    assert [queue.take("near", set()) for _ in range(3)] == [("near", (0,)), ("near", (1,)), ("far", (0,))]
    assert not queue
    queue.put_back(first)
    assert queue.take("far", {"far"}) == ("near", (0,))


def test_a_memory_that_learns_and_no_workers_are_refused_on_other_machines(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="stores episodes in a file of this machine, and engine 'ray' plays on others"):
        config(tmp_path, engine="ray", memory=("success:m.db",))
    config(tmp_path, engine="ray", memory=("success:m.db?commit=false",))
    with pytest.raises(PlanError, match="engine 'ray' has no workers"):
        config(tmp_path, engine="ray", workers=0)


def test_a_bench_plays_its_arms_on_the_engine_that_it_is_given(tmp_path: Path) -> None:
    from vlamem.sim.bench.libero_experts.options import LiberoExpertsBench
    from vlamem.sim.bench.libero_experts.run import config_of

    options = preset(LiberoExpertsBench, "bench_libero_experts")
    assert config_of(options, "libero_object").engine is None
    assert config_of(replace(options, engine="ray"), "libero_object").engine == "ray"


def test_without_ray_the_extra_that_brings_it_is_named_and_no_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "vlamem.sim.rollout.engines.ray", raising=False)
    words = ["rollout", "--suite", "point_mass:SUITE", "--policy", "point_mass:policy", "--engine", "ray"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "needs ray: pip install 'vlamem[ray]'" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
