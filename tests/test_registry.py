"""policies/registry.py"""

import hashlib
from pathlib import Path

import pytest
from policy_cases import imported_late

from vlamem.policies.registry import PolicyError, absolute, find_policy, load_policy, preload_policy, shipped_weights


def test_a_weights_file_is_found_with_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"weights")
    source = find_policy(str(path))
    assert source.weights == path
    assert source.sha256 == hashlib.sha256(b"weights").hexdigest()


def test_a_damaged_weights_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"mine\.safetensors"):
        load_policy(find_policy(str(path)))


def test_a_shipped_name_and_a_weights_file_are_no_checkpoint_whatever_folders_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from vlamem.policies.tiny.policy import TinyVLA

    weights = shipped_weights("tiny").read_bytes()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert isinstance(load_policy(find_policy("tiny")), TinyVLA)
    (tmp_path / "tiny" / "mine.safetensors").write_bytes(weights)
    assert isinstance(load_policy(find_policy("tiny/mine.safetensors")), TinyVLA)  # reads like a hub id
    with pytest.raises(ValueError, match=r"\./tiny has no config\.json"):
        find_policy("./tiny")


def test_an_absolute_name_means_the_same_policy_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("checkpoint", "the backbone", "tiny"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mine.safetensors").touch()
    assert absolute("mine.safetensors") == str(tmp_path / "mine.safetensors")
    assert absolute("checkpoint") == str(tmp_path / "checkpoint")
    full = absolute("checkpoint?hz=20&backbone=the backbone&camera.top=front")
    assert full == f"{tmp_path}/checkpoint?hz=20&backbone={tmp_path}/the%20backbone&camera.top=front"
    assert absolute(full) == full
    for name in ("tiny", "org/name", "org/name?tokenizer=org/words", "point_mass:policy", "expert"):
        assert absolute(name) == name


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("tinny", "did you mean 'tiny'"),
        ("tiny_libero", "did you mean 'tiny-libero'"),
        ("expret", "did you mean 'expert'"),
        ("zzz", "a .safetensors file, or a folder"),
        ("gone.safetensors", "no weights at gone"),
    ],
)
def test_an_unknown_policy_names_the_nearest(name: str, complaint: str) -> None:
    with pytest.raises(PolicyError, match=complaint):
        find_policy(name)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("point_mass:nothing", "is not there"),
        ("no_such_module:policy", "needs the module 'no_such_module'"),
        ("expert", "made by a suite"),
    ],
)
def test_a_policy_that_cannot_be_loaded_says_why(name: str, complaint: str) -> None:
    with pytest.raises(PolicyError, match=complaint):
        load_policy(find_policy(name))


@pytest.mark.parametrize("name", ["point_mass:nothing", "no_such_module:policy"])
def test_what_cannot_be_imported_is_known_before_it_is_loaded(name: str) -> None:
    with pytest.raises(PolicyError):
        preload_policy(find_policy(name))


def test_after_preloading_the_shipped_policy_loading_imports_nothing_of_weight() -> None:
    pytest.importorskip("torch")
    late = imported_late("tiny")
    assert not {"torch", "safetensors", "vlamem"} & {name.partition(".")[0] for name in late}, late


class Forgetful:
    """Has all that a frozen policy declares but what it reads at once and where its sampler is entered."""

    spec = encode = sample = context_of = None


def test_a_policy_of_ones_own_that_declares_too_little_is_refused_by_what_is_missing() -> None:
    with pytest.raises(PolicyError, match=r"'test_registry:Forgetful' has no history, lowest_start, which"):
        load_policy(find_policy("test_registry:Forgetful"))


def test_a_policy_of_ones_own_is_made_by_its_factory() -> None:
    assert load_policy(find_policy("point_mass:policy")).spec.name == "points"
