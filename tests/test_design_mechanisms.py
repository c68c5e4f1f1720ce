"""The designs that follow published systems: each keeps its promises and bytes, and does what it is named for."""

import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlamem.memory.designs import DESIGNS, design, make_design
from vlamem.memory.designs.fading_precision import unpacked
from vlamem.memory.head import HeadConfig, HeadParams
from vlamem.memory.protocol import Memory, state_bytes
from vlamem.memory.train.loop import TrainConfig, train
from vlamem.memory.train.losses import Batch, Targets
from vlamem.sim.rollout.ablations import noise_like
from vlamem.sim.suites.synthetic import RecallConfig, key_of, recall_streams, vocabulary
from vlamem.testing import check_memory

HEAD = HeadConfig(answer=4)
NAMES = (
    "delta_window", "hebbian", "competitive_slots", "worst_predicted", "merging_bank", "retention", "surprise_events",
    "blocks", "fading_precision",
)  # fmt: skip
"""Those here; a cache of the first ticks and a window is tested with the other caches, in test_baselines."""
PAGE = Path(__file__).resolve().parent.parent / "docs" / "designs.md"
pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize("name", NAMES)
def test_every_design_conforms(name: str) -> None:
    check_memory(design(name).make(16, HEAD), ticks=20, batch=2)


def test_the_page_of_designs_has_each_with_its_bytes() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \| (?:`(.+)` )?\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == sorted(DESIGNS)
    for name, says, options in rows:
        small = make_design(name, 16, HEAD)
        assert f"{state_bytes(small.init(2), 2):,.0f}" == says, name
        assert name == "kv_growing" or 4000 < state_bytes(small.init(2), 2) <= 4224, name
        if options:
            large = state_bytes(make_design(f"{name}?{options}", 16, HEAD).init(2), 2)
            assert 64_000 <= large <= 65_536, name
        if name in NAMES:
            doc = " ".join((type(small).__doc__ or "").split())
            assert f"{says} bytes; {options} takes {large:,.0f}." in doc, name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("delta_window?window=0", "window of DeltaWindowMemory is 0: expected 1 or more"),
        ("merging_bank?entries=1", "entries of MergingBankMemory is 1: expected 2 or more"),
        ("retention?capacity=-0.1", "capacity of RetentionMemory is -0.1: expected 0 or more"),
        ("competitive_slots?slots=3&winners=4", "winners of CompetitiveSlotsMemory is 4: expected 3 at most"),
        ("worst_predicted?renew=1.5", "renew of WorstPredictedMemory is 1.5: expected more than 0 and at most 1"),
        ("first_and_window?entries=4", "first of FirstAndWindowMemory is 4: expected 0 to 3, below its entries"),
        ("blocks?blocks=2&looked_up=2", "looked_up of BlocksMemory is 2: expected 1 at most"),
        ("fading_precision?rank=5", "rank of FadingPrecisionMemory is 5: expected an even number"),
    ],
)
def test_sizes_that_a_design_cannot_have_are_named(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_design(text, 16, HEAD)


SIZE = 4
E = np.eye(SIZE, dtype=np.float32)
"""Features of the tests below; a feature is its own key, query and value, up to length."""


@functools.cache
def stepper(memory: Memory) -> Any:
    return jax.jit(memory.step)


def played(name: str, zs: Any, parts: int = 1, **changed: Any) -> tuple[list[Any], np.ndarray]:
    """The state after each of the features `zs`, and the read-out at each, of `parts` times SIZE entries.

    `changed` are options of the design and, where it has no such option, parameters.
    """
    kind, R = design(name), parts * SIZE
    fields = {name: changed.pop(name) for name in list(changed) if name in kind.__dataclass_fields__}
    memory = kind.make(SIZE, HeadConfig(answer=R, hidden=R), **fields)
    # a head that answers with the read-out: its hidden layer is kept above 0
    plain = HeadParams(np.zeros((SIZE, R)), np.eye(R), np.full(R, 64.0), np.eye(R, R + 1, 1), np.append(0, [-64.0] * R))
    params = memory.init_params(jax.random.key(0))
    if hasattr(params, "pairs"):
        sharpness = changed.pop("sharpness", 8.0)
        changed["pairs"] = params.pairs._replace(k=E, q=E, v=E, sharpness=sharpness)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params._replace(head=plain, **changed))
    step, state, no = stepper(memory), memory.init(1), np.zeros(1, bool)
    states, read = [], []
    for z in np.asarray(zs, np.float32):
        state, out = step(params, state, z[None], no)
        states.append(jax.tree.map(lambda x: np.asarray(x[0]), state))
        read.append(np.asarray(out.answer[0]))
    return states, np.array(read)


