"""A gymnasium environment as a suite of tasks. gymnasium is imported when an environment is made."""

from vlamem.sim.suites.gym.env import GymSuiteEnv
from vlamem.sim.suites.gym.suite import GymSuite, suite_from_gym
from vlamem.sim.suites.gym.view import RENDERED, GymSuiteError

__all__ = ["RENDERED", "GymSuite", "GymSuiteEnv", "GymSuiteError", "suite_from_gym"]
