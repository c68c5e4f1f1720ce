"""Parts of a success memory by name: one line each, imported when it is first asked for."""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any


class Registry:
    """Names of interchangeable parts.

    Args:
        what: the kind of part, for messages, e.g. "verifier".
        entries: "module:attribute" by name.
    """

    def __init__(self, what: str, entries: Mapping[str, str]) -> None:
        self.what, self._entries = what, dict(entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def check(self, name: str) -> str:
        """The name itself. Raises ValueError naming the nearest known name when there is none of this name."""
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(self._entries)}"
            raise ValueError(f"{self.what} {name!r} is unknown: {hint}")
        return name

    def find(self, name: str) -> Any:
        """What is registered under a name. Raises as `check`."""
        module, _, attribute = self._entries[self.check(name)].partition(":")
        return getattr(importlib.import_module(module), attribute)
