"""vlamem.wrap with dictionaries of gymnasium, lerobot and openpi, without noise, and without an axis for the rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from memory_policy_cases import Wide, noise_for, observations

import vlamem
from vlamem.core.observation import Observation
from vlamem.policies.observation_keys import DictionaryReader, ObservationError, keys_of

SPEC = replace(Wide().spec, cameras=("top", "wrist"), proprioception_size=4)
DRAW = np.random.default_rng(0)
TOP, WRIST = (DRAW.integers(0, 255, (2, 16, 16, 3), dtype=np.uint8) for _ in range(2))
BODY = DRAW.standard_normal((2, 4)).astype(np.float32)
SENTENCE = "touch it"


def floating(images: Any) -> Any:
    return np.moveaxis(images / np.float32(255), -1, -3)


FORMS = {
    "plain": {"top": TOP, "wrist": WRIST, "proprioception": BODY, "instruction": SENTENCE},
    "gymnasium": {"pixels": {"top": TOP, "wrist": WRIST}, "agent_pos": BODY.astype(float), "prompt": SENTENCE},
    "lerobot": {
        "observation.images.top": floating(TOP), "observation.images.wrist": floating(WRIST),
        "observation.state": BODY, "task": [SENTENCE] * 2,
    },
    "openpi": {
        "observation/top": TOP, "observation/wrist": WRIST, "observation/state": BODY,
        "prompt": np.array([SENTENCE] * 2),
    },
    "openpi of ALOHA": {"images": {"top": TOP, "wrist": np.moveaxis(WRIST, -1, 1)}, "state": BODY, "prompt": SENTENCE},
}  # fmt: skip


def row(form: dict[str, Any], index: int) -> dict[str, Any]:
    """One row of a form, without its axis."""
    return {
        key: row(value, index) if isinstance(value, dict) else value if isinstance(value, str) else value[index]
        for key, value in form.items()
    }


def same(seen: Observation, top: Any, wrist: Any, body: Any) -> None:
    for ours, theirs in ((seen.images["top"], top), (seen.images["wrist"], wrist), (seen.proprioception, body)):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert seen.instruction == (SENTENCE,) * len(top)


@pytest.mark.parametrize("form", FORMS)
def test_each_librarys_dictionary_is_read_with_and_without_an_axis_for_the_rows(form: str) -> None:
    reader = DictionaryReader(SPEC)
    seen, single = reader.read(FORMS[form], 2)
    assert not single
    same(seen, TOP, WRIST, BODY)
    seen, single = reader.read(row(FORMS[form], 1), 1)
    assert single
    same(seen, TOP[1:], WRIST[1:], BODY[1:])


def test_other_names_are_told_and_several_parts_of_a_state_are_joined_in_their_order() -> None:
    given = {
        "observation/image": TOP, "observation/wrist_image": WRIST, "observation/joints": BODY[:, :3],
        "observation/gripper": BODY[:, 3:], "prompt": SENTENCE,
    }  # fmt: skip
    rename = {
        "observation/image": "top", "observation/wrist_image": "wrist", "observation/joints": "proprioception",
        "observation/gripper": "proprioception",
    }  # fmt: skip
    same(DictionaryReader(SPEC, rename).read(given, 2)[0], TOP, WRIST, BODY)
    del given["observation/gripper"]
    with pytest.raises(ObservationError, match="no 'observation/gripper', a part of the proprioception"):
        DictionaryReader(SPEC, rename).read(given, 2)
    with pytest.raises(ValueError, match="rename a=front: this policy reads top, proprioception, instruction"):
        vlamem.wrap(Wide(), rename={"a": "front"})


def test_an_image_without_a_name_is_that_of_a_policy_with_one_camera_where_there_is_no_other() -> None:
    reader = DictionaryReader(replace(SPEC, cameras=("front",)))
    given = {"pixels": TOP, "agent_pos": BODY, "task": SENTENCE}
    np.testing.assert_array_equal(reader.read(given, 2)[0].images["front"], TOP)
    with pytest.raises(ObservationError, match="the observation has no 'front'"):
        reader.read(given | {"back": WRIST}, 2)
    with pytest.raises(ObservationError, match="the observation has no 'top'"):
        DictionaryReader(SPEC).read(given, 2)


def test_a_sentence_is_told_once_where_dictionaries_have_none() -> None:
    given = {key: value for key, value in FORMS["plain"].items() if key != "instruction"}
    with pytest.raises(ObservationError, match=r"no 'instruction' .* give wrap instruction='...'"):
        DictionaryReader(SPEC).read(given, 2)
    assert DictionaryReader(SPEC, instruction="go").read(given, 2)[0].instruction == ("go", "go")
    assert DictionaryReader(SPEC, instruction="go").read(FORMS["plain"], 2)[0].instruction == (SENTENCE,) * 2
    assert DictionaryReader(replace(SPEC, reads_instruction=False)).read(given, 2)[0].instruction == ("", "")
    stateless = DictionaryReader(replace(SPEC, proprioception_size=0), instruction="go")
    assert stateless.read({"top": TOP, "wrist": WRIST}, 2)[0].proprioception.shape == (2, 0)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"top": TOP[0]}, r"\{'top': 0, 'wrist': 1, 'proprioception': 1\}: expected none, or one in every entry"),
        ({"top": TOP[None]}, r"image 'top' is \[1, 2, 16, 16, 3\]"),
        ({"top": TOP.astype(int)}, r"image 'top' is int64 \[2, 16, 16, 3\]: expected uint8"),
        ({"proprioception": BODY[:, :3]}, r"proprioception is \[2, 3\]: expected \[4\], or \[B, 4\]"),
        ({"proprioception": "low"}, "proprioception is no array of numbers"),
        ({"proprioception": BODY * np.nan}, "not finite"),
        ({"proprioception": BODY[:1]}, "'proprioception' has 1 rows: expected 2"),
        ({"instruction": [SENTENCE]}, "the instruction has 1 rows: expected 2"),
        ({"instruction": [1, 2]}, "expected a sentence, or one a row"),
        ({"instruction": None}, "expected a sentence"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ObservationError, match=complaint):
        DictionaryReader(SPEC).read(FORMS["plain"] | changed, 2)


def test_a_dictionary_of_one_row_gives_its_chunk_and_an_observation_its_rows() -> None:
    policy = vlamem.wrap(Wide())
    obs, noise = observations(policy.policy, 1), noise_for(policy.policy, 1)
    given = {name: image[0] for name, image in obs.images.items()}
    given |= {"state": obs.proprioception[0], "task": obs.instruction[0]}
    chunks = policy.plan(policy.observe(obs), noise)
    assert chunks.shape == (1, policy.spec.horizon, policy.spec.action.size)
    for drawn in (noise, noise[0]):
        np.testing.assert_array_equal(policy.plan(policy.observe(given), drawn), chunks[0])
    tick = policy.observe(given)
    assert policy.decide(tick).chunks.ndim == 3
    np.testing.assert_array_equal(policy.plan(tick.of(np.array([0])), noise), chunks[0])


def test_noise_that_is_not_given_is_a_function_of_seed_row_reset_and_plan() -> None:
    def played(seed: int, rows: int) -> list[Any]:
        policy = vlamem.wrap(Wide(), rows=rows, seed=seed)
        tick = policy.observe(observations(policy.policy, rows))
        found = []
        for _ in range(2):
            policy.reset()
            found += [policy.plan(tick), policy.plan(tick)]
        return found

    three = played(1, 3)
    for again, chunk in zip(played(1, 3), three, strict=True):
        np.testing.assert_array_equal(again, chunk)
    assert len({chunk.tobytes() for chunk in (*three, *played(2, 3))}) == 8
    alone = played(1, 1)[0]  # entries 2 and on are noise alone
    np.testing.assert_array_equal(three[0][:1, :, 2:], alone[..., 2:])

    policy = vlamem.wrap(Wide(), rows=2, seed=1)
    tick = policy.observe(observations(policy.policy, 2))
    kept = policy.plan(tick)
    policy.reset(np.array([True, False]))
    after = policy.plan(tick)
    assert not np.array_equal(after[0], kept[0])
    unreset = vlamem.wrap(Wide(), rows=2, seed=1)
    unreset.plan(unreset.observe(observations(policy.policy, 2)))
    np.testing.assert_array_equal(after[1], unreset.plan(unreset.observe(observations(policy.policy, 2)))[1])


def test_the_server_knows_the_same_keys() -> None:
    from vlamem.deploy.server.observations import ObservationReader

    message = row(FORMS["gymnasium"], 0)
    np.testing.assert_array_equal(ObservationReader(SPEC).read(message).images["wrist"], WRIST[:1])
    assert "agent_pos" in keys_of(SPEC, {})["proprioception"]
