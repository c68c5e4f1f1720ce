"""Memory designs by name. A design is one file here, or anywhere on the path, and one line in DESIGNS."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from vlamem.core.registry import Registry

if TYPE_CHECKING:
    from vlamem.memory.config import HeadConfig
    from vlamem.memory.protocol import Memory


class DesignError(ValueError):
    """A memory design that is unknown or cannot be imported; the message names the mend."""


_KNOWN = {
    "aura": "vlamem.memory.designs.aura.step:AuraMemory",
    "gru": "vlamem.memory.designs.gru:GruMemory",
    "linear_attention": "vlamem.memory.designs.linear_attention:LinearAttentionMemory",
    "fifo": "vlamem.memory.designs.kv_cache:FifoMemory",
    "kv_window": "vlamem.memory.designs.kv_cache:KvWindowMemory",
    "kv_growing": "vlamem.memory.designs.kv_cache:KvGrowingMemory",
    "slots": "vlamem.memory.designs.slots:SlotsMemory",
    "delta_window": "vlamem.memory.designs.delta_window:DeltaWindowMemory",
    "hebbian": "vlamem.memory.designs.hebbian:HebbianMemory",
    "competitive_slots": "vlamem.memory.designs.competitive_slots:CompetitiveSlotsMemory",
    "worst_predicted": "vlamem.memory.designs.worst_predicted:WorstPredictedMemory",
    "merging_bank": "vlamem.memory.designs.merging_bank:MergingBankMemory",
    "first_and_window": "vlamem.memory.designs.kv_cache:FirstAndWindowMemory",
    "retention": "vlamem.memory.designs.retention:RetentionMemory",
    "surprise_events": "vlamem.memory.designs.surprise_events:SurpriseEventsMemory",
    "blocks": "vlamem.memory.designs.blocks:BlocksMemory",
    "fading_precision": "vlamem.memory.designs.fading_precision:FadingPrecisionMemory",
}

DESIGNS: Registry["type[Memory]"] = Registry("memory design", _KNOWN, DesignError)
"""package.module:Class of each design by name; it is imported when it is first asked for."""
design = DESIGNS.get
register = DESIGNS.register


def name_of(memory: "Memory") -> str:
    """The name by which a weights file finds a memory's design again, in any process: known here, or its path."""
    path = f"{type(memory).__module__}:{type(memory).__qualname__}"
    return next((name for name, known in _KNOWN.items() if known == path), path)


def make_design(
    text: str, feature_size: int, head: "HeadConfig", defaults: Mapping[str, Any] | None = None
) -> "Memory":
    """The memory that "NAME?option=value&option=value" describes, for features of `feature_size`.

    Values are read as YAML reads them; `defaults` are options that may be left out. Raises DesignError for an unknown
    design and an option without a value, ValueError for an option that the design has not, or of another type.
    """
    name, _, query = text.partition("?")
    options = dict(defaults or {})
    for part in query.split("&") if query else []:
        option, _, value = part.partition("=")
        if not (option and value):
            raise DesignError(f"memory design {text!r}: expected option=value, got {part!r}")
        options[option] = yaml.safe_load(value)
    return design(name).make(feature_size, head, **options)
