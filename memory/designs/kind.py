"""Every other design as a kind of memory: `gru:FILE`, `kv_window:FILE` and the like."""

from vlamem.memory.designs.registry import design
from vlamem.memory.registry import MemoryKind, MemoryRequest
from vlamem.memory.runner import InjectOptions, JaxRows, RecurrentRunner
from vlamem.memory.weights import WeightsError, identity, load_memory

__all__ = ["DESIGN"]


def load(request: MemoryRequest) -> RecurrentRunner:
    """The memory in a weights file. Raises WeightsError for one of another design or another policy."""
    path = request.name.file
    assert path is not None
    header, memory, params = load_memory(path, identity(request.policy.spec, request.weights_sha256))
    if not isinstance(memory, design(request.name.kind)):
        raise WeightsError(f"{path} is a memory of design '{header.design}': write {header.design}:{path}")
    return RecurrentRunner(request.name.label, JaxRows(memory, params, request.rows), request.options)


DESIGN = MemoryKind(load, InjectOptions, "weights")
