"""Configuration of a verb: a frozen dataclass, filled from YAML, overridden on the command line.

The preset configs/NAME.yaml gives every value, a file of the user's given with `--config` replaces some, and options on
the command line replace some of those. tyro makes the options and their help out of the dataclass.
"""

import difflib
import sys
from collections.abc import Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

RENAMED = {
    "rollout": {
        "speak": "--memory 'aura?inject=context' (chunk, both), or --ablation blend, proposal_only",
        "replan_on_write": "--memory 'aura?replan_on_write=true'",
        "budget": "--memory 'aura?budget=0.02'",
        "abstain_below": "--memory 'aura?abstain_below=0.5'",
        "memory_control": "--ablation freeze, noise or swap",
    },
    "serve": {
        "aura": "--memory aura or aura:FILE",
        "success": "--memory success:FILE",
        "speak": "--memory 'aura?inject=context'",
        "abstain_below": "--memory 'aura?abstain_below=0.5'",
    },
    "bench deploy": {"aura": "--memory aura, aura:FILE or untrained"},
}
"""Options of version 0.1 by verb, and what is written now."""


class ConfigError(ValueError):
    """A key or value that a configuration does not know; the message names it, what was expected and the file."""


def _fits(value: Any, kind: Any, where: str) -> Any:
    """`value` as YAML gave it, as `kind`; raises ConfigError when it is something else."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        rest = [a for a in arguments if a is not NoneType]
        return _fits(value, rest[0], where)
    if origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{where} is {value!r}: choose one of {', '.join(map(repr, arguments))}")
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} is {value!r}: expected a list, e.g. [{value!r}]")
        return tuple(_fits(entry, arguments[0], f"{where}[{i}]") for i, entry in enumerate(value))
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is kind:
        return value
    raise ConfigError(f"{where} is {value!r} ({type(value).__name__}): expected {kind.__name__}")


_LARGEST = 1 << 20


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them stand for more than a machine holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML has no types
            raise yaml.composer.ComposerError(None, None, "aliases have no place in a configuration", mark)
        return super().compose_node(parent, index)


def read_yaml(text: str, cls: type, where: str, renamed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The values for fields of the dataclass `cls` that a YAML text gives.

    Raises ConfigError for text that is no mapping, for an unknown key (naming the nearest known one) and for a value of
    another type; `where` names the file in the message. `renamed` has keys of version 0.1 and what is written now.
    """
    if len(text) > _LARGEST:
        raise ConfigError(f"{where} has {len(text)} letters: a configuration has at most {_LARGEST}")
    try:
        body = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError) as error:  # a date that is none, deep nesting
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())[:500]}") from error
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise ConfigError(f"{where} holds a {type(body).__name__}: expected 'key: value' lines")
    kinds, renamed = get_type_hints(cls), renamed or {}
    known = [f.name for f in fields(cls)]
    for key in body:
        if key not in known:
            if str(key) in renamed:
                raise ConfigError(f"{where}: key '{key}' is of version 0.1, write {renamed[str(key)]}")
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            raise ConfigError(f"{where} has an unknown key '{key}': {hint}")
    return {key: _fits(value, kinds[key], f"{where}: {key}") for key, value in body.items()}


def preset[T](cls: type[T], name: str) -> T:
    """The dataclass `cls` as configs/NAME.yaml has it. Raises ConfigError when a field is missing there or wrong."""
    text = (resources.files("vlamem.configs") / f"{name}.yaml").read_text(encoding="utf-8")
    values = read_yaml(text, cls, f"configs/{name}.yaml")
    missing = [f.name for f in fields(cls) if f.name not in values]  # type: ignore[arg-type]  # any dataclass type
    if missing:
        raise ConfigError(f"configs/{name}.yaml lacks {', '.join(missing)}: a preset gives every key")
    return cls(**values)


def _take_config_option(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """The file given with `--config`, and the other arguments."""
    for i, word in enumerate(arguments):
        if word == "--config":
            if i + 1 == len(arguments):
                raise ConfigError("--config needs a YAML file after it")
            return Path(arguments[i + 1]), arguments[:i] + arguments[i + 2 :]
        if word.startswith("--config="):
            return Path(word.removeprefix("--config=")), arguments[:i] + arguments[i + 1 :]
    return None, arguments


def load_config[T](cls: type[T], verb: str, arguments: list[str], description: str) -> T:
    """The configuration of `vlamem VERB` from its preset, `--config FILE` and the options in `arguments`.

    `verb` is what is typed, e.g. "bench memory-panel"; its preset is configs/bench_memory_panel.yaml.

    `--help` prints `description` and every option, and exits; so does an unknown option, with the nearest known one and
    exit status 2. Raises ConfigError for YAML that does not fit, FileNotFoundError for a missing `--config` file.
    """
    import tyro

    file, options = _take_config_option(arguments)
    renamed = RENAMED.get(verb, {})
    for word in options:
        name = word.partition("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
        if word.startswith("--") and name in renamed:
            raise ConfigError(f"option {word.partition('=')[0]} is of version 0.1: write {renamed[name]}")
    default = preset(cls, verb.replace(" ", "_").replace("-", "_"))
    if file is not None:
        try:
            given = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file} is no text in UTF-8 ({error.reason}): write it anew") from error
        values = read_yaml(given, cls, str(file), renamed)
        default = cls(**({f.name: getattr(default, f.name) for f in fields(cls)} | values))  # type: ignore[arg-type]  # any dataclass type
    text = f"{description.strip()}\n\n--config FILE reads options from YAML; those on the command line win."
    return tyro.cli(cls, prog=f"vlamem {verb}", description=text, default=default, args=options)


def parse[T](cls: type[T], verb: str, arguments: list[str], description: str) -> T:
    """The options of a verb that has no preset, as the dataclass `cls`."""
    import tyro

    return tyro.cli(cls, prog=f"vlamem {verb}", description=description.strip(), args=arguments)


def complain(verb: str, message: str) -> None:
    """One line on standard error, in the form of all of vlamem's errors."""
    print(f"vlamem {verb}: {message}", file=sys.stderr)
