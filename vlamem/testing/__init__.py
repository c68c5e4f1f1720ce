"""Conformance checks for what others plug in: run them over your own memory or policy before a rollout with it."""

from vlamem.testing.errors import ConformanceError
from vlamem.testing.memory import check_memory
from vlamem.testing.policy import check_policy
from vlamem.testing.suite import check_suite

__all__ = ["ConformanceError", "check_memory", "check_policy", "check_suite"]
