"""Memories by name, in one grammar for every verb: KIND[:FILE][?option=value&option=value].

KIND is a registered name, a memory design, or package.module:KIND for one of one's own (package.module:KIND[:FILE]).
Several may be given; what they propose is fused into one proposal.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints, runtime_checkable

import numpy as np
import yaml
from jaxtyping import Float

from vlamem.core.query import parse_query, write_query
from vlamem.core.registry import Registry, load_attribute, nearest
from vlamem.core.spec import PolicySpec
from vlamem.memory.designs.registry import DESIGNS
from vlamem.memory.runner import MemoryRunner

__all__ = ["KINDS", "MemoryKind", "MemoryName", "MemoryNameError", "MemoryRequest", "load_memory", "register"]


class MemoryNameError(ValueError):
    """A memory that does not exist or options that it does not have; the message says which there are."""


class _Kinds(Registry["MemoryKind"]):
    """Kinds by name; a memory design needs no line here, since every one is loaded from its weights alike."""

    def __iter__(self) -> Iterator[str]:
        yield from super().__iter__()
        yield from (name for name in DESIGNS if not super(_Kinds, self).__contains__(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in DESIGNS

    def get(self, name: str) -> "MemoryKind":
        if super().__contains__(name) or (name not in DESIGNS and ":" not in name):
            return super().get(name)
        found: Any = DESIGNS.get(name) if name in DESIGNS else super().get(name)
        if isinstance(found, MemoryKind):
            return found
        if isinstance(found, type) and hasattr(found, "init_params"):
            kind: MemoryKind = load_attribute("vlamem.memory.designs.kind:DESIGN")
            return kind
        raise MemoryNameError(f"memory '{name}' is {found!r}: expected a MemoryKind or a memory design")


KINDS = _Kinds(
    "memory",
    {"aura": "vlamem.memory.designs.aura.kind:AURA", "success": "vlamem.memory.success.kind:SUCCESS"},
    MemoryNameError,
)
"""Kinds of memory: these, every memory design, and kinds of one's own: `register(name, "package.module:KIND")`."""
register = KINDS.register

_OLD = {
    "always": "aura?gate=always",
    "never": "aura?gate=never",
    "random": "aura?gate=random",
    "periodic": "aura?gate=periodic",
    "baseline": "gru, kv_window or kv_growing",
}
"""Names of version 0.1 and what they are called now."""


@runtime_checkable
class PolicyView(Protocol):
    """What a memory may know of the frozen policy that it is for."""

    @property
    def spec(self) -> PolicySpec:
        """Sizes and conventions."""
        ...

    def context_of(self, instruction: list[str]) -> Float[np.ndarray, "B C"]:
        """The conditioning vector of each sentence."""
        ...