def test_what_leaves_the_exact_window_is_written_by_the_delta_rule() -> None:
    states, read = played(
        "delta_window", [E[0], E[1]] * 4, parts=2, width=SIZE, window=2, gates_bias=np.array([0.0, 20.0])
    )
    assert not states[1].S.any(), "both ticks are in the window"
    np.testing.assert_allclose(states[2].S, 0.5 * np.outer(E[0], E[0]), atol=1e-5)
    assert states[4].S[0, 0] == pytest.approx(0.75, abs=1e-5), "half of what is missing, not half again"
    np.testing.assert_allclose(read[3], [0, 0.5, 0, 0, 0, 1, 0, 0], atol=1e-3)


def test_a_hebbian_write_is_scaled_by_relevance_and_adds_up_to_a_bound() -> None:
    closed = {"width": SIZE, "leak_logit": -30.0, "fade_logit": 0.0}
    written = {}
    for last in (0, 1):
        states, _ = played("hebbian", [E[0]] * 3 + [E[last]], resonance=2.0, **closed)
        written[last] = np.abs(states[-1].W - states[-2].W).sum()
    assert written[0] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-4), "what goes with the context"
    assert written[1] == pytest.approx(0.5, abs=1e-4)
    states, _ = played("hebbian", [E[0]] * 60, width=SIZE, resonance=0.0, leak_logit=-np.log(3.0))
    assert states[5].W[0, 0] > 1.0, "what is held already is not subtracted"
    assert states[-1].W[0, 0] == pytest.approx(4.0, abs=0.01), "the length of a value over the leak"


def test_slots_compete_for_a_tick_and_what_the_winner_held_is_consolidated() -> None:
    zs = [E[0], E[1], E[0] + 0.5 * E[3], E[0]]
    how = {"address": E[:3], "write_bias": 20.0}
    states, read = played("competitive_slots", zs, parts=2, slots=3, width=SIZE, winners=1, **how)
    np.testing.assert_allclose(states[1].values, [E[0], E[1], np.zeros(4)], atol=1e-5)
    assert not states[1].long_term.any(), "empty slots were taken: nothing was displaced"
    np.testing.assert_allclose(states[2].values, [zs[2], E[1], np.zeros(4)], atol=1e-5)
    np.testing.assert_allclose(states[2].long_term, 0.5 * np.outer(E[0], E[0]), atol=1e-5)
    np.testing.assert_allclose(read[3][SIZE:], states[3].long_term @ E[0], atol=1e-4)


def test_the_buffer_keeps_the_ticks_that_the_fading_state_predicted_worst() -> None:
    zs = [E[0]] * 6 + [E[1]] + [E[0]] * 3
    how = {"gates_bias": np.array([0.0, 20.0]), "renew": 0.9}
    states, read = played("worst_predicted", zs, parts=2, width=SIZE, entries=2, **how)
    first = np.log(2.0)
    assert sorted(states[6].errors) == pytest.approx([first * 0.9**6, first], abs=1e-4)
    np.testing.assert_allclose(states[9].keys, states[6].keys, atol=1e-6)
    np.testing.assert_allclose(sorted(states[6].keys.argmax(-1)), [0, 1])
    np.testing.assert_allclose(read[6][SIZE:], E[1], atol=1e-3)
    renewed, _ = played("worst_predicted", [E[0], E[1], *[E[0]] * 60, E[2]], parts=2, width=SIZE, entries=2, **how)
    assert E[2].tolist() in renewed[-1].keys.tolist(), "errors fade, so that later ticks find a place"


def test_a_full_bank_merges_its_two_most_similar_neighbours_and_no_others() -> None:
    close = 0.6 * E[0] + 0.8 * E[3]
    states, read = played("merging_bank", [E[0], E[1], E[0], close, E[2]], width=SIZE, entries=3)
    assert states[2].ticks.tolist() == [1, 1, 1]
    # the first and the third are alike, and not neighbours
    assert states[3].ticks.tolist() == [1, 1, 2]
    np.testing.assert_allclose(states[3].values, [E[0], E[1], (E[0] + close) / 2], atol=1e-5)
    assert states[4].ticks.sum() == 5
    assert states[4].ticks[-1] == 1, "the newest is an entry of its own"
    np.testing.assert_allclose(read[4], E[2], atol=0.02)


def test_the_first_ticks_stay_and_a_window_follows() -> None:
    zs = np.random.default_rng(0).standard_normal((10, SIZE))
    states, _ = played("first_and_window", zs, width=SIZE, entries=4, first=2, k=E, v=E)
    np.testing.assert_allclose(states[-1].kept[:, :SIZE], zs[[0, 1, 8, 9]], atol=1e-6)


