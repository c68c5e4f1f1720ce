"""Engines: what plays the jobs of a run. One of your own is a file here and a line in ENGINES."""

from vlamem.sim.rollout.engines.protocol import ENGINES, Engine, RunRefusedError, check_not_starting, engine_of

__all__ = ["ENGINES", "Engine", "RunRefusedError", "check_not_starting", "engine_of"]
