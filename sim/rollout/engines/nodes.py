"""What a node of a cluster has to have in common with the machine that a run was begun on."""

from collections.abc import Mapping
from typing import Any


def versions_here(package: str, packages: tuple[str, ...]) -> dict[str, Any]:
    """Host, Python, whether `package` can be imported, and versions of `packages`, where this runs.

    Sent to nodes by value, so that it says something where nothing of this project is installed: it may use the
    standard library alone.
    """
    import importlib.util
    import platform
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    has = importlib.util.find_spec(package) is not None
    return {"host": platform.node(), "python": platform.python_version(), "has": has, "packages": found}


def complaint(found: Mapping[str, Any], package: str, python: str, packages: Mapping[str, str]) -> str | None:
    """What keeps a node from playing as this machine does, in a line, or None.

    Args:
        found: of the node, as `versions_here` gives it for `package`.
        python, packages: versions that the run was begun with.
    """
    host = found["host"]
    if not found["has"]:
        return f"node {host} has no {package}: install it there, as on this machine"
    if found["python"] != python:
        return f"node {host} has Python {found['python']} and this run {python}: use the same on every node"
    for name, version in packages.items():
        theirs = found["packages"].get(name)
        if theirs is None:
            return f"node {host} has no {name}: install {name} {version} there, as on this machine"
        if theirs != version:
            return f"node {host} has {name} {theirs} and this run {version}: install the same on every node"
    return None
