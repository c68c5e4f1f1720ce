import numpy as np
import pytest

from vlamem.memory.designs.aura.journal import SLOT, JournalError, StateJournal
from vlamem.sim.bench.endurance.arms import kill_and_recover


def _state(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((32, 32), n, np.float32), np.full(32, -n, np.float32)


def _recovered(path) -> tuple[int | None, float]:
    W, b = _state(0)
    journal = StateJournal(path)
    tick = journal.recover(W, b)
    journal.close()
    assert np.all(W[0, 0] == W)
    assert np.all(b == -W[0, 0])
    return tick, float(W[0, 0])


def test_the_last_persisted_state_is_recovered(tmp_path):
    path = tmp_path / "state.journal"
    for n in range(1, 6):
        journal = StateJournal(path)
        journal.persist(*_state(n), tick=10 * n)
        journal.close()
        assert _recovered(path) == (10 * n, n)
    assert path.stat().st_size < 2 * SLOT


def test_a_new_journal_holds_nothing(tmp_path):
    assert _recovered(tmp_path / "state.journal") == (None, 0.0)


@pytest.mark.parametrize("at", [0, 9, 40, 2000, 4200])
def test_a_record_spoiled_anywhere_gives_the_one_before(tmp_path, at):
    path = tmp_path / "state.journal"
    journal = StateJournal(path)
    for n in (1, 2, 3):
        journal.persist(*_state(n), tick=n)
    journal.close()
    raw = bytearray(path.read_bytes())
    raw[SLOT + at] ^= 0xFF
    path.write_bytes(raw)
    assert _recovered(path) == (2, 2.0)


def test_a_journal_of_another_size_is_an_error(tmp_path):
    journal = StateJournal(tmp_path / "state.journal")
    journal.persist(*_state(1), tick=1)
    journal.close()
    with pytest.raises(JournalError, match="4224 bytes, not 100"):
        StateJournal(tmp_path / "state.journal", 100)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_process_killed_while_persisting_leaves_exactly_its_last_persisted_state(tmp_path, seed):
    assert kill_and_recover(tmp_path / "state.journal", seed, 0.1 + 0.03 * seed)
