"""From a state to an elite action prior: metric, exact search, consistency, aggregation, calibration."""

from vlamem.memory.success.retrieve.calibration import Calibration, calibrate
from vlamem.memory.success.retrieve.index import ExactIndex
from vlamem.memory.success.retrieve.instructions import InstructionMatcher
from vlamem.memory.success.retrieve.metric import Metric, similarity
from vlamem.memory.success.retrieve.prior import Candidates, Prior, RetrieveOptions, elite_prior
from vlamem.memory.success.retrieve.residual import Residual, ResidualOptions, residual_prior
from vlamem.memory.success.retrieve.segments import SegmentIndex

__all__ = [
    "Calibration",
    "Candidates",
    "ExactIndex",
    "InstructionMatcher",
    "Metric",
    "Prior",
    "Residual",
    "ResidualOptions",
    "RetrieveOptions",
    "SegmentIndex",
    "calibrate",
    "elite_prior",
    "residual_prior",
    "similarity",
]
