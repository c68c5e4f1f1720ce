"""Files of the project as a whole against each other: licence, versions, citation."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import vlamem

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TESTED = re.findall(
    r"^\| ([\w-]+) \| ([\d.]+) \|", (ROOT / "docs/versions.md").read_text(encoding="utf-8"), re.MULTILINE
)


def pinned() -> dict[str, set[str]]:
    """Versions of each package in the requirements that are installed."""
    found: dict[str, set[str]] = {}
    for name in ("core", "dev", "libero", "mikasa"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        for package, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE):
            found.setdefault(package, set()).add(version)
    return found


@pytest.mark.parametrize(("package", "version"), TESTED)
def test_the_table_of_versions_is_what_is_pinned(package: str, version: str) -> None:
    if package == "Python":
        assert (ROOT / ".python-version").read_text().strip() == version
        assert PROJECT["requires-python"].startswith(f">={version},")
    else:
        assert pinned()[package] == {version}


def test_the_table_has_what_users_ask_for() -> None:
    assert {"Python", "torch", "jax", "mujoco", "lerobot"} <= {package for package, _ in TESTED}


def test_licence_and_version_are_the_same_everywhere() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (PROJECT["license"], PROJECT["version"]) == (cited["license"], cited["version"])
    assert cited["version"] == vlamem.__version__
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def test_every_asset_package_and_vendored_file_is_in_the_notices() -> None:
    notices = (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8")
    texts = (ROOT / "sim/report/vendored/LICENSES.txt").read_text(encoding="utf-8")
    for file in (ROOT / "sim/report/vendored").glob("*.js"):
        assert file.name in texts
    listed = [(ROOT / f"requirements/{name}.in").read_text(encoding="utf-8") for name in ("libero", "mikasa")]
    for line in "\n".join(listed).splitlines():
        package, _, version = line.partition("==")
        if version:
            assert package.rstrip("12345").rstrip("-") in notices, package
    assert "robosuite 1.4.0" in notices
