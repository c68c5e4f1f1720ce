"""Tests of test_engine_ray: runs on a real Ray cluster of two nodes on this machine."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ray", reason="needs vlamem[ray]")

import ray
from ray.cluster_utils import Cluster
from test_rollout import config, lines

from vlamem.sim.results import pages
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.results.pages import load_results, without_wall_clock
from vlamem.sim.rollout.engines import RunRefusedError
from vlamem.sim.rollout.engines import ray as engine
from vlamem.sim.rollout.run import rollout

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one processor each, which may take their time on a busy machine; this process is connected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "600")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))
        made = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        made.add_node(**NODE)
        patch.setenv(engine.ADDRESS, made.address)
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without Ray that the others have to equal."""
    out = tmp_path_factory.mktemp("here") / "run"
    assert rollout(asked(out)).errors == 1
    return out


def asked(out: Path, **given: Any) -> Any:
    """Eight episodes, one of which raises; those of one task take a second."""
    base = config(out, suite="point_mass:BREAKING", tasks=("slow", "raises"), video=1, workers=0, episodes=4)
    return replace(base, **given)


def records(out: Path) -> list[EpisodeRecord]:
    """In order, times apart."""
    return sorted((replace(r, wall_clock={}) for r in lines(out)), key=lambda r: r.key)


def assert_equal_runs(there: Path, here: Path) -> None:
    assert records(there) == records(here)
    assert without_wall_clock(load_results(there)) == without_wall_clock(load_results(here))
    left = [sorted(p.relative_to(out) for p in out.rglob("*.*")) for out in (there, here)]
    assert left[0] == left[1]
    assert any(path.suffix == ".mp4" for path in left[0])


def test_a_driver_that_was_killed_continues_and_a_lost_node_costs_nothing(
    cluster: Cluster, here: Path, tmp_path: Path
) -> None:
    out = tmp_path / "there"
    words = "--suite point_mass:BREAKING --tasks slow raises --policy point_mass:policy --size 16 --execute 4"
    words += f" --episodes 4 --video 1 --workers 2 --engine ray --out {out}"
    driver = subprocess.Popen([sys.executable, "-m", "vlamem", "rollout", *words.split()])
    deadline = time.monotonic() + 900
    while not (out / "episodes.jsonl").exists() and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    assert 1 <= len(lines(out)) < 8
    assert not (out / "results.json").exists()

    (second,) = cluster.worker_nodes
    played: list[EpisodeRecord] = []

    def lose_a_node(record: EpisodeRecord) -> None:
        if not played:
            cluster.remove_node(second, allow_graceful=False)
        played.append(record)

    end = rollout(asked(out, workers=2, engine="ray"), progress=lose_a_node)
    assert len(played) < 8
    assert not cluster.worker_nodes
    assert (end.done, end.errors) == (8, 1)
    assert_equal_runs(out, here)


def test_nodes_that_cannot_play_the_run_are_named_and_nothing_is_played(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = pages._version
    monkeypatch.setattr(pages, "_version", lambda name: "9.9" if name == "numpy" else version(name))
    with pytest.raises(RunRefusedError, match=r"node \S+ has numpy [\d.]+ and this run 9.9: install the same on every"):
        rollout(asked(tmp_path, workers=1, engine="ray"))
    monkeypatch.undo()
    monkeypatch.setattr(engine, "_PACKAGE", "vlamem_of_elsewhere")
    with pytest.raises(RunRefusedError, match=r"node \S+ has no vlamem_of_elsewhere: install it there"):
        rollout(asked(tmp_path / "other", workers=1, engine="ray"))
    monkeypatch.undo()

    class Broken:
        def __init__(self, *given: object) -> None:
            """Whatever it is given."""

        def start(self) -> None:
            raise RuntimeError("no room")

    monkeypatch.setattr(engine, "RolloutActor", Broken)
    with pytest.raises(RunRefusedError, match=r"no actor can be started: .*Broken.start"):
        rollout(asked(tmp_path / "third", workers=1, engine="ray"))
    assert not list(tmp_path.rglob("episodes.jsonl"))
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("127.0.0.1:1", r"no Ray cluster at RAY_ADDRESS 127.0.0.1:1 \(.*refused\): start one with 'ray start --head'"),
        ("ray://head:10001", r"RAY_ADDRESS is 'ray://head:10001': expected HOST:PORT of a cluster's head node"),
        ("head", "RAY_ADDRESS is 'head': expected HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, complaint: str
) -> None:
    monkeypatch.setenv(engine.ADDRESS, address)
    with pytest.raises(RunRefusedError, match=complaint):
        rollout(asked(tmp_path, workers=1, engine="ray"))
    assert not (tmp_path / "episodes.jsonl").exists()


def test_the_cluster_file_of_the_page_is_one_that_ray_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    page = (Path(__file__).resolve().parent.parent / "docs/scale.md").read_text(encoding="utf-8")
    (text, *_) = (part.split("```")[0] for part in page.split("```yaml\n")[1:])
    described = prepare_config(yaml.safe_load(text))
    validate_config(described)
    assert described["provider"]["worker_ips"] == ["192.0.2.2", "192.0.2.3"]