def test_the_entry_with_the_least_retention_makes_room_and_not_the_oldest() -> None:
    lasting, passing = E[0] + E[3], E[1] - E[3]
    how = {"retain": 10 * E[3], "retain_bias": 0.0}
    states, _ = played("retention", [lasting, passing, E[2], E[1]], width=SIZE, entries=2, **how)
    assert states[1].values.tolist() == [lasting.tolist(), passing.tolist()]
    assert states[2].values.tolist() == [lasting.tolist(), E[2].tolist()]
    assert states[3].values.tolist() == [lasting.tolist(), E[1].tolist()]
    assert states[3].age.tolist() == [3, 0]
    window, _ = played("retention", [lasting, passing, E[2]], width=SIZE, entries=2)
    assert window[2].values.tolist() == [E[2].tolist(), passing.tolist()], "at equal retentions the oldest goes"


def test_a_surprise_begins_an_event_which_is_read_with_its_neighbours_in_time() -> None:
    zs = [E[0]] * 10 + [E[1]] * 5 + [E[2]] * 5 + [E[1]]
    states, read = played("surprise_events", zs, parts=3, width=SIZE, events=4)
    assert states[9].ticks.tolist() == [0, 0, 0, 10]
    assert states[19].ticks.tolist() == [0, 10, 5, 5]
    np.testing.assert_allclose(states[19].values[1:], E[:3], atol=1e-5)
    event, before, after = read[20].reshape(3, SIZE)
    np.testing.assert_allclose(event, E[1], atol=0.01)
    np.testing.assert_allclose(before, (E[0] + E[2]) / 2, atol=0.01)
    np.testing.assert_allclose(after, E[2] / 2, atol=0.01)


def test_only_the_blocks_that_suit_the_query_are_read() -> None:
    zs = [E[0], E[0], E[1], E[1], E[0], E[2], E[2]]
    states, read = played("blocks", zs, width=SIZE, blocks=3, length=2, looked_up=1, sharpness=0.0)
    np.testing.assert_allclose(read[4], E[0], atol=1e-4, err_msg="of the two blocks before, that of E[1] is left out")
    np.testing.assert_allclose(read[2], (2 * E[0] + E[1]) / 3, atol=1e-4)
    assert [int(state.filled.sum()) for state in states] == [1, 2, 3, 4, 5, 6, 5]
    np.testing.assert_allclose(states[6].values[0], [E[1], E[1]], atol=1e-6)


def test_a_latent_loses_precision_as_it_grows_older() -> None:
    zs = np.random.default_rng(1).uniform(-2, 2, (5, SIZE))
    sizes = {"rank": SIZE, "width": SIZE, "fine": 1, "coarse": 1, "coarsest": 2}
    states, _ = played("fading_precision", zs, latent=E, **sizes)
    exact, state = np.tanh(zs)[::-1], states[-1]
    np.testing.assert_allclose(state.fine[0], exact[0], atol=1e-6)
    off = [
        np.abs(state.coarse[0] / 127 - exact[1]).max(),
        np.abs(unpacked(jnp.asarray(state.coarsest[None]))[0] - exact[2:4]).max(),
    ]
    assert 1e-4 < off[0] <= 0.5 / 127 + 1e-6
    assert 1e-2 < off[1] <= 0.5 / 7 + 0.5 / 127 + 1e-6
    assert [int(s.ticks) for s in states] == [1, 2, 3, 4, 4]


def test_noise_in_the_place_of_a_state_reaches_whole_numbers_too() -> None:
    state = {"coarse": np.array([[-100, 3], [127, 0]], np.int8), "packed": np.array([16, 240], np.uint8)}
    draw = np.random.default_rng(0)
    for name, x in state.items():
        drawn = np.stack([noise_like(x, draw) for _ in range(200)])
        assert drawn.dtype == x.dtype, name
        assert drawn.shape == (200, *x.shape), name
        assert x.min() <= drawn.min() < x.min() + 20
        assert x.max() - 20 < drawn.max() <= x.max()
    filled = np.array([True, False])
    assert noise_like(filled, draw) is filled


WORDS = vocabulary(0, keys=8, values=2, size=16)
RECALL = RecallConfig((3,), queries=6)


def recall(key: jax.Array) -> Batch:
    streams = recall_streams(key, RECALL, WORDS, 16)
    targets = Targets(streams.query.astype(jnp.float32), answer=streams.answer)
    return Batch(streams.z, streams.reset, targets, streams.event)


def test_a_bank_with_an_objective_of_its_own_learns_to_recall() -> None:
    memory = make_design("retention?width=16&entries=12", 16, HeadConfig(answer=2, hidden=16))
    config = TrainConfig(updates=40, learning_rate=2e-2, write_cost=0.0)
    _, losses = train(memory, config, [(1.0, recall)], key_of(0, "recall")[None])
    error = np.asarray(losses.action_error[:, 0])
    assert error[-5:].mean() < 0.5 * error[:5].mean()
