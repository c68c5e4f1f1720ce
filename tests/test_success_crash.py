"""A killed writer loses nothing that it acknowledged and leaves nothing half done."""

import os

import pytest

from vlamem.memory.success.memory import SuccessMemory
from vlamem.sim.bench.deployment.crash import LAYOUT, OPTIONS, ORIGIN, check, crash_episode, run

KILLS = int(os.environ.get("VLAMEM_TEST_KILLS", "20"))


def test_kills_at_random_moments_are_survived(tmp_path):
    survived, wrong = run(tmp_path, KILLS)
    assert wrong == []
    assert survived == KILLS


@pytest.mark.parametrize("what", ["lost", "invented", "changed"])
def test_the_check_sees_what_must_not_happen(tmp_path, what):
    path = tmp_path / "memory.db"
    memory = SuccessMemory(path, ORIGIN, LAYOUT, OPTIONS)
    memory.commit(crash_episode(0))
    done, tried = {0}, {0}
    if what == "lost":
        done, tried = {0, 1}, {0, 1}
    elif what == "invented":
        done, tried = set(), set()
    else:
        memory.prune(memory.successes.index.ids[:1].copy())
    memory.close()
    assert check(path, done, tried, set(), 0)


def test_a_second_test_in_the_same_folder_begins_anew(tmp_path):
    for _ in range(2):
        assert run(tmp_path, 1, longest_s=0.1) == (1, [])
