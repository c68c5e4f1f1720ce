"""scripts/bench.py: one registry of benches, one command line for all of them."""

import inspect
import json
import os
import tomllib
from dataclasses import fields, is_dataclass, replace
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import get_type_hints

import pytest

from vlamem.core.bench import BenchError, Page, Progress
from vlamem.core.registry import load_attribute
from vlamem.scripts import bench as verb
from vlamem.scripts.bench import BENCHES
from vlamem.scripts.config import preset
from vlamem.scripts.main import main
from vlamem.sim.results.pages import Figure, load_page, write_result_page

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", list(BENCHES))
def test_every_bench_has_the_same_shape(name: str) -> None:
    bench = BENCHES.get(name)
    assert bench.name == name
    assert f"vlamem bench {name}" in bench.description.partition("Example: ")[2]
    assert is_dataclass(preset(bench.options, f"bench_{name.replace('-', '_')}"))
    run = load_attribute(bench.run)
    assert list(inspect.signature(run).parameters) == ["options", "command", "progress"]
    hints = get_type_hints(run)
    assert hints == {"options": bench.options, "command": str, "progress": Progress, "return": Page}
    package = bench.run.partition(":")[0].rpartition(".")[0]
    assert (resources.files(package) / "page.md.j2").is_file()
    assert bench.options.__module__ == f"{package}.options"


@pytest.mark.parametrize("name", list(BENCHES))
def test_every_option_of_a_bench_is_in_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", name, "--help"])
    printed = capsys.readouterr().out
    for field in fields(BENCHES.get(name).options):
        option = f"--{field.name.replace('_', '-')}"
        assert option in printed, field.name


def test_the_list_has_every_bench_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    printed = capsys.readouterr().out
    for name in BENCHES:
        assert any(name in line and BENCHES.get(name).summary in line for line in printed.splitlines())
    assert main(["bench"]) == 2


def test_an_unknown_bench_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sills"]) == 2
    assert capsys.readouterr().err == "vlamem bench: unknown bench 'sills': did you mean 'skills'?\n"


def test_every_template_and_note_is_installed() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    found = [p for top in ("vlamem/core", "sim", "deploy") for p in (ROOT / top).rglob("*.md*")]
    assert len(found) > len(list(BENCHES))
    for path in found:
        assert any(fnmatch(path.name, pattern) for pattern in patterns), path


def pretend(monkeypatch: pytest.MonkeyPatch, run: object) -> None:
    """`run` in the place of what the kernels bench runs."""
    bench = BENCHES.get("kernels")
    monkeypatch.setattr(verb, "load_attribute", lambda path: run)
    monkeypatch.setattr(verb.BENCHES, "get", lambda name: replace(bench, environment={"VLAMEM_TEST_MARK": "set"}))
    monkeypatch.delenv("VLAMEM_TEST_MARK", raising=False)


def test_lines_page_and_twin_of_a_bench_and_figures_for_another_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, object] = {}

    def run(options: object, command: str, progress: Progress) -> Page:
        seen.update(options=options, command=command, mark=os.environ.get("VLAMEM_TEST_MARK"))
        progress.say("a line")
        progress.begin("arm", 1, 3)
        progress.step()
        return Page("mine", "# Mine", {"x": Figure(0.5, 4, (0.1, 0.9))}, tmp_path, {"seed": 7}, add_to="other")

    write_result_page("other", "command", {"y": Figure(1.0)}, "# Other", tmp_path)
    pretend(monkeypatch, run)
    assert main(["bench", "kernels", "--preset", "smoke"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"a line\n{tmp_path / 'mine.md'}\n{tmp_path / 'mine.json'}\n"
    assert "arm" in printed.err
    assert seen["command"] == "vlamem bench kernels --preset smoke"
    assert seen["mark"] == "set"
    twin = load_page("mine", tmp_path)
    assert twin["figures"] == {"x": {"value": 0.5, "n": 4, "ci95": [0.1, 0.9]}}
    assert (twin["command"], twin["fingerprint"]["seed"]) == (seen["command"], 7)
    assert json.loads((tmp_path / "other.json").read_text())["figures"]["x"]["page"] == "mine"


def test_a_bench_that_breaks_off_says_so_in_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: object, command: str, progress: Progress) -> Page:
        raise BenchError("the server did not start")

    pretend(monkeypatch, run)
    assert main(["bench", "kernels", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "vlamem bench kernels: the server did not start\n"
    assert not list(tmp_path.iterdir())


def test_a_variable_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: object, command: str, progress: Progress) -> Page:
        raise BenchError(os.environ["VLAMEM_TEST_MARK"])

    pretend(monkeypatch, run)
    monkeypatch.setenv("VLAMEM_TEST_MARK", "mine")
    main(["bench", "kernels"])
    assert os.environ["VLAMEM_TEST_MARK"] == "mine"