@dataclass(frozen=True)
class MemoryName:
    """A memory as the user gave it, taken apart.

    Attributes:
        kind: a registered name or package.module:KIND.
        file: its weights or its database, or None.
        options: name and text of each option.
    """

    kind: str
    file: Path | None = None
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str, shipped: Mapping[str, Path] | None = None) -> "MemoryName":
        """From e.g. "aura", "aura:gate.safetensors?inject=chunk". Raises MemoryNameError.

        `shipped` has the files of kinds that come with weights; they need no FILE.
        """
        location, _, query = text.partition("?")
        kind, _, file = location.partition(":")
        if kind not in KINDS and kind not in _OLD and _is_module(kind):
            attribute, _, file = file.partition(":")
            kind = f"{kind}:{attribute}"
        if kind in _OLD:
            raise MemoryNameError(f"memory '{kind}' is now called {_OLD[kind]}: write '{_renamed(kind, file)}'")
        found = KINDS.get(kind)
        path = Path(file) if file else (shipped or {}).get(kind)
        if file and found.file == "none":
            raise MemoryNameError(f"memory '{text}' takes no file: leave ':{file}' out")
        if path is None and found.file == "weights":
            raise MemoryNameError(f"memory '{kind}' needs weights, {kind}:FILE: train them with 'vlamem train-gate'")
        if path is None and found.file == "database":
            raise MemoryNameError(f"memory '{kind}' needs its file, {kind}:FILE: it is made when missing")
        if path is not None and found.file == "weights" and not path.is_file():
            raise MemoryNameError(f"memory '{text}' has no weights at {path}: train them with 'vlamem train-gate'")
        name = cls(kind, path, tuple(parse_query(query)))
        name.read_options()
        return name

    def __str__(self) -> str:
        place = "" if self.file is None else f":{self.file}"
        return f"{self.kind}{place}{'?' if self.options else ''}{write_query(self.options)}"

    @property
    def sha256(self) -> str | None:
        """Of the weights; None for a memory without any."""
        if self.file is None or KINDS.get(self.kind).file != "weights":
            return None
        with self.file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    @property
    def label(self) -> str:
        """Kind and options, without files: what an arm of a run is called."""
        read = self.read_options()
        options = "&".join(f"{k}={value}" for k, value in self.options if not isinstance(getattr(read, k), Path))
        return f"{self.kind}?{options}" if options else self.kind

    @property
    def learns(self) -> bool:
        """Whether it stores episodes when they have ended, so that each depends on those before it."""
        return KINDS.get(self.kind).learns(self.read_options())

    def read_options(self) -> Any:
        """The kind's options, filled. Raises MemoryNameError for an unknown option or a value of another type."""
        kind = KINDS.get(self.kind).options
        hints, known = get_type_hints(kind), [field.name for field in fields(kind)]
        values = {}
        for key, text in self.options:
            if key not in known:
                raise MemoryNameError(f"memory '{self.kind}' has no option '{key}': {nearest(key, known)}")
            values[key] = _value(f"{self.kind}?{key}", hints[key], text)
        try:
            return kind(**values)
        except ValueError as error:
            raise MemoryNameError(f"memory '{self.kind}': {error}") from error


@dataclass(frozen=True)
class MemoryRequest:
    """What a kind makes a runner of.

    Attributes:
        name: as the user gave it.
        options: of the kind's own class.
        policy: the frozen policy that it is for.
        weights_sha256: hash of the policy's weights, where known.
        rows: environments that run side by side.
    """

    name: MemoryName
    options: Any
    policy: PolicyView
    weights_sha256: str | None
    rows: int


@dataclass(frozen=True)
class MemoryKind:
    """A kind of memory.

    Attributes:
        load: makes a runner; raises WeightsError or OriginError for a file of another policy.
        options: a frozen dataclass; its fields are the options after the question mark.
        file: "weights" of one policy, a "database" that is made when missing, or "none".
        learns: whether a memory with these options stores episodes when they have ended; it is then a
            LearnsFromEpisodes.
    """

    load: Callable[[MemoryRequest], MemoryRunner]
    options: type
    file: Literal["weights", "database", "none"]
    learns: Callable[[Any], bool] = lambda options: False


def load_memory(name: MemoryName, policy: PolicyView, weights_sha256: str | None, rows: int) -> MemoryRunner:
    """The memory of a name for B = `rows` rows. Raises what its kind's `load` raises."""
    request = MemoryRequest(name, name.read_options(), policy, weights_sha256, rows)
    return KINDS.get(name.kind).load(request)


def _is_module(name: str) -> bool:
    """Whether what stands before a colon is a module and no kind: package.module, or one that is on the path."""
    return "." in name or (name.isidentifier() and find_spec(name) is not None)


def _renamed(kind: str, file: str) -> str:
    place = f":{file}" if file else ""
    return f"gru{place}" if kind == "baseline" else f"aura{place}?gate={kind}"


def _value(where: str, hint: Any, text: str) -> Any:
    """`text` as a value of an option's type. Raises MemoryNameError naming what was expected."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if any(get_origin(kind) is Literal and text in get_args(kind) for kind in kinds):
        return text
    if Path in kinds:
        return Path(text)
    read = yaml.safe_load(text)
    if read is None and type(None) in kinds:
        return None
    if float in kinds and isinstance(read, int | float) and not isinstance(read, bool):
        return float(read)
    for kind in kinds:
        if isinstance(kind, type) and type(read) is kind:
            return read
    if str in kinds:
        return text
    expected = [get_args(k) if get_origin(k) is Literal else getattr(k, "__name__", str(k)) for k in kinds]
    raise MemoryNameError(f"{where} is '{text}': expected {' or '.join(str(e) for e in expected)}")
