"""scripts/config.py and scripts/main.py"""

import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from vlamem.scripts.bench import BENCHES
from vlamem.scripts.config import RENAMED, ConfigError, load_config, preset, read_yaml
from vlamem.scripts.main import VERBS, main
from vlamem.sim.rollout.config import RolloutConfig


@dataclass(frozen=True)
class Options:
    """Options of a test."""

    name: str
    count: int
    share: float
    tasks: tuple[str, ...]
    where: Path
    loud: bool
    pace: Literal["slow", "fast"]
    limit: int | None


TEXT = "name: x\ncount: 3\nshare: 1\ntasks: [a, b]\nwhere: runs\nloud: true\npace: fast\nlimit: null\n"


def test_yaml_fills_every_kind_of_field() -> None:
    options = Options(**read_yaml(TEXT, Options, "f.yaml"))
    assert options == Options("x", 3, 1.0, ("a", "b"), Path("runs"), True, "fast", None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("coutn: 3", "unknown key 'coutn': did you mean 'count'"),
        ("zzz: 3", "known keys: name, count"),
        ("count: many", r"f.yaml: count is 'many' \(str\): expected int"),
        ("count: 1.5", "expected int"),
        ("count: true", "expected int"),
        ("tasks: a", "expected a list"),
        ("tasks: [1]", r"tasks\[0\] is 1"),
        ("pace: medium", "choose one of 'slow', 'fast'"),
        ("- a", "holds a list"),
        ("a: [", "is not YAML"),
    ],
)
def test_yaml_that_does_not_fit_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read_yaml(text, Options, "f.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x]\nb: *a",
        "a: &a [" + "x, " * 9 + "]\n" + "".join(f"b{i}: &b{i} [{'*a, ' * 9}]\n" for i in range(9)),
        "[" * 5000,
        "a: 2026-13-45",
        "!!python/object:os.system {}",
        "a: !!timestamp 1",
        "x" * (2 << 20),
        "\x00",
    ],
)
def test_hostile_yaml_is_one_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml"):
        read_yaml(text, Options, "f.yaml")


def test_a_file_that_is_no_text_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        load_config(RolloutConfig, "rollout", ["--config", str(tmp_path / "f.yaml")], "")


def test_command_line_wins_over_file_and_file_over_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("episodes: 7\nseed: 3\n")
    config = load_config(RolloutConfig, "rollout", ["--config", str(file), "--seed", "9", "--tasks", "a", "b"], "")
    default = preset(RolloutConfig, "rollout")
    assert (config.episodes, config.seed, config.tasks) == (7, 9, ("a", "b"))
    assert config.size == default.size


def test_a_missing_config_file_or_value_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", "--config", str(tmp_path / "gone.yaml")]) == 2
    assert main(["rollout", "--config"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_an_unknown_option_exits_2_and_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["rollout", "--episode", "3"])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert "--episodes" in printed.out + printed.err


@pytest.mark.parametrize(
    ("words", "now"),
    [
        (["rollout", "--speak", "chunk"], r"--memory 'aura\?inject=context'"),
        (["rollout", "--speak=blend"], "--ablation blend"),
        (["rollout", "--replan-on-write"], r"--memory 'aura\?replan_on_write=true'"),
        (["rollout", "--no-replan-on-write"], r"--memory 'aura\?replan_on_write=true'"),
        (["rollout", "--budget", "0.1"], r"--memory 'aura\?budget="),
        (["rollout", "--abstain-below", "0.1"], r"--memory 'aura\?abstain_below="),
        (["rollout", "--memory-control", "freeze"], "--ablation freeze, noise or swap"),
        (["serve", "--aura", "shipped"], "--memory aura or aura:FILE"),
        (["serve", "--success", "s.db"], "--memory success:FILE"),
        (["serve", "--speak", "chunk"], r"--memory 'aura\?inject="),
        (["bench", "deploy", "--aura", "untrained"], "--memory aura, aura:FILE or untrained"),
    ],
)
def test_an_option_that_changed_its_name_is_refused_by_the_new_one(
    words: list[str], now: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert re.search(f"is of version 0.1: write .*{now}", printed)
    assert printed.count("\n") == 1


def test_a_key_that_changed_its_name_is_refused_in_a_file_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("episodes: 7\nspeak: chunk\n")
    assert main(["rollout", "--config", str(file)]) == 2
    assert "key 'speak' is of version 0.1, write --memory" in capsys.readouterr().err


def test_no_option_of_today_is_refused_as_an_old_one() -> None:
    for verb in ("rollout", "serve"):
        today = yaml.safe_load((resources.files("vlamem.configs") / f"{verb}.yaml").read_text(encoding="utf-8"))
        assert not today.keys() & RENAMED[verb].keys()


@pytest.mark.parametrize(
    "file", sorted(p.name for p in resources.files("vlamem.configs").iterdir() if p.name.endswith(".yaml"))
)
def test_every_preset_is_a_mapping(file: str) -> None:
    body: Any = yaml.safe_load((resources.files("vlamem.configs") / file).read_text(encoding="utf-8"))
    assert isinstance(body, dict)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_of_every_verb_shows_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = main([verb, "--help"])
    except SystemExit as stop:
        status = stop.code
    assert status == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"vlamem {verb} " in printed.partition("xample: ")[2]
    assert f"usage: vlamem {verb} " in printed


def test_general_help_lists_the_verbs_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from vlamem.scripts.main import main; main(['--help']);"
        "print([m for m in ('numpy', 'jax', 'torch', 'tyro', 'yaml', 'rich') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(verb in printed for verb in VERBS)
    assert printed.endswith("[]\n")


def test_help_of_every_bench_has_its_name_as_it_is_typed_and_imports_nothing_heavy() -> None:
    code = f"""
import contextlib, io, sys
from vlamem.scripts.main import main
for name in {sorted(BENCHES)}:
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main(["bench", name, "--help"])
    assert printed.getvalue().startswith(f"usage: vlamem bench {{name}} "), printed.getvalue()
    heavy = [m for m in ("numpy", "scipy", "jax", "torch", "mujoco", "gymnasium") if m in sys.modules]
    assert not heavy, (name, heavy)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_an_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rolout"]) == 2
    assert "did you mean 'rollout'" in capsys.readouterr().err
    assert main([]) == 2
    assert main(["--version"]) == 0
