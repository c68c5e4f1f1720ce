"""Things of one kind by name: each is one line, a name and where it is, and is imported when it is first asked for."""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any


def nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """The hint of an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(known)}"


def load_attribute(path: str) -> Any:
    """What "package.module:ATTRIBUTE" names. Raises ImportError or AttributeError when it is not there."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry[Thing]:
    """Names of things of one kind. A thing of one's own is registered by one line, or named by its path.

    Args:
        what: the kind in an error's words, e.g. "suite".
        entries: "package.module:ATTRIBUTE" by name.
        error: raised for an unknown name and for a path at which nothing is.
    """

    def __init__(self, what: str, entries: Mapping[str, str], error: type[ValueError] = ValueError) -> None:
        self._what, self._entries, self._error = what, dict(entries), error

    def register(self, name: str, path: str) -> None:
        """Adds an entry. Raises ValueError for a name that is taken by another, or a path without ATTRIBUTE."""
        if self._entries.get(name, path) != path:
            raise ValueError(f"{self._what} '{name}' is {self._entries[name]} already: choose another name")
        if ":" not in path:
            raise ValueError(f"{self._what} '{name}' is at {path!r}: expected package.module:ATTRIBUTE")
        self._entries[name] = path

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def get(self, name: str) -> Thing:
        """What is registered as `name`, or what stands at `name` where that is a path package.module:ATTRIBUTE.

        Raises the registry's error for an unknown name, naming the nearest, and for a path at which nothing is.
        """
        path = self._entries.get(name, name)
        if ":" not in path:
            raise self._error(f"unknown {self._what} '{name}': {nearest(name, list(self))}")
        try:
            found: Thing = load_attribute(path)
        except ModuleNotFoundError as error:
            if name in self._entries:
                raise  # a part of this project whose extra is not installed: the command line says which
            raise self._error(
                f"{self._what} '{name}' needs the module '{error.name}': is it installed and on the path?"
            ) from error
        except AttributeError as error:
            raise self._error(
                f"{self._what} '{name}' is not there ({error}): expected package.module:ATTRIBUTE"
            ) from error
        return found
