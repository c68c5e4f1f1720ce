"""Time and bytes of one memory tick."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.kernels.options import KernelsBench

BENCH = Bench(
    name="kernels",
    summary="latency, throughput and bytes of the memory update",
    description="""\
Time and bytes of a memory tick beside a GRU, a KV cache and a naive scan; writes docs/results/kernels.md.

Example: vlamem bench kernels --preset quick""",
    options=KernelsBench,
    run="vlamem.sim.bench.kernels.run:run",
    environment={
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "OMP_NUM_THREADS": "1",
    },
)

__all__ = ["BENCH", "KernelsBench"]
