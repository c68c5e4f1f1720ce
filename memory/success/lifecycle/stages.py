"""The interchangeable stages in the life of stored experience: one line each, imported when asked for.

A stage of another kind (admission, for one) is a file beside this one and a registry here.
"""

from typing import TYPE_CHECKING, Any

from vlamem.core.registry import Registry

if TYPE_CHECKING:
    from vlamem.memory.success.lifecycle.capacity import EvictionPolicy

VERIFIERS: Registry[Any] = Registry(
    "verifier",
    {
        "predicate": "vlamem.memory.success.lifecycle.verify:PredicateVerifier",
        "operator": "vlamem.memory.success.lifecycle.verify:OperatorVerifier",
        "critic": "vlamem.memory.success.lifecycle.verify:CriticVerifier",
        "none": "vlamem.memory.success.lifecycle.verify:TrustAll",
    },
)
"""Classes of verifiers; an instance judges a trace, see `verify.Verifier`."""

EVICTIONS: Registry["EvictionPolicy"] = Registry(
    "eviction policy",
    {
        "utility": "vlamem.memory.success.lifecycle.capacity:least_useful",
        "fifo": "vlamem.memory.success.lifecycle.capacity:oldest",
        "random": "vlamem.memory.success.lifecycle.capacity:drawn",
    },
)
"""Functions that choose what a full memory deletes, see `capacity.EvictionPolicy`."""
