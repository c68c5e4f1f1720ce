"""Code blocks of README and docs: Python runs, commands are ones that the command line takes, links lead somewhere."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tyro

from vlamem.scripts import main as command_line

ROOT = Path(__file__).resolve().parent.parent
ROOTS = ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY", "THIRD_PARTY_NOTICES")
PAGES = [*(ROOT / f"{name}.md" for name in ROOTS), *sorted((ROOT / "docs").glob("*.md")), ROOT / "plugins/README.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+?)(#[^)]*)?\)")


def blocks(page: Path, language: str) -> Iterator[str]:
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if found[1] == language:
            yield found[2]


def commands() -> Iterator[Any]:
    for page in PAGES:
        for i, block in enumerate(blocks(page, "sh")):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["vlamem"] and "..." not in words:
                    yield pytest.param(words[1:], id=f"{page.stem}-{i}-{words[1]}")


class ParsedError(Exception):
    """The command line was taken; what it asks for is not done here."""


@pytest.mark.parametrize("words", list(commands()))
def test_a_command_on_a_page_is_one_that_the_command_line_takes(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, parse_args = tyro.cli, argparse.ArgumentParser.parse_args

    def cli(*given: Any, **options: Any) -> Any:
        real(*given, **options)
        raise ParsedError

    def parse(*given: Any, **options: Any) -> Any:
        parse_args(*given, **options)
        raise ParsedError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tyro, "cli", cli)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises(ParsedError):
        command_line.main(words)


@pytest.mark.skipif(find_spec("robosuite") is None, reason="needs the simulator")
def test_the_loop_in_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    (loop,) = blocks(ROOT / "README.md", "python")
    (tmp_path / "loop.py").write_text(loop, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run(
        [sys.executable, "loop.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert "success: True" in done.stdout, done.stderr


@pytest.mark.skipif(find_spec("gymnasium") is None or find_spec("torch") is None, reason="needs gymnasium and torch")
def test_the_code_on_the_page_of_extensions_runs_as_it_stands(tmp_path: Path) -> None:
    code = "".join(blocks(ROOT / "docs/extending.md", "python"))
    (tmp_path / "page.py").write_text(code + "\nprint(chunk.shape == (policy.spec.horizon, 7))\n", encoding="utf-8")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])  # examples/ lie in the checkout
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_messages_of_the_troubleshooting_page_are_ones_that_the_code_has() -> None:
    folders = ("core", "deploy", "memory", "policies", "requirements", "scripts", "sim", "tests")
    places = [ROOT / ("vlamem/core" if folder == "core" else folder) for folder in folders]
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for place in places
        for path in sorted(place.rglob("*"))
        if path.suffix in (".py", ".sh") and path.name != Path(__file__).name
    )
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) >= 6
    for message in messages:
        assert message in code, message
